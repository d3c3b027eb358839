//! Nodes: machines of one appliance that stay who they are from boot to boot.
//!
//! What makes a node itself is kept on the host, in a private folder of its own: the number that
//! systemd knows it by (machine-id(5)) and its ssh host key. A guest gets them into its memory
//! ([`IdentityFile`]); no image has them. coop makes the key itself: so it is there before the
//! guest is, whether the root has tools for it or not, and nothing a guest says is kept.

mod key;

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::Ipv4Addr;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use coop_driver::device::conet::{self, GUEST, Node, Seat, stable_mac};
use coop_guest::boot::IdentityFile;
use fs_err as fs;
use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::{Errno, retry_on_intr};

use crate::random;

pub use coop_driver::device::conet::NODES_MAX;

const MACHINE_ID: &str = "machine-id";
const HOST_KEY: &str = "ssh_host_ed25519_key";
const HOST_KEY_PUBLIC: &str = "ssh_host_ed25519_key.pub";
/// Held while a node is made.
const GATE: &str = ".gate";
/// Held while a node runs.
const LOCK: &str = "lock";
/// The largest file of a node, in bytes.
const FILE_BYTES_MAX: u64 = 16 << 10;
/// The longest name of a host, in bytes, RFC 1035.
const NAME_BYTES_MAX: usize = 63;

/// Why a node cannot be what it is.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The host's file system says no.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The host has no random bytes.
    #[error("the host gives no random bytes: {0}")]
    Random(io::Error),
    /// The name is no host's.
    #[error("'{0}' is not a node's name: letters, digits and hyphens, {NAME_BYTES_MAX} at most")]
    Name(String),
    /// The appliance's name is no folder's.
    #[error("the appliance's name '{0}' cannot be a folder's")]
    Appliance(String),
    /// Another coop runs it.
    #[error("node {name} of {appliance} runs already")]
    Runs {
        /// The node.
        name: String,
        /// The appliance.
        appliance: String,
    },
    /// What is kept is not what coop has written.
    #[error("{path} {what}; without the folder the node gets another identity")]
    Damaged {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong.
        what: &'static str,
    },
    /// The nodes cannot be on one network.
    #[error(transparent)]
    Network(#[from] conet::NetError),
}

/// A node that nobody else runs: as long as this lives.
#[derive(Debug)]
pub struct NodeState {
    name: String,
    folder: PathBuf,
    machine_id: String,
    key: String,
    public_key: String,
    _lock: File,
}

impl NodeState {
    /// Opens a node's state, and makes it where there is none: `folder/APPLIANCE/NODE`, all of
    /// them private to the user. It appears whole or not at all.
    ///
    /// # Errors
    /// The names cannot be folders', the node runs, or what is kept cannot be read.
    pub fn open(folder: &Path, appliance: &str, name: &str) -> Result<Self, NodeError> {
        check_name(name)?;
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if appliance.is_empty() || appliance.starts_with('.') || !appliance.bytes().all(plain) {
            return Err(NodeError::Appliance(appliance.to_owned()));
        }
        let appliances = folder.join(appliance);
        private_folders(&appliances)?;
        let folder = appliances.join(name);
        if !folder.is_dir() {
            make(&appliances, name)?;
        }
        check_private(&folder)?;
        let lock = fs::File::create(folder.join(LOCK))?.into_parts().0;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            // Some network file systems have no locks.
            Ok(()) | Err(Errno::NOLCK | Errno::OPNOTSUPP) => {}
            Err(Errno::WOULDBLOCK) => {
                return Err(NodeError::Runs {
                    name: name.to_owned(),
                    appliance: appliance.to_owned(),
                });
            }
            Err(error) => return Err(io::Error::from(error).into()),
        }
        let machine_id = read(&folder, MACHINE_ID, |text| {
            let digits = text.strip_suffix('\n').unwrap_or(text);
            digits.len() == 32 && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
        })?;
        let key = read(&folder, HOST_KEY, key::is_private)?;
        let public_key = read(&folder, HOST_KEY_PUBLIC, key::is_public)?;
        Ok(Self {
            name: name.to_owned(),
            folder,
            machine_id,
            key,
            public_key,
            _lock: lock,
        })
    }

    /// The node's name, which is its host name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where its state is.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The files that its guest gets.
    #[must_use]
    pub fn identity(&self) -> Vec<IdentityFile> {
        let file = |path: &str, mode, content: &str| IdentityFile {
            path: path.to_owned(),
            mode,
            content: content.to_owned(),
        };
        vec![
            file("/etc/hostname", 0o644, &format!("{}\n", self.name)),
            file("/etc/machine-id", 0o444, &self.machine_id),
            file(&format!("/etc/ssh/{HOST_KEY}"), 0o600, &self.key),
            file(
                &format!("/etc/ssh/{HOST_KEY_PUBLIC}"),
                0o644,
                &self.public_key,
            ),
        ]
    }
}

