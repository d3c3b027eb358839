//! Whether a process that left something behind still lives.
//!
//! A lock (flock) tells it at once and survives nothing, but some network file systems grant every
//! lock to everybody, or none to anybody. So the lock's file also says who holds it: which start of
//! which machine, which numbering of processes, which process, begun when. Where neither can tell, a
//! process counts as dead a day after it began.

use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use fs_err as fs;
use rustix::fs::{FlockOperation, flock};

/// The file with the lock and the sign of life.
pub(super) const LOCK_NAME: &str = "lock";
/// How long a process counts as living of which nothing else is known.
const LEASE: Duration = Duration::from_secs(24 * 60 * 60);
/// The longest sign that is read, in bytes.
const SIGN_BYTES_MAX: u64 = 4096;

/// Who holds a lock; each part empty where the host does not say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sign {
    /// The kernel's name for its present run.
    pub(super) boot: String,
    /// The process namespace: numbers mean the same only in one.
    pub(super) namespace: String,
    /// Number and time of start of the process.
    pub(super) process: String,
    /// The machine's name.
    pub(super) host: String,
}

impl Sign {
    /// This process's.
    pub(super) fn own() -> Self {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let namespace = fs::read_link("/proc/self/ns/pid").unwrap_or_default();
        let host = rustix::system::uname()
            .nodename()
            .to_string_lossy()
            .into_owned();
        let number = std::process::id();
        Self {
            boot: boot.trim().to_owned(),
            namespace: namespace.display().to_string(),
            process: format!("{number} {}", start_of(number).unwrap_or_default()),
            host,
        }
    }

    /// One line for each part.
    pub(super) fn text(&self) -> String {
        let Self {
            boot,
            namespace,
            process,
            host,
        } = self;
        format!("{boot}\n{namespace}\n{process}\n{host}\n")
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines().map(str::to_owned);
        let sign = Self {
            boot: lines.next()?,
            namespace: lines.next()?,
            process: lines.next()?,
            host: lines.next()?,
        };
        (!sign.boot.is_empty()).then_some(sign)
    }

    /// Whether the process is there, if it is one that this process would see.
    fn lives(&self, own: &Self) -> Option<bool> {
        if self.boot != own.boot || self.namespace != own.namespace || self.namespace.is_empty() {
            return None;
        }
        let (number, start) = self.process.split_once(' ')?;
        let there = start_of(number.parse().ok()?);
        Some(there.is_some_and(|there| there == start))
    }
}

/// When a process began, as the kernel counts it (proc_pid_stat(5), field 22).
fn start_of(number: u32) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{number}/stat")).ok()?;
    // The program's name may have spaces and brackets in it.
    let (_, fields) = text.rsplit_once(')')?;
    fields.split_ascii_whitespace().nth(19).map(str::to_owned)
}

/// Whether locks mean something where a file is, which is locked already.
fn holds_locks(locked: &Path) -> bool {
    let second = fs::File::open(locked);
    second.is_ok_and(|file| {
        flock(&file, FlockOperation::NonBlockingLockExclusive) == Err(rustix::io::Errno::WOULDBLOCK)
    })
}

/// Whether a program that has a file or folder beside `own`, and locks it while it lives, is dead.
/// `own` is locked.
pub(crate) fn is_abandoned(path: &Path, own: &Path) -> bool {
    let Ok(file) = fs::File::open(path) else {
        return false;
    };
    let locked = flock(&file, FlockOperation::NonBlockingLockExclusive);
    if locked.is_ok() && holds_locks(own) {
        return true;
    }
    // Without locks only time can tell.
    let modified = |path: &Path| fs::symlink_metadata(path).and_then(|found| found.modified());
    let is_old = |theirs: SystemTime, now: SystemTime| {
        now.duration_since(theirs).is_ok_and(|age| age > LEASE)
    };
    locked != Err(rustix::io::Errno::WOULDBLOCK)
        && matches!((modified(path), modified(own)), (Ok(theirs), Ok(now)) if is_old(theirs, now))
}

