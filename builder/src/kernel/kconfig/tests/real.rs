//! The kernel's own trees: folders in `COOP_TEST_LINUX`, separated by colons. The kernel's own
//! conf is the judge, run by `make` (flex, bison and a compiler are needed) outside of the tree.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use fs_err as fs;

use crate::kernel::Target;
use crate::kernel::config::{DotConfig, Wanted, parse};
use crate::kernel::kconfig::evaluate::{Tristate, Values, implies_of};
use crate::kernel::kconfig::expr::SymbolId;
use crate::kernel::kconfig::{Dropped, Kconfig, Reason, SymbolType};

const TARGETS: [Target; 2] = [Target::Um, Target::X86_64];

fn trees() -> Vec<PathBuf> {
    let Some(folders) = std::env::var_os("COOP_TEST_LINUX") else {
        eprintln!("skipped: COOP_TEST_LINUX names no kernel trees");
        return Vec::new();
    };
    std::env::split_paths(&folders).collect()
}

/// A .config that conf makes.
fn configured(tree: &Path, target: Target, goal: &str, environment: &[(&str, &str)]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let made = Command::new("make")
        .arg("-C")
        .arg(tree)
        .arg(format!("O={}", folder.path().display()))
        .arg(format!("ARCH={}", target.name()))
        .args(["-s", goal])
        .envs(environment.iter().copied())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&made.stderr);
    assert!(made.status.success(), "{goal}: {said}");
    fs::read_to_string(folder.path().join(".config")).unwrap()
}

#[test]
fn whole_trees_are_understood() {
    for tree in trees() {
        for target in TARGETS {
            let start = std::time::Instant::now();
            let kconfig = Kconfig::read(&tree, target).unwrap();
            eprintln!(
                "{} {target:?}: {} symbols, {} entries, {} files, {:?}",
                tree.display(),
                kconfig.symbols().len(),
                kconfig.model.entries.len(),
                kconfig.model.files.len(),
                start.elapsed()
            );
            assert_eq!(kconfig.puzzles(), [""; 0]);
        }
    }
}

#[test]
fn configurations_of_conf_satisfy_what_is_read() {
    let goals = [
        ("allnoconfig", ""),
        ("defconfig", ""),
        ("allyesconfig", ""),
        ("allmodconfig", ""),
        ("randconfig", "1"),
        ("randconfig", "2"),
        ("randconfig", "3"),
    ];
    for tree in trees() {
        for target in TARGETS {
            let kconfig = Kconfig::read(&tree, target).unwrap();
            for (goal, seed) in goals {
                let config = configured(&tree, target, goal, &[("KCONFIG_SEED", seed)]);
                let (judged, wrong) = disagreements(&kconfig, &config);
                let unknown = judged.get("unknown").copied().unwrap_or(0);
                eprintln!("{} {target:?} {goal} {seed}: {judged:?}", tree.display());
                assert!(wrong.is_empty(), "{goal} {seed}: {wrong:#?}");
                assert!(unknown < 40, "{judged:?}");
            }
        }
    }
}

/// Every bool and tristate of the tree against its value.
fn disagreements(kconfig: &Kconfig, text: &str) -> (BTreeMap<&'static str, usize>, Vec<String>) {
    let config = DotConfig::parse(text);
    let unset = text.lines().filter_map(|line| {
        let name = line.strip_prefix("# CONFIG_")?;
        name.strip_suffix(" is not set")
    });
    let unset: BTreeSet<&str> = unset.collect();
    let values = Values::new(&kconfig.model, config.iter());
    let is_implied = |id| {
        let mut implies = implies_of(&kconfig.model, id);
        implies.any(|(source, imply)| values.forces(source, imply).high > Tristate::No)
    };
    let mut judged: BTreeMap<&'static str, usize> = BTreeMap::new();
    let mut wrong = Vec::new();
    for (number, symbol) in kconfig.model.symbols.iter().enumerate() {
        let id = SymbolId(u32::try_from(number).unwrap());
        let is_logic = matches!(symbol.kind, Some(SymbolType::Bool | SymbolType::Tristate));
        if !is_logic || symbol.entries.is_empty() {
            continue;
        }
        let value = values.tristate(id);
        let depends = values.dependencies(id);
        let selected = values.selected(id);
        let visible = values.visibility(id);
        let mut says = |what: &str| {
            wrong.push(format!(
                "{} is {value:?} {what}: depends {depends:?}, selected {selected:?}, visible {visible:?}",
                symbol.name
            ));
        };
        let judgement = if selected.low > value {
            says("but selected");
            "wrong"
        } else if value > depends.high.max(selected.high) {
            says("against its dependencies");
            "wrong"
        } else if value == Tristate::No
            && visible.low == visible.high
            && (visible.high > Tristate::No) != unset.contains(&*symbol.name)
            && !is_implied(id)
        {
            // conf names what could be set.
            says("and seen otherwise by conf");
            "wrong"
        } else if depends.low != depends.high || selected.low != selected.high {
            "unknown"
        } else if value == Tristate::No {
            "off"
        } else if value > depends.high {
            "by select alone"
        } else {
            "on"
        };
        *judged.entry(judgement).or_default() += 1;
    }
    (judged, wrong)
}

