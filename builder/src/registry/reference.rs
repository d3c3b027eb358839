//! Names of appliances in registries: `oci://HOST[:PORT]/NAME[:TAG|@sha256:…]`.

use std::fmt;

use coop_appliance::bundle::BlobDigest;

/// How such a name begins.
pub const SCHEME: &str = "oci://";
/// The version of a name that says none.
pub const DEFAULT_TAG: &str = "latest";
/// The longest host with its port and the longest repository, in bytes; the distribution
/// specification has both together below 256.
const NAME_BYTES_MAX: usize = 255;
/// The longest tag, in bytes (distribution specification, "Pulling manifests").
const TAG_BYTES_MAX: usize = 128;

/// Why a text names nothing in a registry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{}' {problem}; write oci://HOST[:PORT]/NAME[:TAG|@sha256:DIGEST]", text.escape_debug())]
pub struct InvalidReference {
    text: String,
    problem: &'static str,
}

/// A repository of a registry, and a version in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// The host in lower case, an IPv6 address in brackets, with the port where one is named.
    pub authority: String,
    /// The repository's name.
    pub repository: String,
    /// Which manifest of it.
    pub version: Version,
}

/// Which manifest of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Version {
    /// What a name stands for at the moment.
    Tag(String),
    /// The manifest with this digest.
    Digest(BlobDigest),
}

impl Reference {
    /// Whether a text is meant to be such a name.
    #[must_use]
    pub fn is_meant(text: &str) -> bool {
        text.starts_with(SCHEME)
    }

    /// Reads a name.
    ///
    /// # Errors
    /// What is wrong with it. A user or password in it is refused and not repeated.
    pub fn parse(text: &str) -> Result<Self, InvalidReference> {
        let invalid = |problem| InvalidReference {
            text: text.to_owned(),
            problem,
        };
        let rest = text
            .strip_prefix(SCHEME)
            .ok_or_else(|| invalid("does not begin with oci://"))?;
        let (authority, rest) = rest
            .split_once('/')
            .ok_or_else(|| invalid("has no name behind the host"))?;
        if authority.contains('@') {
            return Err(InvalidReference {
                text: format!("{SCHEME}…/{rest}"),
                problem: "has a user or password in it, which belong into a file of credentials",
            });
        }
        let authority = authority.to_ascii_lowercase();
        if !is_authority(&authority) {
            return Err(invalid("has no valid host"));
        }
        let (repository, version) = split_version(rest).map_err(invalid)?;
        if !is_repository(repository) || authority.len() + repository.len() > NAME_BYTES_MAX {
            return Err(invalid(
                "has no valid name behind the host (lower-case letters, digits, and . _ - / between)",
            ));
        }
        Ok(Self {
            authority,
            repository: repository.to_owned(),
            version,
        })
    }

    /// The host alone.
    #[must_use]
    pub fn host(&self) -> &str {
        host_of(&self.authority)
    }

    /// The last part of the repository's name.
    #[must_use]
    pub fn short_name(&self) -> &str {
        let last = self.repository.rsplit('/').next();
        last.unwrap_or(&self.repository)
    }

    /// The same repository with another version.
    #[must_use]
    pub fn with_version(&self, version: Version) -> Self {
        Self {
            version,
            ..self.clone()
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}/{}", self.authority, self.repository)?;
        match &self.version {
            Version::Tag(tag) => write!(f, ":{tag}"),
            Version::Digest(digest) => write!(f, "@{digest}"),
        }
    }
}

impl Version {
    /// As it stands in a registry's addresses.
    pub(super) fn word(&self) -> String {
        match self {
            Self::Tag(tag) => tag.clone(),
            Self::Digest(digest) => digest.to_string(),
        }
    }
}

fn split_version(rest: &str) -> Result<(&str, Version), &'static str> {
    if let Some((name, digest)) = rest.split_once('@') {
        if name.contains(':') {
            return Err("has a tag and a digest, of which one is enough");
        }
        let digest = digest.parse().map_err(
            |_| "has a digest that is not sha256: with 64 lower-case hexadecimal digits",
        )?;
        return Ok((name, Version::Digest(digest)));
    }
    let (name, tag) = rest.split_once(':').unwrap_or((rest, DEFAULT_TAG));
    if is_tag(tag) {
        Ok((name, Version::Tag(tag.to_owned())))
    } else {
        Err("has no valid tag (up to 128 letters, digits, and _ . - within)")
    }
}

