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

/// Converts a list; `None` where it says no more than the mode bits do (the kernel keeps no such
/// list either) or nothing at all.
///
/// Names of users and groups are refused unless a numeric id stands beside them
/// (`user:joe:rw-:1000`, as star and libarchive write) or the name is `root`: the archive does
/// not say which id they mean in the guest.
pub(super) fn from_text(text: &[u8]) -> Result<Option<Box<[u8]>>, String> {
    let mut entries = Vec::new();
    for line in text.split(|byte| matches!(byte, b',' | b'\n')) {
        let end = line.iter().position(|byte| *byte == b'#');
        let line = line[..end.unwrap_or(line.len())].trim_ascii();
        if line.is_empty() {
            continue;
        }
        let entry = entry(line).ok_or_else(|| {
            format!(
                "access control entry '{}' (numeric ids are needed)",
                display(line)
            )
        })?;
        entries.push(entry);
    }
    if entries.len() > ENTRIES_MAX {
        return Err(format!("more than {ENTRIES_MAX} access control entries"));
    }
    let extended = entries
        .iter()
        .any(|(tag, ..)| matches!(*tag, USER | GROUP | MASK));
    if !extended && entries.len() <= 3 {
        return Ok(None);
    }
    entries.sort_unstable_by_key(|(tag, _, id)| (*tag, *id));
    let mut out = VERSION.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        out.extend(tag.to_le_bytes());
        out.extend(permissions.to_le_bytes());
        out.extend(id.to_le_bytes());
    }
    Ok(Some(out.into()))
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
            assert_eq!(from_text(text).unwrap().as_deref(), Some(&expected[..]));
        }
        assert_eq!(
            to_text(&expected).as_deref(),
            Some(&b"user::rwx,user:1000:rw-,group::r-x,mask::rwx,other::r--"[..])
        );
        assert_eq!(to_text(&expected[..13]), None);
        assert_eq!(from_text(b"user::rwx,group::r-x,other::r--"), Ok(None));
        assert_eq!(from_text(b""), Ok(None));
        assert!(from_text(b"user:joe:rw-").unwrap_err().contains("joe"));
        assert!(from_text(b"user::rwz").is_err());
    }
}
