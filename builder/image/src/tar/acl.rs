//! POSIX access control lists: the text of extended headers to what `getxattr` returns
//! (`linux/posix_acl_xattr.h`).

use crate::tree::display;

const VERSION: u32 = 2;
const UNDEFINED_ID: u32 = u32::MAX;
const USER_OBJ: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP_OBJ: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;
/// More entries than the kernel keeps in one attribute of 64 KiB.
const ENTRIES_MAX: usize = 8191;

/// Converts a list; `None` where it says nothing at all, or, for one that governs access and not
/// what new files get, no more than the mode bits do: the kernel keeps no such list either.
///
/// Names of users and groups are refused unless a numeric id stands beside them
/// (`user:joe:rw-:1000`, as star and libarchive write) or the name is `root`: the archive does
/// not say which id they mean in the guest.
pub(super) fn from_text(text: &[u8], is_default: bool) -> Result<Option<Box<[u8]>>, String> {
    let mut entries = Vec::new();
    for line in text.split(|byte| matches!(byte, b',' | b'\n')) {
        let end = line.iter().position(|byte| *byte == b'#');
        let line = line[..end.unwrap_or(line.len())].trim_ascii();
        if line.is_empty() {
            continue;
        }
        let entry = entry(line).ok_or_else(|| {
            format!(
                "access control entry '{}' (numeric ids are needed: pack with --numeric-owner)",
                display(line)
            )
        })?;
        entries.push(entry);
    }
    if entries.len() > ENTRIES_MAX {
        return Err(format!("more than {ENTRIES_MAX} access control entries"));
    }
    if entries.is_empty() {
        return Ok(None);
    }
    entries.sort_unstable_by_key(|(tag, _, id)| (*tag, *id));
    check(&entries)?;
    let has_more = entries
        .iter()
        .any(|(tag, ..)| matches!(*tag, USER | GROUP | MASK));
    if !has_more && !is_default {
        return Ok(None);
    }
    let mut out = VERSION.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        out.extend(tag.to_le_bytes());
        out.extend(permissions.to_le_bytes());
        out.extend(id.to_le_bytes());
    }
    Ok(Some(out.into()))
}

/// The kernel's rules (`posix_acl_valid`): one entry each for owner, group and others, a mask where
/// anybody is named, and nobody twice. The entries are sorted.
fn check(entries: &[(u16, u16, u32)]) -> Result<(), String> {
    let has = |wanted: u16| entries.iter().any(|(tag, ..)| *tag == wanted);
    let names_somebody = has(USER) || has(GROUP);
    let is_complete = has(USER_OBJ) && has(GROUP_OBJ) && has(OTHER);
    if !is_complete || (names_somebody && !has(MASK)) {
        return Err(
            "an access control list without an entry for owner, group, others or mask".into(),
        );
    }
    let twice = |pair: &[(u16, u16, u32)]| (pair[0].0, pair[0].2) == (pair[1].0, pair[1].2);
    if entries.windows(2).any(twice) {
        return Err("an access control list with two entries for one user or group".into());
    }
    Ok(())
}

/// Converts a list as `getxattr` gives it to text with numeric ids; `None` where it is malformed.
pub(super) fn to_text(value: &[u8]) -> Option<Vec<u8>> {
    let (version, entries) = value.split_first_chunk::<4>()?;
    if u32::from_le_bytes(*version) != VERSION || !entries.len().is_multiple_of(8) {
        return None;
    }
    let mut lines = Vec::new();
    for entry in entries.chunks_exact(8) {
        let [t0, t1, p0, p1, id @ ..] = *entry.first_chunk::<8>()?;
        let id = u32::from_le_bytes(id);
        let who = match u16::from_le_bytes([t0, t1]) {
            USER_OBJ => "user:".to_string(),
            USER => format!("user:{id}"),
            GROUP_OBJ => "group:".to_string(),
            GROUP => format!("group:{id}"),
            MASK => "mask:".to_string(),
            OTHER => "other:".to_string(),
            _ => return None,
        };
        let permissions = u16::from_le_bytes([p0, p1]);
        if permissions > 7 {
            return None;
        }
        let letter = |bit: u16, letter: char| if permissions & bit != 0 { letter } else { '-' };
        lines.push(format!(
            "{who}:{}{}{}",
            letter(4, 'r'),
            letter(2, 'w'),
            letter(1, 'x')
        ));
    }
    Some(lines.join(",").into_bytes())
}

