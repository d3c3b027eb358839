//! From the names that copyright files have for licences to SPDX licence expressions (SPDX 2.3,
//! annex D). What has no name there becomes a `LicenseRef-` with its text.

use std::collections::BTreeMap;

use super::copyright::Copyright;
use crate::digest::Digest;

/// The longest text of a licence that is kept, in bytes.
const TEXT_BYTES_MAX: usize = 64 << 10;
/// The longest name of one's own, in bytes.
const NAME_BYTES_MAX: usize = 48;
/// So many hexadecimal digits tell texts of one name apart.
const DIGITS: usize = 12;

/// Debian's name of a licence (in lower case) and SPDX's, without what a `+` adds.
const NAMES: &[(&str, &str)] = &[
    ("0bsd", "0BSD"),
    ("afl-2.1", "AFL-2.1"),
    ("afl-3.0", "AFL-3.0"),
    ("apache-1.1", "Apache-1.1"),
    ("apache-2", "Apache-2.0"),
    ("apache-2.0", "Apache-2.0"),
    ("artistic", "Artistic-1.0"),
    ("artistic-1.0", "Artistic-1.0"),
    ("artistic-2", "Artistic-2.0"),
    ("artistic-2.0", "Artistic-2.0"),
    ("beerware", "Beerware"),
    ("bsd-2-clause", "BSD-2-Clause"),
    ("bsd-3-clause", "BSD-3-Clause"),
    ("bsd-4-clause", "BSD-4-Clause"),
    ("bsd-4-clause-uc", "BSD-4-Clause-UC"),
    ("bsl-1.0", "BSL-1.0"),
    ("bzip2-1.0.6", "bzip2-1.0.6"),
    ("cc-by-3.0", "CC-BY-3.0"),
    ("cc-by-4.0", "CC-BY-4.0"),
    ("cc-by-sa-3.0", "CC-BY-SA-3.0"),
    ("cc-by-sa-4.0", "CC-BY-SA-4.0"),
    ("cc0", "CC0-1.0"),
    ("cc0-1.0", "CC0-1.0"),
    ("cddl-1.0", "CDDL-1.0"),
    ("cddl-1.1", "CDDL-1.1"),
    ("curl", "curl"),
    ("epl-1.0", "EPL-1.0"),
    ("epl-2.0", "EPL-2.0"),
    ("eupl-1.1", "EUPL-1.1"),
    ("eupl-1.2", "EUPL-1.2"),
    ("expat", "MIT"),
    ("fsfap", "FSFAP"),
    ("fsful", "FSFUL"),
    ("fsfullr", "FSFULLR"),
    ("hpnd", "HPND"),
    ("isc", "ISC"),
    ("lppl-1.3c", "LPPL-1.3c"),
    ("mit", "MIT"),
    ("mit-0", "MIT-0"),
    ("mpl-1.1", "MPL-1.1"),
    ("mpl-2.0", "MPL-2.0"),
    ("ms-pl", "MS-PL"),
    ("ncsa", "NCSA"),
    ("ntp", "NTP"),
    ("ofl-1.1", "OFL-1.1"),
    ("openssl", "OpenSSL"),
    ("php-3.01", "PHP-3.01"),
    ("postgresql", "PostgreSQL"),
    ("psf-2", "PSF-2.0"),
    ("psf-2.0", "PSF-2.0"),
    ("python-2.0", "Python-2.0"),
    ("ruby", "Ruby"),
    ("sissl", "SISSL"),
    ("sleepycat", "Sleepycat"),
    ("tcl", "TCL"),
    ("unicode-dfs-2016", "Unicode-DFS-2016"),
    ("unlicense", "Unlicense"),
    ("vim", "Vim"),
    ("w3c", "W3C"),
    ("wtfpl", "WTFPL"),
    ("x11", "X11"),
    ("zlib", "Zlib"),
    ("zpl-2.1", "ZPL-2.1"),
];
/// The GNU family, whose identifiers say whether later versions will do.
const GNU: &[(&str, &str)] = &[
    ("agpl-3", "AGPL-3.0"),
    ("gfdl-1.1", "GFDL-1.1"),
    ("gfdl-1.2", "GFDL-1.2"),
    ("gfdl-1.3", "GFDL-1.3"),
    ("gfdl-niv-1.1", "GFDL-1.1-no-invariants"),
    ("gfdl-niv-1.2", "GFDL-1.2-no-invariants"),
    ("gfdl-niv-1.3", "GFDL-1.3-no-invariants"),
    ("gpl-1", "GPL-1.0"),
    ("gpl-2", "GPL-2.0"),
    ("gpl-3", "GPL-3.0"),
    ("lgpl-2", "LGPL-2.0"),
    ("lgpl-2.1", "LGPL-2.1"),
    ("lgpl-3", "LGPL-3.0"),
];
/// A word of an exception, and the exception to the licence of this version; any where it has none.
const EXCEPTIONS: &[(&str, &str, &str)] = &[
    ("autoconf", "GPL-2.0", "Autoconf-exception-2.0"),
    ("autoconf", "GPL-3.0", "Autoconf-exception-3.0"),
    ("bison", "", "Bison-exception-2.2"),
    ("classpath", "", "Classpath-exception-2.0"),
    ("font", "", "Font-exception-2.0"),
    ("libtool", "", "Libtool-exception"),
    ("linux-syscall-note", "", "Linux-syscall-note"),
];

