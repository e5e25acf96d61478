//! Beside others: locks, sessions, whether their holders live, and the only way to write.

pub(crate) mod heartbeat;
pub mod liveness;
pub mod repository_lock;
pub mod session;
pub(crate) mod session_id;
pub mod write_guard;
