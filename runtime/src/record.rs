//! What is kept of machines beyond their end: what they are, how they ended, and the last of what they
//! said.
//!
//! A record is a private folder. Its machine holds the lock in it, as in an instance's folder, so that
//! one whose process was killed shows: nobody holds the lock, and the description has no end.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use fs_err as fs;

use crate::instance::{check_private, create_held, enter_private, is_held, machines_in};

/// How much is kept of what a machine says, in bytes: the last of it.
pub const LOG_BYTES_MAX: usize = 1 << 20;
/// Records of machines that have ended; the oldest beyond that go.
const ENDED_MAX: usize = 32;
/// The largest description, in bytes.
const DESCRIPTION_BYTES_MAX: u64 = 64 << 10;
const DESCRIPTION: &str = "machine.json";
const DESCRIPTION_NEW: &str = "machine.json.new";
/// What was said last, and before that; each holds as much as is kept.
const LOG: &str = "log";
const LOG_BEFORE: &str = "log.before";

/// The folder of records.
#[derive(Clone, Debug)]
pub struct Records {
    folder: PathBuf,
}

impl Records {
    /// Those in this folder, which need not be there yet.
    #[must_use]
    pub fn at(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
        }
    }

    /// Begins the record of a machine, in the place of an ended one that was called alike.
    ///
    /// # Errors
    /// The folder is not this user's alone, a machine that lives has the name, or the host's file
    /// system says no.
    pub fn begin(&self, machine: &str, description: &[u8]) -> std::io::Result<Record> {
        let _gate = enter_private(&self.folder)?;
        let folder = self.folder.join(machine);
        if folder.exists() && !is_held(&folder) {
            fs::remove_dir_all(&folder)?;
        }
        let lock = create_held(&folder)?;
        let record = Record {
            records: self.clone(),
            log: Some(private_file(&folder.join(LOG))?),
            folder,
            logged: 0,
            _lock: lock,
        };
        record.describe(description)?;
        self.remove_surplus()?;
        Ok(record)
    }

    /// All that there are; who ended or was described last comes last.
    ///
    /// # Errors
    /// The folder is not this user's alone, or cannot be read.
    pub fn list(&self) -> std::io::Result<Vec<Recorded>> {
        if !self.folder.exists() {
            return Ok(Vec::new());
        }
        check_private(&self.folder)?;
        let mut found: Vec<(SystemTime, Recorded)> = Vec::new();
        for folder in machines_in(&self.folder)? {
            // Before the description is read: it gets its end before the lock is let go.
            let lives = is_held(&folder);
            // One that just goes, or was never whole.
            let Ok((changed, description)) = describe(&folder) else {
                continue;
            };
            let name = folder.file_name().unwrap_or_default();
            let recorded = Recorded {
                machine: name.to_string_lossy().into_owned(),
                description,
                lives,
                folder,
            };
            found.push((changed, recorded));
        }
        found.sort_by(|(a, one), (b, other)| (a, &one.machine).cmp(&(b, &other.machine)));
        Ok(found.into_iter().map(|(_, recorded)| recorded).collect())
    }

    /// Removes the oldest ones of machines that have ended, and what a crash left half made. Only
    /// for whoever has the turn.
    fn remove_surplus(&self) -> std::io::Result<()> {
        for folder in machines_in(&self.folder)? {
            if !is_held(&folder) && !folder.join(DESCRIPTION).exists() {
                fs::remove_dir_all(folder)?;
            }
        }
        let mut ended = self.list()?;
        ended.retain(|recorded| !recorded.lives);
        let surplus = ended.len().saturating_sub(ENDED_MAX);
        for recorded in ended.iter().take(surplus) {
            fs::remove_dir_all(&recorded.folder)?;
        }
        Ok(())
    }
}

fn describe(folder: &Path) -> std::io::Result<(SystemTime, Vec<u8>)> {
    let file = fs::File::open(folder.join(DESCRIPTION))?;
    let changed = file.metadata()?.modified()?;
    let mut description = Vec::new();
    file.take(DESCRIPTION_BYTES_MAX)
        .read_to_end(&mut description)?;
    Ok((changed, description))
}

fn private_file(path: &Path) -> std::io::Result<File> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options.open(path).map_err(|error| {
        std::io::Error::new(
            error.kind(),
            format!("cannot write {}: {error}", path.display()),
        )
    })
}

/// The record of a machine that lives: as long as this does.
#[derive(Debug)]
pub struct Record {
    records: Records,
    folder: PathBuf,
    /// Nothing once it could not be written.
    log: Option<File>,
    /// How much of it there is, in bytes.
    logged: usize,
    _lock: File,
}

impl Record {
    /// Keeps what the machine says. A log that cannot be written is given up.
    pub fn say(&mut self, bytes: &[u8]) {
        if self.log.is_none() {
            return;
        }
        let bytes = &bytes[bytes.len().saturating_sub(LOG_BYTES_MAX)..];
        if self.logged + bytes.len() > LOG_BYTES_MAX {
            let log = self.folder.join(LOG);
            let begun = fs::rename(&log, self.folder.join(LOG_BEFORE));
            self.log = begun.and_then(|()| private_file(&log)).ok();
            self.logged = 0;
        }
        self.logged += bytes.len();
        if let Some(log) = &mut self.log
            && log.write_all(bytes).is_err()
        {
            self.log = None;
        }
    }

