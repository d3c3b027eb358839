//! From what is wanted to a .config, and the proof that it is what was wanted.
//!
//! The kernel's own `conf` decides what a configuration becomes, and drops without a word what it
//! cannot hold. So its result is compared, symbol by symbol, with what was asked for.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use super::compile::Results;
use super::runner::Runner;
use super::{Configured, Dropped, MakeError, inside};
use crate::kernel::Target;
use crate::kernel::config::{DotConfig, Merged, Wanted};
use crate::kernel::kconfig::Kconfig;

/// What the merged lines are called, beside the result.
pub(super) const WANTED_NAME: &str = "coop-wanted.config";
/// The result, as the kernel's makefiles call it.
const CONFIG_NAME: &str = ".config";
/// The result of savedefconfig.
const MINIMAL_NAME: &str = "defconfig";
/// The largest .config that is read, in bytes; one with everything has 300 KiB.
const CONFIG_BYTES_MAX: u64 = 8 << 20;

/// Makes the .config in the build folder, and compares it with what is wanted.
///
/// # Errors
/// make fails, or the files cannot be read. What is dropped is no error here.
pub(super) fn configure(
    runner: &mut Runner<'_>,
    merged: &Merged,
    defconfig: bool,
) -> Result<Configured, MakeError> {
    let doing = "the kernel's configuration";
    let build = runner.folders.build.clone();
    let wanted = build.join(WANTED_NAME);
    inside::replace(&build, WANTED_NAME, &merged.text())?;
    let mut ignore = |_: &str| {};
    if defconfig {
        runner.make(doing, &["defconfig".as_ref()], &mut ignore)?;
        let bytes = runner.read(CONFIG_NAME, CONFIG_BYTES_MAX)?;
        let mut text = String::from_utf8_lossy(&bytes).into_owned();
        text.push_str(&merged.text());
        inside::replace(&build, CONFIG_NAME, &text)?;
    } else {
        let mut all = OsString::from("KCONFIG_ALLCONFIG=");
        all.push(&wanted);
        let arguments = [all.as_os_str(), "allnoconfig".as_ref()];
        runner.make(doing, &arguments, &mut ignore)?;
    }
    settle(runner)?;
    finish(runner, merged, &runner.folders.source, runner.target)
}

/// Has the kernel settle the .config in the build folder.
fn settle(runner: &mut Runner<'_>) -> Result<(), MakeError> {
    for goal in ["olddefconfig", "savedefconfig"] {
        let doing = "the kernel's configuration";
        runner.make(doing, &[OsStr::new(goal)], &mut |_| {})?;
    }
    Ok(())
}

/// Has the kernel settle the .config in the build folder, and reads it.
///
/// # Errors
/// make fails, or the files cannot be read.
pub(super) fn settled(runner: &mut Runner<'_>) -> Result<Configured, MakeError> {
    settle(runner)?;
    let (source, target) = (runner.folders.source.clone(), runner.target);
    finish(runner, &Merged::default(), &source, target)
}

