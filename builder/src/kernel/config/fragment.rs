//! The text of a fragment, line by line.

use super::wanted::shorten;
use super::{Condition, Place, Wanted, check_symbol, check_value};

/// The largest fragment or .config that is read, in bytes; Debian's own has 300 KiB.
pub const FRAGMENT_BYTES_MAX: usize = 4 << 20;
/// The most symbols in one fragment; the whole kernel has 20,000.
const SYMBOLS_MAX: usize = 50_000;

/// Why a fragment cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {reason}")]
pub struct FragmentError {
    /// The line.
    pub place: Place,
    /// A lowercase sentence.
    pub reason: String,
}

/// Reads a fragment: `CONFIG_A=value`, `# CONFIG_A is not set`, comments, and conditions for the
/// paragraphs that they head. `origin` is what its places are called.
///
/// # Errors
/// The first line that is none of that, or a text beyond the limits.
pub fn parse(text: &str, origin: &str) -> Result<Vec<Wanted>, FragmentError> {
    let mut reader = Reader {
        origin,
        condition: Condition::default(),
        symbols_here: false,
        wanted: Vec::new(),
    };
    let failed = |line: usize, reason: String| FragmentError {
        place: place(origin, line),
        reason,
    };
    if text.len() > FRAGMENT_BYTES_MAX {
        let reason = format!("more than {FRAGMENT_BYTES_MAX} bytes are no kernel configuration");
        return Err(failed(1, reason));
    }
    for (index, line) in text.lines().enumerate() {
        let number = index.saturating_add(1);
        reader
            .line(number, line.trim())
            .map_err(|reason| failed(number, reason))?;
    }
    Ok(reader.wanted)
}

fn place(origin: &str, line: usize) -> Place {
    Place {
        origin: origin.to_owned(),
        line,
    }
}

struct Reader<'o> {
    origin: &'o str,
    /// What the paragraph's head says.
    condition: Condition,
    /// Whether the paragraph has a symbol already.
    symbols_here: bool,
    wanted: Vec<Wanted>,
}

impl Reader<'_> {
    fn line(&mut self, number: usize, line: &str) -> Result<(), String> {
        if line.is_empty() {
            self.condition = Condition::default();
            self.symbols_here = false;
            return Ok(());
        }
        if let Some(condition) = line.strip_prefix("#:") {
            if self.symbols_here {
                return Err("a condition stands before the symbols of its paragraph".to_owned());
            }
            return self.condition.add(condition);
        }
        let unset = line
            .strip_prefix('#')
            .and_then(|rest| rest.trim_start().strip_suffix(" is not set"))
            .filter(|symbol| symbol.starts_with("CONFIG_"));
        let (symbol, value) = match unset {
            Some(symbol) => (symbol, "n"),
            None if line.starts_with('#') => return Ok(()),
            None => line.split_once('=').ok_or_else(|| {
                format!(
                    "'{}' is not a line of a kernel configuration",
                    shorten(line)
                )
            })?,
        };
        check_symbol(symbol)?;
        check_value(symbol, value)?;
        if self.wanted.len() >= SYMBOLS_MAX {
            return Err(format!("more than {SYMBOLS_MAX} symbols"));
        }
        self.symbols_here = true;
        self.wanted.push(Wanted {
            symbol: symbol.to_owned(),
            value: value.to_owned(),
            place: place(self.origin, number),
            condition: self.condition,
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::Target;
    use crate::kernel::config::Version;

    fn lines(text: &str) -> Vec<(String, String, usize)> {
        let wanted = parse(text, "t").unwrap().into_iter();
        wanted
            .map(|one| (one.symbol, one.value, one.place.line))
            .collect()
    }

    #[test]
    fn every_kind_of_line_is_read() {
        let text = "# about\r\nCONFIG_A=y\n\n# CONFIG_B is not set\n#CONFIG_C is not set\n\
                    CONFIG_D=\"a = b\"\n  CONFIG_E=-1  \n# the rest is not set\n";
        let expected = [
            ("CONFIG_A", "y", 2),
            ("CONFIG_B", "n", 4),
            ("CONFIG_C", "n", 5),
            ("CONFIG_D", "\"a = b\"", 6),
            ("CONFIG_E", "-1", 7),
        ];
        let expected = expected.map(|(symbol, value, line)| (symbol.into(), value.into(), line));
        assert_eq!(lines(text), expected);
        assert_eq!(lines(""), []);
    }

    #[test]
    fn conditions_hold_for_their_paragraph() {
        let text = "# why\n#: only um\n#: from 6.16\n# more\nCONFIG_A=y\n# x\nCONFIG_B=y\n\n\
                    CONFIG_C=y\n";
        let wanted = parse(text, "t").unwrap();
        let here = Condition {
            only: Some(Target::Um),
            from: Version::parse("6.16"),
            until: None,
        };
        let conditions = wanted.iter().map(|one| one.condition);
        assert!(conditions.eq([here, here, Condition::default()]));
    }

    #[test]
    fn wrong_lines_are_named() {
        for (text, line, part) in [
            ("CONFIG_A=y\n\nFOO=1", 3, "'FOO' is not a kernel symbol"),
            ("CONFIG_A", 1, "not a line of a kernel configuration"),
            ("CONFIG_A=", 1, "cannot be the value of CONFIG_A"),
            ("CONFIG_A=yes", 1, "y, m, n, a whole number"),
            ("# CONFIG_-B is not set", 1, "not a kernel symbol"),
            ("\n#: only arm\nCONFIG_A=y", 2, "not a condition"),
            ("CONFIG_A=y\n#: only um", 2, "before the symbols"),
            ("#: only um\n#: only x86_64", 2, "two conditions 'only'"),
        ] {
            let error = parse(text, "fragment t").unwrap_err();
            assert_eq!(error.place.line, line, "{text}");
            let text = error.to_string();
            assert!(text.contains(part), "{text}");
            assert!(text.starts_with("fragment t, line "), "{text}");
        }
    }

    #[test]
    fn size_and_count_have_limits() {
        assert!(parse(&"#".repeat(FRAGMENT_BYTES_MAX + 1), "t").is_err());
        assert!(parse(&"CONFIG_A=y\n".repeat(SYMBOLS_MAX + 1), "t").is_err());
        let error = parse(&"x".repeat(1 << 20), "t").unwrap_err();
        assert!(error.to_string().len() < 300);
    }
}
