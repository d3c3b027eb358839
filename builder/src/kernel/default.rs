//! The kernel of a recipe that names none.
//!
//! The trimmed kernel boots ten times as fast as a prebuilt one, but somebody has to build it: that
//! takes minutes and a compiler. So it is taken where it was built before, built where the tools
//! are, and otherwise a prebuilt kernel stands in for it.

use crate::recipe::{BuildPlace, KernelLocation, KernelSource};

use super::Target;
use super::config::{self, FragmentError, Wanted};

/// The package with the source of the trimmed kernel.
pub const PACKAGE: &str = "linux-source-7.2";
/// The suite that it is taken from.
pub const SUITE: &str = "sid";

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
            Self::Prebuilt => Some("prebuilt"),
            Self::Trimmed => Some("trimmed"),
        }
    }
}

/// What the host has for building a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Means<'a> {
    /// The release of the trimmed kernel that the store has.
    pub stored: Option<&'a str>,
    /// The tools that are missing, as a sentence's list: `flex, bison`.
    pub missing: Option<Missing<'a>>,
}

/// Tools that are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missing<'a> {
    /// Their names, separated by commas.
    pub tools: &'a str,
    /// The Debian packages that have them, separated by spaces.
    pub packages: &'a str,
}

/// What was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chosen {
    /// The trimmed kernel as the store has it, whatever the archive has by now.
    Stored,
    /// The trimmed kernel of today's source, from the store or built.
    Trimmed,
    /// Debian's User-Mode Linux.
    Prebuilt,
}

/// Chooses, and says what and why in a sentence for people.
#[must_use]
pub fn choose(choice: KernelChoice, means: &Means<'_>) -> (Chosen, String) {
    let trimmed = |why: &str| {
        let sentence = format!("kernel: trimmed um of {PACKAGE}, {why}");
        (Chosen::Trimmed, sentence)
    };
    match (choice, means.missing, means.stored) {
        (KernelChoice::Prebuilt, ..) => {
            let sentence = "kernel: prebuilt user-mode-linux, as asked for".to_owned();
            (Chosen::Prebuilt, sentence)
        }
        (KernelChoice::Auto, None, _) => trimmed("because the tools to build it are here"),
        (KernelChoice::Trimmed, None, _) | (KernelChoice::Trimmed, Some(_), None) => {
            trimmed("as asked for")
        }
        (_, Some(_), Some(release)) => {
            let sentence = format!("kernel: trimmed um {release} from the store");
            (Chosen::Stored, sentence)
        }
        (KernelChoice::Auto, Some(Missing { tools, packages }), None) => {
            let verb = if tools.contains(',') { "are" } else { "is" };
            let sentence = format!(
                "kernel: prebuilt user-mode-linux, because {tools} {verb} missing to build the \
                 trimmed one, which boots faster (apt-get install {packages})"
            );
            (Chosen::Prebuilt, sentence)
        }
    }
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

    #[test]
    fn the_choice_depends_on_store_and_tools() {
        const MISSING: Option<Missing<'_>> = Some(Missing {
            tools: "flex, bison",
            packages: "flex bison",
        });
        const STORED: Option<&str> = Some("7.2.13");
        for (choice, missing, stored, chosen, part) in [
            (KernelChoice::Auto, None, None, Chosen::Trimmed, "tools"),
            (KernelChoice::Auto, None, STORED, Chosen::Trimmed, "tools"),
            (
                KernelChoice::Auto,
                MISSING,
                STORED,
                Chosen::Stored,
                "7.2.13 from",
            ),
            (
                KernelChoice::Auto,
                MISSING,
                None,
                Chosen::Prebuilt,
                "because flex, bison are missing",
            ),
            (
                KernelChoice::Prebuilt,
                None,
                STORED,
                Chosen::Prebuilt,
                "asked",
            ),
            (
                KernelChoice::Trimmed,
                MISSING,
                STORED,
                Chosen::Stored,
                "store",
            ),
            (
                KernelChoice::Trimmed,
                MISSING,
                None,
                Chosen::Trimmed,
                "asked",
            ),
            (KernelChoice::Trimmed, None, None, Chosen::Trimmed, "asked"),
        ] {
            let (found, sentence) = choose(choice, &Means { stored, missing });
            assert_eq!(found, chosen, "{choice:?} {missing:?} {stored:?}");
            assert!(sentence.starts_with("kernel: "), "{sentence}");
            assert!(sentence.contains(part), "{sentence}");
        }
    }
}
