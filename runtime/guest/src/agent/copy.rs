//! Copying a folder of the root into memory, as it is: owners, modes, times, attributes, links,
//! holes, devices.
//!
//! A root may be far away, and every file of it some questions and answers. So what is in folders is
//! copied by several threads, whose waiting overlaps.

use std::collections::BTreeMap;
use std::fs::{self, File, Metadata};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, lchown, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use rustix::buffer::spare_capacity;
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags, chmod, lgetxattr, llistxattr,
    lsetxattr, mknodat, utimensat,
};
use rustix::io::Errno;

use crate::failure::{Doing, Failure};

/// The longest list of attributes' names and the longest value, in bytes: the kernel's own limits.
const ATTRIBUTE_BYTES_MAX: usize = 64 << 10;
/// How many sentences about attributes are kept.
const COMPLAINTS_MAX: usize = 8;
/// How many nodes are gathered before they are copied.
const BATCH_MAX: usize = 1024;
/// How many threads copy, at most.
const WORKERS_MAX: usize = 6;
/// How many nodes are worth a thread.
const NODES_PER_WORKER: usize = 8;
/// How much of a file is read at once, in bytes.
const PIECE_BYTES: usize = 64 << 10;

/// Copies nodes of one folder into another, which need not be on one file system.
#[derive(Debug, Default)]
pub(crate) struct Copier {
    /// Where the first name of an inode with several went.
    linked: BTreeMap<(u64, u64), PathBuf>,
    /// Further names: where their first went, and where they go.
    links: Vec<(PathBuf, PathBuf)>,
    /// What is to be copied.
    batch: Vec<Node>,
    /// What could not be kept.
    complaints: Vec<String>,
}

/// Anything but a folder, on its way.
#[derive(Debug)]
struct Node {
    from: PathBuf,
    to: PathBuf,
    metadata: Metadata,
}

impl Copier {
    /// Copies what is in a folder into another one, which gets its owner and mode too. Of folders
    /// that something else is mounted on, and of those that `only_itself` names, nothing but the
    /// folder is copied.
    pub(crate) fn folder(
        &mut self,
        from: &Path,
        to: &Path,
        only_itself: &dyn Fn(&Path) -> bool,
    ) -> Result<(), Failure> {
        let top = look(from)?;
        let mut pending = vec![(from.to_owned(), to.to_owned())];
        // A folder's time changes with each name that is made in it.
        let mut folders = vec![(to.to_owned(), top.clone())];
        self.folder_itself(from, to)?;
        while let Some((from, to)) = pending.pop() {
            let what = || format!("read the folder {}", from.display());
            for entry in fs::read_dir(&from).doing(what)? {
                let name = entry.doing(what)?.file_name();
                let (from, to) = (from.join(&name), to.join(&name));
                let metadata = look(&from)?;
                if !metadata.is_dir() {
                    self.push(Node { from, to, metadata })?;
                    continue;
                }
                fs::create_dir(&to).doing(|| copying(&from))?;
                self.complain(dress(&from, &to, &metadata)?);
                folders.push((to.clone(), metadata.clone()));
                if metadata.dev() == top.dev() && !only_itself(&from) {
                    pending.push((from, to));
                }
            }
        }
        self.flush()?;
        for (folder, metadata) in folders.iter().rev() {
            set_times(folder, metadata).doing(|| copying(folder))?;
        }
        Ok(())
    }

    /// Copies anything that is no folder.
    pub(crate) fn file(&mut self, from: &Path, to: &Path) -> Result<(), Failure> {
        let metadata = look(from)?;
        if metadata.is_dir() {
            let from = from.display();
            return Err(Failure::new(format!("{from} is a folder, not a file")));
        }
        let (from, to) = (from.to_owned(), to.to_owned());
        self.push(Node { from, to, metadata })?;
        self.flush()
    }

    /// Gives a folder another one's owner, mode and attributes.
    pub(crate) fn folder_itself(&mut self, from: &Path, to: &Path) -> Result<(), Failure> {
        self.complain(dress(from, to, &look(from)?)?);
        Ok(())
    }

    /// What could not be kept, a sentence each.
    pub(crate) fn complaints(self) -> Vec<String> {
        self.complaints
    }

    /// Puts a node among those that are to be copied; of an inode only its first name is one.
    fn push(&mut self, node: Node) -> Result<(), Failure> {
        if node.metadata.nlink() > 1 {
            let inode = (node.metadata.dev(), node.metadata.ino());
            if let Some(first) = self.linked.get(&inode) {
                self.links.push((first.clone(), node.to));
                return Ok(());
            }
            self.linked.insert(inode, node.to.clone());
        }
        self.batch.push(node);
        match self.batch.len() {
            BATCH_MAX.. => self.flush(),
            _ => Ok(()),
        }
    }

