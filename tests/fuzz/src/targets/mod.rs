//! What each fuzz target does with its input. The ordinary tests replay the corpus through the
//! same functions, so this folder knows neither.

mod archives;
mod bundle;
mod debian;
mod disks;
mod guest;
mod import;
mod kernel;
mod registry;
mod volumes;

use std::fs::File;
use std::os::unix::fs::FileExt;

use coop_image::tree::{Inode, Kind, Tree};

pub use archives::{compress, cpio, tar};
pub use bundle::{bundle, trust};
pub use debian::{copyright, debian_index, proxy_request};
pub use disks::{partition, qcow2, vmdk};
pub use guest::{agent, nfs};
pub use import::import;
pub use kernel::{kconfig, module_elf, patch};
pub use registry::{credentials, registry};
pub use volumes::{ext4_reader, fat};

/// Inputs and outputs stay below this.
const BYTES_MAX: u64 = 1 << 20;

/// A target by the name of its corpus.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
#[allow(dead_code, reason = "each fuzz binary runs one of them")]
pub const TARGETS: [Target; 21] = [
    ("tar", tar),
    ("compress", compress),
    ("cpio", cpio),
    ("partition", partition),
    ("qcow2", qcow2),
    ("vmdk", vmdk),
    ("fat", fat),
    ("ext4_reader", ext4_reader),
    ("agent", agent),
    ("debian_index", debian_index),
    ("kconfig", kconfig),
    ("module_elf", module_elf),
    ("patch", patch),
    ("proxy_request", proxy_request),
    ("copyright", copyright),
    ("nfs", nfs),
    ("import", import),
    ("bundle", bundle),
    ("trust", trust),
    ("registry", registry),
    ("credentials", credentials),
];

/// Content must be where the tree says that it is.
fn touch_content(tree: &Tree) {
    for (_, id) in tree.paths() {
        if size_of_file(tree.inode(id)) <= BYTES_MAX && matches!(tree.inode(id).kind, Kind::File(_))
        {
            tree.read_file(id, BYTES_MAX).expect("content is there");
        }
    }
}

fn size_of_file(inode: &Inode) -> u64 {
    match &inode.kind {
        Kind::File(content) => content.size,
        _ => 0,
    }
}

/// A file in memory.
fn file_of(data: &[u8]) -> File {
    let flags = rustix::fs::MemfdFlags::CLOEXEC;
    let file = rustix::fs::memfd_create("fuzz", flags).expect("a file in memory");
    let file = File::from(file);
    file.write_all_at(data, 0).expect("room");
    file
}
