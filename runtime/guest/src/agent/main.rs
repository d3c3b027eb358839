//! `coop-agent`: the first process of every guest.
//!
//! One program, several parts to play, told apart by how it is started: as process 1 it boots the
//! guest and then serves the host (or makes way for the root's own init and leaves a server
//! beside it); with `--session` it is the last step before a command, where a session, a terminal
//! and a user are taken on; with `--console` it is the login loop's step; under the name
//! `poweroff` it asks process 1 to stop.

mod boot;
mod channel;
mod child;
mod control;
mod copy;
mod devices;
mod failure;
mod files;
mod identity;
mod log;
mod mounts;
mod network;
mod overlay;
mod reaper;
mod server;
mod session;
mod stop;
mod units;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let word = |at: usize| arguments.get(at).and_then(|word| word.to_str());
    let name = word(0)
        .and_then(|path| Path::new(path).file_name())
        .and_then(|name| name.to_str());
    let rest = arguments.get(2..).unwrap_or_default();
    match (name, word(1)) {
        (Some("poweroff" | "halt" | "reboot" | "shutdown"), _) => control::ask_to_stop(),
        (_, Some("--session")) => session::run(rest),
        (_, Some("--console")) => session::console(rest),
        (_, Some("--serve")) => server::beside_init(rest),
        _ if std::process::id() == 1 => boot::run(),
        _ => {
            log::line("this program is the first process of a coop guest, not a command");
            ExitCode::from(125)
        }
    }
}
