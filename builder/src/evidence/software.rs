//! What software a root file system holds, by dpkg's own account: packages, their licences, and
//! which files are whose. The root file system may be anyone's: what cannot be read is left out.

use std::collections::BTreeMap;
use std::io;

use coop_image::tree::{Content, InodeId, Kind, Tree, read_exact_at};
use rayon::prelude::*;
use sha1::{Digest as _, Sha1};
use sha2::Sha256;

use super::copyright;
use super::licence::{self, Owns};
use crate::debian::deb822::{Stanza, Stanzas};
use crate::digest::Digest;
use crate::lock::Lock;

const STATUS: &str = "/var/lib/dpkg/status";
const INFO: &str = "/var/lib/dpkg/info";
const DIVERSIONS: &str = "/var/lib/dpkg/diversions";
const OS_RELEASE: &str = "/usr/lib/os-release";
/// The largest file of dpkg's that is read, in bytes.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// The largest copyright file that is read, in bytes.
const COPYRIGHT_BYTES_MAX: u64 = 4 << 20;
/// Files are hashed in pieces of this size.
const PIECE_BYTES: usize = 128 << 10;

/// The software.
#[derive(Debug, Default)]
pub(crate) struct Software {
    /// Whose release it is, as `debian`.
    pub(super) vendor: String,
    /// Which release, as `trixie`; may be empty.
    pub(super) release: String,
    /// By name, architecture and version.
    pub(super) packages: Vec<Package>,
    /// Every regular file, by its path.
    pub(super) files: Vec<File>,
    /// Licences that only their text tells.
    pub(super) licences: Owns,
}

/// A package that is installed.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Package {
    pub(super) name: String,
    pub(super) architecture: String,
    pub(super) version: String,
    /// The source package's name and version.
    pub(super) source: (String, String),
    pub(super) maintainer: String,
    pub(super) homepage: String,
    /// The first line.
    pub(super) description: String,
    /// A licence expression of SPDX.
    pub(super) licence: Option<String>,
    /// The digest of its .deb, where the lock has it.
    pub(super) sha256: Option<Digest>,
}

/// A regular file.
#[derive(Debug)]
pub(super) struct File {
    /// From the root, with a leading slash.
    pub(super) path: Vec<u8>,
    /// Index of the package that it belongs to.
    pub(super) owner: Option<usize>,
    pub(super) sha1: [u8; 20],
    pub(super) sha256: [u8; 32],
}

/// Looks at a root file system.
///
/// # Errors
/// The content of a file cannot be read.
pub(crate) fn survey(tree: &Tree, lock: &Lock) -> io::Result<Software> {
    let mut software = Software::default();
    (software.vendor, software.release) = release(tree);
    let pinned: BTreeMap<_, _> = lock
        .answers
        .iter()
        .flat_map(|answer| &answer.packages)
        .map(|one| ((&*one.name, &*one.architecture, &*one.version), one.sha256))
        .collect();
    let status = text(tree, STATUS, FILE_BYTES_MAX);
    for stanza in Stanzas::new(&status).map_while(Result::ok) {
        let Some(mut package) = package(&stanza) else {
            continue;
        };
        let key = (&*package.name, &*package.architecture, &*package.version);
        package.sha256 = pinned.get(&key).copied();
        let path = format!("/usr/share/doc/{}/copyright", package.name);
        let says = copyright::parse(&text(tree, &path, COPYRIGHT_BYTES_MAX));
        let says = says.and_then(|says| licence::expression(&says, &mut software.licences));
        package.licence = says;
        software.packages.push(package);
    }
    software.packages.sort();
    let owners = owners(tree, &software.packages);
    software.files = files(tree, &owners)?;
    Ok(software)
}

/// A file's text; nothing where there is none, where it is too large or cannot be read.
fn text(tree: &Tree, path: &str, limit_bytes: u64) -> String {
    let id = tree.resolve(path.as_bytes()).ok();
    let bytes = id.and_then(|id| tree.read_file(id, limit_bytes).ok());
    String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned()
}

/// os-release(5): whose system it is, and which.
fn release(tree: &Tree) -> (String, String) {
    let text = text(tree, OS_RELEASE, 1 << 16);
    let value = |name: &str| {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        let value = line.unwrap_or_default().trim().trim_matches(['"', '\'']);
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        let is_plain = !value.is_empty() && value.bytes().all(allowed);
        is_plain.then(|| value.to_owned())
    };
    let vendor = value("ID").unwrap_or_else(|| "debian".to_owned());
    let release = value("VERSION_CODENAME").or_else(|| value("VERSION_ID"));
    (vendor, release.unwrap_or_default())
}

fn package(stanza: &Stanza<'_>) -> Option<Package> {
    let status = stanza.get("Status")?;
    if status.ends_with(" not-installed") || status.ends_with(" config-files") {
        return None;
    }
    let field = |name: &str| one_line(stanza.get(name).unwrap_or_default());
    let (name, version) = (field("Package"), field("Version"));
    if name.is_empty() || version.is_empty() {
        return None;
    }
    let written = field("Source");
    let source = match written.split_once(" (") {
        Some((name, version)) => (name.to_owned(), version.trim_end_matches(')').to_owned()),
        None if written.is_empty() => (name.clone(), version.clone()),
        None => (written, version.clone()),
    };
    Some(Package {
        architecture: field("Architecture"),
        source,
        maintainer: field("Maintainer"),
        homepage: field("Homepage"),
        description: field("Description"),
        name,
        version,
        ..Package::default()
    })
}

