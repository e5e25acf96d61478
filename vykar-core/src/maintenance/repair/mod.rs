//! Making a damaged repository whole again, without what is lost.
//!
//! [`plan_repair`] reads everything and writes nothing. [`apply_repair`] does what the plan says, if the repository is
//! still as it was. It stores first and deletes last, so that whatever could be read before can be read at every
//! moment of it, and a repair that was interrupted is finished by another one:
//!
//! Before that it reads again what is to be replaced: what was read wrongly once is not damaged.
//!
//! 1. damaged packs are copied to `damaged/`; whole packs that lie elsewhere are put back; what is whole in damaged ones
//!    goes into new packs;
//! 2. items of damaged snapshots that are whole go into new packs too;
//! 3. the snapshots and the index that are to be replaced are copied to `damaged/`;
//! 4. the index is written, with the references of old and new snapshots together: too many are harmless;
//! 5. snapshots that lie elsewhere are put back, the new ones are written, then the old ones deleted;
//! 6. the index is written with the counts that are left; damaged packs are deleted, and what is in its own place now.
//!
//! Objects are known by what they are, wherever they lie: a pack by the hash of its content, a snapshot by the id under
//! which it opens. Whatever can be decrypted anywhere in the repository is used.

mod apply;
mod identify;
mod places;
mod plan;
mod put_back;
pub(crate) mod quarantine;
pub(crate) mod repair_note;
pub(crate) mod reread;
pub(crate) mod salvage;
mod store;
pub(crate) mod survey;
#[cfg(test)]
mod tests;

pub use crate::maintenance::repair::quarantine::SetAside;
pub use apply::{RepairReport, apply_repair};
pub use plan::{Dropped, RepairPlan, SnapshotFate, plan_repair};

use crate::error::VykarError;
use crate::repository::LockOptions;

/// How a repository is repaired.
#[derive(Debug, Clone, Default)]
pub struct RepairOptions {
    /// Threads that read packs; 0 for one a processor.
    pub threads: usize,
    /// How long to wait for the lock.
    pub lock: LockOptions,
}

fn refused(reason: impl Into<String>) -> VykarError {
    VykarError::RepairRefused { reason: reason.into() }
}

/// An object is read differently from one time to the next, so that nobody knows which of it is right.
fn unsteady(key: &str) -> VykarError {
    refused(format!(
        "{key} is not read the same each time: see to memory, cables and network first, and to who else may change it"
    ))
}

fn changed() -> VykarError {
    VykarError::Changed {
        reason: "the repository changed since it was looked at: run the repair again".into(),
    }
}
