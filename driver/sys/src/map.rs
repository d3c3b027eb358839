//! Whether a folder's files may be mapped executable.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Maps the first `length` bytes of `file` shared, readable, writable and executable, as a
/// User-Mode-Linux kernel does with its memory, and takes the mapping away again.
///
/// # Errors
/// What `mmap` says: `EPERM` on a file system mounted `noexec`, `ENODEV` where files cannot be
/// mapped, `EACCES` for a file that is not open for reading and writing.
pub fn try_executable(file: BorrowedFd<'_>, length: usize) -> io::Result<()> {
    // SAFETY: no address is asked for, so no existing mapping is replaced, and nothing refers to
    // the new one before it is removed below.
    let address = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            length,
            libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC,
            libc::MAP_SHARED,
            file.as_raw_fd(),
            0,
        )
    };
    if address == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: exactly the mapping that was just made.
    unsafe { libc::munmap(address, length) };
    Ok(())
}
