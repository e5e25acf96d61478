//! Looking after a repository.

pub mod check;
pub mod delete;
pub mod finding;
pub mod prune;
pub(crate) mod references;
pub mod retention;
#[cfg(test)]
mod tests;
mod verify;

pub use check::{CheckOptions, CheckReport, check};
pub use delete::{DeleteOptions, DeleteReport, delete_snapshots};
pub use finding::{Finding, Severity};
pub use prune::{PruneOptions, PruneReport, prune};
pub use retention::{GroupBy, KeepRules, Rule};