/// conf is asked for hundreds of symbols at once; each that it drops is explained, and what is
/// suggested is asked for in the next round, as a person would.
#[test]
fn dropped_symbols_are_explained_and_suggestions_hold() {
    for tree in trees() {
        for target in TARGETS {
            let kconfig = Kconfig::read(&tree, target).unwrap();
            let wanted = sample(&kconfig, 600);
            let mut added = BTreeMap::new();
            let mut advised = Vec::new();
            let mut report = String::new();
            for round in 1..=3 {
                let more = added
                    .iter()
                    .map(|(name, value)| format!("{name}={value}\n"));
                let config = asked(&tree, target, &(lines(&wanted) + &more.collect::<String>()));
                let dropped = kconfig.dropped(&config, &wanted);
                let lost: BTreeSet<&str> = dropped.iter().map(|one| &*one.wanted.symbol).collect();
                let held = advised
                    .iter()
                    .filter(|name: &&String| !lost.contains(name.as_str()));
                eprintln!(
                    "{} {target:?} round {round}: {} wanted, {} dropped {:?}; of {} suggestions of the first round {} hold",
                    tree.display(),
                    wanted.len(),
                    dropped.len(),
                    kinds(&dropped),
                    advised.len(),
                    held.count(),
                );
                for one in &dropped {
                    report.push_str(&format!("{round} {one}\n"));
                    assert!(
                        !matches!(one.reason, Reason::Unexplained { .. } | Reason::Held),
                        "{one}"
                    );
                    if take_advice(&one.reason, &wanted, &mut added) && round == 1 {
                        advised.push(one.wanted.symbol.clone());
                    }
                }
                if round == 3 {
                    let still = advised.iter().filter(|name| lost.contains(name.as_str()));
                    assert!(still.count() * 10 < advised.len());
                }
            }
            if let Some(folder) = std::env::var_os("COOP_TEST_REPORT") {
                let name = format!("{}-{target:?}", tree.file_name().unwrap().display());
                fs::write(Path::new(&folder).join(name), report).unwrap();
            }
        }
    }
}

fn kinds(dropped: &[Dropped]) -> BTreeMap<String, usize> {
    let mut kinds = BTreeMap::new();
    for one in dropped {
        let kind = format!("{:?}", one.reason);
        let kind = kind.split([' ', '{', '(']).next().unwrap().to_owned();
        *kinds.entry(kind).or_default() += 1;
    }
    kinds
}

/// Adds a suggestion, unless it goes against a wish or what was added before.
fn take_advice(reason: &Reason, wanted: &[Wanted], added: &mut BTreeMap<String, String>) -> bool {
    let (Reason::Dependency { add, .. } | Reason::NotVisible { add, .. }) = reason else {
        return false;
    };
    let add: Vec<_> = add
        .iter()
        .map(|line| line.split_once('=').unwrap())
        .collect();
    let is_contrary = |(name, value): &(&str, &str)| {
        let is_wanted = wanted.iter().any(|one| one.symbol == *name);
        let other = added.get(*name).map(String::as_str);
        let other = other.or(is_wanted.then_some("y"));
        other.is_some_and(|other| (other == "n") != (*value == "n"))
    };
    if add.is_empty() || add.iter().any(is_contrary) {
        return false;
    }
    for (name, value) in add {
        if added.get(name).is_none_or(|old| old == "m") {
            added.insert(name.to_owned(), value.to_owned());
        }
    }
    true
}

/// Bools and tristates that are spread over the tree, as if somebody wanted them.
fn sample(kconfig: &Kconfig, count: usize) -> Vec<Wanted> {
    let symbols = kconfig.symbols();
    let logic: Vec<_> = symbols
        .iter()
        .filter(|symbol| matches!(symbol.kind, Some(SymbolType::Bool | SymbolType::Tristate)))
        .collect();
    let step = logic.len() / count;
    let names = logic.iter().step_by(step).map(|symbol| symbol.name);
    let lines: String = names.map(|name| format!("CONFIG_{name}=y\n")).collect();
    parse(&lines, "sample").unwrap()
}

fn lines(wanted: &[Wanted]) -> String {
    wanted.iter().map(|one| one.line() + "\n").collect()
}

fn asked(tree: &Path, target: Target, lines: &str) -> DotConfig {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), lines).unwrap();
    let path = file.path().to_str().unwrap();
    let text = configured(tree, target, "allnoconfig", &[("KCONFIG_ALLCONFIG", path)]);
    DotConfig::parse(&text)
}

/// Debian's python3-kconfiglib finds the same symbols, types, entries and prompts.
#[test]
fn symbols_are_those_of_kconfiglib() {
    for tree in trees() {
        for target in TARGETS {
            // Its macros leave files where they run.
            let folder = tempfile::tempdir().unwrap();
            let listed = Command::new("/usr/bin/python3")
                .args(["-c", include_str!("kconfiglib.py")])
                .arg(&tree)
                .arg(target.name())
                .current_dir(folder.path())
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&listed.stderr);
            assert!(listed.status.success(), "{said}");
            let text = String::from_utf8(listed.stdout).unwrap();
            let theirs: BTreeSet<&str> = text.lines().collect();
            let kconfig = Kconfig::read(&tree, target).unwrap();
            let symbols = kconfig.symbols();
            let ours: Vec<String> = symbols
                .iter()
                .map(|symbol| {
                    let kind = symbol.kind.map_or("unknown", SymbolType::name);
                    let prompt = symbol.prompt.map_or("-", |_| "prompt");
                    format!("{} {kind} {} {prompt}", symbol.name, symbol.places.len())
                })
                .collect();
            let ours: BTreeSet<&str> = ours.iter().map(String::as_str).collect();
            let differ: Vec<_> = ours.symmetric_difference(&theirs).collect();
            assert!(differ.is_empty(), "{differ:?}");
        }
    }
}
