//! Which module needs which, in depmod's order.

use std::collections::{BTreeMap, HashMap, HashSet};

use rayon::prelude::*;

use super::module_file::ModuleObject;
use super::name::plain_path;
use super::table_order::bucket;

/// Buckets of kmod's table of modules.
const MODULE_BUCKETS: u32 = 512;

/// A module with what it says of itself.
pub(super) struct Module {
    /// Path below the modules' folder.
    pub(super) path: String,
    /// As the kernel says it.
    pub(super) name: String,
    pub(super) object: ModuleObject,
}

/// The modules in depmod's order, with what each needs.
pub(super) struct Graph {
    pub(super) modules: Vec<Module>,
    /// For each symbol the module that has it: the last one that exports it.
    pub(super) owners: HashMap<String, usize>,
    /// For each module those that it needs itself.
    needs: Vec<Vec<usize>>,
    /// For each module its place in an order where each comes after all that need it.
    places: Vec<usize>,
}

impl Graph {
    /// Orders modules, which have different names, as `modules.order` says.
    ///
    /// # Errors
    /// The modules of a cycle, as `a -> b -> a`.
    pub(super) fn new(modules: Vec<Module>, order: &str) -> Result<Self, String> {
        let modules = sorted(modules, order);
        let mut owners = HashMap::new();
        for (index, module) in modules.iter().enumerate() {
            let symbols = module.object.exports.iter();
            owners.extend(symbols.map(|symbol| (symbol.clone(), index)));
        }
        let needs: Vec<Vec<usize>> = modules
            .par_iter()
            .map(|module| needed(&module.object, &owners))
            .collect();
        let places = places(&needs).map_err(|cycle| {
            let names = cycle.iter().map(|index| modules[*index].name.as_str());
            names.collect::<Vec<_>>().join(" -> ")
        })?;
        Ok(Self {
            modules,
            owners,
            needs,
            places,
        })
    }

    /// `path: path path…` for each module: everything that it needs, directly or not, and what
    /// nothing else of that needs comes first.
    pub(super) fn dependency_lines(&self) -> Vec<String> {
        let line = |module: usize| {
            let mut line = format!("{}:", self.modules[module].path);
            for need in self.closure(module) {
                line.push(' ');
                line.push_str(&self.modules[need].path);
            }
            line
        };
        (0..self.modules.len()).into_par_iter().map(line).collect()
    }

    fn closure(&self, module: usize) -> Vec<usize> {
        let mut found = Vec::new();
        let mut seen = HashSet::new();
        let mut pending = vec![module];
        while let Some(at) = pending.pop() {
            for need in &self.needs[at] {
                if seen.insert(*need) {
                    found.push(*need);
                    pending.push(*need);
                }
            }
        }
        found.sort_by_key(|index| self.places[*index]);
        found
    }
}

/// As `modules.order` lists them, then the rest as kmod's table has them.
fn sorted(mut modules: Vec<Module>, order: &str) -> Vec<Module> {
    let mut lines = HashMap::new();
    for (number, line) in order.lines().enumerate() {
        lines.entry(line).or_insert(number);
    }
    modules.sort_by_cached_key(|module| {
        let line = lines.get(plain_path(&module.path)).copied();
        let bucket = bucket(&module.name, MODULE_BUCKETS);
        (line.unwrap_or(usize::MAX), bucket, module.name.clone())
    });
    modules
}

/// The modules that have the symbols that this one needs, each once, in the order of the symbols.
fn needed(object: &ModuleObject, owners: &HashMap<String, usize>) -> Vec<usize> {
    let mut found = Vec::new();
    for symbol in &object.needs {
        // PowerPC's `.foo` is `foo`.
        let symbol = symbol.strip_prefix('.').unwrap_or(symbol);
        if let Some(owner) = owners.get(symbol)
            && !found.contains(owner)
        {
            found.push(*owner);
        }
    }
    found
}

