//! A tree's symbols and the entries that define them, as tables.

use std::collections::{BTreeMap, HashMap};

use super::expr::{Expr, Names, Operand, SymbolId};

/// A file by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileId(pub(super) u32);

/// An entry by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct EntryId(pub(super) u32);

/// A line of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Spot {
    pub(super) file: FileId,
    pub(super) line: u32,
}

/// What a symbol holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SymbolType {
    /// n or y.
    Bool,
    /// n, m or y.
    Tristate,
    /// Text.
    String,
    /// A decimal number.
    Int,
    /// A hexadecimal number.
    Hex,
}

impl SymbolType {
    /// As Kconfig writes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            SymbolType::Bool => "bool",
            SymbolType::Tristate => "tristate",
            SymbolType::String => "string",
            SymbolType::Int => "int",
            SymbolType::Hex => "hex",
        }
    }
}

/// A condition and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Condition {
    pub(super) expr: Expr,
    pub(super) spot: Spot,
}

/// What makes a symbol visible, so that a person or a fragment may set it.
#[derive(Clone, Debug)]
pub(super) struct Prompt {
    pub(super) text: Box<str>,
    pub(super) condition: Option<Condition>,
}

/// `default`, `def_bool`, `def_tristate`.
#[derive(Clone, Debug)]
pub(super) struct Default {
    pub(super) value: Expr,
    pub(super) condition: Option<Expr>,
    pub(super) spot: Spot,
}

/// `select` or `imply`.
#[derive(Clone, Debug)]
pub(super) struct Select {
    pub(super) target: SymbolId,
    pub(super) condition: Option<Expr>,
    pub(super) spot: Spot,
}

/// `range`.
#[derive(Clone, Debug)]
pub(super) struct Range {
    pub(super) low: Operand,
    pub(super) high: Operand,
    pub(super) condition: Option<Expr>,
    pub(super) spot: Spot,
}

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EntryKind {
    Symbol(SymbolId),
    Choice,
    Menu,
    If,
    Comment,
}

/// `config`, `menuconfig`, `choice`, `menu`, `if` or `comment`.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) kind: EntryKind,
    pub(super) spot: Spot,
    /// The menu, if or choice around it.
    pub(super) parent: Option<EntryId>,
    pub(super) prompts: Vec<Prompt>,
    /// `depends on`, and the condition of an `if`.
    pub(super) depends: Vec<Condition>,
    /// Of menus.
    pub(super) visible_if: Vec<Condition>,
    pub(super) defaults: Vec<Default>,
    pub(super) selects: Vec<Select>,
    pub(super) implies: Vec<Select>,
    pub(super) ranges: Vec<Range>,
}

impl Entry {
    pub(super) fn new(kind: EntryKind, spot: Spot, parent: Option<EntryId>) -> Entry {
        Entry {
            kind,
            spot,
            parent,
            prompts: Vec::new(),
            depends: Vec::new(),
            visible_if: Vec::new(),
            defaults: Vec::new(),
            selects: Vec::new(),
            implies: Vec::new(),
            ranges: Vec::new(),
        }
    }
}

/// A `select` or `imply` of an entry, seen from its target.
#[derive(Clone, Copy, Debug)]
pub(super) struct Source {
    pub(super) entry: EntryId,
    /// Its place among the entry's.
    pub(super) number: usize,
}

/// A name that was met; without entries it is not defined.
#[derive(Clone, Debug)]
pub(super) struct Symbol {
    pub(super) name: Box<str>,
    pub(super) kind: Option<SymbolType>,
    pub(super) is_transitional: bool,
    pub(super) entries: Vec<EntryId>,
    pub(super) selected_by: Vec<Source>,
    pub(super) implied_by: Vec<Source>,
}

/// Everything that a tree's files say.
#[derive(Debug, Default)]
pub(super) struct Model {
    pub(super) files: Vec<Box<str>>,
    pub(super) symbols: Vec<Symbol>,
    pub(super) entries: Vec<Entry>,
    /// The symbol that says whether there are modules.
    pub(super) modules: Option<SymbolId>,
    /// The members of each choice, in its order.
    members: BTreeMap<EntryId, Vec<SymbolId>>,
    /// Only looked up in, never walked.
    by_name: HashMap<Box<str>, SymbolId>,
}

impl Names for Model {
    fn name(&self, symbol: SymbolId) -> &str {
        self.symbol(symbol).map_or("", |symbol| &symbol.name)
    }
}

