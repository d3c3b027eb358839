//! What conditions are worth with the values of a `.config`.

use super::expr::{Comparison, Expr, Operand, SymbolId};
use super::model::{Entry, EntryId, EntryKind, Model, Select, Source, SymbolType};
use super::text::unquoted;

/// The three values of Kconfig's logic: `&&` is the lesser, `||` the greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Tristate {
    No,
    Module,
    Yes,
}

impl Tristate {
    pub(super) fn letter(self) -> &'static str {
        match self {
            Tristate::No => "n",
            Tristate::Module => "m",
            Tristate::Yes => "y",
        }
    }

    pub(super) fn of(text: &str) -> Option<Tristate> {
        match text {
            "n" => Some(Tristate::No),
            "m" => Some(Tristate::Module),
            "y" => Some(Tristate::Yes),
            _ => None,
        }
    }

    pub(super) fn not(self) -> Tristate {
        match self {
            Tristate::No => Tristate::Yes,
            Tristate::Module => Tristate::Module,
            Tristate::Yes => Tristate::No,
        }
    }
}

/// The least and the greatest that a condition can be worth: they differ where a command of the
/// tree would have to be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bounds {
    pub(super) low: Tristate,
    pub(super) high: Tristate,
}

impl Bounds {
    pub(super) const NO: Bounds = Bounds::exactly(Tristate::No);
    pub(super) const YES: Bounds = Bounds::exactly(Tristate::Yes);
    const UNKNOWN: Bounds = Bounds {
        low: Tristate::No,
        high: Tristate::Yes,
    };

    const fn exactly(value: Tristate) -> Bounds {
        Bounds {
            low: value,
            high: value,
        }
    }

    pub(super) fn and(self, other: Bounds) -> Bounds {
        Bounds {
            low: self.low.min(other.low),
            high: self.high.min(other.high),
        }
    }

    pub(super) fn or(self, other: Bounds) -> Bounds {
        Bounds {
            low: self.low.max(other.low),
            high: self.high.max(other.high),
        }
    }

    fn not(self) -> Bounds {
        Bounds {
            low: self.high.not(),
            high: self.low.not(),
        }
    }

    /// What is m for a symbol that cannot be m is y.
    fn without_module(self) -> Bounds {
        let whole = |value| match value {
            Tristate::No => Tristate::No,
            Tristate::Module | Tristate::Yes => Tristate::Yes,
        };
        Bounds {
            low: whole(self.low),
            high: whole(self.high),
        }
    }
}

/// A `.config`'s values by symbol.
pub(super) struct Values<'a> {
    pub(super) model: &'a Model,
    values: Vec<Option<&'a str>>,
    modules: Tristate,
}

