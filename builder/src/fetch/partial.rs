//! A download under way.

use std::io::{self, Seek, SeekFrom, Write};

use tempfile::NamedTempFile;

use crate::digest::{Digest, Hasher};

/// What came so far.
pub(super) struct Partial {
    pub(super) file: NamedTempFile,
    hasher: Hasher,
    pub(super) length: u64,
    pub(super) resumed: bool,
}

impl Partial {
    pub(super) fn new(file: NamedTempFile) -> Self {
        Self {
            file,
            hasher: Hasher::new(),
            length: 0,
            resumed: false,
        }
    }

    pub(super) fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.hasher.update(bytes);
        self.length += bytes.len() as u64;
        Ok(())
    }

    pub(super) fn reset(&mut self) -> io::Result<()> {
        self.file.as_file().set_len(0)?;
        self.file.seek(SeekFrom::Start(0))?;
        self.hasher = Hasher::new();
        self.length = 0;
        self.resumed = false;
        Ok(())
    }

    pub(super) fn digest(&self) -> Digest {
        self.hasher.clone().finish()
    }
}
