//! `coop kernel list`: which fragments there are.

use coop_builder::kernel::config;
use serde_json::{Value, json};

use super::Ended;
use crate::arguments::KernelListOptions;
use crate::environment::Environment;
use crate::render::{data, json as render_json};

/// Lists.
pub(super) fn run(options: &KernelListOptions, _environment: &Environment) -> Ended {
    fragments(options.json)
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
    let sentence = paragraph.split(". ").next().unwrap_or_default();
    sentence.trim_end_matches('.').to_owned()
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
