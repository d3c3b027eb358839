//! `/etc/passwd`, `/etc/shadow`, `/etc/group`, `/etc/gshadow`: colon-separated tables in a tree.
//!
//! Formats: passwd(5), shadow(5), group(5), gshadow(5).

use coop_image::tree::{Content, Inode, Kind, Metadata, Timestamp, Tree, TreeError};

/// The largest table that is read, in bytes.
const TABLE_SIZE_MAX: u64 = 16 << 20;
pub(super) const SECONDS_PER_DAY: i64 = 86_400;
/// shadow(5): field 3 is the day of the last change.
const SHADOW_LAST_CHANGE: usize = 2;

/// A table: rows of fields, in the order of the file. Rows that are not understood stay as they
/// are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(super) fn parse(text: &str) -> Self {
        let row = |line: &str| line.split(':').map(str::to_owned).collect();
        Self {
            rows: text.lines().map(row).collect(),
        }
    }

    pub(super) fn to_text(&self) -> String {
        let mut text = String::new();
        for row in &self.rows {
            text.push_str(&row.join(":"));
            text.push('\n');
        }
        text
    }

    /// Reads a table of the tree; a missing one is empty.
    pub(super) fn load(tree: &Tree, path: &str) -> Self {
        let bytes = tree
            .resolve(path.as_bytes())
            .ok()
            .and_then(|id| tree.read_file(id, TABLE_SIZE_MAX).ok())
            .unwrap_or_default();
        Self::parse(&String::from_utf8_lossy(&bytes))
    }

    /// Writes the table into the tree; an existing file keeps its owner and mode.
    pub(super) fn store(&self, tree: &mut Tree, path: &str, mode: u16) -> Result<(), TreeError> {
        let content = tree.add_bytes(self.to_text().into_bytes())?;
        write_file(tree, path, content, mode)
    }

    /// The row whose first field is `name`.
    pub(super) fn row(&self, name: &str) -> Option<&Vec<String>> {
        self.rows.iter().find(|row| row[0] == name)
    }

    /// The first row with this value in a field.
    pub(super) fn row_with(&self, field: usize, value: &str) -> Option<&Vec<String>> {
        let has = |row: &&Vec<String>| row.get(field).is_some_and(|found| found == value);
        self.rows.iter().find(has)
    }

    pub(super) fn rows(&self) -> &[Vec<String>] {
        &self.rows
    }

    pub(super) fn row_mut(&mut self, name: &str) -> Option<&mut Vec<String>> {
        self.rows.iter_mut().find(|row| row[0] == name)
    }

    pub(super) fn push(&mut self, fields: &[&str]) {
        self.rows
            .push(fields.iter().map(|&field| field.to_owned()).collect());
    }

    /// The number in a field of a row: `uid` of passwd is 2, `gid` of group is 2.
    pub(super) fn number(&self, name: &str, field: usize) -> Option<u32> {
        self.row(name)?.get(field)?.parse().ok()
    }

    /// The lowest number at or above `first` that no row has in `field`.
    pub(super) fn free_number(&self, field: usize, first: u32) -> u32 {
        let mut taken: Vec<u32> = self
            .rows
            .iter()
            .filter_map(|row| row.get(field)?.parse().ok())
            .filter(|number| *number >= first)
            .collect();
        taken.sort_unstable();
        taken.dedup();
        (first..)
            .zip(taken.iter().map(Some).chain(std::iter::repeat(None)))
            .find(|(candidate, taken)| Some(candidate) != *taken)
            .map_or(first, |(candidate, _)| candidate)
    }
}

/// Replaces or makes a file; an existing one keeps its metadata.
fn write_file(tree: &mut Tree, path: &str, content: Content, mode: u16) -> Result<(), TreeError> {
    if let Ok(id) = tree.resolve(path.as_bytes()) {
        tree.inode_mut(id).kind = Kind::File(content);
        return Ok(());
    }
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    let parent = tree.make_directories(
        folder.as_bytes(),
        &Metadata {
            mode: 0o755,
            ..Metadata::default()
        },
    )?;
    let id = tree.add_inode(Inode {
        metadata: Metadata {
            mode,
            ..Metadata::default()
        },
        kind: Kind::File(content),
    })?;
    tree.link(parent, name.as_bytes(), id)
}

/// Sets every day of last change that lies after `epoch` to the epoch's day: shadow's tools write
/// the day on which the guest ran.
pub(super) fn fix_password_ages(tree: &mut Tree, epoch: Timestamp) -> Result<(), TreeError> {
    let path = "/etc/shadow";
    let mut table = Table::load(tree, path);
    let day = epoch.seconds.div_euclid(SECONDS_PER_DAY);
    let mut changed = false;
    for field in table
        .rows
        .iter_mut()
        .filter_map(|row| row.get_mut(SHADOW_LAST_CHANGE))
    {
        if field.parse::<i64>().is_ok_and(|found| found > day) {
            *field = day.to_string();
            changed = true;
        }
    }
    if changed {
        table.store(tree, path, 0o640)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_survive_and_numbers_are_found() {
        let text = "root:x:0:0:root:/root:/bin/bash\n# comment\nweb:x:1000:1000::/srv:/bin/sh\n";
        let mut table = Table::parse(text);
        assert_eq!(table.to_text(), text);
        assert_eq!(table.number("web", 2), Some(1000));
        assert_eq!(table.number("nobody", 2), None);
        assert_eq!(table.free_number(2, 1000), 1001);
        assert_eq!(table.free_number(2, 0), 1);
        table.push(&["x", "x", "1001"]);
        assert_eq!(table.free_number(2, 1000), 1002);
        assert_eq!(table.free_number(2, 500), 500);
    }

    #[test]
    fn only_later_days_are_set_back() {
        let mut tree = Tree::new(Metadata::default());
        let shadow = "root:*:20000:0:99999:7:::\nold:*:100::::::\n";
        Table::parse(shadow)
            .store(&mut tree, "/etc/shadow", 0o640)
            .unwrap();
        fix_password_ages(&mut tree, Timestamp::from_seconds(1000 * SECONDS_PER_DAY)).unwrap();
        assert_eq!(
            Table::load(&tree, "/etc/shadow").to_text(),
            "root:*:1000:0:99999:7:::\nold:*:100::::::\n"
        );
    }
}