/// Reads what conf made, wherever that was, and compares it with what is wanted.
pub(super) fn finish(
    results: &dyn Results,
    merged: &Merged,
    source: &Path,
    target: Target,
) -> Result<Configured, MakeError> {
    let read = |name: &str| -> Result<String, MakeError> {
        let bytes = results.read(name, CONFIG_BYTES_MAX)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let text = read(CONFIG_NAME)?;
    let found = DotConfig::parse(&text);
    Ok(Configured {
        dropped: dropped(&merged.wanted, &found, source, target),
        version: String::new(),
        config: text,
        minimal: read(MINIMAL_NAME)?,
        conflicts: merged.conflicts.clone(),
    })
}

/// Whether a configuration says what is wanted. What it does not name is `n`, and an empty text.
fn holds(wanted: &Wanted, config: &DotConfig) -> bool {
    match (&*wanted.value, config.get(&wanted.symbol)) {
        ("n" | "\"\"", "n") => true,
        (wanted, found) => wanted == found || same_number(wanted, found),
    }
}

/// Whether two values are one number, however it is written.
fn same_number(left: &str, right: &str) -> bool {
    let number = |text: &str| -> Option<i128> {
        match text.strip_prefix("0x").or(text.strip_prefix("0X")) {
            Some(digits) => i128::from_str_radix(digits, 16).ok(),
            None => text.parse().ok(),
        }
    };
    number(left).is_some_and(|left| number(right) == Some(left))
}

/// What does not hold, each with its reason. Kconfig is read only where there is such.
fn dropped(wanted: &[Wanted], config: &DotConfig, source: &Path, target: Target) -> Vec<Dropped> {
    let unheld = wanted.iter().filter(|wanted| !holds(wanted, config));
    let unheld: Vec<&Wanted> = unheld.collect();
    if unheld.is_empty() {
        return Vec::new();
    }
    let (kconfig, problem) = match Kconfig::read(source, target) {
        Ok(kconfig) => (Some(kconfig), String::new()),
        Err(error) => (None, error.to_string()),
    };
    // What is asked for beside it tells more than one symbol alone.
    let kconfig = kconfig.as_ref();
    let known = kconfig.map(|kconfig| kconfig.dropped(config, wanted));
    let known = known.unwrap_or_default();
    let reason = |wanted: &Wanted| {
        let same = known.iter().find(|one| one.wanted.symbol == wanted.symbol);
        let reason = same.map(|one| one.reason.to_string());
        let alone = || Some(kconfig?.explain(config, wanted).reason.to_string());
        reason.or_else(alone).unwrap_or_else(|| {
            format!("why is not known, for the tree's Kconfig cannot be read: {problem}")
        })
    };
    let explained = unheld.into_iter().map(|wanted| Dropped {
        wanted: wanted.clone(),
        found: config.get(&wanted.symbol).to_owned(),
        reason: reason(wanted),
    });
    explained.collect()
}

/// Whether the kernel will start on any host: what is looked at before the long work.
pub(super) fn check_target(target: Target, config: &str) -> Result<(), MakeError> {
    let config = DotConfig::parse(config);
    let is_set = |symbol: &str| config.get(symbol) == "y";
    let problem = match target {
        Target::Um if !is_set("CONFIG_UML") => Some("is not for User-Mode Linux (CONFIG_UML)"),
        Target::Um if !is_set("CONFIG_64BIT") => Some("is for 32 bits; it needs CONFIG_64BIT=y"),
        Target::Um if !is_set("CONFIG_STATIC_LINK") => Some(
            "would need the host's C library where it runs; it needs CONFIG_STATIC_LINK=y, as \
             fragment engine has it, and nothing that forbids that, as CONFIG_UML_NET_VECTOR does",
        ),
        Target::X86_64 if !is_set("CONFIG_X86_64") => {
            Some("is not for x86-64; it needs CONFIG_64BIT=y")
        }
        _ => None,
    };
    match problem {
        Some(problem) => Err(MakeError::Target { target, problem }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::config::parse;

    #[test]
    fn values_are_compared_and_not_their_spelling() {
        let config = DotConfig::parse(
            "CONFIG_A=y\nCONFIG_M=m\n# CONFIG_N is not set\nCONFIG_X=0x1f\nCONFIG_I=12\n\
             CONFIG_S=\"a b\"\nCONFIG_E=\"\"\n",
        );
        let held = |text: &str| {
            let wanted = parse(text, "t").unwrap();
            wanted.iter().all(|wanted| holds(wanted, &config))
        };
        for good in [
            "CONFIG_A=y",
            "CONFIG_M=m",
            "# CONFIG_N is not set",
            "CONFIG_ABSENT=n",
            "CONFIG_ABSENT=\"\"",
            "CONFIG_E=\"\"",
            "CONFIG_X=0x1F",
            "CONFIG_I=12",
            "CONFIG_S=\"a b\"",
        ] {
            assert!(held(good), "{good}");
        }
        for bad in [
            "CONFIG_A=m",
            "CONFIG_A=n",
            "CONFIG_M=y",
            "CONFIG_N=y",
            "CONFIG_ABSENT=y",
            "CONFIG_ABSENT=0",
            "CONFIG_X=0x1e",
            "CONFIG_S=\"a  b\"",
            "CONFIG_E=\"x\"",
        ] {
            assert!(!held(bad), "{bad}");
        }
    }

    #[test]
    fn kernels_that_could_not_run_are_refused_before_they_are_built() {
        let um = "CONFIG_UML=y\nCONFIG_64BIT=y\n";
        assert!(check_target(Target::Um, um).is_err());
        assert!(check_target(Target::Um, &format!("{um}CONFIG_STATIC_LINK=y\n")).is_ok());
        assert!(check_target(Target::X86_64, "CONFIG_X86_64=y\n").is_ok());
        assert!(check_target(Target::X86_64, um).is_err());
    }
}
