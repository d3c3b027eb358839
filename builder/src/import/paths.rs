//! Names of files, most of which were written for Windows.

use super::Outcome;
use super::settings::shorten;

/// The longest path, in bytes.
const PATH_BYTES_MAX: usize = 1024;
/// How the NT kernel's own names of drives begin.
const DRIVE_PREFIXES: [&str; 3] = ["/dosdevices/", "/??/", "/?/"];
/// How the NT kernel's names of devices begin.
const DEVICE_PREFIX: &str = "/device/";

/// A path as a recipe can have it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Adapted {
    pub(super) path: String,
    /// Why it is another than what was written.
    pub(super) why: Option<String>,
    pub(super) outcome: Outcome,
}

/// Makes a path of Windows one that can be looked for beside the configuration, and leaves others
/// as they are.
pub(super) fn adapt(written: &str) -> Result<Adapted, String> {
    if written.is_empty() {
        return Err("names no file".to_owned());
    }
    if written.len() > PATH_BYTES_MAX || written.contains(char::is_control) {
        return Err(format!(
            "is no path of at most {PATH_BYTES_MAX} bytes without control characters"
        ));
    }
    let slashes = slashes(written);
    let lower = slashes.to_ascii_lowercase();
    let is_device = lower.starts_with(DEVICE_PREFIX);
    let is_windows = is_device
        || DRIVE_PREFIXES
            .iter()
            .any(|prefix| lower.starts_with(prefix))
        || is_drive(&lower)
        || (written.starts_with("\\\\") && slashes.len() > 1);
    if !is_windows {
        if !written.contains('\\') {
            return kept(written, None);
        }
        let why = format!(
            "is written with backslashes; the recipe has '{}'",
            shorten(&slashes)
        );
        return kept(&slashes, Some(why));
    }
    let name = slashes.rsplit('/').next().unwrap_or_default();
    let name = name.rsplit(':').next().unwrap_or_default();
    if name.is_empty() || name == "." || name == ".." {
        return Err("names no file".to_owned());
    }
    let why = match is_device {
        true => format!(
            "is a device of Windows; copy what is on it into a file '{name}' beside the configuration, or name another in the recipe"
        ),
        false => format!(
            "is a path of Windows; the recipe looks for '{name}' beside the configuration: put it there, or name another in the recipe"
        ),
    };
    Ok(Adapted {
        path: name.to_owned(),
        why: Some(why),
        outcome: Outcome::Adapt,
    })
}

fn kept(path: &str, why: Option<String>) -> Result<Adapted, String> {
    if path.ends_with('/') {
        return Err("names a folder, not a file".to_owned());
    }
    Ok(Adapted {
        path: path.to_owned(),
        why,
        outcome: Outcome::Changed,
    })
}

/// One slash for any number of backslashes: `\\DosDevices\\c:\\` is written as often as with one.
fn slashes(written: &str) -> String {
    let mut path = String::with_capacity(written.len());
    let mut after_backslash = false;
    for character in written.chars() {
        let is_backslash = character == '\\';
        if !is_backslash {
            path.push(character);
        } else if !after_backslash {
            path.push('/');
        }
        after_backslash = is_backslash;
    }
    path
}

fn is_drive(path: &str) -> bool {
    let mut characters = path.chars();
    characters
        .next()
        .is_some_and(|letter| letter.is_ascii_alphabetic())
        && characters.next() == Some(':')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_windows_are_told_from_others() {
        for (written, path, outcome) in [
            (
                r"\DosDevices\c:\coLinux\root_fs",
                "root_fs",
                Some(Outcome::Adapt),
            ),
            (
                r"\\DosDevices\\c:\\coLinux\\root fs",
                "root fs",
                Some(Outcome::Adapt),
            ),
            (r"C:\root_fs", "root_fs", Some(Outcome::Adapt)),
            ("c:/linux/swap", "swap", Some(Outcome::Adapt)),
            ("c:swap", "swap", Some(Outcome::Adapt)),
            (r"\\server\share\image", "image", Some(Outcome::Adapt)),
            (
                r"\Device\Harddisk0\Partition1",
                "Partition1",
                Some(Outcome::Adapt),
            ),
            (r"images\root_fs", "images/root_fs", Some(Outcome::Changed)),
            ("images/root_fs", "images/root_fs", None),
            ("/srv/root_fs", "/srv/root_fs", None),
        ] {
            let adapted = adapt(written).unwrap();
            assert_eq!(adapted.path, path, "{written}");
            assert_eq!(adapted.why.is_some(), outcome.is_some(), "{written}");
            if let Some(outcome) = outcome {
                assert_eq!(adapted.outcome, outcome, "{written}");
            }
        }
        for written in ["", "c:\\", "images/", "a\u{7}b", r"\DosDevices\c:\x\.."] {
            assert!(adapt(written).is_err(), "{written}");
        }
    }
}
