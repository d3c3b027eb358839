//! The last steps before a command: what must happen in the new process itself.
//!
//! The agent starts itself again for that, so that nothing has to run between fork and exec; a
//! plain command needs none of it and is started at once.

use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use coop_guest::message::{Exec, Input, User};
use rustix::process::{Gid, Uid};

use crate::failure::{Doing, Failure};

/// The code for a program that is not there.
const NOT_FOUND: u8 = 127;
/// The code for a program that cannot be executed.
const NOT_EXECUTABLE: u8 = 126;
/// The code for a session that cannot be made.
const NO_SESSION: u8 = 125;

/// The words that tell [`run`] what to do.
pub(crate) fn words(exec: &Exec) -> Vec<OsString> {
    let terminal = matches!(exec.input, Input::Terminal(_));
    let folder = exec.folder.clone().unwrap_or_else(|| b"/".to_vec());
    let mut words = vec![
        OsString::from("--session"),
        OsString::from(if terminal { "terminal" } else { "pipes" }),
        OsString::from_vec(folder),
        OsString::from(exec.user.as_ref().map(user_word).unwrap_or_default()),
    ];
    words.extend(exec.argv.iter().cloned().map(OsString::from_vec));
    words
}

fn user_word(user: &User) -> String {
    let numbers = [user.uid, user.gid].into_iter().chain(user.groups.clone());
    let texts: Vec<String> = numbers.map(|number| number.to_string()).collect();
    texts.join(":")
}

/// A plain command, for which nothing is to be taken on but a process group: it can be started
/// without a step between, which halves what the guest's start costs. Its session is process 1's,
/// which has no terminal, so that it cannot get one by accident either.
///
/// None where there is more to do, and where the program is not surely one: what [`run`] says
/// about it is said by [`run`].
pub(crate) fn direct(exec: &Exec, variables: &[(OsString, OsString)]) -> Option<Command> {
    let root = exec.folder.as_ref().is_none_or(|folder| folder == b"/");
    if matches!(exec.input, Input::Terminal(_)) || exec.user.is_some() || !root {
        return None;
    }
    let (name, arguments) = exec.argv.split_first()?;
    let name = OsStr::from_bytes(name);
    let mut command = Command::new(find(name, variables)?);
    command
        .arg0(name)
        .args(arguments.iter().map(|word| OsStr::from_bytes(word)))
        .process_group(0);
    Some(command)
}

/// The program's path, looked up as execvp(3) does.
fn find(name: &OsStr, variables: &[(OsString, OsString)]) -> Option<PathBuf> {
    if name.as_bytes().contains(&b'/') {
        return Some(PathBuf::from(name)).filter(|path| is_program(path));
    }
    // The last of two variables with one name holds.
    let (_, path) = variables.iter().rfind(|(name, _)| name == "PATH")?;
    std::env::split_paths(path)
        .filter(|folder| folder.is_absolute())
        .map(|folder| folder.join(name))
        .find(|path| path.exists())
        .filter(|path| is_program(path))
}

/// Whether a file can be executed and says itself how: execvp(3) gives others to the shell.
fn is_program(path: &Path) -> bool {
    let executable =
        path.is_file() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok();
    let mut start = [0; 4];
    executable
        && File::open(path)
            .and_then(|mut file| file.read(&mut start))
            .is_ok()
        && (start == *b"\x7fELF" || start.starts_with(b"#!"))
}

/// Becomes the command: `TERMINAL FOLDER USER PROGRAM ARGUMENT…`.
pub(crate) fn run(words: &[OsString]) -> ExitCode {
    let [terminal, folder, user, program, arguments @ ..] = words else {
        return complain(&Failure::new("a session without a program"), NO_SESSION);
    };
    if let Err(failure) = take_on(terminal == "terminal", folder.as_ref(), user) {
        return complain(&failure, NO_SESSION);
    }
    let error = Command::new(program).args(arguments).exec();
    let code = match error.kind() {
        ErrorKind::NotFound => NOT_FOUND,
        _ => NOT_EXECUTABLE,
    };
    let sentence = format!("cannot run {}: {error}", program.display());
    complain(&Failure::new(sentence), code)
}

fn take_on(terminal: bool, folder: &Path, user: &OsString) -> Result<(), Failure> {
    rustix::process::setsid().doing(|| "start a session".into())?;
    if terminal {
        rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())
            .doing(|| "take the terminal".into())?;
    }
    std::env::set_current_dir(folder).doing(|| format!("enter {}", folder.display()))?;
    let word = user.to_str().unwrap_or_default();
    if word.is_empty() {
        return Ok(());
    }
    let what = || format!("become user {word}");
    let numbers: Vec<u32> = word
        .split(':')
        .map(str::parse)
        .collect::<Result<_, _>>()
        .doing(what)?;
    let [uid, gid, groups @ ..] = numbers.as_slice() else {
        return Err(Failure::new(what()));
    };
    let groups: Vec<Gid> = groups.iter().map(|group| Gid::from_raw(*group)).collect();
    let (uid, gid) = (Uid::from_raw(*uid), Gid::from_raw(*gid));
    // This process has one thread, so what holds for the thread holds for the process.
    rustix::thread::set_thread_groups(&groups).doing(what)?;
    rustix::thread::set_thread_res_gid(gid, gid, gid).doing(what)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid).doing(what)
}

/// Becomes a root shell on a terminal device: `DEVICE`.
pub(crate) fn console(words: &[OsString]) -> ExitCode {
    let [device] = words else {
        return complain(&Failure::new("a console without a device"), NO_SESSION);
    };
    match shell_on(device.as_ref()) {
        Ok(never) => match never {},
        Err(failure) => {
            crate::log::line(&failure.to_string());
            ExitCode::from(NO_SESSION)
        }
    }
}

fn shell_on(device: &Path) -> Result<std::convert::Infallible, Failure> {
    rustix::process::setsid().doing(|| "start a session".into())?;
    let what = || format!("open {}", device.display());
    // The first terminal that a session's leader opens becomes its own.
    let terminal = OpenOptions::new()
        .read(true)
        .write(true)
        .open(device)
        .doing(what)?;
    // Unless it did not, as on a device that was opened before.
    let _ = rustix::process::ioctl_tiocsctty(&terminal);
    let home = Path::new("/root");
    let folder = if home.is_dir() { home } else { Path::new("/") };
    std::env::set_current_dir(folder).doing(|| "enter /".into())?;
    let mut failure = Failure::new("the root has neither init nor login nor shell");
    for (program, arguments) in [
        ("/bin/login", ["-f", "root"].as_slice()),
        ("/bin/bash", ["-l"].as_slice()),
        ("/bin/sh", ["-l"].as_slice()),
    ] {
        if !Path::new(program).exists() {
            continue;
        }
        let [input, output, error] = [
            terminal.try_clone(),
            terminal.try_clone(),
            terminal.try_clone(),
        ];
        let error = Command::new(program)
            .args(arguments)
            .stdin(Stdio::from(input.doing(what)?))
            .stdout(Stdio::from(output.doing(what)?))
            .stderr(Stdio::from(error.doing(what)?))
            .exec();
        failure = Failure::new(format!("cannot run {program}: {error}"));
    }
    Err(failure)
}

/// Says it where the command's errors go.
fn complain(failure: &Failure, code: u8) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "coop: {failure}");
    ExitCode::from(code)
}
