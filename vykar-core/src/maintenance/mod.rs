//! Looking after a repository.

pub mod check;
pub mod finding;
pub(crate) mod references;
#[cfg(test)]
mod tests;
mod verify;

pub use check::{CheckOptions, CheckReport, check};
pub use finding::{Finding, Severity};
