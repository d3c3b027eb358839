//! From what was written to what it means: the checks that need more than one key or the file
//! system, and what the parts of a recipe have in common.

use std::collections::BTreeSet;
use std::path::Path;

use fs_err as fs;

use super::decode::{At, Decoder};
use super::defaults::Defaults;
use super::diagnostic::{Position, Problem, Warning};
use super::model::{Architecture, HostFile, Recipe, TestStep};
use super::names;
use super::units::shorten;
use super::written::{self, Written};

/// Turns what was written into its meaning. Errors are in the decoder afterwards; the value is
/// good only if there are none.
pub(super) fn resolve(
    d: &mut Decoder<'_>,
    written: Written,
    warnings: &mut Vec<Warning>,
) -> Option<Recipe> {
    let folder = d.source.file.parent().unwrap_or(Path::new("")).to_owned();
    let mut resolver = Resolver {
        d,
        folder: &folder,
        warnings,
    };
    resolver.recipe(written)
}

pub(super) struct Resolver<'r, 's> {
    pub(super) d: &'r mut Decoder<'s>,
    folder: &'r Path,
    pub(super) warnings: &'r mut Vec<Warning>,
}

impl Resolver<'_, '_> {
    fn recipe(&mut self, written: Written) -> Option<Recipe> {
        let architecture = self.architecture(written.architecture);
        let name = self.checked(written.name, "name", names::label);
        let rootfs = self.rootfs(written.rootfs, &name);
        let kernel = self.kernel(written.kernel);
        let is_readonly = rootfs.as_ref().is_some_and(|root| root.readonly.is_some());
        let devices = self.devices(written.devices, kernel.target(), is_readonly);
        let test = written.test.into_iter().map(test_step).collect();
        Some(Recipe {
            name,
            description: written.description.map(|at| at.value).unwrap_or_default(),
            architecture: architecture?,
            rootfs: rootfs?,
            kernel,
            devices,
            test,
        })
    }

    /// Reports the text if it does not follow the grammar, and gives it back.
    pub(super) fn checked(
        &mut self,
        text: At<String>,
        path: &str,
        grammar: fn(&str) -> Result<(), String>,
    ) -> String {
        if let Err(reason) = grammar(&text.value) {
            self.d.reject(text.at, path, reason);
        }
        text.value
    }

    pub(super) fn all_checked(
        &mut self,
        texts: Vec<At<String>>,
        path: &str,
        grammar: fn(&str) -> Result<(), String>,
    ) -> Vec<String> {
        let checked = texts.into_iter().enumerate();
        checked
            .map(|(index, text)| self.checked(text, &format!("{path}[{index}]"), grammar))
            .collect()
    }

    /// Reports a value that is there already.
    pub(super) fn once<T: Ord>(
        &mut self,
        seen: &mut BTreeSet<T>,
        value: T,
        at: Position,
        what: &str,
    ) {
        if !seen.insert(value) {
            self.d.reject(at, what, "the same one is there twice");
        }
    }

    pub(super) fn not_supported(&mut self, at: Position, what: impl Into<String>) {
        self.d.report(at, Problem::NotSupported(what.into()), None);
    }

    fn architecture(&mut self, written: Option<At<String>>) -> Option<Architecture> {
        let (text, at) = match &written {
            Some(text) => (text.value.as_str(), text.at),
            None => (host_architecture(), Position::default()),
        };
        match text {
            "amd64" => Some(Architecture::Amd64),
            other => {
                let other = shorten(other);
                self.not_supported(at, format!("architecture '{other}'"));
                None
            }
        }
    }

    /// A file that the recipe names: it must be a regular file.
    pub(super) fn host_file(&mut self, written: At<String>, path: &str) -> HostFile {
        self.host_path(written, path, false)
    }

    /// A file or, where those are welcome, a folder that the recipe names.
    pub(super) fn host_path(
        &mut self,
        written: At<String>,
        path: &str,
        folders_too: bool,
    ) -> HostFile {
        let full = self.folder.join(&written.value);
        let shown = shorten(&full.display().to_string());
        let names = self.d.source.names;
        let is_foreign = names.is_some_and(|names| !names.contains(&written.value));
        if is_foreign {
            let reason = format!("{shown} is none of the files that belong to the recipe");
            self.d.reject(written.at, path, reason);
            return HostFile {
                written: written.value,
                path: full,
            };
        }
        let reason = match fs::metadata(&full) {
            Ok(metadata) if metadata.is_file() => None,
            Ok(metadata) if metadata.is_dir() && folders_too => None,
            Ok(metadata) if metadata.is_dir() => {
                Some(format!("{shown} is a folder, but a file is needed"))
            }
            Ok(_) => Some(format!("{shown} is not a regular file")),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => match folders_too {
                true => Some(format!("there is no file or folder {shown}")),
                false => Some(format!("there is no file {shown}")),
            },
            Err(_) => Some(format!("cannot look at {shown}")),
        };
        if let Some(reason) = reason {
            let problem = Problem::File {
                path: path.to_owned(),
                reason,
            };
            let hint = Path::new(&written.value)
                .is_relative()
                .then(|| "names are relative to the recipe's folder".to_owned());
            self.d.report(written.at, problem, hint);
        }
        HostFile {
            written: written.value,
            path: full,
        }
    }
}

fn host_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn test_step(written: written::TestStep) -> TestStep {
    TestStep {
        run: written.run.value,
        expect: written.expect.map(|at| at.value),
        timeout: written
            .timeout
            .map_or(Defaults::TEST_TIMEOUT, |at| at.value),
    }
}
