//! The lock's file: JSON beside the recipe, replaced as a whole.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use fs_err as fs;

use super::{FORMAT, Lock, LockedPackage};
use crate::debian::is_plain_path;
use crate::debian::relations::{is_package_name, is_version};
use crate::staged_file::StagedFile;

/// The largest lock, in bytes: some hundred thousand packages.
const BYTES_MAX: u64 = 64 << 20;
/// What is added to a recipe's name.
const SUFFIX: &str = ".lock";

/// Why a lock cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// The file cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The lock.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is no lock.
    #[error("{} is not a lock: {problem}", path.display())]
    Format {
        /// The lock.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// Another coop wrote it.
    #[error("{} has the form {found} of a lock, and this coop reads {FORMAT}", path.display())]
    Version {
        /// The lock.
        path: PathBuf,
        /// Its form.
        found: u64,
    },
}

/// The lock of a recipe: `web.yaml.lock` for `web.yaml`.
#[must_use]
pub fn path_of(recipe: &Path) -> PathBuf {
    let mut name = OsString::from(recipe);
    name.push(SUFFIX);
    name.into()
}

/// Reads a lock; nothing where there is none.
///
/// # Errors
/// See [`LockError`].
pub fn read(path: &Path) -> Result<Option<Lock>, LockError> {
    let failed = |source| LockError::File {
        path: path.to_owned(),
        source,
    };
    let file = match fs::File::open(path) {
        Ok(file) => file.into_parts().0,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mut bytes = Vec::new();
    file.take(BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > BYTES_MAX) {
        return Err(LockError::Format {
            path: path.to_owned(),
            problem: format!("it has more than {BYTES_MAX} bytes"),
        });
    }
    parse(path, &bytes).map(Some)
}

fn parse(path: &Path, bytes: &[u8]) -> Result<Lock, LockError> {
    let format = |problem: String| LockError::Format {
        path: path.to_owned(),
        problem,
    };
    let value: serde_json::Value =
        serde_json::from_slice(bytes).map_err(|error| format(error.to_string()))?;
    match value.get("format").and_then(serde_json::Value::as_u64) {
        Some(number) if number == u64::from(FORMAT) => {}
        Some(found) => {
            return Err(LockError::Version {
                path: path.to_owned(),
                found,
            });
        }
        None => return Err(format("it does not say which form it has".to_owned())),
    }
    let lock: Lock = serde_json::from_value(value).map_err(|error| format(error.to_string()))?;
    let packages = lock.answers.iter().flat_map(|answer| &answer.packages);
    for package in packages {
        if let Some(what) = what_is_wrong(package) {
            let name = package.name.escape_debug();
            return Err(format(format!("package '{name}' has {what}")));
        }
    }
    Ok(lock)
}

/// Fields become parts of addresses and paths.
fn what_is_wrong(package: &LockedPackage) -> Option<&'static str> {
    let checks = [
        (is_package_name(&package.name), "no package's name"),
        (is_version(&package.version), "no version"),
        (is_package_name(&package.architecture), "no architecture"),
        (is_plain_path(&package.path), "no path in an archive"),
        (package.size > 0, "no size"),
    ];
    let wrong = checks.into_iter().find(|(good, _)| !good);
    wrong.map(|(_, what)| what)
}

/// Writes a lock, whole or not at all.
///
/// # Errors
/// [`LockError::File`].
pub fn write(path: &Path, lock: &Lock) -> Result<(), LockError> {
    let written = || {
        let mut text = serde_json::to_vec_pretty(lock)?;
        text.push(b'\n');
        let staged = StagedFile::new(path)?;
        (&**staged.file()).write_all(&text)?;
        staged.publish(true)
    };
    written().map_err(|source: io::Error| LockError::File {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;
    use crate::lock::{Answer, LockedSuite};

    fn lock() -> Lock {
        Lock {
            suites: vec![LockedSuite {
                key: "trixie".to_owned(),
                codename: "trixie".to_owned(),
                date_seconds: 1,
                inrelease: Digest::of(b"i"),
                older: Vec::new(),
            }],
            answers: vec![Answer {
                question: "trixie: nothing but a".to_owned(),
                packages: vec![LockedPackage {
                    name: "aa".to_owned(),
                    version: "1".to_owned(),
                    architecture: "all".to_owned(),
                    suite: "trixie".to_owned(),
                    path: "pool/a.deb".to_owned(),
                    size: 1,
                    sha256: Digest::of(b"a"),
                }],
                names: Vec::new(),
            }],
            ..Lock::default()
        }
    }

    #[test]
    fn a_lock_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = path_of(&folder.path().join("r.yaml"));
        assert!(path.ends_with("r.yaml.lock"));
        assert_eq!(read(&path).unwrap(), None);
        write(&path, &lock()).unwrap();
        assert_eq!(read(&path).unwrap(), Some(lock()));
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.ends_with("}\n"), "{text}");
        write(&path, &Lock::default()).unwrap();
        assert_eq!(read(&path).unwrap(), Some(Lock::default()));
    }

    #[test]
    fn what_is_no_lock_is_refused() {
        let good = serde_json::to_string(&lock()).unwrap();
        for (from, to, part) in [
            ("{", "[", "is not a lock"),
            ("\"format\":1", "\"format\":2", "the form 2"),
            ("\"format\":1,", "", "which form"),
            ("\"coop\"", "\"cop\"", "cop"),
            ("pool/a.deb", "../a.deb", "no path"),
            ("pool/a.deb", "/a.deb", "no path"),
            ("\"name\":\"aa\"", "\"name\":\"../a\"", "no package's name"),
            ("\"version\":\"1\"", "\"version\":\"1 \"", "no version"),
            (
                "\"architecture\":\"all\"",
                "\"architecture\":\"\"",
                "no architecture",
            ),
            ("\"size\":1", "\"size\":0", "no size"),
            (&Digest::of(b"a").to_string(), "0", "digest"),
        ] {
            let bad = good.replacen(from, to, 1);
            assert_ne!(bad, good);
            let error = parse(Path::new("l"), bad.as_bytes()).unwrap_err();
            assert!(error.to_string().contains(part), "{error}");
        }
    }
}
