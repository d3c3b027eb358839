//! Machines that are left running: `coop run --detach`, and what reaches them afterwards.
//!
//! `--detach` starts coop again as the machine's supervisor, in a session of its own, and waits
//! until the machine is up. The supervisor serves a control socket in the machine's private folder;
//! folder, socket and what the machine said are gone when the machine ends.

mod client;
mod protocol;
mod supervisor;

use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use coop_runtime::living_machines;
use serde_json::{Value, json};

pub(crate) use client::{attach, copy, exec, kill, logs, stop};
pub(super) use supervisor::Ears;

use super::Ended;
use crate::arguments::PsOptions;
use crate::environment::Environment;
use crate::failure::{FAILED, Failure};
use crate::host;
use crate::render::{data, json as render_json, plain};

/// The file in a machine's folder that says what it is.
const DESCRIPTION: &str = "machine.json";
/// The largest of them, in bytes.
const DESCRIPTION_BYTES_MAX: u64 = 64 << 10;
/// What leaves the machine running, and what the supervisor is started with instead.
const DETACH: &str = "--detach";
const SUPERVISE: &str = "--supervise";

/// What is known of a machine that is left running.
pub(super) struct Described {
    name: String,
    target: PathBuf,
    /// Seconds since 1970.
    started: u64,
}

impl Described {
    /// A machine of this recipe, appliance or configuration, which starts now.
    pub(super) fn now(target: &Path) -> Self {
        let name = target.file_stem().unwrap_or_default().to_string_lossy();
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            name: name.trim_start_matches('@').to_owned(),
            target: target.to_owned(),
            started: since.map_or(0, |time| time.as_secs()),
        }
    }
}

/// Starts the supervisor, and prints the machine's name once it is up.
pub(super) fn leave() -> Ended {
    let host = |error: std::io::Error| Failure::work(&error);
    let mut is_command = false;
    let words = std::env::args_os().skip(1).map(|word| {
        is_command |= word == "--";
        match word == DETACH && !is_command {
            true => OsString::from(SUPERVISE),
            false => word,
        }
    });
    let program = std::env::current_exe().map_err(host)?;
    let mut supervisor = Command::new(program)
        .args(words)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(host)?;
    let mut name = String::new();
    if let Some(said) = supervisor.stdout.take() {
        BufReader::new(said).read_line(&mut name).map_err(host)?;
    }
    if name.is_empty() {
        // It has told why.
        let status = supervisor.wait().map_err(host)?;
        let code = status.code().and_then(|code| u8::try_from(code).ok());
        return Ok(code.unwrap_or(FAILED));
    }
    data(&name);
    Ok(0)
}

/// `coop ps`.
pub(crate) fn list(options: &PsOptions, environment: &Environment) -> Ended {
    let machines = machines(environment)?;
    if options.json {
        let each: Vec<Value> = machines.iter().map(|one| one.description.clone()).collect();
        render_json::value(&json!({ "machines": each }));
        return Ok(0);
    }
    for one in machines {
        let text = |key: &str| one.description[key].as_str().unwrap_or_default().to_owned();
        let pid = &one.description["pid"];
        let line = format!("{}\t{}\t{pid}\t{}", one.id, text("name"), text("target"));
        data(&format!("{}\n", plain(&line)));
    }
    Ok(0)
}

/// A machine that is left running.
struct Found {
    id: String,
    folder: PathBuf,
    /// What its supervisor says of it, and `id`.
    description: Value,
}

/// Those of this user's machines that serve a control socket.
fn machines(environment: &Environment) -> Result<Vec<Found>, Failure> {
    let folders = living_machines(&host::host(environment).instances);
    let folders = folders.map_err(|error| Failure::work(&error))?;
    let mut found = Vec::new();
    for folder in folders {
        let file = folder.join(DESCRIPTION);
        let is_small = file
            .metadata()
            .is_ok_and(|data| data.len() <= DESCRIPTION_BYTES_MAX);
        let Some(text) = is_small.then(|| fs_err::read(&file).ok()).flatten() else {
            continue;
        };
        let id = folder
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let mut description: Value = serde_json::from_slice(&text).unwrap_or_default();
        if let Some(map) = description.as_object_mut() {
            map.insert("id".to_owned(), id.clone().into());
            found.push(Found {
                id,
                folder,
                description,
            });
        }
    }
    Ok(found)
}

/// The machine that a person means: by its own word, or by its name where that is the only one.
fn machine(named: &str, environment: &Environment) -> Result<Found, Failure> {
    let mut machines = machines(environment)?;
    if let Some(place) = machines.iter().position(|one| one.id == named) {
        return Ok(machines.swap_remove(place));
    }
    machines.retain(|one| one.description["name"] == named);
    let count = machines.len();
    match machines.pop() {
        Some(one) if count == 1 => Ok(one),
        Some(_) => {
            let message = format!("{count} machines are called '{named}'");
            Err(Failure::usage(message).with_hint("coop ps shows how each is called alone"))
        }
        None => {
            let message = format!("no machine '{named}' is left running");
            Err(Failure::usage(message).with_hint("coop ps lists those that are"))
        }
    }
}
