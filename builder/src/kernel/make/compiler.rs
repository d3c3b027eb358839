//! Which compiler it is: by the bytes of its programs, so that two hosts that have the same one
//! share kernels, and a new one makes new kernels.

use std::path::{Path, PathBuf};

use super::{MakeError, Programs};
use crate::digest::Digest;
use crate::kernel::Target;

/// The programs that make the kernel's bytes, each as the compiler itself finds it.
const PARTS: [&str; 4] = ["cc1", "as", "ld", "collect2"];

/// A compiler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Compiler {
    /// One line for each part, with its digest.
    pub(super) lines: Vec<String>,
}

impl Compiler {
    /// Looks at the host's compiler.
    pub(super) fn of_host(target: Target, programs: &Programs) -> Result<Self, MakeError> {
        let gcc = programs.find("gcc").ok_or(MakeError::Gone("gcc"))?;
        let version = programs.ask("gcc", &["--version"])?.unwrap_or_default();
        let version = version.lines().next().unwrap_or("gcc").trim().to_owned();
        let mut lines = vec![line(&version, &gcc)?];
        for part in PARTS {
            let answer = programs.ask("gcc", &[&format!("-print-prog-name={part}")])?;
            // A bare name stands for the first in PATH.
            let path = match answer.as_deref().map(str::trim_end) {
                Some(path) if path.starts_with('/') => PathBuf::from(path),
                _ => match programs.find(part) {
                    Some(path) => path,
                    None => continue,
                },
            };
            lines.push(line(part, &path)?);
        }
        if target == Target::Um {
            let answer = programs.ask("gcc", &["-print-file-name=libc.a"])?;
            if let Some(path) = answer.filter(|path| path.starts_with('/')) {
                lines.push(line("libc.a", Path::new(path.trim_end()))?);
            }
        }
        Ok(Self { lines })
    }

    /// What the compiler calls itself.
    pub(super) fn name(&self) -> String {
        let first = self.lines.first().map_or("", String::as_str);
        first
            .split(" sha256:")
            .next()
            .unwrap_or_default()
            .to_owned()
    }

    /// The parts that are not the other's.
    pub(super) fn differing(&self, other: &Self) -> String {
        let lines = self.lines.iter().filter(|line| !other.lines.contains(line));
        let names = lines.map(|line| line.split(" sha256:").next().unwrap_or_default());
        names.collect::<Vec<_>>().join(", ")
    }
}

/// What a lock calls the compiler of kernels for a target.
pub(super) fn question(target: Target) -> String {
    format!("the compiler of {target} kernels from source")
}

fn line(name: &str, path: &Path) -> Result<String, MakeError> {
    let digest = Digest::from(coop_appliance::sha256_of_file(path)?);
    Ok(format!("{name} sha256:{digest}"))
}
