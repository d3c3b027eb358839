//! The text of depmod's files, and the entries of their indices.

use super::graph::{Graph, Module};
use super::index::{Entry, index};
use super::name::normalised_alias;
use super::table_order::bucket;

/// Buckets of kmod's table of symbols.
const SYMBOL_BUCKETS: u32 = 2048;

/// `modules.dep`.
pub(super) fn dependencies(lines: &[String]) -> Vec<u8> {
    let mut text = lines.join("\n");
    if !lines.is_empty() {
        text.push('\n');
    }
    text.into_bytes()
}

/// `modules.dep.bin`: the same lines by the module's name.
pub(super) fn dependency_index(graph: &Graph, lines: Vec<String>) -> Result<Vec<u8>, String> {
    let modules = prioritised(graph).zip(lines);
    let entries = modules.map(|((priority, module), value)| Entry {
        key: module.name.clone(),
        priority,
        value,
    });
    index(entries.collect())
}

/// `modules.alias`.
pub(super) fn aliases(graph: &Graph) -> Vec<u8> {
    let mut text = "# Aliases extracted from modules themselves.\n".to_owned();
    for module in &graph.modules {
        for alias in &module.object.aliases {
            text.push_str(&format!("alias {alias} {}\n", module.name));
        }
    }
    text.into_bytes()
}

/// `modules.alias.bin`, without the aliases that match nothing.
pub(super) fn alias_index(graph: &Graph) -> Result<Vec<u8>, String> {
    let mut entries = Vec::new();
    for (priority, module) in prioritised(graph) {
        let aliases = module.object.aliases.iter();
        entries.extend(aliases.filter_map(|alias| {
            Some(Entry {
                key: normalised_alias(alias)?,
                priority,
                value: module.name.clone(),
            })
        }));
    }
    index(entries)
}

/// `modules.softdep`.
pub(super) fn soft_dependencies(graph: &Graph) -> Vec<u8> {
    let mut text = "# Soft dependencies extracted from modules themselves.\n".to_owned();
    for module in &graph.modules {
        for names in &module.object.soft_dependencies {
            text.push_str(&format!("softdep {} {names}\n", module.name));
        }
    }
    text.into_bytes()
}

/// `modules.weakdep`.
pub(super) fn weak_dependencies(graph: &Graph) -> Vec<u8> {
    let mut text = "# Weak dependencies extracted from modules themselves.\n".to_owned();
    for module in &graph.modules {
        for names in &module.object.weak_dependencies {
            text.push_str(&format!("weakdep {} {names}\n", module.name));
        }
    }
    text.into_bytes()
}

/// `modules.symbols`.
pub(super) fn symbols(graph: &Graph) -> Vec<u8> {
    let mut symbols: Vec<(&String, &usize)> = graph.owners.iter().collect();
    symbols.sort_by_cached_key(|(symbol, _)| (bucket(symbol, SYMBOL_BUCKETS), *symbol));
    let mut text = "# Aliases for symbols, used by symbol_request().\n".to_owned();
    for (symbol, owner) in symbols {
        let name = &graph.modules[*owner].name;
        text.push_str(&format!("alias symbol:{symbol} {name}\n"));
    }
    text.into_bytes()
}

/// `modules.symbols.bin`.
pub(super) fn symbol_index(graph: &Graph) -> Result<Vec<u8>, String> {
    let priorities: Vec<(u32, &Module)> = prioritised(graph).collect();
    let entries = graph.owners.iter().map(|(symbol, owner)| {
        let (priority, module) = priorities[*owner];
        Entry {
            key: format!("symbol:{symbol}"),
            priority,
            value: module.name.clone(),
        }
    });
    index(entries.collect())
}

/// `modules.devname`: the device nodes that udev or the agent may make before their module is
/// there. A module without a number for its node is left out.
pub(super) fn device_names(graph: &Graph) -> Vec<u8> {
    let mut text = String::new();
    for module in &graph.modules {
        if let Some(node) = device_node(&module.object.aliases) {
            text.push_str(&format!("{} {node}\n", module.name));
        }
    }
    if !text.is_empty() {
        text.insert_str(0, "# Device nodes to trigger on-demand module loading.\n");
    }
    text.into_bytes()
}

/// `NAME cMAJOR:MINOR` or `NAME bMAJOR:MINOR`.
fn device_node(aliases: &[String]) -> Option<String> {
    let (mut name, mut number) = (None, None);
    for alias in aliases {
        if let Some(node) = alias.strip_prefix("devname:") {
            name = Some(node);
        } else if let Some(numbers) = alias.strip_prefix("char-major-") {
            number = device_number('c', numbers).or(number);
        } else if let Some(numbers) = alias.strip_prefix("block-major-") {
            number = device_number('b', numbers).or(number);
        }
        if name.is_some() && number.is_some() {
            break;
        }
    }
    Some(format!("{} {}", name?, number?))
}

/// `MAJOR-MINOR` with anything behind; a wildcard is no number.
fn device_number(kind: char, numbers: &str) -> Option<String> {
    let (major, rest) = numbers.split_once('-')?;
    let end = rest.find(|c: char| !c.is_ascii_digit());
    let minor = &rest[..end.unwrap_or(rest.len())];
    let number = |text: &str| text.parse::<u32>().ok();
    Some(format!("{kind}{}:{}", number(major)?, number(minor)?))
}

/// Modules with their place as the priority; there are fewer than 65,535.
fn prioritised(graph: &Graph) -> impl Iterator<Item = (u32, &Module)> {
    (0_u32..).zip(&graph.modules)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_nodes_need_name_and_number() {
        let node = |aliases: &[&str]| {
            device_node(&aliases.iter().map(|a| (*a).to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(
            node(&["devname:fuse", "char-major-10-229"]),
            Some("fuse c10:229".into())
        );
        assert_eq!(
            node(&["block-major-7-0x", "devname:loop-control", "char-major-1-2"]),
            Some("loop-control b7:0".into())
        );
        assert_eq!(node(&["devname:x", "char-major-10-*"]), None);
        assert_eq!(node(&["char-major-10-229"]), None);
        assert_eq!(node(&["devname:x", "char-major-99999999999-1"]), None);
    }
}
