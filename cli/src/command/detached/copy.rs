//! `coop cp`: single files into machines and out of them, by a shell in the guest.
//!
//! Both ways the file appears under its name whole or not at all, with its permission bits.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Write;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use coop_builder::staged_file::StagedFile;
use fs_err as fs;
use serde_json::{Value, json};

use super::super::subject;
use super::client::{ask, read_whole, say, work};
use super::protocol::Kind;
use super::{Ended, machine};
use crate::arguments::CpOptions;
use crate::environment::Environment;
use crate::failure::{FAILED, Failure};

/// Permission bits that are kept. Whoever owns the copy is another user, so the others would mean
/// something else.
const MODE_BITS: u32 = 0o777;
/// The most that may be said before a file's content.
const HEADER_BYTES_MAX: usize = 8;
/// What the script below ends with where a folder is to be copied.
const IS_FOLDER: u8 = 21;

/// `$1` is the path, `$2` the file's own name and `$3` its mode. The file is filled beside its place
/// and then takes the name; a signal, as after the client has gone, leaves nothing of it.
const INTO_GUEST: &str = r#"set -e
for program in cat chmod mv rm; do
    command -v $program > /dev/null || { echo "the guest has no $program" >&2; exit 1; }
done
if [ -L "$1" ] && [ ! -d "$1" ]; then
    to=$(readlink -f -- "$1" && echo .)
    to=${to%??}
elif [ -d "$1" ]; then
    to=${1%/}/$2
else
    to=$1
fi
case $to in */) echo "$to is no folder" >&2; exit 1;; esac
if [ -e "$to" ] && [ ! -f "$to" ]; then
    echo "$to is no regular file; it is not overwritten" >&2
    exit 1
