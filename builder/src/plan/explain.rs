//! What a build would do, and what differs from the last build of the recipe.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Action, Field, Plan, PlanStep};
use crate::digest::Digest;
use crate::store::{Store, StoreError};

/// The store's kind of notes with the fields of a recipe's last build.
const NOTE_KIND: &str = "plan-1";
/// Longer words are not shown.
const SHOWN_LENGTH_MAX: usize = 40;
/// How many changes are told of one step.
const CHANGES_MAX: usize = 200;

/// The steps of a recipe's last build.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Remembered {
    steps: Vec<RememberedStep>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct RememberedStep {
    name: String,
    key: Digest,
    fields: Vec<Field>,
}

/// Remembers what a recipe was built from. `recipe` is whatever tells it from others.
///
/// # Errors
/// The store cannot be written.
pub(crate) fn remember(store: &Store, recipe: &str, plan: &Plan) -> Result<(), StoreError> {
    let steps = plan.steps.iter().map(|step| RememberedStep {
        name: step.name.clone(),
        key: step.key,
        fields: step.fields.clone(),
    });
    let remembered = Remembered {
        steps: steps.collect(),
    };
    let text = serde_json::to_vec(&remembered).map_err(std::io::Error::from)?;
    store.put_note(NOTE_KIND, recipe, &text)
}

/// What a recipe was built from the last time; nothing where that is not known.
///
/// # Errors
/// The store cannot be read.
pub(crate) fn remembered(store: &Store, recipe: &str) -> Result<Option<Remembered>, StoreError> {
    let note = store.note(NOTE_KIND, recipe)?;
    Ok(note.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
}

/// What a build would do with a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Its result is in the cache.
    Cached,
    /// Nothing: a later result in the cache has it in it.
    Covered,
    /// It would be done.
    Run,
    /// The output is of these inputs.
    Current,
}

impl Status {
    /// In a word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Cached => "cached",
            Self::Covered => "covered",
            Self::Run => "run",
            Self::Current => "current",
        }
    }
}

/// What is said of a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StepReport {
    /// The step.
    pub name: String,
    /// What a build would do.
    pub status: Status,
    /// Whether its result is kept in the cache at all.
    pub kept: bool,
    /// What it is found by.
    pub key: Digest,
    /// Why it is not what it was, a line each.
    pub changes: Vec<String>,
}

/// What a build would do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// The steps, in order.
    pub steps: Vec<StepReport>,
}

impl Explanation {
    /// Looks at a plan. `has` says whether the cache has a step's result, `current` whether the
    /// output is of these inputs.
    #[must_use]
    pub(crate) fn new(
        plan: &Plan,
        last: Option<&Remembered>,
        current: bool,
        has: impl Fn(Digest) -> bool,
    ) -> Self {
        let there: Vec<bool> = plan
            .steps
            .iter()
            .map(|step| step.action.is_kept() && has(step.key))
            .collect();
        let first = there
            .iter()
            .rposition(|there| *there)
            .map_or(0, |at| at + 1);
        let status = |index: usize| match plan.steps[index].action {
            Action::Image if current => Status::Current,
            _ if there[index] => Status::Cached,
            _ if index < first => Status::Covered,
            _ => Status::Run,
        };
        let steps = plan.steps.iter().enumerate().map(|(index, step)| {
            let status = status(index);
            let known = last.and_then(|last| find(last, plan, index));
            StepReport {
                name: step.name.clone(),
                status,
                kept: step.action.is_kept(),
                key: step.key,
                changes: changes(step, status, known, last.is_some()),
            }
        });
        Self {
            steps: steps.collect(),
        }
    }
}

/// The step of the last build with the same name; of several with one name, the one that is as far
/// from the first of them; else the one at the same place.
fn find<'l>(last: &'l Remembered, plan: &Plan, index: usize) -> Option<&'l RememberedStep> {
    let step = &plan.steps[index];
    let before = plan.steps[..index]
        .iter()
        .filter(|one| one.name == step.name);
    let same_name = last.steps.iter().filter(|one| one.name == step.name);
    let by_place = || {
        let known = last.steps.get(index)?;
        // One that has its own place in the plan is not this one.
        let is_free = plan.steps.iter().all(|one| one.name != known.name);
        is_free.then_some(known)
    };
    same_name.clone().nth(before.count()).or_else(by_place)
}

fn changes(
    step: &PlanStep,
    status: Status,
    known: Option<&RememberedStep>,
    was_built: bool,
) -> Vec<String> {
    let Some(known) = known else {
        return match (was_built, status) {
            (_, Status::Cached | Status::Covered | Status::Current) => Vec::new(),
            (true, Status::Run) => vec!["a new step".to_owned()],
            (false, Status::Run) => vec!["this recipe was not built before".to_owned()],
        };
    };
    let mut changes = differences(&known.fields, &step.fields);
    let left = changes.len().saturating_sub(CHANGES_MAX);
    if left > 0 {
        changes.truncate(CHANGES_MAX);
        changes.push(format!("and {left} more"));
    }
    if !changes.is_empty() || status != Status::Run {
        return changes;
    }
    let why = match (known.key == step.key, step.action) {
        (false, _) => "what comes before it changed",
        (true, Action::Image) => "the output is not there, or is not of this recipe",
        (true, action) if action.is_kept() => "its result is not in the cache any more",
        // Done because of what comes after it.
        (true, _) => return Vec::new(),
    };
    vec![why.to_owned()]
}

