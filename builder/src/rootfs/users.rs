//! Users: rows of the guest's tables, a home, `authorized_keys`.
//!
//! What `useradd` would do, done on the tree, so that a build needs no guest for it.

use coop_image::tree::{
    Entries, Inode, InodeId, Kind, Metadata, Name, Timestamp, Tree, TreeError, display,
};

use super::RootfsError;
use super::database::{SECONDS_PER_DAY, Table};
use crate::recipe::{Password, User, UserId};

const PASSWD: &str = "/etc/passwd";
const SHADOW: &str = "/etc/shadow";
const GROUP: &str = "/etc/group";
const GSHADOW: &str = "/etc/gshadow";
/// The first number for people (`UID_MIN` of Debian's login.defs).
const FIRST_FREE_ID: u32 = 1000;
/// shadow(5): a password that nothing matches.
const LOCKED: &str = "!";

/// passwd(5) and group(5): the field of the user's or group's number.
const ID: usize = 2;

/// Makes and changes the recipe's users.
///
/// # Errors
/// A group is not there, a number is taken, or the tree has no place for a home.
pub(super) fn apply(tree: &mut Tree, users: &[User], epoch: Timestamp) -> Result<(), RootfsError> {
    if users.is_empty() {
        return Ok(());
    }
    let mut tables = Tables::load(tree);
    for user in users {
        tables.put(user, epoch)?;
        let (uid, gid, home) = tables.identity(&user.name)?;
        let owner = Metadata {
            mode: 0o700,
            uid,
            gid,
            times: coop_image::tree::Times::all(epoch),
            ..Metadata::default()
        };
        let folder = make_home(tree, home.as_bytes(), &owner)?;
        if !user.ssh_keys.is_empty() {
            authorize(tree, folder, &user.ssh_keys, &owner)?;
        }
    }
    tables.store(tree)?;
    Ok(())
}

struct Tables {
    passwd: Table,
    shadow: Table,
    group: Table,
    gshadow: Table,
}

impl Tables {
    fn load(tree: &Tree) -> Self {
        Self {
            passwd: Table::load(tree, PASSWD),
            shadow: Table::load(tree, SHADOW),
            group: Table::load(tree, GROUP),
            gshadow: Table::load(tree, GSHADOW),
        }
    }

    fn store(&self, tree: &mut Tree) -> Result<(), TreeError> {
        self.passwd.store(tree, PASSWD, 0o644)?;
        self.shadow.store(tree, SHADOW, 0o640)?;
        self.group.store(tree, GROUP, 0o644)?;
        self.gshadow.store(tree, GSHADOW, 0o640)
    }

    fn put(&mut self, user: &User, epoch: Timestamp) -> Result<(), RootfsError> {
        if self.passwd.row(&user.name).is_none() {
            self.add(user)?;
        }
        self.set_password(user, epoch);
        for group in &user.groups {
            self.join(group, &user.name)?;
        }
        Ok(())
    }

    fn add(&mut self, user: &User) -> Result<(), RootfsError> {
        let id = match user.uid {
            UserId::Free => self.free_id(),
            UserId::Given(id) if self.is_taken(id) => {
                return Err(RootfsError::IdTaken {
                    user: user.name.clone(),
                    id,
                });
            }
            UserId::Given(id) => id,
        };
        let gid = match self.group.number(&user.name, ID) {
            Some(gid) => gid,
            None => {
                self.group.push(&[&user.name, "x", &id.to_string(), ""]);
                self.gshadow.push(&[&user.name, LOCKED, "", ""]);
                id
            }
        };
        let (id, gid) = (id.to_string(), gid.to_string());
        self.passwd
            .push(&[&user.name, "x", &id, &gid, "", &user.home, &user.shell]);
        Ok(())
    }

    /// A number that neither a user nor a group has.
    fn free_id(&self) -> u32 {
        let mut candidate = FIRST_FREE_ID;
        loop {
            let user = self.passwd.free_number(ID, candidate);
            let group = self.group.free_number(ID, user);
            if user == group {
                return user;
            }
            candidate = group;
        }
    }

