//! Linux swap areas, version 1.
//!
//! A swap area is one page of header and then pages for the kernel to use; the header's layout is
//! `union swap_header` in the kernel's `include/linux/swap.h`.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Size of a page in bytes: that of the guests.
pub const PAGE_SIZE_BYTES: u64 = 4096;
/// The smallest swap area in pages, as mkswap has it.
pub const PAGES_MIN: u64 = 10;
/// The longest label in bytes.
pub const LABEL_LENGTH_MAX: usize = 15;

const HEADER_SIZE: usize = 4096;
const VERSION: u32 = 1;
const VERSION_OFFSET: usize = 1024;
const LAST_PAGE_OFFSET: usize = 1028;
const UUID_OFFSET: usize = 1036;
const LABEL_OFFSET: usize = 1052;
const MAGIC: &[u8; 10] = b"SWAPSPACE2";

/// Why a swap area could not be made.
#[derive(Debug, thiserror::Error)]
pub enum SwapError {
    /// Fewer than [`PAGES_MIN`] pages, or more than a header can count.
    #[error("a swap area cannot have {0} bytes (40 KiB to 16 TiB)")]
    Size(u64),
    /// More than [`LABEL_LENGTH_MAX`] bytes, or a NUL.
    #[error("the label '{0}' of a swap area has more than {LABEL_LENGTH_MAX} bytes or a NUL")]
    Label(String),
    /// The area could not be written.
    #[error("cannot write the swap area")]
    Write(#[source] io::Error),
}

/// Makes `output`, whose former content is lost, a swap area of `size_bytes`; a rest that is no
/// whole page stays unused.
///
/// # Errors
/// A size or label that cannot be, or the file cannot be written.
pub fn write_swap(
    output: &File,
    size_bytes: u64,
    uuid: [u8; 16],
    label: &str,
) -> Result<(), SwapError> {
    let pages = size_bytes / PAGE_SIZE_BYTES;
    let last_page = pages
        .checked_sub(1)
        .and_then(|last| u32::try_from(last).ok());
    let last_page = last_page
        .filter(|_| pages >= PAGES_MIN)
        .ok_or(SwapError::Size(size_bytes))?;
    if label.len() > LABEL_LENGTH_MAX || label.contains('\0') {
        return Err(SwapError::Label(label.into()));
    }
    let mut header = [0; HEADER_SIZE];
    let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
    put(VERSION_OFFSET, &VERSION.to_le_bytes());
    put(LAST_PAGE_OFFSET, &last_page.to_le_bytes());
    put(UUID_OFFSET, &uuid);
    put(LABEL_OFFSET, label.as_bytes());
    put(HEADER_SIZE - MAGIC.len(), MAGIC);
    output.set_len(0).map_err(SwapError::Write)?;
    output.set_len(size_bytes).map_err(SwapError::Write)?;
    output.write_all_at(&header, 0).map_err(SwapError::Write)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{have, sh};

    #[test]
    fn other_tools_know_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = File::create(folder.path().join("swap")).unwrap();
        let uuid = std::array::from_fn(|at| u8::try_from(at + 1).unwrap());
        write_swap(&file, 1 << 20, uuid, "a label").unwrap();
        if have("file") {
            let text = String::from_utf8(sh(folder.path(), "file swap")).unwrap();
            assert!(text.contains("Linux swap file, 4k page size, little endian, version 1"));
            assert!(text.contains("size 255 pages"), "{text}");
        }
        if std::path::Path::new("/usr/sbin/swaplabel").exists() || have("swaplabel") {
            let text = sh(folder.path(), "PATH=$PATH:/usr/sbin:/sbin swaplabel swap");
            let text = String::from_utf8(text).unwrap();
            assert!(text.contains("LABEL: a label"), "{text}");
            assert!(
                text.contains("UUID:  01020304-0506-0708-090a-0b0c0d0e0f10"),
                "{text}"
            );
        }
    }

    #[test]
    fn impossible_ones_are_refused() {
        let file = tempfile::tempfile().unwrap();
        for size in [0, 4096, 40_959, 1 << 45] {
            assert!(matches!(
                write_swap(&file, size, [0; 16], ""),
                Err(SwapError::Size(_))
            ));
        }
        let error = write_swap(&file, 1 << 20, [0; 16], "sixteen letters.");
        assert!(matches!(error, Err(SwapError::Label(_))));
    }
}
