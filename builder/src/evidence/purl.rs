//! Package URLs (the purl specification, type `deb`).

use std::fmt::Write as _;

use crate::percent;

/// The package URL of a Debian package: `pkg:deb/debian/g%2B%2B@4:14.2.0-1?arch=amd64`. `distro` is
/// the release that it belongs to.
pub(super) fn debian(
    name: &str,
    version: &str,
    architecture: &str,
    distro: Option<&str>,
) -> String {
    of_vendor("debian", name, version, architecture, distro)
}

/// The same for any vendor of .deb packages.
pub(super) fn of_vendor(
    vendor: &str,
    name: &str,
    version: &str,
    architecture: &str,
    distro: Option<&str>,
) -> String {
    let mut purl = format!(
        "pkg:deb/{}/{}@{}",
        encoded(&vendor.to_ascii_lowercase()),
        encoded(&name.to_ascii_lowercase()),
        encoded(version)
    );
    // Qualifiers stand in the order of their names; empty ones are left out.
    let qualifiers = [("arch", Some(architecture)), ("distro", distro)];
    let there = qualifiers
        .into_iter()
        .filter_map(|(name, value)| Some((name, value.filter(|value| !value.is_empty())?)));
    for (separator, (name, value)) in std::iter::once('?')
        .chain(std::iter::repeat('&'))
        .zip(there)
    {
        // Writing to a string cannot fail.
        let _ = write!(purl, "{separator}{name}={}", encoded(value));
    }
    purl
}

/// Percent-encoding of what is neither a letter, a digit nor one of `.-_~:`.
fn encoded(text: &str) -> String {
    percent::encode(text.as_bytes(), b".-_~:")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_urls_do_not_take_is_encoded() {
        for (name, version, distro, expected) in [
            ("dash", "0.5.12-12", None, "dash@0.5.12-12?arch=amd64"),
            (
                "g++",
                "4:14.2.0-1",
                Some("trixie"),
                "g%2B%2B@4:14.2.0-1?arch=amd64&distro=trixie",
            ),
            (
                "a",
                "1.0+dfsg~rc1-1",
                Some(""),
                "a@1.0%2Bdfsg~rc1-1?arch=amd64",
            ),
            ("a", "1?x#/ é", None, "a@1%3Fx%23%2F%20%C3%A9?arch=amd64"),
        ] {
            let purl = debian(name, version, "amd64", distro);
            assert_eq!(purl, format!("pkg:deb/debian/{expected}"));
        }
        assert_eq!(of_vendor("A B", "a", "1", "", None), "pkg:deb/a%20b/a@1");
    }
}