    fn is_taken(&self, id: u32) -> bool {
        self.passwd.free_number(ID, id) != id
    }

    fn set_password(&mut self, user: &User, epoch: Timestamp) {
        let hash = match &user.password {
            Password::Locked => LOCKED.to_owned(),
            Password::Hash(hash) => hash.clone(),
        };
        if let Some(row) = self.shadow.row_mut(&user.name) {
            if let Some(field) = row.get_mut(1) {
                *field = hash;
            }
        } else {
            let day = epoch.seconds.div_euclid(SECONDS_PER_DAY).to_string();
            self.shadow
                .push(&[&user.name, &hash, &day, "0", "99999", "7", "", "", ""]);
        }
    }

    fn join(&mut self, group: &str, user: &str) -> Result<(), RootfsError> {
        let row = self
            .group
            .row_mut(group)
            .ok_or_else(|| RootfsError::NoGroup(group.to_owned()))?;
        add_member(row, user);
        if let Some(row) = self.gshadow.row_mut(group) {
            add_member(row, user);
        }
        Ok(())
    }

    /// Number, group and home of a user.
    fn identity(&self, name: &str) -> Result<(u32, u32, String), RootfsError> {
        let invalid = || RootfsError::InvalidRow(name.to_owned());
        let uid = self.passwd.number(name, ID).ok_or_else(invalid)?;
        let gid = self.passwd.number(name, ID + 1).ok_or_else(invalid)?;
        let home = self.passwd.row(name).and_then(|row| row.get(5));
        Ok((uid, gid, home.ok_or_else(invalid)?.clone()))
    }
}

/// group(5) and gshadow(5): the last field lists the members.
fn add_member(row: &mut [String], user: &str) {
    if let Some(members) = row.get_mut(3)
        && !members.split(',').any(|member| member == user)
    {
        if !members.is_empty() {
            members.push(',');
        }
        members.push_str(user);
    }
}

/// Finds a home or makes it, filled from `/etc/skel`; an existing folder keeps its metadata.
fn make_home(tree: &mut Tree, path: &[u8], owner: &Metadata) -> Result<InodeId, TreeError> {
    match tree.resolve(path) {
        Ok(id) => Ok(id),
        Err(TreeError::NotFound(_)) => {
            let parent_end = path.iter().rposition(|b| *b == b'/').unwrap_or(0);
            let parent_metadata = Metadata {
                mode: 0o755,
                times: owner.times,
                ..Metadata::default()
            };
            tree.make_directories(&path[..parent_end], &parent_metadata)?;
            let home = tree.make_directories(path, owner)?;
            copy_skeleton(tree, home, owner)?;
            Ok(home)
        }
        Err(error) => Err(error),
    }
}

/// Debian's skeleton is flat; folders in it are left to the recipe's `files:`.
fn copy_skeleton(tree: &mut Tree, home: InodeId, owner: &Metadata) -> Result<(), TreeError> {
    let Ok(skeleton) = tree.resolve(b"/etc/skel") else {
        return Ok(());
    };
    let entries: Vec<(Name, InodeId)> = tree
        .entries(skeleton)
        .into_iter()
        .flatten()
        .map(|(name, id)| (name.clone(), *id))
        .collect();
    for (name, id) in entries {
        let mut inode = tree.inode(id).clone();
        if matches!(inode.kind, Kind::File(_)) {
            (inode.metadata.uid, inode.metadata.gid) = (owner.uid, owner.gid);
            let copy = tree.add_inode(inode)?;
            tree.link(home, &name, copy)?;
        }
    }
    Ok(())
}

