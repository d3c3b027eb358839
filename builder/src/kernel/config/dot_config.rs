//! A .config as the kernel's build left it.

use std::collections::BTreeMap;

/// The most symbols that are read; the whole kernel has 20,000.
const SYMBOLS_MAX: usize = 100_000;

/// A .config: symbols, with their prefix, and values. Lines that are not of its form are passed
/// over; the kernel's own tools wrote it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DotConfig(BTreeMap<String, String>);

impl DotConfig {
    /// Reads a .config.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let lines = text.lines().filter_map(|line| line.split_once('='));
        let symbols = lines.filter(|(symbol, _)| symbol.starts_with("CONFIG_"));
        let owned = symbols.map(|(symbol, value)| (symbol.to_owned(), value.to_owned()));
        Self(owned.take(SYMBOLS_MAX).collect())
    }

    /// A symbol's value as it is written; `n` where it has none.
    #[must_use]
    pub fn get(&self, symbol: &str) -> &str {
        self.0.get(symbol).map_or("n", String::as_str)
    }

    /// Every symbol that is set, with its value, sorted.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let symbols = self.0.iter();
        symbols.map(|(symbol, value)| (symbol.as_str(), value.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_set_is_n() {
        let config = DotConfig::parse(
            "#\n# Linux\n#\nCONFIG_B=\"a=b\"\nCONFIG_A=m\n# CONFIG_C is not set\nFOO=y\n",
        );
        assert_eq!(config.get("CONFIG_A"), "m");
        assert_eq!(config.get("CONFIG_B"), "\"a=b\"");
        assert_eq!(config.get("CONFIG_C"), "n");
        assert_eq!(config.iter().count(), 2);
    }
}