impl<'a> Values<'a> {
    /// Names are those of a `.config`, with `CONFIG_`.
    pub(super) fn new(
        model: &'a Model,
        config: impl Iterator<Item = (&'a str, &'a str)>,
    ) -> Values<'a> {
        let mut values = vec![None; model.symbols.len()];
        for (name, value) in config {
            let id = name
                .strip_prefix("CONFIG_")
                .and_then(|name| model.find(name));
            let index = id.and_then(|id| usize::try_from(id.0).ok());
            if let Some(slot) = index.and_then(|index| values.get_mut(index)) {
                *slot = Some(value);
            }
        }
        let mut values = Values {
            model,
            values,
            modules: Tristate::No,
        };
        values.modules = model
            .modules
            .map_or(Tristate::No, |modules| values.tristate(modules));
        values
    }

    pub(super) fn has_modules(&self) -> bool {
        self.modules != Tristate::No
    }

    /// As it is written in the `.config`.
    pub(super) fn raw(&self, id: SymbolId) -> Option<&'a str> {
        self.values.get(usize::try_from(id.0).ok()?).copied()?
    }

    pub(super) fn kind(&self, id: SymbolId) -> Option<SymbolType> {
        self.model.symbol(id)?.kind
    }

    /// n for what is not bool or tristate.
    pub(super) fn tristate(&self, id: SymbolId) -> Tristate {
        let Some(symbol) = self.model.symbol(id) else {
            return Tristate::No;
        };
        match symbol.kind {
            Some(SymbolType::Bool | SymbolType::Tristate) => {
                let value = self.raw(id).and_then(Tristate::of);
                value.unwrap_or(Tristate::No)
            }
            Some(_) => Tristate::No,
            None => Tristate::of(&symbol.name).unwrap_or(Tristate::No),
        }
    }

    /// A condition's worth. In conditions, unlike in defaults, `m` is n without modules.
    pub(super) fn condition(&self, expr: &Expr) -> Bounds {
        self.expr(expr, self.modules)
    }

    /// A default's worth.
    pub(super) fn value(&self, expr: &Expr) -> Bounds {
        self.expr(expr, Tristate::Yes)
    }

    fn expr(&self, expr: &Expr, modules: Tristate) -> Bounds {
        match expr {
            Expr::Value(Operand::Unknown(_)) => Bounds::UNKNOWN,
            Expr::Value(Operand::Text(text)) => {
                Bounds::exactly(Tristate::of(text).unwrap_or(Tristate::No))
            }
            Expr::Value(Operand::Symbol(id)) => match self.tristate(*id) {
                Tristate::Module if !self.model.is_defined(*id) => {
                    Bounds::exactly(Tristate::Module.min(modules))
                }
                value => Bounds::exactly(value),
            },
            Expr::Not(inner) => self.expr(inner, modules).not(),
            Expr::All(parts) => parts
                .iter()
                .fold(Bounds::YES, |all, part| all.and(self.expr(part, modules))),
            Expr::Any(parts) => parts
                .iter()
                .fold(Bounds::NO, |any, part| any.or(self.expr(part, modules))),
            Expr::Compare(left, how, right) => match self.compare(left, *how, right) {
                Some(true) => Bounds::YES,
                Some(false) => Bounds::NO,
                None => Bounds::UNKNOWN,
            },
            Expr::Off(inner) => self.expr(inner, modules).without_module().not(),
        }
    }

    /// `None` where a side is unknown.
    pub(super) fn compare(&self, left: &Operand, how: Comparison, right: &Operand) -> Option<bool> {
        let (left, right) = (self.side(left)?, self.side(right)?);
        let is_text = |side: &Side| side.kind == Some(SymbolType::String);
        let numbers = if is_text(&left) && is_text(&right) {
            None
        } else {
            number(&left).zip(number(&right))
        };
        let order = match numbers {
            Some((left, right)) => left.cmp(&right),
            None => left.text.cmp(&right.text),
        };
        Some(match how {
            Comparison::Equal => order.is_eq(),
            Comparison::Unequal => order.is_ne(),
            Comparison::Less => order.is_lt(),
            Comparison::LessEqual => order.is_le(),
            Comparison::Greater => order.is_gt(),
            Comparison::GreaterEqual => order.is_ge(),
        })
    }

    fn side(&self, operand: &Operand) -> Option<Side> {
        let constant = |text: &str| Side {
            kind: Tristate::of(text).map(|_| SymbolType::Tristate),
            text: text.to_owned(),
        };
        match operand {
            Operand::Unknown(_) => None,
            Operand::Text(text) => Some(constant(text)),
            Operand::Symbol(id) => {
                let symbol = self.model.symbol(*id)?;
                Some(match symbol.kind {
                    None => constant(&symbol.name),
                    Some(kind) => Side {
                        kind: Some(kind),
                        text: self.text(*id, kind),
                    },
                })
            }
        }
    }

    /// A symbol's value without quotes; what conf takes where the `.config` does not name it.
    pub(super) fn text(&self, id: SymbolId, kind: SymbolType) -> String {
        match (self.raw(id), kind) {
            (_, SymbolType::Bool | SymbolType::Tristate) => self.tristate(id).letter().to_owned(),
            (Some(value), SymbolType::String) => {
                unquoted(value).unwrap_or_else(|| value.to_owned())
            }
            (Some(value), _) => value.to_owned(),
            (None, SymbolType::String) => String::new(),
            (None, SymbolType::Int) => "0".to_owned(),
            (None, SymbolType::Hex) => "0x0".to_owned(),
        }
    }

    fn all<'e>(&self, conditions: impl Iterator<Item = &'e Expr>) -> Bounds {
        conditions.fold(Bounds::YES, |all, expr| all.and(self.condition(expr)))
    }

    /// What the entry and those around it depend on.
    pub(super) fn depends(&self, entry: EntryId) -> Bounds {
        let lineage = self.model.lineage(entry);
        self.all(lineage.flat_map(|entry| entry.depends.iter().map(|one| &one.expr)))
    }

    /// Of a symbol: what it may be at most by its dependencies, in any of its entries.
    #[cfg(test)]
    pub(super) fn dependencies(&self, id: SymbolId) -> Bounds {
        let Some(symbol) = self.model.symbol(id) else {
            return Bounds::NO;
        };
        let entries = symbol.entries.iter();
        let bounds = entries.fold(Bounds::NO, |any, entry| any.or(self.depends(*entry)));
        self.fitting(id, bounds)
    }

    fn fitting(&self, id: SymbolId, bounds: Bounds) -> Bounds {
        if self.kind(id) == Some(SymbolType::Tristate) && self.has_modules() {
            bounds
        } else {
            bounds.without_module()
        }
    }

    /// Of a symbol: the most that it can be set to by hand.
    pub(super) fn visibility(&self, id: SymbolId) -> Bounds {
        let Some(symbol) = self.model.symbol(id) else {
            return Bounds::NO;
        };
        let mut any = Bounds::NO;
        for entry in &symbol.entries {
            let Some(found) = self.model.entry(*entry) else {
                continue;
            };
            if found.prompts.is_empty() {
                continue;
            }
            let around = self.depends(*entry).and(
                self.all(
                    self.model
                        .lineage(*entry)
                        .skip(1)
                        .flat_map(|entry| entry.visible_if.iter().map(|one| &one.expr)),
                ),
            );
            for prompt in &found.prompts {
                let own = self.all(prompt.condition.iter().map(|one| &one.expr));
                any = any.or(around.and(own));
            }
        }
        self.fitting(id, any)
    }

    /// What a `select` or `imply` forces or proposes now.
    pub(super) fn forces(&self, source: Source, select: &Select) -> Bounds {
        let by = match self.model.entry(source.entry).map(|entry| entry.kind) {
            Some(EntryKind::Symbol(by)) => Bounds::exactly(self.tristate(by)),
            _ => Bounds::NO,
        };
        if by == Bounds::NO {
            return by;
        }
        by.and(self.depends(source.entry))
            .and(self.all(select.condition.iter()))
    }

    /// Of a symbol: the least that `select`s leave it.
    #[cfg(test)]
    pub(super) fn selected(&self, id: SymbolId) -> Bounds {
        let selects = selects_of(self.model, id);
        let bounds = selects.fold(Bounds::NO, |any, (source, select)| {
            any.or(self.forces(source, select))
        });
        self.fitting(id, bounds)
    }
}

