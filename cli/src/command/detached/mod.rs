//! Machines that are left running: `coop run --detach`, and what reaches them afterwards.
//!
//! `--detach` starts coop again as the machine's supervisor, in a session of its own, and waits
//! until the machine is up. The supervisor serves a control socket in the machine's private folder;
//! folder and socket are gone when the machine ends. What it said and how it ended stay in a record
//! below the folder of states.

mod client;
mod copy;
mod list;
mod protocol;
mod supervisor;

use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use coop_builder::registry::Reference;
use coop_runtime::{Recorded, Records, living_machines};
use serde_json::{Value, json};

pub(crate) use client::{attach, exec, kill, logs, stop};
pub(crate) use copy::copy;
pub(crate) use list::list;
pub(super) use supervisor::Ears;

use super::Ended;
use crate::arguments::RunOptions;
use crate::environment::Environment;
use crate::failure::{FAILED, Failure};
use crate::host;
use crate::render::data;
use crate::render::json::path as json_path;

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
    /// The machine that these words start now.
    pub(super) fn now(options: &RunOptions) -> Result<Self, Failure> {
        let (name, target) = name_of(&options.target).map_err(|error| Failure::work(&error))?;
        Ok(Self {
            name: options.node.node.clone().unwrap_or(name),
            target,
            started: now(),
        })
    }

    fn to_json(&self) -> Value {
        json!({
            "name": self.name,
            "pid": std::process::id(),
            "target": json_path(&self.target),
            "started": self.started,
        })
    }
}

/// Seconds since 1970.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |time| time.as_secs())
}

/// What a recipe, an appliance's folder, a bundle, a reference or a configuration is called, and
/// where it is for whoever is elsewhere.
fn name_of(target: &Path) -> std::io::Result<(String, PathBuf)> {
    if let Some(text) = target.to_str().filter(|text| Reference::is_meant(text)) {
        let last = text.rsplit('/').next().unwrap_or(text);
        let name = last.split(['@', ':']).next().unwrap_or(last);
        return Ok((name.to_owned(), target.to_owned()));
    }
    let bytes = target.as_os_str().as_bytes();
    let (mark, path) = match bytes.strip_prefix(b"@") {
        Some(path) => ("@", Path::new(OsStr::from_bytes(path))),
        None => ("", target),
    };
    let path = std::path::absolute(path)?;
    let name = match path.is_dir() {
        true => path.file_name(),
        false => path.file_stem(),
    };
    let name = name.unwrap_or_default().to_string_lossy().into_owned();
    let mut whole = OsString::from(mark);
    whole.push(path);
    Ok((name, whole.into()))
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

/// The machine that a person means, if it is left running: by its own word, or by its name where
/// that is the only one.
fn find(named: &str, environment: &Environment) -> Result<Option<Found>, Failure> {
    let mut machines = machines(environment)?;
    if let Some(place) = machines.iter().position(|one| one.id == named) {
        return Ok(Some(machines.swap_remove(place)));
    }
    machines.retain(|one| one.description["name"] == named);
    match machines.len() {
        0 | 1 => Ok(machines.pop()),
        count => {
            let message = format!("{count} machines are called '{named}'");
            Err(Failure::usage(message).with_hint("coop ps shows how each is called alone"))
        }
    }
}

/// The machine that must be left running.
fn machine(named: &str, environment: &Environment) -> Result<Found, Failure> {
    if let Some(found) = find(named, environment)? {
        return Ok(found);
    }
    let failure = Failure::usage(format!("no machine '{named}' is left running"));
    Err(failure.with_hint(match record(named, environment)? {
        Some(_) => format!("it has ended; coop logs {named} shows what it said"),
        None => "coop ps lists those that are".to_owned(),
    }))
}

/// Where records are kept; nowhere where the environment names no folder.
fn records(environment: &Environment) -> Option<Records> {
    let folder = environment.state.as_ref()?;
    Some(Records::at(&folder.join("machines")))
}

/// All records with their descriptions, the newest last.
fn recorded(environment: &Environment) -> Result<Vec<(Recorded, Value)>, Failure> {
    let all = records(environment).map_or(Ok(Vec::new()), |records| records.list());
    let all = all.map_err(|error| Failure::work(&error))?;
    let described = all.into_iter().map(|one| {
        let description: Value = serde_json::from_slice(&one.description).unwrap_or_default();
        (one, description)
    });
    Ok(described
        .filter(|(_, description)| description.is_object())
        .collect())
}

/// The record that a person means: of all that were called alike, the newest.
fn record(named: &str, environment: &Environment) -> Result<Option<(Recorded, Value)>, Failure> {
    let mut all = recorded(environment)?;
    let place = all.iter().rposition(|(one, _)| one.machine == named);
    let place = place.or_else(|| all.iter().rposition(|(_, text)| text["name"] == named));
    Ok(place.map(|place| all.swap_remove(place)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines_are_called_as_what_they_are_made_of() {
        let folder = tempfile::tempdir().unwrap();
        fs_err::create_dir(folder.path().join("web.v2")).unwrap();
        let path = |name: &str| folder.path().join(name);
        let named = |target: &Path| name_of(target).unwrap();
        assert_eq!(named(&path("web.v2")), ("web.v2".into(), path("web.v2")));
        assert_eq!(named(&path("web.yaml")), ("web".into(), path("web.yaml")));
        let mut configuration = OsString::from("@");
        configuration.push(path("x.conf"));
        let configuration = PathBuf::from(configuration);
        assert_eq!(named(&configuration), ("x".into(), configuration.clone()));
        for reference in [
            "oci://h:5000/a/web",
            "oci://h/a/web:1.2",
            "oci://h/web@sha256:0",
        ] {
            let reference = Path::new(reference);
            assert_eq!(named(reference), ("web".into(), reference.to_owned()));
        }
        assert!(named(Path::new("x.yaml")).1.is_absolute());
    }
}
