//! The grammars of names in a recipe. Each check returns what is wrong as a lowercase sentence.

use std::path::Path;

use super::units::shorten;

fn only(text: &str, allowed: impl Fn(u8) -> bool) -> bool {
    !text.is_empty() && text.bytes().all(allowed)
}

fn verdict(good: bool, text: &str, what: &str) -> Result<(), String> {
    if good {
        Ok(())
    } else {
        Err(format!("'{}' is not {what}", shorten(text)))
    }
}

fn lower(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

/// One label of a host name: also the grammar of the appliance's and the cobds' names, which
/// become file names.
pub(super) fn label(text: &str) -> Result<(), String> {
    let good = only(text, |byte| lower(byte) || byte == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
        && text.len() <= 63;
    verdict(
        good,
        text,
        "a name of lowercase letters, digits and inner hyphens, at most 63",
    )
}

/// A host name, RFC 1123.
pub(super) fn hostname(text: &str) -> Result<(), String> {
    let part = |part: &str| {
        only(part, |byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !part.starts_with('-')
            && !part.ends_with('-')
            && part.len() <= 63
    };
    // The kernel keeps 64 bytes.
    let good = text.len() <= 64 && text.split('.').all(part);
    verdict(good, text, "a host name")
}

/// A Debian package's name, with an architecture if need be (Debian policy 5.6.1).
pub(super) fn package(text: &str) -> Result<(), String> {
    let (package, from) = text
        .split_once('/')
        .map_or((text, None), |(a, b)| (a, Some(b)));
    let (name, architecture) = package.split_once(':').unwrap_or((package, "any"));
    let good = name.len() >= 2
        && only(name, |byte| lower(byte) || b"+-.".contains(&byte))
        && name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && only(architecture, |byte| lower(byte) || byte == b'-')
        && from.is_none_or(|from| suite(from).is_ok());
    verdict(
        good,
        text,
        "a package's name, as nginx, libc6:amd64 or git/trixie-backports",
    )
}

/// Debian's name of an architecture, as dpkg has it.
pub(super) fn architecture(text: &str) -> Result<(), String> {
    let good = only(text, |byte| lower(byte) || byte == b'-')
        && text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text.len() <= 64
        && !matches!(text, "all" | "any" | "native");
    verdict(good, text, "an architecture, as arm64")
}

/// A Debian package's name alone (Debian policy 5.6.1).
pub(super) fn package_name(text: &str) -> Result<(), String> {
    let good = package(text).is_ok() && !text.contains([':', '/']);
    verdict(good, text, "a package's name, as nginx")
}

/// A pattern of paths as dpkg's `--path-exclude` takes it (glob(7), the whole path).
pub(super) fn path_pattern(text: &str) -> Result<(), String> {
    if !text.contains(['/', '*']) {
        let text = shorten(text);
        return Err(format!(
            "'{text}' is not a pattern, which begins with /; the words that paths knows are documentation and locales"
        ));
    }
    let good = text.len() <= 1024
        && text.starts_with(['/', '*'])
        && !text.contains(char::is_whitespace)
        && !text.contains(char::is_control)
        && !["[:", "[.", "[="].iter().any(|class| text.contains(class));
    verdict(
        good,
        text,
        "a pattern of absolute paths with *, ? and [a-z], without blanks",
    )
}

/// One line for debconf-set-selections(1).
pub(super) fn debconf_answer(text: &str) -> Result<(), String> {
    const KINDS: &[&str] = &[
        "string",
        "boolean",
        "select",
        "multiselect",
        "note",
        "text",
        "error",
        "password",
        "title",
        "seen",
    ];
    let mut words = text.split_ascii_whitespace();
    let (package, question, kind) = (words.next(), words.next(), words.next());
    if package.is_none() || question.is_none() || kind.is_none() {
        let text = shorten(text);
        return Err(format!("'{text}' is not 'package question type value'"));
    }
    let kind = kind.unwrap_or_default();
    if !KINDS.contains(&kind) {
        let (kind, known) = (shorten(kind), KINDS.join(", "));
        return Err(format!("unknown type '{kind}'; known are {known}"));
    }
    verdict(
        text.len() <= 16 << 10 && !text.contains(|c: char| c.is_control() && c != '\t'),
        text,
        "an answer of at most 16 KiB without control characters",
    )
}

/// A suite or a component of a Debian archive: they become parts of addresses.
pub(super) fn suite(text: &str) -> Result<(), String> {
    let part = |part: &str| {
        only(part, |byte| {
            byte.is_ascii_alphanumeric() || b"+-._~".contains(&byte)
        }) && !part.starts_with('.')
    };
    let good = text.len() <= 128 && text.split('/').all(part);
    verdict(good, text, "the name of a suite or component")
}

/// An address that coop can fetch from.
pub(super) fn url(text: &str) -> Result<(), String> {
    let rest = text
        .strip_prefix("http://")
        .or_else(|| text.strip_prefix("https://"))
        .unwrap_or_default();
    let good = text.len() <= 4096
        && text.bytes().all(|byte| byte.is_ascii_graphic())
        && rest.starts_with(|first: char| first.is_ascii_alphanumeric() || first == '[');
    verdict(
        good,
        text,
        "an address that begins with http:// or https://",
    )
}

/// A mirror: also a folder of this machine.
pub(super) fn mirror(text: &str) -> Result<(), String> {
    let is_folder = text.starts_with("file:///")
        && text.len() <= 4096
        && text.bytes().all(|byte| byte.is_ascii_graphic());
    if is_folder || url(text).is_ok() {
        return Ok(());
    }
    verdict(
        false,
        text,
        "an address that begins with http://, https:// or file:///",
    )
}

/// A SHA-256 in hexadecimal.
pub(super) fn sha256(text: &str) -> Result<(), String> {
    let good = text.len() == 64
        && only(text, |byte| {
            byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)
        });
    verdict(good, text, "a sha256 of 64 lowercase hexadecimal digits")
}

/// An absolute path in the guest, not the root itself, without `.`, `..` and empty parts.
pub(super) fn guest_path(text: &str) -> Result<(), String> {
    let good = text.len() < 4096
        && text.strip_prefix('/').is_some_and(|rest| {
            rest.split('/')
                .all(|part| !matches!(part, "" | "." | "..") && part.len() <= 255)
        });
    verdict(
        good,
        text,
        "an absolute path in the guest without '.', '..' and doubled slashes",
    )
}

/// A user's or group's name, as Debian's adduser takes it.
pub(super) fn user(text: &str) -> Result<(), String> {
    let good = only(text, |byte| lower(byte) || b"-_.".contains(&byte))
        && text.starts_with(|first: char| first.is_ascii_lowercase() || first == '_')
        && text.len() <= 32;
    verdict(good, text, "a user's or group's name")
}

/// A user or a user's number, and behind a colon a group or its number.
pub(super) fn login(text: &str) -> Result<(), String> {
    let part = |part: &str| {
        let is_number = part.parse::<u32>().is_ok_and(|number| number < u32::MAX)
            && part.bytes().all(|byte| byte.is_ascii_digit());
        is_number || user(part).is_ok()
    };
    let good = text.splitn(2, ':').all(part);
    verdict(good, text, "a user or user:group, as names or numbers")
}

/// A folder of the guest, which may be its root.
pub(crate) fn guest_folder(text: &str) -> Result<(), String> {
    if text == "/" {
        return Ok(());
    }
    guest_path(text)
}

/// Whether a file's name says that its bytes are what they are, whatever they look like.
pub(crate) fn is_cobd(path: &Path) -> bool {
    path.extension().is_some_and(|end| end == "cobd")
}

/// The name of a variable of the environment.
pub(super) fn variable(text: &str) -> Result<(), String> {
    let good = only(text, |byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && !text.starts_with(|first: char| first.is_ascii_digit())
        && text.len() <= 255;
    verdict(
        good,
        text,
        "a variable's name of letters, digits and underscores",
    )
}

/// The name of a secret, which becomes a file's name.
pub(super) fn secret(text: &str) -> Result<(), String> {
    let good = only(text, |byte| {
        byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)
    }) && !text.starts_with(['.', '-'])
        && text.len() <= 64;
    verdict(
        good,
        text,
        "a secret's name of letters, digits, dots, hyphens and underscores, at most 64",
    )
}

/// A field of passwd(5).
pub(super) fn passwd_field(text: &str) -> Result<(), String> {
    let good = !text.contains(|character: char| character == ':' || character.is_control());
    verdict(good, text, "free of colons and line breaks")
}

/// The hash of a password, crypt(5).
pub(super) fn password_hash(text: &str) -> Result<(), String> {
    let good = text.starts_with('$')
        && text.len() <= 512
        && only(text, |byte| byte.is_ascii_graphic() && byte != b':');
    if good {
        Ok(())
    } else {
        // The text may be a password: it is not repeated.
        Err("this is not a hash of crypt(5), which begins with $".to_owned())
    }
}

/// One line of authorized_keys.
pub(super) fn ssh_key(text: &str) -> Result<(), String> {
    let good = text.len() <= 16 << 10
        && !text.trim_end().contains(char::is_control)
        && text.split_whitespace().any(|word| {
            ["ssh-", "ecdsa-", "sk-"]
                .iter()
                .any(|kind| word.starts_with(kind))
        });
    verdict(
        good,
        text,
        "a public ssh key; it looks like 'ssh-ed25519 AAAA… name'",
    )
}

/// A systemd unit's name.
pub(super) fn unit(text: &str) -> Result<(), String> {
    let good = only(text, |byte| {
        byte.is_ascii_alphanumeric() || b":-_.\\@".contains(&byte)
    }) && text.len() <= 255
        && !text.starts_with(['-', '.']);
    verdict(good, text, "the name of a systemd unit")
}

/// A word of the kernel's command line.
pub(super) fn kernel_word(text: &str) -> Result<(), String> {
    let good = only(text, |byte| byte.is_ascii_graphic()) && text.len() <= 1024;
    verdict(good, text, "one word for the kernel's command line")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        assert!(label("web-1").is_ok() && label("../x").is_err() && label("").is_err());
        assert!(hostname("a.B-c").is_ok() && hostname("a..b").is_err());
        assert!(package("libc6:amd64").is_ok() && package("g++").is_ok());
        assert!(package("nginx=1.2").is_err() && package("-x").is_err());
        assert!(suite("trixie-updates").is_ok() && suite("../x").is_err());
        assert!(url("http://a/b").is_ok() && url("file:///a").is_err());
        assert!(url("http:// a").is_err());
        assert!(guest_path("/srv/www").is_ok());
        for path in ["/", "srv", "/a/../b", "/a//b", "/a/"] {
            assert!(guest_path(path).is_err(), "{path}");
        }
        assert!(user("www-data").is_ok() && user("a:b").is_err());
        assert!(login("app").is_ok() && login("1000:disk").is_ok() && login("0").is_ok());
        for text in ["", "a:", ":a", "a:b:c", "4294967295", "+1"] {
            assert!(login(text).is_err(), "{text}");
        }
        assert!(guest_folder("/").is_ok() && guest_folder("srv").is_err());
        assert!(variable("A_1").is_ok() && variable("1A").is_err() && variable("A=").is_err());
        assert!(secret("npm.token").is_ok() && secret("../x").is_err() && secret("").is_err());
        assert!(password_hash("$6$x$y").is_ok() && password_hash("secret").is_err());
        assert!(ssh_key("ssh-ed25519 AAAA me").is_ok() && ssh_key("hello").is_err());
        assert!(unit("getty@tty1.service").is_ok() && unit("a b").is_err());
    }
}
