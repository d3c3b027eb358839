//! Where images lie while they are looked at, and the loop devices over them.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use fs_err as fs;
use fs_err::os::unix::fs::OpenOptionsExt;
use rustix::fs::SeekFrom;

use super::facts::Bytes;
use super::{required, skip};

const PREFIX: &str = "coop-images-";
/// Large enough for every image; the file has no blocks before they are written.
const DEVICE_BYTES: u64 = 40 << 40;
/// As large as files are where [`folder`] is no memory.
const DEVICE_BYTES_ON_DISK: u64 = 15 << 40;
/// A memory that has less free is not used.
const MEMORY_MIN: u64 = 4 << 30;
/// How long the kernel may take to let go of a device.
const RELEASE: Duration = Duration::from_secs(20);

/// A folder in memory, where there is one with room.
pub fn folder() -> PathBuf {
    let memory = Path::new("/dev/shm");
    match rustix::fs::statvfs(memory) {
        Ok(found) if found.f_bavail * found.f_frsize >= MEMORY_MIN => memory.into(),
        _ => std::env::temp_dir(),
    }
}

/// A file for one image after the other, with a loop device over it where there may be one. The
/// device's size never changes: file systems are smaller than it.
pub struct Place {
    path: PathBuf,
    device: Option<PathBuf>,
}

impl Place {
    /// `mounts`: whether a loop device is wanted.
    pub fn new(mounts: bool) -> Self {
        static CLEAN: Once = Once::new();
        CLEAN.call_once(remove_left_over);
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = folder().join(format!("{PREFIX}{}-{number}", std::process::id()));
        let file = fs::File::create(&path).unwrap();
        file.set_len(DEVICE_BYTES)
            .or_else(|_| file.set_len(DEVICE_BYTES_ON_DISK))
            .unwrap();
        let device = if mounts { attach(&path) } else { None };
        Self { path, device }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn device(&self) -> Option<&Path> {
        self.device.as_deref()
    }

    /// The file, empty.
    pub fn emptied(&self) -> File {
        let file = fs::File::options()
            .read(true)
            .write(true)
            .open(&self.path)
            .unwrap();
        file.set_len(0).unwrap();
        file.into_parts().0
    }

    pub fn opened(&self) -> File {
        fs::File::open(&self.path).unwrap().into_parts().0
    }

    /// Has the kernel forget what it read from the device: the image is written beside it, and the
    /// kernel may close a device some time after it was unmounted.
    pub fn forget(&self) {
        if let Some(device) = &self.device {
            let opened = fs::File::open(device).unwrap();
            rustix::fs::fadvise(opened.file(), 0, None, rustix::fs::Advice::DontNeed).unwrap();
        }
    }

    /// Waits until no mount holds the device: the kernel unmounts when the last descriptor is
    /// closed, and programs that start elsewhere have copies of it for a moment.
    pub fn await_release(&self) -> Result<(), String> {
        let Some(device) = &self.device else {
            return Ok(());
        };
        let start = Instant::now();
        let exclusive = rustix::fs::OFlags::EXCL.bits().cast_signed();
        loop {
            let opened = fs::OpenOptions::new()
                .read(true)
                .custom_flags(exclusive)
                .open(device);
            match opened {
                Ok(_) => return Ok(()),
                Err(error) if start.elapsed() > RELEASE => {
                    return Err(format!("the image stays mounted: {error}"));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(1)),
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(device) = &self.device {
            let _ = self.await_release();
            let _ = Command::new("losetup").arg("-d").arg(device).status();
        }
        let _ = fs::remove_file(&self.path);
    }
}

/// A loop device over a file; `None`, with a message, where this machine has none for us.
fn attach(path: &Path) -> Option<PathBuf> {
    let refused = |reason: &str| {
        assert!(!required(), "loop devices are required: {reason}");
        skip(&format!("no mounts: {reason}"));
        None
    };
    if !rustix::process::geteuid().is_root() {
        return refused("they need root");
    }
    let output = Command::new("losetup")
        .args(["--find", "--show"])
        .arg(path)
        .output();
    match output {
        Err(error) => refused(&format!("losetup: {error}")),
        Ok(output) if !output.status.success() => refused(&String::from_utf8_lossy(&output.stderr)),
        Ok(output) => {
            let device = String::from_utf8(output.stdout).unwrap();
            Some(device.trim().into())
        }
    }
}

/// The sum of a file: its length, and every byte that is not zero with its place.
pub fn sum(file: &File) -> (u64, [u8; 32]) {
    let length = file.metadata().unwrap().len();
    let mut bytes = Bytes::default();
    let mut buffer = vec![0; 256 << 10];
    let mut at = 0;
    while let Ok(data) = rustix::fs::seek(file, SeekFrom::Data(at)) {
        let hole = rustix::fs::seek(file, SeekFrom::Hole(data)).unwrap();
        at = data;
        while at < hole {
            let most = usize::try_from(hole - at).map_or(buffer.len(), |l| l.min(buffer.len()));
            file.read_exact_at(&mut buffer[..most], at).unwrap();
            bytes.add(at, &buffer[..most]);
            at += most as u64;
        }
    }
    (length, bytes.finish())
}

/// Removes what a killed run has left: files and loop devices of processes that are gone.
fn remove_left_over() {
    for entry in fs::read_dir(folder()).unwrap().flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let process = name
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.split('-').next());
        let Some(process) = process else { continue };
        if Path::new("/proc").join(process).exists() {
            continue;
        }
        let devices = Command::new("losetup")
            .args(["--noheadings", "--output", "NAME", "--associated"])
            .arg(entry.path())
            .output();
        let devices = devices.map(|output| output.stdout).unwrap_or_default();
        for device in String::from_utf8_lossy(&devices).lines() {
            let _ = Command::new("losetup").args(["-d", device.trim()]).status();
        }
        let _ = fs::remove_file(entry.path());
    }
}
