//! What systemd must know about this machine, told through units in /run.
//!
//! They last for one boot and leave the image alone; the root's own units in /etc win over them.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use crate::failure::{Doing, Failure};

const FOLDER: &str = "/run/systemd/system";
/// Gettys for the kernel's own consoles, which lead nowhere but to its log.
const DEAD_CONSOLES: [&str; 2] = ["getty@tty1.service", "getty-static.service"];
/// Writes a machine's number that is only mounted over the image's into the image.
const MACHINE_ID_COMMIT: &str = "systemd-machine-id-commit.service";
const MODULES_LOAD: &str = "systemd-modules-load.service";
/// Where udev may lie.
const UDEV: [&str; 2] = [
    "/usr/lib/systemd/systemd-udevd",
    "/lib/systemd/systemd-udevd",
];

/// Writes the units; `console` is the device of the console, as `/dev/hvc0`, and `has_identity`
/// says that the machine was given what is its own.
pub(crate) fn install(console: &str, has_identity: bool) -> Result<(), Failure> {
    fs::create_dir_all(FOLDER).doing(|| format!("make {FOLDER}"))?;
    if has_identity {
        mask(MACHINE_ID_COMMIT)?;
    }
    for unit in DEAD_CONSOLES {
        mask(unit)?;
    }
    let release = rustix::system::uname();
    let modules = Path::new("/lib/modules").join(release.release().to_string_lossy().as_ref());
    if !modules.exists() {
        mask(MODULES_LOAD)?;
    }
    let tty = console.trim_start_matches("/dev/");
    if !UDEV.iter().any(|path| Path::new(path).exists()) {
        // Debian's own unit waits for udev to announce the device.
        let unit = format!("serial-getty@{tty}.service");
        let wants = format!("{FOLDER}/getty.target.wants");
        let what = || format!("write {unit}");
        fs::write(format!("{FOLDER}/{unit}"), getty(tty)).doing(what)?;
        fs::create_dir_all(&wants).doing(what)?;
        symlink(format!("../{unit}"), format!("{wants}/{unit}")).doing(what)?;
    }
    Ok(())
}

fn mask(unit: &str) -> Result<(), Failure> {
    symlink("/dev/null", format!("{FOLDER}/{unit}")).doing(|| format!("mask {unit}"))
}

/// A login on the console.
fn getty(tty: &str) -> String {
    format!(
        "[Unit]\n\
         Description=Login on {tty}\n\
         After=systemd-user-sessions.service getty-pre.target\n\
         Before=getty.target\n\
         IgnoreOnIsolate=yes\n\
         \n\
         [Service]\n\
         ExecStart=-/sbin/agetty --noreset --noclear --keep-baud 115200 {tty} $TERM\n\
         Environment=TERM=linux\n\
         Type=idle\n\
         Restart=always\n\
         UtmpIdentifier={tty}\n\
         StandardInput=tty\n\
         StandardOutput=tty\n\
         TTYPath=/dev/{tty}\n\
         TTYReset=yes\n\
         TTYVHangup=yes\n\
         IgnoreSIGPIPE=no\n\
         SendSIGHUP=yes\n"
    )
}
