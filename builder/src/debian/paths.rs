//! Which paths of packages are left out: dpkg's `path-exclude` and `path-include` (dpkg(1)).

use std::fmt::Write as _;

/// One rule of a filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Whether it brings back what a rule before it leaves out.
    pub include: bool,
    /// A shell pattern over the whole path (glob(7)), whose `*` and `?` match slashes too.
    pub pattern: String,
}

/// Rules in their order; without any, nothing is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PathFilter {
    /// Of those that match a path, the last counts.
    pub rules: Vec<Rule>,
}

impl PathFilter {
    /// Whether a path, `/usr/share/doc/x`, is not unpacked. Folders and symbolic links stay where a
    /// rule may bring back something below them, by dpkg's own rough measure: they begin like the
    /// rule's pattern up to its first wildcard.
    #[must_use]
    pub fn leaves_out(&self, path: &[u8], may_hold_others: bool) -> bool {
        let mut matching = self.rules.iter().rev();
        let last = matching.find(|rule| matches(rule.pattern.as_bytes(), path));
        if last.is_none_or(|rule| rule.include) {
            return false;
        }
        let mut kept = self.rules.iter().filter(|rule| rule.include);
        !(may_hold_others && kept.any(|rule| path.starts_with(literal_start(&rule.pattern))))
    }

    /// The same for the guest's dpkg: a file of `/etc/dpkg/dpkg.cfg.d`.
    #[must_use]
    pub fn config(&self) -> String {
        let mut text = "# Written by coop: the recipe's rootfs.source.debian.exclude.\n".to_owned();
        for Rule { include, pattern } in &self.rules {
            let verb = if *include { "include" } else { "exclude" };
            // Writing to a String does not fail.
            let _ = writeln!(text, "path-{verb}={pattern}");
        }
        text
    }
}

/// A pattern up to its first wildcard, without slashes at its end.
fn literal_start(pattern: &str) -> &[u8] {
    let end = pattern.find(['*', '?', '[', '\\']).unwrap_or(pattern.len());
    pattern[..end].trim_end_matches('/').as_bytes()
}

/// fnmatch(3) without flags and without character classes: of two stars only the last one is ever
/// tried again, so the time is at most the product of the lengths.
fn matches(pattern: &[u8], path: &[u8]) -> bool {
    let (mut at, mut from) = (0, 0);
    let mut retry = None;
    while from < path.len() {
        if pattern.get(at) == Some(&b'*') {
            at += 1;
            retry = Some((at, from));
            continue;
        }
        if let Some(length) = match_one(&pattern[at..], path[from]) {
            at += length;
            from += 1;
            continue;
        }
        let Some((after_star, start)) = retry else {
            return false;
        };
        retry = Some((after_star, start + 1));
        (at, from) = (after_star, start + 1);
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

/// How much of a pattern one byte is matched by, if it is.
fn match_one(pattern: &[u8], byte: u8) -> Option<usize> {
    match *pattern.first()? {
        b'?' => Some(1),
        b'\\' => (*pattern.get(1)? == byte).then_some(2),
        b'[' => match match_set(&pattern[1..], byte) {
            Some((true, length)) => Some(1 + length),
            Some((false, _)) => None,
            // Without its end it is a bracket like any other byte.
            None => (byte == b'[').then_some(1),
        },
        literal => (literal == byte).then_some(1),
    }
}

/// Whether a set has a byte, and how long the set is up to its closing bracket.
fn match_set(set: &[u8], byte: u8) -> Option<(bool, usize)> {
    let negated = matches!(set.first(), Some(b'!' | b'^'));
    let start = usize::from(negated);
    let (mut at, mut found) = (start, false);
    loop {
        let mut low = *set.get(at)?;
        if low == b']' && at > start {
            return Some((found != negated, at + 1));
        }
        if low == b'\\' {
            at += 1;
            low = *set.get(at)?;
        }
        at += 1;
        let mut high = low;
        let is_range = set.get(at) == Some(&b'-') && set.get(at + 1).is_some_and(|b| *b != b']');
        if is_range {
            high = set[at + 1];
            at += 2;
            if high == b'\\' {
                high = *set.get(at)?;
                at += 1;
            }
        }
        found |= (low..=high).contains(&byte);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(rules: &[(bool, &str)]) -> PathFilter {
        let rule = |(include, pattern): &(bool, &str)| Rule {
            include: *include,
            pattern: (*pattern).to_owned(),
        };
        PathFilter {
            rules: rules.iter().map(rule).collect(),
        }
    }

    #[test]
    fn patterns_match_as_fnmatch_has_it() {
        for (pattern, path, expected) in [
            ("/usr/share/doc/*", "/usr/share/doc/a/b", true),
            ("/usr/share/doc/*", "/usr/share/doc", false),
            (
                "/usr/share/doc/*/copyright",
                "/usr/share/doc/a/b/copyright",
                true,
            ),
            (
                "/usr/share/doc/*/copyright",
                "/usr/share/doc/copyright",
                false,
            ),
            ("*.pyc", "/usr/lib/x.pyc", true),
            ("*.pyc", "/usr/lib/x.pyc.gz", false),
            ("/a?c", "/abc", true),
            ("/a?c", "/ac", false),
            ("/a[b-d]e", "/ace", true),
            ("/a[!b-d]e", "/ace", false),
            ("/a[^b-d]e", "/axe", true),
            ("/a[]x]e", "/a]e", true),
            ("/a[x-]e", "/a-e", true),
            ("/a[e", "/a[e", true),
            ("/a\\*", "/a*", true),
            ("/a\\*", "/ab", false),
            ("/a**b*", "/axxbxx", true),
            ("", "", true),
            ("\\", "\\", false),
        ] {
            let found = matches(pattern.as_bytes(), path.as_bytes());
            assert_eq!(found, expected, "{pattern} {path}");
        }
        let (pattern, path) = (
            "/".to_owned() + &"*a".repeat(500),
            "/".to_owned() + &"a".repeat(400),
        );
        assert!(!matches(pattern.as_bytes(), path.as_bytes()));
    }

    #[test]
    fn the_last_rule_counts_and_folders_stay_for_what_comes_back() {
        let filter = filter(&[
            (false, "/usr/share/doc*"),
            (true, "/usr/share/doc/*/copyright"),
            (false, "/usr/share/doc/secret/*"),
        ]);
        for (path, is_folder, expected) in [
            ("/usr/share/doc/x/readme", false, true),
            ("/usr/share/doc/x/copyright", false, false),
            ("/usr/share/doc/secret/copyright", false, true),
            ("/usr/share/doc", true, false),
            ("/usr/share/doc/x", true, false),
            ("/usr/share/docs", true, false),
            ("/usr/share/docs", false, true),
            ("/usr/bin/x", false, false),
        ] {
            let found = filter.leaves_out(path.as_bytes(), is_folder);
            assert_eq!(found, expected, "{path}");
        }
        assert!(filter.config().ends_with(
            "\npath-exclude=/usr/share/doc*\npath-include=/usr/share/doc/*/copyright\n\
             path-exclude=/usr/share/doc/secret/*\n"
        ));
        assert!(!PathFilter::default().leaves_out(b"/x", false));
    }
}
