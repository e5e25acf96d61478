//! Cutting content into chunks, and compressing them.

pub mod chunker;
pub mod compress;

pub use chunker::Chunker;
pub use compress::{Compression, Compressor, decompress, decompress_into, decompress_stream, stored};
