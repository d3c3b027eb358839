//! Extended headers: POSIX.1-2017 `pax`, "pax Extended Header", with the keywords of star (Schily),
//! GNU tar and libarchive.

use crate::tree::{Name, Timestamp, display};

use super::acl;
use super::sparse::PaxSparse;

use std::collections::BTreeMap;

/// The longest name of an extended attribute, in bytes (`XATTR_NAME_MAX`).
const XATTR_NAME_BYTES_MAX: usize = 255;
/// The longest value of an extended attribute, in bytes (`XATTR_SIZE_MAX`).
const XATTR_VALUE_BYTES_MAX: usize = 64 << 10;

/// Why an extended header cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum PaxError {
    /// It breaks the format.
    Corrupt(String),
    /// It says what coop cannot carry.
    Unsupported(String),
    /// It says more than the kernel takes.
    Limit(String),
}

/// What extended headers say about the entry that follows.
#[derive(Clone, Debug, Default)]
pub(super) struct Attributes {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link_target: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
    pub(super) user_name: Option<Vec<u8>>,
    pub(super) group_name: Option<Vec<u8>>,
    pub(super) modified: Option<Timestamp>,
    pub(super) accessed: Option<Timestamp>,
    pub(super) changed: Option<Timestamp>,
    pub(super) created: Option<Timestamp>,
    pub(super) device_major: Option<u32>,
    pub(super) device_minor: Option<u32>,
    pub(super) xattrs: BTreeMap<Name, Box<[u8]>>,
    pub(super) sparse: PaxSparse,
    /// star's size of a file with holes.
    pub(super) star_real_size: bool,
    /// Keywords without use here.
    pub(super) ignored: Vec<Name>,
}

impl Attributes {
    /// Takes over the records of one extended header; later ones win.
    pub(super) fn apply(&mut self, header: &[u8]) -> Result<(), PaxError> {
        let mut rest = header;
        while !rest.is_empty() {
            let (key, value, next) = record(rest)?;
            self.set(key, value)?;
            rest = next;
        }
        Ok(())
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), PaxError> {
        if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
            let name = unescape_gnu(name);
            check_xattr(&name, value)?;
            self.xattrs.insert(name, value.into());
            return Ok(());
        }
        if let Some(name) = key.strip_prefix(b"LIBARCHIVE.xattr.") {
            let name = unescape_url(name).ok_or_else(|| bad(key, value))?;
            let value = decode_base64(value).ok_or_else(|| bad(key, value))?;
            check_xattr(&name, &value)?;
            self.xattrs.entry(name).or_insert(value);
            return Ok(());
        }
        if key.starts_with(b"GNU.sparse.") {
            return self
                .sparse
                .set(&key[11..], value)
                .ok_or_else(|| bad(key, value));
        }
        match key {
            b"path" => self.path = text(value),
            b"linkpath" => self.link_target = text(value),
            b"uname" => self.user_name = text(value),
            b"gname" => self.group_name = text(value),
            b"size" => self.size = number(key, value)?,
            b"uid" => self.uid = number(key, value)?,
            b"gid" => self.gid = number(key, value)?,
            b"SCHILY.devmajor" => self.device_major = number(key, value)?,
            b"SCHILY.devminor" => self.device_minor = number(key, value)?,
            b"mtime" => self.modified = time(key, value)?,
            b"atime" => self.accessed = time(key, value)?,
            b"ctime" => self.changed = time(key, value)?,
            b"LIBARCHIVE.creationtime" => self.created = time(key, value)?,
            b"SCHILY.acl.access" => self.set_acl(b"system.posix_acl_access", value, false)?,
            b"SCHILY.acl.default" => self.set_acl(b"system.posix_acl_default", value, true)?,
            b"SCHILY.acl.ace" => {
                return Err(PaxError::Unsupported("NFSv4 access control lists".into()));
            }
            b"RHT.security.selinux" => {
                let mut label = value.to_vec();
                // The kernel counts the NUL as a part of the label.
                if !label.ends_with(b"\0") {
                    label.push(0);
                }
                self.xattrs
                    .insert(b"security.selinux"[..].into(), label.into());
            }
            b"SCHILY.realsize" => self.star_real_size = true,
            b"GNU.volume.filename" | b"GNU.volume.size" | b"GNU.volume.offset" => {
                let reason = "a continued part of a multi-volume archive; join the volumes";
                return Err(PaxError::Unsupported(reason.into()));
            }
            // Names are bytes here, whichever of POSIX's two this is.
            b"hdrcharset" if matches!(value, b"" | b"BINARY" | b"ISO-IR 10646 2000 UTF-8") => {}
            b"hdrcharset" => {
                let reason = format!("names in the character set '{}'", display(value));
                return Err(PaxError::Unsupported(reason));
            }
            key if SAYS_NOTHING.contains(&key) => {}
            _ => self.ignored.push(key.into()),
        }
        Ok(())
    }

    /// What a global header has set that can belong to one file only.
    pub(super) fn what_no_two_files_share(&self) -> Option<&'static str> {
        if !self.xattrs.is_empty() {
            return Some("extended attributes");
        }
        self.sparse.is_set().then_some("a map of holes")
    }

    fn set_acl(&mut self, name: &[u8], value: &[u8], is_default: bool) -> Result<(), PaxError> {
        match acl::from_text(value, is_default).map_err(PaxError::Unsupported)? {
            Some(list) => {
                self.xattrs.insert(name.into(), list);
            }
            None => {
                self.xattrs.remove(name);
            }
        }
        Ok(())
    }
}

