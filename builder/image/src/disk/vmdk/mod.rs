//! VMware's VMDK.
//!
//! | module | what |
//! |---|---|
//! | `format` | numbers of sparse extents |
//! | `descriptor` | the text that says what a disk is made of |
//! | `header` | the header of a sparse extent, or its footer |
//! | `sparse` | grains by way of directory and tables |
//! | `read` | a disk and its extents |
//!
//! The second copy of the tables is not read.

mod descriptor;
mod format;
mod header;
mod read;
mod sparse;

pub(super) use read::open;

use super::DiskError;

const FORMAT: &str = "vmdk";

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
