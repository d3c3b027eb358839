//! The kernel's Kconfig language, read to say why a wished symbol did not hold.
//!
//! `conf` decides what a configuration becomes; it drops silently what it cannot hold. This module
//! reads the same files (`Documentation/kbuild/kconfig-language.rst` and
//! `kconfig-macro-language.rst` of the tree), takes the values that conf arrived at, and finds the
//! condition that was in the way. Every condition knows its file and line.
//!
//! Nothing of a tree is executed. Where a tree asks the compiler (`$(shell,…)`,
//! `$(cc-option,…)`), the answer is unknown here: conditions are evaluated to the range of values
//! that they can have.

mod evaluate;
mod explain;
mod expr;
mod files;
mod lexer;
mod limits;
mod macros;
mod model;
mod nearest;
mod parser;
mod plan;
mod reason;
mod text;

use std::collections::BTreeMap;
use std::path::Path;

pub use model::SymbolType;
pub use reason::{Dropped, Reason};

use super::Target;
use super::config::{DotConfig, Wanted};
use explain::Explainer;
use files::Files;
use model::{Model, Symbol};

/// Why a tree's Kconfig cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum KconfigError {
    /// Reading failed.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// A file that is included is not there.
    #[error("{from} includes {path}, which the kernel tree does not have")]
    NoFile {
        /// The file that is missing.
        path: String,
        /// What includes it.
        from: String,
    },
    /// A path leads out of the tree.
    #[error("the Kconfig file {0} is not inside of the kernel tree")]
    Outside(String),
    /// The text is not what Kconfig can be.
    #[error("{place}: {problem}")]
    Invalid {
        /// File and line.
        place: String,
        /// What is wrong there.
        problem: String,
    },
    /// A limit of coop is met.
    #[error("{what}: coop reads at most {limit} of a tree's Kconfig")]
    TooMuch {
        /// Where.
        what: String,
        /// The limit that is exceeded.
        limit: String,
    },
}

/// The symbols of a kernel tree.
#[derive(Debug)]
pub struct Kconfig {
    model: Model,
    puzzles: Vec<String>,
    /// Where other architectures define what this one does not, by name.
    elsewhere: BTreeMap<String, Vec<String>>,
}

/// What a tree says of a symbol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SymbolInfo<'k> {
    /// Without `CONFIG_`.
    pub name: &'k str,
    /// What it holds; `None` where the tree forgot to say.
    pub kind: Option<SymbolType>,
    /// The first prompt; without one it cannot be set by hand.
    pub prompt: Option<&'k str>,
    /// File and line of each entry: `fs/Kconfig:340`.
    pub places: Vec<String>,
}

impl Kconfig {
    /// Reads the Kconfig of a kernel tree, as `make ARCH=…` would for the target. Opens nothing
    /// outside of `root` and executes nothing.
    ///
    /// # Errors
    /// A file cannot be read or leads out of the tree, menus are not closed, macros have no end,
    /// or the tree is larger than any kernel's.
    pub fn read(root: &Path, target: Target) -> Result<Kconfig, KconfigError> {
        Kconfig::read_files(Files::new(root)?, target)
    }

    /// Reads files that are in memory, by their paths in the tree; the first is `Kconfig`.
    ///
    /// # Errors
    /// As [`Kconfig::read`]; a file that is included has to be among them.
    pub fn read_texts(texts: &[(&str, &str)], target: Target) -> Result<Kconfig, KconfigError> {
        Kconfig::read_files(Files::of(texts.iter().copied()), target)
    }

    fn read_files(mut files: Files, target: Target) -> Result<Kconfig, KconfigError> {
        let (model, puzzles) = parser::parse(&mut files, environment(target), "Kconfig")?;
        let elsewhere = elsewhere(&mut files, &model);
        Ok(Kconfig {
            model,
            puzzles,
            elsewhere,
        })
    }

