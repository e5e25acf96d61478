//! What the stages work on.

use std::fs;
use std::path::{Path, PathBuf};

pub const KIB: usize = 1 << 10;
pub const MIB: usize = 1 << 20;

/// Sizes of objects: an average chunk of a large file, a source file's chunk, and the smallest that matter.
pub const OBJECTS: [usize; 3] = [2 * MIB, 64 * KIB, 4 * KIB];

/// A size as it is written in a bench's name.
pub fn size_name(bytes: usize) -> String {
    match bytes {
        MIB.. => format!("{} MiB", bytes / MIB),
        _ => format!("{} KiB", bytes / KIB),
    }
}

#[path = "../../../tests/random.rs"]
mod random;
pub use random::Dice;

impl Dice {
    pub fn id(&mut self) -> [u8; 32] {
        std::array::from_fn(|_| self.word().to_be_bytes()[0])
    }
}

/// Bytes that do not compress.
pub fn noise(len: usize) -> Vec<u8> {
    Dice::new(1).bytes(len)
}

/// Text that compresses as source code does: this crate's, again and again, each time with other letters, so
/// that no two passes have more in common than two programs.
pub fn text(len: usize) -> Vec<u8> {
    let mut paths = Vec::new();
    source_files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut paths);
    paths.sort();
    let source: Vec<u8> = paths.iter().flat_map(|path| fs::read(path).unwrap()).collect();
    let mut out = source.clone();
    let mut numbers = Dice::new(2);
    while out.len() < len {
        let letters = shuffled_letters(&mut numbers);
        out.extend(source.iter().map(|byte| match byte {
            b'a'..=b'z' => letters[usize::from(byte - b'a')],
            other => *other,
        }));
    }
    out.truncate(len);
    out
}

fn source_files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            source_files(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

fn shuffled_letters(numbers: &mut Dice) -> Vec<u8> {
    let mut letters: Vec<u8> = (b'a'..=b'z').collect();
    for at in (1..letters.len()).rev() {
        letters.swap(at, numbers.below(at + 1));
    }
    letters
}
