//! End-to-end tests: the built `vykar` on real trees, with real mounts.
//!
//! Each test works in a temporary folder of its own and unmounts what it mounted. Nothing is skipped
//! silently: a test that cannot run here begins with `needs!` (`tests/needs.rs`), what one leaves out of itself it says,
//! and a missing /dev/fuse is a failure.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[macro_use]
#[path = "../needs.rs"]
mod needs;

mod again;
mod archives;
mod away;
mod backup_options;
mod choosing;
mod cli;
mod compare;
mod concurrent;
mod config;
mod copying;
mod craft;
mod damage;
mod docs;
mod finding;
mod fixtures;
mod full;
mod fuzz;
mod golden;
mod harness;
mod install;
mod keys;
mod life;
mod limits;
mod locks;
mod memory;
mod misplaced;
mod mount_helper;
mod mounts;
mod output;
mod platform;
mod processes;
mod progress;
mod prompts;
#[path = "../random.rs"]
mod random;
mod real;
mod repair;
mod restore_options;
mod restore_targets;
mod resume;
mod rights;
mod rollback;
mod roundtrip;
mod secrets;
mod semantics;
mod soak;
mod sources;
mod strangers;
mod torture;
mod transcript;
mod tree;
mod trust;
mod untrusted;
mod upkeep;
mod view;
mod whole;