    /// Copies what was gathered.
    fn flush(&mut self) -> Result<(), Failure> {
        let batch = std::mem::take(&mut self.batch);
        let next = AtomicUsize::new(0);
        let work = || -> Result<Vec<String>, Failure> {
            let mut complaints = Vec::new();
            let mut piece = vec![0; PIECE_BYTES];
            while let Some(node) = batch.get(next.fetch_add(1, Ordering::Relaxed)) {
                complaints.extend(node.copy(&mut piece)?);
            }
            Ok(complaints)
        };
        let helpers = (batch.len() / NODES_PER_WORKER).min(WORKERS_MAX - 1);
        let done: Vec<_> = thread::scope(|scope| {
            // A guest that is short of threads copies with those that it has.
            let start = |_| thread::Builder::new().spawn_scoped(scope, work).ok();
            let threads: Vec<_> = (0..helpers).filter_map(start).collect();
            let own = work();
            let ended = threads.into_iter().map(thread::ScopedJoinHandle::join);
            ended.flatten().chain([own]).collect()
        });
        for complaints in done {
            self.complain(complaints?);
        }
        for (first, to) in self.links.drain(..) {
            fs::hard_link(&first, &to).doing(|| format!("link {} in memory", to.display()))?;
        }
        Ok(())
    }

    fn complain(&mut self, sentences: Vec<String>) {
        let room = COMPLAINTS_MAX.saturating_sub(self.complaints.len());
        self.complaints.extend(sentences.into_iter().take(room));
    }
}

impl Node {
    /// Copies it; gives what could not be kept.
    fn copy(&self, piece: &mut [u8]) -> Result<Vec<String>, Failure> {
        let Self { from, to, metadata } = self;
        let what = || copying(from);
        let kind = metadata.file_type();
        if kind.is_file() {
            content(from, to, metadata, piece).doing(what)?;
        } else if kind.is_symlink() {
            let target = fs::read_link(from).doing(what)?;
            symlink(target, to).doing(what)?;
        } else {
            let kind = match () {
                () if kind.is_block_device() => FileType::BlockDevice,
                () if kind.is_char_device() => FileType::CharacterDevice,
                () if kind.is_fifo() => FileType::Fifo,
                () => FileType::Socket,
            };
            mknodat(CWD, to, kind, Mode::RUSR, metadata.rdev()).doing(what)?;
        }
        let complaints = dress(from, to, metadata)?;
        set_times(to, metadata).doing(what)?;
        Ok(complaints)
    }
}

/// Owner, mode and attributes; gives what could not be kept. The owner comes first: changing it
/// takes mode bits and capabilities away.
fn dress(from: &Path, to: &Path, metadata: &Metadata) -> Result<Vec<String>, Failure> {
    let what = || copying(from);
    lchown(to, Some(metadata.uid()), Some(metadata.gid())).doing(what)?;
    if !metadata.is_symlink() {
        let mode = Mode::from_raw_mode(metadata.mode() & 0o7777);
        chmod(to, mode).doing(what)?;
    }
    let mut complaints = Vec::new();
    for name in attributes(from).doing(what)? {
        let mut value = Vec::with_capacity(ATTRIBUTE_BYTES_MAX);
        let kept = lgetxattr(from, name.as_slice(), spare_capacity(&mut value))
            .and_then(|_| lsetxattr(to, name.as_slice(), &value, XattrFlags::empty()));
        if let Err(error) = kept {
            let name = String::from_utf8_lossy(&name).into_owned();
            complaints.push(format!(
                "{} lost its attribute {name} in memory: {error}",
                from.display()
            ));
        }
    }
    Ok(complaints)
}

fn copying(from: &Path) -> String {
    format!("copy {} into memory", from.display())
}

fn look(path: &Path) -> Result<Metadata, Failure> {
    fs::symlink_metadata(path).doing(|| format!("look at {}", path.display()))
}

/// Copies what a file says; where it says nothing, memory holds nothing either.
fn content(from: &Path, to: &Path, metadata: &Metadata, piece: &mut [u8]) -> io::Result<()> {
    /// The unit of a file's blocks, stat(2).
    const BLOCK_BYTES: u64 = 512;
    let size = metadata.len();
    let mut source = File::open(from)?;
    let mut target = File::create_new(to)?;
    if metadata.blocks().saturating_mul(BLOCK_BYTES) >= size {
        // It has no holes, and most files are like that.
        return run(&source, &target, size, piece).map(drop);
    }
    target.set_len(size)?;
    let mut at = 0;
    while at < size {
        let data = match rustix::fs::seek(&source, rustix::fs::SeekFrom::Data(at)) {
            Ok(data) => data,
            Err(Errno::NXIO) => break,
            // A file system that knows no holes.
            Err(_) => at,
        };
        let hole = rustix::fs::seek(&source, rustix::fs::SeekFrom::Hole(data)).unwrap_or(size);
        source.seek(SeekFrom::Start(data))?;
        target.seek(SeekFrom::Start(data))?;
        let copied = run(&source, &target, hole.saturating_sub(data), piece)?;
        if copied == 0 {
            break;
        }
        at = hole;
    }
    Ok(())
}