/// For each module its place after all that need it, or a cycle: modules of which each needs the
/// next, the first of them at both ends.
fn places(needs: &[Vec<usize>]) -> Result<Vec<usize>, Vec<usize>> {
    let mut users = vec![0_usize; needs.len()];
    for need in needs.iter().flatten() {
        users[*need] += 1;
    }
    let mut unused: Vec<usize> = (0..needs.len()).filter(|at| users[*at] == 0).collect();
    let mut places = vec![0; needs.len()];
    let mut placed = 0;
    while let Some(at) = unused.pop() {
        places[at] = placed;
        placed += 1;
        for need in &needs[at] {
            users[*need] -= 1;
            if users[*need] == 0 {
                unused.push(*need);
            }
        }
    }
    if placed == needs.len() {
        Ok(places)
    } else {
        Err(cycle(needs, &users))
    }
}

/// Goes from user to user among the modules that still have some until one comes again.
fn cycle(needs: &[Vec<usize>], users: &[usize]) -> Vec<usize> {
    let mut user_of = BTreeMap::new();
    for at in (0..needs.len()).filter(|at| users[*at] > 0) {
        for need in &needs[at] {
            user_of.entry(*need).or_insert(at);
        }
    }
    let mut way: Vec<usize> = Vec::new();
    let mut at = users.iter().position(|count| *count > 0).unwrap_or(0);
    loop {
        way.push(at);
        at = user_of.get(&at).copied().unwrap_or(at);
        if let Some(start) = way.iter().position(|passed| *passed == at) {
            way.drain(..start);
            way.push(at);
            way.reverse();
            return way;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(path: &str, exports: &[&str], needs: &[&str]) -> Module {
        let own = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Module {
            path: path.into(),
            name: super::super::name::module_name(path),
            object: ModuleObject {
                exports: own(exports),
                needs: own(needs),
                ..ModuleObject::default()
            },
        }
    }

    #[test]
    fn everything_needed_is_listed_with_the_most_basic_last() {
        let modules = vec![
            module("a.ko", &["a"], &["b", "c", "printk"]),
            module("b.ko.xz", &["b"], &["c", ".d"]),
            module("c.ko", &["c"], &["d"]),
            module("d.ko", &["d"], &[]),
        ];
        let graph = Graph::new(modules, "d.ko\nb.ko\nc.ko\na.ko\n").unwrap();
        assert_eq!(
            graph.dependency_lines(),
            [
                "d.ko:",
                "b.ko.xz: c.ko d.ko",
                "c.ko: d.ko",
                "a.ko: b.ko.xz c.ko d.ko"
            ]
        );
    }

    #[test]
    fn a_cycle_is_named() {
        let modules = vec![
            module("top.ko", &[], &["a"]),
            module("a.ko", &["a"], &["b"]),
            module("b.ko", &["b"], &["c", "leaf"]),
            module("c.ko", &["c"], &["a"]),
            module("leaf.ko", &["leaf"], &[]),
        ];
        let order = "top.ko\na.ko\nb.ko\nc.ko\nleaf.ko\n";
        assert_eq!(
            Graph::new(modules, order).err().as_deref(),
            Some("a -> b -> c -> a")
        );
        let own = vec![module("x.ko", &["x"], &["x"])];
        assert_eq!(Graph::new(own, "").err().as_deref(), Some("x -> x"));
    }

    #[test]
    fn the_last_module_in_order_has_a_symbol_that_two_export() {
        let modules = || {
            vec![
                module("a.ko", &["s"], &[]),
                module("b.ko", &["s"], &[]),
                module("c.ko", &[], &["s"]),
            ]
        };
        let graph = Graph::new(modules(), "b.ko\na.ko\nc.ko\n").unwrap();
        assert_eq!(graph.dependency_lines()[2], "c.ko: a.ko");
        let graph = Graph::new(modules(), "a.ko\nb.ko\nc.ko\n").unwrap();
        assert_eq!(graph.dependency_lines()[2], "c.ko: b.ko");
    }
}
