//! `coop kernel list`: which kernels the cache has, and which fragments there are.

use coop_builder::calendar::Moment;
use coop_builder::kernel::config;
use coop_builder::kernel::make::{self, StoredKernel};
use serde_json::{Value, json};

use super::super::means;
use super::Ended;
use crate::arguments::KernelListOptions;
use crate::environment::Environment;
use crate::failure::Failure;
use crate::render::{bytes, data, json as render_json, line, plain};

/// So many digits of a key tell kernels apart.
const KEY_DIGITS: usize = 12;

/// Lists.
pub(super) fn run(options: &KernelListOptions, environment: &Environment) -> Ended {
    if options.fragments {
        return fragments(options.json);
    }
    let store = means::open_store(environment)?;
    let kernels = make::stored(&store).map_err(|error| Failure::work(&error))?;
    if options.json {
        let list: Vec<Value> = kernels.iter().map(describe).collect();
        render_json::value(&json!({ "kernels": list }));
        return Ok(0);
    }
    for kernel in &kernels {
        data(&row(kernel));
    }
    if kernels.is_empty() {
        line("the cache has no kernel; coop kernel build RECIPE makes one");
    }
    Ok(0)
}

fn describe(kernel: &StoredKernel) -> Value {
    json!({
        "key": kernel.key.to_string(),
        "target": kernel.target,
        "release": kernel.release,
        "size_bytes": kernel.size_bytes,
        "modified_seconds": kernel.modified_seconds,
        "sources": kernel.resolved,
        "dropped": kernel.dropped,
    })
}

/// A line with what tells a kernel from others, and lines with what it was made from.
fn row(kernel: &StoredKernel) -> String {
    let key = kernel.key.to_string();
    let mut text = format!(
        "{}  {:6}  {:20}  {:>10}  {}",
        key.get(..KEY_DIGITS).unwrap_or_default(),
        kernel.target.name(),
        plain(&kernel.release),
        bytes(kernel.size_bytes),
        date(kernel.modified_seconds),
    );
    if kernel.dropped > 0 {
        text.push_str(&format!("  {} dropped", kernel.dropped));
    }
    for source in &kernel.resolved {
        text.push_str(&format!("\n    {}", plain(source)));
    }
    text.push('\n');
    text
}

fn fragments(as_json: bool) -> Ended {
    let known =
        || config::fragment_names().filter_map(|name| Some((name, config::fragment(name)?)));
    if as_json {
        let list: Vec<Value> = known()
            .map(|(name, text)| json!({ "name": name, "heading": heading(text), "text": text }))
            .collect();
        render_json::value(&json!({ "fragments": list }));
        return Ok(0);
    }
    let width = known().map(|(name, _)| name.len()).max().unwrap_or(0);
    for (name, text) in known() {
        data(&format!("{name:width$}  {}\n", heading(text)));
    }
    Ok(0)
}

/// The first sentence of a fragment's first paragraph.
fn heading(text: &str) -> String {
    let lines = text.lines().map_while(|line| line.strip_prefix('#'));
    let words: Vec<&str> = lines
        .map(str::trim)
        .take_while(|line| !line.is_empty())
        .collect();
    let paragraph = words.join(" ");
    let ends = [". ", ": ", " ("].map(|end| paragraph.find(end));
    let end = ends.into_iter().flatten().min();
    let sentence = paragraph.get(..end.unwrap_or(paragraph.len()));
    sentence
        .unwrap_or_default()
        .trim_end_matches('.')
        .to_owned()
}

/// A time as `2026-11-01 12:00`, in UTC.
pub(in crate::command) fn date(seconds: i64) -> String {
    let Moment {
        year,
        month,
        day,
        hour,
        minute,
        second: _,
    } = Moment::of(seconds);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headings_are_one_sentence() {
        for (text, expected) in [
            (
                "# What every guest needs.\n\nCONFIG_A=y\n",
                "What every guest needs",
            ),
            (
                "# One thing\n# on two lines. More.\n# x\n",
                "One thing on two lines",
            ),
            ("# One (or two): three\n", "One"),
            ("CONFIG_A=y\n", ""),
            ("#\n# x\n", ""),
        ] {
            assert_eq!(heading(text), expected);
        }
        for name in config::fragment_names() {
            assert!(
                !heading(config::fragment(name).unwrap()).is_empty(),
                "{name}"
            );
        }
    }
}
