//! Content-defined cutting: FastCDC 2020 with default normalisation, as `fastcdc::v2020` does it.

use fastcdc::v2020::FastCDC;

use crate::format::ChunkerParams;

/// A file larger than this is cut into segments of this size, each chunked alone.
pub const SEGMENT: u64 = 64 << 20;

/// Cuts buffers with fixed parameters.
#[derive(Debug, Clone, Copy)]
pub struct Chunker {
    params: ChunkerParams,
}

impl Chunker {
    /// Parameters must have passed [`ChunkerParams::check`].
    pub fn new(params: ChunkerParams) -> Self {
        Chunker { params }
    }

    /// Lengths of the chunks of a whole segment, in order; they sum to its length.
    pub fn cut<'d>(&self, data: &'d [u8]) -> impl Iterator<Item = &'d [u8]> + use<'d> {
        let ChunkerParams { min, avg, max } = self.params;
        // The constructor only asserts the bounds that `ChunkerParams::check` has checked, and, in debug builds,
        // that the sizes are even: Cargo.toml turns that off.
        FastCDC::new(data, min as usize, avg as usize, max as usize)
            .map(move |chunk| &data[chunk.offset..chunk.offset + chunk.length])
    }

    /// Cuts a buffer that goes on: every chunk that more bytes could not change, and how many
    /// bytes they take in all.
    pub fn cut_open<'d>(&self, data: &'d [u8]) -> (Vec<&'d [u8]>, usize) {
        let mut done = Vec::new();
        let mut used = 0;
        for chunk in self.cut(data) {
            let at_end = used + chunk.len() == data.len();
            if at_end && chunk.len() < self.params.max as usize {
                break;
            }
            used += chunk.len();
            done.push(chunk);
        }
        (done, used)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::pack_id;
    use crate::testing::Dice;

    fn noise(len: usize, seed: u64) -> Vec<u8> {
        Dice(seed).bytes(len)
    }

    /// A word for each byte of noise, by its low half; its high half says whether the line ends.
    fn text(len: usize, seed: u64) -> Vec<u8> {
        const WORDS: [&str; 16] = [
            "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "if",
            "then", "else", "return", "function",
        ];
        let mut out = Vec::with_capacity(len + 16);
        for byte in noise(len / 3 + 1, seed) {
            if out.len() >= len {
                break;
            }
            out.extend_from_slice(WORDS[usize::from(byte % 16)].as_bytes());
            out.push(if byte < 16 { b'\n' } else { b' ' });
        }
        out.truncate(len);
        out
    }

    /// Zeros, and in them pieces of noise, of up to `unit` bytes, at multiples of `3 * unit + 1`.
    fn islands(len: usize, seed: u64, unit: usize) -> Vec<u8> {
        let sea = noise(2 * unit, seed);
        let mut out = vec![0; len];
        for (n, at) in (0..len).step_by(3 * unit + 1).enumerate() {
            let (begin, size) = (n * 1009 % unit, n * (unit / 13 * 5) % unit + 1);
            let size = size.min(len - at);
            out[at..at + size].copy_from_slice(&sea[begin..begin + size]);
        }
        out
    }

    /// `scripts/golden-cuts` says how they were found, and makes the same data.
    #[test]
    fn cuts_are_those_of_an_independent_implementation() {
        let cases = include_str!("testdata/cuts.txt").lines().filter(|line| !line.starts_with('#'));
        let mut shapes = std::collections::BTreeMap::new();
        for case in cases {
            let (given, expected) = case.split_once('=').unwrap();
            let [shape, seed, len, min, avg, max, digest] =
                given.split_whitespace().collect::<Vec<_>>().try_into().unwrap();
            let [len, min, avg, max]: [u32; 4] = [len, min, avg, max].map(|n| n.parse().unwrap());
            let (len, seed) = (len as usize, seed.parse().unwrap());
            let data = match shape {
                "noise" => noise(len, seed),
                "text" => text(len, seed),
                "zeros" => vec![0; len],
                "islands" => islands(len, seed, avg as usize),
                other => panic!("{other}"),
            };
            assert_eq!(pack_id(&data).to_string()[..16], *digest, "other data than the script's: {case}");
            let params = ChunkerParams { min, avg, max };
            params.check().unwrap();
            let chunker = Chunker::new(params);
            let cut: Vec<_> = data.chunks(SEGMENT as usize).flat_map(|s| chunker.cut(s)).collect();
            let lens: Vec<_> = cut.iter().map(|chunk| chunk.len().to_string()).collect();
            assert_eq!(lens, expected.split_whitespace().collect::<Vec<_>>(), "{given}");
            assert_eq!(cut.concat(), data, "{given}");
            *shapes.entry(shape).or_insert(0) += 1;
        }
        assert_eq!(shapes.len(), 4, "{shapes:?}");
    }

    #[test]
    fn cutting_open_buffers_in_any_steps_gives_the_cuts_of_the_whole() {
        let data = noise(3 << 20, 1);
        let chunker = Chunker::new(ChunkerParams::ITEMS);
        let whole: Vec<usize> = chunker.cut(&data).map(<[u8]>::len).collect();
        assert!(whole.len() > 10);
        for step in [100_000, 131_072, 700_001] {
            let (mut lens, mut buf) = (vec![], vec![]);
            for piece in data.chunks(step) {
                buf.extend_from_slice(piece);
                let (done, used) = chunker.cut_open(&buf);
                lens.extend(done.iter().map(|c| c.len()));
                buf.drain(..used);
            }
            lens.extend(chunker.cut(&buf).map(<[u8]>::len));
            assert_eq!(lens, whole, "step {step}");
        }
    }

    #[test]
    fn zeros_are_cut_at_the_maximum() {
        let zeros = vec![0; 20 << 20];
        let lens: Vec<_> = Chunker::new(ChunkerParams::FILES).cut(&zeros).map(<[u8]>::len).collect();
        assert_eq!(lens, [8 << 20, 8 << 20, 4 << 20]);
    }
}
