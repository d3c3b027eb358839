//! What would have to be set so that a condition holds, and what cannot be.
//!
//! The search goes from the wished symbol to what it needs. Of alternatives (`A || B`, several
//! prompts, several `select`s) it takes the one with the least to set; what cannot be set costs so
//! much that it is only taken where there is nothing else, and then it is what the sentences name.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use super::evaluate::{Tristate, Values, implies_of, selects_of};
use super::expr::{Comparison, Expr, Operand, SymbolId, Written};
use super::model::{Condition, Entry, EntryId, EntryKind, Prompt, Spot, SymbolType};

/// Symbols that lead to one another.
const DEPTH_MAX: usize = 24;
/// Conditions and symbols that one search looks at.
const VISITS_MAX: usize = 10_000;
/// Lines that a plan keeps; fewer are shown.
const STEPS_MAX: usize = 64;
/// `select`s of one symbol that are compared.
const SELECTS_MAX: usize = 64;
/// What a dead end costs: more than any sensible number of symbols.
const DEAD: u32 = 10_000;

/// How a condition bears on a symbol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bearing {
    /// `depends on`, `if` around it, or a menu's or choice's dependency.
    Depends,
    /// Its prompt's `if`, or `visible if` of a menu.
    Visible,
    /// A default's condition or value.
    Default,
    /// The condition of a `select` or `imply` of the symbol.
    Selects,
}

/// One line of an explanation.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// The symbol needs a condition that does not hold.
    Needs {
        symbol: SymbolId,
        condition: String,
        /// What the condition is worth now.
        found: Tristate,
        bearing: Bearing,
        spot: Spot,
    },
    /// The symbol cannot be set by hand; this `select` or default can give it its value.
    Through { symbol: SymbolId, how: String },
    /// A condition that only a command of the tree could tell.
    Compiler { condition: String, spot: Spot },
    /// A symbol that no file of the tree defines.
    Undefined { symbol: SymbolId },
    /// A symbol that nothing can set to the value.
    Stuck { symbol: SymbolId, why: String },
}

/// What to set, and the lines that say why.
#[derive(Clone, Debug, Default)]
pub(super) struct Plan {
    pub(super) steps: Vec<Step>,
    pub(super) sets: BTreeMap<SymbolId, String>,
    cost: u32,
}

impl Plan {
    /// Whether setting [`Plan::sets`] is known not to be enough.
    pub(super) fn is_dead(&self) -> bool {
        self.cost >= DEAD
    }

    fn dead(step: Step) -> Plan {
        Plan {
            steps: vec![step],
            sets: BTreeMap::new(),
            cost: DEAD,
        }
    }

    /// Both. Where one cannot be had, the other is not worth a word.
    fn and(&mut self, other: &Plan) {
        match (self.is_dead(), other.is_dead()) {
            (false, true) => self.steps.clone_from(&other.steps),
            (false, false) => {
                let room = STEPS_MAX.saturating_sub(self.steps.len());
                self.steps.extend(other.steps.iter().take(room).cloned());
            }
            (true, _) => {}
        }
        for (symbol, value) in &other.sets {
            let old = self.sets.insert(*symbol, value.clone());
            match old.as_deref() {
                Some("y") if value == "m" => {
                    self.sets.insert(*symbol, "y".to_owned());
                }
                Some("m") if value == "y" => {}
                Some(old) if old != value => self.cost = self.cost.saturating_add(DEAD),
                Some(_) | None => {}
            }
        }
        self.cost = self.cost.saturating_add(other.cost);
    }

    fn first(mut self, step: Step) -> Plan {
        self.steps.insert(0, step);
        self
    }
}

/// The one that costs least; the first of equals.
fn cheapest(plans: impl IntoIterator<Item = Plan>) -> Option<Plan> {
    plans.into_iter().min_by_key(|plan| plan.cost)
}

/// Where a condition stands.
#[derive(Clone, Copy)]
struct Site {
    symbol: SymbolId,
    bearing: Bearing,
    spot: Spot,
}

/// Looks for plans with one `.config`.
pub(super) struct Planner<'v, 'a> {
    values: &'v Values<'a>,
    /// What is asked for where m and y would do.
    preferred: Tristate,
    /// What is being looked at, to notice circles.
    path: Vec<(SymbolId, Direction)>,
    known: HashMap<(SymbolId, Direction), Rc<Plan>>,
    visits: usize,
}

/// What a symbol is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Direction {
    AtLeast(Tristate),
    AtMost(Tristate),
}