/// Looks at what other processes left.
pub(super) struct Observer {
    own: Sign,
    locks: bool,
    /// The present, by the clock of the file system that the others' times are from.
    now: SystemTime,
}

impl Observer {
    /// From the file that this process has just locked and written its sign into.
    pub(super) fn new(lock: &Path) -> io::Result<Self> {
        Ok(Self {
            own: Sign::own(),
            locks: holds_locks(lock),
            now: fs::metadata(lock)?.modified()?,
        })
    }

    /// Whether the process with this lock is dead.
    pub(super) fn is_dead(&self, lock: &Path) -> bool {
        let mut options = fs::OpenOptions::new();
        let file = match options.read(true).write(true).open(lock) {
            Ok(file) => file,
            // Nobody has a folder without a lock, but for one that is being removed.
            Err(error) => return error.kind() == io::ErrorKind::NotFound,
        };
        let locked = flock(&file, FlockOperation::NonBlockingLockExclusive);
        if locked == Err(rustix::io::Errno::WOULDBLOCK) {
            return false;
        }
        let mut text = String::new();
        let read = io::Read::read_to_string(&mut io::Read::take(&file, SIGN_BYTES_MAX), &mut text);
        let sign = read.ok().and_then(|_| Sign::parse(&text));
        match (sign, self.locks && locked.is_ok()) {
            // An earlier coop wrote no sign.
            (None, true) => true,
            (Some(sign), true) if sign.boot == self.own.boot || sign.host == self.own.host => true,
            (Some(sign), false) => match sign.lives(&self.own) {
                Some(lives) => !lives,
                None => self.is_forgotten(lock),
            },
            _ => self.is_forgotten(lock),
        }
    }

    /// Whether nobody has changed this for longer than a process takes.
    pub(super) fn is_forgotten(&self, path: &Path) -> bool {
        let modified = fs::symlink_metadata(path).and_then(|metadata| metadata.modified());
        modified.is_ok_and(|time| self.now.duration_since(time).is_ok_and(|age| age > LEASE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Without locks: only the sign and the time tell.
    fn observer(now: SystemTime) -> Observer {
        Observer {
            own: Sign::own(),
            locks: false,
            now,
        }
    }

    #[test]
    fn without_locks_the_sign_tells() {
        let folder = tempfile::tempdir().unwrap();
        let lock = folder.path().join(LOCK_NAME);
        let is_dead = |sign: &Sign, days: u64| {
            fs::write(&lock, sign.text()).unwrap();
            let now = fs::metadata(&lock).unwrap().modified().unwrap();
            observer(now + Duration::from_secs(days * 24 * 60 * 60)).is_dead(&lock)
        };
        let own = Sign::own();
        assert!(!is_dead(&own, 0) && !is_dead(&own, 9));
        let mut other = own.clone();
        other.process.push('0');
        assert!(is_dead(&other, 0), "another process with the same number");
        other.namespace.push('0');
        assert!(!is_dead(&other, 0) && is_dead(&other, 2));
        other.boot.push('0');
        assert!(!is_dead(&other, 0) && is_dead(&other, 2));
        assert!(!is_dead(&Sign::default(), 0) && is_dead(&Sign::default(), 2));
    }

    #[test]
    fn locks_tell_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let lock = folder.path().join(LOCK_NAME);
        fs::write(&lock, "").unwrap();
        let held = fs::File::open(&lock).unwrap();
        assert!(!holds_locks(&lock));
        flock(&held, FlockOperation::NonBlockingLockExclusive).unwrap();
        let observer = Observer::new(&lock).unwrap();
        assert!(observer.locks && !observer.is_dead(&lock));
        drop(held);
        assert!(observer.is_dead(&lock));
        assert!(observer.is_dead(&folder.path().join("nothing")));
    }
}