/// A licence that only its text tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Own {
    /// What its copyright file calls it.
    pub(super) name: String,
    /// What it says.
    pub(super) text: String,
}

/// Licences without a name in SPDX's list, by their `LicenseRef-`.
pub(super) type Owns = BTreeMap<String, Own>;

/// The licences of a package as one expression; nothing where the file names none.
pub(super) fn expression(copyright: &Copyright, owns: &mut Owns) -> Option<String> {
    let mut parts: Vec<String> = Vec::new();
    for licence in &copyright.licences {
        let part = one(licence, copyright, owns);
        if !parts.contains(&part) {
            parts.push(part);
        }
    }
    match parts.as_slice() {
        [] => None,
        [only] => Some(only.clone()),
        several => Some(
            several
                .iter()
                .map(|part| grouped(part))
                .collect::<Vec<_>>()
                .join(" AND "),
        ),
    }
}

/// An expression that others may stand beside.
fn grouped(expression: &str) -> String {
    match expression.contains(" OR ") || expression.contains(" AND ") {
        true => format!("({expression})"),
        false => expression.to_owned(),
    }
}

/// What stands in one `License` field.
fn one(written: &str, copyright: &Copyright, owns: &mut Owns) -> String {
    let spaced = written.replace(',', " , ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut parser = Parser {
        words: &words,
        copyright,
        owns: Owns::new(),
        references: BTreeMap::new(),
    };
    match parser.whole() {
        Some(expression) if parser.words.is_empty() => {
            owns.append(&mut parser.owns);
            expression
        }
        // Prose: one licence of its own.
        _ => own(written, copyright, owns),
    }
}

struct Parser<'a> {
    words: &'a [&'a str],
    copyright: &'a Copyright,
    owns: Owns,
    /// The references of names that were met: a text is hashed once, however often it is named.
    references: BTreeMap<String, String>,
}