impl<'v, 'a> Planner<'v, 'a> {
    pub(super) fn new(values: &'v Values<'a>, preferred: Tristate) -> Planner<'v, 'a> {
        Planner {
            values,
            preferred,
            path: Vec::new(),
            known: HashMap::new(),
            visits: 0,
        }
    }

    fn written(&self, expr: &Expr) -> String {
        let names = self.values.model;
        Written { part: expr, names }.shortened()
    }

    fn is_spent(&mut self) -> bool {
        self.visits += 1;
        self.visits > VISITS_MAX
    }

    /// So that the symbol's prompt can be seen and its dependencies allow the value.
    pub(super) fn prompt(&mut self, symbol: SymbolId, level: Tristate) -> Option<Plan> {
        self.path.push((symbol, Direction::AtLeast(level)));
        let plan = self.prompts(symbol, level);
        self.path.pop();
        plan
    }

    /// So that a symbol without a prompt gets a value from others.
    pub(super) fn otherwise(&mut self, symbol: SymbolId, level: Tristate) -> Plan {
        self.path.push((symbol, Direction::AtLeast(level)));
        let plans = self.others(symbol, level);
        self.path.pop();
        cheapest(plans).unwrap_or(Plan {
            cost: DEAD,
            ..Plan::default()
        })
    }

    /// So that a symbol is at most so much.
    pub(super) fn lowered(&mut self, symbol: SymbolId, level: Tristate) -> Plan {
        self.symbol(symbol, Direction::AtMost(level))
    }

    fn prompts(&mut self, symbol: SymbolId, level: Tristate) -> Option<Plan> {
        let model = self.values.model;
        let level = self.level(symbol, level);
        let mut plans = Vec::new();
        for id in &model.symbol(symbol)?.entries {
            let Some(entry) = model.entry(*id) else {
                continue;
            };
            if entry.prompts.is_empty() {
                continue;
            }
            let around = self.around(symbol, *id, level);
            for prompt in &entry.prompts {
                let mut plan = around.clone();
                plan.and(&self.visible(symbol, *id, prompt, level));
                plans.push(plan);
            }
        }
        cheapest(plans)
    }

    /// What an entry and those around it depend on.
    fn around(&mut self, symbol: SymbolId, entry: EntryId, level: Tristate) -> Plan {
        let mut plan = Plan::default();
        let lineage: Vec<&Entry> = self.values.model.lineage(entry).collect();
        // From the outside in: a menu's dependency says more than what follows from it.
        for condition in lineage.iter().rev().flat_map(|entry| &entry.depends) {
            plan.and(&self.condition(symbol, condition, Bearing::Depends, level));
        }
        plan
    }

    fn visible(
        &mut self,
        symbol: SymbolId,
        entry: EntryId,
        prompt: &Prompt,
        level: Tristate,
    ) -> Plan {
        let mut plan = Plan::default();
        let lineage: Vec<&Entry> = self.values.model.lineage(entry).skip(1).collect();
        let menus = lineage.iter().rev().flat_map(|entry| &entry.visible_if);
        for condition in menus.chain(&prompt.condition) {
            plan.and(&self.condition(symbol, condition, Bearing::Visible, level));
        }
        plan
    }

    fn condition(
        &mut self,
        symbol: SymbolId,
        condition: &Condition,
        bearing: Bearing,
        level: Tristate,
    ) -> Plan {
        let site = Site {
            symbol,
            bearing,
            spot: condition.spot,
        };
        self.at_least(&condition.expr, level, site)
    }

    /// m is enough for a symbol that is n or y; without modules nothing can be m.
    fn level(&self, symbol: SymbolId, level: Tristate) -> Tristate {
        if !self.values.has_modules() {
            level.max(Tristate::Module)
        } else if self.values.kind(symbol) == Some(SymbolType::Tristate) {
            level
        } else {
            level.min(Tristate::Module)
        }
    }

    fn needs(&self, expr: &Expr, site: Site) -> Step {
        Step::Needs {
            symbol: site.symbol,
            condition: self.written(expr),
            found: self.values.condition(expr).low,
            bearing: site.bearing,
            spot: site.spot,
        }
    }

    fn compiler(&self, expr: &Expr, site: Site) -> Plan {
        Plan::dead(Step::Compiler {
            condition: self.written(expr),
            spot: site.spot,
        })
    }

