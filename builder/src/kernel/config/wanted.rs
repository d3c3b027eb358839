//! One wanted symbol, and where it is written.

use std::fmt;

use serde::Serialize;

use super::Condition;

/// The longest value, in bytes: Kconfig's own lines are not longer.
const VALUE_BYTES_MAX: usize = 4096;
/// The longest name of a symbol, in bytes; the kernel's longest has 60.
const SYMBOL_BYTES_MAX: usize = 256;
/// The longest piece of somebody's text that a sentence shows, in characters.
const SHOWN_MAX: usize = 60;

/// What a kernel's .config is to say about a symbol.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Wanted {
    /// The symbol with its prefix, as `CONFIG_VIRTIO_UML`.
    pub symbol: String,
    /// The value as in a .config: `y`, `m`, `n`, a number, or text in quotes.
    pub value: String,
    /// Who asks. It is not part of the canonical form: a comment more in a fragment is no other
    /// kernel.
    #[serde(skip)]
    pub place: Place,
    /// Where it is wanted at all.
    pub condition: Condition,
}

impl Wanted {
    /// The line of a .config that says so.
    #[must_use]
    pub fn line(&self) -> String {
        match &*self.value {
            "n" => format!("# {} is not set", self.symbol),
            value => format!("{}={value}", self.symbol),
        }
    }
}

/// A line of a fragment, a file or the recipe.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// `fragment base`, a file's name as the recipe writes it, or `recipe`.
    pub origin: String,
    /// The line, counted from 1.
    pub line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { origin, line } = self;
        if origin.starts_with("fragment ") {
            write!(f, "{origin}, line {line}")
        } else {
            write!(f, "{origin}:{line}")
        }
    }
}

/// Checks a symbol's name, with its prefix.
///
/// # Errors
/// A lowercase sentence.
pub fn check_symbol(symbol: &str) -> Result<(), String> {
    let name = symbol.strip_prefix("CONFIG_").unwrap_or_default();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    if name.is_empty() || symbol.len() > SYMBOL_BYTES_MAX || !name.bytes().all(plain) {
        let symbol = shorten(symbol);
        return Err(format!(
            "'{symbol}' is not a kernel symbol; they look like CONFIG_EXT4_FS"
        ));
    }
    Ok(())
}

/// Checks that a value can stand in a .config: `y`, `m`, `n`, a whole number, decimal or
/// hexadecimal, or text in quotes.
///
/// # Errors
/// A lowercase sentence.
pub fn check_value(symbol: &str, value: &str) -> Result<(), String> {
    let good = matches!(value, "y" | "m" | "n") || is_number(value) || is_quoted(value);
    if good && value.len() <= VALUE_BYTES_MAX {
        return Ok(());
    }
    let value = shorten(value);
    Err(format!(
        "'{value}' cannot be the value of {symbol}: that is y, m, n, a whole number, or text in quotes"
    ))
}

/// Whether a value is a whole number, decimal or hexadecimal.
fn is_number(value: &str) -> bool {
    let digits = |text: &str, good: fn(&u8) -> bool| {
        !text.is_empty() && text.len() <= 32 && text.as_bytes().iter().all(good)
    };
    let hexadecimal = value.strip_prefix("0x").or(value.strip_prefix("0X"));
    match hexadecimal {
        Some(rest) => digits(rest, u8::is_ascii_hexdigit),
        None => digits(value.strip_prefix('-').unwrap_or(value), u8::is_ascii_digit),
    }
}

/// Whether a value is text in quotes whose inner quotes are escaped.
fn is_quoted(value: &str) -> bool {
    let Some(inner) = value
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'))
    else {
        return false;
    };
    let mut characters = inner.chars();
    while let Some(character) = characters.next() {
        let good = match character {
            '\\' => characters.next().is_some_and(|next| !next.is_control()),
            '"' => false,
            other => !other.is_control(),
        };
        if !good {
            return false;
        }
    }
    true
}

/// Text as a .config writes it: in quotes, with a backslash before quotes and backslashes.
#[must_use]
pub fn quote(text: &str) -> String {
    let mut quoted = String::from('"');
    for character in text.chars() {
        if matches!(character, '"' | '\\') {
            quoted.push('\\');
        }
        quoted.push(character);
    }
    quoted.push('"');
    quoted
}

/// The first characters of somebody's text, on one line.
pub(super) fn shorten(text: &str) -> String {
    let plain = |character: char| {
        if character.is_control() {
            '?'
        } else {
            character
        }
    };
    let mut short: String = text.chars().take(SHOWN_MAX).map(plain).collect();
    if text.chars().nth(SHOWN_MAX).is_some() {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_those_of_a_configuration() {
        for good in [
            "y",
            "m",
            "n",
            "12",
            "-1",
            "0x1F",
            "0",
            "\"\"",
            "\"a b\"",
            r#""a\"b\\""#,
        ] {
            assert_eq!(check_value("CONFIG_A", good), Ok(()), "{good}");
        }
        let long = format!("\"{}\"", "x".repeat(5000));
        for bad in [
            "", "yes", "Y", "1.5", "0x", "-", "--1", "y # x", "\"", "\"a", "\"a\"b\"", r#""a\""#,
            "\"a\nb\"", &long,
        ] {
            let error = check_value("CONFIG_A", bad).unwrap_err();
            assert!(error.len() < 300, "{error}");
        }
    }

    #[test]
    fn quoted_text_is_a_value() {
        for text in ["", "a b", r#"say "x""#, r"back\slash", "trailing\\"] {
            assert!(check_value("CONFIG_A", &quote(text)).is_ok(), "{text}");
        }
    }

    #[test]
    fn places_read_well() {
        let at = |origin: &str| {
            Place {
                origin: origin.to_owned(),
                line: 12,
            }
            .to_string()
        };
        assert_eq!(at("fragment base"), "fragment base, line 12");
        assert_eq!(at("./site.config"), "./site.config:12");
        assert_eq!(at("recipe"), "recipe:12");
    }
}
