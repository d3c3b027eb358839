//! Who somebody is to a registry, as docker(1) and podman(1) keep it: files named `config.json` and
//! `auth.json`, and the helper programs that these name.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fs_err as fs;
use serde::Deserialize;

use super::helper;

/// The largest file of credentials, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// The name that a helper or a file gives to whoever has a token in place of a password.
const TOKEN_USER: &str = "<token>";

/// Why credentials cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// A file is there and cannot be read.
    #[error("credentials: {0}")]
    File(#[source] io::Error),
    /// A file is not what it should be. Its content is not repeated.
    #[error("the credentials in '{}' are not valid: {problem}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong, without a secret.
        problem: String,
    },
    /// A helper program is named and cannot be used.
    #[error("the credential helper '{program}', which '{}' names for {authority}, {problem}", path.display())]
    Helper {
        /// Its name.
        program: String,
        /// The file that names it.
        path: PathBuf,
        /// Whose credentials were wanted.
        authority: String,
        /// What happened.
        problem: String,
    },
}

/// What somebody is known by. Shown without its secret.
#[derive(Clone, PartialEq, Eq)]
pub enum Credential {
    /// A user with a password.
    Password {
        /// The user.
        user: String,
        /// The password.
        password: String,
    },
    /// A token that gets tokens (OAuth 2 calls it a refresh token).
    Identity(String),
    /// A token that is shown to the registry as it is.
    Token(String),
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Password { user, .. } => write!(f, "Password({user:?}, …)"),
            Self::Identity(_) => f.write_str("Identity(…)"),
            Self::Token(_) => f.write_str("Token(…)"),
        }
    }
}

/// Where credentials are looked for.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    /// Files, of which the first with an entry counts. Those that are not there say nothing.
    pub files: Vec<PathBuf>,
    /// Folders in which helper programs are looked for, in order.
    pub programs: Vec<PathBuf>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Config {
    auths: BTreeMap<String, Option<Entry>>,
    cred_helpers: BTreeMap<String, String>,
    creds_store: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
    registrytoken: Option<String>,
}

impl Credentials {
    /// What somebody is known by to a registry, `HOST[:PORT]`, for a repository of it.
    ///
    /// # Errors
    /// A file is damaged, or names a helper that cannot be used.
    pub fn find(
        &self,
        authority: &str,
        repository: &str,
    ) -> Result<Option<Credential>, CredentialsError> {
        for path in &self.files {
            let Some(config) = read(path)? else {
                continue;
            };
            let found = self.find_in(&config, path, authority, repository)?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    fn find_in(
        &self,
        config: &Config,
        path: &Path,
        authority: &str,
        repository: &str,
    ) -> Result<Option<Credential>, CredentialsError> {
        let ask = |name: &str| {
            let program = format!("{}{}", helper::PREFIX, name.escape_debug());
            helper::ask(name, authority, &self.programs).map_err(|problem| {
                CredentialsError::Helper {
                    program,
                    path: path.to_owned(),
                    authority: authority.to_owned(),
                    problem,
                }
            })
        };
        let own = config.cred_helpers.iter();
        if let Some((_, name)) = own.into_iter().find(|(key, _)| host_key(key) == authority) {
            return Ok(ask(name)?.map(of_helper));
        }
        if let Some(entry) = entry(config, authority, repository)
            && let Some(credential) = credential(entry).map_err(|problem| {
                let path = path.to_owned();
                let problem = format!("the entry for {authority} {problem}");
                CredentialsError::Invalid { path, problem }
            })?
        {
            return Ok(Some(credential));
        }
        match &config.creds_store {
            Some(name) if !name.is_empty() => Ok(ask(name)?.map(of_helper)),
            _ => Ok(None),
        }
    }
}

fn read(path: &Path) -> Result<Option<Config>, CredentialsError> {
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(CredentialsError::File(error)),
    };
    let invalid = |problem: String| CredentialsError::Invalid {
        path: path.to_owned(),
        problem,
    };
    let mut text = Vec::new();
    file.take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut text)
        .map_err(CredentialsError::File)?;
    if u64::try_from(text.len()).is_ok_and(|length| length > FILE_BYTES_MAX) {
        return Err(invalid(format!("larger than {FILE_BYTES_MAX} bytes")));
    }
    if text.iter().all(u8::is_ascii_whitespace) {
        return Ok(None);
    }
    // What serde says of a wrong value repeats it, and it may be a secret: only the place is told.
    serde_json::from_slice(&text).map(Some).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        invalid(format!("line {line}, column {column}"))
    })
}

