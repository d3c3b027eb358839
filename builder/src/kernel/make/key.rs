//! What a kernel from source is found by in the store.

use std::collections::BTreeMap;

use super::compiler::Compiler;
use crate::digest::Digest;
use crate::inputs::Record;
use crate::kernel::Target;
use crate::kernel::config::{Condition, Wanted};

/// Changes whenever the same source, configuration and compiler give other bytes than before.
const FORMAT: &str = "1";

/// What a kernel is made from, before a compiler is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BaseKey(Digest);

impl BaseKey {
    /// Takes the source's identity and what is wanted. Of several lines about one symbol under the
    /// same condition only the last one counts, and not their places: a comment more is no other
    /// kernel.
    pub(super) fn new(source: &Digest, wanted: &[Wanted], target: Target, defconfig: bool) -> Self {
        let mut record = Record::new("coop kernel");
        record.put("format", FORMAT.as_bytes());
        record.put("source", source.as_bytes());
        record.put("target", target.name().as_bytes());
        record.put("defconfig", &[u8::from(defconfig)]);
        // The order among different conditions decides which holds, so it is part of the key.
        let mut lines: BTreeMap<&str, Vec<(&Condition, &str)>> = BTreeMap::new();
        for wanted in wanted {
            if wanted.condition.only.is_some_and(|only| only != target) {
                continue;
            }
            let of_symbol = lines.entry(&wanted.symbol).or_default();
            of_symbol.retain(|(condition, _)| **condition != wanted.condition);
            of_symbol.push((&wanted.condition, &wanted.value));
        }
        for (symbol, of_symbol) in lines {
            for (condition, value) in of_symbol {
                record.put("symbol", symbol.as_bytes());
                for bound in [condition.from, condition.until] {
                    let bound = bound.map(|version| version.to_string());
                    record.put("version", bound.unwrap_or_default().as_bytes());
                }
                record.put("value", value.as_bytes());
            }
        }
        Self(record.finish())
    }

    /// The key with a compiler.
    pub(super) fn with(self, compiler: &Compiler) -> Digest {
        let mut record = Record::new("coop kernel made");
        record.put("base", self.0.as_bytes());
        for line in &compiler.lines {
            record.put("compiler", line.as_bytes());
        }
        record.finish()
    }
}

impl std::fmt::Display for BaseKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::config::parse;

    fn key(text: &str) -> Digest {
        let wanted = parse(text, "t").unwrap();
        BaseKey::new(&Digest::of(b""), &wanted, Target::Um, false).0
    }

    #[test]
    fn what_makes_no_other_kernel_makes_no_other_key() {
        let plain = key("CONFIG_A=y\nCONFIG_B=m\n");
        for same in [
            "# why\nCONFIG_B=m\n\nCONFIG_A=y\n",
            "CONFIG_A=n\nCONFIG_B=m\nCONFIG_A=y\n",
            "CONFIG_A=y\nCONFIG_B=m\n\n#: only x86_64\nCONFIG_A=n\n",
        ] {
            assert_eq!(key(same), plain, "{same}");
        }
        for other in [
            "CONFIG_A=y\n",
            "CONFIG_A=y\nCONFIG_B=y\n",
            "CONFIG_A=y\nCONFIG_B=m\n\n#: from 6.1\nCONFIG_A=n\n",
            "#: from 6.1\nCONFIG_A=n\n\nCONFIG_A=y\nCONFIG_B=m\n",
        ] {
            assert_ne!(key(other), plain, "{other}");
        }
    }

    #[test]
    fn everything_else_makes_another_key() {
        let base = |source: &[u8], target, defconfig| {
            BaseKey::new(&Digest::of(source), &[], target, defconfig)
        };
        let compiler = |line: &str| Compiler {
            lines: vec![line.to_owned()],
        };
        let first = base(b"a", Target::Um, false);
        assert_ne!(first, base(b"b", Target::Um, false));
        assert_ne!(first, base(b"a", Target::X86_64, false));
        assert_ne!(first, base(b"a", Target::Um, true));
        assert_ne!(
            first.with(&compiler("gcc 12")),
            first.with(&compiler("gcc 13"))
        );
    }
}
