//! What a word of the command line names, and what to do where a verb takes something else.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use coop_appliance::MANIFEST_NAME;
use coop_builder::registry::Reference;

use super::bundle;
use crate::failure::Failure;

/// What there is at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Named by `oci://…`.
    Registry,
    /// Of coLinux or coMosix, by its name or by `@FILE`.
    Configuration,
    /// A folder with a manifest.
    Appliance,
    /// Another folder.
    Folder,
    /// A tar archive with the layout of a bundle.
    Bundle,
    /// A cobd or a disk, by its name.
    Image,
    /// By its name.
    Recipe,
    /// A file that only its reader can tell, or a pipe or device.
    File,
    Missing,
}

impl Kind {
    /// Looks at the name, and at what is there.
    pub(super) fn of(path: &Path) -> Self {
        if path.to_str().is_some_and(Reference::is_meant) {
            return Self::Registry;
        }
        if path.is_dir() {
            return match path.join(MANIFEST_NAME).is_file() {
                true => Self::Appliance,
                false => Self::Folder,
            };
        }
        if is_missing(path) {
            return match configuration(path) {
                Some(_) => Self::Configuration,
                None => Self::Missing,
            };
        }
        if bundle::is_there(path) {
            return Self::Bundle;
        }
        match path.extension().and_then(OsStr::to_str) {
            Some("yaml" | "yml") => Self::Recipe,
            Some("conf" | "ini" | "xml") => Self::Configuration,
            Some("cobd" | "img" | "raw" | "qcow2" | "vmdk") => Self::Image,
            _ => Self::File,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Registry => "a reference to a registry",
            Self::Configuration => "a configuration of coLinux or coMosix",
            Self::Appliance => "an appliance's folder",
            Self::Folder => "a folder",
            Self::Bundle => "a bundle",
            Self::Image => "an image",
            Self::Recipe => "a recipe",
            Self::File => "an archive",
            Self::Missing => "nothing",
        }
    }
}

/// `@FILE` is a configuration of coLinux or coMosix.
pub(super) fn configuration(word: &Path) -> Option<PathBuf> {
    let name = word.as_os_str().as_bytes().strip_prefix(b"@")?;
    Some(PathBuf::from(OsStr::from_bytes(name)))
}

/// What may not be looked at is not missing: its reader says why.
fn is_missing(path: &Path) -> bool {
    matches!(path.try_exists(), Ok(false))
}

fn missing(word: &Path) -> Failure {
    Failure::usage(format!(
        "{}: there is no such file or folder",
        word.display()
    ))
}

/// Refuses the name of nothing.
pub(super) fn refuse_missing(word: &Path) -> Result<(), Failure> {
    match is_missing(word) {
        true => Err(missing(word)),
        false => Ok(()),
    }
}

/// What a word names, where a verb takes such a thing. A file that does not tell what it is passes
/// where any file does: its reader says what is wrong with it.
pub(super) fn expect(word: &Path, takes: &[Kind]) -> Result<Kind, Failure> {
    let kind = Kind::of(word);
    let takes_files = takes
        .iter()
        .any(|kind| !matches!(kind, Kind::Appliance | Kind::Folder));
    if takes.contains(&kind) || (kind == Kind::File && takes_files) {
        return Ok(kind);
    }
    let shown = word.display();
    if kind == Kind::Missing {
        return Err(missing(word));
    }
    let mut names: Vec<&str> = takes.iter().map(|kind| kind.name()).collect();
    let last = names.pop().unwrap_or_default();
    let names = match names.is_empty() {
        true => last.to_owned(),
        false => format!("{} or {last}", names.join(", ")),
    };
    let failure = Failure::usage(match kind {
        Kind::File => format!("{shown} is a file, not {names}"),
        Kind::Folder if takes.contains(&Kind::Appliance) => {
            format!("{shown} is no appliance: it has no {MANIFEST_NAME}")
        }
        _ => format!("{shown} is {}, not {names}", kind.name()),
    });
    Err(match hint(word, kind, takes) {
        Some(hint) => failure.with_hint(hint),
        None => failure,
    })
}

