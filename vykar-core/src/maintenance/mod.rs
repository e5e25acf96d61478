//! Looking after a repository.

pub mod check;
pub mod compact;
pub mod delete;
pub mod delete_repository;
mod deletion_note;
mod evidence;
pub mod finding;
mod items;
pub mod key_import;
mod objects;
pub mod prune;
pub(crate) mod references;
pub mod repair;
pub mod retention;
#[cfg(test)]
mod tests;
pub(crate) mod vanished_guard;
mod verify;

pub use crate::maintenance::delete_repository::{
    Remains, RepositoryContents, WholeReport, delete_repository,
};
pub use check::{CheckOptions, CheckReport, Subset, check};
pub use compact::{CompactOptions, CompactPlan, CompactReport, compact, plan_compact};
pub use delete::{DeleteOptions, DeleteReport, delete_snapshots};
pub use finding::{Finding, Severity};
pub use key_import::{Held, KeyImport};
pub use prune::{PruneOptions, PruneReport, prune};
pub use repair::{RepairOptions, RepairPlan, RepairReport, SetAside, apply_repair, plan_repair};
pub use retention::{GroupBy, KeepRule, KeepRules};
