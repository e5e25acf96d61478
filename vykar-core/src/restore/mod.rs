//! Operations: restore.