/// The names of several nodes: `web1`, `web2`, and behind a name that ends in a digit `web2-1`.
#[must_use]
pub fn node_names(base: &str, count: usize) -> Vec<String> {
    let dash = match base.ends_with(|last: char| last.is_ascii_digit()) {
        true => "-",
        false => "",
    };
    (1..=count)
        .map(|number| format!("{base}{dash}{number}"))
        .collect()
}

/// Puts nodes on a network of their own: the first has the address 10.0.2.15, the next 10.0.2.16,
/// and so on. Hardware addresses come from the names.
///
/// # Errors
/// More than [`NODES_MAX`], names that are no hosts' or not apart, or the host gives no descriptor.
pub fn join_nodes(names: &[String]) -> Result<Vec<Seat>, NodeError> {
    let mut nodes = Vec::new();
    let mut address = GUEST;
    for name in names {
        check_name(name)?;
        nodes.push(Node {
            name: name.to_ascii_lowercase(),
            mac: stable_mac(name, 0),
            address,
        });
        address = Ipv4Addr::from_bits(address.to_bits().saturating_add(1));
    }
    Ok(conet::switch(nodes)?)
}

/// A label as RFC 1123 has it.
fn check_name(name: &str) -> Result<(), NodeError> {
    let good = (1..=NAME_BYTES_MAX).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        && !name.starts_with('-')
        && !name.ends_with('-');
    match good {
        true => Ok(()),
        false => Err(NodeError::Name(name.to_owned())),
    }
}

fn private_folders(path: &Path) -> Result<(), NodeError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|error| {
        let sentence = format!("cannot make {}: {error}", path.display());
        NodeError::Io(io::Error::new(error.kind(), sentence))
    })?;
    check_private(path)
}

fn check_private(folder: &Path) -> Result<(), NodeError> {
    let metadata = fs::symlink_metadata(folder)?;
    let own = metadata.uid() == rustix::process::getuid().as_raw();
    let what = match (metadata.is_dir(), own, metadata.mode() & 0o077) {
        (false, ..) => "is not a folder",
        (_, false, _) => "belongs to another user",
        (_, _, 1..) => "is open to other users",
        (true, true, 0) => return Ok(()),
    };
    Err(NodeError::Damaged {
        path: folder.to_owned(),
        what,
    })
}

/// Makes a node's folder beside its place, and moves it there when it is whole.
fn make(appliances: &Path, name: &str) -> Result<(), NodeError> {
    let gate = fs::File::create(appliances.join(GATE))?.into_parts().0;
    // Where there are no locks, the move still has one winner.
    let _ = retry_on_intr(|| flock(&gate, FlockOperation::LockExclusive));
    let place = appliances.join(name);
    if place.is_dir() {
        return Ok(());
    }
    let new = appliances.join(format!(".new-{name}"));
    if new.exists() {
        // Whoever was about to make it has died.
        fs::remove_dir_all(&new)?;
    }
    DirBuilder::new().mode(0o700).create(&new)?;
    write(&new, MACHINE_ID, &machine_id()?)?;
    let pair = key::make(&random()?, random()?, &format!("root@{name}"));
    write(&new, HOST_KEY, &pair.private)?;
    write(&new, HOST_KEY_PUBLIC, &pair.public)?;
    fs::rename(&new, &place)?;
    fs::File::open(appliances)?.sync_all()?;
    Ok(())
}

fn write(folder: &Path, name: &str, text: &str) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    let mut file = options.open(folder.join(name))?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// Reads a file of a node: a regular one of some bytes that are what they should be.
fn read(folder: &Path, name: &str, good: impl Fn(&str) -> bool) -> Result<String, NodeError> {
    let path = folder.join(name);
    let mut options = OpenOptions::new();
    let no_link = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    options
        .read(true)
        .custom_flags(i32::try_from(no_link.bits()).unwrap_or(0));
    let opened = options.open(&path).map_err(|error| {
        let sentence = format!("cannot open {}: {error}", path.display());
        io::Error::new(error.kind(), sentence)
    })?;
    let mut text = String::new();
    let is_file = opened.metadata()?.is_file();
    let read = opened.take(FILE_BYTES_MAX).read_to_string(&mut text);
    match is_file && read.is_ok() && good(&text) {
        true => Ok(text),
        false => Err(NodeError::Damaged {
            path,
            what: "is not what coop has written",
        }),
    }
}

fn random<const N: usize>() -> Result<[u8; N], NodeError> {
    random::bytes().map_err(NodeError::Random)
}

