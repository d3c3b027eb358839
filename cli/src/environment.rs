//! Everything that coop takes from its environment, read once and here only.

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;

/// The environment's part in the work.
#[derive(Clone, Debug, Default)]
pub(crate) struct Environment {
    /// The store's folder: COOP_CACHE, else `coop` in XDG_CACHE_HOME, else `.cache/coop` in HOME.
    pub(crate) cache: Option<PathBuf>,
    /// The folder of configurations: XDG_CONFIG_HOME, else `.config` in HOME.
    pub(crate) configuration: Option<PathBuf>,
    /// Where state is kept that lasts: `coop` in XDG_STATE_HOME, else in `.local/state` in HOME.
    pub(crate) state: Option<PathBuf>,
    /// COOP_DEBIAN_MIRROR.
    pub(crate) debian_mirror: Option<String>,
    /// COOP_DEBIAN_SNAPSHOT.
    pub(crate) debian_snapshots: Option<String>,
    /// COOP_KERNEL: the kernel of recipes that name none.
    pub(crate) kernel: Option<OsString>,
    /// SOURCE_DATE_EPOCH: the latest time that an output may have, in seconds.
    pub(crate) source_date: Option<OsString>,
    /// NO_COLOR is set and not empty (no-color.org).
    pub(crate) no_color: bool,
    /// TERM says that the terminal knows no control sequences.
    pub(crate) dumb_terminal: bool,
    /// TERM.
    pub(crate) terminal: Option<OsString>,
    /// The absolute folders of PATH, in order.
    pub(crate) programs: Vec<PathBuf>,
    /// TMPDIR.
    pub(crate) temporary: Option<PathBuf>,
    /// XDG_RUNTIME_DIR.
    pub(crate) runtime: Option<PathBuf>,
    /// Files in which docker and podman keep who somebody is to registries; the first with an entry
    /// counts. A folder that DOCKER_CONFIG names takes the place of `.docker` in HOME.
    pub(crate) credentials: Vec<PathBuf>,
}

impl Environment {
    /// Reads the process's environment.
    pub(crate) fn read() -> Self {
        Self::from(|name| env::var_os(name))
    }

    /// A variable that the command line names as a secret: read when it is asked for, so that it is
    /// kept nowhere else.
    #[expect(
        clippy::unused_self,
        reason = "whoever has no environment has no secrets"
    )]
    pub(crate) fn secret(&self, name: &str) -> Option<Vec<u8>> {
        env::var_os(name).map(std::os::unix::ffi::OsStringExt::into_vec)
    }

    fn from(get: impl Fn(&str) -> Option<OsString>) -> Self {
        let get = |name| get(name).filter(|value| !value.is_empty());
        // The XDG specification has relative paths ignored.
        let absolute = |name| {
            get(name)
                .map(PathBuf::from)
                .filter(|path| path.is_absolute())
        };
        let cache = get("COOP_CACHE")
            .map(PathBuf::from)
            .or_else(|| Some(absolute("XDG_CACHE_HOME")?.join("coop")))
            .or_else(|| Some(absolute("HOME")?.join(".cache/coop")));
        let state = absolute("XDG_STATE_HOME")
            .or_else(|| Some(absolute("HOME")?.join(".local/state")))
            .map(|folder| folder.join("coop"));
        Self {
            cache,
            configuration: absolute("XDG_CONFIG_HOME")
                .or_else(|| Some(absolute("HOME")?.join(".config"))),
            state,
            debian_mirror: get("COOP_DEBIAN_MIRROR").and_then(|text| text.into_string().ok()),
            debian_snapshots: get("COOP_DEBIAN_SNAPSHOT").and_then(|text| text.into_string().ok()),
            kernel: get("COOP_KERNEL"),
            source_date: get("SOURCE_DATE_EPOCH"),
            no_color: get("NO_COLOR").is_some(),
            terminal: get("TERM"),
            dumb_terminal: get("TERM").is_none_or(|term| term == "dumb"),
            programs: get("PATH").map_or_else(Vec::new, |path| {
                let folders = env::split_paths(&path);
                folders.filter(|folder| folder.is_absolute()).collect()
            }),
            temporary: get("TMPDIR").map(PathBuf::from),
            runtime: absolute("XDG_RUNTIME_DIR"),
            credentials: credentials(
                get("DOCKER_CONFIG").map(PathBuf::from),
                absolute("XDG_RUNTIME_DIR"),
                absolute("HOME"),
            ),
        }
    }
}

fn credentials(
    docker: Option<PathBuf>,
    runtime: Option<PathBuf>,
    home: Option<PathBuf>,
) -> Vec<PathBuf> {
    let own = docker
        .is_none()
        .then(|| home.map(|home| home.join(".docker")));
    let files = [
        docker.map(|folder| folder.join("config.json")),
        runtime.map(|folder| folder.join("containers/auth.json")),
        own.flatten().map(|folder| folder.join("config.json")),
    ];
    files.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(values: &[(&str, &str)]) -> Environment {
        Environment::from(|name| {
            let value = values.iter().find(|(key, _)| *key == name);
            value.map(|(_, value)| OsString::from(value))
        })
    }

    #[test]
    fn the_cache_is_found() {
        let all = [
            ("COOP_CACHE", "c"),
            ("XDG_CACHE_HOME", "/x"),
            ("HOME", "/h"),
        ];
        assert_eq!(with(&all).cache, Some(PathBuf::from("c")));
        assert_eq!(with(&all[1..]).cache, Some(PathBuf::from("/x/coop")));
        assert_eq!(with(&all[2..]).cache, Some(PathBuf::from("/h/.cache/coop")));
        assert_eq!(with(&[("HOME", "")]).cache, None);
        assert_eq!(with(&[("XDG_CACHE_HOME", "x")]).cache, None);
    }

    #[test]
    fn credentials_are_where_docker_and_podman_keep_them() {
        let all = [
            ("DOCKER_CONFIG", "d"),
            ("XDG_RUNTIME_DIR", "/r"),
            ("HOME", "/h"),
        ];
        let files = |values: &[(&str, &str)]| -> Vec<String> {
            let files = with(values).credentials;
            files
                .iter()
                .map(|path| path.display().to_string())
                .collect()
        };
        assert_eq!(files(&all), ["d/config.json", "/r/containers/auth.json"]);
        let own = ["/r/containers/auth.json", "/h/.docker/config.json"];
        assert_eq!(files(&all[1..]), own);
        assert!(files(&[]).is_empty());
    }

    #[test]
    fn programs_are_where_path_says() {
        let folders = with(&[("PATH", "/a:bin::/b")]).programs;
        assert_eq!(folders, [PathBuf::from("/a"), PathBuf::from("/b")]);
        assert!(with(&[]).programs.is_empty());
    }

    #[test]
    fn empty_means_unset() {
        let environment = with(&[("NO_COLOR", ""), ("TERM", "xterm")]);
        assert!(!environment.no_color && !environment.dumb_terminal);
        assert!(with(&[("NO_COLOR", "1")]).no_color);
        assert!(with(&[]).dumb_terminal);
    }
}
