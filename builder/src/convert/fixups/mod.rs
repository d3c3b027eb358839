//! What a system that was installed on a disk needs so that it boots as an appliance.
//!
//! The disk's other partitions, its console and its network interfaces are not there any more.
//! Each change below has a reason of that kind, and each is told; nothing else of the tree is
//! touched, and nothing is removed but links that switch a unit on.
//!
//! | module | what |
//! |---|---|
//! | `mounts` | `/etc/fstab`, `/etc/crypttab` |
//! | `console` | a login on the console, `hvc0` |
//! | `network` | one interface, `eth0`, whose address the agent gives or DHCP |
//! | `stays` | what is in nobody's way, and what nobody could repair here |

mod console;
mod mounts;
mod network;
mod stays;
#[cfg(test)]
mod tests;

use std::fmt;

use coop_image::tree::{Inode, InodeId, Kind, Metadata, Times, Timestamp, Tree, TreeError};
use serde::Serialize;

use crate::rootfs::{RootfsError, put_file};

/// The largest file that is read to be changed, in bytes; larger ones are nobody's configuration.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// One change of a root file system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FixUp {
    /// The file that was changed, made or removed.
    pub path: String,
    /// What was done and why: a lowercase sentence without the path.
    pub what: String,
}

impl fmt::Display for FixUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.what)
    }
}

/// All that was done to a root file system, and what a person should know of the rest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct FixUps {
    /// The changes, in the order in which they were made.
    pub changes: Vec<FixUp>,
    /// What was found and left as it is: lowercase sentences.
    pub stays: Vec<String>,
}

/// Changes a tree so that it boots as an appliance. What is made new has the time `epoch`.
///
/// # Errors
/// A folder stands where a file should go, or a file cannot be read.
pub fn apply(tree: &mut Tree, epoch: Timestamp) -> Result<FixUps, RootfsError> {
    let mut bench = Bench {
        tree,
        epoch,
        done: FixUps::default(),
    };
    mounts::fix(&mut bench)?;
    console::fix(&mut bench)?;
    network::fix(&mut bench)?;
    stays::look(&mut bench);
    Ok(bench.done)
}

/// A tree that is worked on.
struct Bench<'t> {
    tree: &'t mut Tree,
    epoch: Timestamp,
    done: FixUps,
}

impl Bench<'_> {
    fn tell(&mut self, path: impl Into<String>, what: impl Into<String>) {
        let (path, what) = (path.into(), what.into());
        self.done.changes.push(FixUp { path, what });
    }

    fn stays(&mut self, sentence: impl Into<String>) {
        self.done.stays.push(sentence.into());
    }

    fn has(&self, path: &str) -> bool {
        self.tree.resolve(path.as_bytes()).is_ok()
    }

    /// Whether it is a file of which not every byte is stored.
    fn has_holes(&self, path: &str) -> bool {
        let Ok(id) = self.tree.resolve(path.as_bytes()) else {
            return false;
        };
        match &self.tree.inode(id).kind {
            Kind::File(content) => {
                let lengths = content.segments.iter().map(|one| one.length);
                lengths.sum::<u64>() < content.size
            }
            _ => false,
        }
    }

    /// The content of a file; nothing where there is none, or none that could be meant.
    fn read(&self, path: &str) -> Result<Option<Vec<u8>>, RootfsError> {
        let Ok(id) = self.tree.resolve(path.as_bytes()) else {
            return Ok(None);
        };
        match &self.tree.inode(id).kind {
            Kind::File(content) if content.size <= FILE_BYTES_MAX => {
                Ok(Some(self.tree.read_file(id, FILE_BYTES_MAX)?))
            }
            _ => Ok(None),
        }
    }

    /// Gives a file that exists another content; owner, mode and attributes stay.
    fn rewrite(&mut self, path: &str, bytes: Vec<u8>) -> Result<(), RootfsError> {
        let id = self.tree.resolve(path.as_bytes())?;
        let content = self.tree.add_bytes(bytes)?;
        let inode = self.tree.inode_mut(id);
        inode.kind = Kind::File(content);
        let times = &mut inode.metadata.times;
        (times.modified, times.changed) = (self.epoch, self.epoch);
        Ok(())
    }

    /// Makes or replaces a file of root's.
    fn put(&mut self, path: &str, mode: u16, text: &str) -> Result<(), RootfsError> {
        let content = self.tree.add_bytes(text.into())?;
        let metadata = self.metadata(mode);
        put_file(self.tree, path.as_bytes(), content, metadata).map(|_| ())
    }

    fn metadata(&self, mode: u16) -> Metadata {
        Metadata {
            mode,
            times: Times::all(self.epoch),
            ..Metadata::default()
        }
    }

    /// Makes a symbolic link, unless its name is taken; says whether it did.
    fn link(&mut self, path: &str, target: &str) -> Result<bool, RootfsError> {
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        let metadata = self.metadata(0o755);
        let parent = self.tree.make_directories(folder.as_bytes(), &metadata)?;
        if self.tree.child(parent, name.as_bytes()).is_some() {
            return Ok(false);
        }
        let id = self.tree.add_inode(Inode {
            metadata: self.metadata(0o777),
            kind: Kind::Symlink(target.as_bytes().into()),
        })?;
        self.tree.link(parent, name.as_bytes(), id)?;
        Ok(true)
    }

    /// Names in a folder, in byte order; those that are no UTF-8 are nothing that is looked for.
    fn names(&self, folder: &str) -> Vec<String> {
        let Ok(id) = self.tree.resolve(folder.as_bytes()) else {
            return Vec::new();
        };
        let entries = self.tree.entries(id).into_iter().flatten();
        entries
            .filter_map(|(name, _)| std::str::from_utf8(name).ok().map(str::to_owned))
            .collect()
    }

    fn folder(&self, path: &str) -> Result<InodeId, TreeError> {
        self.tree.resolve(path.as_bytes())
    }

    /// Gives a file a name that its reader does not look for.
    fn set_aside(&mut self, folder: &str, name: &str) -> Result<String, RootfsError> {
        let parent = self.folder(folder)?;
        let id = self.tree.unlink(parent, name.as_bytes())?;
        let aside = format!("{name}{ASIDE}");
        self.tree.replace(parent, aside.as_bytes(), id)?;
        Ok(aside)
    }
}

/// Behind the names of files that are set aside.
const ASIDE: &str = ".before-coop";

/// The lines of a file, as they are, without their ends.
fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    bytes.split(|byte| *byte == b'\n')
}

/// The words of a line; none where it is a comment.
fn words(line: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(line);
    let text = text.trim();
    if text.starts_with('#') {
        return Vec::new();
    }
    text.split_ascii_whitespace().map(str::to_owned).collect()
}

/// Puts a line behind others.
fn push_line(text: &mut Vec<u8>, line: &[u8]) {
    text.extend_from_slice(line);
    text.push(b'\n');
}

/// Makes a line a comment.
fn push_comment(text: &mut Vec<u8>, line: &[u8]) {
    text.extend_from_slice(b"#coop# ");
    push_line(text, line);
}
