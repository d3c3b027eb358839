//! Secrets: values that a step may read and nothing keeps.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use coop_runtime::TransientFile;

use super::{GuestError, Step};
use crate::recipe::Recipe;

/// The largest secret, in bytes.
pub const SECRET_BYTES_MAX: usize = 32 << 10;
/// Where a step finds its secrets: a folder in the guest's memory.
const FOLDER: &str = "/run/secrets";
/// Lines of a secret that are shorter than this, in bytes, are not looked for in what steps write:
/// they are in everything.
const MASKED_BYTES_MIN: usize = 4;
/// What stands in a step's output for a secret.
const MASK: &[u8] = b"***";

/// The values of secrets, by their names.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secrets(BTreeMap<String, Vec<u8>>);

impl fmt::Debug for Secrets {
    /// Says no more than the names.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Secrets {
    /// Adds a value, at most [`SECRET_BYTES_MAX`] bytes; an earlier one of the name is replaced.
    pub fn insert(&mut self, name: &str, value: Vec<u8>) {
        self.0.insert(name.to_owned(), value);
    }

    /// Checks that these are the secrets of a recipe's steps.
    ///
    /// # Errors
    /// The first one that nobody gives, or that nobody asks for.
    pub fn check(&self, recipe: &Recipe) -> Result<(), SecretError> {
        let steps = &recipe.rootfs.run;
        let mut asked = steps.iter().flat_map(|step| &step.secrets);
        if let Some(name) = asked.find(|name| !self.0.contains_key(*name)) {
            return Err(SecretError::Missing(name.clone()));
        }
        let is_asked = |name: &&String| steps.iter().any(|step| step.secrets.contains(name));
        match self.0.keys().find(|name| !is_asked(name)) {
            Some(name) => Err(SecretError::Unasked(name.clone())),
            None => Ok(()),
        }
    }

    /// The files with the secrets of a step.
    pub(super) fn files(&self, step: &Step) -> Result<Vec<TransientFile>, GuestError> {
        let file = |name: &String| {
            let value = self.0.get(name);
            let value = value.ok_or_else(|| SecretError::Missing(name.clone()))?;
            Ok(TransientFile {
                path: format!("{FOLDER}/{name}").into_bytes(),
                mode: 0o400,
                content: value.clone(),
            })
        };
        step.secrets.iter().map(file).collect()
    }

    /// What may not be shown of the output of a step.
    pub(super) fn mask(&self, step: &Step) -> Mask {
        let values = step.secrets.iter().filter_map(|name| self.0.get(name));
        let lines = values.flat_map(|value| value.split(|byte| *byte == b'\n'));
        let lines = lines.map(<[u8]>::trim_ascii);
        let mut patterns: Vec<Vec<u8>> = lines
            .filter(|line| line.len() >= MASKED_BYTES_MIN)
            .map(<[u8]>::to_vec)
            .collect();
        // Of two that begin alike the longer is found.
        patterns.sort_by_key(|pattern| std::cmp::Reverse(pattern.len()));
        Mask(patterns.into())
    }
}

/// Why the secrets at hand do not fit a recipe.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// Nobody gives one that a step asks for.
    #[error("a step asks for the secret '{0}', and nobody says what it is")]
    Missing(String),
    /// One is given that no step asks for.
    #[error("no step of the recipe asks for the secret '{0}'")]
    Unasked(String),
}

/// Texts that are not shown.
#[derive(Clone, Default)]
pub(super) struct Mask(Arc<[Vec<u8>]>);

impl Mask {
    /// Replaces what may not be shown.
    pub(super) fn hide(&self, line: &[u8]) -> Vec<u8> {
        let mut shown = Vec::with_capacity(line.len());
        let mut rest = line;
        while let [first, others @ ..] = rest {
            match self.0.iter().find(|pattern| rest.starts_with(pattern)) {
                Some(pattern) => {
                    shown.extend_from_slice(MASK);
                    rest = rest.get(pattern.len()..).unwrap_or_default();
                }
                None => {
                    shown.push(*first);
                    rest = others;
                }
            }
        }
        shown
    }

    /// How many bytes at the end may be the beginning of what may not be shown.
    pub(super) fn undecided(&self, line: &[u8]) -> usize {
        let begins = |count: &usize| {
            let end = line.get(line.len() - count..).unwrap_or_default();
            let mut patterns = self.0.iter();
            patterns.any(|pattern| pattern.len() > end.len() && pattern.starts_with(end))
        };
        let longest = self.0.first().map_or(0, Vec::len).min(line.len());
        (1..=longest).rev().find(begins).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets(values: &[(&str, &str)]) -> (Secrets, Step) {
        let mut secrets = Secrets::default();
        let mut step = Step::new("a", Vec::new());
        for (name, value) in values {
            secrets.insert(name, value.as_bytes().to_vec());
            step.secrets.push((*name).to_owned());
        }
        (secrets, step)
    }

    #[test]
    fn what_is_secret_is_not_shown() {
        let (secrets, step) = secrets(&[("a", "hunter2\n"), ("b", "hunter2345\nxy\nother line\n")]);
        let mask = secrets.mask(&step);
        let hidden = |text: &str| String::from_utf8(mask.hide(text.as_bytes())).unwrap();
        assert_eq!(hidden("it is hunter2, or hunter2345"), "it is ***, or ***");
        assert_eq!(hidden("xy: other lines"), "xy: ***s");
        assert_eq!(mask.undecided(b"abc hunt"), 4);
        assert_eq!(mask.undecided(b"hunter2"), 7);
        assert_eq!(mask.undecided(b"hunter2345"), 0);
        assert_eq!(mask.undecided(b"nothing"), 0);
        assert_eq!(format!("{secrets:?}"), r#"{"a", "b"}"#);
    }

    #[test]
    fn a_step_gets_its_own() {
        let (mut all, step) = secrets(&[("a", "1")]);
        all.insert("b", b"2".to_vec());
        let files = all.files(&step).unwrap();
        assert_eq!(files.len(), 1);
        assert_eq!(files[0].path, b"/run/secrets/a");
        let error = Secrets::default().files(&step).unwrap_err();
        assert!(error.to_string().contains("the secret 'a'"));
    }

    #[test]
    fn given_and_asked_are_the_same() {
        let text = "name: a\nrootfs:\n  source: {debian: {suite: sid}}\n  \
                    run: [{run: \"true\", secrets: [token]}]\n";
        let file = std::path::Path::new("/r.yaml");
        let (recipe, _) = crate::recipe::parse(text, file, &BTreeMap::new()).unwrap();
        let mut secrets = Secrets::default();
        let missing = SecretError::Missing("token".to_owned());
        assert_eq!(secrets.check(&recipe), Err(missing));
        secrets.insert("token", b"x".to_vec());
        assert_eq!(secrets.check(&recipe), Ok(()));
        secrets.insert("tokn", b"x".to_vec());
        let unasked = SecretError::Unasked("tokn".to_owned());
        assert_eq!(secrets.check(&recipe), Err(unasked));
    }
}
