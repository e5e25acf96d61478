//! The `vykar` command.
fn main() {}
