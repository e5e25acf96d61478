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
        // The constructor only asserts the bounds that `ChunkerParams::check` has checked.
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

    /// A fixed pseudo-random sequence (xorshift64*), independent of any crate.
    pub fn noise(len: usize, mut seed: u64) -> Vec<u8> {
        let mut out = Vec::with_capacity(len + 8);
        while out.len() < len {
            seed ^= seed >> 12;
            seed ^= seed << 25;
            seed ^= seed >> 27;
            out.extend(seed.wrapping_mul(0x2545_F491_4F6C_DD1D).to_le_bytes());
        }
        out.truncate(len);
        out
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