impl Model {
    pub(super) fn intern(&mut self, name: &str) -> SymbolId {
        if let Some(id) = self.by_name.get(name) {
            return *id;
        }
        // Names are fewer than the bytes of the files, which a u32 counts.
        let id = SymbolId(u32::try_from(self.symbols.len()).unwrap_or(u32::MAX));
        self.symbols.push(Symbol {
            name: name.into(),
            kind: None,
            is_transitional: false,
            entries: Vec::new(),
            selected_by: Vec::new(),
            implied_by: Vec::new(),
        });
        self.by_name.insert(name.into(), id);
        id
    }

    pub(super) fn find(&self, name: &str) -> Option<SymbolId> {
        self.by_name.get(name).copied()
    }

    pub(super) fn symbol(&self, id: SymbolId) -> Option<&Symbol> {
        self.symbols.get(usize::try_from(id.0).ok()?)
    }

    pub(super) fn symbol_mut(&mut self, id: SymbolId) -> Option<&mut Symbol> {
        self.symbols.get_mut(usize::try_from(id.0).ok()?)
    }

    pub(super) fn entry(&self, id: EntryId) -> Option<&Entry> {
        self.entries.get(usize::try_from(id.0).ok()?)
    }

    pub(super) fn entry_mut(&mut self, id: EntryId) -> Option<&mut Entry> {
        self.entries.get_mut(usize::try_from(id.0).ok()?)
    }

    pub(super) fn push(&mut self, entry: Entry) -> EntryId {
        let id = EntryId(u32::try_from(self.entries.len()).unwrap_or(u32::MAX));
        if let EntryKind::Symbol(symbol) = entry.kind
            && let Some(symbol) = self.symbol_mut(symbol)
        {
            symbol.entries.push(id);
        }
        self.entries.push(entry);
        id
    }

    /// Whether any entry of the tree defines it.
    pub(super) fn is_defined(&self, id: SymbolId) -> bool {
        self.symbol(id)
            .is_some_and(|symbol| !symbol.entries.is_empty())
    }

    /// `fs/Kconfig:340`.
    pub(super) fn place(&self, spot: Spot) -> String {
        let file = usize::try_from(spot.file.0).ok();
        let file = file.and_then(|file| self.files.get(file));
        format!("{}:{}", file.map_or("", |file| file), spot.line)
    }

    /// The entry and those around it, from the inside out.
    pub(super) fn lineage(&self, id: EntryId) -> impl Iterator<Item = &Entry> {
        std::iter::successors(self.entry(id), |entry| self.entry(entry.parent?))
    }

    /// The choice that a symbol is a member of: one that is around its prompt.
    pub(super) fn choice(&self, symbol: SymbolId) -> Option<EntryId> {
        let entries = &self.symbol(symbol)?.entries;
        let prompted = entries
            .iter()
            .filter_map(|id| self.entry(*id))
            .find(|entry| !entry.prompts.is_empty())?;
        let mut parent = prompted.parent?;
        loop {
            let entry = self.entry(parent)?;
            match entry.kind {
                EntryKind::Choice => return Some(parent),
                EntryKind::If => parent = entry.parent?,
                _ => return None,
            }
        }
    }

    pub(super) fn members(&self, choice: EntryId) -> &[SymbolId] {
        self.members.get(&choice).map_or(&[], Vec::as_slice)
    }

    /// Lets symbols know who selects and implies them, and choices their members.
    pub(super) fn link(&mut self) {
        for index in 0..self.entries.len() {
            let Ok(number) = u32::try_from(index) else {
                return;
            };
            let entry = EntryId(number);
            let targets = |selects: &[Select]| -> Vec<SymbolId> {
                selects.iter().map(|select| select.target).collect()
            };
            let selects = targets(&self.entries[index].selects);
            let implies = targets(&self.entries[index].implies);
            for (number, target) in selects.into_iter().enumerate() {
                if let Some(symbol) = self.symbol_mut(target) {
                    symbol.selected_by.push(Source { entry, number });
                }
            }
            for (number, target) in implies.into_iter().enumerate() {
                if let Some(symbol) = self.symbol_mut(target) {
                    symbol.implied_by.push(Source { entry, number });
                }
            }
            if let EntryKind::Symbol(symbol) = self.entries[index].kind
                && let Some(choice) = self.choice(symbol)
            {
                let members = self.members.entry(choice).or_default();
                if members.last() != Some(&symbol) {
                    members.push(symbol);
                }
            }
        }
    }
}
