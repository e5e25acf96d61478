//! Operations: backup.
