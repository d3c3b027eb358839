//! Credential helpers: programs named `docker-credential-NAME` that read a registry's name and
//! write JSON.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::{Access, access};
use serde::Deserialize;

/// What every helper's name begins with.
pub(super) const PREFIX: &str = "docker-credential-";
/// The most that a helper may write, in bytes.
const ANSWER_BYTES_MAX: u64 = 64 << 10;
/// How long it may take: a person may have to open a wallet.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often its end is looked for.
const INTERVAL: Duration = Duration::from_millis(10);
/// What helpers say when they have nothing; some have words behind it.
const NOT_FOUND: &str = "credentials not found";

/// What a helper knows.
pub(super) struct Answer {
    pub(super) user: String,
    pub(super) secret: String,
}

#[derive(Deserialize)]
struct Written {
    #[serde(rename = "Username")]
    user: String,
    #[serde(rename = "Secret")]
    secret: String,
}

/// Asks a helper for what somebody is known by; nothing where it has nothing.
///
/// # Errors
/// A sentence's end: it cannot be started, says something else, or takes too long.
pub(super) fn ask(
    name: &str,
    authority: &str,
    folders: &[PathBuf],
) -> Result<Option<Answer>, String> {
    let path = find(name, folders)?;
    let mut child = Command::new(&path)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("cannot be started: {error}"))?;
    let written = talk(&mut child, authority);
    let status = child
        .wait()
        .map_err(|error| format!("cannot be waited for: {error}"))?;
    let text = written?;
    if !status.success() {
        let first = text.lines().next().unwrap_or_default();
        if first.to_ascii_lowercase().contains(NOT_FOUND) {
            return Ok(None);
        }
        return Err(format!("failed ({status}): {}", first.escape_debug()));
    }
    let answer: Written = serde_json::from_str(&text)
        .map_err(|_| "wrote what is not the JSON of a credential helper".to_owned())?;
    Ok(Some(Answer {
        user: answer.user,
        secret: answer.secret,
    }))
}

/// A file in one of the folders: its name may not lead elsewhere.
fn find(name: &str, folders: &[PathBuf]) -> Result<PathBuf, String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if name.is_empty() || !name.bytes().all(plain) {
        return Err("has no name that coop runs".to_owned());
    }
    let file = format!("{PREFIX}{name}");
    let usable = |path: &Path| path.is_file() && access(path, Access::EXEC_OK).is_ok();
    folders
        .iter()
        .map(|folder| folder.join(&file))
        .find(|path| usable(path))
        .ok_or_else(|| "is not in a folder of PATH".to_owned())
}

/// Says the registry's name and hears the answer. Whatever goes wrong ends the program.
fn talk(child: &mut Child, authority: &str) -> Result<String, String> {
    let stdin = child.stdin.take();
    let stdout = child.stdout.take();
    let (Some(mut stdin), Some(stdout)) = (stdin, stdout) else {
        return Err("has no standard streams".to_owned());
    };
    // It may have ended without reading; its code then says why.
    let _ = writeln!(stdin, "{authority}");
    drop(stdin);
    let reader = std::thread::spawn(move || {
        let mut text = Vec::new();
        let mut limited = stdout.take(ANSWER_BYTES_MAX + 1);
        limited.read_to_end(&mut text).map(|_| text)
    });
    let begin = Instant::now();
    while !reader.is_finished() {
        if begin.elapsed() > PATIENCE {
            // What cannot be killed has ended.
            let _ = child.kill();
            return Err(format!("took more than {} s", PATIENCE.as_secs()));
        }
        std::thread::sleep(INTERVAL);
    }
    let text = match reader.join() {
        Ok(Ok(text)) => text,
        Ok(Err(error)) => return Err(format!("cannot be read: {error}")),
        Err(_) => return Err("cannot be read".to_owned()),
    };
    if u64::try_from(text.len()).is_ok_and(|length| length > ANSWER_BYTES_MAX) {
        let _ = child.kill();
        return Err(format!("wrote more than {ANSWER_BYTES_MAX} bytes"));
    }
    // A program that has closed its output is not waited for much longer.
    while child.try_wait().is_ok_and(|ended| ended.is_none()) {
        if begin.elapsed() > PATIENCE {
            let _ = child.kill();
        }
        std::thread::sleep(INTERVAL);
    }
    String::from_utf8(text).map_err(|_| "wrote what is not text".to_owned())
}
