//! Modules, block devices by their serials, swap.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use coop_guest::boot::{Cobd, MODULES_FOLDER, Purpose};
use rustix::io::Errno;

use crate::failure::{Doing, Failure};

/// How long a block device may take to appear.
const APPEAR_TIMEOUT: Duration = Duration::from_secs(10);
const APPEAR_PAUSE: Duration = Duration::from_millis(2);

/// Loads the modules in the order of their names. One that the kernel has already is no failure,
/// nor is one for a processor or a device that is not there.
pub(crate) fn load_modules() -> Result<(), Failure> {
    let Ok(entries) = fs::read_dir(MODULES_FOLDER) else {
        return Ok(());
    };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|ending| ending == "ko"));
    paths.sort();
    for path in paths {
        let what = || format!("load the module {}", path.display());
        let module = File::open(&path).doing(what)?;
        match rustix::system::finit_module(&module, c"", 0) {
            Ok(()) | Err(Errno::EXIST | Errno::NODEV) => {}
            Err(error) => return Err(error).doing(what),
        }
    }
    Ok(())
}

/// Makes `/dev/cobdN` for every device of the configuration, whatever order the kernel found them
/// in.
///
/// `by_order` takes the device at the same place among the machine's disks where none has the
/// serial: a machine that was put together by hand need not know of serials.
pub(crate) fn name_cobds(cobds: &[Cobd], by_order: bool) -> Result<(), Failure> {
    let deadline = Instant::now() + APPEAR_TIMEOUT;
    for (index, cobd) in cobds.iter().enumerate() {
        let device = loop {
            let device = find_serial(&cobd.serial);
            if let Some(device) = device.or_else(|| disk(index).filter(|_| by_order)) {
                break device;
            }
            if Instant::now() >= deadline {
                let serial = &cobd.serial;
                return Err(Failure::new(format!(
                    "{serial} is missing: no block device has this serial"
                )));
            }
            sleep(APPEAR_PAUSE);
        };
        let link = node(cobd);
        match symlink(&device, &link) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error).doing(|| format!("make {link}")),
        }
    }
    Ok(())
}

/// What a device is called in the guest.
pub(crate) fn node(cobd: &Cobd) -> String {
    format!("/dev/{}", cobd.serial)
}

fn find_serial(serial: &str) -> Option<PathBuf> {
    for entry in fs::read_dir("/sys/block").ok()?.flatten() {
        let found = fs::read_to_string(entry.path().join("serial")).unwrap_or_default();
        let node = Path::new("/dev").join(entry.file_name());
        if found.trim_end() == serial && node.exists() {
            return Some(entry.file_name().into());
        }
    }
    None
}

/// The name of the disk at this place: `vda` and its like before `sda`, in the order of letters.
fn disk(index: usize) -> Option<PathBuf> {
    let names = fs::read_dir("/sys/block").ok()?.flatten();
    let names = names.filter_map(|entry| entry.file_name().into_string().ok());
    let mut disks: Vec<String> = names.filter(|name| is_disk(name)).collect();
    disks.sort_by_key(|name| (!name.starts_with("vd"), name.len(), name.clone()));
    let name = disks.into_iter().nth(index)?;
    Path::new("/dev").join(&name).exists().then(|| name.into())
}

/// Whether a block device's name is one of a disk, and not of a loop, a CD or a floppy.
fn is_disk(name: &str) -> bool {
    ["vd", "sd", "nvme"]
        .iter()
        .any(|kind| name.starts_with(kind))
}

/// The device behind `/dev/console`, which a login wants to have by its own name; any other device
/// is what it is.
pub(crate) fn real_console(device: &str) -> String {
    if device != "/dev/console" {
        return device.to_owned();
    }
    let active = fs::read_to_string("/sys/class/tty/console/active").unwrap_or_default();
    // The last one is the one that /dev/console leads to.
    match active.split_whitespace().last() {
        Some(name) => format!("/dev/{name}"),
        None => device.to_owned(),
    }
}

/// Whether the configuration has a swap area.
pub(crate) fn has_swap(cobds: &[Cobd]) -> bool {
    cobds.iter().any(|cobd| cobd.purpose == Purpose::Swap)
}

/// Turns the swap areas on, by the root's own `swapon`.
pub(crate) fn swap_on(cobds: &[Cobd]) -> Result<(), Failure> {
    for cobd in cobds {
        if cobd.purpose == Purpose::Swap {
            root_tool("swapon", &node(cobd))?;
        }
    }
    Ok(())
}

/// Turns all swap off.
pub(crate) fn swap_off() -> Result<(), Failure> {
    root_tool("swapoff", "-a")
}

fn root_tool(name: &str, argument: &str) -> Result<(), Failure> {
    let path = ["/sbin", "/usr/sbin", "/bin", "/usr/bin"]
        .map(|folder| Path::new(folder).join(name))
        .into_iter()
        .find(|path| path.exists())
        .ok_or_else(|| Failure::new(format!("the root has no {name}")))?;
    let what = || format!("run {} {argument}", path.display());
    let status = Command::new(&path)
        .arg(argument)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .doing(what)?;
    if status.success() {
        return Ok(());
    }
    Err(Failure::new(format!("{name} {argument} failed: {status}")))
}
