//! The integration tests live in `suite/`; this package has no library code of its own.