/// The most specific entry: files of podman may have a host with a part of the path behind it.
fn entry<'c>(config: &'c Config, authority: &str, repository: &str) -> Option<&'c Entry> {
    let mut wanted = format!("{authority}/{repository}");
    loop {
        let mut entries = config.auths.iter();
        if let Some((_, entry)) = entries.find(|(key, _)| whole_key(key) == wanted) {
            return entry.as_ref();
        }
        match wanted.rsplit_once('/') {
            Some((shorter, _)) => wanted = shorter.to_owned(),
            None => return None,
        }
    }
}

/// A key as `HOST[:PORT][/PATH]`; docker's older files have whole URLs, whose path says nothing.
fn whole_key(key: &str) -> &str {
    let without = ["https://", "http://"]
        .iter()
        .find_map(|scheme| key.strip_prefix(scheme));
    match without {
        Some(rest) => rest.split('/').next().unwrap_or(rest),
        None => key.trim_end_matches('/'),
    }
}

fn host_key(key: &str) -> &str {
    let key = whole_key(key);
    key.split('/').next().unwrap_or(key)
}

fn credential(entry: &Entry) -> Result<Option<Credential>, &'static str> {
    let filled = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    if let Some(token) = filled(&entry.identitytoken) {
        return Ok(Some(Credential::Identity(token)));
    }
    if let Some(token) = filled(&entry.registrytoken) {
        return Ok(Some(Credential::Token(token)));
    }
    let (user, password) = match (filled(&entry.auth), filled(&entry.username)) {
        (Some(auth), _) => decode(&auth)?,
        (None, Some(user)) => (user, entry.password.clone().unwrap_or_default()),
        (None, None) => return Ok(None),
    };
    Ok(Some(of_user(user, password)))
}

fn decode(auth: &str) -> Result<(String, String), &'static str> {
    let bytes = STANDARD
        .decode(auth.trim())
        .map_err(|_| "has an 'auth' that is not base64")?;
    let text = String::from_utf8(bytes).map_err(|_| "has an 'auth' that is not text")?;
    // Some versions of docker ended it with zeroes.
    let text = text.trim_end_matches('\0');
    let (user, password) = text
        .split_once(':')
        .ok_or("has an 'auth' without a colon between user and password")?;
    Ok((user.to_owned(), password.to_owned()))
}

fn of_helper(answer: helper::Answer) -> Credential {
    of_user(answer.user, answer.secret)
}