fi
case $to in */*) folder=${to%/*}/;; *) folder=./;; esac
[ -d "$folder" ] || { echo "there is no folder $folder" >&2; exit 1; }
beside=$folder.coop-cp-$$
umask 077
set -C
: > "$beside"
trap 'rm -f -- "$beside"' EXIT
trap 'exit 1' HUP INT TERM
cat >> "$beside"
chmod -- "$3" "$beside"
mv -f -- "$beside" "$to"
"#;

/// Says the mode of `$1` in a line of its own, and then what the file holds.
const OUT_OF_GUEST: &str = r#"set -e
[ ! -d "$1" ] || exit 21
if [ -e "$1" ] && [ ! -f "$1" ]; then
    echo "$1 is no regular file" >&2
    exit 1
fi
mode=$(stat -L -c %a -- "$1")
echo "$mode"
cat < "$1"
"#;

/// One end of a copy.
enum Place {
    Host(PathBuf),
    Guest(String, Vec<u8>),
}

/// `MACHINE:PATH`; a path of the host with a colon begins with `/` or `./`.
fn place(text: &OsStr) -> Place {
    let bytes = text.as_bytes();
    let colon = bytes.iter().position(|byte| *byte == b':');
    let machine = colon.and_then(|colon| std::str::from_utf8(&bytes[..colon]).ok());
    match (machine, colon) {
        (Some(machine), Some(colon)) if !machine.is_empty() && !machine.contains('/') => {
            Place::Guest(machine.to_owned(), bytes[colon + 1..].to_vec())
        }
        _ => Place::Host(PathBuf::from(text)),
    }
}

/// Copies one file.
pub(crate) fn copy(options: &CpOptions, environment: &Environment) -> Ended {
    match (place(&options.source), place(&options.destination)) {
        (Place::Guest(named, path), _) | (_, Place::Guest(named, path)) if path.is_empty() => Err(
            Failure::usage(format!("there is no path behind '{named}:'")),
        ),
        (Place::Host(from), Place::Guest(named, to)) => copy_in(&from, &named, &to, environment),
        (Place::Guest(named, from), Place::Host(to)) => copy_out(&named, &from, &to, environment),
        _ => Err(
            Failure::usage("one of the two is MACHINE:PATH, and one is a path of the host")
                .with_hint("write a path of the host that has a colon as ./a:b"),
        ),
    }
}

/// No byte of these words means anything to the shell.
fn in_shell(script: &str, words: &[&[u8]]) -> Value {
    let mut argv = vec![b"/bin/sh".as_slice(), b"-c", script.as_bytes(), b"coop cp"];
    argv.extend(words);
    json!({ "verb": "exec", "argv": argv })
}

fn copy_in(from: &Path, named: &str, to: &[u8], environment: &Environment) -> Ended {
    subject::refuse_missing(from)?;
    let shown = from.display();
    let metadata = fs::metadata(from).map_err(|error| work(&error))?;
    if metadata.is_dir() {
        let hint = format!("tar -C {shown} -c . | coop exec {named} -- tar -C FOLDER -x");
        return Err(folder(&shown.to_string(), &hint));
    }
    if !metadata.is_file() {
        return Err(Failure::usage(format!("{shown} is no regular file")));
    }
    let file = fs::File::open(from).map_err(|error| work(&error))?;
    let mode = format!("{:o}", metadata.permissions().mode() & MODE_BITS);
    let name = from.file_name().unwrap_or_default().as_bytes();
    let asked = in_shell(INTO_GUEST, &[to, name, mode.as_bytes()]);
    let talk = ask(&machine(named, environment)?, &asked)?;
    let carried = talk.carry(file, None);
    let ended = talk.listen(&mut std::io::sink(), &mut std::io::stderr());
    read_whole(carried).map_err(|error| work(&error))?;
    match ended? {
        0 => Ok(0),
        _ => Err(not_copied(to)),
    }
}

fn copy_out(named: &str, from: &[u8], to: &Path, environment: &Environment) -> Ended {
    let to = match to.is_dir() {
        true => to.join(own_name(from)?),
        false => to.to_owned(),
    };
    let staged = StagedFile::new(&to).map_err(|error| work(&error))?;
    let asked = in_shell(OUT_OF_GUEST, &[from]);
    let talk = ask(&machine(named, environment)?, &asked)?;
    say(&talk.to, Kind::InputEnd, &[]);
    let mut received = Received {
        header: Vec::new(),
        mode: None,
        file: staged.file(),
    };
    let ended = talk.listen(&mut received, &mut std::io::stderr())?;
    match (ended, received.mode) {
        (0, Some(mode)) => {
            let published = staged.publish_with_mode(mode & MODE_BITS);
            published.map_err(|error| work(&error))?;
            Ok(0)
        }
        (IS_FOLDER, _) => {
            let shown = OsStr::from_bytes(from).display().to_string();
            let hint = format!("coop exec {named} -- tar -C {shown} -c . | tar -C FOLDER -x");
            Err(folder(&shown, &hint))
        }
        _ => Err(not_copied(from)),
    }
}

/// What a file of the guest is called in a folder of the host.
fn own_name(path: &[u8]) -> Result<&OsStr, Failure> {
    let path = Path::new(OsStr::from_bytes(path));
    path.file_name().ok_or_else(|| {
        let message = format!("{} does not end with a file's name", path.display());
        Failure::usage(message)
    })
}

fn folder(shown: &str, hint: &str) -> Failure {
    let message = format!("{shown} is a folder; coop cp copies single files");
    Failure::usage(message).with_hint(format!("{hint} copies all of it"))
}

fn not_copied(path: &[u8]) -> Failure {
    let path = OsString::from_vec(path.to_vec());
    let message = format!("{} in the guest was not copied", path.display());
    Failure::sentence(FAILED, message)
}

/// A file's mode, and then the file.
struct Received<'f> {
    header: Vec<u8>,
    mode: Option<u32>,
    file: &'f File,
}

impl Write for Received<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.mode.is_some() {
            return self.file.write(bytes);
        }
        let Some((byte, _)) = bytes.split_first() else {
            return Ok(0);
        };
        if *byte == b'\n' {
            let text = std::str::from_utf8(&self.header).ok();
            self.mode = text.and_then(|text| u32::from_str_radix(text, 8).ok());
        } else {
            self.header.push(*byte);
        }
        if self.header.len() > HEADER_BYTES_MAX || (*byte == b'\n' && self.mode.is_none()) {
            return Err(std::io::Error::other("the guest did not say a file's mode"));
        }
        Ok(1)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    fn shell(script: &str, words: &[&OsStr], input: &[u8]) -> std::process::Output {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script, "coop cp"]).args(words);
        let streams = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = streams.stderr(Stdio::piped()).spawn().unwrap();
        // A script that refuses does not read.
        let _ = child.stdin.take().unwrap().write_all(input);
        child.wait_with_output().unwrap()
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn a_file_goes_in_whole_and_with_its_mode() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::create_dir(path("d")).unwrap();
        fs::write(path("old"), "old").unwrap();
        std::os::unix::fs::symlink("old", path("link")).unwrap();
        let into = |name: &str, input: &[u8]| {
            let words = [path(name).into_os_string(), "own".into(), "751".into()];
            let words: Vec<&OsStr> = words.iter().map(OsString::as_os_str).collect();
            shell(INTO_GUEST, &words, input).status.code().unwrap()
        };
        for (name, place) in [
            ("a b\n", "a b\n"),
            ("-n", "-n"),
            ("d", "d/own"),
            ("d/", "d/own"),
            ("link", "old"),
        ] {
            assert_eq!(into(name, b"new"), 0, "{name}");
            assert_eq!(fs::read(path(place)).unwrap(), b"new", "{name}");
            assert_eq!(mode(&path(place)), 0o751, "{name}");
        }
        assert!(path("link").is_symlink());
        fs::create_dir(path("d/d2")).unwrap();
        fs::create_dir(path("d/d2/own")).unwrap();
        for name in ["none/x", "x/", "d/d2"] {
            assert_ne!(into(name, b"new"), 0, "{name}");
        }
        let left = fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(left, 5, "files beside");
        assert_eq!(fs::read_dir(path("d")).unwrap().count(), 2);
    }

    #[test]
    fn a_file_comes_out_with_its_mode() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        fs::write(&path, "content\n").unwrap();
        fs::set_permissions(&path, std::fs::Permissions::from_mode(0o4750)).unwrap();
        let said = shell(OUT_OF_GUEST, &[path.as_os_str()], b"");
        let file = tempfile::tempfile().unwrap();
        let mut received = Received {
            header: Vec::new(),
            mode: None,
            file: &file,
        };
        received.write_all(&said.stdout).unwrap();
        assert_eq!(received.mode, Some(0o4750));
        assert_eq!(file.metadata().unwrap().len(), 8);
        let said = shell(OUT_OF_GUEST, &[folder.path().as_os_str()], b"");
        assert_eq!(said.status.code(), Some(i32::from(IS_FOLDER)));
        for wrong in ["x\n", "7777777777", "\n"] {
            let mut received = Received {
                header: Vec::new(),
                mode: None,
                file: &file,
            };
            assert!(received.write_all(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }
}
