//! Whether everything in the store is what it was when it came there.

use std::path::PathBuf;

use coop_appliance::Appliance;
use rayon::prelude::*;
use serde::Serialize;

use super::derived::{reference_of, remove_if_there};
use super::{Part, Store, StoreError};

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct VerifyReport {
    /// Files that were read.
    pub checked: usize,
    /// Their sizes, in bytes.
    pub checked_bytes: u64,
    /// What was not what it should be. It lies in the store's folder `bad` now.
    pub bad: Vec<Wrong>,
}

/// A file that is not what it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Wrong {
    /// Where it was, from the store's root.
    pub path: PathBuf,
    /// What is wrong.
    pub problem: String,
}

impl Store {
    /// Reads every download, object and appliance, and sets aside what does not have its digest: it
    /// is fetched or made again when somebody asks for it. `each` hears of the bytes that were read.
    ///
    /// # Errors
    /// The store's folders cannot be read, or nothing can be set aside.
    pub fn verify(&self, each: &(dyn Fn(u64) + Sync)) -> Result<VerifyReport, StoreError> {
        let entries = self.entries()?;
        let checked: Vec<Checked> = entries
            .par_iter()
            .filter_map(|entry| match entry.part {
                Part::Download | Part::Step | Part::Derived => Some(self.check_file(&entry.path)),
                Part::Appliance => Some(self.check_appliance(&entry.path)),
                Part::Note | Part::Log | Part::Temporary | Part::Bad => None,
            })
            .inspect(|checked| {
                if let Ok(checked) = checked {
                    each(checked.size_bytes);
                }
            })
            .collect::<Result<_, _>>()?;
        let mut report = VerifyReport::default();
        for one in checked {
            report.checked += one.files;
            report.checked_bytes = report.checked_bytes.saturating_add(one.size_bytes);
            report.bad.extend(one.wrong);
        }
        for path in self.references()?.dangling {
            remove_if_there(&path)?;
        }
        Ok(report)
    }

    /// A download or an object, which has its digest as its name.
    fn check_file(&self, path: &PathBuf) -> Result<Checked, StoreError> {
        let top = path.iter().next().and_then(std::ffi::OsStr::to_str);
        if matches!(top, Some("derived" | "partial")) {
            // An earlier coop did not say which digest it had; the other is not whole yet.
            return Ok(Checked::default());
        }
        let full = self.root.join(path);
        let problem = match reference_of(&full) {
            Ok(found) => {
                let name = path.file_name().and_then(std::ffi::OsStr::to_str);
                let digest = found.digest.to_string();
                if name == Some(&digest) {
                    return Ok(Checked::good(1, found.size_bytes));
                }
                format!("it has the digest {digest}")
            }
            // Somebody has removed it meanwhile.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Checked::default());
            }
            Err(error) => error.to_string(),
        };
        self.move_to_bad(&full, top.unwrap_or("file"))?;
        Ok(Checked::wrong(path, problem))
    }

    fn check_appliance(&self, path: &PathBuf) -> Result<Checked, StoreError> {
        let full = self.root.join(path);
        let problem = match Appliance::open(&full) {
            Ok(appliance) => match appliance.verify() {
                Ok(()) => {
                    let sizes: Vec<u64> = appliance
                        .manifest
                        .members()
                        .map(|member| member.size_bytes)
                        .collect();
                    return Ok(Checked::good(sizes.len(), sizes.iter().sum()));
                }
                Err(error) => error.to_string(),
            },
            Err(_) if !full.exists() => return Ok(Checked::default()),
            Err(error) => error.to_string(),
        };
        self.move_to_bad(&full, "appliance")?;
        Ok(Checked::wrong(path, problem))
    }
}

#[derive(Default)]
struct Checked {
    files: usize,
    size_bytes: u64,
    wrong: Option<Wrong>,
}

impl Checked {
    fn good(files: usize, size_bytes: u64) -> Self {
        Self {
            files,
            size_bytes,
            wrong: None,
        }
    }

    fn wrong(path: &std::path::Path, problem: String) -> Self {
        Self {
            files: 1,
            size_bytes: 0,
            wrong: Some(Wrong {
                path: path.to_owned(),
                problem,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::sync::atomic::{AtomicU64, Ordering};

    use fs_err as fs;

    use super::*;
    use crate::digest::Digest;
    use crate::store::DerivedKey;

    #[test]
    fn damage_is_found_and_set_aside() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let digest = store.put(b"download").unwrap();
        let key = DerivedKey {
            kind: "tree-1",
            input: Digest::of(b"i"),
        };
        let mut file = store.temp_file().unwrap();
        file.write_all(b"tree").unwrap();
        drop(store.publish_derived(file, key).unwrap());
        let read = AtomicU64::new(0);
        let verify = || {
            store.verify(&|bytes| {
                read.fetch_add(bytes, Ordering::Relaxed);
            })
        };
        let report = verify().unwrap();
        assert_eq!((report.checked, report.checked_bytes), (2, 12));
        assert_eq!((report.bad, read.into_inner()), (Vec::new(), 12));
        // Same sizes, other bytes.
        fs::write(store.blob_path(&digest), "DOWNLOAD").unwrap();
        fs::write(store.derived_path(key).unwrap(), "TREE").unwrap();
        let appliance = store.appliance_path(&Digest::of(b"a"));
        fs::create_dir_all(&appliance).unwrap();
        let bad = store.verify(&|_| {}).unwrap().bad;
        assert_eq!(bad.len(), 3);
        assert!(bad[0].problem.contains("it has the digest"), "{bad:?}");
        assert!(store.blob(&digest).unwrap().is_none());
        assert!(store.derived(key).unwrap().is_none());
        assert!(!appliance.exists());
        assert_eq!(fs::read_dir(store.root().join("bad")).unwrap().count(), 3);
        assert_eq!(store.verify(&|_| {}).unwrap(), VerifyReport::default());
    }
}
