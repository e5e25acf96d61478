//! A mount in the machine: taking a place, FUSE, and giving it back.

pub mod busy;
pub(crate) mod caller;
pub(crate) mod cpu_latency;
pub(crate) mod fuse;
pub(crate) mod keeper;
pub mod mount;
pub mod mountpoint;
pub mod unmount;