/// Copies so many bytes from where both files are, or to the end; gives how many it were.
fn run(mut source: &File, mut target: &File, bytes: u64, piece: &mut [u8]) -> io::Result<u64> {
    let mut left = bytes;
    while left > 0 {
        let most = usize::try_from(left).map_or(piece.len(), |left| left.min(piece.len()));
        let part = piece.get_mut(..most).unwrap_or_default();
        let count = match source.read(part) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        target.write_all(part.get(..count).unwrap_or_default())?;
        left = left.saturating_sub(u64::try_from(count).unwrap_or(left));
    }
    Ok(bytes - left)
}

/// The names of a node's attributes; none where the file system has none.
fn attributes(path: &Path) -> Result<Vec<Vec<u8>>, Errno> {
    let mut names = Vec::with_capacity(ATTRIBUTE_BYTES_MAX);
    match llistxattr(path, spare_capacity(&mut names)) {
        Ok(_) => {}
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    }
    let names = names
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty());
    Ok(names.map(<[u8]>::to_vec).collect())
}

fn set_times(path: &Path, metadata: &Metadata) -> Result<(), Errno> {
    let times = Timestamps {
        last_access: Timespec {
            tv_sec: metadata.atime(),
            tv_nsec: metadata.atime_nsec(),
        },
        last_modification: Timespec {
            tv_sec: metadata.mtime(),
            tv_nsec: metadata.mtime_nsec(),
        },
    };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{FileExt, PermissionsExt};

    /// A folder of its own that goes with the test.
    struct Place(PathBuf);

    impl Place {
        fn new(name: &str) -> Self {
            let place = std::env::temp_dir().join(format!("coop-{name}-{}", std::process::id()));
            fs::create_dir_all(&place).unwrap();
            Self(place)
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_folder_is_copied_as_it_is() {
        let place = Place::new("copy");
        let (from, to) = (place.0.join("from"), place.0.join("to"));
        fs::create_dir_all(from.join("sub/skipped/deep")).unwrap();
        fs::create_dir(&to).unwrap();
        fs::write(from.join("sub/file"), "content").unwrap();
        let large = "0123456789".repeat(PIECE_BYTES / 4);
        for number in 0..BATCH_MAX + 5 {
            let text = if number % 100 == 0 { &*large } else { "small" };
            fs::write(from.join(format!("sub/{number}")), text).unwrap();
        }
        fs::set_permissions(from.join("sub/file"), fs::Permissions::from_mode(0o4710)).unwrap();
        fs::hard_link(from.join("sub/file"), from.join("twin")).unwrap();
        symlink("../nowhere", from.join("link")).unwrap();
        let sparse = File::create(from.join("sparse")).unwrap();
        sparse.set_len(1 << 20).unwrap();
        sparse.write_all_at(b"x", 700_000).unwrap();
        mknodat(CWD, from.join("pipe"), FileType::Fifo, Mode::RUSR, 0).unwrap();
        fs::set_permissions(from.join("sub"), fs::Permissions::from_mode(0o1750)).unwrap();
        let past =
            std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_nanos(1_234_567_890);
        File::open(from.join("sub"))
            .unwrap()
            .set_modified(past)
            .unwrap();

        let mut copier = Copier::default();
        let skipped = from.join("sub/skipped");
        copier.folder(&from, &to, &|path| path == skipped).unwrap();
        assert_eq!(copier.complaints(), Vec::<String>::new());

        let (file, twin) = (
            look(&to.join("sub/file")).unwrap(),
            look(&to.join("twin")).unwrap(),
        );
        assert_eq!(fs::read(to.join("twin")).unwrap(), b"content");
        assert_eq!((file.ino(), file.mode() & 0o7777), (twin.ino(), 0o4710));
        assert_eq!(
            fs::read_link(to.join("link")).unwrap(),
            Path::new("../nowhere")
        );
        for number in 0..BATCH_MAX + 5 {
            let text = fs::read_to_string(to.join(format!("sub/{number}"))).unwrap();
            let expected = if number % 100 == 0 { &*large } else { "small" };
            assert!(text == expected, "{number}");
        }
        let sparse = look(&to.join("sparse")).unwrap();
        assert_eq!(sparse.len(), 1 << 20);
        assert_eq!(fs::read(to.join("sparse")).unwrap()[700_000], b'x');
        assert!(look(&to.join("pipe")).unwrap().file_type().is_fifo());
        let sub = look(&to.join("sub")).unwrap();
        assert_eq!(sub.mode() & 0o7777, 0o1750);
        assert_eq!(sub.modified().unwrap(), past);
        assert!(to.join("sub/skipped").is_dir() && !to.join("sub/skipped/deep").exists());
    }
}