    /// So that a condition is worth at least so much.
    fn at_least(&mut self, expr: &Expr, level: Tristate, site: Site) -> Plan {
        let bounds = self.values.condition(expr);
        if bounds.low >= level {
            return Plan::default();
        }
        if self.is_spent() {
            return Plan::dead(self.needs(expr, site));
        }
        match expr {
            Expr::All(parts) => {
                self.visits += parts.len();
                let mut plan = Plan::default();
                for part in parts {
                    plan.and(&self.at_least(part, level, site));
                }
                plan
            }
            Expr::Any(parts) => {
                let plans: Vec<Plan> = parts
                    .iter()
                    .map(|part| self.at_least(part, level, site))
                    .collect();
                let step = self.needs(expr, site);
                cheapest(plans).map_or_else(Plan::default, |plan| {
                    // What one symbol of several needs is said, that it needs itself is not.
                    let rest = plan.without_first_needs(site);
                    rest.first(step)
                })
            }
            Expr::Not(inner) => self
                .at_most(inner, level.not(), site)
                .without_first_needs(site)
                .first(self.needs(expr, site)),
            Expr::Off(inner) => self
                .at_most(inner, Tristate::No, site)
                .without_first_needs(site)
                .first(self.needs(expr, site)),
            Expr::Value(Operand::Symbol(symbol)) => {
                let plan = self.symbol(*symbol, Direction::AtLeast(level));
                plan.first(self.needs(expr, site))
            }
            Expr::Value(Operand::Unknown(_)) => self.compiler(expr, site),
            Expr::Value(Operand::Text(_)) => Plan::dead(self.needs(expr, site)),
            Expr::Compare(left, how, right) => {
                if self.values.compare(left, *how, right).is_none() {
                    return self.compiler(expr, site);
                }
                let plan = self.compare(expr, (left, *how, right), site);
                plan.first(self.needs(expr, site))
            }
        }
    }

    /// So that a condition is worth at most so much.
    fn at_most(&mut self, expr: &Expr, level: Tristate, site: Site) -> Plan {
        let bounds = self.values.condition(expr);
        if bounds.high <= level {
            return Plan::default();
        }
        if self.is_spent() {
            return Plan::dead(self.needs(expr, site));
        }
        match expr {
            Expr::All(parts) => {
                let plans: Vec<Plan> = parts
                    .iter()
                    .map(|part| self.at_most(part, level, site))
                    .collect();
                cheapest(plans).unwrap_or_default()
            }
            Expr::Any(parts) => {
                let mut plan = Plan::default();
                for part in parts {
                    plan.and(&self.at_most(part, level, site));
                }
                plan
            }
            Expr::Not(inner) => self.at_least(inner, level.not(), site),
            Expr::Off(inner) => self.at_least(inner, Tristate::Module, site),
            Expr::Value(Operand::Symbol(symbol)) => self.symbol(*symbol, Direction::AtMost(level)),
            Expr::Value(Operand::Unknown(_)) => self.compiler(expr, site),
            Expr::Value(Operand::Text(_)) => Plan::dead(self.needs(expr, site)),
            Expr::Compare(left, how, right) => {
                let opposite = match how {
                    Comparison::Equal => Comparison::Unequal,
                    Comparison::Unequal => Comparison::Equal,
                    Comparison::Less => Comparison::GreaterEqual,
                    Comparison::LessEqual => Comparison::Greater,
                    Comparison::Greater => Comparison::LessEqual,
                    Comparison::GreaterEqual => Comparison::Less,
                };
                self.compare(expr, (left, opposite, right), site)
            }
        }
    }

    /// So that a comparison holds, which does not now.
    fn compare(
        &mut self,
        expr: &Expr,
        (left, how, right): (&Operand, Comparison, &Operand),
        site: Site,
    ) -> Plan {
        let model = self.values.model;
        let dead = Plan {
            cost: DEAD,
            ..Plan::default()
        };
        if self.values.compare(left, how, right).is_none() {
            return self.compiler(expr, site);
        }
        let Operand::Symbol(symbol) = left else {
            return dead;
        };
        let constant = match right {
            Operand::Text(text) => &**text,
            Operand::Symbol(id) if !model.is_defined(*id) => {
                model.symbol(*id).map_or("", |symbol| &*symbol.name)
            }
            _ => return dead,
        };
        let is_logic = matches!(
            self.values.kind(*symbol),
            Some(SymbolType::Bool | SymbolType::Tristate)
        );
        match (how, Tristate::of(constant)) {
            (Comparison::Equal, Some(Tristate::Yes)) if is_logic => {
                self.symbol(*symbol, Direction::AtLeast(Tristate::Yes))
            }
            (Comparison::Equal, Some(Tristate::No)) if is_logic => {
                self.symbol(*symbol, Direction::AtMost(Tristate::No))
            }
            (Comparison::Unequal, Some(Tristate::No)) if is_logic => {
                self.symbol(*symbol, Direction::AtLeast(Tristate::Module))
            }
            (Comparison::Unequal, Some(Tristate::Yes)) if is_logic => {
                self.symbol(*symbol, Direction::AtMost(Tristate::Module))
            }
            (Comparison::Equal, _) if !is_logic && model.is_defined(*symbol) => {
                let Some(mut plan) = self.prompts(*symbol, Tristate::Module) else {
                    return dead;
                };
                let value = match self.values.kind(*symbol) {
                    Some(SymbolType::String) => format!("\"{constant}\""),
                    _ => constant.to_owned(),
                };
                plan.sets.insert(*symbol, value);
                plan.cost = plan.cost.saturating_add(1);
                plan
            }
            _ => dead,
        }
    }

