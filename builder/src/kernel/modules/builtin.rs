//! The indices of what is built into the kernel.

use super::index::{Entry, index};
use super::name::{module_name, normalised_alias};

/// `modules.builtin.bin` from `modules.builtin`, a path on each line. Without that file depmod
/// leaves an empty one, which modprobe takes for no index.
pub(super) fn names(list: Option<&str>) -> Result<Vec<u8>, String> {
    let Some(list) = list else {
        return Ok(Vec::new());
    };
    let paths = list
        .lines()
        .filter(|line| line.starts_with(|first: char| first.is_ascii_alphabetic()));
    let entries = paths.map(|path| Entry {
        key: module_name(path),
        priority: 0,
        value: String::new(),
    });
    index(entries.collect())
}

/// `modules.builtin.alias.bin` from `modules.builtin.modinfo`: strings of `NAME.KEY=VALUE`.
pub(super) fn aliases(info: Option<&str>) -> Result<Vec<u8>, String> {
    let Some(info) = info else {
        return Ok(Vec::new());
    };
    let entry = |statement: &str| {
        let (module, statement) = statement.split_once('.')?;
        let alias = statement.strip_prefix("alias=")?;
        if module.is_empty() || alias.is_empty() {
            return None;
        }
        Some(Entry {
            key: normalised_alias(alias)?,
            priority: 0,
            value: module.to_owned(),
        })
    };
    index(info.split('\0').filter_map(entry).collect())
}

#[cfg(test)]
mod tests {
    use super::super::index::tests::read;
    use super::*;

    #[test]
    fn what_is_built_in_is_found_by_name_and_alias() {
        let list = "kernel/fs/ext4/ext4.ko\nkernel/crypto/crc32c-intel.ko\n\n#x\n";
        let found = read(&names(Some(list)).unwrap());
        assert_eq!(found.keys().collect::<Vec<_>>(), ["crc32c_intel", "ext4"]);
        let info = "ext4.license=GPL\0ext4.alias=fs-ext4\0a.alias=fs-ext4\0b.alias=x[\0c.alias=\0";
        let found = read(&aliases(Some(info)).unwrap());
        let modules = ["a", "ext4"].map(|name| (0, name.to_owned()));
        assert_eq!(found.len(), 1);
        assert_eq!(found["fs_ext4"], modules);
        assert_eq!(names(None).unwrap(), b"");
    }
}
