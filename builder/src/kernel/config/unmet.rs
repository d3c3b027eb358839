//! Wants as requirements on a kernel that is there already.

use std::fmt;

use super::{DotConfig, Wanted};

/// What a kernel's .config does not meet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unmet {
    /// What was asked.
    pub wanted: Wanted,
    /// What the .config has: `n` where it does not name the symbol.
    pub found: String,
}

impl fmt::Display for Unmet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { wanted, found } = self;
        let Wanted {
            symbol,
            value,
            place,
            ..
        } = wanted;
        write!(f, "{symbol} is {found}, not {value} ({place})")
    }
}

/// Compares a prebuilt kernel's .config with what is wanted of it. `y` is met by `m` too where
/// `modules` says that drivers may be modules; `m` is met by `y`; `n` by absence; everything else
/// must be equal.
#[must_use]
pub fn unmet(wanted: &[Wanted], config: &DotConfig, modules: bool) -> Vec<Unmet> {
    let is_unmet = |one: &&Wanted| match (&*one.value, config.get(&one.symbol)) {
        ("y", "m") => !modules,
        ("m", "y") => false,
        (wanted, found) => wanted != found,
    };
    let unmet = wanted.iter().filter(is_unmet);
    unmet
        .map(|one| Unmet {
            wanted: one.clone(),
            found: config.get(&one.symbol).to_owned(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;

    #[test]
    fn requirements_are_compared() {
        let config =
            DotConfig::parse("CONFIG_A=y\nCONFIG_B=m\n# CONFIG_C is not set\nCONFIG_D=\"x y\"\n");
        let text = "CONFIG_A=y\nCONFIG_A=m\nCONFIG_B=y\nCONFIG_C=n\nCONFIG_Z=n\nCONFIG_D=\"x y\"\n";
        let met = parse(text, "t").unwrap();
        assert_eq!(unmet(&met, &config, true), []);
        assert_eq!(unmet(&met, &config, false).len(), 1);
        let not = unmet(&parse("CONFIG_C=y", "fragment t").unwrap(), &config, true);
        assert_eq!(
            not[0].to_string(),
            "CONFIG_C is n, not y (fragment t, line 1)"
        );
    }
}
