//! The tools that turn nodes into typed values and collect every error on the way.

use std::collections::BTreeMap;

use super::diagnostic::{Diagnostic, Position, Problem, Source, nearest};
use super::node::{Node, Value};
use super::units::shorten;

/// A value with the place where it was written.
#[derive(Clone, Debug)]
pub(super) struct At<T> {
    pub(super) value: T,
    pub(super) at: Position,
}

/// The keys of a map in the schema.
pub(super) struct Keys {
    /// Those that this version acts on.
    pub(super) known: &'static [&'static str],
    /// Those that the schema has and this version refuses.
    pub(super) later: &'static [&'static str],
}

/// A map whose keys are checked.
pub(super) struct Fields<'n, 't> {
    entries: BTreeMap<&'n str, &'n Node<'t>>,
    path: String,
    at: Position,
}

impl<'n, 't> Fields<'n, 't> {
    /// The value under a key; `null` is as good as nothing.
    pub(super) fn get(&self, key: &str) -> Option<&'n Node<'t>> {
        self.entries.get(key).copied()
    }

    /// The path of a key for sentences.
    pub(super) fn path(&self, key: &str) -> String {
        join(&self.path, key)
    }

    /// Where the map begins.
    pub(super) fn at(&self) -> Position {
        self.at
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() {
        key.to_owned()
    } else {
        format!("{path}.{key}")
    }
}

fn within(path: &str) -> String {
    if path.is_empty() {
        "the recipe".to_owned()
    } else {
        path.to_owned()
    }
}

/// The most errors that are collected: a person reads no more.
const DIAGNOSTICS_MAX: usize = 50;

/// Collects diagnostics while nodes become values.
pub(super) struct Decoder<'s> {
    pub(super) source: &'s Source<'s>,
    pub(super) diagnostics: Vec<Diagnostic>,
}

impl<'s> Decoder<'s> {
    pub(super) fn new(source: &'s Source<'s>) -> Self {
        Self {
            source,
            diagnostics: Vec::new(),
        }
    }

    /// Adds an error.
    pub(super) fn report(&mut self, at: Position, problem: Problem, hint: Option<String>) {
        if self.diagnostics.len() < DIAGNOSTICS_MAX {
            self.diagnostics.push(Diagnostic {
                file: self.source.file.to_owned(),
                place: self.source.place(at),
                problem,
                hint,
            });
        }
    }

    /// Adds an error about a value's content.
    pub(super) fn reject(&mut self, at: Position, path: &str, reason: impl Into<String>) {
        let problem = Problem::Value {
            path: path.to_owned(),
            reason: reason.into(),
        };
        self.report(at, problem, None);
    }

    fn wrong_type(&mut self, node: &Node<'_>, path: &str, expected: &str, hint: Option<&str>) {
        let problem = Problem::WrongType {
            path: within(path),
            expected: expected.to_owned(),
            found: node.value.kind().to_owned(),
        };
        self.report(node.at, problem, hint.map(str::to_owned));
    }

    /// Reads a map, and reports each key that the schema does not have or that is for later.
    pub(super) fn map<'n, 't>(
        &mut self,
        node: &'n Node<'t>,
        path: &str,
        keys: &Keys,
    ) -> Option<Fields<'n, 't>> {
        let Value::Map(entries) = &node.value else {
            let hint = format!("its keys are {}", keys.known.join(", "));
            self.wrong_type(node, path, "a map", Some(&hint));
            return None;
        };
        let mut fields = BTreeMap::new();
        for (key, value) in entries {
            let name = key.name.as_str();
            let absent = matches!(value.value, Value::Null);
            if keys.known.contains(&name) {
                if !absent {
                    fields.insert(name, value);
                }
            } else if keys.later.contains(&name) {
                if !absent {
                    self.report(key.at, Problem::NotSupported(join(path, name)), None);
                }
            } else {
                self.unknown_key(name, key.at, path, keys);
            }
        }
        Some(Fields {
            entries: fields,
            path: path.to_owned(),
            at: node.at,
        })
    }

    fn unknown_key(&mut self, name: &str, at: Position, path: &str, keys: &Keys) {
        let candidates = keys.known.iter().chain(keys.later).copied();
        let hint = nearest(name, candidates).map_or_else(
            || format!("known keys are {}", keys.known.join(", ")),
            |near| format!("did you mean '{near}'?"),
        );
        let problem = Problem::UnknownKey {
            key: shorten(name),
            within: within(path),
        };
        self.report(at, problem, Some(hint));
    }

    /// Reads the value under a key, if there is one.
    pub(super) fn field<'n, 't, T>(
        &mut self,
        fields: &Fields<'n, 't>,
        key: &str,
        read: impl FnOnce(&mut Self, &'n Node<'t>, &str) -> Option<T>,
    ) -> Option<T> {
        fields
            .get(key)
            .and_then(|node| read(self, node, &fields.path(key)))
    }

    /// Reads the value under a key that must be there.
    pub(super) fn required<'n, 't, T>(
        &mut self,
        fields: &Fields<'n, 't>,
        key: &str,
        read: impl FnOnce(&mut Self, &'n Node<'t>, &str) -> Option<T>,
    ) -> Option<T> {
        if fields.get(key).is_none() {
            let problem = Problem::Missing {
                key: key.to_owned(),
                within: within(&fields.path),
            };
            self.report(fields.at, problem, None);
        }
        self.field(fields, key, read)
    }

