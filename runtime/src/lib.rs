//! The life of a machine: what it is made of, how it starts, what it says, how it ends.

pub mod event;
pub mod session;

mod agent_program;
