//! The table's text, line by line.

use super::{Level, Need};

/// The table; its head says how it is written.
const TEXT: &str = include_str!("table.txt");

/// The whole table, in the order of its text: by the first package of each group.
#[must_use]
pub fn table() -> Vec<Need> {
    // OK to take nothing for an error: a test reads the text, which is part of the program.
    parse(TEXT).unwrap_or_default()
}

/// Reads the table's text.
///
/// # Errors
/// The number of the first line, from 1, that is not of its form.
pub(super) fn parse(text: &'static str) -> Result<Vec<Need>, usize> {
    let mut needs = Vec::new();
    let mut packages: Vec<&'static str> = Vec::new();
    let mut source = None;
    for (index, line) in text.lines().enumerate() {
        let wrong = index.saturating_add(1);
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(names) = line.strip_prefix('[') {
            let names = names.strip_suffix(']').ok_or(wrong)?;
            packages = names.split(' ').collect();
            source = None;
            continue;
        }
        let (head, rest) = line.split_once(": ").ok_or(wrong)?;
        if head == "source" {
            source = Some(rest);
            continue;
        }
        let line = Line::parse(head).ok_or(wrong)?;
        let source = source.ok_or(wrong)?;
        for package in &packages {
            needs.extend(line.symbols.iter().map(|symbols| Need {
                package,
                level: line.level,
                any_of: symbols.clone(),
                only_if: line.only_if,
                why: rest,
                source,
            }));
        }
    }
    Ok(needs)
}

/// What stands before the colon: `required A B|C if D`.
struct Line {
    level: Level,
    symbols: Vec<Vec<&'static str>>,
    only_if: Option<&'static str>,
}

impl Line {
    fn parse(text: &'static str) -> Option<Self> {
        let (level, rest) = text.split_once(' ')?;
        let level = match level {
            "required" => Level::Required,
            "recommended" => Level::Recommended,
            _ => return None,
        };
        let (symbols, only_if) = match rest.split_once(" if ") {
            Some((symbols, condition)) => (symbols, Some(condition)),
            None => (rest, None),
        };
        let symbols: Vec<Vec<&str>> = symbols
            .split(' ')
            .map(|one| one.split('|').collect())
            .collect();
        let all = symbols.iter().flatten().chain(&only_if);
        all.copied().all(is_symbol).then_some(Self {
            level,
            symbols,
            only_if,
        })
    }
}

fn is_symbol(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_')
}
