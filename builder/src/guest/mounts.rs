//! What a step sees of the host: read-only images of files and folders, made for the step.
//!
//! A step must see the same on every host, so owners, times, attributes and all of the permissions
//! but "executable" are left behind, as version control does.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use coop_image::folder::{self, FolderError};
use coop_image::tree::{
    Content, Inode, InodeId, Kind, Metadata, Times, Timestamp, Tree, TreeError, display,
    read_exact_at,
};
use fs_err as fs;

use crate::digest::{Digest, Hasher};
use crate::inputs::Record;

/// The name of a file in its image; a folder's image has the folder as its root.
pub(super) const FILE_NAME: &str = "file";
/// The modes that are left: of folders and programs, and of other files.
const MODES: [u16; 2] = [0o755, 0o644];
const EXECUTABLE: u16 = 0o111;
const CHUNK_BYTES: usize = 128 << 10;

/// Why the host's files cannot be shown to a step.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// The operating system says no.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Something in the folder cannot be read.
    #[error("{}: {source}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What.
        source: FolderError,
    },
    /// Something that is neither file, folder nor link.
    #[error("{}: '{inside}' is no file, folder or symbolic link, and a step sees no others", path.display())]
    Special {
        /// The folder.
        path: PathBuf,
        /// What it is.
        inside: String,
    },
    /// The tree cannot take it.
    #[error(transparent)]
    Tree(#[from] TreeError),
}

/// A file or folder as a step sees it.
#[derive(Debug)]
pub(crate) struct Shown {
    /// The image's content.
    pub(crate) tree: Tree,
    /// It is the folder's, and not of one file called [`FILE_NAME`].
    pub(crate) is_folder: bool,
}

/// Reads a file or folder of the host.
pub(crate) fn show(path: &Path) -> Result<Shown, MountError> {
    let file = fs::File::open(path)?;
    let metadata = file.metadata()?;
    let file = file.into_parts().0;
    let is_folder = metadata.is_dir();
    let mut tree = if is_folder {
        read_folder(path, file.into())?
    } else {
        one_file(file, metadata.len(), is_executable(&metadata))?
    };
    for (inside, id) in tree.paths() {
        let inode = tree.inode_mut(id);
        let mode = match &inode.kind {
            Kind::Directory(_) => MODES[0],
            Kind::File(_) => MODES[usize::from(inode.metadata.mode & EXECUTABLE == 0)],
            Kind::Symlink(_) => 0o777,
            _ => {
                return Err(MountError::Special {
                    path: path.to_owned(),
                    inside: display(&inside),
                });
            }
        };
        inode.metadata = Metadata {
            mode,
            times: Times::all(Timestamp::from_seconds(0)),
            ..Metadata::default()
        };
    }
    Ok(Shown { tree, is_folder })
}

fn is_executable(metadata: &std::fs::Metadata) -> bool {
    use std::os::unix::fs::PermissionsExt;
    metadata.permissions().mode() & u32::from(EXECUTABLE) != 0
}

fn read_folder(path: &Path, folder: OwnedFd) -> Result<Tree, MountError> {
    let options = folder::Options {
        cross_mounts: true,
        xattrs: false,
        check: Arc::new(|| Ok(())),
    };
    let found = folder::read(folder, &options).map_err(|source| MountError::Folder {
        path: path.to_owned(),
        source,
    })?;
    Ok(found.tree)
}

fn one_file(file: std::fs::File, size: u64, executable: bool) -> Result<Tree, MountError> {
    let mut tree = Tree::new(Metadata::default());
    let blob = tree.add_blob(Arc::new(file))?;
    let id = tree.add_inode(Inode {
        metadata: Metadata {
            mode: MODES[usize::from(!executable)],
            ..Metadata::default()
        },
        kind: Kind::File(Content::contiguous(blob, 0, size)),
    })?;
    tree.link(InodeId::ROOT, FILE_NAME.as_bytes(), id)?;
    Ok(tree)
}

/// The digest of a file or folder as a step sees it: names, kinds and content, and which files are
/// programs.
///
/// # Errors
/// See [`MountError`].
pub fn digest_of_source(path: &Path) -> Result<Digest, MountError> {
    Ok(show(path)?.digest()?)
}

