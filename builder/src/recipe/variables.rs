//! `variables:`, `--set` and `${name}`.

use std::collections::BTreeMap;

use super::decode::Decoder;
use super::diagnostic::{Position, Problem, nearest};
use super::node::{Node, Value};
use super::units::shorten;

/// The longest value of a variable, in bytes.
const VALUE_SIZE_MAX: usize = 64 << 10;
/// The most bytes of text in a recipe once aliases and variables are replaced.
const EXPANDED_SIZE_MAX: usize = 4 << 20;

/// What a variable stands for; nothing where the recipe leaves it to `--set`.
pub(super) type Variables = BTreeMap<String, Option<String>>;

/// Reads `variables:` of the recipe and lays the command line's values over them.
pub(super) fn collect(
    decoder: &mut Decoder<'_>,
    root: &Node<'_>,
    sets: &BTreeMap<String, String>,
) -> Variables {
    let mut variables = declared(decoder, root);
    for (name, value) in sets {
        if value.len() > VALUE_SIZE_MAX || value.contains('\0') {
            let reason = format!("the value for '{name}' is too long or has a NUL character");
            decoder.report(Position::default(), Problem::Limit(reason), None);
        } else if let Some(slot) = variables.get_mut(name) {
            *slot = Some(value.clone());
        } else {
            let hint = hint(name, &variables);
            decoder.report(
                Position::default(),
                Problem::UnknownSet(shorten(name)),
                Some(hint),
            );
        }
    }
    variables
}

fn hint(name: &str, variables: &Variables) -> String {
    if let Some(near) = nearest(name, variables.keys().map(String::as_str)) {
        return format!("did you mean '{near}'?");
    }
    if variables.is_empty() {
        return "the recipe has no variables; declare them under 'variables:'".to_owned();
    }
    let names: Vec<&str> = variables.keys().map(String::as_str).collect();
    format!("the recipe's variables are {}", names.join(", "))
}

fn declared(decoder: &mut Decoder<'_>, root: &Node<'_>) -> Variables {
    let Value::Map(entries) = &root.value else {
        return Variables::new();
    };
    let Some((_, node)) = entries.iter().find(|(key, _)| key.name == "variables") else {
        return Variables::new();
    };
    let entries = match &node.value {
        Value::Map(entries) => entries,
        Value::Null => return Variables::new(),
        _ => {
            let problem = Problem::WrongType {
                path: "variables".to_owned(),
                expected: "a map".to_owned(),
                found: node.value.kind().to_owned(),
            };
            decoder.report(node.at, problem, None);
            return Variables::new();
        }
    };
    let mut variables = Variables::new();
    for (key, value) in entries {
        let path = format!("variables.{}", shorten(&key.name));
        if !is_name(&key.name) {
            let reason = "a variable's name is letters, digits and underscores";
            decoder.reject(key.at, &path, reason);
            continue;
        }
        let text = match &value.value {
            Value::Null => None,
            Value::Bool(value) => Some(value.to_string()),
            Value::Number(number) => Some(number.clone().into_owned()),
            _ => decoder.text(value, &path).map(|text| text.value),
        };
        if text
            .as_ref()
            .is_some_and(|text| text.len() > VALUE_SIZE_MAX)
        {
            let reason = format!("a variable's value has at most {VALUE_SIZE_MAX} bytes");
            decoder.reject(value.at, &path, reason);
        }
        variables.insert(key.name.clone(), text);
    }
    variables
}

fn is_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes
        .next()
        .is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// Replaces `${name}` in every text of the tree but `variables:` itself; `$${` stands for `${`.
/// Returns false, and reports it, if the tree becomes too large.
pub(super) fn fill(decoder: &mut Decoder<'_>, root: &mut Node<'_>, variables: &Variables) -> bool {
    let mut filler = Filler {
        decoder,
        variables,
        expanded: 0,
    };
    if let Value::Map(entries) = &mut root.value {
        for (key, value) in entries {
            if key.name != "variables" {
                filler.node(value);
            }
        }
    }
    let fits = filler.expanded <= EXPANDED_SIZE_MAX;
    if !fits {
        let reason = format!("the recipe's text expands to more than {EXPANDED_SIZE_MAX} bytes");
        decoder.report(Position::default(), Problem::Limit(reason), None);
    }
    fits
}

struct Filler<'d, 's, 'v> {
    decoder: &'d mut Decoder<'s>,
    variables: &'v Variables,
    expanded: usize,
}

impl Filler<'_, '_, '_> {
    fn node(&mut self, node: &mut Node<'_>) {
        if self.expanded > EXPANDED_SIZE_MAX {
            return;
        }
        match &mut node.value {
            Value::List(items) => {
                for item in items {
                    self.node(item);
                }
            }
            Value::Map(entries) => {
                for (_, value) in entries {
                    self.node(value);
                }
            }
            Value::Text(text) if text.contains("${") => {
                let filled = self.text(text, node.at, &node.bytes);
                self.expanded = self.expanded.saturating_add(filled.len());
                node.value = Value::Filled(filled);
            }
            Value::Text(text) => self.expanded = self.expanded.saturating_add(text.len()),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Filled(_) => {}
        }
    }

    fn text(&mut self, text: &str, at: Position, bytes: &std::ops::Range<usize>) -> String {
        let mut filled = String::new();
        let mut rest = text;
        while let Some(dollar) = rest.find("${") {
            let (before, reference) = rest.split_at(dollar);
            if let Some(before) = before.strip_suffix('$') {
                filled.push_str(before);
                filled.push_str("${");
                rest = &reference[2..];
                continue;
            }
            filled.push_str(before);
            let Some(end) = reference.find('}') else {
                self.undefined(&reference[2..], reference, at, bytes);
                return filled;
            };
            let name = &reference[2..end];
            match self.variables.get(name) {
                Some(Some(value)) => filled.push_str(value),
                Some(None) => self.unset(name, at),
                None => self.undefined(name, &reference[..=end], at, bytes),
            }
            rest = &reference[end + 1..];
            if self.expanded.saturating_add(filled.len()) > EXPANDED_SIZE_MAX {
                break;
            }
        }
        filled.push_str(rest);
        filled
    }

    fn unset(&mut self, name: &str, at: Position) {
        let hint = Some(format!("give it one with --set {name}=…"));
        self.decoder
            .report(at, Problem::UnsetVariable(name.to_owned()), hint);
    }

    fn undefined(
        &mut self,
        name: &str,
        reference: &str,
        at: Position,
        bytes: &std::ops::Range<usize>,
    ) {
        let hint = nearest(name, self.variables.keys().map(String::as_str)).map_or_else(
            || "declare it under 'variables:', or write $${ for a literal ${".to_owned(),
            |near| format!("did you mean '{near}'?"),
        );
        let at = self.locate(reference, bytes).unwrap_or(at);
        let problem = Problem::UndefinedVariable(shorten(name));
        self.decoder.report(at, problem, Some(hint));
    }

    /// Where the reference stands inside its scalar.
    fn locate(&self, reference: &str, bytes: &std::ops::Range<usize>) -> Option<Position> {
        let whole = self.decoder.source.text;
        let reference = reference.lines().next()?;
        let offset = bytes.start + whole.get(bytes.clone())?.find(reference)?;
        let before = whole.get(..offset)?;
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        Some(Position {
            line: before.matches('\n').count() + 1,
            column: before.get(line_start..)?.chars().count() + 1,
            width: reference.chars().count(),
        })
    }
}
