//! Debian versions and their order (deb-version(7)), without copying.

use std::cmp::Ordering;

/// A version as it is written: `[EPOCH:]UPSTREAM[-REVISION]`.
#[derive(Clone, Copy, Debug)]
pub struct Version<'a> {
    text: &'a str,
}

impl<'a> Version<'a> {
    /// Takes any text; what is not in the grammar has a place in the order all the same.
    #[must_use]
    pub fn new(text: &'a str) -> Self {
        Self { text }
    }

    /// The version as it was written.
    #[must_use]
    pub fn as_str(&self) -> &'a str {
        self.text
    }

    fn parts(&self) -> (&'a str, &'a str, &'a str) {
        let (epoch, rest) = self.text.split_once(':').unwrap_or(("", self.text));
        let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, ""));
        (epoch, upstream, revision)
    }
}

impl PartialEq for Version<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Version<'_> {}

impl PartialOrd for Version<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Version<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        let (epoch, upstream, revision) = self.parts();
        let (other_epoch, other_upstream, other_revision) = other.parts();
        compare_part(epoch, other_epoch)
            .then_with(|| compare_part(upstream, other_upstream))
            .then_with(|| compare_part(revision, other_revision))
    }
}

/// Compares runs of non-digits and digits in turn, as dpkg does.
fn compare_part(left: &str, right: &str) -> Ordering {
    let (mut left, mut right) = (left.as_bytes(), right.as_bytes());
    while !left.is_empty() || !right.is_empty() {
        let (left_text, left_rest) = split(left, |byte| !byte.is_ascii_digit());
        let (right_text, right_rest) = split(right, |byte| !byte.is_ascii_digit());
        let (left_digits, left_rest) = split(left_rest, u8::is_ascii_digit);
        let (right_digits, right_rest) = split(right_rest, u8::is_ascii_digit);
        let order = compare_text(left_text, right_text)
            .then_with(|| compare_digits(left_digits, right_digits));
        if order.is_ne() {
            return order;
        }
        (left, right) = (left_rest, right_rest);
    }
    Ordering::Equal
}

fn split(bytes: &[u8], belongs: impl Fn(&u8) -> bool) -> (&[u8], &[u8]) {
    let length = bytes
        .iter()
        .position(|byte| !belongs(byte))
        .unwrap_or(bytes.len());
    bytes.split_at(length)
}

fn compare_text(left: &[u8], right: &[u8]) -> Ordering {
    for index in 0..left.len().max(right.len()) {
        let order = rank(left.get(index)).cmp(&rank(right.get(index)));
        if order.is_ne() {
            return order;
        }
    }
    Ordering::Equal
}

/// A tilde sorts before the end, letters before everything else.
fn rank(byte: Option<&u8>) -> (u8, u8) {
    match byte {
        Some(b'~') => (0, 0),
        None => (1, 0),
        Some(letter) if letter.is_ascii_alphabetic() => (2, *letter),
        Some(other) => (3, *other),
    }
}

fn compare_digits(left: &[u8], right: &[u8]) -> Ordering {
    let (_, left) = split(left, |byte| *byte == b'0');
    let (_, right) = split(right, |byte| *byte == b'0');
    left.len().cmp(&right.len()).then_with(|| left.cmp(right))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rising.
    const ORDERED: &[&str] = &[
        "0~~",
        "0~~a",
        "0~",
        "0",
        "0a",
        "0+",
        "1~rc1-1",
        "1-~1",
        "1-1",
        "1-1+b1",
        "1-1.1",
        "1-2",
        "1-10",
        "1.0-1",
        "1.0a-1",
        "1.0+dfsg-1",
        "1.1",
        "1.10",
        "2a",
        "2b",
        "10",
        "1:0",
        "1:0.1-1",
        "2:0",
    ];

    #[test]
    fn the_order_is_the_manual_pages() {
        for (i, left) in ORDERED.iter().enumerate() {
            for (j, right) in ORDERED.iter().enumerate() {
                let order = Version::new(left).cmp(&Version::new(right));
                assert_eq!(order, i.cmp(&j), "{left} {right}");
            }
        }
        for (left, right) in [("1.0", "1.0-0"), ("0:1", "1"), ("1.00", "1.0"), ("01", "1")] {
            assert_eq!(Version::new(left), Version::new(right));
        }
    }

    #[test]
    fn dpkg_agrees() {
        let dpkg = |left: &str, right: &str, relation: &str| {
            std::process::Command::new("dpkg")
                .args(["--compare-versions", left, relation, right])
                .status()
        };
        if dpkg("1", "1", "eq").is_err() {
            let required = std::env::var_os("COOP_REQUIRE_ORACLES").is_some_and(|v| v == "1");
            assert!(!required, "dpkg is missing");
            eprintln!("skipped: dpkg is missing");
            return;
        }
        for pair in ORDERED.windows(2) {
            assert!(dpkg(pair[0], pair[1], "lt").unwrap().success(), "{pair:?}");
        }
    }
}
