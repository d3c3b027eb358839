//! The kernel of a recipe that names none.
//!
//! The trimmed kernel boots ten times as fast as a prebuilt one, but somebody has to build it: that
//! takes minutes and a compiler. So it is taken where it was built before, built where the tools
//! are, and otherwise a prebuilt kernel stands in for it.

use crate::recipe::{BuildPlace, KernelLocation, KernelSource};

use super::Target;
use super::config::{self, FragmentError, Version, Wanted};
use super::make::MissingTool;

/// The package with the source of the trimmed kernel.
pub const PACKAGE: &str = "linux-source-7.2";
/// The suite that it is taken from.
pub const SUITE: &str = "sid";

/// Why a kernel is taken: somebody said so.
const AS_ASKED: &str = "as asked for";
/// Why a kernel is taken: a lock has it.
pub(super) const AS_LOCKED: &str = "as the lock has it";
/// How many missing tools a sentence names.
const TOOLS_SHOWN_MAX: usize = 4;

/// What a recipe without a kernel of its own gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KernelChoice {
    /// The trimmed kernel where it is in the store or can be built, else the prebuilt one.
    #[default]
    Auto,
    /// Debian's User-Mode Linux.
    Prebuilt,
    /// The trimmed kernel, or an error.
    Trimmed,
}

impl KernelChoice {
    /// What tells apart builds of one recipe; nothing where nobody chose.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        match self {
            Self::Auto => None,
            Self::Prebuilt => Some(PREBUILT),
            Self::Trimmed => Some(TRIMMED),
        }
    }
}

/// What a lock calls the choice.
pub(super) const QUESTION: &str = "the kernel of a recipe that names none";

/// Its answers.
pub(super) const TRIMMED: &str = "trimmed";
/// See [`TRIMMED`].
pub(super) const PREBUILT: &str = "prebuilt";

/// What a lock calls the kernel that was chosen.
pub(super) fn name(is_trimmed: bool) -> &'static str {
    if is_trimmed { TRIMMED } else { PREBUILT }
}

/// What was chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chosen {
    /// The trimmed kernel, from the store or built.
    Trimmed,
    /// The trimmed kernel if the store has it, whatever compiler made it, else the prebuilt one.
    Stored,
    /// Debian's User-Mode Linux.
    Prebuilt,
}

/// Chooses for a host that lacks these tools.
#[must_use]
pub fn choose(choice: KernelChoice, missing: &[MissingTool]) -> Chosen {
    match choice {
        KernelChoice::Prebuilt => Chosen::Prebuilt,
        KernelChoice::Trimmed => Chosen::Trimmed,
        KernelChoice::Auto if missing.is_empty() => Chosen::Trimmed,
        KernelChoice::Auto => Chosen::Stored,
    }
}

/// Says why the trimmed kernel is built.
pub(super) fn trimmed_sentence(choice: KernelChoice) -> String {
    let why = match choice {
        KernelChoice::Auto => "because the tools to build it are here",
        KernelChoice::Trimmed | KernelChoice::Prebuilt => AS_ASKED,
    };
    trimmed_because(why)
}

/// Says that the trimmed kernel is taken, and why.
pub(super) fn trimmed_because(why: &str) -> String {
    format!("kernel: trimmed um of {PACKAGE}, {why}")
}

/// Says which kernel the store had.
pub(super) fn stored_sentence(release: &str) -> String {
    format!("kernel: trimmed um {release} from the store")
}

/// Says why it is the prebuilt kernel.
pub(super) fn prebuilt_sentence(missing: &[MissingTool]) -> String {
    let mut packages: Vec<&str> = missing.iter().map(|tool| tool.package).collect();
    packages.sort_unstable();
    packages.dedup();
    let names = missing.iter().take(TOOLS_SHOWN_MAX);
    let mut tools = names.map(|tool| &*tool.tool).collect::<Vec<_>>().join(", ");
    let rest = missing.len().saturating_sub(TOOLS_SHOWN_MAX);
    if rest > 0 {
        tools.push_str(&format!(" and {rest} more"));
    }
    let verb = match missing.len() {
        0 => return prebuilt_because(AS_ASKED),
        1 => "is",
        _ => "are",
    };
    format!(
        "kernel: prebuilt user-mode-linux, because {tools} {verb} missing to build the trimmed one, \
         which boots faster (apt-get install {})",
        packages.join(" ")
    )
}

/// Says that the prebuilt kernel is taken, and why.
pub(super) fn prebuilt_because(why: &str) -> String {
    format!("kernel: prebuilt user-mode-linux, {why}")
}

/// The source of the trimmed kernel.
#[must_use]
pub fn source() -> KernelSource {
    KernelSource {
        location: KernelLocation::Debian {
            package: PACKAGE.to_owned(),
            suite: SUITE.to_owned(),
        },
        patches: Vec::new(),
        target: Target::Um,
        place: BuildPlace::Host,
    }
}

/// The version that a source's package has in its name; an archive says it nowhere but inside.
#[must_use]
pub fn version_of(source: &KernelSource) -> Option<Version> {
    match &source.location {
        KernelLocation::Debian { package, .. } => {
            Version::parse(package.strip_prefix("linux-source-")?)
        }
        KernelLocation::Tarball(_) => None,
    }
}

/// What the trimmed kernel is made of, and then what a recipe wants beyond that.
///
/// # Errors
/// Never: a test reads every fragment that is carried.
pub fn wanted(recipe: &[Wanted]) -> Result<Vec<Wanted>, FragmentError> {
    let mut wanted = config::default_wanted()?;
    wanted.extend_from_slice(recipe);
    Ok(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn missing(tools: &[&'static str]) -> Vec<MissingTool> {
        let tool = |name: &&'static str| MissingTool {
            tool: (*name).to_owned(),
            package: name,
        };
        tools.iter().map(tool).collect()
    }

    #[test]
    fn what_nobody_chose_depends_on_the_tools() {
        let (none, two) = (missing(&[]), missing(&["flex", "bison"]));
        for (choice, tools, chosen) in [
            (KernelChoice::Auto, &none, Chosen::Trimmed),
            (KernelChoice::Auto, &two, Chosen::Stored),
            (KernelChoice::Prebuilt, &none, Chosen::Prebuilt),
            (KernelChoice::Trimmed, &two, Chosen::Trimmed),
        ] {
            assert_eq!(choose(choice, tools), chosen, "{choice:?}");
        }
    }

    #[test]
    fn the_reason_is_said() {
        assert_eq!(
            prebuilt_sentence(&missing(&["flex", "bison"])),
            "kernel: prebuilt user-mode-linux, because flex, bison are missing to build the trimmed \
             one, which boots faster (apt-get install bison flex)"
        );
        let many = prebuilt_sentence(&missing(&["a", "b", "c", "d", "e", "f"]));
        assert!(many.contains("because a, b, c, d and 2 more are"), "{many}");
        assert!(prebuilt_sentence(&missing(&["bc"])).contains("because bc is missing"));
        assert!(prebuilt_sentence(&[]).ends_with("as asked for"));
        assert!(trimmed_sentence(KernelChoice::Auto).contains("tools"));
        assert!(trimmed_sentence(KernelChoice::Trimmed).contains("asked"));
        assert_eq!(
            stored_sentence("7.2.13"),
            "kernel: trimmed um 7.2.13 from the store"
        );
    }
}
