//! YAML text to a tree of nodes with positions, within limits.
//!
//! The tree keeps what was written (`0755` stays `0755`), so that the next stage decides what a
//! scalar means and can report every error, not only the first.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use serde::Deserialize;
use serde::de::{self, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Location, Spanned};

use super::diagnostic::{Position, Problem};

/// The largest recipe that is read, in bytes.
pub(super) const TEXT_SIZE_MAX: usize = 1 << 20;
/// The deepest nesting of lists and maps; the schema needs 7.
const DEPTH_MAX: usize = 24;
/// The most nodes in a recipe.
const NODES_MAX: usize = 50_000;
/// The most anchors, and the most aliases.
const ALIASES_MAX: usize = 200;
/// The most events that aliases may stand for, all together.
const REPLAYED_EVENTS_MAX: usize = 2_000;
/// The most bytes of text under anchors.
const ANCHORED_BYTES_MAX: usize = 64 << 10;

/// A value with its position.
#[derive(Clone, Debug)]
pub(super) struct Node<'t> {
    pub(super) value: Value<'t>,
    pub(super) at: Position,
    /// The bytes of the recipe's text that wrote a scalar.
    pub(super) bytes: Range<usize>,
}

/// What a node is.
#[derive(Clone, Debug)]
pub(super) enum Value<'t> {
    /// `null`, `~` or nothing.
    Null,
    /// `true` or `false`; nothing else counts as one.
    Bool(bool),
    /// A plain number, as it was written.
    Number(Cow<'t, str>),
    /// Text.
    Text(Cow<'t, str>),
    /// Text in which variables were replaced: it may stand for a number or a boolean too.
    Filled(String),
    /// A list.
    List(Vec<Node<'t>>),
    /// A map in the order of writing, keys unique.
    Map(Vec<(Key, Node<'t>)>),
}

/// A key with its position.
#[derive(Clone, Debug)]
pub(super) struct Key {
    pub(super) name: String,
    pub(super) at: Position,
}

impl Value<'_> {
    /// What to call the value in a sentence.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Value::Null => "nothing",
            Value::Bool(_) => "a boolean",
            Value::Number(_) => "a number",
            Value::Text(_) | Value::Filled(_) => "text",
            Value::List(_) => "a list",
            Value::Map(_) => "a map",
        }
    }
}

/// Why there is no tree.
pub(super) struct Rejected {
    pub(super) problem: Problem,
    pub(super) at: Position,
}

/// Parses one YAML document.
pub(super) fn parse(text: &str) -> Result<Node<'_>, Rejected> {
    if text.len() > TEXT_SIZE_MAX {
        let reason = format!(
            "the recipe has {} bytes; the limit is {TEXT_SIZE_MAX}",
            text.len()
        );
        return Err(Rejected {
            problem: Problem::Limit(reason),
            at: Position::default(),
        });
    }
    let mut root: Node<'_> =
        serde_saphyr::from_str_with_options(text, options()).map_err(|error| reject(&error))?;
    root.restore_numbers(text);
    Ok(root)
}

fn options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: DEPTH_MAX,
            flow_nesting_limit: DEPTH_MAX,
            // A second one gets its own sentence.
            max_documents: 2,
            max_nodes: NODES_MAX,
            max_events: 4 * NODES_MAX,
            max_aliases: ALIASES_MAX,
            max_anchors: ALIASES_MAX,
            max_recorded_anchor_events: REPLAYED_EVENTS_MAX,
            max_recorded_anchor_bytes: ANCHORED_BYTES_MAX,
            max_total_scalar_bytes: 2 * TEXT_SIZE_MAX,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: REPLAYED_EVENTS_MAX,
            max_replay_stack_depth: DEPTH_MAX,
        },
        merge_keys: serde_saphyr::options::MergeKeyPolicy::AsOrdinary,
        strict_booleans: true,
        strict_indentation: true,
        leading_zero_numbers_as_strings: false,
        reject_unsupported_tags: true,
        with_snippet: false,
    }
}