/// The host of `HOST[:PORT]`, an IPv6 address with its brackets.
pub(super) fn host_of(authority: &str) -> &str {
    match authority.rfind(']') {
        Some(end) => authority.get(..=end).unwrap_or(authority),
        None => authority.split(':').next().unwrap_or(authority),
    }
}

fn is_authority(authority: &str) -> bool {
    let host = host_of(authority);
    let port = &authority[host.len()..];
    let port_is_valid = match port.strip_prefix(':') {
        Some(digits) => digits.parse::<u16>().is_ok_and(|port| port > 0),
        None => port.is_empty(),
    };
    let address = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let host_is_valid = match address {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
            let is_label = |label: &str| {
                !label.is_empty() && !label.starts_with('-') && label.chars().all(is_plain)
            };
            host.split('.').all(is_label)
        }
    };
    port_is_valid && host_is_valid && authority.len() <= NAME_BYTES_MAX
}

/// Components of lower-case letters and digits with separators between: `.`, `_`, `__`, or dashes.
fn is_repository(name: &str) -> bool {
    let is_word = |word: &str| {
        let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let bytes = word.as_bytes();
        let ends = [bytes.first(), bytes.last()];
        let separator = |text: &str| {
            matches!(text, "" | "." | "_" | "__") || text.bytes().all(|byte| byte == b'-')
        };
        ends.iter().all(|end| end.is_some_and(|b| alphanumeric(*b)))
            && word
                .split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
                .all(separator)
    };
    name.split('/').all(is_word)
}

fn is_tag(tag: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    tag.len() <= TAG_BYTES_MAX
        && tag.bytes().next().is_some_and(word)
        && tag
            .bytes()
            .all(|byte| word(byte) || matches!(byte, b'.' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn names_are_read_and_written() {
        for (text, authority, repository, version) in [
            ("oci://Host.example/web", "host.example", "web", "latest"),
            (
                "oci://127.0.0.1:5000/a/b__c:v1.2",
                "127.0.0.1:5000",
                "a/b__c",
                "v1.2",
            ),
            ("oci://[::1]:5000/a", "[::1]:5000", "a", "latest"),
            (
                "oci://localhost/a-b--c.d_e:X",
                "localhost",
                "a-b--c.d_e",
                "X",
            ),
        ] {
            let read = Reference::parse(text).unwrap();
            assert_eq!(
                (read.authority.as_str(), read.repository.as_str()),
                (authority, repository)
            );
            assert_eq!(read.version, Version::Tag(version.to_owned()));
            assert_eq!(Reference::parse(&read.to_string()), Ok(read));
        }
        let pinned = format!("oci://h/x/web@sha256:{DIGEST}");
        let read = Reference::parse(&pinned).unwrap();
        assert_eq!(read.version, Version::Digest(BlobDigest::of(b"")));
        assert_eq!(
            (read.to_string(), read.short_name(), read.host()),
            (pinned, "web", "h")
        );
        assert_eq!(Reference::parse("oci://[::1]:1/a").unwrap().host(), "[::1]");
    }

    #[test]
    fn other_texts_are_refused_with_a_reason() {
        for (text, problem) in [
            ("http://h/a", "begin with"),
            ("oci://h", "no name"),
            ("oci://h/", "no valid name"),
            ("oci:///a", "no valid host"),
            ("oci://h:0/a", "no valid host"),
            ("oci://h:99999/a", "no valid host"),
            ("oci://-h/a", "no valid host"),
            ("oci://h h/a", "no valid host"),
            ("oci://h\n/a", r"'oci://h\n/a' has no valid host"),
            ("oci://[::1/a", "no valid host"),
            ("oci://h/A", "no valid name"),
            ("oci://h/a//b", "no valid name"),
            ("oci://h/a/../b", "no valid name"),
            ("oci://h/a___b", "no valid name"),
            ("oci://h/a:", "no valid tag"),
            ("oci://h/a:b/c", "no valid tag"),
            ("oci://h/a:-b", "no valid tag"),
            ("oci://h/a@sha256:12", "a digest that"),
            ("oci://h/a:b@sha256:12", "a tag and a digest"),
        ] {
            let error = Reference::parse(text).unwrap_err().to_string();
            assert!(error.contains(problem), "{text}: {error}");
        }
        let long = format!("oci://h/{}", "a".repeat(255));
        assert!(Reference::parse(&long).is_err());
        let error = Reference::parse("oci://me:secret@h/a")
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("a user or password") && !error.contains("secret"),
            "{error}"
        );
    }
}
