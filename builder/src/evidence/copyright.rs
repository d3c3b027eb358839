//! `/usr/share/doc/PACKAGE/copyright` where it is machine-readable (copyright-format 1.0): which
//! licences a package's files have. The text may be anyone's: what cannot be read says nothing.

use std::collections::BTreeMap;

use crate::debian::deb822::Stanzas;

/// The most different licences of one package.
const LICENCES_MAX: usize = 500;

/// What a copyright file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Copyright {
    /// The licences of groups of files, each once, as they are written: `GPL-2+ or Artistic`.
    pub(super) licences: Vec<String>,
    /// The text of a licence by its name, as far as it is in the file.
    pub(super) texts: BTreeMap<String, String>,
}

/// Reads a copyright file; nothing where it is not machine-readable.
pub(super) fn parse(text: &str) -> Option<Copyright> {
    let mut stanzas = Stanzas::new(text);
    let header = stanzas.next()?.ok()?;
    let format = header
        .get("Format")
        .or_else(|| header.get("Format-Specification"))?;
    if !format.contains("copyright-format") && !format.contains("dep5") {
        return None;
    }
    let mut copyright = Copyright::default();
    for stanza in std::iter::once(Ok(header)).chain(stanzas) {
        let stanza = stanza.ok()?;
        let Some(licence) = stanza.get("License") else {
            continue;
        };
        let (name, body) = licence.split_once('\n').unwrap_or((licence, ""));
        let name = name.split_whitespace().collect::<Vec<_>>().join(" ");
        if name.is_empty() {
            continue;
        }
        if !body.is_empty() {
            let texts = &mut copyright.texts;
            texts
                .entry(name.clone())
                .or_insert_with(|| unindented(body));
        }
        // A stanza without files tells what a name means.
        if stanza.get("Files").is_some() && !copyright.licences.contains(&name) {
            if copyright.licences.len() >= LICENCES_MAX {
                return None;
            }
            copyright.licences.push(name);
        }
    }
    Some(copyright)
}

/// Takes off what makes lines continue a field: one space, and the dot of an empty line.
fn unindented(body: &str) -> String {
    let lines = body.lines().map(|line| {
        let line = line.strip_prefix([' ', '\t']).unwrap_or(line).trim_end();
        if line == "." { "" } else { line }
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\
                        Upstream-Name: x\nLicense: Expat\n\nFiles: *\nCopyright: 1999 me\n\
                        License: GPL-2+ or\n Artistic\n\nFiles: a b\nCopyright: you\nLicense: own\n \
                        Do what\n  you like\n .\n for ever.\n\nFiles: c\nCopyright: me\n\
                        License: own\n\nLicense: GPL-2+\n See there.\n";

    #[test]
    fn licences_of_files_are_found() {
        let copyright = parse(TEXT).unwrap();
        assert_eq!(copyright.licences, ["GPL-2+ or", "own"]);
        assert_eq!(copyright.texts["own"], "Do what\n you like\n\nfor ever.");
        assert_eq!(copyright.texts["GPL-2+"], "See there.");
        assert_eq!(parse("This package was debianized by …\n"), None);
        assert_eq!(parse(""), None);
        assert_eq!(parse(&TEXT.replace("\nFiles: c", "\nFiles c")), None);
    }

    #[test]
    fn any_mutation_ends() {
        for index in 0..TEXT.len() {
            for byte in [b'\n', b':', b' ', 0, 0xff] {
                let mut bytes = TEXT.as_bytes().to_vec();
                bytes[index] = byte;
                let _ = parse(&String::from_utf8_lossy(&bytes));
            }
        }
    }
}