/// What differs, by name.
fn differences(old: &[Field], new: &[Field]) -> Vec<String> {
    let mut pairs: BTreeMap<&str, [Vec<&str>; 2]> = BTreeMap::new();
    for (side, fields) in [old, new].into_iter().enumerate() {
        for field in fields {
            pairs.entry(&field.name).or_default()[side].push(&field.value);
        }
    }
    let mut lines = Vec::new();
    for (name, [old, new]) in pairs {
        if old != new {
            lines.push(difference(name, &old, &new));
        }
    }
    if lines.is_empty() && old != new {
        lines.push("the order changed".to_owned());
    }
    lines
}

fn difference(name: &str, old: &[&str], new: &[&str]) -> String {
    match (old, new) {
        ([], [new, ..]) => format!("{name}{} is new", shown(new)),
        ([old, ..], []) => format!("{name}{} is gone", shown(old)),
        ([old], [new]) if shown(old) != shown(new) => {
            format!("{name}{} →{}", shown(old), shown(new))
        }
        _ => format!("{name} changed"),
    }
}

/// The first word of a value, with a space before it; nothing where it says nothing to people.
fn shown(value: &str) -> String {
    let word = value.split(' ').next().unwrap_or_default();
    let is_digest = word.parse::<Digest>().is_ok();
    let is_structure = word.starts_with(['[', '{']);
    match word.is_empty() || word.len() > SHOWN_LENGTH_MAX || is_digest || is_structure {
        true => String::new(),
        false => format!(" {word}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Shape<'s> = (&'s str, Action, &'s [(&'s str, &'s str)]);

    fn plan(steps: &[Shape<'_>]) -> Plan {
        let mut plan = Plan::default();
        for (name, action, fields) in steps {
            let fields = fields.iter().map(|(name, value)| Field::new(*name, *value));
            plan.push(*name, *action, fields.collect());
        }
        plan
    }

    const LIBC: &[(&str, &str)] = &[
        ("package libc6", "2.41-12 amd64"),
        ("package sed", "4.9-2 amd64"),
    ];

    fn base<'s>(packages: &'s [(&'s str, &'s str)], motd: &'s [(&'s str, &'s str)]) -> Plan {
        plan(&[
            ("packages", Action::Source, packages),
            ("configure", Action::Configure, &[]),
            ("files", Action::Customise, motd),
            ("run: a", Action::Run(0), &[("script", "a")]),
            ("image", Action::Image, &[]),
        ])
    }

    fn told(explanation: &Explanation) -> Vec<String> {
        let line = |step: &StepReport| {
            format!(
                "{} {} {}",
                step.name,
                step.status.word(),
                step.changes.join("; ")
            )
        };
        let lines = explanation.steps.iter().map(line);
        lines.map(|line| line.trim_end().to_owned()).collect()
    }

    #[test]
    fn what_changed_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        assert_eq!(remembered(&store, "r").unwrap(), None);
        let old = base(LIBC, &[("file /etc/motd", "0644 root:root 1")]);
        assert_eq!(
            told(&Explanation::new(&old, None, false, |_| false))[1],
            "configure run this recipe was not built before"
        );
        remember(&store, "r", &old).unwrap();
        let last = remembered(&store, "r").unwrap();
        let has_old = |key| old.steps.iter().any(|step| step.key == key);
        assert_eq!(
            told(&Explanation::new(&old, last.as_ref(), true, has_old)),
            [
                "packages covered",
                "configure cached",
                "files covered",
                "run: a cached",
                "image current"
            ]
        );
        let new = base(LIBC, &[("file /etc/motd", "0644 root:root 2")]);
        assert_eq!(
            told(&Explanation::new(&new, last.as_ref(), false, has_old)),
            [
                "packages covered",
                "configure cached",
                "files run file /etc/motd changed",
                "run: a run what comes before it changed",
                "image run what comes before it changed"
            ]
        );
        let packages = [
            ("package libc6", "2.41-13 amd64"),
            ("package tar", "1.35 amd64"),
        ];
        let new = base(&packages, &[("file /etc/motd", "0644 root:root 1")]);
        assert_eq!(
            told(&Explanation::new(&new, last.as_ref(), false, has_old))[0],
            "packages run package libc6 2.41-12 → 2.41-13; package sed 4.9-2 is gone; \
             package tar 1.35 is new"
        );
        assert_eq!(
            told(&Explanation::new(&old, last.as_ref(), false, |_| false))[1],
            "configure run its result is not in the cache any more"
        );
    }

    #[test]
    fn steps_are_found_by_name_and_then_by_place() {
        let run = |index, name: &'static str, script: &'static [(&str, &str)]| {
            (name, Action::Run(index), script)
        };
        let old = plan(&[
            run(0, "run: a", &[("script", "a")]),
            run(1, "run: b", &[("script", "b")]),
        ]);
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        remember(&store, "r", &old).unwrap();
        let last = remembered(&store, "r").unwrap();
        let explain = |plan: &Plan| told(&Explanation::new(plan, last.as_ref(), false, |_| false));
        let edited = plan(&[
            run(0, "run: c", &[("script", "c")]),
            run(1, "run: b", &[("script", "b")]),
        ]);
        assert_eq!(
            explain(&edited),
            [
                "run: c run script a → c",
                "run: b run what comes before it changed"
            ]
        );
        let added = plan(&[
            run(0, "run: n", &[("script", "n")]),
            run(1, "run: a", &[("script", "a")]),
            run(2, "run: b", &[("script", "b")]),
        ]);
        assert_eq!(explain(&added)[0], "run: n run a new step");
    }
}