/// Keywords that say nothing about the file: remarks, what the archiver wrote for itself, and where
/// the file was on the packer's machine.
const SAYS_NOTHING: [&[u8]; 9] = [
    b"comment",
    b"charset",
    b"GNU.dumpdir",
    b"GNU.volume.label",
    b"LIBARCHIVE.symlinktype",
    b"SCHILY.dev",
    b"SCHILY.ino",
    b"SCHILY.nlink",
    b"SCHILY.filetype",
];

fn check_xattr(name: &[u8], value: &[u8]) -> Result<(), PaxError> {
    let shown = || display(&name[..name.len().min(XATTR_NAME_BYTES_MAX)]);
    if name.is_empty() || name.contains(&0) {
        let reason = format!(
            "extended header: an attribute cannot be named '{}'",
            shown()
        );
        return Err(PaxError::Corrupt(reason));
    }
    for (what, length, limit) in [
        ("name", name.len(), XATTR_NAME_BYTES_MAX),
        ("value", value.len(), XATTR_VALUE_BYTES_MAX),
    ] {
        if length > limit {
            let reason = format!(
                "the extended attribute '{}' has a {what} of more than {limit} bytes",
                shown()
            );
            return Err(PaxError::Limit(reason));
        }
    }
    Ok(())
}

/// Keyword, value, and what follows.
type Record<'a> = (&'a [u8], &'a [u8], &'a [u8]);

/// Splits off one record: `length SPACE key = value NEWLINE`, the length counting itself.
fn record(bytes: &[u8]) -> Result<Record<'_>, PaxError> {
    let corrupt = |reason: &str| PaxError::Corrupt(format!("extended header: {reason}"));
    let space = bytes.iter().take(21).position(|byte| *byte == b' ');
    let space = space.ok_or_else(|| corrupt("a record has no length"))?;
    let length = std::str::from_utf8(&bytes[..space])
        .ok()
        .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))
        .and_then(|digits| digits.parse::<usize>().ok())
        .filter(|length| *length <= bytes.len() && *length > space.saturating_add(1))
        .ok_or_else(|| corrupt("a record has an impossible length"))?;
    let (whole, rest) = bytes.split_at(length);
    let body = whole[space.saturating_add(1)..]
        .strip_suffix(b"\n")
        .ok_or_else(|| corrupt("a record does not end with a newline"))?;
    let equals = body.iter().position(|byte| *byte == b'=');
    let equals = equals.filter(|equals| *equals > 0);
    let equals = equals.ok_or_else(|| corrupt("a record has no keyword or no '='"))?;
    Ok((&body[..equals], &body[equals.saturating_add(1)..], rest))
}

