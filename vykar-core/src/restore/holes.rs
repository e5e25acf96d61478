//! Writing without writing zeros: a long run of them is left out of a fresh file, where the file
//! system makes it a hole.

use std::ops::Range;
use std::os::fd::AsFd;

use rustix::io::Errno;

/// Holes begin and end at multiples of this, in bytes, as file systems store them.
const BLOCK: usize = 4096;
/// Shorter runs of zeros are written: a hole costs the file system bookkeeping too.
const MIN_HOLE: usize = 32 << 10;

/// Writes `data` at `offset` of a file that is still a hole there. True when something was left out.
pub(super) fn write(file: impl AsFd, data: &[u8], offset: u64) -> Result<bool, Errno> {
    let file = file.as_fd();
    let mut written = 0;
    each_data_range(data, offset, |range| {
        written += range.len();
        write_all(&file, &data[range.clone()], offset + range.start as u64)
    })?;
    Ok(written < data.len())
}

fn write_all(file: &impl AsFd, mut data: &[u8], mut offset: u64) -> Result<(), Errno> {
    while !data.is_empty() {
        match rustix::io::pwrite(file, data, offset) {
            Ok(0) => return Err(Errno::IO),
            Ok(n) => {
                data = &data[n..];
                offset += n as u64;
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn each_data_range(
    data: &[u8],
    offset: u64,
    mut emit: impl FnMut(Range<usize>) -> Result<(), Errno>,
) -> Result<(), Errno> {
    let mut from = 0;
    let mut zeros = None;
    let mut at = 0;
    while at < data.len() {
        // The block's end in the file; at a chunk's edges a block is a part of one.
        let into = ((offset + at as u64) % BLOCK as u64) as usize;
        let end = (at + BLOCK - into).min(data.len());
        if is_zero(&data[at..end]) {
            zeros.get_or_insert(at);
        } else if let Some(start) = zeros.take().filter(|start| at - start >= MIN_HOLE) {
            if start > from {
                emit(from..start)?;
            }
            from = at;
        }
        at = end;
    }
    let end = zeros.filter(|start| data.len() - start >= MIN_HOLE).unwrap_or(data.len());
    match end > from {
        true => emit(from..end),
        false => Ok(()),
    }
}

/// Most blocks differ from zero in their first bytes.
fn is_zero(block: &[u8]) -> bool {
    let mut words = block.chunks_exact(64);
    words.all(|word| word.iter().fold(0, |any, byte| any | byte) == 0)
        && block[block.len() - block.len() % 64..].iter().all(|byte| *byte == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ranges(data: &[u8], offset: u64) -> Vec<(usize, usize)> {
        let mut found = Vec::new();
        each_data_range(data, offset, |range| {
            found.push((range.start, range.end));
            Ok(())
        })
        .unwrap();
        found
    }

    #[test]
    fn only_long_runs_of_zeros_are_left_out() {
        let mut data = vec![1; 200 << 10];
        data[4096..4096 + (28 << 10)].fill(0);
        assert_eq!(ranges(&data, 0), [(0, data.len())]);
        data[4096..4096 + (32 << 10)].fill(0);
        assert_eq!(ranges(&data, 0), [(0, 4096), (36 << 10, data.len())]);
        assert_eq!(ranges(&data, 10), [(0, data.len())], "not aligned: one block less");
        assert_eq!(ranges(&vec![0; 100_000], 5), []);
        assert_eq!(ranges(&[0; 100], 0), [(0, 100)]);
        assert_eq!(ranges(&[], 0), []);
    }

    proptest! {
        #[test]
        fn what_is_left_out_is_zero(
            runs in prop::collection::vec((0u8..2, 0usize..100_000), 0..8), offset in 0u64..20_000,
        ) {
            let data: Vec<u8> = runs.iter().flat_map(|(byte, len)| std::iter::repeat_n(*byte, *len)).collect();
            let mut rebuilt = vec![0; data.len()];
            let mut last = 0;
            for (start, end) in ranges(&data, offset) {
                prop_assert!(start >= last && start < end);
                last = end;
                rebuilt[start..end].copy_from_slice(&data[start..end]);
            }
            prop_assert_eq!(rebuilt, data);
        }
    }
}
