//! Tables of a disk, read a page at a time: the pages that were used last stay in memory, whatever
//! size the tables have.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, PoisonError};

use super::DiskError;

/// Size of a page in bytes; a power of two.
const PAGE_BYTES: u64 = 32 << 10;
/// Pages that stay: 512 KiB.
const PAGES_MAX: usize = 16;

/// A page: its file's number, its own, and its bytes, fewer at the file's end.
type Page = (usize, u64, Arc<[u8]>);

/// Pages of a layer's files, the one that was used last at the end.
#[derive(Debug, Default)]
pub(super) struct Pages {
    pages: Mutex<Vec<Page>>,
}

/// The rest of a page.
#[derive(Debug)]
pub(super) struct Rest {
    page: Arc<[u8]>,
    start: usize,
}

impl Rest {
    /// At least what was asked for.
    pub(super) fn bytes(&self) -> &[u8] {
        self.page.get(self.start..).unwrap_or_default()
    }
}

impl Pages {
    /// The bytes from `offset` of a file to the end of their page; `None` where these are fewer
    /// than `length`. What is asked for must not cross the border of two pages.
    pub(super) fn at(
        &self,
        number: usize,
        file: &File,
        offset: u64,
        length: usize,
    ) -> Result<Option<Rest>, DiskError> {
        let start = usize::try_from(offset % PAGE_BYTES).unwrap_or(0);
        let page = self.page(number, file, offset / PAGE_BYTES)?;
        let rest = Rest { page, start };
        Ok(Some(rest).filter(|rest| rest.bytes().len() >= length))
    }

    fn page(&self, number: usize, file: &File, index: u64) -> Result<Arc<[u8]>, DiskError> {
        let mut pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        let found = pages
            .iter()
            .rposition(|page| (page.0, page.1) == (number, index));
        if let Some(position) = found {
            pages[position..].rotate_left(1);
        } else {
            let bytes = read_page(file, index.saturating_mul(PAGE_BYTES))?;
            if pages.len() >= PAGES_MAX {
                pages.remove(0);
            }
            pages.push((number, index, bytes.into()));
        }
        Ok(pages.last().map(|page| page.2.clone()).unwrap_or_default())
    }
}

fn read_page(file: &File, offset: u64) -> Result<Vec<u8>, DiskError> {
    let mut bytes = vec![0; usize::try_from(PAGE_BYTES).unwrap_or(0)];
    let mut done = 0;
    while done < bytes.len() {
        let at = offset.saturating_add(super::as_u64(done));
        match file.read_at(&mut bytes[done..], at) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(source) => return Err(DiskError::Read { offset: at, source }),
        }
    }
    bytes.truncate(done);
    Ok(bytes)
}
