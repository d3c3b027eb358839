//! Why a wished value did not hold, as values and as sentences.

use std::fmt;

use super::model::SymbolType;
use crate::kernel::config::Wanted;

/// Names that one sentence lists.
const LISTED_MAX: usize = 5;

/// A wish that did not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dropped {
    /// What was asked for, and by whom.
    pub wanted: Wanted,
    /// What it is instead, as in a `.config`; n for what that does not name.
    pub found: String,
    /// Why.
    pub reason: Reason,
}

impl fmt::Display for Dropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Wanted {
            symbol,
            value,
            place,
            ..
        } = &self.wanted;
        let Dropped { found, reason, .. } = self;
        write!(f, "{symbol} is {found}, not {value} ({place}): {reason}")
    }
}

/// Why a symbol is not what was asked for. Places are file and line in the kernel tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It is as asked.
    Held,
    /// No file that the target reads defines it.
    Missing {
        /// Names of this tree that are like it, the best first, without `CONFIG_`.
        nearest: Vec<String>,
        /// Where another architecture defines it.
        elsewhere: Vec<String>,
    },
    /// It only carries values of old configurations over to other symbols.
    Transitional {
        /// The symbols that take its value.
        successors: Vec<String>,
        /// Where it is defined.
        place: String,
    },
    /// The value is not one that the symbol can have.
    Value {
        /// What the symbol holds.
        kind: SymbolType,
        /// What is wrong with the value.
        problem: String,
        /// Where it is defined.
        place: String,
    },
    /// `m` was asked for and there are no modules.
    NoModules {
        /// Where the symbol is defined that allows modules.
        place: Option<String>,
    },
    /// The number is outside of what the symbol takes.
    Range {
        /// The least.
        low: String,
        /// The greatest.
        high: String,
        /// Where the range stands.
        place: String,
    },
    /// It depends on what is not set.
    Dependency {
        /// One sentence for each symbol on the way, the wished one first.
        chain: Vec<String>,
        /// Lines of a fragment that would be enough; empty where none are known.
        add: Vec<String>,
    },
    /// It cannot be set by hand: it has no prompt, or its prompt's condition does not hold.
    NotVisible {
        /// Where it is defined.
        place: String,
        /// One sentence for each symbol on the way to its prompt or to what sets it.
        chain: Vec<String>,
        /// What selects it or sets it by default.
        setters: Vec<String>,
        /// Lines of a fragment that would be enough; empty where none are known.
        add: Vec<String>,
    },
    /// Less was asked for than other symbols force it to.
    Selected {
        /// The symbols that do, each with its value and the place of its `select`.
        by: Vec<String>,
        /// Lines of a fragment that would be enough; empty where none are known.
        add: Vec<String>,
    },
    /// Another member of its choice is taken.
    Choice {
        /// Where the choice begins.
        place: String,
        /// The member that is taken.
        taken_by: String,
        /// Who asked for that one.
        asked_by: Option<String>,
    },
    /// `n` was asked for, and its choice takes it for want of another.
    ChoiceNeedsOne {
        /// Where the choice begins.
        place: String,
        /// The other members that could be taken.
        others: Vec<String>,
    },
    /// A command of the tree, mostly the compiler, said no.
    Compiler {
        /// The condition as it is written.
        condition: String,
        /// Where.
        place: String,
    },
    /// Nothing in the tree's Kconfig is in the way.
    Unexplained {
        /// Where the symbol is defined.
        place: String,
    },
}

/// Names with commas; the rest is counted.
pub(super) fn listed(names: &[String]) -> String {
    let shown = names.get(..LISTED_MAX).unwrap_or(names);
    let mut text = shown.join(", ");
    if let Some(more) = names
        .len()
        .checked_sub(shown.len())
        .filter(|more| *more > 0)
    {
        text.push_str(&format!(" and {more} more"));
    }
    text
}

struct Hint<'a>(&'a [String]);

impl fmt::Display for Hint<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return Ok(());
        }
        write!(f, "; ask for {}", self.0.join(", "))
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Held => f.write_str("it is as asked"),
            Reason::Missing { nearest, elsewhere } => {
                match elsewhere.as_slice() {
                    [] => f.write_str("this kernel version has no such symbol")?,
                    places => write!(
                        f,
                        "this target has no such symbol; another architecture has it ({})",
                        listed(places)
                    )?,
                }
                match nearest.as_slice() {
                    [] => Ok(()),
                    names => write!(f, "; the nearest names are {}", names.join(", ")),
                }
            }
            Reason::Transitional { successors, place } => {
                write!(f, "it only carries the value of old configurations over")?;
                match successors.as_slice() {
                    [] => write!(f, " ({place})"),
                    names => write!(f, " to {} ({place}): ask for that", listed(names)),
                }
            }
            Reason::Value {
                kind,
                problem,
                place,
            } => write!(f, "it is of type {} ({place}) and {problem}", kind.name()),
            Reason::NoModules { place } => match place {
                Some(place) => write!(
                    f,
                    "there are no modules as MODULES is n ({place}); ask for CONFIG_MODULES=y, or for y instead of m"
                ),
                None => f.write_str("this tree has no modules; ask for y instead of m"),
            },
            Reason::Range { low, high, place } => {
                write!(f, "it must be from {low} to {high} ({place})")
            }
            Reason::Dependency { chain, add } => {
                write!(f, "{}{}", chain.join("; "), Hint(add))
            }
            Reason::NotVisible {
                place,
                chain,
                setters,
                add,
            } => {
                if chain.is_empty() || !setters.is_empty() {
                    write!(
                        f,
                        "it has no prompt ({place}), so that it cannot be set by hand"
                    )?;
                    match setters.as_slice() {
                        [] => write!(f, ", and nothing selects it or sets it by default")?,
                        setters => write!(f, ": {}", listed(setters))?,
                    }
                }
                for (number, sentence) in chain.iter().enumerate() {
                    let is_first = number == 0 && setters.is_empty();
                    write!(f, "{}{sentence}", if is_first { "" } else { "; " })?;
                }
                write!(f, "{}", Hint(add))
            }
            Reason::Selected { by, add } => {
                write!(f, "it is selected by {}{}", listed(by), Hint(add))
            }
            Reason::Choice {
                place,
                taken_by,
                asked_by,
            } => {
                write!(
                    f,
                    "of the choice at {place} only one can be y, and {taken_by} is"
                )?;
                match asked_by {
                    Some(who) => write!(f, ", for which {who} asks"),
                    None => f.write_str(", for which nobody asks"),
                }
            }
            Reason::ChoiceNeedsOne { place, others } => {
                write!(f, "one of the choice at {place} must be y")?;
                match others.as_slice() {
                    [] => f.write_str(", and no other can be"),
                    others => write!(f, "; ask for another: {}", listed(others)),
                }
            }
            Reason::Compiler { condition, place } => write!(
                f,
                "it depends on what the compiler or another tool can: {condition} ({place})"
            ),
            Reason::Unexplained { place } => write!(
                f,
                "nothing in the tree's Kconfig is in its way ({place}); a later line of another fragment or a patch may be"
            ),
        }
    }
}
