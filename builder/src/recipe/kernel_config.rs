//! Kconfig fragments as requirements on a prebuilt kernel's .config.

use std::collections::BTreeMap;

use super::model::Requirement;
use super::units::shorten;

/// The fragments that coop carries, by the name that a recipe uses.
const FRAGMENTS: [(&str, &str); 2] = [
    ("base", include_str!("../../../kernel-config/base.config")),
    (
        "virtio",
        include_str!("../../../kernel-config/virtio.config"),
    ),
];
/// The largest .config or fragment that is read, in bytes; Debian's has 150 KiB.
pub(super) const CONFIG_SIZE_MAX: u64 = 4 << 20;
/// The longest value, in bytes.
const VALUE_SIZE_MAX: usize = 4096;

/// The names of the fragments that coop carries.
pub(super) fn fragment_names() -> impl Iterator<Item = &'static str> {
    FRAGMENTS.into_iter().map(|(name, _)| name)
}

/// The text of a fragment that coop carries.
pub(super) fn fragment(name: &str) -> Option<&'static str> {
    FRAGMENTS
        .into_iter()
        .find(|(known, _)| *known == name)
        .map(|(_, text)| text)
}

/// Reads the lines `CONFIG_X=value` and `# CONFIG_X is not set`; other comments and empty lines
/// say nothing.
///
/// # Errors
/// The first line that is neither, with its number from 1.
pub(super) fn parse_config(text: &str) -> Result<BTreeMap<String, String>, (usize, String)> {
    let mut symbols = BTreeMap::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        let unset = line
            .strip_prefix("# ")
            .and_then(|rest| rest.strip_suffix(" is not set"));
        if let Some(symbol) = unset {
            symbols.insert(symbol.to_owned(), "n".to_owned());
            continue;
        }
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let reason = || {
            format!(
                "'{}' is not a line of a kernel configuration",
                shorten(line)
            )
        };
        let (symbol, value) = line.split_once('=').ok_or_else(|| (index + 1, reason()))?;
        check_symbol(symbol, value).map_err(|reason| (index + 1, reason))?;
        symbols.insert(symbol.to_owned(), value.to_owned());
    }
    Ok(symbols)
}

/// Checks that a symbol and its value can stand in a .config.
pub(super) fn check_symbol(symbol: &str, value: &str) -> Result<(), String> {
    let name = symbol.strip_prefix("CONFIG_").unwrap_or_default();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    if name.is_empty() || !name.bytes().all(plain) {
        let symbol = shorten(symbol);
        return Err(format!(
            "'{symbol}' is not a kernel symbol; they look like CONFIG_EXT4_FS"
        ));
    }
    if value.is_empty() || value.len() > VALUE_SIZE_MAX || value.contains(char::is_control) {
        let value = shorten(value);
        return Err(format!("'{value}' cannot be the value of {symbol}"));
    }
    Ok(())
}

/// What a kernel's .config does not meet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unmet {
    /// What was asked.
    pub requirement: Requirement,
    /// What the .config has: `n` where it does not name the symbol.
    pub found: String,
}

/// Compares a prebuilt kernel's .config with the requirements. `y` is met by `m` too where
/// `modules` says that drivers may be modules; `m` is met by `y`; `n` by absence; everything else
/// must be equal. Lines that are not of a .config's form count as absent.
#[must_use]
pub fn unmet(requirements: &[Requirement], config: &str, modules: bool) -> Vec<Unmet> {
    let mut have = BTreeMap::new();
    for line in config.lines() {
        if let Some((symbol, value)) = line.split_once('=') {
            have.insert(symbol, value);
        }
    }
    let found = |symbol: &str| have.get(symbol).copied().unwrap_or("n");
    requirements
        .iter()
        .filter(|requirement| {
            let found = found(&requirement.symbol);
            match (&*requirement.value, found) {
                ("y", "m") => !modules,
                ("m", "y") => false,
                (wanted, found) => wanted != found,
            }
        })
        .map(|requirement| Unmet {
            requirement: requirement.clone(),
            found: found(&requirement.symbol).to_owned(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requirement(symbol: &str, value: &str) -> Requirement {
        Requirement {
            symbol: symbol.to_owned(),
            value: value.to_owned(),
            origin: "the recipe".to_owned(),
        }
    }

    #[test]
    fn our_fragments_are_configurations() {
        for name in fragment_names() {
            assert!(!parse_config(fragment(name).unwrap()).unwrap().is_empty());
        }
    }

    #[test]
    fn requirements_are_compared() {
        let config = "CONFIG_A=y\nCONFIG_B=m\n# CONFIG_C is not set\nCONFIG_D=\"x y\"\n";
        let met = [
            requirement("CONFIG_A", "y"),
            requirement("CONFIG_A", "m"),
            requirement("CONFIG_B", "y"),
            requirement("CONFIG_C", "n"),
            requirement("CONFIG_Z", "n"),
            requirement("CONFIG_D", "\"x y\""),
        ];
        assert_eq!(unmet(&met, config, true), []);
        assert_eq!(unmet(&met, config, false).len(), 1);
        let not = unmet(&[requirement("CONFIG_C", "y")], config, true);
        assert_eq!(not[0].found, "n");
    }

    #[test]
    fn wrong_lines_are_named() {
        assert_eq!(parse_config("CONFIG_A=y\n\nFOO=1").unwrap_err().0, 3);
        assert!(parse_config("CONFIG_A").is_err());
        assert!(parse_config("CONFIG_A=").is_err());
        assert_eq!(
            parse_config("# CONFIG_A is not set").unwrap()["CONFIG_A"],
            "n"
        );
    }
}