    fn symbol(&mut self, symbol: SymbolId, direction: Direction) -> Plan {
        let key = (symbol, direction);
        if let Some(plan) = self.known.get(&key) {
            return Plan::clone(plan);
        }
        let name = || self.values.model.symbol(symbol).map(|found| &*found.name);
        if !self.values.model.is_defined(symbol) {
            return match name().map(Tristate::of) {
                Some(Some(_)) => Plan {
                    cost: DEAD,
                    ..Plan::default()
                },
                _ => Plan::dead(Step::Undefined { symbol }),
            };
        }
        if self.path.len() >= DEPTH_MAX || self.path.contains(&key) || self.is_spent() {
            // Not known for good: another way here may not be a circle.
            return Plan {
                cost: DEAD,
                ..Plan::default()
            };
        }
        self.path.push(key);
        let plan = match direction {
            Direction::AtLeast(level) => self.raise(symbol, level),
            Direction::AtMost(level) => self.lower(symbol, level),
        };
        self.path.pop();
        self.known.insert(key, Rc::new(plan.clone()));
        plan
    }

    /// So that a symbol is at least so much.
    fn raise(&mut self, symbol: SymbolId, level: Tristate) -> Plan {
        if self.values.tristate(symbol) >= level {
            return Plan::default();
        }
        let is_tristate = match self.values.kind(symbol) {
            Some(SymbolType::Tristate) => true,
            Some(SymbolType::Bool) => false,
            _ => {
                return Plan::dead(Step::Stuck {
                    symbol,
                    why: "is neither bool nor tristate".to_owned(),
                });
            }
        };
        if level < self.preferred && is_tristate && self.values.has_modules() {
            let plan = self.symbol(symbol, Direction::AtLeast(self.preferred));
            if !plan.is_dead() {
                return plan;
            }
        }
        let value = if is_tristate && self.values.has_modules() {
            level
        } else {
            Tristate::Yes
        };
        let by_hand = self.prompts(symbol, value).map(|mut plan| {
            plan.sets.insert(symbol, value.letter().to_owned());
            let is_member = self.values.model.choice(symbol).is_some();
            plan.cost = plan.cost.saturating_add(if is_member { 4 } else { 1 });
            plan
        });
        match by_hand {
            Some(plan) if !plan.is_dead() => plan,
            by_hand => {
                let other = cheapest(self.others(symbol, value));
                // Why it cannot be set says more than why what could select it cannot.
                let best = match (by_hand, other) {
                    (Some(by_hand), Some(other)) if other.is_dead() => Some(by_hand),
                    (by_hand, other) => other.or(by_hand),
                };
                best.unwrap_or_else(|| {
                    Plan::dead(Step::Stuck {
                        symbol,
                        why: "has no prompt, and nothing selects it or sets it by default"
                            .to_owned(),
                    })
                })
            }
        }
    }

    /// Ways to a value that are not a prompt: defaults, `select`s and `imply`s.
    fn others(&mut self, symbol: SymbolId, level: Tristate) -> Vec<Plan> {
        let mut plans = self.by_default(symbol, level);
        let model = self.values.model;
        for (source, select) in selects_of(model, symbol)
            .take(SELECTS_MAX)
            .chain(implies_of(model, symbol).take(SELECTS_MAX))
        {
            let Some(EntryKind::Symbol(by)) = model.entry(source.entry).map(|entry| entry.kind)
            else {
                continue;
            };
            let level = self.level(symbol, level);
            let mut plan = self.symbol(by, Direction::AtLeast(level));
            if let Some(condition) = &select.condition {
                let site = Site {
                    symbol: by,
                    bearing: Bearing::Selects,
                    spot: select.spot,
                };
                plan.and(&self.at_least(condition, level, site));
            }
            let name = model.symbol(by).map_or("", |symbol| &symbol.name);
            let place = model.place(select.spot);
            plans.push(plan.first(Step::Through {
                symbol,
                how: format!("{name} selects it ({place})"),
            }));
        }
        plans
    }

