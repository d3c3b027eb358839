//! Who a user of the guest is, as its own tables say.

use coop_image::tree::Tree;

use super::RootfsError;
use super::database::Table;

/// passwd(5): the field of the home folder.
const HOME: usize = 5;
/// passwd(5) and group(5): the field of the number.
const ID: usize = 2;
/// group(5): the field of the members.
const MEMBERS: usize = 3;

/// A user of the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// The login name; nothing for a number that the guest's table does not have.
    pub name: Option<String>,
    /// The user's number.
    pub uid: u32,
    /// The main group's number.
    pub gid: u32,
    /// Further groups, in the order of the guest's table.
    pub groups: Vec<u32>,
    /// The home folder.
    pub home: String,
}

/// Finds a user: `name`, `number`, and behind a colon the group where it is not the user's own.
///
/// # Errors
/// The guest's tables do not have it; a number that they do not have needs a group beside it.
pub fn login(tree: &Tree, text: &str) -> Result<Login, RootfsError> {
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    let passwd = Table::load(tree, "/etc/passwd");
    let groups = Table::load(tree, "/etc/group");
    let gid = group.map(|name| group_number(&groups, name)).transpose()?;
    let row = match user.parse::<u32>() {
        Ok(uid) => passwd.row_with(ID, &uid.to_string()),
        Err(_) => passwd.row(user),
    };
    let Some(row) = row else {
        return unknown(user, gid);
    };
    let invalid = || RootfsError::InvalidRow(user.to_owned());
    let field = |index: usize| row.get(index).ok_or_else(invalid);
    let number =
        |index| -> Result<u32, RootfsError> { field(index)?.parse().map_err(|_| invalid()) };
    let name = field(0)?.clone();
    Ok(Login {
        uid: number(ID)?,
        gid: match gid {
            Some(gid) => gid,
            None => number(ID + 1)?,
        },
        groups: memberships(&groups, &name),
        home: field(HOME)?.clone(),
        name: Some(name),
    })
}

/// A user that the guest's table does not have, which only a number can be.
fn unknown(user: &str, gid: Option<u32>) -> Result<Login, RootfsError> {
    // The guest's root is root before any table says so.
    let gid = if user == "root" { gid.or(Some(0)) } else { gid };
    let uid = match user {
        "root" => Some(0),
        _ => user.parse().ok(),
    };
    match (uid, gid) {
        (Some(uid), Some(gid)) => Ok(Login {
            name: (uid == 0).then(|| "root".to_owned()),
            uid,
            gid,
            groups: Vec::new(),
            home: if uid == 0 { "/root" } else { "/" }.to_owned(),
        }),
        (Some(uid), None) => Err(RootfsError::NoGroupOfNumber(uid)),
        (None, _) => Err(RootfsError::NoOwner {
            what: "user",
            name: user.to_owned(),
        }),
    }
}

fn group_number(groups: &Table, text: &str) -> Result<u32, RootfsError> {
    if let Ok(number) = text.parse() {
        return Ok(number);
    }
    if text == "root" {
        return Ok(0);
    }
    let number = groups.number(text, ID);
    number.ok_or_else(|| RootfsError::NoGroup(text.to_owned()))
}

fn memberships(groups: &Table, name: &str) -> Vec<u32> {
    let is_member = |row: &&Vec<String>| {
        let members = row.get(MEMBERS).map_or("", String::as_str);
        members.split(',').any(|member| member == name)
    };
    let rows = groups.rows().iter().filter(is_member);
    rows.filter_map(|row| row.get(ID)?.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use coop_image::tree::Metadata;

    use super::*;

    fn tree() -> Tree {
        let mut tree = Tree::new(Metadata::default());
        for (path, text) in [
            (
                "/etc/passwd",
                "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\nbad:x:y\n",
            ),
            (
                "/etc/group",
                "root:x:0:\napp:x:1001:\ndisk:x:6:other,app\nweb:x:33:\n",
            ),
        ] {
            Table::parse(text).store(&mut tree, path, 0o644).unwrap();
        }
        tree
    }

    #[test]
    fn users_are_found_by_name_and_number() {
        let tree = tree();
        let app = login(&tree, "app").unwrap();
        assert_eq!((app.uid, app.gid, &*app.home), (1000, 1001, "/home/app"));
        assert_eq!(app.groups, [6]);
        assert_eq!(login(&tree, "1000").unwrap(), app);
        assert_eq!(login(&tree, "app:web").unwrap().gid, 33);
        assert_eq!(login(&tree, "app:7").unwrap().gid, 7);
        let number = login(&tree, "5:6").unwrap();
        assert_eq!((number.uid, number.gid, number.name), (5, 6, None));
        let root = login(&Tree::new(Metadata::default()), "root").unwrap();
        assert_eq!((root.uid, root.gid), (0, 0));
    }

    #[test]
    fn unknown_ones_are_refused() {
        let tree = tree();
        for (text, sentence) in [
            (
                "nobody",
                "user 'nobody' does not exist in the root file system",
            ),
            ("app:x", "group 'x' does not exist in the root file system"),
            (
                "5",
                "user 5 is not in the guest's /etc/passwd, so its group must be named: 5:5",
            ),
            ("bad", "the row of user 'bad' in /etc/passwd is not valid"),
        ] {
            assert_eq!(login(&tree, text).unwrap_err().to_string(), sentence);
        }
    }
}
