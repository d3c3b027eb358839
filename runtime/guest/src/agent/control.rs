//! `poweroff` in a guest whose init is the agent: a socket in /run/coop.

use std::fs;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::symlink;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::Duration;

use rustix::fs::Mode;

use crate::failure::{Doing, Failure};

const SOCKET: &str = "/run/coop/control";
const PROGRAMS: &str = "/run/coop/bin";
/// Where the programs are shown: on every PATH, and empty in most roots.
const SHOWN: &str = "/usr/local/sbin";
/// How long `poweroff` waits for the end, so that no prompt comes back before it.
const STOP_TIMEOUT: Duration = Duration::from_secs(60);

/// The socket that `poweroff` talks to.
pub(crate) struct Control(UnixListener);

impl Control {
    /// Opens the socket and puts the programs on PATH, unless the root has its own.
    pub(crate) fn open() -> Result<Self, Failure> {
        let what = || format!("listen at {SOCKET}");
        let listener = UnixListener::bind(SOCKET).doing(what)?;
        rustix::fs::chmod(SOCKET, Mode::RWXU).doing(what)?;
        listener.set_nonblocking(true).doing(what)?;
        if !Path::new("/sbin/poweroff").exists() {
            show_programs()?;
        }
        Ok(Self(listener))
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Whether somebody has asked for the end.
    pub(crate) fn asked(&self) -> bool {
        self.0.accept().is_ok()
    }
}

fn show_programs() -> Result<(), Failure> {
    let what = || format!("put poweroff into {SHOWN}");
    fs::create_dir_all(PROGRAMS).doing(what)?;
    let agent = Path::new(PROGRAMS).join("poweroff");
    fs::copy("/proc/self/exe", &agent).doing(what)?;
    rustix::fs::chmod(&agent, Mode::from_raw_mode(0o755)).doing(what)?;
    for name in ["halt", "reboot"] {
        symlink("poweroff", Path::new(PROGRAMS).join(name)).doing(what)?;
    }
    let empty = fs::read_dir(SHOWN).is_ok_and(|mut entries| entries.next().is_none());
    if empty {
        return rustix::mount::mount_bind(PROGRAMS, SHOWN).doing(what);
    }
    Err(Failure::new(format!(
        "{SHOWN} is not empty: end the guest with 'exit' instead of 'poweroff'"
    )))
}

/// What `poweroff` does.
pub(crate) fn ask_to_stop() -> ExitCode {
    match UnixStream::connect(SOCKET) {
        Ok(_stream) => {
            sleep(STOP_TIMEOUT);
            ExitCode::FAILURE
        }
        Err(error) => {
            let _ = writeln!(
                std::io::stderr(),
                "poweroff: cannot reach the agent: {error}"
            );
            ExitCode::FAILURE
        }
    }
}