/// A number as systemd makes it: a random UUID of version 4 (RFC 9562) without hyphens.
fn machine_id() -> Result<String, NodeError> {
    let mut bytes = random::<16>()?;
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("{digits}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_node_stays_who_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let top = folder.path().join("nodes");
        let first = NodeState::open(&top, "web", "a").unwrap();
        let runs = NodeState::open(&top, "web", "a").unwrap_err();
        assert_eq!(runs.to_string(), "node a of web runs already");
        let (identity, place) = (first.identity(), first.folder().to_owned());
        drop(first);
        assert_eq!(
            NodeState::open(&top, "web", "a").unwrap().identity(),
            identity
        );
        let other = NodeState::open(&top, "web", "b").unwrap().identity();
        let same = identity
            .iter()
            .zip(&other)
            .filter(|(a, b)| a.content == b.content);
        assert_eq!(same.count(), 0);
        assert_eq!(identity[0].content, "a\n");
        assert_eq!(identity[1].content.len(), 33);
        for path in [&top, &place] {
            let mode = fs::metadata(path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o700, "{}", path.display());
        }
        let names = fs::read_dir(top.join("web")).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name());
        assert!(
            names
                .into_iter()
                .all(|name| !name.to_str().unwrap().starts_with(".new"))
        );
    }

    #[test]
    fn a_node_that_several_make_at_once_is_one() {
        let folder = tempfile::tempdir().unwrap();
        let top = folder.path().join("nodes");
        let start = std::sync::Barrier::new(8);
        let opened: Vec<Result<NodeState, NodeError>> = std::thread::scope(|scope| {
            let open = || {
                start.wait();
                NodeState::open(&top, "web", "a")
            };
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(open)).collect();
            let opened = threads.into_iter().map(|thread| thread.join().unwrap());
            opened.collect()
        });
        let (runs, refused): (Vec<_>, Vec<_>) = opened.into_iter().partition(Result::is_ok);
        let runs: Vec<NodeState> = runs.into_iter().flatten().collect();
        assert_eq!((runs.len(), refused.len()), (1, 7));
        let is_running = |refused: Result<_, _>| matches!(refused, Err(NodeError::Runs { .. }));
        assert!(refused.into_iter().all(is_running));
        let identity = runs[0].identity();
        drop(runs);
        let again = NodeState::open(&top, "web", "a").unwrap();
        assert_eq!(again.identity(), identity);
    }

    #[test]
    fn what_is_damaged_or_open_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let open = || NodeState::open(folder.path(), "web", "a").map(|state| state.folder);
        fs::set_permissions(folder.path(), Permissions::from_mode(0o700)).unwrap();
        let place = open().unwrap();
        fs::write(place.join(MACHINE_ID), "short\n").unwrap();
        assert!(
            open()
                .unwrap_err()
                .to_string()
                .contains("machine-id is not what coop has written")
        );
        fs::remove_file(place.join(MACHINE_ID)).unwrap();
        std::os::unix::fs::symlink("/etc/machine-id", place.join(MACHINE_ID)).unwrap();
        assert!(open().is_err(), "a link");
        fs::remove_dir_all(&place).unwrap();
        // A maker that died left half of it.
        fs::create_dir(folder.path().join("web/.new-a")).unwrap();
        fs::write(folder.path().join("web/.new-a/machine-id"), "x").unwrap();
        let place = open().unwrap();
        fs::set_permissions(&place, Permissions::from_mode(0o755)).unwrap();
        assert!(
            open()
                .unwrap_err()
                .to_string()
                .contains("open to other users")
        );
    }

    #[test]
    fn names_are_hosts_and_folders() {
        let folder = tempfile::tempdir().unwrap();
        for (appliance, name) in [
            ("web", ""),
            ("web", "../x"),
            ("web", "a.b"),
            ("web", "-a"),
            ("web", ".gate"),
            ("web", &*"a".repeat(64)),
            ("", "a"),
            ("..", "a"),
            (".web", "a"),
            ("a/b", "a"),
        ] {
            assert!(
                NodeState::open(folder.path(), appliance, name).is_err(),
                "{appliance} {name}"
            );
        }
        assert_eq!(node_names("web", 2), ["web1", "web2"]);
        assert_eq!(node_names("debian13", 1), ["debian13-1"]);
        let seats = join_nodes(&node_names("Web", 3)).unwrap();
        let last = seats[2].node();
        assert_eq!(
            (&*last.name, last.address),
            ("web3", Ipv4Addr::new(10, 0, 2, 17))
        );
        assert!(join_nodes(&node_names("a", usize::from(NODES_MAX) + 1)).is_err());
        assert!(join_nodes(&["a".to_owned(), "a".to_owned()]).is_err());
    }
}
