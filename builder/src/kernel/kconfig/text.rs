//! Names and text as a `.config` writes them, and as a terminal may see them.

use std::borrow::Cow;

/// A symbol's name as Kconfig has it.
pub(super) fn bare(name: &str) -> &str {
    name.strip_prefix("CONFIG_").unwrap_or(name)
}

/// The text that a value's quotes hold; `None` where it is not quoted.
pub(super) fn unquoted(value: &str) -> Option<String> {
    let inner = value.strip_prefix('"')?;
    let mut text = String::new();
    let mut chars = inner.chars();
    loop {
        match chars.next()? {
            '"' => return chars.as_str().is_empty().then_some(text),
            '\\' => text.push(chars.next()?),
            c => text.push(c),
        }
    }
}

/// Text of a tree without what a terminal would obey.
pub(super) fn plain(text: &str) -> Cow<'_, str> {
    if text.contains(char::is_control) {
        Cow::Owned(text.replace(char::is_control, "?"))
    } else {
        Cow::Borrowed(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_are_taken_off() {
        assert_eq!(unquoted(r#""a \"b\\""#).unwrap(), "a \"b\\");
        for bad in ["plain", "\"open", "\"a\"b", "\"a\\", "\"", ""] {
            assert_eq!(unquoted(bad), None, "{bad}");
        }
    }
}