impl Parser<'_> {
    fn take(&mut self, wanted: &str) -> bool {
        let found = self
            .words
            .first()
            .is_some_and(|word| word.eq_ignore_ascii_case(wanted));
        if found {
            self.words = &self.words[1..];
        }
        found
    }

    /// Lists that a comma parts bind least.
    fn whole(&mut self) -> Option<String> {
        let mut text = self.list()?;
        let mut joints: usize = 0;
        while self.take(",") {
            let joint = self.joint()?;
            let right = self.list()?;
            // What stands left is grouped: the text of a list once, what was joined with every joint.
            if joints == 0 {
                text = grouped(&text);
            } else {
                text.push(')');
            }
            joints = joints.saturating_add(1);
            text.extend([" ", joint, " ", &grouped(&right)]);
        }
        let open = "(".repeat(joints.saturating_sub(1));
        Some(open + &text)
    }

    /// `and` binds more than `or`, as in SPDX.
    fn list(&mut self) -> Option<String> {
        let mut text = self.name()?;
        while let Some(joint) = self.joint() {
            text.extend([" ", joint, " ", &self.name()?]);
        }
        Some(text)
    }

    fn joint(&mut self) -> Option<&'static str> {
        let joints = [("and", "AND"), ("or", "OR")];
        let found = joints.into_iter().find(|(word, _)| self.take(word));
        found.map(|(_, joint)| joint)
    }

    /// The reference of a licence that only its text tells.
    fn own(&mut self, written: &str) -> String {
        if let Some(known) = self.references.get(written) {
            return known.clone();
        }
        let reference = own(written, self.copyright, &mut self.owns);
        self.references
            .insert(written.to_owned(), reference.clone());
        reference
    }

    fn name(&mut self) -> Option<String> {
        let (word, rest) = self.words.split_first()?;
        if is_joint(word) || word.eq_ignore_ascii_case("with") {
            return None;
        }
        self.words = rest;
        if !self.take("with") {
            return Some(known(word).unwrap_or_else(|| self.own(word)));
        }
        let end = self.words.iter().position(|word| is_joint(word));
        let (exception, rest) = self.words.split_at(end.unwrap_or(self.words.len()));
        self.words = rest;
        if exception.is_empty() {
            return None;
        }
        let known = known(word).and_then(|base| {
            let exception = exception_to(&base, exception)?;
            Some(format!("{base} WITH {exception}"))
        });
        let written = format!("{word} with {}", exception.join(" "));
        Some(known.unwrap_or_else(|| self.own(&written)))
    }
}

fn is_joint(word: &str) -> bool {
    word == "," || word.eq_ignore_ascii_case("and") || word.eq_ignore_ascii_case("or")
}

/// The identifier of SPDX for a name without exceptions.
fn known(name: &str) -> Option<String> {
    let lower = name.to_ascii_lowercase();
    let find = |table: &[(&str, &'static str)], name: &str| {
        let found = table.iter().find(|(known, _)| *known == name);
        found.map(|(_, spdx)| *spdx)
    };
    let (base, later) = match lower.strip_suffix("+") {
        Some(base) => (base, true),
        None => (lower.as_str(), false),
    };
    // Some write a version in full.
    let gnu = find(GNU, base).or_else(|| find(GNU, base.strip_suffix(".0")?));
    if let Some(spdx) = gnu {
        let suffix = if later { "-or-later" } else { "-only" };
        return Some(format!("{spdx}{suffix}"));
    }
    let spdx = find(NAMES, base)?;
    Some(if later {
        format!("{spdx}+")
    } else {
        spdx.to_owned()
    })
}

fn exception_to(base: &str, words: &[&str]) -> Option<&'static str> {
    let first = words.first()?.to_ascii_lowercase();
    let fits =
        |(word, licence, _): &&(&str, &str, &str)| *word == first && base.starts_with(licence);
    let (_, _, exception) = EXCEPTIONS.iter().find(fits)?;
    // `Autoconf exception` and nothing more.
    let rest = words.get(1..).unwrap_or_default();
    let is_all = rest
        .iter()
        .all(|word| word.eq_ignore_ascii_case("exception"));
    is_all.then_some(exception)
}

/// A licence that only its text tells.
fn own(name: &str, copyright: &Copyright, owns: &mut Owns) -> String {
    let text = match copyright.texts.get(name) {
        Some(text) => cut(text),
        None => format!("The copyright file says '{}' and nothing more.", cut(name)),
    };
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '-';
    let mut plain: String = name
        .chars()
        .map(|c| if allowed(c) { c } else { '-' })
        .collect();
    plain.truncate(NAME_BYTES_MAX);
    let digest = Digest::of(format!("{name}\0{text}").as_bytes()).to_string();
    let reference = format!(
        "LicenseRef-{}-{}",
        plain.trim_matches('-'),
        digest.get(..DIGITS).unwrap_or_default()
    );
    let name = cut(name);
    owns.insert(reference.clone(), Own { name, text });
    reference
}

