//! What packages of Debian need from the kernel: a maintained table with its sources, and what a
//! kernel configuration leaves unmet of it.

mod table;

use std::collections::BTreeSet;
use std::fmt;

use super::config::DotConfig;

pub use table::table;

/// How badly a package needs something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Without it the package does not do its work.
    Required,
    /// Without it some of what the package can do falls away.
    Recommended,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Required => "required",
            Self::Recommended => "recommended",
        })
    }
}

/// One thing that one package needs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Need {
    /// Name of the Debian package.
    pub package: &'static str,
    /// How badly.
    pub level: Level,
    /// Symbols without `CONFIG_`, one of which is enough, as `y` or as `m`; never empty.
    pub any_of: Vec<&'static str>,
    /// The need holds only for kernels that have this symbol.
    pub only_if: Option<&'static str>,
    /// What it is needed for: part of a sentence.
    pub why: &'static str,
    /// Where the fact comes from.
    pub source: &'static str,
}

/// A need that a kernel configuration does not meet.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Unmet {
    /// Name of the Debian package.
    pub package: String,
    /// How badly.
    pub level: Level,
    /// The symbol with `CONFIG_`; alternatives are joined by ` or `.
    pub symbol: String,
    /// What it is needed for: part of a sentence.
    pub why: String,
    /// Where the fact comes from.
    pub source: String,
}

impl fmt::Display for Unmet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            package,
            symbol,
            why,
            source,
            ..
        } = self;
        let verb = match self.level {
            Level::Required => "needs",
            Level::Recommended => "would like",
        };
        write!(f, "package {package} {verb} {symbol}: {why} ({source})")
    }
}

/// What of the needs of `packages` the text of a .config does not meet, sorted by package, level
/// and symbol. Packages that the table does not know need nothing.
#[must_use]
pub fn unmet(packages: &BTreeSet<&str>, config: &str) -> Vec<Unmet> {
    let config = DotConfig::parse(config);
    let has = |symbol: &str| matches!(config.get(&prefixed(symbol)), "y" | "m");
    let mut unmet: Vec<Unmet> = table()
        .into_iter()
        .filter(|need| packages.contains(need.package))
        .filter(|need| need.only_if.is_none_or(has))
        .filter(|need| !need.any_of.iter().any(|symbol| has(symbol)))
        .map(|need| Unmet {
            package: need.package.to_owned(),
            level: need.level,
            symbol: joined(&need.any_of),
            why: need.why.to_owned(),
            source: need.source.to_owned(),
        })
        .collect();
    unmet.sort();
    unmet
}

fn prefixed(symbol: &str) -> String {
    format!("CONFIG_{symbol}")
}

fn joined(symbols: &[&str]) -> String {
    let symbols: Vec<String> = symbols.iter().map(|symbol| prefixed(symbol)).collect();
    symbols.join(" or ")
}

#[cfg(test)]
mod tests;
