//! Which part of a disk is meant.

use coop_image::partition::{FileSystem, Guid, PartitionType};
use coop_image::tree::{Tree, display};

use super::{ConvertError, Input, Part};
use crate::recipe::ByteCount;

/// What is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Which {
    /// The one that looks like a root file system.
    #[default]
    Root,
    /// The partition of this number.
    Number(u32),
    /// The one whose name in a GPT or whose file system's label this is.
    Label(String),
}

impl Which {
    /// Reads `root`, a number, or a label.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        match text.parse() {
            Ok(number) => Self::Number(number),
            Err(_) if text == "root" => Self::Root,
            Err(_) => Self::Label(text.to_owned()),
        }
    }
}

impl std::fmt::Display for Which {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Root => f.write_str("root"),
            Self::Number(number) => number.fmt(f),
            Self::Label(label) => f.write_str(label),
        }
    }
}

impl Input {
    /// Finds the part that is meant.
    ///
    /// # Errors
    /// There is none, or more than one; the error lists them all.
    pub fn choose(&self, which: &Which) -> Result<&Part, ConvertError> {
        match which {
            Which::Root => self.root(),
            Which::Number(number) => {
                let found = self.parts.iter().find(|one| one.number() == Some(*number));
                found.ok_or_else(|| self.none(format!("there is no partition {number}")))
            }
            Which::Label(label) => {
                let shown = display(label.as_bytes());
                match &self.labelled(label)[..] {
                    [one] => Ok(*one),
                    [] => Err(self.none(format!("nothing is named '{shown}'"))),
                    _ => Err(self.none(format!("more than one partition is named '{shown}'"))),
                }
            }
        }
    }

    fn labelled(&self, label: &str) -> Vec<&Part> {
        let is_meant = |part: &&Part| {
            let name = part.partition.as_ref().map(|partition| &*partition.name);
            part.label() == label || name == Some(label)
        };
        self.parts.iter().filter(is_meant).collect()
    }

    fn root(&self) -> Result<&Part, ConvertError> {
        if self.is_bare()
            && let [whole] = &self.parts[..]
        {
            return Ok(whole);
        }
        let linux: Vec<&Part> = self.parts.iter().filter(|part| is_linux(part)).collect();
        let typed: Vec<&Part> = linux
            .iter()
            .copied()
            .filter(|one| is_root_type(one))
            .collect();
        if let [one] = typed[..] {
            return Ok(one);
        }
        if let [one] = linux[..]
            && !self.parts.iter().any(is_other)
        {
            return Ok(one);
        }
        let mut roots = linux.iter().filter(|part| self.looks_like_root(part));
        match (roots.next(), roots.next()) {
            (Some(one), None) => Ok(one),
            (Some(_), Some(_)) => {
                Err(self.none("more than one partition looks like a root".to_owned()))
            }
            (None, _) => Err(self.no_root()),
        }
    }

    /// What cannot be read is no root that could be taken.
    pub(super) fn looks_like_root(&self, part: &Part) -> bool {
        self.top(part).is_ok_and(|top| is_root(&top))
    }

    /// Where nothing looks like a root: which parts nobody has looked into, and why.
    fn no_root(&self) -> ConvertError {
        let mut reason = "no partition looks like a root".to_owned();
        let closed = self.parts.iter().filter(|part| {
            is_other(part) || is_linux(part) && part.file_system() != Some(FileSystem::Ext)
        });
        let closed: Vec<&Part> = closed.collect();
        if !closed.is_empty() {
            let each = closed.iter();
            let each = each.map(|part| format!("{part} is {}", part.nature()));
            let each = each.collect::<Vec<_>>().join(", ");
            reason.push_str(&format!("; {each}, which coop does not look into"));
        }
        let ext = self.parts.iter();
        for part in ext.filter(|part| part.file_system() == Some(FileSystem::Ext)) {
            match self.top(part) {
                Err(ConvertError::FileSystem { source, .. }) => {
                    reason.push_str(&format!("; {part} cannot be read: {source}"));
                }
                Err(ConvertError::CutOff { what, .. }) => reason.push_str(&format!("; {what}")),
                _ => {}
            }
        }
        let found = closed.first().and_then(|part| part.file_system());
        self.choice(reason, found)
    }

    /// Says that nothing is what was asked for, and what there is.
    fn none(&self, reason: String) -> ConvertError {
        self.choice(reason, None)
    }

    fn choice(&self, mut reason: String, closed: Option<FileSystem>) -> ConvertError {
        let mut list = String::new();
        if self.is_bare() {
            reason.push_str("; the disk has no partition table");
        }
        for part in self.parts.iter().filter(|part| part.partition.is_some()) {
            let mut line = format!("\n  {part}: {}", part.kind_name());
            if !part.label().is_empty() {
                line.push_str(&format!(" '{}'", part.label()));
            }
            if let Some(partition) = &part.partition {
                line.push_str(&format!(", {}", partition.kind.name()));
                if !partition.name.is_empty() {
                    let name = display(partition.name.as_bytes());
                    line.push_str(&format!(" named '{name}'"));
                }
            }
            line.push_str(&format!(", {}", ByteCount(part.length_bytes)));
            list.push_str(&line);
        }
        ConvertError::Choice {
            name: self.name.clone(),
            reason,
            list,
            closed,
        }
    }
}

/// Whether something may be in it that coop does not look into.
fn is_other(part: &Part) -> bool {
    matches!(part.file_system(), Some(FileSystem::Lvm | FileSystem::Luks))
}

fn is_linux(part: &Part) -> bool {
    matches!(
        part.file_system(),
        Some(
            FileSystem::Ext
                | FileSystem::Xfs
                | FileSystem::Btrfs
                | FileSystem::SquashFs
                | FileSystem::Erofs
        )
    )
}

fn is_root_type(part: &Part) -> bool {
    let kind = part.kind();
    [Guid::LINUX_ROOT_AMD64, Guid::LINUX_ROOT_ARM64]
        .into_iter()
        .any(|guid| kind == Some(PartitionType::Gpt(guid)))
}

/// Whether a tree has what every root has; of the root folder alone that can be said, too.
pub(super) fn is_root(tree: &Tree) -> bool {
    let has = |path: &[u8]| {
        let found = tree.resolve(path);
        found.is_ok_and(|id| tree.entries(id).is_some())
    };
    has(b"/etc") && (has(b"/sbin") || has(b"/usr") || has(b"/bin"))
}
