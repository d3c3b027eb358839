//! How ext4 stores times, device numbers, access control lists and attribute names.
#![allow(
    dead_code,
    reason = "each has two directions; reader and writer use one each"
)]

use super::format::{join_u16, split_u32, xattr_index};
use crate::tree::Timestamp;

/// The earliest second that an inode can hold: 1901-12-13.
pub(crate) const SECONDS_MIN: i64 = -(1 << 31);
/// The last second that an inode can hold: 2446-05-10.
pub(crate) const SECONDS_MAX: i64 = (1 << 34) - (1 << 31) - 1;

/// A time as (`i_?time`, `i_?time_extra`): 32 signed bits of seconds; then two more bits of seconds
/// and 30 bits of nanoseconds (spec: inodes.rst, "Inode Timestamps"). `None` outside
/// [`SECONDS_MIN`]..=[`SECONDS_MAX`] or with a whole second of nanoseconds.
pub(crate) fn encode_time(time: Timestamp) -> Option<(u32, u32)> {
    if !(SECONDS_MIN..=SECONDS_MAX).contains(&time.seconds) || time.nanoseconds >= 1_000_000_000 {
        return None;
    }
    let [a, b, c, d, ..] = time.seconds.to_le_bytes();
    let low = u32::from_le_bytes([a, b, c, d]);
    let rest = time.seconds - i64::from(i32::from_le_bytes([a, b, c, d]));
    let epoch = u32::try_from(rest >> 32).ok()?;
    Some((low, (time.nanoseconds << 2) | epoch))
}

/// The time that (`i_?time`, `i_?time_extra`) hold; nanoseconds that are no such are cut to
/// 999,999,999.
pub(crate) fn decode_time(low: u32, extra: u32) -> Timestamp {
    let seconds = i64::from(i32::from_le_bytes(low.to_le_bytes()));
    Timestamp {
        seconds: seconds + (i64::from(extra & 3) << 32),
        nanoseconds: (extra >> 2).min(999_999_999),
    }
}

/// The highest major number that Linux has (12 bits).
pub(crate) const MAJOR_MAX: u32 = 0xFFF;
/// The highest minor number that Linux has (20 bits).
pub(crate) const MINOR_MAX: u32 = 0xF_FFFF;

/// A device number as the first two words of `i_block`: the old 16-bit encoding in the first where
/// it fits, else the new one in the second. `None` above [`MAJOR_MAX`] or [`MINOR_MAX`].
pub(crate) fn encode_device(major: u32, minor: u32) -> Option<[u32; 2]> {
    if major > MAJOR_MAX || minor > MINOR_MAX {
        return None;
    }
    if major < 256 && minor < 256 {
        return Some([(major << 8) | minor, 0]);
    }
    Some([0, (minor & 0xFF) | (major << 8) | ((minor & !0xFF) << 12)])
}

/// Major and minor number from the first two words of `i_block`.
pub(crate) fn decode_device(words: [u32; 2]) -> (u32, u32) {
    let [old, new] = words;
    if old != 0 {
        return ((old >> 8) & 0xFF, old & 0xFF);
    }
    (
        (new >> 8) & MAJOR_MAX,
        (new & 0xFF) | ((new >> 12) & 0xF_FF00),
    )
}

/// Prefixes of attribute names with the index that stands for them, longest first.
const XATTR_PREFIXES: [(u8, &[u8]); 6] = [
    (xattr_index::POSIX_ACL_ACCESS, b"system.posix_acl_access"),
    (xattr_index::POSIX_ACL_DEFAULT, b"system.posix_acl_default"),
    (xattr_index::USER, b"user."),
    (xattr_index::TRUSTED, b"trusted."),
    (xattr_index::SECURITY, b"security."),
    (xattr_index::SYSTEM, b"system."),
];

/// Splits the full name of an attribute into index and rest; `None` where Linux has no such
/// attribute on ext4.
pub(crate) fn split_xattr_name(name: &[u8]) -> Option<(u8, &[u8])> {
    let (index, prefix) = XATTR_PREFIXES
        .iter()
        .find(|(_, prefix)| name.starts_with(prefix))?;
    let rest = &name[prefix.len()..];
    let is_acl = is_acl_index(*index);
    let valid = match *index {
        xattr_index::SYSTEM => false,
        _ if is_acl => rest.is_empty(),
        _ => !rest.is_empty() && rest.len() <= 255 && !rest.contains(&0),
    };
    valid.then_some((*index, rest))
}

/// The full name of an attribute; `None` for an unknown index.
pub(crate) fn join_xattr_name(index: u8, rest: &[u8]) -> Option<Vec<u8>> {
    let (_, prefix) = XATTR_PREFIXES.iter().find(|(other, _)| *other == index)?;
    Some([prefix, rest].concat())
}

/// Whether attributes with this index are access control lists, which look different on disk.
pub(crate) fn is_acl_index(index: u8) -> bool {
    matches!(
        index,
        xattr_index::POSIX_ACL_ACCESS | xattr_index::POSIX_ACL_DEFAULT
    )
}

/// Version of an access control list as `getxattr` gives it (`POSIX_ACL_XATTR_VERSION`).
const ACL_XATTR_VERSION: u32 = 2;
/// Version of an access control list on disk (`EXT4_ACL_VERSION`).
const ACL_DISK_VERSION: u32 = 1;
/// `e_id` where an entry names nobody (`ACL_UNDEFINED_ID`).
const ACL_UNDEFINED_ID: u32 = u32::MAX;
/// Bytes of an entry that names somebody, in both forms.
const ACL_ENTRY_SIZE: usize = 8;
/// Bytes of an entry on disk that names nobody.
const ACL_ENTRY_SHORT_SIZE: usize = 4;

