//! The kernel's own trees: folders in `COOP_TEST_LINUX`, separated by colons. The kernel's own
//! conf is the judge, run by `make` (flex, bison and a compiler are needed) outside of the tree.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use fs_err as fs;

use crate::kernel::Target;
use crate::kernel::config::DotConfig;
use crate::kernel::kconfig::evaluate::{Tristate, Values};
use crate::kernel::kconfig::expr::SymbolId;
use crate::kernel::kconfig::{Kconfig, SymbolType};

const TARGETS: [Target; 2] = [Target::Um, Target::X86_64];

fn trees() -> Vec<PathBuf> {
    let folders = std::env::var_os("COOP_TEST_LINUX").expect("COOP_TEST_LINUX names kernel trees");
    std::env::split_paths(&folders).collect()
}

/// A .config that conf makes.
pub(super) fn configured(
    tree: &Path,
    target: Target,
    goal: &str,
    environment: &[(&str, &str)],
) -> DotConfig {
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
    DotConfig::parse(&fs::read_to_string(folder.path().join(".config")).unwrap())
}

#[test]
#[ignore = "needs COOP_TEST_LINUX, folders of kernel trees"]
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
#[ignore = "needs COOP_TEST_LINUX, folders of kernel trees, and their build tools"]
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
fn disagreements(
    kconfig: &Kconfig,
    config: &DotConfig,
) -> (BTreeMap<&'static str, usize>, Vec<String>) {
    let values = Values::new(&kconfig.model, config.iter());
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
