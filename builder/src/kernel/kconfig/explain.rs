//! From a wish that did not hold to the reason.

use std::collections::BTreeMap;

use super::Kconfig;
use super::evaluate::{Tristate, Values, implies_of, integer, selects_of};
use super::expr::{Expr, Operand, SymbolId, Written};
use super::model::{EntryKind, Model, Range, Symbol, SymbolType};
use super::nearest::nearest;
use super::plan::{Bearing, Plan, Planner, Step};
use super::reason::{Dropped, Reason};
use super::text::{bare, plain, unquoted};
use crate::kernel::config::Wanted;

/// Sentences of one explanation.
const CHAIN_MAX: usize = 12;

/// Explains against one `.config`.
pub(super) struct Explainer<'a> {
    kconfig: &'a Kconfig,
    values: Values<'a>,
    /// Everything that was wished: value and who asked.
    wishes: BTreeMap<SymbolId, (&'a str, String)>,
}

impl<'a> Explainer<'a> {
    /// Names begin with `CONFIG_`.
    pub(super) fn new(
        kconfig: &'a Kconfig,
        config: impl Iterator<Item = (&'a str, &'a str)>,
        wishes: impl Iterator<Item = (&'a str, &'a str, String)>,
    ) -> Explainer<'a> {
        let model = &kconfig.model;
        let wishes = wishes
            .filter_map(|(name, value, place)| Some((model.find(bare(name))?, (value, place))));
        Explainer {
            kconfig,
            values: Values::new(model, config),
            wishes: wishes.collect(),
        }
    }

    fn model(&self) -> &'a Model {
        &self.kconfig.model
    }

    fn place(&self, symbol: &Symbol) -> String {
        let entries = || {
            symbol
                .entries
                .iter()
                .filter_map(|id| self.model().entry(*id))
        };
        let prompted = entries().find(|entry| !entry.prompts.is_empty());
        let entry = prompted.or_else(|| entries().next());
        entry.map_or(String::new(), |entry| self.model().place(entry.spot))
    }

    /// What is known of a wish that did not hold.
    pub(super) fn dropped(&self, wanted: &Wanted) -> Dropped {
        let id = self.model().find(bare(&wanted.symbol));
        let found = id.and_then(|id| self.values.raw(id));
        Dropped {
            wanted: wanted.clone(),
            found: plain(found.unwrap_or("n")).into_owned(),
            reason: self.reason(&wanted.symbol, &wanted.value),
        }
    }

    /// Whether the `.config` has the value.
    pub(super) fn holds(&self, name: &str, value: &str) -> bool {
        let defined = self.model().find(bare(name));
        let Some(id) = defined.filter(|id| self.model().is_defined(*id)) else {
            return value == "n";
        };
        let found = self.values.raw(id);
        match self.values.kind(id) {
            Some(SymbolType::Hex) => {
                found.is_some_and(|found| integer(found, 16) == integer(value, 16))
                    && integer(value, 16).is_some()
            }
            Some(SymbolType::Int) => found == Some(value),
            // Text that is empty may be left out.
            Some(SymbolType::String) => unquoted(found.unwrap_or("\"\""))
                .is_some_and(|found| Some(found) == unquoted(value)),
            _ => found.unwrap_or("n") == value,
        }
    }

    fn reason(&self, name: &str, value: &str) -> Reason {
        if self.holds(name, value) {
            return Reason::Held;
        }
        let name = bare(name);
        let id = self.model().find(name);
        let found = id.and_then(|id| Some((id, self.model().symbol(id)?)));
        let Some((id, symbol)) = found.filter(|(_, symbol)| !symbol.entries.is_empty()) else {
            return self.missing(name);
        };
        if symbol.is_transitional {
            return self.transitional(id, symbol);
        }
        if let Some(reason) = self.bad_value(symbol, value) {
            return reason;
        }
        match (symbol.kind, Tristate::of(value)) {
            (Some(SymbolType::Bool | SymbolType::Tristate), Some(wanted)) => {
                let found = self.values.tristate(id);
                if wanted == Tristate::Module && !self.values.has_modules() {
                    let modules = self.model().modules;
                    let modules = modules.and_then(|modules| self.model().symbol(modules));
                    return Reason::NoModules {
                        place: modules.map(|modules| self.place(modules)),
                    };
                }
                if wanted > found {
                    self.too_little(id, symbol, wanted)
                } else {
                    self.too_much(id, symbol, wanted)
                }
            }
            _ => self.not_that_value(id, symbol, value),
        }
    }

    fn missing(&self, name: &str) -> Reason {
        let defined = self.model().symbols.iter();
        let names = defined
            .filter(|symbol| !symbol.entries.is_empty())
            .map(|symbol| &*symbol.name);
        let elsewhere = self.kconfig.elsewhere.get(name).cloned();
        let elsewhere = elsewhere.unwrap_or_default();
        // A name that another architecture has is no slip of the pen.
        let nearest = match elsewhere.is_empty() {
            true => nearest(name, names),
            false => Vec::new(),
        };
        Reason::Missing {
            nearest: nearest.into_iter().map(str::to_owned).collect(),
            elsewhere,
        }
    }

    fn transitional(&self, id: SymbolId, symbol: &Symbol) -> Reason {
        let mut successors = Vec::new();
        for entry in &self.model().entries {
            let takes = entry.defaults.iter().any(
                |default| matches!(&default.value, Expr::Value(Operand::Symbol(from)) if *from == id),
            );
            if let EntryKind::Symbol(by) = entry.kind
                && takes
            {
                successors.push(self.name(by).to_owned());
            }
        }
        Reason::Transitional {
            successors,
            place: self.place(symbol),
        }
    }

    fn name(&self, id: SymbolId) -> &'a str {
        self.model().symbol(id).map_or("", |symbol| &symbol.name)
    }

    fn bad_value(&self, symbol: &Symbol, value: &str) -> Option<Reason> {
        let kind = symbol.kind?;
        let problem = match kind {
            SymbolType::Bool if value == "m" => "cannot be a module: it takes y or n".to_owned(),
            SymbolType::Bool if !matches!(value, "y" | "n") => {
                format!("takes y or n, not {value}")
            }
            SymbolType::Tristate if Tristate::of(value).is_none() => {
                format!("takes y, m or n, not {value}")
            }
            SymbolType::String if unquoted(value).is_none() => {
                format!("takes text in quotes, as \"{value}\"")
            }
            SymbolType::Int if integer(value, 10).is_none() => {
                format!("takes a decimal number, not {value}")
            }
            SymbolType::Hex if integer(value, 16).is_none() => {
                format!("takes a hexadecimal number, not {value}")
            }
            _ => return None,
        };
        Some(Reason::Value {
            kind,
            problem,
            place: self.place(symbol),
        })
    }

    /// More was asked for than there is.
    fn too_little(&self, id: SymbolId, symbol: &Symbol, wanted: Tristate) -> Reason {
        let is_tristate = symbol.kind == Some(SymbolType::Tristate);
        let needed = if is_tristate {
            wanted
        } else {
            Tristate::Module
        };
        let visible = self.values.visibility(id);
        if visible.low < needed {
            return self.out_of_sight(id, symbol, needed, wanted);
        }
        if let Some(choice) = self.model().choice(id) {
            let members = self.model().members(choice);
            let taken = members
                .iter()
                .find(|member| self.values.tristate(**member) == Tristate::Yes);
            if let (Some(taken), Some(entry)) = (taken, self.model().entry(choice)) {
                let asked = self.wishes.get(taken).filter(|(value, _)| *value == "y");
                return Reason::Choice {
                    place: self.model().place(entry.spot),
                    taken_by: self.name(*taken).to_owned(),
                    asked_by: asked.map(|(_, place)| place.clone()),
                };
            }
        }
        Reason::Unexplained {
            place: self.place(symbol),
        }
    }

    /// Its prompt cannot be seen, or only for m.
    fn out_of_sight(
        &self,
        id: SymbolId,
        symbol: &Symbol,
        needed: Tristate,
        wanted: Tristate,
    ) -> Reason {
        let mut planner = Planner::new(&self.values, wanted);
        let Some(mut plan) = planner.prompt(id, needed) else {
            return self.without_prompt(id, symbol, needed, wanted);
        };
        let logic = matches!(symbol.kind, Some(SymbolType::Bool | SymbolType::Tristate));
        if logic && self.model().choice(id).is_none() {
            // Without it the plan's lines would not be all that has to be asked for.
            plan.sets.remove(&id);
        }
        if let [Step::Compiler { condition, spot }] = plan.steps.as_slice() {
            return Reason::Compiler {
                condition: condition.clone(),
                place: self.model().place(*spot),
            };
        }
        let is_hidden = plan.steps.iter().any(
            |step| matches!(step, Step::Needs { symbol, bearing: Bearing::Visible, .. } if *symbol == id),
        );
        let depends = plan.steps.iter().any(
            |step| matches!(step, Step::Needs { symbol, bearing: Bearing::Depends, .. } if *symbol == id),
        );
        let chain = self.sentences(&plan);
        let add = self.lines(&plan);
        if is_hidden && !depends {
            return Reason::NotVisible {
                place: self.place(symbol),
                chain,
                setters: Vec::new(),
                add,
            };
        }
        Reason::Dependency { chain, add }
    }

    fn without_prompt(
        &self,
        id: SymbolId,
        symbol: &Symbol,
        needed: Tristate,
        wanted: Tristate,
    ) -> Reason {
        let mut planner = Planner::new(&self.values, wanted);
        let logic = matches!(symbol.kind, Some(SymbolType::Bool | SymbolType::Tristate));
        let plan = match logic {
            true => planner.otherwise(id, needed),
            false => Plan::default(),
        };
        let chain = match plan.is_dead() && plan.sets.is_empty() {
            true => Vec::new(),
            false => self.sentences(&plan),
        };
        let own = format!("{} is on where", symbol.name);
        let chain = chain.into_iter().filter(|one| !one.starts_with(&own));
        Reason::NotVisible {
            place: self.place(symbol),
            chain: chain.collect(),
            setters: self.setters(id, symbol),
            add: self.lines(&plan),
        }
    }

    /// What selects a symbol, implies it, or sets it by default.
    fn setters(&self, id: SymbolId, symbol: &Symbol) -> Vec<String> {
        let model = self.model();
        let mut setters = Vec::new();
        for (source, select) in selects_of(model, id) {
            if let Some(EntryKind::Symbol(by)) = model.entry(source.entry).map(|one| one.kind) {
                setters.push(format!(
                    "{} selects it ({})",
                    self.name(by),
                    model.place(select.spot)
                ));
            }
        }
        for (source, select) in implies_of(model, id) {
            if let Some(EntryKind::Symbol(by)) = model.entry(source.entry).map(|one| one.kind) {
                setters.push(format!(
                    "{} implies it ({})",
                    self.name(by),
                    model.place(select.spot)
                ));
            }
        }
        let entries = symbol.entries.iter().filter_map(|id| model.entry(*id));
        for default in entries.flat_map(|entry| &entry.defaults) {
            let written = |part| Written { part, names: model }.shortened();
            let condition = match &default.condition {
                Some(condition) => format!(" if {}", written(condition)),
                None => String::new(),
            };
            setters.push(format!(
                "its default is {}{condition} ({})",
                written(&default.value),
                model.place(default.spot)
            ));
        }
        setters
    }

    /// Less was asked for than there is.
    fn too_much(&self, id: SymbolId, symbol: &Symbol, wanted: Tristate) -> Reason {
        let model = self.model();
        let mut by = Vec::new();
        for (source, select) in selects_of(model, id) {
            let Some(EntryKind::Symbol(who)) = model.entry(source.entry).map(|one| one.kind) else {
                continue;
            };
            if self.values.forces(source, select).high > wanted {
                let value = self.values.tristate(who).letter();
                let place = model.place(select.spot);
                by.push(format!("{}={value} ({place})", self.name(who)));
            }
        }
        if !by.is_empty() {
            let mut planner = Planner::new(&self.values, Tristate::Yes);
            let plan = planner.lowered(id, wanted);
            let add = self.lines(&plan);
            return Reason::Selected { by, add };
        }
        if let Some(choice) = model.choice(id)
            && let Some(entry) = model.entry(choice)
        {
            let others = model.members(choice).iter().copied();
            let free = |member: &SymbolId| {
                *member != id && self.values.visibility(*member).high > Tristate::No
            };
            return Reason::ChoiceNeedsOne {
                place: model.place(entry.spot),
                others: others
                    .filter(free)
                    .map(|member| self.name(member).to_owned())
                    .collect(),
            };
        }
        if self.values.visibility(id).low == Tristate::No {
            let mut reason = self.out_of_sight(id, symbol, Tristate::Module, Tristate::Yes);
            if let Reason::NotVisible { chain, setters, .. } = &mut reason
                && setters.is_empty()
                && !chain.is_empty()
            {
                chain.extend(self.setters(id, symbol));
            }
            if let Reason::NotVisible { add, setters, .. } = &mut reason
                && !setters.is_empty()
            {
                add.clear();
            }
            return reason;
        }
        Reason::Unexplained {
            place: self.place(symbol),
        }
    }

    /// Text or a number that is another one.
    fn not_that_value(&self, id: SymbolId, symbol: &Symbol, value: &str) -> Reason {
        if self.values.visibility(id).low == Tristate::No {
            return self.out_of_sight(id, symbol, Tristate::Module, Tristate::Yes);
        }
        let base = match symbol.kind {
            Some(SymbolType::Int) => 10,
            Some(SymbolType::Hex) => 16,
            _ => 0,
        };
        if base > 0
            && let Some(range) = self.range(symbol)
            && let Some(value) = integer(value, base)
        {
            let low = self.bound(&range.low);
            let high = self.bound(&range.high);
            let is_above = |low: &str| integer(low, base).is_none_or(|low| value >= low);
            let is_below = |high: &str| integer(high, base).is_none_or(|high| value <= high);
            if !is_above(&low) || !is_below(&high) {
                return Reason::Range {
                    low,
                    high,
                    place: self.model().place(range.spot),
                };
            }
        }
        Reason::Unexplained {
            place: self.place(symbol),
        }
    }

    /// The first range whose condition holds.
    fn range(&self, symbol: &Symbol) -> Option<&'a Range> {
        for id in &symbol.entries {
            let around = self.values.depends(*id);
            for range in &self.model().entry(*id)?.ranges {
                let own = range.condition.iter();
                let holds = own.fold(around, |all, one| all.and(self.values.condition(one)));
                if holds.high > Tristate::No {
                    return Some(range);
                }
            }
        }
        None
    }

    fn bound(&self, operand: &Operand) -> String {
        match operand {
            Operand::Symbol(id) => match self.values.kind(*id) {
                Some(kind) => self.values.text(*id, kind),
                None => self.name(*id).to_owned(),
            },
            Operand::Text(text) | Operand::Unknown(text) => plain(text).into_owned(),
        }
    }

    fn sentences(&self, plan: &Plan) -> Vec<String> {
        let mut sentences: Vec<String> = Vec::new();
        let mut said: Vec<&str> = Vec::new();
        for step in &plan.steps {
            // What is missing is said once, not for each that needs it.
            if let Step::Needs { condition, .. } = step {
                if said.contains(&condition.as_str()) {
                    continue;
                }
                said.push(condition);
            }
            let sentence = self.sentence(step);
            if !sentences.contains(&sentence) {
                sentences.push(sentence);
            }
            if sentences.len() == CHAIN_MAX {
                break;
            }
        }
        if !plan.is_dead() {
            sentences.extend(self.contrary(plan));
        }
        sentences
    }

    /// Who asks for the opposite of what a plan sets.
    fn contrary(&self, plan: &Plan) -> Vec<String> {
        let asked = plan.sets.iter().filter_map(|(symbol, value)| {
            let (asked, place) = self.wishes.get(symbol)?;
            let is_contrary = (*asked == "n") != (value == "n");
            is_contrary.then(|| format!("{place} asks for {}={asked}", self.name(*symbol)))
        });
        asked.collect()
    }

    fn sentence(&self, step: &Step) -> String {
        match step {
            Step::Needs {
                symbol,
                condition,
                found,
                bearing,
                spot,
            } => {
                let name = self.name(*symbol);
                let verb = match bearing {
                    Bearing::Depends => format!("{name} depends on {condition}"),
                    Bearing::Visible => format!("{name} can be set only if {condition}"),
                    Bearing::Default => format!("the default of {name} needs {condition}"),
                    Bearing::Selects => format!("{name} selects it only if {condition}"),
                };
                let is_name = !condition.contains([' ', '!', '"', '$']);
                let state = match (found, is_name) {
                    (Tristate::No, true) => "which is n",
                    (Tristate::No, false) => "which does not hold",
                    _ => "which is only m",
                };
                format!("{verb}, {state} ({})", self.model().place(*spot))
            }
            Step::Through { symbol, how } => {
                format!("{} is on where {how}", self.name(*symbol))
            }
            Step::Compiler { condition, spot } => format!(
                "what the compiler or another tool can decides on {condition} ({})",
                self.model().place(*spot)
            ),
            Step::Undefined { symbol } => {
                format!(
                    "no file of this target defines {}",
                    plain(self.name(*symbol))
                )
            }
            Step::Stuck { symbol, why } => format!("{} {why}", self.name(*symbol)),
        }
    }

    /// Lines of a fragment: what nobody asks for yet.
    fn lines(&self, plan: &Plan) -> Vec<String> {
        if plan.is_dead() {
            return Vec::new();
        }
        let new = plan.sets.iter().filter(|(symbol, value)| {
            self.wishes
                .get(symbol)
                .is_none_or(|(asked, _)| asked != value)
        });
        let mut lines: Vec<String> = new
            .map(|(symbol, value)| format!("CONFIG_{}={value}", self.name(*symbol)))
            .collect();
        lines.sort_unstable();
        lines
    }
}
