//! What goes wrong has a code and a sentence, and leaves nothing behind.

pub(crate) mod archive;
mod host;
mod machine;
mod mirror;
mod recipe;
mod stopped;
pub(crate) mod tiny;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use fs_err as fs;
use tempfile::TempDir;

use crate::support::{self, Done};

/// No single run takes so long, even on a busy machine.
const DEADLINE: Duration = Duration::from_secs(180);

/// A place for one test: recipe, output, cache and temporary files lie in it.
struct Place {
    folder: TempDir,
}

impl Place {
    fn new() -> Self {
        let folder = support::temp_folder();
        let place = Self { folder };
        place.make("tmp");
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Makes a folder that is the ordinary user's.
    fn make(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir(&path).unwrap();
        support::give(&path);
        path
    }

    fn recipe(&self, text: &str) -> PathBuf {
        let path = self.path("r.yaml");
        fs::write(&path, text).unwrap();
        path
    }

    /// The output folder that [`Place::build`] names. Its parent is not there before either.
    fn output(&self) -> PathBuf {
        self.path("out/app")
    }

    /// `coop` with this place's temporary files.
    fn coop(&self, words: &[&str]) -> Command {
        let mut command = support::coop();
        command.args(words).env("TMPDIR", self.path("tmp"));
        command
    }

    /// `coop build`, the recipe being this text.
    fn build(&self, recipe: &str, words: &[&str]) -> Command {
        let recipe = self.recipe(recipe);
        let mut command = self.coop(&["build"]);
        command.arg(recipe).arg("-o").arg(self.output()).args(words);
        command
    }

    /// Fails unless temporary files and output are gone.
    #[track_caller]
    fn expect_nothing_left(&self) {
        assert!(!self.path("out").exists(), "{:?}", names(&self.path("out")));
        self.expect_no_residue();
    }

    /// Fails unless temporary files are gone.
    #[track_caller]
    fn expect_no_residue(&self) {
        let own = self.path("tmp");
        for folder in names(&own) {
            assert_eq!(names(&own.join(&folder)), ["gate"], "{folder} in TMPDIR");
        }
        let temp = self.path("cache/v1/temp");
        if temp.exists() {
            assert_eq!(names(&temp), [""; 0]);
        }
        let text = self.folder.path().display().to_string();
        assert_eq!(support::processes_naming(&text), [""; 0]);
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// Runs, and checks the code and that every one of the words is on stderr.
#[track_caller]
fn refused(command: &mut Command, code: i32, words: &[&str]) -> Done {
    let done = support::run(command, DEADLINE).expect(code);
    for word in words {
        assert!(
            done.stderr.contains(word),
            "no '{word}' in: {}",
            done.stderr
        );
    }
    assert!(!done.stderr.contains("RUST_BACKTRACE"), "{}", done.stderr);
    done
}
