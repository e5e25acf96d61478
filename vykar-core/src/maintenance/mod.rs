//! Operations: maintenance.
