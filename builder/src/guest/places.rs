//! Places in a tree for what is only there while a step runs.
//!
//! What was not there before is made, and taken away afterwards where the step left it as it was.

use coop_image::tree::{Content, Inode, Kind, Metadata, Tree, TreeError};

use super::GuestError;

/// What was made, parents first.
#[derive(Debug, Default)]
pub(super) struct Places(Vec<String>);

impl Places {
    /// Sees to it that there is a folder or a file at an absolute path.
    pub(super) fn make(
        &mut self,
        tree: &mut Tree,
        path: &str,
        is_folder: bool,
    ) -> Result<(), GuestError> {
        if let Ok(id) = tree.resolve(path.as_bytes()) {
            let fits = match tree.inode(id).kind {
                Kind::Directory(_) => is_folder,
                Kind::File(_) => !is_folder,
                _ => false,
            };
            return fits.then_some(()).ok_or_else(|| GuestError::Place {
                path: path.to_owned(),
                is_folder,
            });
        }
        let ends = path.match_indices('/').skip(1).map(|(at, _)| at);
        for end in ends.chain([path.len()]) {
            let part = path.get(..end).unwrap_or(path);
            if tree.resolve(part.as_bytes()).is_err() {
                self.0.push(part.to_owned());
            }
        }
        let folder = Metadata {
            mode: 0o755,
            ..Metadata::default()
        };
        if is_folder {
            tree.make_directories(path.as_bytes(), &folder)?;
            return Ok(());
        }
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        let parent = tree.make_directories(parent.as_bytes(), &folder)?;
        let file = tree.add_inode(Inode {
            metadata: Metadata {
                mode: 0o644,
                ..Metadata::default()
            },
            kind: Kind::File(Content::default()),
        })?;
        tree.link(parent, name.as_bytes(), file)?;
        Ok(())
    }

    /// Takes away what was made and is still empty.
    pub(super) fn clear(&self, tree: &mut Tree) -> Result<(), TreeError> {
        for path in self.0.iter().rev() {
            let Ok(id) = tree.lookup(path.as_bytes()) else {
                continue;
            };
            let is_empty = match &tree.inode(id).kind {
                Kind::Directory(entries) => entries.is_empty(),
                Kind::File(content) => content.size == 0,
                _ => false,
            };
            let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
            if let (true, Ok(parent)) = (is_empty, tree.resolve(parent.as_bytes())) {
                tree.unlink(parent, name.as_bytes())?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_made_and_left_empty_goes() {
        let mut tree = Tree::new(Metadata::default());
        let folder = Metadata::default();
        tree.make_directories(b"/mnt/there", &folder).unwrap();
        let before = tree.paths();
        let mut places = Places::default();
        for (path, is_folder) in [
            ("/mnt/there", true),
            ("/mnt/a/b", true),
            ("/srv/x/file", false),
        ] {
            places.make(&mut tree, path, is_folder).unwrap();
            assert!(tree.resolve(path.as_bytes()).is_ok());
        }
        assert!(places.make(&mut tree, "/mnt/there", false).is_err());
        places.clear(&mut tree).unwrap();
        assert_eq!(tree.paths(), before);

        let mut places = Places::default();
        places.make(&mut tree, "/srv/used/mount", true).unwrap();
        tree.make_directories(b"/srv/used/by-the-step", &folder)
            .unwrap();
        places.clear(&mut tree).unwrap();
        assert!(tree.resolve(b"/srv/used/by-the-step").is_ok());
        assert!(tree.resolve(b"/srv/used/mount").is_err());
    }
}
