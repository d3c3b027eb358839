//! Why something was chosen, or cannot be: in the words of the packages' own fields.

use crate::debian::packages::PackageId;
use crate::debian::relations::{self, Alternatives, Relation};
use crate::debian::resolve::{CHAIN_MAX, Contradiction, Reason, Solver, State};

impl<'a> Solver<'_, 'a> {
    pub(super) fn show(&self, id: PackageId) -> String {
        let package = self.universe.package(id);
        let architecture = match self.architecture(id) {
            own if own == self.architectures[0] => String::new(),
            foreign => format!(":{foreign}"),
        };
        format!(
            "{}{architecture} {}",
            package.name,
            package.version.as_str()
        )
    }

    /// The steps from the request to a selected package.
    pub(super) fn why(&self, id: PackageId) -> Vec<String> {
        match self.states.get(&id) {
            Some(State::Selected(reason)) => self.chain_of_reason(id, reason),
            _ => Vec::new(),
        }
    }

    /// A package, who needs it, who needs that one, and so on.
    pub(super) fn owners(&self, mut id: PackageId) -> Vec<String> {
        let mut names = vec![self.name(id).to_owned()];
        while let Some(State::Selected(Reason::NeededBy(owner, _))) = self.states.get(&id)
            && names.len() < CHAIN_MAX
        {
            names.push(self.name(*owner).to_owned());
            id = *owner;
        }
        names
    }

    pub(super) fn chain_of_reason(&self, id: PackageId, reason: &Reason<'a>) -> Vec<String> {
        let mut chain = Vec::new();
        let (mut id, mut reason) = (id, reason);
        loop {
            let Reason::NeededBy(owner, alternatives) = reason else {
                chain.push(format!("{} is asked for", self.name(id)));
                break;
            };
            chain.push(format!(
                "{} needs {}",
                self.name(*owner),
                relations::display(alternatives)
            ));
            match self.states.get(owner) {
                Some(State::Selected(next)) if chain.len() < CHAIN_MAX => {
                    (id, reason) = (*owner, next)
                }
                _ => break,
            }
        }
        chain.reverse();
        chain
    }

    pub(super) fn no_candidate(
        &self,
        owner: PackageId,
        alternatives: &Alternatives<'a>,
    ) -> Contradiction {
        let mut chain = self.why(owner);
        chain.push(format!(
            "{} needs {}",
            self.name(owner),
            relations::display(alternatives)
        ));
        let why: Vec<String> = alternatives
            .iter()
            .map(|relation| self.why_none(relation, self.architecture(owner)))
            .collect();
        chain.push(format!("but {}", why.join(" and ")));
        let mut names = Vec::new();
        for relation in alternatives {
            names.push(relation.name.to_owned());
            for id in self.satisfying(relation, self.architecture(owner)) {
                if let Some(State::ExcludedBy(by)) = self.states.get(&id) {
                    names.extend(self.owners(*by));
                }
            }
        }
        names.extend(self.owners(owner));
        Contradiction { chain, names }
    }

    pub(super) fn why_none(&self, relation: &Relation<'_>, of: &str) -> String {
        let name = relation.name;
        if let Some(&id) = self.satisfying(relation, of).first() {
            return match self.states.get(&id) {
                Some(State::ExcludedBy(by)) => {
                    format!("{} conflicts with {}", self.show(*by), self.show(id))
                }
                _ => format!("{} leads to another contradiction", self.show(id)),
            };
        }
        match self.named(name).next() {
            Some(id) => format!("the archive has {}", self.show(id)),
            None if self.left_out.contains(name) => format!("the recipe leaves out {name}"),
            None => format!("the archive has no {name}"),
        }
    }
}
