//! The `coop` program.
fn main() {}
