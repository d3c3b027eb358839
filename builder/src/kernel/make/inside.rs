//! Files in the folders that a build has written: what it left there may be anything, so no link
//! is followed, and nothing but regular files is read.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, open, openat, openat2, unlinkat};

fn named(path: &Path, name: &str, error: impl Into<io::Error>) -> io::Error {
    let error = error.into();
    io::Error::new(
        error.kind(),
        format!("{}: {error}", path.join(name).display()),
    )
}

fn open_inside(folder: &Path, name: &str, flags: OFlags) -> io::Result<OwnedFd> {
    let opened = (|| {
        let top = open(folder, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        openat2(top, name, flags | OFlags::CLOEXEC, Mode::empty(), resolve)
    })();
    opened.map_err(|error| named(folder, name, error))
}

/// Opens a folder in a folder.
pub(super) fn folder(folder: &Path, name: &str) -> io::Result<OwnedFd> {
    open_inside(folder, name, OFlags::RDONLY | OFlags::DIRECTORY)
}

/// Reads a regular file of at most `limit_bytes`.
pub(super) fn read(folder: &Path, name: &str, limit_bytes: u64) -> io::Result<Vec<u8>> {
    // Nothing here waits for a pipe's other end.
    let opened = open_inside(folder, name, OFlags::RDONLY | OFlags::NONBLOCK)?;
    let file = File::from(opened);
    let failed = |problem: String| named(folder, name, io::Error::other(problem));
    let metadata = file
        .metadata()
        .map_err(|error| named(folder, name, error))?;
    if !metadata.is_file() {
        return Err(failed("it is no regular file".to_owned()));
    }
    let mut bytes = Vec::new();
    file.take(limit_bytes.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(|error| named(folder, name, error))?;
    if bytes.len() as u64 > limit_bytes {
        return Err(failed(format!("it has more than {limit_bytes} bytes")));
    }
    Ok(bytes)
}

/// Makes a file right in a folder, in the place of what has its name.
pub(super) fn replace(folder: &Path, name: &str, text: &str) -> io::Result<()> {
    let written = (|| -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let top = openat(CWD, folder, flags, Mode::empty())?;
        match unlinkat(&top, name, AtFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
        let new = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = openat(&top, name, new, Mode::from_raw_mode(0o600))?;
        File::from(file).write_all(text.as_bytes())
    })();
    written.map_err(|error| named(folder, name, error))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use fs_err as fs;

    use super::*;

    #[test]
    fn links_are_not_followed() {
        let home = tempfile::tempdir().unwrap();
        let (build, secret) = (home.path().join("build"), home.path().join("secret"));
        fs::create_dir_all(build.join("a")).unwrap();
        fs::write(&secret, "secret").unwrap();
        fs::write(build.join("a/f"), "text").unwrap();
        symlink("../secret", build.join("link")).unwrap();
        symlink("a", build.join("b")).unwrap();
        assert_eq!(read(&build, "a/f", 4).unwrap(), b"text");
        for bad in ["link", "b/f", "../secret", "a", "missing"] {
            let error = read(&build, bad, 100).unwrap_err().to_string();
            assert!(error.contains(bad), "{error}");
        }
        let error = read(&build, "a/f", 3).unwrap_err().to_string();
        assert!(error.contains("more than 3 bytes"), "{error}");
        assert!(folder(&build, "a").is_ok() && folder(&build, "b").is_err());
        replace(&build, "link", "mine").unwrap();
        replace(&build, "link", "mine too").unwrap();
        assert_eq!(fs::read(&secret).unwrap(), b"secret");
        assert_eq!(fs::read(build.join("link")).unwrap(), b"mine too");
    }

    #[test]
    fn pipes_and_devices_are_not_waited_for() {
        let home = tempfile::tempdir().unwrap();
        rustix::fs::mkfifoat(CWD, home.path().join("p"), Mode::from_raw_mode(0o600)).unwrap();
        let error = read(home.path(), "p", 100).unwrap_err().to_string();
        assert!(error.contains("no regular file"), "{error}");
    }
}
