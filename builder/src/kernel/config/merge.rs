//! Many wants become one configuration.

use std::collections::BTreeMap;
use std::fmt;

use super::{Version, Wanted};
use crate::kernel::Target;

/// Two places of one recipe that want different things.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The symbol.
    pub symbol: String,
    /// What is overruled.
    pub earlier: Wanted,
    /// What holds.
    pub later: Wanted,
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            symbol,
            earlier,
            later,
        } = self;
        write!(
            f,
            "{symbol} is wanted as {} by {} and as {} by {}; the later one holds",
            earlier.value, earlier.place, later.value, later.place
        )
    }
}

/// What is wanted of one kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Merged {
    /// Each symbol once, sorted by name.
    pub wanted: Vec<Wanted>,
    /// Where a later line overruled another value, in the order of the lines.
    pub conflicts: Vec<Conflict>,
}

impl Merged {
    /// The lines of a .config, sorted by symbol, each with its end: what `KCONFIG_ALLCONFIG` takes.
    #[must_use]
    pub fn text(&self) -> String {
        let lines = self.wanted.iter().map(|wanted| wanted.line() + "\n");
        lines.collect()
    }
}

/// Takes what holds for a target and a version. The last line about a symbol wins; where it says
/// something else than the one before, that is a conflict.
#[must_use]
pub fn merge(wanted: &[Wanted], target: Target, version: Version) -> Merged {
    let mut by_symbol: BTreeMap<&str, &Wanted> = BTreeMap::new();
    let mut conflicts = Vec::new();
    for later in wanted {
        if !later.condition.holds(target, version) {
            continue;
        }
        let earlier = by_symbol.insert(&later.symbol, later);
        if let Some(earlier) = earlier.filter(|earlier| earlier.value != later.value) {
            conflicts.push(Conflict {
                symbol: later.symbol.clone(),
                earlier: earlier.clone(),
                later: later.clone(),
            });
        }
    }
    Merged {
        wanted: by_symbol.into_values().cloned().collect(),
        conflicts,
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;

    const VERSION: Version = Version { major: 7, minor: 2 };

    #[test]
    fn the_later_line_wins_and_both_places_are_named() {
        let mut wanted = parse("CONFIG_B=y\nCONFIG_A=y\n", "fragment base").unwrap();
        wanted.extend(parse("CONFIG_A=y\n\nCONFIG_B=n\n", "./site.config").unwrap());
        let merged = merge(&wanted, Target::Um, VERSION);
        assert_eq!(merged.text(), "CONFIG_A=y\n# CONFIG_B is not set\n");
        let conflicts: Vec<String> = merged.conflicts.iter().map(Conflict::to_string).collect();
        assert_eq!(
            conflicts,
            [
                "CONFIG_B is wanted as y by fragment base, line 1 and as n by ./site.config:3; the later one holds"
            ]
        );
    }

    #[test]
    fn what_does_not_hold_is_not_wanted() {
        let text =
            "#: only x86_64\nCONFIG_A=n\n\n#: until 6.15\nCONFIG_A=m\n\n#: only um\nCONFIG_A=y\n";
        let merged = merge(&parse(text, "t").unwrap(), Target::Um, VERSION);
        assert_eq!(merged.text(), "CONFIG_A=y\n");
        assert_eq!(merged.conflicts, []);
    }
}
