//! Operations: inspect.
