//! Bytes between files, memory that a guest shares, and another process.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use vm_memory::VolatileSlice;
use vm_memory::bitmap::BitmapSlice;

/// Slices that one call of [`read_file_at`] or [`write_file_at`] takes at most: Linux's `UIO_MAXIOV`.
pub const SLICES_MAX: usize = 1024;

fn offset_of(at: u64) -> io::Result<libc::off_t> {
    libc::off_t::try_from(at).map_err(|_| io::ErrorKind::InvalidInput.into())
}

fn count_of(result: libc::ssize_t) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

fn vectors<B: BitmapSlice>(slices: &[VolatileSlice<'_, B>]) -> Vec<libc::iovec> {
    slices
        .iter()
        .take(SLICES_MAX)
        .map(|slice| libc::iovec {
            iov_base: slice.ptr_guard_mut().as_ptr().cast(),
            iov_len: slice.len(),
        })
        .collect()
}

/// Reads from byte `at` of a file into guest memory, and returns how many bytes came: fewer than
/// asked at the file's end, on a signal, or beyond [`SLICES_MAX`] slices.
///
/// # Errors
/// What `preadv` says; `InvalidInput` where `at` is no file offset.
pub fn read_file_at<B: BitmapSlice>(
    file: BorrowedFd<'_>,
    at: u64,
    slices: &[VolatileSlice<'_, B>],
) -> io::Result<usize> {
    let at = offset_of(at)?;
    let vectors = vectors(slices);
    let count = i32::try_from(vectors.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: each vector is the whole of a `VolatileSlice`, whose pointer and length are valid
    // for volatile writes for its lifetime, and the slices outlive the call.
    count_of(unsafe { libc::preadv(file.as_raw_fd(), vectors.as_ptr(), count, at) })
}

/// Writes guest memory to byte `at` of a file, and returns how many bytes went: fewer than asked
/// on a full disk, on a signal, or beyond [`SLICES_MAX`] slices.
///
/// # Errors
/// What `pwritev` says; `InvalidInput` where `at` is no file offset.
pub fn write_file_at<B: BitmapSlice>(
    file: BorrowedFd<'_>,
    at: u64,
    slices: &[VolatileSlice<'_, B>],
) -> io::Result<usize> {
    let at = offset_of(at)?;
    let vectors = vectors(slices);
    let count = i32::try_from(vectors.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: as in `read_file_at`; the kernel only reads the slices.
    count_of(unsafe { libc::pwritev(file.as_raw_fd(), vectors.as_ptr(), count, at) })
}

/// A process whose memory may be touched: any but this one.
fn foreign(process_id: u32) -> io::Result<libc::pid_t> {
    let refused = || io::Error::from(io::ErrorKind::InvalidInput);
    if process_id == 0 || process_id == std::process::id() {
        return Err(refused());
    }
    libc::pid_t::try_from(process_id).map_err(|_| refused())
}

fn remote(address: u64, length: usize) -> io::Result<libc::iovec> {
    let address = usize::try_from(address).map_err(|_| io::ErrorKind::InvalidInput)?;
    Ok(libc::iovec {
        iov_base: std::ptr::without_provenance_mut(address),
        iov_len: length,
    })
}

/// Copies memory of another process, from its virtual address `address`, into `buffer`.
///
/// # Errors
/// What `process_vm_readv` says; `InvalidInput` for this process; `UnexpectedEof` where only a
/// part could be read.
pub fn read_process(process_id: u32, address: u64, buffer: &mut [u8]) -> io::Result<()> {
    let process = foreign(process_id)?;
    let local = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    let remote = remote(address, buffer.len())?;
    // SAFETY: `local` is the whole of an exclusively borrowed slice; the remote address is never
    // followed in this process, the kernel checks it in the other one.
    let result =
        unsafe { libc::process_vm_readv(process, &raw const local, 1, &raw const remote, 1, 0) };
    if count_of(result)? == buffer.len() {
        return Ok(());
    }
    Err(io::ErrorKind::UnexpectedEof.into())
}

/// Copies `bytes` into the memory of another process, at its virtual address `address`.
///
/// # Errors
/// What `process_vm_writev` says; `InvalidInput` for this process; `WriteZero` where only a part
/// could be written.
pub fn write_process(process_id: u32, address: u64, bytes: &[u8]) -> io::Result<()> {
    let process = foreign(process_id)?;
    let local = libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    };
    let remote = remote(address, bytes.len())?;
    // SAFETY: the kernel only reads `local`, which is the whole of a borrowed slice; the memory
    // written is another process's, so nothing of this one changes behind the compiler's back.
    let result =
        unsafe { libc::process_vm_writev(process, &raw const local, 1, &raw const remote, 1, 0) };
    if count_of(result)? == bytes.len() {
        return Ok(());
    }
    Err(io::ErrorKind::WriteZero.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_process_is_refused() {
        let mut byte = [0];
        let own = std::process::id();
        assert!(read_process(own, 4096, &mut byte).is_err());
        assert!(write_process(own, 4096, &byte).is_err());
        assert!(read_process(0, 4096, &mut byte).is_err());
    }

    #[test]
    fn files_fill_slices() {
        use std::os::fd::AsFd;
        let path = std::env::temp_dir().join(format!("coop-sys-{}", std::process::id()));
        std::fs::write(&path, b"0123456789").unwrap();
        let file = std::fs::File::options()
            .read(true)
            .write(true)
            .open(&path)
            .unwrap();
        std::fs::remove_file(&path).unwrap();
        let (mut first, mut second) = ([0u8; 3], [0u8; 4]);
        let slices = [
            VolatileSlice::from(first.as_mut_slice()),
            VolatileSlice::from(second.as_mut_slice()),
        ];
        assert_eq!(read_file_at(file.as_fd(), 2, &slices).unwrap(), 7);
        assert_eq!(write_file_at(file.as_fd(), 0, &slices).unwrap(), 7);
        assert_eq!((&first, &second), (b"234", b"5678"));
        let mut back = [0; 10];
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut back, 0).unwrap();
        assert_eq!(&back, b"2345678789");
        assert!(read_file_at::<()>(file.as_fd(), u64::MAX, &[]).is_err());
    }
}
