//! The tar header: POSIX.1-2017 `pax`, "ustar Interchange Format", with GNU's and star's fields.

/// Archives are made of blocks of this many bytes.
pub(super) const BLOCK_BYTES: usize = 512;
/// The same, as a file offset.
pub(super) const BLOCK: u64 = 512;

/// One run of an old GNU sparse map: offset and length, 12 octal digits each.
pub(super) const SPARSE_ENTRY_BYTES: usize = 24;
/// Where the four runs in the header begin.
const SPARSE_IN_HEADER: std::ops::Range<usize> = 386..482;
/// Where the header says that extension blocks follow.
const SPARSE_IS_EXTENDED: usize = 482;
/// Where an extension block says that another follows.
const SPARSE_EXTENSION_IS_EXTENDED: usize = 504;

/// One header block.
#[derive(Clone)]
pub(super) struct Header(pub(super) [u8; BLOCK_BYTES]);

/// Which dialect a header is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    /// Before POSIX: no prefix, no devices.
    V7,
    /// `ustar\0`.
    Posix,
    /// `ustar\0` with star's shorter prefix and times behind it.
    Star,
    /// `ustar  \0`.
    Gnu,
}

impl Header {
    pub(super) fn is_zero(&self) -> bool {
        self.0.iter().all(|byte| *byte == 0)
    }

    /// The checksum counts its own field as spaces; some old programs summed signed bytes.
    pub(super) fn checksum_matches(&self) -> bool {
        let Some(stored) = number(&self.0[148..156]) else {
            return false;
        };
        // Written so that the compiler sums many bytes at a time: this runs for every entry.
        let field = 148..156;
        let spaces = 8 * i64::from(b' ');
        let sum = |bytes: &[u8]| bytes.iter().map(|byte| u32::from(*byte)).sum::<u32>();
        let unsigned = i64::from(sum(&self.0)) - i64::from(sum(&self.0[field.clone()])) + spaces;
        if stored == unsigned {
            return true;
        }
        let high = |bytes: &[u8]| bytes.iter().map(|byte| u32::from(byte >> 7)).sum::<u32>();
        let negative = i64::from(high(&self.0)) - i64::from(high(&self.0[field]));
        stored == unsigned - 256 * negative
    }

    pub(super) fn dialect(&self) -> Dialect {
        match &self.0[257..265] {
            b"ustar  \0" => Dialect::Gnu,
            magic if magic.starts_with(b"ustar") && self.0[508..512] == *b"tar\0" => Dialect::Star,
            magic if magic.starts_with(b"ustar") => Dialect::Posix,
            _ => Dialect::V7,
        }
    }

    /// Name with its prefix.
    pub(super) fn path(&self) -> Vec<u8> {
        let prefix = match self.dialect() {
            Dialect::Posix => text(&self.0[345..500]),
            Dialect::Star => text(&self.0[345..476]),
            Dialect::Gnu | Dialect::V7 => b"",
        };
        let name = text(&self.0[0..100]);
        if prefix.is_empty() {
            return name.to_vec();
        }
        [prefix, b"/", name].concat()
    }

    pub(super) fn link_target(&self) -> &[u8] {
        text(&self.0[157..257])
    }

    pub(super) fn user_name(&self) -> &[u8] {
        match self.dialect() {
            Dialect::V7 => b"",
            _ => text(&self.0[265..297]),
        }
    }

    pub(super) fn group_name(&self) -> &[u8] {
        match self.dialect() {
            Dialect::V7 => b"",
            _ => text(&self.0[297..329]),
        }
    }

    pub(super) fn typeflag(&self) -> u8 {
        self.0[156]
    }

    pub(super) fn mode(&self) -> Option<i64> {
        number(&self.0[100..108])
    }

    pub(super) fn uid(&self) -> Option<i64> {
        number(&self.0[108..116])
    }

    pub(super) fn gid(&self) -> Option<i64> {
        number(&self.0[116..124])
    }

    pub(super) fn size(&self) -> Option<i64> {
        number(&self.0[124..136])
    }

