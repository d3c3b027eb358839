//! The tar archive around a layout: what is written is plain ustar, what is read is little more.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;

use super::error::BundleError;
use crate::digest::as_u64;

/// What tar counts in.
const BLOCK: usize = 512;
/// How many entries an archive may have: files, their signatures and folders.
const ENTRIES_MAX: usize = 4096;
/// How long a pax header may be, in bytes.
const PAX_BYTES_MAX: u64 = 64 << 10;
/// How many zeroes may follow the end; programs fill up their last record.
const END_BYTES_MAX: u64 = 1 << 20;
/// Keys of pax headers that change neither a name nor content.
const HARMLESS: [&[u8]; 7] = [
    b"mtime", b"atime", b"ctime", b"uid", b"gid", b"uname", b"gname",
];

/// A regular file in an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Its name, without `./` in front.
    pub(super) name: String,
    /// Where its header is.
    pub(super) header: u64,
    /// Where its content is.
    pub(super) start: u64,
    /// Its length in bytes.
    pub(super) size: u64,
}

/// Whether a file that begins so may be an archive.
pub(super) fn is_archive(start: &[u8]) -> bool {
    start.get(257..262) == Some(b"ustar")
}

/// Writes entries, of no time and nobody.
pub(super) struct Writer<W> {
    output: W,
}

impl<W: Write> Writer<W> {
    pub(super) fn new(output: W) -> Self {
        Self { output }
    }

    /// Writes an entry, whose content `write` gives: exactly `size` bytes.
    pub(super) fn entry(
        &mut self,
        name: &str,
        size: u64,
        write: impl FnOnce(&mut W) -> Result<(), BundleError>,
    ) -> Result<(), BundleError> {
        let mut header = ::tar::Header::new_ustar();
        header.set_path(name)?;
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(size);
        header.set_cksum();
        self.output.write_all(header.as_bytes())?;
        write(&mut self.output)?;
        let rest = usize::try_from(padding(size)).unwrap_or_default();
        self.output.write_all(&[0; BLOCK][..rest])?;
        Ok(())
    }

    /// Writes the end.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.output.write_all(&[0; 2 * BLOCK])?;
        self.output.flush()
    }
}

fn padding(size: u64) -> u64 {
    let block = as_u64(BLOCK);
    (block - size % block) % block
}

/// Lists the regular files of an archive, without reading their content. Folders are passed over;
/// links, devices and whatever else a tar can have are refused, as are headers that would give an
/// entry another name or size.
pub(super) fn list(file: &File) -> Result<Vec<Entry>, BundleError> {
    let mut scan = Scan {
        file,
        length: file.metadata()?.len(),
        offset: 0,
    };
    let mut entries = Vec::new();
    for _ in 0..ENTRIES_MAX {
        match scan.next()? {
            Next::File(entry) => entries.push(entry),
            Next::Passed => {}
            Next::End => return Ok(entries),
        }
    }
    Err(scan.wrong(format!("it has more than {ENTRIES_MAX} entries")))
}

enum Next {
    File(Entry),
    Passed,
    End,
}

struct Scan<'f> {
    file: &'f File,
    length: u64,
    offset: u64,
}

