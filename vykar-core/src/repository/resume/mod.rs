//! What backups that were cut off leave to the next one.

pub mod abandoned;
pub mod claims;
pub mod session_journal;
