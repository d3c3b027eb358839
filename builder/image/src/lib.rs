//! Trees and on-disk formats.