impl Scan<'_> {
    fn wrong(&self, reason: impl Into<String>) -> BundleError {
        BundleError::Archive {
            offset: self.offset,
            reason: reason.into(),
        }
    }

    fn block(&self, offset: u64) -> Result<[u8; BLOCK], BundleError> {
        let mut block = [0; BLOCK];
        match self.file.read_exact_at(&mut block, offset) {
            Ok(()) => Ok(block),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Err(self.wrong("it is cut off"))
            }
            Err(error) => Err(error.into()),
        }
    }

    fn next(&mut self) -> Result<Next, BundleError> {
        let block = self.block(self.offset)?;
        if block == [0; BLOCK] {
            self.end()?;
            return Ok(Next::End);
        }
        if !is_archive(&block) {
            return Err(self.wrong("there is no tar header"));
        }
        if sum(&block) != octal(&block[148..156]) {
            return Err(self.wrong("a tar header's checksum is wrong"));
        }
        let size = number(&block[124..136]);
        let size = size.ok_or_else(|| self.wrong("a tar entry's size is no number"))?;
        let start = self.offset.saturating_add(as_u64(BLOCK));
        if size > self.length.saturating_sub(start) {
            return Err(self.wrong("it is cut off inside of an entry"));
        }
        let name = self.name(&block)?;
        let next = match block[156] {
            b'0' | 0 => Next::File(Entry {
                name,
                header: self.offset,
                start,
                size,
            }),
            b'5' if size == 0 && matches!(&*name, "" | "blobs" | "blobs/sha256") => Next::Passed,
            b'x' => {
                self.check_pax(start, size)?;
                Next::Passed
            }
            kind => {
                let (name, kind) = (name.escape_debug(), char::from(kind).escape_debug());
                let reason = format!("'{name}' of type '{kind}' has no place in a bundle");
                return Err(self.wrong(reason));
            }
        };
        self.offset = start.saturating_add(size).saturating_add(padding(size));
        Ok(next)
    }

    fn name(&self, block: &[u8; BLOCK]) -> Result<String, BundleError> {
        let text = |field: &[u8]| {
            let end = field.iter().position(|byte| *byte == 0);
            String::from_utf8(field[..end.unwrap_or(field.len())].to_vec()).ok()
        };
        // GNU tar has other things where POSIX has the prefix.
        let is_posix = block[257..263] == *b"ustar\0";
        match (text(&block[..100]), text(&block[345..500])) {
            (Some(name), Some(prefix)) if prefix.is_empty() || !is_posix => {
                let name = name.strip_prefix("./").unwrap_or(&name);
                Ok(name.strip_suffix('/').unwrap_or(name).to_owned())
            }
            _ => Err(self.wrong("a name is longer or other than a bundle's are")),
        }
    }

    /// Other tools tell times in pax headers; that is all that is accepted.
    fn check_pax(&self, start: u64, size: u64) -> Result<(), BundleError> {
        if size > PAX_BYTES_MAX {
            return Err(self.wrong("a pax header is too long"));
        }
        let mut bytes = vec![0; usize::try_from(size).unwrap_or_default()];
        self.file.read_exact_at(&mut bytes, start)?;
        let mut left = &bytes[..];
        while !left.is_empty() {
            let record = pax_record(left).ok_or_else(|| self.wrong("a pax header is damaged"))?;
            let key = record.1.split(|byte| *byte == b'=').next();
            if !key.is_some_and(|key| HARMLESS.contains(&key)) {
                let reason = "a pax header says more than times and owners";
                return Err(self.wrong(reason));
            }
            left = record.0;
        }
        Ok(())
    }

    /// After the end there is nothing but zeroes, and not many.
    fn end(&self) -> Result<(), BundleError> {
        let rest = self.length.saturating_sub(self.offset);
        if rest > END_BYTES_MAX {
            return Err(self.wrong("there is more after its end"));
        }
        let mut bytes = vec![0; usize::try_from(rest).unwrap_or_default()];
        self.file.read_exact_at(&mut bytes, self.offset)?;
        match bytes.iter().all(|byte| *byte == 0) {
            true => Ok(()),
            false => Err(self.wrong("there is more after its end")),
        }
    }
}

/// Splits `LENGTH KEY=VALUE\n` off, whose length counts itself: gives the rest and `KEY=VALUE`.
fn pax_record(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let space = bytes.iter().take(8).position(|byte| *byte == b' ')?;
    let length = std::str::from_utf8(&bytes[..space]).ok()?;
    let (record, rest) = bytes.split_at_checked(length.parse().ok()?)?;
    let record = record.strip_suffix(b"\n")?;
    Some((rest, record.get(space.checked_add(1)?..)?))
}

/// The sum of a header's bytes, its own field counted as spaces.
fn sum(block: &[u8; BLOCK]) -> Option<u64> {
    let field = 148..156;
    let bytes = block.iter().enumerate();
    Some(
        bytes
            .map(|(at, byte)| {
                if field.contains(&at) {
                    32
                } else {
                    u64::from(*byte)
                }
            })
            .sum(),
    )
}

fn octal(field: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(field).ok()?;
    let text = text.trim_matches([' ', '\0']);
    match text.bytes().all(|byte| byte.is_ascii_digit()) {
        true => u64::from_str_radix(text, 8).ok(),
        false => None,
    }
}

/// Octal, or GNU's base 256 for what has no room as octal.
fn number(field: &[u8]) -> Option<u64> {
    match field.split_first() {
        Some((0x80, rest)) => rest.iter().try_fold(0_u64, |value, byte| {
            value.checked_mul(256)?.checked_add(u64::from(*byte))
        }),
        _ => octal(field),
    }
}
