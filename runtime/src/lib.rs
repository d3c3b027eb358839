//! The life of a machine: what it is made of, how it starts, what it says, how it ends.
//!
//! ```text
//! MachineSpec ─Machine::check→ Machine ─start→ Running ⇄ guest ─wait→ Report
//! ```
//!
//! A [`MachineSpec`] is plain data. [`Machine::check`] opens every file and finds every problem
//! before anything runs. A [`Running`] machine has its devices' threads, the guest's process, a
//! [`session`] with the guest's agent, and a supervisor that sees the end, whatever it is, and
//! leaves nothing behind: no process, no socket, no folder.
//!
//! Nothing here prints or reads the environment: folders and times are in the spec, progress goes
//! to an [`event::Observer`].

mod agent_program;
pub mod event;
mod initramfs;
mod instance;
mod machine;
pub mod nfs;
mod node;
mod random;
mod record;
mod report;
mod root;
mod running;
pub mod session;
mod spec;

pub use coop_driver::device::cocon::Resizer;
pub use coop_driver::device::conet::{
    Accept, BoundPort, GATEWAY, Seat, Service, parse_resolv_conf,
};
pub use coop_driver::engine::{Pin, choose_memory_folder};
pub use coop_driver::sandbox::{LandlockState, landlock_state};
pub use coop_driver::tool;
pub use coop_driver::transport::DeviceReport;
pub use coop_guest::boot::{ETC_FOLDER, ETC_KEPT_FOLDER, IdentityFile};
pub use coop_guest::message::{Exit, Size, TransientFile, User};
pub use initramfs::{InitramfsError, LoneMachine, lone_initramfs};
pub use instance::living_machines;
pub use machine::{CheckError, DISKS_MAX, Machine};
pub use node::{NODES_MAX, NodeError, NodeState, join_nodes, node_names};
pub use record::{LOG_BYTES_MAX, Record, Recorded, Records};
pub use report::{Cause, Phase, Report};
pub use root::Exports;
pub use running::{Console, Running, StartError, Watch};
pub use session::{
    ExecError, ExecHandle, ExecRequest, ExecStreams, Execution, SessionEnd, Stopped,
};
pub use spec::{
    ConsoleSpec, DiskSpec, DiskWrites, Host, KernelSpec, MachineSpec, NetworkSpec, RootSpec,
    Workload,
};
