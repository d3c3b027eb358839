//! The kernel's log: the only place to write to before the host listens.

use std::fs::OpenOptions;
use std::io::Write;

/// Writes one line. There is nobody to tell if that fails.
pub(crate) fn line(text: &str) {
    let kmsg = OpenOptions::new().write(true).open("/dev/kmsg");
    let written =
        kmsg.and_then(|mut kmsg| kmsg.write_all(format!("coop-agent: {text}\n").as_bytes()));
    if written.is_err() {
        let _ = writeln!(std::io::stderr(), "coop-agent: {text}");
    }
}
