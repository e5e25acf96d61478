//! The stages of backup and restore, each alone on one core.
//!
//! ```text
//! make bench-stages                    all of them, about four minutes
//! make bench-stages ONLY=aes           those whose name contains "aes"
//! ```
//!
//! All data is made from fixed seeds and, for text, from this crate's own source, so two runs of one commit do
//! the same work. Criterion says after each how it compares with the run before.
//!
//! Only what the crate's public interface reaches is here. Not here are the file cache, the walk and the
//! reading of files, the pack buffers, and restore's planning and writing: they are private parts of `backup`
//! and `restore`, and the bench of whole programs measures them.
#![allow(missing_docs, clippy::unwrap_used, reason = "a bench fails by panicking, and nobody calls it")]

mod compression;
mod cutting;
mod data;
mod hashing;
mod index;
mod items;
mod keys;
mod sealing;

use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};

/// Less time than criterion would take: the stages are steady, and there are many.
fn brief() -> Criterion {
    Criterion::default()
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(2))
        .sample_size(30)
}

criterion_group! {
    name = content;
    config = brief();
    targets = cutting::stages, hashing::stages, sealing::stages, compression::stages
}
criterion_group! {
    name = metadata;
    config = brief();
    targets = index::stages, items::stages, keys::stages
}
criterion_main!(content, metadata);
