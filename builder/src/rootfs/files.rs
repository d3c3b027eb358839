//! The recipe's `files:` and `hostname:`.

use std::sync::Arc;

use coop_image::tree::{
    Content, Inode, InodeId, Kind, Metadata, Times, Timestamp, Tree, TreeError,
};
use fs_err as fs;

use super::RootfsError;
use super::database::Table;
use crate::recipe::{FileContent, FileEntry, Owner};

/// Puts the recipe's files into the tree, replacing what is there.
///
/// # Errors
/// A file of the host cannot be read, an owner is not in the guest's tables, or a folder stands
/// where a file should go.
pub(super) fn apply(
    tree: &mut Tree,
    files: &[FileEntry],
    epoch: Timestamp,
) -> Result<(), RootfsError> {
    for file in files {
        let content = content(tree, &file.content)?;
        let metadata = Metadata {
            mode: file.mode,
            uid: number(tree, &file.owner, "/etc/passwd", "user")?,
            gid: number(tree, &file.group, "/etc/group", "group")?,
            times: Times::all(epoch),
            ..Metadata::default()
        };
        put(tree, file.path.as_bytes(), content, metadata)?;
    }
    Ok(())
}

/// Writes `/etc/hostname`, and the name's line into `/etc/hosts`.
///
/// # Errors
/// A folder stands in the way.
pub(super) fn set_hostname(
    tree: &mut Tree,
    hostname: &str,
    epoch: Timestamp,
) -> Result<(), RootfsError> {
    let metadata = Metadata {
        mode: 0o644,
        times: Times::all(epoch),
        ..Metadata::default()
    };
    let content = tree.add_bytes(format!("{hostname}\n").into_bytes())?;
    put(tree, b"/etc/hostname", content, metadata.clone())?;
    if tree.resolve(b"/etc/hosts").is_err() {
        let text = format!(
            "127.0.0.1\tlocalhost\n127.0.1.1\t{hostname}\n\n\
             ::1\tlocalhost ip6-localhost ip6-loopback\n\
             ff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n"
        );
        let content = tree.add_bytes(text.into_bytes())?;
        put(tree, b"/etc/hosts", content, metadata)?;
    }
    Ok(())
}

fn content(tree: &mut Tree, content: &FileContent) -> Result<Content, RootfsError> {
    match content {
        FileContent::Text(text) => Ok(tree.add_bytes(text.clone().into_bytes())?),
        FileContent::File(file) => {
            let opened = fs::File::open(&file.path)?;
            let size = opened.metadata()?.len();
            let blob = tree.add_blob(Arc::new(opened.into_parts().0))?;
            Ok(Content::contiguous(blob, 0, size))
        }
    }
}

fn number(tree: &Tree, owner: &Owner, table: &str, what: &'static str) -> Result<u32, RootfsError> {
    match owner {
        Owner::Id(id) => Ok(*id),
        // There before any table is.
        Owner::Name(name) if name == "root" => Ok(0),
        Owner::Name(name) => {
            Table::load(tree, table)
                .number(name, 2)
                .ok_or_else(|| RootfsError::NoOwner {
                    what,
                    name: name.clone(),
                })
        }
    }
}

/// Puts a file at a path. A link to a file is replaced by the file, as `install` does; links on
/// the way are followed.
///
/// # Errors
/// A folder stands there, or something on the way is no folder.
pub fn put(
    tree: &mut Tree,
    path: &[u8],
    content: Content,
    metadata: Metadata,
) -> Result<InodeId, RootfsError> {
    let slash = path.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
    let (folder, name) = (&path[..slash], &path[slash..]);
    let name = name.strip_prefix(b"/").unwrap_or(name);
    let parent = tree.make_directories(
        folder,
        &Metadata {
            mode: 0o755,
            times: metadata.times,
            ..Metadata::default()
        },
    )?;
    if let Some(id) = tree.child(parent, name)
        && tree.entries(id).is_some()
    {
        return Err(TreeError::Exists(coop_image::tree::display(path)).into());
    }
    let id = tree.add_inode(Inode {
        metadata,
        kind: Kind::File(content),
    })?;
    tree.replace(parent, name, id)?;
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_get_their_owner_from_the_guest() {
        let mut tree = Tree::new(Metadata::default());
        Table::parse("www-data:x:33:33::/var/www:/bin/sh\n")
            .store(&mut tree, "/etc/passwd", 0o644)
            .unwrap();
        let entry = |owner: Owner| FileEntry {
            path: "/srv/www/index.html".to_owned(),
            content: FileContent::Text("hello\n".to_owned()),
            mode: 0o640,
            owner,
            group: Owner::Id(7),
        };
        let www = Owner::Name("www-data".to_owned());
        apply(&mut tree, &[entry(www)], Timestamp::from_seconds(5)).unwrap();
        let id = tree.lookup(b"/srv/www/index.html").unwrap();
        let metadata = &tree.inode(id).metadata;
        assert_eq!((metadata.mode, metadata.uid, metadata.gid), (0o640, 33, 7));
        let nobody = Owner::Name("nobody".to_owned());
        let error = apply(&mut tree, &[entry(nobody)], Timestamp::default()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "user 'nobody' does not exist in the root file system"
        );
    }

    #[test]
    fn a_folder_is_not_replaced_by_a_file() {
        let mut tree = Tree::new(Metadata::default());
        tree.make_directories(b"/etc/x", &Metadata::default())
            .unwrap();
        let content = tree.add_bytes(Vec::new()).unwrap();
        assert!(put(&mut tree, b"/etc/x", content, Metadata::default()).is_err());
        set_hostname(&mut tree, "web", Timestamp::default()).unwrap();
        let id = tree.lookup(b"/etc/hosts").unwrap();
        let hosts = tree.read_file(id, 1000).unwrap();
        assert!(
            String::from_utf8(hosts)
                .unwrap()
                .contains("127.0.1.1\tweb\n")
        );
    }
}