impl Shown {
    /// See [`digest_of_source`].
    pub(crate) fn digest(&self) -> io::Result<Digest> {
        let Self { tree, is_folder } = self;
        let mut record = Record::new(if *is_folder { "folder" } else { "file" });
        for (path, id) in tree.paths() {
            record.put("path", &path);
            let inode = tree.inode(id);
            match &inode.kind {
                Kind::File(content) => {
                    let tag = match inode.metadata.mode == MODES[0] {
                        true => "program",
                        false => "content",
                    };
                    record.put(tag, digest_of_content(tree, content)?.as_bytes());
                }
                Kind::Symlink(target) => record.put("link", target),
                _ => record.put("folder", &[]),
            }
        }
        Ok(record.finish())
    }
}

fn digest_of_content(tree: &Tree, content: &Content) -> io::Result<Digest> {
    let mut hasher = Hasher::default();
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut at = 0;
    for segment in &content.segments {
        zeroes(&mut hasher, segment.offset.saturating_sub(at));
        let blob = &**tree.blob(segment.blob);
        let mut done = 0;
        while done < segment.length {
            let left = segment.length - done;
            let count = usize::try_from(left).map_or(CHUNK_BYTES, |left| left.min(CHUNK_BYTES));
            read_exact_at(blob, &mut buffer[..count], segment.blob_offset + done)?;
            hasher.update(&buffer[..count]);
            done += u64::try_from(count).unwrap_or(left);
        }
        at = segment.offset.saturating_add(segment.length);
    }
    zeroes(&mut hasher, content.size.saturating_sub(at));
    Ok(hasher.finish())
}

/// A hole reads as zeroes, and is no other content than they are.
fn zeroes(hasher: &mut Hasher, mut count: u64) {
    let zeroes = [0; 4096];
    while count > 0 {
        let part = usize::try_from(count).map_or(zeroes.len(), |count| count.min(zeroes.len()));
        hasher.update(&zeroes[..part]);
        count -= u64::try_from(part).unwrap_or(count);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn chmod(path: &Path, mode: u32) {
        fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_digest_is_of_what_a_step_sees() {
        let place = tempfile::tempdir().unwrap();
        let top = place.path().join("src");
        fs::create_dir_all(top.join("sub")).unwrap();
        fs::write(top.join("a"), "1").unwrap();
        symlink("a", top.join("link")).unwrap();
        let now = || digest_of_source(&top).unwrap();
        let before = now();
        chmod(&top.join("a"), 0o600);
        chmod(&top, 0o700);
        let long_ago = std::time::SystemTime::UNIX_EPOCH;
        std::fs::File::options()
            .write(true)
            .open(top.join("a"))
            .unwrap()
            .set_modified(long_ago)
            .unwrap();
        assert_eq!(now(), before);
        chmod(&top.join("a"), 0o700);
        assert_ne!(now(), before);
        chmod(&top.join("a"), 0o600);
        assert_eq!(now(), before);
        fs::write(top.join("a"), "2").unwrap();
        assert_ne!(now(), before);
        fs::write(top.join("a"), "1").unwrap();
        fs::create_dir(top.join("empty")).unwrap();
        assert_ne!(now(), before);
    }

    #[test]
    fn a_hole_is_zeroes_and_a_file_no_folder() {
        let place = tempfile::tempdir().unwrap();
        let (hole, full) = (place.path().join("hole"), place.path().join("full"));
        fs::File::create(&hole).unwrap().set_len(300_000).unwrap();
        fs::write(&full, vec![0; 300_000]).unwrap();
        let digest = digest_of_source(&full).unwrap();
        assert_eq!(digest_of_source(&hole).unwrap(), digest);
        let Shown { tree, is_folder } = show(&full).unwrap();
        assert!(!is_folder && tree.resolve(b"/file").is_ok());
        let missing = place.path().join("missing");
        assert!(
            digest_of_source(&missing)
                .unwrap_err()
                .to_string()
                .contains("missing")
        );
    }
}
