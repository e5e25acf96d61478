//! Reading chunks and items.

pub mod buffer_pool;
pub mod chunk_reader;
pub mod item_stream_cache;
pub mod items;
pub mod path_hint;
pub mod refreshing_reader;