fn of_user(user: String, password: String) -> Credential {
    if user == TOKEN_USER {
        Credential::Identity(password)
    } else {
        Credential::Password { user, password }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn find(text: &str, authority: &str, repository: &str) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        fs::write(&path, text).unwrap();
        let credentials = Credentials {
            files: vec![folder.path().join("none.json"), path],
            programs: vec![folder.path().to_owned()],
        };
        match credentials.find(authority, repository) {
            Ok(None) => "none".to_owned(),
            Ok(Some(Credential::Password { user, password })) => format!("{user}:{password}"),
            Ok(Some(Credential::Identity(token))) => format!("identity {token}"),
            Ok(Some(Credential::Token(token))) => format!("token {token}"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn entries_of_each_form_are_found() {
        // "bWU6YTpi" is "me:a:b".
        let text = r#"{"auths": {
            "h:5000": {"auth": "bWU6YTpi"},
            "h": {"username": "u", "password": "p"},
            "h/team": {"auth": "dGVhbTp4"},
            "https://old.example/v1/": {"auth": "b2xkOng="},
            "i": {"auth": "bWU6YTpi", "identitytoken": "it"},
            "r": {"registrytoken": "rt"},
            "t": {"username": "<token>", "password": "tt"},
            "e": {}, "n": null
        }, "HttpHeaders": {"x": "y"}}"#;
        for (authority, repository, expected) in [
            ("h:5000", "a", "me:a:b"),
            ("h", "a", "u:p"),
            ("h", "team", "team:x"),
            ("h", "team/a/b", "team:x"),
            ("h", "teams", "u:p"),
            ("old.example", "a", "old:x"),
            ("i", "a", "identity it"),
            ("r", "a", "token rt"),
            ("t", "a", "identity tt"),
            ("e", "a", "none"),
            ("n", "a", "none"),
            ("other", "h", "none"),
        ] {
            assert_eq!(
                find(text, authority, repository),
                expected,
                "{authority}/{repository}"
            );
        }
        assert_eq!(find("", "h", "a"), "none");
    }

    #[test]
    fn damaged_files_are_told_of_without_their_secrets() {
        for (text, problem) in [
            (r#"{"auths": {"h": "hunter2"}}"#, "line 1, column"),
            (r#"{"auths": hunter2"#, "line 1, column"),
            (r#"{"auths": {"h": {"auth": "hunter2!"}}}"#, "not base64"),
            (
                r#"{"auths": {"h": {"auth": "aHVudGVyMg=="}}}"#,
                "without a colon",
            ),
        ] {
            let error = find(text, "h", "a");
            assert!(
                error.contains(problem) && error.contains("config.json"),
                "{error}"
            );
            assert!(!error.contains("hunter2"), "{error}");
        }
        let long = format!("{{\"x\": \"{}\"}}", "a".repeat(1 << 20));
        assert!(find(&long, "h", "a").contains("larger than"));
    }

    #[test]
    fn helpers_are_asked_and_those_that_fail_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let script = |name: &str, text: &str| {
            let path = folder.path().join(format!("docker-credential-{name}"));
            fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
            fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        };
        script(
            "good",
            r#"read host; printf '{"ServerURL":"%s","Username":"%s","Secret":"%s"}' "$host" "$1" "$host""#,
        );
        script(
            "empty",
            "echo credentials not found in native keychain; exit 1",
        );
        script("bad", "echo the wallet is locked; exit 1");
        script("wild", "echo hello");
        script("loud", "exec cat /dev/zero");
        let path = folder.path().join("config.json");
        let credentials = Credentials {
            files: vec![path.clone()],
            programs: vec![folder.path().to_owned()],
        };
        let ask = |helper: &str| {
            let text =
                format!(r#"{{"credHelpers": {{"h:1": "{helper}"}}, "credsStore": "empty"}}"#);
            fs::write(&path, text).unwrap();
            credentials.find("h:1", "a")
        };
        let expected = Credential::Password {
            user: "get".to_owned(),
            password: "h:1".to_owned(),
        };
        assert_eq!(ask("good").unwrap(), Some(expected));
        assert_eq!(ask("empty").unwrap(), None);
        for (helper, problem) in [
            ("bad", "the wallet is locked"),
            ("wild", "not the JSON of a credential helper"),
            ("loud", "more than"),
            ("missing", "is not in a folder of PATH"),
            ("../../bin/sh", "has no name that coop runs"),
            (r"a\nb", r"'docker-credential-a\nb', which"),
        ] {
            let error = ask(helper).unwrap_err().to_string();
            assert!(
                error.contains(problem) && error.contains("for h:1"),
                "{error}"
            );
        }
        fs::write(&path, r#"{"credsStore": "good"}"#).unwrap();
        assert!(credentials.find("x", "a").unwrap().is_some());
        fs::write(&path, r#"{"credsStore": "empty"}"#).unwrap();
        assert!(credentials.find("x", "a").unwrap().is_none());
    }
}
