//! Archives made byte by byte.

use crate::tar::format::BLOCK_BYTES;

/// One header and its content; what is not set is as GNU tar would write it for a file of root's.
#[derive(Clone)]
pub(super) struct Raw {
    header: [u8; BLOCK_BYTES],
    content: Vec<u8>,
    /// What stands between header and content: further headers of the entry.
    extension: Vec<u8>,
    has_checksum: bool,
}

impl Raw {
    /// POSIX's dialect.
    pub(super) fn posix(flag: u8, path: &str) -> Self {
        let mut raw = Self {
            header: [0; BLOCK_BYTES],
            content: Vec::new(),
            extension: Vec::new(),
            has_checksum: false,
        };
        raw.header[156] = flag;
        let is_folder = flag == b'5' || path.ends_with('/');
        raw.at(0, path.as_bytes())
            .at(100, if is_folder { b"0000755" } else { b"0000644" })
            .at(108, b"0000000")
            .at(116, b"0000000")
            .at(124, b"00000000000")
            .at(136, b"00000001750")
            .at(257, b"ustar\x0000")
            .at(329, b"0000000")
            .at(337, b"0000000")
    }

    /// GNU's dialect.
    pub(super) fn gnu(flag: u8, path: &str) -> Self {
        Self::posix(flag, path).at(257, b"ustar  \0")
    }

    /// The dialect of before POSIX.
    pub(super) fn v7(flag: u8, path: &str) -> Self {
        Self::posix(flag, path).at(257, &[0; 88])
    }

    pub(super) fn file(path: &str, content: &str) -> Self {
        Self::gnu(b'0', path).content(content.as_bytes())
    }

    pub(super) fn folder(path: &str) -> Self {
        Self::gnu(b'5', path)
    }

    pub(super) fn symlink(path: &str, target: &str) -> Self {
        Self::gnu(b'2', path).target(target)
    }

    pub(super) fn hard(path: &str, target: &str) -> Self {
        Self::gnu(b'1', path).target(target)
    }

    /// An extended header.
    pub(super) fn pax(records: &[(&str, &[u8])]) -> Self {
        Self::posix(b'x', "PaxHeaders/x").content(&records_of(records))
    }

    /// A global extended header.
    pub(super) fn global(records: &[(&str, &[u8])]) -> Self {
        Self::posix(b'g', "GlobalHead").content(&records_of(records))
    }

    /// GNU's long name (`L`) or link target (`K`).
    pub(super) fn long(flag: u8, name: &[u8]) -> Self {
        Self::gnu(flag, "././@LongLink").content(&[name, b"\0"].concat())
    }

    /// Puts bytes anywhere in the header.
    pub(super) fn at(mut self, offset: usize, bytes: &[u8]) -> Self {
        self.header[offset..offset + bytes.len()].copy_from_slice(bytes);
        self
    }

    pub(super) fn target(self, target: &str) -> Self {
        self.at(157, target.as_bytes())
    }

    pub(super) fn content(mut self, content: &[u8]) -> Self {
        self.content = content.to_vec();
        let size = format!("{:011o}", content.len());
        self.at(124, size.as_bytes())
    }

    /// Another size than the content has.
    pub(super) fn size(self, octal: &[u8]) -> Self {
        self.at(124, octal)
    }

    pub(super) fn extension(mut self, block: &[u8]) -> Self {
        self.extension.extend(block);
        self
    }

    /// A checksum that is not the sum.
    pub(super) fn checksum(mut self, field: &[u8; 8]) -> Self {
        self.has_checksum = true;
        self.at(148, field)
    }

    pub(super) fn header(&self) -> [u8; BLOCK_BYTES] {
        let mut header = self.header;
        if !self.has_checksum {
            seal(&mut header);
        }
        header
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.header().to_vec();
        bytes.extend(&self.extension);
        bytes.extend(&self.content);
        bytes.resize(bytes.len().next_multiple_of(BLOCK_BYTES), 0);
        bytes
    }
}

/// Gives a header the checksum that it needs.
pub(super) fn seal(header: &mut [u8]) {
    header[148..156].fill(b' ');
    let sum: u32 = header[..BLOCK_BYTES].iter().map(|b| u32::from(*b)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

/// The sum that some old programs made: of signed bytes.
pub(super) fn signed_checksum(raw: &Raw) -> [u8; 8] {
    let mut header = raw.header;
    header[148..156].fill(b' ');
    let sum: i32 = header.iter().map(|b| i32::from(b.cast_signed())).sum();
    let text = format!("{sum:06o}\0 ");
    text.into_bytes().try_into().unwrap()
}

pub(super) fn records_of(records: &[(&str, &[u8])]) -> Vec<u8> {
    let records = records.iter();
    let record = |(key, value): &(&str, &[u8])| {
        let rest = key.len() + value.len() + 3;
        let fits = |length: &usize| rest + length.to_string().len() == *length;
        let length = (rest..rest + 9).find(fits).unwrap();
        [format!("{length} {key}=").as_bytes(), value, b"\n"].concat()
    };
    records.flat_map(record).collect()
}

/// Entries one after the other, without an end.
pub(super) fn join(entries: &[Raw]) -> Vec<u8> {
    entries.iter().flat_map(Raw::bytes).collect()
}

/// A whole archive.
pub(super) fn archive(entries: &[Raw]) -> Vec<u8> {
    let mut bytes = join(entries);
    bytes.extend([0; 2 * BLOCK_BYTES]);
    bytes
}
