//! Which keys are trusted, and for what.

use std::io;

use serde::Deserialize;

use super::error::PolicyError;
use super::key::PublicKey;

/// The longest policy that is read, in bytes.
pub const POLICY_BYTES_MAX: u64 = 1 << 20;
/// How many keys a policy may name.
const KEYS_MAX: usize = 1000;

/// Trusted keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// The keys, in the policy's order.
    pub keys: Vec<TrustedKey>,
}

/// A key, and what it may sign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustedKey {
    /// What the policy calls it.
    pub name: String,
    /// The key.
    pub key: PublicKey,
    /// Patterns of appliances' names; none means every appliance.
    pub appliances: Vec<String>,
    /// Patterns of references in registries; none means from anywhere. With any, the key counts for
    /// pulls alone.
    pub references: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    keys: Vec<WrittenKey>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenKey {
    name: String,
    key: Option<String>,
    file: Option<String>,
    appliances: Option<Vec<String>>,
    references: Option<Vec<String>>,
}

impl Policy {
    /// A policy that trusts one key for everything.
    #[must_use]
    pub fn of_key(name: &str, key: PublicKey) -> Self {
        Self {
            keys: vec![TrustedKey {
                name: name.to_owned(),
                key,
                appliances: Vec::new(),
                references: Vec::new(),
            }],
        }
    }

    /// Reads a policy's YAML; `load` gives the text of a key's file.
    ///
    /// ```yaml
    /// keys:
    ///   - name: release
    ///     key: RWQ…                  # minisign's line or a PEM; or file: release.pub
    ///     appliances: [web, "db-*"]  # default: every appliance; * stands for any characters
    ///     references: ["registry.example.org/team/*"]  # default: from anywhere
    /// ```
    ///
    /// # Errors
    /// Something in it is not known or not sound; nothing of it is used then.
    pub fn parse(
        text: &str,
        load: &dyn Fn(&str) -> io::Result<String>,
    ) -> Result<Self, PolicyError> {
        let written: Written =
            serde_saphyr::from_str(text).map_err(|error| PolicyError::Syntax(error.to_string()))?;
        if written.keys.len() > KEYS_MAX {
            let message = format!("it names more than {KEYS_MAX} keys");
            return Err(PolicyError::Syntax(message));
        }
        let mut policy = Self::default();
        for key in written.keys {
            let name = key.name.escape_debug().to_string();
            let entry = |reason: &str| PolicyError::Entry {
                name: name.clone(),
                reason: reason.to_owned(),
            };
            if policy.keys.iter().any(|other| other.name == name) {
                return Err(entry("there are two of this name"));
            }
            let text = match (key.key, key.file) {
                (Some(key), None) => key,
                (None, Some(file)) => load(&file).map_err(|source| PolicyError::Io {
                    name: name.clone(),
                    source,
                })?,
                _ => return Err(entry("it needs either key or file")),
            };
            let parsed = PublicKey::parse(&text).map_err(|source| PolicyError::Key {
                name: name.clone(),
                source,
            })?;
            let patterns = |given: Option<Vec<String>>| match given {
                // An empty list must not come to mean everything.
                Some(list) if list.is_empty() || list.iter().any(String::is_empty) => {
                    Err(entry("a list of patterns is empty, or one of them"))
                }
                list => Ok(list.unwrap_or_default()),
            };
            policy.keys.push(TrustedKey {
                appliances: patterns(key.appliances)?,
                references: patterns(key.references)?,
                key: parsed,
                name,
            });
        }
        Ok(policy)
    }
}

impl TrustedKey {
    /// Whether it may sign an appliance of this name from there.
    pub(super) fn covers(&self, appliance: &str, reference: Option<&str>) -> bool {
        let any = |patterns: &[String], text: &str| {
            patterns.is_empty() || patterns.iter().any(|pattern| matches(pattern, text))
        };
        let from = match reference {
            Some(reference) => any(&self.references, reference),
            None => self.references.is_empty(),
        };
        from && any(&self.appliances, appliance)
    }
}

/// Whether `*` of a pattern can stand for characters so that it becomes the text.
fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut left) = text.strip_prefix(first) else {
        return false;
    };
    let Some(last) = parts.next_back() else {
        return left.is_empty();
    };
    for part in parts {
        match left.find(part) {
            Some(at) => {
                left = left
                    .get(at.saturating_add(part.len())..)
                    .unwrap_or_default()
            }
            None => return false,
        }
    }
    left.ends_with(last)
}
