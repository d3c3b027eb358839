//! The plan: what a build does, in order, and what each step's result depends on.
//!
//! ```text
//! source ─→ [packages] ─→ configure* ─→ files ─→ modules ─→ services* ─→ run* … ─→ image
//! ```
//!
//! Every step has named fields, and its key is the digest of these and of the key before it: of
//! everything that can change its result. Steps that run in a guest (`*`) leave their tree in the
//! store under their key. A build looks for the last of them that is there and goes on behind it,
//! so that nothing before it is done, unpacked or even fetched.
//!
//! No field names the recipe: recipes that begin in the same way share their results. The code of
//! coop is a field of the first step, the guest's kernel one of each that runs in a guest.
//!
//! | module | what |
//! |---|---|
//! | `make` | a recipe's steps and their fields |
//! | `trees` | trees in the store |
//! | `explain` | what a build would do, and what differs from the last one |

mod explain;
mod make;
mod trees;

pub use explain::{Explanation, Status, StepReport};
pub(crate) use explain::{remember, remembered};
pub(crate) use make::{Given, make};
pub use trees::PlanError;
pub(crate) use trees::Trees;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::inputs::Record;

/// Something that a step's result depends on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Field {
    /// What it is: `package libc6`, `script`.
    pub(crate) name: String,
    /// What it has: a version, a digest.
    pub(crate) value: String,
}

impl Field {
    /// A field.
    #[must_use]
    pub(crate) fn new(name: impl Into<String>, value: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            value: value.into(),
        }
    }
}

impl From<(String, String)> for Field {
    fn from((name, value): (String, String)) -> Self {
        Self { name, value }
    }
}

/// What a step does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Brings the source's tree.
    Source,
    /// Configures packages in the guest.
    Configure,
    /// Puts host name, users and files in.
    Customise,
    /// Installs the kernel's modules.
    Modules,
    /// Runs the program with this position among services and `run:` steps in the guest.
    Run(usize),
    /// Writes the appliance.
    Image,
}

impl Action {
    /// Whether the store keeps the tree that the step leaves.
    #[must_use]
    pub(crate) fn is_kept(self) -> bool {
        matches!(self, Self::Configure | Self::Run(_))
    }
}

/// A step of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PlanStep {
    /// What it is called: `packages`, `run: apt-get install nginx`.
    pub(crate) name: String,
    /// What it does.
    pub(crate) action: Action,
    /// What its result depends on, beside the step before it.
    pub(crate) fields: Vec<Field>,
    /// The digest of both.
    pub(crate) key: Digest,
}

/// The steps of a build, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// The steps.
    pub(crate) steps: Vec<PlanStep>,
}

impl Plan {
    /// Adds a step behind the others.
    pub(crate) fn push(&mut self, name: impl Into<String>, action: Action, fields: Vec<Field>) {
        let mut record = Record::new("coop step");
        if let Some(before) = self.steps.last() {
            record.put("before", before.key.as_bytes());
        }
        for Field { name, value } in &fields {
            record.put("name", name.as_bytes());
            record.put("value", value.as_bytes());
        }
        self.steps.push(PlanStep {
            name: name.into(),
            action,
            fields,
            key: record.finish(),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(steps: &[&[(&str, &str)]]) -> Plan {
        let mut plan = Plan::default();
        for fields in steps {
            let fields = fields.iter().map(|(name, value)| Field::new(*name, *value));
            plan.push("name", Action::Configure, fields.collect());
        }
        plan
    }

    #[test]
    fn keys_depend_on_all_that_comes_before() {
        let keys = |steps| plan(steps).steps.into_iter().map(|step| step.key);
        let base: Vec<_> = keys(&[&[("a", "1")], &[("b", "1")]]).collect();
        assert_ne!(base[0], base[1]);
        let other: Vec<_> = keys(&[&[("a", "2")], &[("b", "1")]]).collect();
        assert!(other[0] != base[0] && other[1] != base[1]);
        let longer: Vec<_> = keys(&[&[("a", "1")], &[("b", "1")], &[]]).collect();
        assert_eq!(longer[..2], base);
        let mixed: Vec<_> = keys(&[&[("a", "1"), ("b", "1")]]).collect();
        let swapped: Vec<_> = keys(&[&[("b", "1"), ("a", "1")]]).collect();
        assert!(mixed[0] != base[1] && mixed != swapped);
    }
}