/// How to go on with one thing where others are taken.
fn hint(word: &Path, kind: Kind, takes: &[Kind]) -> Option<String> {
    let shown = word.display();
    let wants = |kind| takes.contains(&kind);
    Some(match kind {
        Kind::Registry => format!("coop pull {shown} gets the appliance"),
        Kind::Configuration => {
            let file = configuration(word);
            let file = file.as_deref().unwrap_or(word).display().to_string();
            format!("coop run @{file} boots it, coop import {file} makes a recipe of it")
        }
        Kind::Appliance if wants(Kind::Bundle) => {
            format!("coop pack {shown} makes a bundle of it")
        }
        Kind::Appliance if wants(Kind::Recipe) => {
            let recipe = word.join("evidence/recipe.json");
            if !recipe.is_file() {
                return None;
            }
            format!("{} is what it was built from", recipe.display())
        }
        Kind::Appliance if wants(Kind::Image) => {
            let shown = word.join("*.cobd");
            format!("its images are {}", shown.display())
        }
        Kind::Folder if wants(Kind::Image) => {
            format!("coop image build {shown} -o X.cobd makes an image of it")
        }
        Kind::Bundle => format!("coop unpack {shown} makes an appliance's folder of it"),
        Kind::Image if wants(Kind::Appliance) || wants(Kind::Recipe) => {
            format!("coop convert {shown} --appliance DIR makes an appliance of it")
        }
        Kind::Recipe if wants(Kind::Appliance) || wants(Kind::Bundle) => {
            format!("coop build {shown} makes an appliance of it")
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::{Reason, USAGE};
    use fs_err as fs;

    /// What is said where this is taken.
    fn refused(word: &Path, takes: &[Kind]) -> String {
        let failure = expect(word, takes).unwrap_err();
        assert_eq!(failure.code, USAGE);
        let Reason::Sentence { message, hint, .. } = failure.reason else {
            panic!("not a sentence")
        };
        format!("{message}; {}", hint.unwrap_or_default())
    }

    #[test]
    fn what_is_taken_passes_and_the_rest_says_how_to_go_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::create_dir(path("app")).unwrap();
        fs::write(path("app/appliance.json"), "{}").unwrap();
        for name in ["x.yaml", "x.conf", "x.cobd", "x", "@x"] {
            fs::write(path(name), "").unwrap();
        }
        for (name, kind) in [
            ("app", Kind::Appliance),
            (".", Kind::Folder),
            ("x.yaml", Kind::Recipe),
            ("x.conf", Kind::Configuration),
            ("x.cobd", Kind::Image),
            ("x", Kind::File),
            ("@x", Kind::File),
        ] {
            assert_eq!(expect(&path(name), &[kind]).ok(), Some(kind), "{name}");
        }
        assert!(expect(&path("x"), &[Kind::Recipe]).is_ok());
        for (word, takes, said) in [
            (Path::new("oci://h/a"), Kind::Image, "coop pull oci://h/a"),
            (Path::new("@x.conf"), Kind::Image, "coop run @x.conf boots"),
            (Path::new("@x.conf"), Kind::Recipe, "coop import x.conf"),
            (&path("x.conf"), Kind::Recipe, "coop run @"),
            (&path("app"), Kind::Recipe, "an appliance's folder, not a"),
            (&path("app"), Kind::Bundle, "coop pack"),
            (&path("app"), Kind::Image, "app/*.cobd"),
            (&path("."), Kind::Image, "coop image build"),
            (&path("x.yaml"), Kind::Appliance, "coop build"),
            (&path("x.cobd"), Kind::Recipe, "coop convert"),
            (&path("x"), Kind::Appliance, "is a file, not"),
            (&path("."), Kind::Appliance, "it has no appliance.json"),
            (&path("none"), Kind::Recipe, "there is no such file"),
        ] {
            let text = refused(word, &[takes]);
            assert!(text.contains(said), "{text}");
        }
    }
}
