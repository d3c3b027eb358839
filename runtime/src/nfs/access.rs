//! Who may do what: permission bits and POSIX access lists, as a kernel on a local disk has them.

use coop_image::tree::{Inode, Kind, Metadata};

/// The attribute that has a file's access list.
const ACL_ATTRIBUTE: &[u8] = b"system.posix_acl_access";
/// Its version, and the tags of its entries (linux/posix_acl_xattr.h, linux/posix_acl.h).
const ACL_VERSION: u32 = 2;
const ACL_USER_OBJ: u16 = 0x01;
const ACL_USER: u16 = 0x02;
const ACL_GROUP_OBJ: u16 = 0x04;
const ACL_GROUP: u16 = 0x08;
const ACL_MASK: u16 = 0x10;
const ACL_OTHER: u16 = 0x20;

/// The permission to read, as in a mode's last digit.
pub(super) const READ: u16 = 4;
/// The permission to write.
pub(super) const WRITE: u16 = 2;
/// The permission to execute a file, or to look a name up in a folder.
pub(super) const EXECUTE: u16 = 1;

/// The number of nobody, as Linux has it.
const NOBODY: u32 = 65534;

/// Who is taken for nobody (uid and gid 65534), as callers without credentials always are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Squash {
    /// No one: the server's and the clients' root are the same person.
    No,
    /// Root: what only the image's root may read stays unread.
    Root,
}

/// Who calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Caller {
    pub(super) uid: u32,
    /// All groups.
    pub(super) gids: Vec<u32>,
}

impl Caller {
    fn nobody() -> Self {
        Self {
            uid: NOBODY,
            gids: vec![NOBODY],
        }
    }

    /// Who the caller is taken for.
    pub(super) fn squashed(caller: Option<Self>, squash: Squash) -> Self {
        match caller {
            None => Self::nobody(),
            Some(caller) if squash == Squash::No => caller,
            Some(Self { uid: 0, .. }) => Self::nobody(),
            Some(mut caller) => {
                for gid in caller.gids.iter_mut().filter(|gid| **gid == 0) {
                    *gid = NOBODY;
                }
                caller
            }
        }
    }

    /// Whether the caller has this permission, one of [`READ`], [`WRITE`] and [`EXECUTE`].
    /// That nothing of the tree can be written is not its matter.
    pub(super) fn may(&self, wanted: u16, inode: &Inode) -> bool {
        let metadata = &inode.metadata;
        if self.uid == 0 {
            // Root executes what somebody may.
            let is_file = matches!(inode.kind, Kind::File(_));
            return wanted != EXECUTE || !is_file || metadata.mode & 0o111 != 0;
        }
        let granted = match acl(metadata) {
            Some(entries) => self.by_acl(metadata, &entries, wanted),
            None => self.by_mode(metadata) & wanted,
        };
        granted == wanted
    }

    fn has_group(&self, gid: u32) -> bool {
        self.gids.contains(&gid)
    }

    fn by_mode(&self, metadata: &Metadata) -> u16 {
        let shift = if self.uid == metadata.uid {
            6
        } else if self.has_group(metadata.gid) {
            3
        } else {
            0
        };
        metadata.mode >> shift & 7
    }

    /// What of `wanted` an access list grants: acl(5), "access check algorithm".
    fn by_acl(&self, metadata: &Metadata, entries: &[AclEntry], wanted: u16) -> u16 {
        let one = |tag| entries.iter().find(|entry| entry.tag == tag);
        let mask = one(ACL_MASK).map_or(7, |entry| entry.permissions);
        if self.uid == metadata.uid {
            return one(ACL_USER_OBJ).map_or(0, |entry| entry.permissions) & wanted;
        }
        let mut users = entries.iter().filter(|entry| entry.tag == ACL_USER);
        if let Some(entry) = users.find(|entry| entry.id == self.uid) {
            return entry.permissions & mask & wanted;
        }
        let groups = entries.iter().filter(|entry| match entry.tag {
            ACL_GROUP_OBJ => self.has_group(metadata.gid),
            ACL_GROUP => self.has_group(entry.id),
            _ => false,
        });
        let mut is_member = false;
        for entry in groups {
            is_member = true;
            if entry.permissions & wanted == wanted {
                return mask & wanted;
            }
        }
        if is_member {
            return 0;
        }
        one(ACL_OTHER).map_or(0, |entry| entry.permissions) & wanted
    }
}

struct AclEntry {
    tag: u16,
    permissions: u16,
    id: u32,
}

