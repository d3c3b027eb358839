//! The kernel's own menu on a person's terminal, and what was changed in it.
//!
//! The menu writes a whole .config. What goes back to the recipe is the least that leads there: at
//! first what the two minimal configurations differ in; then the kernel is configured with that as
//! it would be from the recipe, and what still differs and can be asked for is added. So the
//! fragment is proved before anyone has it.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::os::fd::AsFd;

use super::runner::Runner;
use super::{
    Configured, Found, Job, MakeError, MakeRequest, Place as Toolbox, Programs, Work, configure,
    tools,
};
use crate::kernel::config::{Condition, DotConfig, Merged, Place, Version, Wanted, merge};
use crate::kernel::kconfig::Kconfig;
use crate::kernel::settings::{Difference, differences};
use crate::kernel::source::Extent;

/// How often it is looked what still differs. What one symbol brings with it is mostly seen at once.
const ROUNDS_MAX: usize = 4;
/// What the kernel's menu is linked with.
const HEADER: &str = "curses.h";
/// Its goal for make, whose name is what it is called.
const GOAL: &str = "menuconfig";

/// What a person has changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MenuChanges {
    /// Which kernel it is: `7.2.13`.
    pub version: String,
    /// What is to be wanted, after all that the recipe wants, to have what the menu has saved;
    /// symbols with `CONFIG_` and values as in a .config, sorted.
    pub settings: BTreeMap<String, String>,
    /// What nevertheless would be otherwise: first what the recipe would lead to.
    pub remaining: Vec<Difference>,
}

/// Opens the menu of a kernel that is configured as requested, and waits for its end. `term` is the
/// kind of the terminal, which is open for reading and writing; its modes are the caller's matter.
///
/// # Errors
/// See [`MakeError`]. A wanted symbol that does not hold is no error: the menu is where to see why.
pub fn menu(
    request: &MakeRequest<'_>,
    terminal: &impl AsFd,
    term: &OsStr,
) -> Result<MenuChanges, MakeError> {
    let job = match Job::find(request)? {
        Found::Job(job) => job,
        Found::Kernel(..) => return missing(request),
    };
    let Toolbox::Host { programs, .. } = &job.place else {
        return Err(MakeError::MenuInGuest);
    };
    if !tools::has_header(HEADER, programs)? {
        return Err(MakeError::Menu(HEADER));
    }
    let log = job.lock()?;
    let temporary = job.room()?;
    let (before, prepared) = job.prepared(temporary.path(), log, Extent::Configuration)?;
    let Work::Host(mut runner) = prepared.work else {
        return Err(MakeError::MenuInGuest);
    };
    let variables = [(OsString::from("TERM"), term.to_owned())];
    runner.make_on_terminal("the kernel's menu", GOAL, variables, terminal)?;
    let after = configure::settled(&mut runner)?;
    let version = Version::of_release(&before.version);
    let mut search = Search {
        request,
        version: version.unwrap_or(Version { major: 0, minor: 0 }),
        kconfig: Kconfig::read(&runner.folders.source, runner.target).ok(),
        after: &after,
        goal: DotConfig::parse(&after.config),
        settings: BTreeMap::new(),
    };
    search.begin(&before);
    let remaining = search.complete(&before, &mut runner)?;
    Ok(MenuChanges {
        version: before.version.clone(),
        settings: search.settings,
        remaining,
    })
}

fn missing(request: &MakeRequest<'_>) -> Result<MenuChanges, MakeError> {
    let programs = Programs::of_system(request.programs);
    let missing = tools::missing(request.source.target, &programs)?;
    Err(MakeError::Missing(missing))
}

/// The search for the least that leads from the recipe to what the menu has saved.
struct Search<'a> {
    request: &'a MakeRequest<'a>,
    version: Version,
    kconfig: Option<Kconfig>,
    after: &'a Configured,
    /// The same, read.
    goal: DotConfig,
    settings: BTreeMap<String, String>,
}

impl Search<'_> {
    /// What the minimal configurations differ in: mostly what the person has touched.
    fn begin(&mut self, before: &Configured) {
        let lines = |text: &str| -> BTreeSet<String> {
            let lines = text.lines().filter(|line| symbol_of(line).is_some());
            lines.map(str::to_owned).collect()
        };
        let (first, second) = (lines(&before.minimal), lines(&self.after.minimal));
        let touched: BTreeSet<&str> = first
            .symmetric_difference(&second)
            .filter_map(|line| symbol_of(line))
            .collect();
        for difference in differences(&DotConfig::parse(&before.config), &self.goal) {
            if touched.contains(&*difference.symbol) {
                self.add(&difference);
            }
        }
    }

    /// Adds what the recipe with these settings would not lead to, as far as it can be asked for;
    /// says what is left.
    fn complete(
        &mut self,
        before: &Configured,
        runner: &mut Runner<'_>,
    ) -> Result<Vec<Difference>, MakeError> {
        if before.config == self.after.config {
            return Ok(Vec::new());
        }
        let mut remaining = Vec::new();
        for _ in 0..ROUNDS_MAX {
            let now = configure::configure(runner, &self.merged(), self.request.defconfig)?;
            remaining = differences(&DotConfig::parse(&now.config), &self.goal);
            let known = self.settings.len();
            for difference in &remaining {
                self.add(difference);
            }
            // A wish of the recipe that this takes the ground from is taken back with it.
            for dropped in &now.dropped {
                let wanted = &dropped.wanted;
                if before.holds(&wanted.symbol) {
                    let value = self.goal.get(&wanted.symbol).to_owned();
                    self.settings.entry(wanted.symbol.clone()).or_insert(value);
                }
            }
            if self.settings.len() == known {
                break;
            }
        }
        Ok(remaining)
    }

    fn merged(&self) -> Merged {
        let menu = self.settings.iter().map(|(symbol, value)| Wanted {
            symbol: symbol.clone(),
            value: value.clone(),
            place: Place::default(),
            condition: Condition::default(),
        });
        let wanted: Vec<Wanted> = self.request.wanted.iter().cloned().chain(menu).collect();
        merge(&wanted, self.request.source.target, self.version)
    }

    /// Takes a symbol as the menu has it, if a person can set it there.
    fn add(&mut self, difference: &Difference) {
        let symbol = &difference.symbol;
        let can_be_set = self.kconfig.as_ref().is_none_or(|kconfig| {
            kconfig
                .symbol(symbol)
                .is_some_and(|info| info.prompt.is_some())
        });
        // What is not even named has lost what it depends on; nobody need say that it is not set.
        let unset = format!("# {symbol} is not set");
        let is_named =
            difference.second != "n" || self.after.config.lines().any(|line| line == unset);
        if can_be_set && is_named {
            let value = difference.second.clone();
            self.settings.entry(symbol.clone()).or_insert(value);
        }
    }
}

/// The symbol that a line of a .config is about.
fn symbol_of(line: &str) -> Option<&str> {
    let unset = line
        .strip_prefix("# ")
        .and_then(|rest| rest.strip_suffix(" is not set"));
    let symbol = unset.or(line.split_once('=').map(|(symbol, _)| symbol))?;
    symbol.starts_with("CONFIG_").then_some(symbol)
}