/// The `select`s that aim at a symbol.
pub(super) fn selects_of(
    model: &Model,
    id: SymbolId,
) -> impl Iterator<Item = (Source, &Select)> + use<'_> {
    aimed(
        model,
        id,
        |symbol| &symbol.selected_by,
        |entry| &entry.selects,
    )
}

/// The `imply`s that aim at a symbol.
pub(super) fn implies_of(
    model: &Model,
    id: SymbolId,
) -> impl Iterator<Item = (Source, &Select)> + use<'_> {
    aimed(
        model,
        id,
        |symbol| &symbol.implied_by,
        |entry| &entry.implies,
    )
}

fn aimed(
    model: &Model,
    id: SymbolId,
    sources: fn(&super::model::Symbol) -> &Vec<Source>,
    selects: fn(&Entry) -> &Vec<Select>,
) -> impl Iterator<Item = (Source, &Select)> {
    // Nothing selects a member of a choice: conf takes the one that was asked for.
    let symbol = model.symbol(id).filter(|_| model.choice(id).is_none());
    let sources = symbol.map(sources).into_iter().flatten();
    sources.filter_map(move |source| {
        let entry = model.entry(source.entry)?;
        Some((*source, selects(entry).get(source.number)?))
    })
}

/// One side of a comparison.
struct Side {
    kind: Option<SymbolType>,
    text: String,
}

/// As the kernel's `expr_parse_string`: what is no whole number is compared as text.
fn number(side: &Side) -> Option<i128> {
    let text = side.text.as_str();
    match side.kind {
        Some(SymbolType::Bool | SymbolType::Tristate) => Some(match Tristate::of(text) {
            Some(Tristate::No) => 0,
            Some(Tristate::Module) => 1,
            Some(Tristate::Yes) => 2,
            None => -1,
        }),
        Some(SymbolType::Int) => integer(text, 10),
        Some(SymbolType::Hex) => integer(text, 16),
        Some(SymbolType::String) | None => integer(text, 0),
    }
}

/// A whole number as C's `strtoll` reads it; base 0 goes by the prefix.
pub(super) fn integer(text: &str, base: u32) -> Option<i128> {
    let (sign, digits) = match text.as_bytes().first()? {
        b'-' => (-1, &text[1..]),
        b'+' => (1, &text[1..]),
        _ => (1, text),
    };
    let hex = digits
        .strip_prefix("0x")
        .or_else(|| digits.strip_prefix("0X"));
    let (base, digits) = match (base, hex) {
        (0 | 16, Some(hex)) => (16, hex),
        (0, None) if digits.len() > 1 && digits.starts_with('0') => (8, digits),
        (0, None) => (10, digits),
        (base, _) => (base, digits),
    };
    let is_plain = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !is_plain || digits.is_empty() {
        return None;
    }
    let value = i128::from(u64::from_str_radix(digits, base).ok()?);
    Some(value * sign)
}