fn entry(line: &[u8]) -> Option<(u16, u16, u32)> {
    let fields: Vec<&[u8]> = line.split(|byte| *byte == b':').collect();
    let (kind, who, permissions, id) = match fields[..] {
        // `mask:rwx` and `other:rwx` are short forms.
        [kind, permissions] => (kind, &b""[..], permissions, None),
        [kind, who, permissions] => (kind, who, permissions, None),
        [kind, who, permissions, id] => (kind, who, permissions, Some(id)),
        _ => return None,
    };
    let permissions = parse_permissions(permissions)?;
    let tag = match (kind, who.is_empty()) {
        (b"user" | b"u", true) => USER_OBJ,
        (b"user" | b"u", false) => USER,
        (b"group" | b"g", true) => GROUP_OBJ,
        (b"group" | b"g", false) => GROUP,
        (b"mask" | b"m", true) => MASK,
        (b"other" | b"o", true) => OTHER,
        _ => return None,
    };
    if !matches!(tag, USER | GROUP) {
        return Some((tag, permissions, UNDEFINED_ID));
    }
    let id = match id {
        Some(id) => super::pax::decimal(id)?,
        None if who == b"root" => 0,
        None => super::pax::decimal(who)?,
    };
    Some((tag, permissions, id))
}

fn parse_permissions(text: &[u8]) -> Option<u16> {
    text.iter().try_fold(0, |bits, byte| match byte {
        b'r' => Some(bits | 4),
        b'w' => Some(bits | 2),
        b'x' => Some(bits | 1),
        b'-' => Some(bits),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_become_the_kernel_s_form() {
        let expected = [
            &[2, 0, 0, 0][..],
            &[1, 0, 7, 0, 255, 255, 255, 255],
            &[2, 0, 6, 0, 0xe8, 3, 0, 0],
            &[4, 0, 5, 0, 255, 255, 255, 255],
            &[0x10, 0, 7, 0, 255, 255, 255, 255],
            &[0x20, 0, 4, 0, 255, 255, 255, 255],
        ]
        .concat();
        for text in [
            &b"user::rwx,user:1000:rw-,group::r-x,mask::rwx,other::r--"[..],
            b"group::r-x\nuser::rwx\nuser:joe:rw-:1000\t#effective:rw-\nmask::rwx\nother::r--\n",
        ] {
            assert_eq!(
                from_text(text, false).unwrap().as_deref(),
                Some(&expected[..])
            );
        }
        assert_eq!(
            to_text(&expected).as_deref(),
            Some(&b"user::rwx,user:1000:rw-,group::r-x,mask::rwx,other::r--"[..])
        );
        assert_eq!(to_text(&expected[..13]), None);
        let minimal = b"user::rwx,group::r-x,other::r--";
        assert_eq!(from_text(minimal, false), Ok(None));
        let kept = from_text(minimal, true).unwrap().unwrap();
        assert_eq!(to_text(&kept).as_deref(), Some(&minimal[..]));
        assert_eq!(from_text(b"", true), Ok(None));
        for (text, expected) in [
            (&b"user:joe:rw-"[..], "joe"),
            (b"user::rwz", "rwz"),
            (b"user::rwx,other::r--", "without an entry"),
            (b"u::r,u:5:r,g::r,o::r", "without an entry"),
            (b"u::r,u:5:r,u:5:w,g::r,m::r,o::r", "two entries"),
            (b"u::r,u::w,g::r,o::r", "two entries"),
        ] {
            let error = from_text(text, false).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}