/// The access list of an inode. One that cannot be read grants nothing.
fn acl(metadata: &Metadata) -> Option<Vec<AclEntry>> {
    let value = metadata.xattrs.get(ACL_ATTRIBUTE)?;
    let entries = value.split_first_chunk::<4>().and_then(|(version, rest)| {
        let (entries, left) = rest.as_chunks::<8>();
        (u32::from_le_bytes(*version) == ACL_VERSION && left.is_empty()).then_some(entries)
    });
    let entry = |[a, b, c, d, e, f, g, h]: &[u8; 8]| AclEntry {
        tag: u16::from_le_bytes([*a, *b]),
        permissions: u16::from_le_bytes([*c, *d]) & 7,
        id: u32::from_le_bytes([*e, *f, *g, *h]),
    };
    Some(entries.unwrap_or_default().iter().map(entry).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use coop_image::tree::Content;

    fn file(mode: u16, uid: u32, gid: u32) -> Inode {
        Inode {
            metadata: Metadata {
                mode,
                uid,
                gid,
                ..Metadata::default()
            },
            kind: Kind::File(Content::default()),
        }
    }

    fn caller(uid: u32, gids: &[u32]) -> Caller {
        let gids = gids.to_vec();
        Caller { uid, gids }
    }

    #[test]
    fn the_first_class_that_fits_decides() {
        let inode = file(0o047, 5, 6);
        assert!(!caller(5, &[6]).may(READ, &inode));
        assert!(caller(7, &[1, 6]).may(READ, &inode));
        assert!(!caller(7, &[1, 6]).may(EXECUTE, &inode));
        assert!(caller(7, &[1]).may(EXECUTE, &inode));
    }

    #[test]
    fn root_reads_everything_and_executes_what_somebody_may() {
        assert!(caller(0, &[0]).may(READ, &file(0, 5, 5)));
        assert!(!caller(0, &[0]).may(EXECUTE, &file(0o600, 0, 0)));
        assert!(caller(0, &[0]).may(EXECUTE, &file(0o001, 5, 5)));
    }

    #[test]
    fn a_squashed_root_is_nobody() {
        let secret = file(0o600, 0, 0);
        let of_group = file(0o040, 5, 0);
        let root = || Some(caller(0, &[0]));
        assert!(Caller::squashed(root(), Squash::No).may(READ, &secret));
        assert!(!Caller::squashed(root(), Squash::Root).may(READ, &secret));
        let member = || Some(caller(7, &[0, 8]));
        assert!(Caller::squashed(member(), Squash::No).may(READ, &of_group));
        assert!(!Caller::squashed(member(), Squash::Root).may(READ, &of_group));
        assert_eq!(Caller::squashed(None, Squash::No).uid, NOBODY);
    }

    #[test]
    fn access_lists_are_heeded() {
        let entry = |tag: u16, permissions: u16, id: u32| {
            let head = [tag.to_le_bytes(), permissions.to_le_bytes()].concat();
            [head, id.to_le_bytes().to_vec()].concat()
        };
        let none = u32::MAX;
        let list = [
            entry(ACL_USER_OBJ, 6, none),
            entry(ACL_USER, 7, 10),
            entry(ACL_GROUP_OBJ, 0, none),
            entry(ACL_GROUP, 4, 20),
            entry(ACL_MASK, 4, none),
            entry(ACL_OTHER, 1, none),
        ];
        let value = [vec![2, 0, 0, 0], list.concat()].concat();
        // The mode's group digit is the mask then, and says nothing of the group.
        let mut inode = file(0o641, 5, 6);
        let set = |inode: &mut Inode, value: &[u8]| {
            let name = ACL_ATTRIBUTE.into();
            inode.metadata.xattrs.insert(name, value.into());
        };
        set(&mut inode, &value);
        assert!(caller(5, &[]).may(READ, &inode));
        assert!(caller(10, &[]).may(READ, &inode));
        assert!(!caller(10, &[]).may(EXECUTE, &inode), "masked");
        assert!(!caller(7, &[6]).may(READ, &inode));
        assert!(
            !caller(7, &[6]).may(EXECUTE, &inode),
            "members are not others"
        );
        assert!(caller(7, &[6, 20]).may(READ, &inode));
        assert!(caller(7, &[]).may(EXECUTE, &inode));
        set(&mut inode, b"nonsense");
        assert!(!caller(5, &[]).may(READ, &inode));
    }
}
