//! The kernel's log and console: the only places to write to before the host listens.

use std::fs::OpenOptions;
use std::io::Write;

/// The level of an error in the kernel's log: one that `quiet` shows.
const ERROR: &str = "<3>";

/// The first line of all, on the console that the kernel gave us: it says that the agent runs.
pub(crate) fn hello() {
    let version = env!("CARGO_PKG_VERSION");
    let _ = writeln!(std::io::stdout(), "coop: agent {version}");
}

/// Writes one line. There is nobody to tell if that fails.
pub(crate) fn line(text: &str) {
    let kmsg = OpenOptions::new().write(true).open("/dev/kmsg");
    let written =
        kmsg.and_then(|mut kmsg| kmsg.write_all(format!("{ERROR}coop-agent: {text}\n").as_bytes()));
    if written.is_err() {
        let _ = writeln!(std::io::stderr(), "coop-agent: {text}");
    }
}