    /// Describes the machine as it ended.
    ///
    /// # Errors
    /// The host's file system says no; then the machine shows as one that was killed.
    pub fn end(self, description: &[u8]) -> std::io::Result<()> {
        self.describe(description)?;
        let records = self.records.clone();
        drop(self);
        let _gate = enter_private(&records.folder)?;
        records.remove_surplus()
    }

    /// The description that was, or this one, whole.
    fn describe(&self, description: &[u8]) -> std::io::Result<()> {
        let new = self.folder.join(DESCRIPTION_NEW);
        private_file(&new)?.write_all(description)?;
        fs::rename(new, self.folder.join(DESCRIPTION))
    }
}

/// What is kept of a machine.
#[derive(Debug)]
pub struct Recorded {
    /// The machine, as its instance's folder is called.
    pub machine: String,
    /// How it was described last.
    pub description: Vec<u8>,
    /// Whether it lives.
    pub lives: bool,
    folder: PathBuf,
}

impl Recorded {
    /// The last of what it said, [`LOG_BYTES_MAX`] at most.
    ///
    /// # Errors
    /// The host's file system says no.
    pub fn log(&self) -> std::io::Result<Vec<u8>> {
        let limit = u64::try_from(LOG_BYTES_MAX).unwrap_or(u64::MAX);
        let mut said = Vec::new();
        for name in [LOG_BEFORE, LOG] {
            match fs::File::open(self.folder.join(name)) {
                Ok(file) => drop(file.take(limit).read_to_end(&mut said)?),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        let surplus = said.len().saturating_sub(LOG_BYTES_MAX);
        said.drain(..surplus);
        Ok(said)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    fn place() -> (tempfile::TempDir, Records) {
        let folder = tempfile::tempdir().unwrap();
        let records = Records::at(&folder.path().join("deep/er"));
        (folder, records)
    }

    fn all(records: &Records) -> Vec<(String, bool, String)> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let each = records.list().unwrap();
        each.iter()
            .map(|one| (one.machine.clone(), one.lives, text(&one.description)))
            .collect()
    }

    fn row(machine: &str, lives: bool, text: &str) -> (String, bool, String) {
        (machine.to_owned(), lives, text.to_owned())
    }

    #[test]
    fn a_record_outlives_its_machine() {
        let (_folder, records) = place();
        assert!(records.list().unwrap().is_empty());
        let mut record = records.begin("m1", b"begun").unwrap();
        record.say(b"one ");
        record.say(b"two");
        assert_eq!(all(&records), [row("m1", true, "begun")]);
        assert!(records.begin("m1", b"twin").is_err());
        record.end(b"over").unwrap();
        assert_eq!(all(&records), [row("m1", false, "over")]);
        let kept = &records.list().unwrap()[0];
        assert_eq!(kept.log().unwrap(), b"one two");
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!(mode(&kept.folder), 0o700);
        assert_eq!(mode(&kept.folder.join(LOG)), 0o600);
        // A machine that was killed, and one that is called alike later.
        drop(records.begin("m1", b"next").unwrap());
        assert_eq!(all(&records), [row("m1", false, "next")]);
        assert!(records.list().unwrap()[0].log().unwrap().is_empty());
    }

    #[test]
    fn the_last_of_a_long_log_is_kept() {
        let (_folder, records) = place();
        let mut record = records.begin("m1", b"").unwrap();
        let mut said = Vec::new();
        for number in 0..400_000_u32 {
            let line = format!("{number}\n");
            record.say(line.as_bytes());
            said.extend_from_slice(line.as_bytes());
        }
        record.end(b"").unwrap();
        let kept = &records.list().unwrap()[0];
        assert!(kept.log().unwrap() == said[said.len() - LOG_BYTES_MAX..]);
        let bytes = fs::read_dir(&kept.folder).unwrap().flatten();
        let bytes: u64 = bytes.map(|entry| entry.metadata().unwrap().len()).sum();
        assert!(bytes <= 2 << 20, "{bytes}");
        let mut record = records.begin("m1", b"").unwrap();
        record.say(&said);
        assert_eq!(
            records.list().unwrap()[0].log().unwrap().len(),
            LOG_BYTES_MAX
        );
    }

    #[test]
    fn only_so_many_are_kept_and_nothing_half_made() {
        let (_folder, records) = place();
        let living = records.begin("m0", b"living").unwrap();
        for number in 0..ENDED_MAX + 3 {
            let record = records.begin(&format!("m1.{number}"), b"").unwrap();
            record.end(b"over").unwrap();
        }
        let half = living.records.folder.join("m2");
        fs::create_dir(&half).unwrap();
        drop(records.begin("m3", b"killed").unwrap());
        records.begin("m4", b"").unwrap().end(b"over").unwrap();
        let all = all(&records);
        assert!(all.contains(&row("m0", true, "living")) && !half.exists());
        assert_eq!(all.len(), ENDED_MAX + 1);
        assert!(!all.contains(&row("m1.4", false, "over")));
        assert_eq!(all.last().unwrap(), &row("m4", false, "over"));
    }
}