    pub(super) fn modified(&self) -> Option<i64> {
        number(&self.0[136..148])
    }

    pub(super) fn device_major(&self) -> Option<i64> {
        number(&self.0[329..337])
    }

    pub(super) fn device_minor(&self) -> Option<i64> {
        number(&self.0[337..345])
    }

    /// Access and change time where the dialect has a place for them; GNU tar writes them for
    /// incremental archives only and leaves zeroes otherwise.
    pub(super) fn accessed_and_changed(&self) -> (Option<i64>, Option<i64>) {
        let (accessed, changed) = match self.dialect() {
            Dialect::Gnu => (&self.0[345..357], &self.0[357..369]),
            Dialect::Star => (&self.0[476..488], &self.0[488..500]),
            Dialect::Posix | Dialect::V7 => return (None, None),
        };
        let present = |field: &[u8]| {
            let written = field.iter().any(|byte| !matches!(byte, 0 | b' '));
            if written { number(field) } else { None }
        };
        (present(accessed), present(changed))
    }

    /// The real size of an old GNU sparse file.
    pub(super) fn sparse_real_size(&self) -> Option<i64> {
        number(&self.0[483..495])
    }

    /// The runs in an old GNU sparse header and whether extension blocks follow.
    pub(super) fn sparse_runs(&self) -> (&[u8], bool) {
        (&self.0[SPARSE_IN_HEADER], self.0[SPARSE_IS_EXTENDED] != 0)
    }

    /// The runs in an old GNU sparse extension block and whether another follows.
    pub(super) fn sparse_extension(&self) -> (&[u8], bool) {
        (
            &self.0[..SPARSE_EXTENSION_IS_EXTENDED],
            self.0[SPARSE_EXTENSION_IS_EXTENDED] != 0,
        )
    }
}

/// Up to the first NUL.
pub(super) fn text(field: &[u8]) -> &[u8] {
    let end = field.iter().position(|byte| *byte == 0);
    &field[..end.unwrap_or(field.len())]
}

/// A numeric field: octal with blanks around it, or base-256 (first bit set, two's complement).
/// A field of NULs is zero, one of blanks says nothing.
pub(super) fn number(field: &[u8]) -> Option<i64> {
    let (first, rest) = field.split_first()?;
    if first & 0x80 != 0 {
        // 12 bytes at most: 94 bits fit.
        let sign: i128 = if first & 0x40 != 0 { -1 } else { 0 };
        let start = (sign << 6) | i128::from(first & 0x3f);
        let value = rest
            .iter()
            .fold(start, |value, byte| (value << 8) | i128::from(*byte));
        return i64::try_from(value).ok();
    }
    let blank = |byte: &u8| matches!(*byte, b' ' | b'\t' | 0);
    let start = field.iter().position(|byte| !blank(byte));
    if start.is_none() && *first != 0 {
        return None;
    }
    let digits = &field[start.unwrap_or(field.len())..];
    let end = digits.iter().position(blank).unwrap_or(digits.len());
    digits[..end].iter().try_fold(0_i64, |value, digit| {
        if !(b'0'..=b'7').contains(digit) {
            return None;
        }
        value.checked_mul(8)?.checked_add(i64::from(digit - b'0'))
    })
}

/// `length` rounded up to whole blocks.
pub(super) fn padded(length: u64) -> Option<u64> {
    length.checked_next_multiple_of(BLOCK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_every_form() {
        assert_eq!(number(b"0000644\0"), Some(0o644));
        assert_eq!(number(b"   644 \0"), Some(0o644));
        assert_eq!(number(b"77777777777 "), Some(0o77_777_777_777));
        assert_eq!(number(b"\0\0\0\0\0\0\0\0"), Some(0));
        assert_eq!(number(b"        "), None);
        assert_eq!(number(b"000064a\0"), None);
        assert_eq!(number(b"\x80\0\0\0\0\0\x01\0"), Some(256));
        assert_eq!(number(&[0xff; 12]), Some(-1));
        assert_eq!(
            number(b"\x80\0\0\xff\xff\xff\xff\xff\xff\xff\xff\xff"),
            None
        );
    }
}