    /// Reads text without NUL characters.
    pub(super) fn text(&mut self, node: &Node<'_>, path: &str) -> Option<At<String>> {
        let text: &str = match &node.value {
            Value::Text(text) => text,
            Value::Filled(text) => text,
            Value::Number(_) | Value::Bool(_) => {
                self.wrong_type(node, path, "text", Some("put it in quotes"));
                return None;
            }
            _ => {
                self.wrong_type(node, path, "text", None);
                return None;
            }
        };
        if text.contains('\0') {
            self.reject(node.at, path, "text with a NUL character");
            return None;
        }
        Some(At {
            value: text.to_owned(),
            at: node.at,
        })
    }

    /// Reads text that a grammar makes into a value; the grammar's error is a sentence.
    pub(super) fn parsed<T>(
        &mut self,
        node: &Node<'_>,
        path: &str,
        grammar: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<At<T>> {
        let text = match &node.value {
            Value::Number(number) => number.clone().into_owned(),
            _ => self.text(node, path)?.value,
        };
        match grammar(&text) {
            Ok(value) => Some(At { value, at: node.at }),
            Err(reason) => {
                self.reject(node.at, path, reason);
                None
            }
        }
    }

    /// Reads a whole decimal number within limits.
    pub(super) fn integer(
        &mut self,
        node: &Node<'_>,
        path: &str,
        limits: std::ops::RangeInclusive<u32>,
    ) -> Option<At<u32>> {
        let text: &str = match &node.value {
            Value::Number(text) => text,
            Value::Filled(text) => text,
            _ => {
                self.wrong_type(node, path, "a whole number", None);
                return None;
            }
        };
        let (low, high) = (limits.start(), limits.end());
        let value = Some(text)
            .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))
            .and_then(|text| text.parse().ok())
            .filter(|value| limits.contains(value));
        if value.is_none() {
            let reason = format!("{} is not a number from {low} to {high}", shorten(text));
            self.reject(node.at, path, reason);
        }
        value.map(|value| At { value, at: node.at })
    }

    /// Reads `true` or `false`.
    pub(super) fn boolean(&mut self, node: &Node<'_>, path: &str) -> Option<bool> {
        match &node.value {
            Value::Bool(value) => Some(*value),
            Value::Filled(text) if text == "true" => Some(true),
            Value::Filled(text) if text == "false" => Some(false),
            _ => {
                self.wrong_type(node, path, "true or false", None);
                None
            }
        }
    }

    /// Reads a list, item by item; items with errors are left out.
    pub(super) fn list<'n, 't, T>(
        &mut self,
        node: &'n Node<'t>,
        path: &str,
        mut read: impl FnMut(&mut Self, &'n Node<'t>, &str) -> Option<T>,
    ) -> Option<Vec<T>> {
        let Value::List(items) = &node.value else {
            self.wrong_type(node, path, "a list", None);
            return None;
        };
        let mut list = Vec::new();
        for (index, item) in items.iter().enumerate() {
            list.extend(read(self, item, &format!("{path}[{index}]")));
        }
        Some(list)
    }

    /// Reads a list of texts.
    pub(super) fn texts(&mut self, node: &Node<'_>, path: &str) -> Option<Vec<At<String>>> {
        self.list(node, path, Self::text)
    }

    /// Reads a map with exactly one key, which says what its value is.
    pub(super) fn variant<'n, 't>(
        &mut self,
        node: &'n Node<'t>,
        path: &str,
        keys: &Keys,
    ) -> Option<(&'n str, &'n Node<'t>)> {
        let before = self.diagnostics.len();
        let fields = self.map(node, path, keys)?;
        let mut entries = fields.entries.into_iter();
        match (entries.next(), entries.next()) {
            (Some(only), None) => Some(only),
            _ if self.diagnostics.len() > before => None,
            _ => {
                let known = keys.known.join(", ");
                self.reject(node.at, path, format!("needs exactly one of {known}"));
                None
            }
        }
    }

    /// Reads a map whose keys are free names, each with a text.
    pub(super) fn texts_by_name(
        &mut self,
        node: &Node<'_>,
        path: &str,
    ) -> Option<Vec<(At<String>, At<String>)>> {
        let Value::Map(entries) = &node.value else {
            self.wrong_type(node, path, "a map of names and texts", None);
            return None;
        };
        let mut list = Vec::new();
        for (key, value) in entries {
            let name = At {
                value: key.name.clone(),
                at: key.at,
            };
            let text = self.text(value, &join(path, &shorten(&name.value)));
            list.extend(text.map(|text| (name, text)));
        }
        Some(list)
    }

    /// Reads a map with one key that is a free name.
    pub(super) fn named<'n, 't>(
        &mut self,
        node: &'n Node<'t>,
        path: &str,
    ) -> Option<(At<String>, &'n Node<'t>)> {
        match &node.value {
            Value::Map(entries) => {
                if let [(key, value)] = entries.as_slice() {
                    let name = At {
                        value: key.name.clone(),
                        at: key.at,
                    };
                    return Some((name, value));
                }
                let reason = format!(
                    "needs exactly one name with its map, but has {} keys; indent what belongs to the name",
                    entries.len()
                );
                self.reject(node.at, path, reason);
            }
            _ => self.wrong_type(node, path, "a map of one name", None),
        }
        None
    }
}