fn authorize(
    tree: &mut Tree,
    home: InodeId,
    keys: &[String],
    owner: &Metadata,
) -> Result<(), RootfsError> {
    let ssh = match tree.child(home, b".ssh") {
        Some(id) if tree.entries(id).is_some() => id,
        Some(_) => return Err(TreeError::NotADirectory(display(b".ssh")).into()),
        None => {
            let folder = Inode {
                metadata: owner.clone(),
                kind: Kind::Directory(Entries::new()),
            };
            let id = tree.add_inode(folder)?;
            tree.link(home, b".ssh", id)?;
            id
        }
    };
    let content = tree.add_bytes((keys.join("\n") + "\n").into_bytes())?;
    let file = tree.add_inode(Inode {
        metadata: Metadata {
            mode: 0o600,
            ..owner.clone()
        },
        kind: Kind::File(content),
    })?;
    tree.replace(ssh, b"authorized_keys", file)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str) -> User {
        User {
            name: name.to_owned(),
            password: Password::Locked,
            ssh_keys: Vec::new(),
            uid: UserId::Free,
            shell: "/bin/sh".to_owned(),
            home: format!("/home/{name}"),
            groups: Vec::new(),
        }
    }

    fn tree() -> Tree {
        let mut tree = Tree::new(Metadata::default());
        let files = [
            (PASSWD, "root:x:0:0:root:/root:/bin/bash\n"),
            (SHADOW, "root:*:1:0:99999:7:::\n"),
            (GROUP, "root:x:0:\nsudo:x:27:\nold:x:1000:\n"),
            (GSHADOW, "root:*::\nsudo:*::\n"),
            ("/etc/skel/.profile", "umask 22\n"),
        ];
        for (path, text) in files {
            Table::parse(text).store(&mut tree, path, 0o644).unwrap();
        }
        tree
    }

    fn text(tree: &Tree, path: &str) -> String {
        let id = tree.resolve(path.as_bytes()).unwrap();
        String::from_utf8(tree.read_file(id, 1 << 20).unwrap()).unwrap()
    }

    #[test]
    fn a_new_user_gets_rows_a_home_and_keys() {
        let mut tree = tree();
        let ann = User {
            ssh_keys: vec!["ssh-ed25519 AAAA ann".to_owned()],
            groups: vec!["sudo".to_owned()],
            ..user("ann")
        };
        apply(&mut tree, &[ann], Timestamp::from_seconds(0)).unwrap();
        assert!(text(&tree, PASSWD).ends_with("ann:x:1001:1001::/home/ann:/bin/sh\n"));
        assert!(text(&tree, GROUP).contains("sudo:x:27:ann\n"));
        assert!(text(&tree, SHADOW).ends_with("ann:!:0:0:99999:7:::\n"));
        assert_eq!(text(&tree, "/home/ann/.profile"), "umask 22\n");
        assert_eq!(
            text(&tree, "/home/ann/.ssh/authorized_keys"),
            "ssh-ed25519 AAAA ann\n"
        );
        let ssh = tree.resolve(b"/home/ann/.ssh").unwrap();
        let metadata = &tree.inode(ssh).metadata;
        assert_eq!(
            (metadata.mode, metadata.uid, metadata.gid),
            (0o700, 1001, 1001)
        );
        let home = tree.resolve(b"/home").unwrap();
        assert_eq!(tree.inode(home).metadata.uid, 0);
    }

    #[test]
    fn an_existing_user_keeps_number_home_and_shell() {
        let mut tree = tree();
        let root = User {
            password: Password::Hash("$6$salt$hash".to_owned()),
            ..user("root")
        };
        apply(
            &mut tree,
            std::slice::from_ref(&root),
            Timestamp::from_seconds(0),
        )
        .unwrap();
        assert_eq!(text(&tree, PASSWD), "root:x:0:0:root:/root:/bin/bash\n");
        let shadow = text(&tree, SHADOW);
        assert!(shadow.starts_with("root:$6$salt$hash:"), "{shadow}");
        let mut again = tree.clone();
        apply(&mut again, &[root], Timestamp::from_seconds(0)).unwrap();
        assert_eq!(text(&again, SHADOW), shadow);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let none = User {
            groups: vec!["wheel".to_owned()],
            ..user("ann")
        };
        let taken = User {
            uid: UserId::Given(0),
            ..user("bob")
        };
        for (user, message) in [
            (none, "group 'wheel' does not exist in the root file system"),
            (taken, "user 'bob' cannot have number 0, which is taken"),
        ] {
            let error = apply(&mut tree(), &[user], Timestamp::default()).unwrap_err();
            assert_eq!(error.to_string(), message);
        }
    }
}