fn one_line(value: &str) -> String {
    let line = value.lines().next().unwrap_or_default().trim();
    line.chars().filter(|c| !c.is_control()).collect()
}

/// Which package each inode belongs to.
fn owners(tree: &Tree, packages: &[Package]) -> BTreeMap<InodeId, usize> {
    let diversions = diversions(&text(tree, DIVERSIONS, FILE_BYTES_MAX));
    let mut owners = BTreeMap::new();
    for (index, package) in packages.iter().enumerate() {
        let Package {
            name, architecture, ..
        } = package;
        let lists = [
            format!("{INFO}/{name}:{architecture}.list"),
            format!("{INFO}/{name}.list"),
        ];
        let found = lists.iter().map(|path| bytes(tree, path));
        let list = found.into_iter().flatten().next().unwrap_or_default();
        for path in list.split(|byte| *byte == b'\n') {
            let diverted = diversions.get(path).filter(|(_, by)| by != name);
            let path = diverted.map_or(path, |(to, _)| to.as_slice());
            if let Ok(id) = tree.lookup(path) {
                owners.insert(id, index);
            }
        }
    }
    owners
}

fn bytes(tree: &Tree, path: &str) -> Option<Vec<u8>> {
    let id = tree.resolve(path.as_bytes()).ok()?;
    tree.read_file(id, FILE_BYTES_MAX).ok()
}

/// Where files went that other packages took the place of, and who did.
fn diversions(text: &str) -> BTreeMap<Vec<u8>, (Vec<u8>, String)> {
    let lines: Vec<&str> = text.lines().collect();
    let triples = lines.chunks_exact(3).filter_map(|triple| {
        let [from, to, by] = triple else { return None };
        Some((
            from.as_bytes().to_vec(),
            (to.as_bytes().to_vec(), (*by).to_owned()),
        ))
    });
    triples.collect()
}

/// Every regular file with its digests; those of one inode are made once.
fn files(tree: &Tree, owners: &BTreeMap<InodeId, usize>) -> io::Result<Vec<File>> {
    let mut paths = tree.paths();
    paths.retain(|(_, id)| matches!(tree.inode(*id).kind, Kind::File(_)));
    paths.sort();
    let mut inodes: Vec<InodeId> = paths.iter().map(|(_, id)| *id).collect();
    inodes.sort();
    inodes.dedup();
    let digests = inodes.par_iter().map_init(
        || vec![0; PIECE_BYTES],
        |buffer, id| match &tree.inode(*id).kind {
            Kind::File(content) => digests(tree, content, buffer).map(|both| (*id, both)),
            _ => Err(io::ErrorKind::InvalidInput.into()),
        },
    );
    let digests: BTreeMap<InodeId, ([u8; 20], [u8; 32])> = digests.collect::<io::Result<_>>()?;
    let described = paths.into_iter().filter_map(|(path, id)| {
        let (sha1, sha256) = *digests.get(&id)?;
        Some(File {
            path,
            owner: owners.get(&id).copied(),
            sha1,
            sha256,
        })
    });
    Ok(described.collect())
}

fn digests(tree: &Tree, content: &Content, buffer: &mut [u8]) -> io::Result<([u8; 20], [u8; 32])> {
    let (mut sha1, mut sha256) = (Sha1::new(), Sha256::new());
    let mut at = 0;
    for segment in &content.segments {
        zeroes(
            &mut sha1,
            &mut sha256,
            segment.offset.saturating_sub(at),
            buffer,
        );
        let (mut from, mut left) = (segment.blob_offset, segment.length);
        while left > 0 {
            let count = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
            let piece = &mut buffer[..count];
            read_exact_at(&**tree.blob(segment.blob), piece, from)?;
            sha1.update(&*piece);
            sha256.update(&*piece);
            let count = u64::try_from(count).unwrap_or(u64::MAX);
            (from, left) = (from.saturating_add(count), left.saturating_sub(count));
        }
        at = segment.offset.saturating_add(segment.length);
    }
    zeroes(
        &mut sha1,
        &mut sha256,
        content.size.saturating_sub(at),
        buffer,
    );
    Ok((sha1.finalize().into(), sha256.finalize().into()))
}

/// Hashes a hole.
fn zeroes(sha1: &mut Sha1, sha256: &mut Sha256, mut length: u64, buffer: &mut [u8]) {
    if length > 0 {
        buffer.fill(0);
    }
    while length > 0 {
        let count = usize::try_from(length).map_or(buffer.len(), |left| left.min(buffer.len()));
        sha1.update(&buffer[..count]);
        sha256.update(&buffer[..count]);
        length = length.saturating_sub(u64::try_from(count).unwrap_or(u64::MAX));
    }
}
