//! The guest's end: processes, swap, file systems, power.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::mount::{MountFlags, UnmountFlags, mount_remount, unmount};
use rustix::process::{Pid, Signal, kill_process_group};
use rustix::system::{RebootCommand, reboot};

use crate::network::Resolver;
use crate::reaper::{any_child, reap_all};
use crate::{devices, log};

/// How long processes have between SIGTERM and SIGKILL.
const TERM_TIMEOUT: Duration = Duration::from_secs(3);
/// How long the kernel has to end killed processes.
const KILL_TIMEOUT: Duration = Duration::from_secs(3);
/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(2);

/// Ends every other process. Only process 1 may call it: all others become its children in the
/// end, so that it sees when they are gone.
pub(crate) fn end_processes() {
    for (signals, limit) in [
        (
            [Signal::TERM, Signal::HUP, Signal::CONT].as_slice(),
            TERM_TIMEOUT,
        ),
        ([Signal::KILL].as_slice(), KILL_TIMEOUT),
    ] {
        reap_all();
        if !any_child() {
            return;
        }
        for signal in signals {
            // To the group of process 1 means to everybody.
            let _ = kill_process_group(Pid::INIT, *signal);
        }
        let deadline = Instant::now() + limit;
        while any_child() && Instant::now() < deadline {
            reap_all();
            sleep(PAUSE);
        }
    }
}

/// Unmounts everything, the root read-only. Gives what could not be left clean.
pub(crate) fn leave_filesystems(swap: bool, resolver: Option<Resolver>) -> Vec<String> {
    let mut unclean = Vec::new();
    if swap && let Err(failure) = devices::swap_off() {
        log::line(&failure.to_string());
    }
    // What is mounted on something else goes first; a second round for what was busy meanwhile.
    for _ in 0..2 {
        for mount in mounts().into_iter().rev() {
            let kept = ["/", "/proc", "/dev", "/sys"].map(Path::new);
            if !kept.contains(&mount.point.as_path()) {
                let _ = unmount(&mount.point, UnmountFlags::NOFOLLOW);
            }
        }
    }
    if let Some(Err(failure)) = resolver.map(Resolver::remove) {
        unclean.push(failure.to_string());
    }
    for mount in mounts().into_iter().rev().filter(|mount| mount.on_disk) {
        if let Err(error) = mount_remount(&mount.point, MountFlags::RDONLY, c"") {
            let point = mount.point.display();
            unclean.push(format!("cannot make {point} read-only: {error}"));
        }
    }
    rustix::fs::sync();
    unclean
}

struct Mount {
    point: PathBuf,
    on_disk: bool,
}

/// Every mount, in the order of mounting.
fn mounts() -> Vec<Mount> {
    let table = fs::read("/proc/self/mountinfo").unwrap_or_default();
    table
        .split(|byte| *byte == b'\n')
        .filter_map(mount)
        .collect()
}

/// Reads a line of mountinfo: identifiers, device, root, mount point, and more (proc(5)).
fn mount(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|byte| *byte == b' ').skip(2);
    let device = fields.next()?;
    let point = unescape(fields.nth(1)?);
    Some(Mount {
        point: PathBuf::from(OsString::from_vec(point)),
        // Major number 0 is for file systems without a device.
        on_disk: !device.starts_with(b"0:"),
    })
}

/// The kernel writes blanks and backslashes as three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first == b'\\'
            && let Some((digits, after)) = tail.split_first_chunk::<3>()
            && let Some(byte) = octal(digits)
        {
            plain.push(byte);
            rest = after;
        } else {
            plain.push(*first);
        }
    }
    plain
}

fn octal(digits: &[u8; 3]) -> Option<u8> {
    let text = std::str::from_utf8(digits).ok()?;
    u8::from_str_radix(text, 8).ok()
}

/// Switches the machine off.
pub(crate) fn power_off() -> ! {
    if let Err(error) = reboot(RebootCommand::PowerOff) {
        log::line(&format!("cannot power off: {error}"));
    }
    // The kernel takes no return from process 1; there is nothing better to do than to wait.
    loop {
        sleep(Duration::from_secs(3600));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mountinfo_is_read() {
        let line = b"29 1 98:0 / /mnt/a\\040b rw - ext4 /dev/cobd1 rw";
        let found = mount(line).unwrap();
        assert_eq!((found.point, found.on_disk), ("/mnt/a b".into(), true));
        assert!(
            !mount(b"30 29 0:21 / /proc rw - proc proc rw")
                .unwrap()
                .on_disk
        );
        assert!(mount(b"").is_none());
    }

    #[test]
    fn mount_points_are_unescaped() {
        assert_eq!(unescape(br"/a\040b\134c"), b"/a b\\c");
        assert_eq!(unescape(br"/a\04"), br"/a\04");
        assert_eq!(unescape(br"/a\999"), br"/a\999");
        assert_eq!(unescape(b""), b"");
    }
}