/// The beginning of a text that is too long; control characters are nothing for a document.
fn cut(text: &str) -> String {
    let end = text.floor_char_boundary(TEXT_BYTES_MAX);
    let kept = text.get(..end).unwrap_or_default();
    let is_text = |c: &char| !c.is_control() || *c == '\n' || *c == '\t';
    let mut kept: String = kept.chars().filter(is_text).collect();
    if end < text.len() {
        kept.push_str("\n[cut]");
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(licences: &[&str]) -> (Option<String>, Owns) {
        let copyright = Copyright {
            licences: licences.iter().map(|one| (*one).to_owned()).collect(),
            texts: BTreeMap::from([("own".to_owned(), "Text".to_owned())]),
        };
        let mut owns = Owns::new();
        let expression = expression(&copyright, &mut owns);
        (expression, owns)
    }

    #[test]
    fn names_become_expressions() {
        for (written, expected) in [
            ("GPL-2+", "GPL-2.0-or-later"),
            ("GPL-3.0", "GPL-3.0-only"),
            ("LGPL-2.1+", "LGPL-2.1-or-later"),
            ("GFDL-NIV-1.3+", "GFDL-1.3-no-invariants-or-later"),
            ("Expat", "MIT"),
            ("MPL-1.1+", "MPL-1.1+"),
            ("GPL-1+ or Artistic", "GPL-1.0-or-later OR Artistic-1.0"),
            (
                "GPL-2 or Expat, and BSD-3-clause",
                "(GPL-2.0-only OR MIT) AND BSD-3-Clause",
            ),
            ("ISC and zlib or CC0", "ISC AND Zlib OR CC0-1.0"),
            ("ISC, and Zlib", "ISC AND Zlib"),
            (
                "ISC or X11, and Zlib, or MIT and NTP, and CC0",
                "(((ISC OR X11) AND Zlib) OR (MIT AND NTP)) AND CC0-1.0",
            ),
            (
                "GPL-2+ with Autoconf exception and ISC",
                "GPL-2.0-or-later WITH Autoconf-exception-2.0 AND ISC",
            ),
        ] {
            let (expression, owns) = of(&[written]);
            assert_eq!(expression.as_deref(), Some(expected), "{written}");
            assert!(owns.is_empty());
        }
        assert_eq!(of(&[]).0, None);
        assert_eq!(
            of(&["ISC", "GPL-2 or Expat", "ISC"]).0.unwrap(),
            "ISC AND (GPL-2.0-only OR MIT)"
        );
    }

    /// Each of these took time with the square of its length.
    #[test]
    fn long_fields_take_no_longer_than_they_are() {
        let text = "x".repeat(TEXT_BYTES_MAX);
        let copyright = |licence: String| Copyright {
            licences: vec![licence],
            texts: BTreeMap::from([("own".to_owned(), text.clone())]),
        };
        for (joint, parens) in [(" or own", 0), (", and own", 99_999)] {
            let written = format!("own{}", joint.repeat(100_000));
            let expression = expression(&copyright(written), &mut Owns::new()).unwrap();
            assert_eq!(expression.matches('(').count(), parens);
            assert_eq!(expression.matches("LicenseRef-own-").count(), 100_001);
        }
    }

    #[test]
    fn what_has_no_name_has_a_text() {
        let (expression, owns) = of(&["own or ISC"]);
        let (reference, own) = owns.first_key_value().unwrap();
        assert_eq!(expression.unwrap(), format!("{reference} OR ISC"));
        assert_eq!((own.name.as_str(), own.text.as_str()), ("own", "Text"));
        for written in [
            "GPL version 2",
            "with x",
            "GPL-2 and",
            "GPL-2 with OpenSSL exception",
            "GPL-2, ISC",
            "é / (x) OR",
            ",",
        ] {
            let (expression, owns) = of(&[written]);
            let reference = owns.keys().next().unwrap();
            assert_eq!(expression.as_ref(), Some(reference), "{written}");
            let tail = reference.strip_prefix("LicenseRef-").unwrap();
            let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '-';
            assert!(tail.chars().all(is_plain), "{reference}");
        }
        let long = "x".repeat(TEXT_BYTES_MAX + 1);
        assert!(cut(&long).ends_with("[cut]"));
        assert_eq!(cut("a\u{1b}\tb"), "a\tb");
    }
}
