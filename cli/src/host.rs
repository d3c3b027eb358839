//! What of the host a machine may use.

use std::path::{Path, PathBuf};

use coop_runtime::{Host, parse_resolv_conf};
use rustix::fs::{Access, access};
use rustix::process::{Resource, getrlimit, setrlimit};

use crate::environment::Environment;

/// The longest path of a folder for sockets: an address has 108 bytes, and names follow.
const SOCKET_FOLDER_BYTES_MAX: usize = 60;
/// Memory that the host has already made a file system of.
const SHARED_MEMORY: &str = "/dev/shm";
/// Where temporary files lie that may be large.
const LARGE_TEMPORARY: &str = "/var/tmp";
/// The host's name servers, resolv.conf(5).
const RESOLVERS: &str = "/etc/resolv.conf";
/// Where temporary files lie if nobody says otherwise.
const TEMPORARY: &str = "/tmp";

/// Takes as many descriptors as the host gives: a build has one open for each package, a network
/// one for each connection. Where it gives no more, what needs one says so later.
pub(crate) fn raise_descriptor_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    let _ = setrlimit(Resource::Nofile, limit);
}

/// Chooses folders and name servers: TMPDIR wherever it is given and can be used, else the host's own.
pub(crate) fn host(environment: &Environment) -> Host {
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
    // Without the file the guest's questions for names are answered with a failure.
    let resolvers = fs_err::read_to_string(RESOLVERS).unwrap_or_default();
    Host {
        memory,
        scratch: first(&[LARGE_TEMPORARY, TEMPORARY]),
        instances: instances(environment, given),
        resolvers: parse_resolv_conf(&resolvers),
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
        let chosen = host(&environment);
        assert_eq!(chosen.memory[0], folder.path());
        assert_eq!(chosen.scratch, folder.path());
        assert!(chosen.instances.starts_with(folder.path()));
        environment.temporary = Some(folder.path().join("missing"));
        assert_eq!(host(&environment).memory[0], Path::new(SHARED_MEMORY));
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
        assert!(host(&environment).instances.starts_with(TEMPORARY));
    }
}