    fn by_default(&mut self, symbol: SymbolId, level: Tristate) -> Vec<Plan> {
        let model = self.values.model;
        let mut plans = Vec::new();
        let Some(found) = model.symbol(symbol) else {
            return plans;
        };
        let level = self.level(symbol, level);
        for id in &found.entries {
            let Some(entry) = model.entry(*id) else {
                continue;
            };
            for default in &entry.defaults {
                let site = Site {
                    symbol,
                    bearing: Bearing::Default,
                    spot: default.spot,
                };
                let mut plan = self.around(symbol, *id, level);
                let holds = default.condition.as_ref();
                if let Some(condition) = holds {
                    plan.and(&self.at_least(condition, level, site));
                }
                plan.and(&self.at_least(&default.value, level, site));
                plans.push(plan);
                let now = holds.map(|condition| self.values.condition(condition).low);
                if now.is_none_or(|now| now == Tristate::Yes) {
                    // Later defaults have no say.
                    return plans;
                }
            }
        }
        plans
    }

    /// So that a symbol is at most so much.
    fn lower(&mut self, symbol: SymbolId, level: Tristate) -> Plan {
        if self.values.tristate(symbol) <= level {
            return Plan::default();
        }
        let model = self.values.model;
        let is_bool = self.values.kind(symbol) == Some(SymbolType::Bool);
        let level = if is_bool { Tristate::No } else { level };
        let mut plan = Plan::default();
        let mut is_selected = false;
        for (source, select) in selects_of(model, symbol) {
            if self.values.forces(source, select).high <= level {
                continue;
            }
            is_selected = true;
            if let Some(EntryKind::Symbol(by)) = model.entry(source.entry).map(|entry| entry.kind) {
                let name = model.symbol(by).map_or("", |symbol| &symbol.name);
                plan.steps.push(Step::Through {
                    symbol,
                    how: format!("{name} selects it ({})", model.place(select.spot)),
                });
                plan.and(&self.symbol(by, Direction::AtMost(level)));
            }
        }
        if let Some(choice) = model.choice(symbol) {
            plan.and(&self.another(symbol, choice));
            return plan;
        }
        match self.prompts(symbol, Tristate::Module) {
            Some(prompt) if !prompt.is_dead() => {
                plan.and(&prompt);
                plan.sets.insert(symbol, level.letter().to_owned());
                // To do without something is asked of people only where nothing can be added.
                plan.cost = plan.cost.saturating_add(3);
            }
            _ if is_selected => {}
            _ => {
                let default = self.active_default(symbol);
                plan.and(&Plan::dead(Step::Stuck {
                    symbol,
                    why: match default {
                        Some(spot) => format!(
                            "is {} by default ({}) and cannot be set by hand",
                            self.values.tristate(symbol).letter(),
                            model.place(spot)
                        ),
                        None => "cannot be set by hand".to_owned(),
                    },
                }));
            }
        }
        plan
    }

    /// The default that gives a symbol its value now.
    pub(super) fn active_default(&self, symbol: SymbolId) -> Option<Spot> {
        let model = self.values.model;
        for id in &model.symbol(symbol)?.entries {
            let around = self.values.depends(*id);
            for default in &model.entry(*id)?.defaults {
                let own = default.condition.as_ref();
                let own = own.map_or(around, |one| around.and(self.values.condition(one)));
                if own.high > Tristate::No && self.values.value(&default.value).high > Tristate::No
                {
                    return Some(default.spot);
                }
            }
        }
        None
    }

    /// So that another member of the choice is taken.
    fn another(&mut self, symbol: SymbolId, choice: EntryId) -> Plan {
        let members = self.values.model.members(choice);
        let free = members
            .iter()
            .copied()
            .find(|member| *member != symbol && self.values.visibility(*member).low > Tristate::No);
        let Some(free) = free else {
            return Plan::dead(Step::Stuck {
                symbol,
                why: "is the only member of its choice that can be taken".to_owned(),
            });
        };
        Plan {
            steps: Vec::new(),
            sets: BTreeMap::from([(free, "y".to_owned())]),
            cost: 4,
        }
    }
}

impl Plan {
    /// Without the line that says again what the line before it will say.
    fn without_first_needs(mut self, site: Site) -> Plan {
        let is_same = matches!(
            self.steps.first(),
            Some(Step::Needs { symbol, spot, .. }) if *symbol == site.symbol && *spot == site.spot
        );
        if is_same {
            self.steps.remove(0);
        }
        self
    }
}
