//! Which folders of the host a machine may use.

use std::path::{Path, PathBuf};

use coop_runtime::HostFolders;
use rustix::fs::{Access, access};

use crate::environment::Environment;

/// The longest path of a folder for sockets: an address has 108 bytes, and names follow.
const SOCKET_FOLDER_BYTES_MAX: usize = 60;
/// Memory that the host has already made a file system of.
const SHARED_MEMORY: &str = "/dev/shm";
/// Where temporary files lie that may be large.
const LARGE_TEMPORARY: &str = "/var/tmp";
/// Where temporary files lie if nobody says otherwise.
const TEMPORARY: &str = "/tmp";

/// Chooses the folders: TMPDIR wherever it is given and can be used, else the host's own.
pub(crate) fn folders(environment: &Environment) -> HostFolders {
    let given = environment
        .temporary
        .as_deref()
        .filter(|folder| usable(folder));
    let first = |candidates: &[&str]| {
        let found = candidates
            .iter()
            .map(Path::new)
            .find(|folder| usable(folder));
        given.or(found).unwrap_or(Path::new(TEMPORARY)).to_owned()
    };
    let memory = given
        .into_iter()
        .chain([SHARED_MEMORY, TEMPORARY, LARGE_TEMPORARY].map(Path::new))
        .map(Path::to_owned)
        .collect();
    HostFolders {
        memory,
        scratch: first(&[LARGE_TEMPORARY, TEMPORARY]),
        instances: instances(environment, given),
    }
}

/// The user's run-time folder is private and short; a folder of the user's own in TMPDIR or /tmp
/// takes its place.
fn instances(environment: &Environment, given: Option<&Path>) -> PathBuf {
    let own = format!("coop-{}", rustix::process::getuid().as_raw());
    let runtime = environment.runtime.as_deref();
    let runtime = runtime.filter(|folder| usable(folder) && short(folder));
    match (runtime, given.filter(|folder| short(folder))) {
        (Some(runtime), _) => runtime.join("coop"),
        (None, Some(given)) => given.join(own),
        (None, None) => Path::new(TEMPORARY).join(own),
    }
}

fn short(folder: &Path) -> bool {
    folder.as_os_str().len() <= SOCKET_FOLDER_BYTES_MAX
}

fn usable(folder: &Path) -> bool {
    folder.is_absolute() && access(folder, Access::WRITE_OK | Access::EXEC_OK).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_comes_first() {
        let folder = tempfile::tempdir().unwrap();
        let mut environment = Environment {
            temporary: Some(folder.path().to_owned()),
            ..Environment::default()
        };
        let chosen = folders(&environment);
        assert_eq!(chosen.memory[0], folder.path());
        assert_eq!(chosen.scratch, folder.path());
        assert!(chosen.instances.starts_with(folder.path()));
        environment.temporary = Some(folder.path().join("missing"));
        assert_eq!(folders(&environment).memory[0], Path::new(SHARED_MEMORY));
    }

    #[test]
    fn a_long_folder_takes_no_sockets() {
        let folder = tempfile::tempdir().unwrap();
        let long = folder.path().join("x".repeat(80));
        fs_err::create_dir(&long).unwrap();
        let environment = Environment {
            runtime: Some(long.clone()),
            temporary: Some(long),
            ..Environment::default()
        };
        assert!(folders(&environment).instances.starts_with(TEMPORARY));
    }
}
