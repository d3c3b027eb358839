//! QEMU's qcow2, versions 2 and 3.
//!
//! | module | what |
//! |---|---|
//! | `format` | numbers of the format |
//! | `header` | the header and its extensions |
//! | `snapshots` | what snapshots are called |
//! | `read` | clusters by way of the two levels of tables |
//! | `check` | that every table is possible |
//! | `write` | writing |
//!
//! Reference counts are not read: reading needs none, and where they are wrong the two levels
//! still say what a guest sees.

mod check;
mod format;
mod header;
mod read;
mod snapshots;
mod write;

pub(super) use read::open;
pub use write::{Qcow2Options, write_qcow2};

use super::DiskError;

const FORMAT: &str = "qcow2";
const L1_PLACE: &str = "its first-level table";

fn corrupt(place: impl ToString, reason: impl ToString) -> DiskError {
    DiskError::Corrupt {
        format: FORMAT,
        place: place.to_string(),
        reason: reason.to_string(),
    }
}

fn unsupported(what: impl ToString) -> DiskError {
    DiskError::Unsupported {
        format: FORMAT,
        what: what.to_string(),
    }
}

fn limit(what: impl ToString, limit: u64) -> DiskError {
    DiskError::Limit {
        format: FORMAT,
        what: what.to_string(),
        limit,
    }
}