fn bad(key: &[u8], value: &[u8]) -> PaxError {
    PaxError::Corrupt(format!(
        "extended header: {} cannot be '{}'",
        display(&key[..key.len().min(80)]),
        display(&value[..value.len().min(80)])
    ))
}

/// An empty value takes back an earlier one.
fn text(value: &[u8]) -> Option<Vec<u8>> {
    (!value.is_empty()).then(|| value.to_vec())
}

pub(super) fn decimal<T: std::str::FromStr>(value: &[u8]) -> Option<T> {
    let digits = std::str::from_utf8(value).ok()?;
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}

fn number<T: std::str::FromStr>(key: &[u8], value: &[u8]) -> Result<Option<T>, PaxError> {
    if value.is_empty() {
        return Ok(None);
    }
    decimal(value).map(Some).ok_or_else(|| bad(key, value))
}

fn time(key: &[u8], value: &[u8]) -> Result<Option<Timestamp>, PaxError> {
    if value.is_empty() {
        return Ok(None);
    }
    timestamp(value).map(Some).ok_or_else(|| bad(key, value))
}

/// Decimal seconds with any number of fraction digits; what is finer than nanoseconds is cut off
/// towards the past.
fn timestamp(value: &[u8]) -> Option<Timestamp> {
    let (negative, digits) = match value.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, value),
    };
    let point = digits.iter().position(|byte| *byte == b'.');
    let (whole, fraction) = match point {
        Some(point) => (&digits[..point], &digits[point.saturating_add(1)..]),
        None => (digits, &b""[..]),
    };
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let seconds: i128 = decimal(whole)?;
    let nanoseconds = (0..9_usize).fold(0_u32, |sum, place| {
        let digit = fraction.get(place).map_or(0, |byte| byte - b'0');
        sum.saturating_mul(10).saturating_add(u32::from(digit))
    });
    let finer = fraction.iter().skip(9).any(|byte| *byte != b'0');
    let (seconds, nanoseconds) = match nanoseconds.saturating_add(u32::from(negative && finer)) {
        nanoseconds if !negative => (seconds, nanoseconds),
        0 => (seconds.checked_neg()?, 0),
        back => (
            seconds.checked_neg()?.checked_sub(1)?,
            1_000_000_000_u32.checked_sub(back)?,
        ),
    };
    Some(Timestamp {
        seconds: i64::try_from(seconds).ok()?,
        nanoseconds,
    })
}

/// GNU tar writes `=` and `%` in attribute names as `%3D` and `%25`, and nothing else.
fn unescape_gnu(name: &[u8]) -> Name {
    let mut out = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some((first, tail)) = rest.split_first() {
        if let Some(tail) = rest.strip_prefix(b"%3D") {
            out.push(b'=');
            rest = tail;
        } else if let Some(tail) = rest.strip_prefix(b"%25") {
            out.push(b'%');
            rest = tail;
        } else {
            out.push(*first);
            rest = tail;
        }
    }
    out.into()
}

/// libarchive percent-encodes attribute names.
fn unescape_url(name: &[u8]) -> Option<Name> {
    let mut out = Vec::with_capacity(name.len());
    let mut bytes = name.iter();
    while let Some(byte) = bytes.next() {
        if *byte != b'%' {
            out.push(*byte);
            continue;
        }
        let digits = [*bytes.next()?, *bytes.next()?];
        let digits = std::str::from_utf8(&digits).ok()?;
        out.push(u8::from_str_radix(digits, 16).ok()?);
    }
    Some(out.into())
}

