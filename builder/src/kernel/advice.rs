//! What the packages of a root file system need of its kernel and do not find there, and which
//! fragment of coop's would give it.

use std::collections::BTreeSet;
use std::fmt;

use super::Target;
use super::config::{self, Version};
use super::needs::{self, Unmet};

/// A need that is not met, and how to meet it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advice {
    /// The need.
    pub unmet: Unmet,
    /// Which kernel it is: `7.2.13`.
    pub kernel: String,
    /// The fragments that ask for one of the symbols, for this target and version, sorted.
    pub fragments: Vec<&'static str>,
}

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            unmet,
            kernel,
            fragments,
        } = self;
        write!(f, "{unmet}; kernel {kernel} has not")?;
        if !fragments.is_empty() {
            let names = fragments.join("' or '");
            write!(f, ", fragment '{names}' in kernel.config does")?;
        }
        Ok(())
    }
}

/// Compares what packages need with a kernel's .config. `version` begins with the kernel's version.
#[must_use]
pub fn advice(
    packages: &BTreeSet<&str>,
    config: &str,
    target: Target,
    version: &str,
) -> Vec<Advice> {
    let unmet = needs::unmet(packages, config);
    if unmet.is_empty() {
        return Vec::new();
    }
    let carried = carried(target, version);
    let with = |unmet: Unmet| Advice {
        fragments: carried
            .iter()
            .filter(|(_, symbols)| {
                let mut needed = unmet.symbol.split(" or ");
                needed.any(|symbol| symbols.contains(symbol))
            })
            .map(|(name, _)| *name)
            .collect(),
        kernel: version.to_owned(),
        unmet,
    };
    unmet.into_iter().map(with).collect()
}

/// The symbols that each of coop's fragments turns on.
fn carried(target: Target, version: &str) -> Vec<(&'static str, BTreeSet<String>)> {
    // A version that cannot be read has what is for all versions.
    let version = Version::of_release(version).unwrap_or(Version { major: 0, minor: 0 });
    let names = config::fragment_names();
    let symbols = names.map(|name| {
        let text = config::fragment(name).unwrap_or_default();
        let wanted = config::parse(text, name).unwrap_or_default();
        let on = config::merge(&wanted, target, version)
            .wanted
            .into_iter()
            .filter(|wanted| matches!(&*wanted.value, "y" | "m"))
            .map(|wanted| wanted.symbol);
        (name, on.collect())
    });
    symbols.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fragment_that_has_it_is_named() {
        let packages = BTreeSet::from(["nftables", "hello"]);
        let found = advice(&packages, "CONFIG_INET=y\n", Target::Um, "7.2.13");
        let found = found
            .iter()
            .find(|one| one.unmet.symbol.contains("CONFIG_NF_TABLES"))
            .unwrap();
        assert!(found.fragments.contains(&"netfilter"), "{found:?}");
        let text = found.to_string();
        assert!(text.starts_with("package nftables needs CONFIG_"), "{text}");
        assert!(
            text.contains("; kernel 7.2.13 has not, fragment '"),
            "{text}"
        );
        let all = config::fragment("netfilter").unwrap();
        let met = advice(&packages, all, Target::Um, "7.2.13");
        assert!(met.iter().all(|one| one.unmet.symbol != found.unmet.symbol));
    }
}