    /// A symbol by its name, with or without `CONFIG_`; `None` where no file defines it.
    #[must_use]
    pub fn symbol(&self, name: &str) -> Option<SymbolInfo<'_>> {
        // The language does not forbid a name that begins so itself.
        [name, text::bare(name)]
            .into_iter()
            .find_map(|name| self.info(self.model.symbol(self.model.find(name)?)?))
    }

    /// Every symbol that the target can have, sorted by name.
    #[must_use]
    pub fn symbols(&self) -> Vec<SymbolInfo<'_>> {
        let mut symbols: Vec<SymbolInfo<'_>> = self
            .model
            .symbols
            .iter()
            .filter_map(|symbol| self.info(symbol))
            .collect();
        symbols.sort_unstable_by_key(|symbol| symbol.name);
        symbols
    }

    /// Lines that were not understood and left out, each with its place: a newer language than this
    /// one. Explanations may miss what they say.
    #[must_use]
    pub fn puzzles(&self) -> &[String] {
        &self.puzzles
    }

    /// Why a wish did not hold in what conf made of it.
    #[must_use]
    pub fn explain(&self, config: &DotConfig, wanted: &Wanted) -> Dropped {
        self.explainer(config, std::slice::from_ref(wanted))
            .dropped(wanted)
    }

    /// The wishes of `wanted` that did not hold, each with its reason, in their order. As it knows
    /// all of them, it can say which took a choice, and suggests only what is not asked for.
    #[must_use]
    pub fn dropped(&self, config: &DotConfig, wanted: &[Wanted]) -> Vec<Dropped> {
        let explainer = self.explainer(config, wanted);
        let lost = |one: &&Wanted| !explainer.holds(&one.symbol, &one.value);
        let lost = wanted.iter().filter(lost);
        lost.map(|one| explainer.dropped(one)).collect()
    }

    fn explainer<'a>(&'a self, config: &'a DotConfig, wanted: &'a [Wanted]) -> Explainer<'a> {
        let wishes = wanted.iter().map(|one| {
            let Wanted { symbol, value, .. } = one;
            (symbol.as_str(), value.as_str(), one.place.to_string())
        });
        Explainer::new(self, config.iter(), wishes)
    }

    fn info<'k>(&'k self, symbol: &'k Symbol) -> Option<SymbolInfo<'k>> {
        if symbol.entries.is_empty() {
            return None;
        }
        let entries = || symbol.entries.iter().filter_map(|id| self.model.entry(*id));
        let prompt = entries().find_map(|entry| entry.prompts.first());
        Some(SymbolInfo {
            name: &symbol.name,
            kind: symbol.kind,
            prompt: prompt.map(|prompt| &*prompt.text),
            places: entries()
                .map(|entry| self.model.place(entry.spot))
                .collect(),
        })
    }
}

/// Looks for definitions in the upper files of every architecture. It is for a hint, so that what
/// cannot be read is passed over.
fn elsewhere(files: &mut Files, model: &Model) -> BTreeMap<String, Vec<String>> {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let patterns = ["arch/*/Kconfig*", "arch/*/*/Kconfig"];
    let paths = patterns.map(|pattern| files.matching(pattern).unwrap_or_default());
    let mut paths = paths.concat();
    // Those that coop has a target for are said first.
    paths.sort_by_key(|path| !(path.starts_with("arch/um/") || path.starts_with("arch/x86/")));
    for path in paths {
        let Ok(Some(text)) = files.text(&path) else {
            continue;
        };
        for (number, line) in text.lines().enumerate() {
            let name = line.strip_prefix("menu").unwrap_or(line);
            let Some(name) = name.strip_prefix("config ").map(str::trim) else {
                continue;
            };
            if model.find(name).is_none_or(|id| !model.is_defined(id)) {
                let place = format!("{path}:{}", number + 1);
                found.entry(name.to_owned()).or_default().push(place);
            }
        }
    }
    found
}

/// What the kernel's Makefile exports to conf and the tree's files ask for. What is not here (the
/// compiler's name, its version) is unknown.
fn environment(target: Target) -> &'static [(&'static str, &'static str)] {
    match target {
        Target::Um => &[
            ("ARCH", "um"),
            ("SRCARCH", "um"),
            ("SUBARCH", "x86"),
            ("HEADER_ARCH", "x86"),
            ("srctree", "."),
        ],
        Target::X86_64 => &[
            ("ARCH", "x86_64"),
            ("SRCARCH", "x86"),
            ("SUBARCH", "x86"),
            ("srctree", "."),
        ],
    }
}

#[cfg(test)]
mod tests;