/// Base64 with or without its padding.
fn decode_base64(text: &[u8]) -> Option<Box<[u8]>> {
    let end = text.iter().rposition(|byte| *byte != b'=');
    let digits = &text[..end.map_or(0, |end| end.saturating_add(1))];
    if text.len().saturating_sub(digits.len()) > 2 {
        return None;
    }
    let mut out = Vec::with_capacity(digits.len());
    let mut bits = 0_u32;
    let mut count = 0_u32;
    for digit in digits {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = ((bits << 6) | u32::from(value)) & 0xffff;
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count).to_le_bytes()[0]);
        }
    }
    Some(out.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(header: &[u8]) -> Result<Attributes, PaxError> {
        let mut attributes = Attributes::default();
        attributes.apply(header)?;
        Ok(attributes)
    }

    #[test]
    fn records_are_split_by_their_length() {
        let text = b"12 path=a\nb\n10 uid=70\n19 SCHILY.dev=2049\n22 SCHILY.fflags=arch\n";
        let read = read(text).unwrap();
        assert_eq!(read.path.as_deref(), Some(&b"a\nb"[..]));
        assert_eq!(read.uid, Some(70));
        assert_eq!(read.ignored, [Name::from(&b"SCHILY.fflags"[..])]);
    }

    #[test]
    fn broken_records_are_refused() {
        for header in [
            &b"path=a\n"[..],
            b"99 path=a\n",
            b"3 a=b\n",
            b"9 path=ab",
            b"8 patha\n",
            b"-9 path=a\n",
            b"0 \n",
            b"99999999999999999999999 path=a\n",
            b"10 uid=-1\n",
            b"14 mtime=1.2x\n",
        ] {
            assert!(matches!(read(header), Err(PaxError::Corrupt(_))));
        }
    }

    #[test]
    fn times_have_nanoseconds_and_a_sign() {
        let at = |seconds, nanoseconds| {
            Some(Timestamp {
                seconds,
                nanoseconds,
            })
        };
        assert_eq!(timestamp(b"12"), at(12, 0));
        assert_eq!(timestamp(b"12.5"), at(12, 500_000_000));
        assert_eq!(timestamp(b"12.0000000019"), at(12, 1));
        assert_eq!(timestamp(b"-1.5"), at(-2, 500_000_000));
        assert_eq!(timestamp(b"-3"), at(-3, 0));
        assert_eq!(timestamp(b"-0.0000000001"), at(-1, 999_999_999));
        assert_eq!(timestamp(b"-9223372036854775808"), at(i64::MIN, 0));
        assert_eq!(
            timestamp(b"-9223372036854775807.5"),
            at(i64::MIN, 500_000_000)
        );
        assert_eq!(
            timestamp(b"9223372036854775807.5"),
            at(i64::MAX, 500_000_000)
        );
        assert_eq!(timestamp(b"9223372036854775808"), None);
        assert_eq!(timestamp(b"."), None);
        assert_eq!(timestamp(b"1e5"), None);
    }

    #[test]
    fn attribute_names_and_values_are_decoded() {
        assert_eq!(&*unescape_gnu(b"user.a%3Db%25%41"), b"user.a=b%%41");
        assert_eq!(
            unescape_url(b"user.a%3Db").as_deref(),
            Some(&b"user.a=b"[..])
        );
        assert_eq!(unescape_url(b"user.%4"), None);
        assert_eq!(decode_base64(b"AQIDBA").as_deref(), Some(&[1, 2, 3, 4][..]));
        assert_eq!(
            decode_base64(b"AQIDBA==").as_deref(),
            Some(&[1, 2, 3, 4][..])
        );
        assert_eq!(decode_base64(b"").as_deref(), Some(&[][..]));
        for bad in [&b"A*"[..], b"AQ=IDBA", b"AQIDBA==="] {
            assert_eq!(decode_base64(bad), None);
        }
    }
}
