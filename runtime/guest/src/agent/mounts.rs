//! Mounting: the kernel's own file systems, the root, and the move into it.

use std::ffi::CString;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use coop_guest::boot::{Cobd, Purpose, Root};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind, mount_move, unmount};

use crate::devices;
use crate::failure::{Doing, Failure};

/// Where the root is mounted before it becomes `/`.
const NEW_ROOT: &str = "/newroot";

const NODEV: MountFlags = MountFlags::NODEV;
const NOSUID: MountFlags = MountFlags::NOSUID;
const NOEXEC: MountFlags = MountFlags::NOEXEC;

/// Mounts a file system, making the folder first where it is missing.
pub(crate) fn attach(
    source: &str,
    target: &str,
    filesystem: &str,
    flags: MountFlags,
    options: &str,
) -> Result<(), Failure> {
    let what = || format!("mount {source} ({filesystem}) on {target}");
    if !Path::new(target).is_dir() {
        fs::create_dir_all(target).doing(|| format!("make the folder {target}"))?;
    }
    let data = CString::new(options).doing(what)?;
    match mount(source, target, filesystem, flags, data.as_c_str()) {
        Ok(()) => Ok(()),
        // The kernel may have mounted it by itself, as it can devtmpfs.
        Err(Errno::BUSY) => Ok(()),
        Err(Errno::INVAL) => Err(Failure::new(format!(
            "cannot {}: it holds no sound {filesystem} file system",
            what()
        ))),
        Err(error) => Err(error).doing(what),
    }
}

/// What the agent itself needs: /proc, /sys, /dev.
pub(crate) fn early() -> Result<(), Failure> {
    attach("proc", "/proc", "proc", NOSUID | NODEV | NOEXEC, "")?;
    attach("sysfs", "/sys", "sysfs", NOSUID | NODEV | NOEXEC, "")?;
    attach("devtmpfs", "/dev", "devtmpfs", NOSUID, "mode=0755")?;
    for (name, target) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
    ] {
        // A second start in one kernel finds them there.
        let _ = symlink(target, Path::new("/dev").join(name));
    }
    let quiet = NOSUID | NOEXEC;
    attach(
        "devpts",
        "/dev/pts",
        "devpts",
        quiet,
        "gid=5,mode=620,ptmxmode=666",
    )?;
    attach("tmpfs", "/dev/shm", "tmpfs", NOSUID | NODEV, "mode=1777")
}

/// Mounts the root and moves the early mounts into it; afterwards the root is `/`.
pub(crate) fn enter(root: &Root) -> Result<(), Failure> {
    let mut flags = MountFlags::empty();
    flags.set(MountFlags::RDONLY, root.readonly);
    attach(
        &root.device,
        NEW_ROOT,
        &root.filesystem,
        flags,
        &root.options,
    )?;
    for folder in ["/proc", "/sys", "/dev"] {
        let target = format!("{NEW_ROOT}{folder}");
        if !Path::new(&target).is_dir() {
            fs::create_dir(&target).doing(|| format!("make {folder} in the root"))?;
        }
        mount_move(folder, target.as_str()).doing(|| format!("move {folder} into the root"))?;
    }
    forget_initramfs();
    std::env::set_current_dir(NEW_ROOT).doing(|| format!("enter {NEW_ROOT}"))?;
    mount_move(".", "/").doing(|| "move the root to /".into())?;
    rustix::process::chroot(".").doing(|| "make the root the root".into())?;
    std::env::set_current_dir("/").doing(|| "enter /".into())
}

/// Gives the initramfs's memory back: nothing of it is reachable after the move.
fn forget_initramfs() {
    let _ = fs::remove_dir_all(coop_guest::boot::MODULES_FOLDER);
    let _ = fs::remove_file(coop_guest::boot::CONFIG_PATH);
    let _ = fs::remove_file("/init");
}

/// /run, where the agent keeps its own files in `/run/coop`.
pub(crate) fn run_folder() -> Result<(), Failure> {
    attach("tmpfs", "/run", "tmpfs", NOSUID | NODEV, "mode=0755")?;
    fs::create_dir_all("/run/lock").doing(|| "make /run/lock".into())?;
    fs::create_dir_all("/run/coop").doing(|| "make /run/coop".into())
}

/// /tmp, so that a command's litter stays out of the image.
pub(crate) fn tmp_folder() -> Result<(), Failure> {
    attach("tmpfs", "/tmp", "tmpfs", NOSUID | NODEV, "mode=1777")
}

/// Mounts the further block devices.
pub(crate) fn further(cobds: &[Cobd]) -> Result<(), Failure> {
    for cobd in cobds {
        let Purpose::Mount {
            path,
            filesystem,
            readonly,
            file,
        } = &cobd.purpose
        else {
            continue;
        };
        let mut flags = MountFlags::empty();
        flags.set(MountFlags::RDONLY, *readonly);
        let device = devices::node(cobd);
        match file {
            None => attach(&device, path, filesystem, flags, "")?,
            Some(file) => {
                let whole = format!("/run/coop/{}", cobd.serial);
                attach(&device, &whole, filesystem, flags, "")?;
                show_file(&whole, file, path)?;
            }
        }
    }
    Ok(())
}

/// Shows one file of a mounted file system at a path, and nothing else of it.
fn show_file(whole: &str, file: &str, path: &str) -> Result<(), Failure> {
    if !Path::new(path).exists() {
        let parent = Path::new(path).parent();
        let made = parent.map_or(Ok(()), fs::create_dir_all);
        made.and_then(|()| fs::File::create(path).map(drop))
            .doing(|| format!("make {path}"))?;
    }
    let source = format!("{whole}/{file}");
    mount_bind(source.as_str(), path).doing(|| format!("show {source} at {path}"))?;
    // The file system stays as long as the file is shown.
    unmount(whole, UnmountFlags::DETACH).doing(|| format!("unmount {whole}"))?;
    fs::remove_dir(whole).doing(|| format!("remove {whole}"))
}