fn reject(error: &serde_saphyr::Error) -> Rejected {
    use serde_saphyr::Error;
    let error = match error.without_snippet() {
        Error::AliasError { error, .. } => error.without_snippet(),
        other => other,
    };
    let at = error.location().map(position).unwrap_or_default();
    let limit = |what: &str| Problem::Limit(format!("the recipe {what}"));
    let problem = match error {
        Error::Budget { .. }
        | Error::AliasReplayCounterOverflow { .. }
        | Error::AliasReplayLimitExceeded { .. }
        | Error::AliasExpansionLimitExceeded { .. }
        | Error::AliasReplayStackDepthExceeded { .. } => limit(
            "has too many nodes, aliases or levels for a recipe; write it without such repetition",
        ),
        Error::DuplicateMappingKey { key: Some(key), .. } => Problem::Syntax(format!(
            "the key '{}' is written twice",
            super::units::shorten(key)
        )),
        Error::MultipleDocuments { .. } => {
            Problem::Syntax("a recipe is one document; a second one begins here".to_owned())
        }
        Error::Eof { .. } => Problem::Syntax("the recipe is empty".to_owned()),
        other => Problem::Syntax(sentence(&other.to_string())),
    };
    Rejected { problem, at }
}

/// Makes a dependency's message a sentence of ours: one line, lowercase start, no position (the
/// diagnostic has it) and a bounded length.
fn sentence(message: &str) -> String {
    let line = message.lines().next().unwrap_or_default();
    let line = line.strip_prefix("error: ").unwrap_or(line);
    let line = match (line.find(": "), line.starts_with("line ")) {
        (Some(colon), true) => line.get(colon + 2..).unwrap_or(line),
        _ => line,
    };
    let line = line.split(" at line ").next().unwrap_or(line);
    let mut characters = line.trim_end_matches('.').chars().take(200);
    characters.next().map_or_else(String::new, |first| {
        first.to_lowercase().chain(characters).collect()
    })
}

fn position(location: Location) -> Position {
    let number = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
    Position {
        line: number(location.line()),
        column: number(location.column()),
        width: number(location.span().len()),
    }
}

fn bytes(location: Location) -> Range<usize> {
    let span = location.span();
    let start = span.byte_offset().and_then(|at| usize::try_from(at).ok());
    let length = span.byte_len().and_then(|len| usize::try_from(len).ok());
    match (start, length) {
        (Some(start), Some(length)) => start..start.saturating_add(length),
        _ => 0..0,
    }
}

impl<'t> Node<'t> {
    /// Puts the written form back in place of the number that the YAML reader made of it.
    fn restore_numbers(&mut self, text: &'t str) {
        match &mut self.value {
            Value::Number(number) => {
                let written = text.get(self.bytes.clone()).map(str::trim_end);
                if let Some(written) = written.filter(|written| looks_numeric(written)) {
                    *number = Cow::Borrowed(written);
                }
            }
            Value::List(items) => {
                for item in items {
                    item.restore_numbers(text);
                }
            }
            Value::Map(entries) => {
                for (_, value) in entries {
                    value.restore_numbers(text);
                }
            }
            Value::Null | Value::Bool(_) | Value::Text(_) | Value::Filled(_) => {}
        }
    }
}

fn looks_numeric(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_digit() || matches!(first, '+' | '-' | '.'))
}

impl<'de: 't, 't> Deserialize<'de> for Node<'t> {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Value<'t>>::deserialize(deserializer)?;
        Ok(Node {
            value: spanned.value,
            at: position(spanned.defined),
            bytes: bytes(spanned.defined),
        })
    }
}

impl<'de: 't, 't> Deserialize<'de> for Value<'t> {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor(std::marker::PhantomData))
    }
}

struct ValueVisitor<'t>(std::marker::PhantomData<&'t ()>);

impl<'de: 't, 't> Visitor<'de> for ValueVisitor<'t> {
    type Value = Value<'t>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any YAML value")
    }

    fn visit_unit<E>(self) -> Result<Value<'t>, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value<'t>, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value<'t>, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value<'t>, E> {
        Ok(Value::Number(value.to_string().into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value<'t>, E> {
        Ok(Value::Number(value.to_string().into()))
    }

    fn visit_i128<E>(self, value: i128) -> Result<Value<'t>, E> {
        Ok(Value::Number(value.to_string().into()))
    }

    fn visit_u128<E>(self, value: u128) -> Result<Value<'t>, E> {
        Ok(Value::Number(value.to_string().into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value<'t>, E> {
        Ok(Value::Number(value.to_string().into()))
    }

    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Value<'t>, E> {
        Ok(Value::Text(Cow::Borrowed(value)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value<'t>, E> {
        Ok(Value::Text(Cow::Owned(value.to_owned())))
    }

    fn visit_string<E>(self, value: String) -> Result<Value<'t>, E> {
        Ok(Value::Text(Cow::Owned(value)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value<'t>, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value<'t>, A::Error> {
        let mut map = Vec::new();
        while let Some(key) = entries.next_key::<Spanned<String>>()? {
            let key = Key {
                at: position(key.defined),
                name: key.value,
            };
            map.push((key, entries.next_value()?));
        }
        Ok(Value::Map(map))
    }
}