/// Whether an entry with this tag names a user or group (`ACL_USER`, `ACL_GROUP`); `None` for a tag
/// that does not exist.
fn acl_tag_has_id(tag: u16) -> Option<bool> {
    match tag {
        0x02 | 0x08 => Some(true),
        0x01 | 0x04 | 0x10 | 0x20 => Some(false),
        _ => None,
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// An access control list from the form of `getxattr` to that on disk; `None` where it is none.
pub(crate) fn acl_to_disk(value: &[u8]) -> Option<Vec<u8>> {
    if u32_at(value, 0)? != ACL_XATTR_VERSION {
        return None;
    }
    let entries = value[4..].chunks_exact(ACL_ENTRY_SIZE);
    if !entries.remainder().is_empty() {
        return None;
    }
    let mut disk = ACL_DISK_VERSION.to_le_bytes().to_vec();
    for entry in entries {
        let (permissions, tag) = split_u32(u32_at(entry, 0)?);
        if permissions > 7 {
            return None;
        }
        let length = if acl_tag_has_id(tag)? {
            ACL_ENTRY_SIZE
        } else {
            ACL_ENTRY_SHORT_SIZE
        };
        disk.extend_from_slice(&entry[..length]);
    }
    Some(disk)
}

/// An access control list from the form on disk to that of `getxattr`; `None` where it is none.
pub(crate) fn acl_from_disk(disk: &[u8]) -> Option<Vec<u8>> {
    if u32_at(disk, 0)? != ACL_DISK_VERSION {
        return None;
    }
    let mut value = ACL_XATTR_VERSION.to_le_bytes().to_vec();
    let mut rest = &disk[4..];
    while !rest.is_empty() {
        let (permissions, tag) = split_u32(u32_at(rest, 0)?);
        let (id, length) = if acl_tag_has_id(tag)? {
            (u32_at(rest, 4)?, ACL_ENTRY_SIZE)
        } else {
            (ACL_UNDEFINED_ID, ACL_ENTRY_SHORT_SIZE)
        };
        value.extend_from_slice(&join_u16(permissions, tag).to_le_bytes());
        value.extend_from_slice(&id.to_le_bytes());
        rest = &rest[length..];
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_survive_in_their_range() {
        for seconds in [
            SECONDS_MIN,
            -1,
            0,
            1,
            (1 << 31) - 1,
            1 << 31,
            1 << 32,
            (1 << 33) + 5,
            SECONDS_MAX,
        ] {
            let time = Timestamp {
                seconds,
                nanoseconds: 999_999_999,
            };
            let (low, extra) = encode_time(time).unwrap();
            assert_eq!(decode_time(low, extra), time);
        }
        assert_eq!(encode_time(Timestamp::from_seconds(SECONDS_MAX + 1)), None);
        assert_eq!(encode_time(Timestamp::from_seconds(SECONDS_MIN - 1)), None);
        let time = Timestamp {
            seconds: 0,
            nanoseconds: 1_000_000_000,
        };
        assert_eq!(encode_time(time), None);
    }

    #[test]
    fn devices_survive() {
        for (major, minor) in [
            (0, 0),
            (8, 1),
            (255, 255),
            (256, 0),
            (259, 300),
            (4095, 0xF_FFFF),
        ] {
            assert_eq!(
                decode_device(encode_device(major, minor).unwrap()),
                (major, minor)
            );
        }
        assert_eq!(encode_device(5, 1), Some([0x501, 0]));
        assert_eq!(encode_device(4096, 0), None);
        assert_eq!(encode_device(0, 1 << 20), None);
    }

    #[test]
    fn attribute_names() {
        assert_eq!(
            split_xattr_name(b"user.a"),
            Some((xattr_index::USER, &b"a"[..]))
        );
        assert_eq!(
            split_xattr_name(b"system.posix_acl_access"),
            Some((xattr_index::POSIX_ACL_ACCESS, &b""[..]))
        );
        for bad in [
            &b"user."[..],
            b"btrfs.x",
            b"system.data",
            b"plain",
            b"user.a\0",
        ] {
            assert_eq!(split_xattr_name(bad), None);
        }
        assert_eq!(
            join_xattr_name(xattr_index::SECURITY, b"capability"),
            Some(b"security.capability".to_vec())
        );
    }

    #[test]
    fn access_control_lists_survive() {
        let mut value = 2_u32.to_le_bytes().to_vec();
        for (tag, permissions, id) in [
            (0x01_u16, 7_u16, u32::MAX),
            (0x02, 6, 1000),
            (0x04, 5, u32::MAX),
            (0x08, 5, 70000),
            (0x10, 7, u32::MAX),
            (0x20, 0, u32::MAX),
        ] {
            value.extend_from_slice(&tag.to_le_bytes());
            value.extend_from_slice(&permissions.to_le_bytes());
            value.extend_from_slice(&id.to_le_bytes());
        }
        let disk = acl_to_disk(&value).unwrap();
        assert_eq!(disk.len(), 4 + 2 * 8 + 4 * 4);
        assert_eq!(acl_from_disk(&disk).unwrap(), value);
        assert_eq!(acl_to_disk(&value[..value.len() - 1]), None);
        assert_eq!(acl_to_disk(&[]), None);
        assert_eq!(acl_from_disk(&disk[..disk.len() - 1]), None);
        value[4] = 0x40;
        assert_eq!(acl_to_disk(&value), None);
    }
}
