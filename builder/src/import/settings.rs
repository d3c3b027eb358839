//! What a configuration says, whichever grammar it is written in.

use std::collections::BTreeMap;

use coop_appliance::Forward;
use coop_image::tree::is_unruly;

use super::paths;
use super::{At, Note, Outcome, Wrong};

/// Block devices that coLinux had.
pub(super) const COBD_MAX: u32 = 32;
/// Network devices that coLinux had.
pub(super) const ETH_MAX: u32 = 16;
/// Devices of the other kinds; coLinux's limits for them are no higher.
pub(super) const OTHER_MAX: u32 = 128;
/// The most of guest memory that a configuration may ask for, in MiB.
const MEMORY_MAX_MIB: u64 = 1 << 20;
/// Errors after which no further ones are looked for.
const WRONG_MAX: usize = 100;
/// Notes after which no further ones are kept: nobody reads so many.
const NOTES_MAX: usize = 1000;

/// A value with its place.
#[derive(Clone, Debug)]
pub(super) struct Placed<T> {
    pub(super) value: T,
    pub(super) at: At,
}

/// A block device.
#[derive(Clone, Debug)]
pub(super) struct DiskSetting {
    /// The path as the recipe has it.
    pub(super) path: String,
    pub(super) at: At,
}

/// A root on a server.
#[derive(Clone, Debug)]
pub(super) struct NfsSetting {
    pub(super) server: String,
    pub(super) path: String,
    /// As mount(8) takes them.
    pub(super) options: String,
}

/// All that was read so far.
#[derive(Debug, Default)]
pub(super) struct Settings {
    /// In MiB.
    pub(super) memory: Option<Placed<u64>>,
    pub(super) disks: BTreeMap<u32, DiskSetting>,
    /// Other names of block devices, as `hda1`.
    pub(super) aliases: BTreeMap<String, Placed<u32>>,
    /// Words of the kernel's command line.
    pub(super) words: Vec<Placed<String>>,
    /// Network devices that lead somewhere.
    pub(super) networks: BTreeMap<u32, At>,
    pub(super) forwards: Vec<Placed<Forward>>,
    /// A server that has the root.
    pub(super) nfs: Option<Placed<NfsSetting>>,
    /// Columns and rows.
    pub(super) console: Option<(u16, u16)>,
    pub(super) notes: Vec<Note>,
    pub(super) wrong: Vec<Wrong>,
}

impl Settings {
    pub(super) fn wrong(&mut self, at: &At, reason: impl Into<String>) {
        if !self.has_enough_wrong() {
            self.wrong.push(Wrong {
                at: at.clone(),
                reason: escape(&reason.into()),
            });
        }
    }

    /// Whether no further error is told of.
    pub(super) fn has_enough_wrong(&self) -> bool {
        self.wrong.len() >= WRONG_MAX
    }

    pub(super) fn note(
        &mut self,
        at: &At,
        outcome: Outcome,
        what: impl Into<String>,
        why: impl Into<String>,
    ) {
        if self.notes.len() < NOTES_MAX {
            self.notes.push(Note {
                at: at.clone(),
                outcome,
                what: escape(&what.into()),
                why: escape(&why.into()),
            });
        }
    }

    pub(super) fn left_out(&mut self, at: &At, what: impl Into<String>, why: impl Into<String>) {
        self.note(at, Outcome::LeftOut, what, why);
    }

    pub(super) fn changed(&mut self, at: &At, what: impl Into<String>, why: impl Into<String>) {
        self.note(at, Outcome::Changed, what, why);
    }

    /// An amount of memory in MiB.
    pub(super) fn set_memory(&mut self, text: &str, what: &str, at: &At) {
        let number = text.parse::<u64>().ok();
        match number.filter(|mib| (1..=MEMORY_MAX_MIB).contains(mib)) {
            Some(value) => {
                self.memory = Some(Placed {
                    value,
                    at: at.clone(),
                });
            }
            None => self.wrong(
                at,
                format!("{what} is not a number of megabytes from 1 to {MEMORY_MAX_MIB}"),
            ),
        }
    }

    /// A block device; `what` is how it is written.
    pub(super) fn set_disk(&mut self, index: u32, written: &str, what: &str, at: &At) {
        match paths::adapt(written) {
            Ok(adapted) => {
                if let Some(why) = adapted.why {
                    self.note(at, adapted.outcome, what, why);
                }
                let disk = DiskSetting {
                    path: adapted.path,
                    at: at.clone(),
                };
                self.disks.insert(index, disk);
            }
            Err(reason) => self.wrong(at, format!("{what}: {reason}")),
        }
    }

    /// The kernel, which cannot be carried over.
    pub(super) fn set_kernel(&mut self, what: &str, at: &At) {
        self.changed(
            at,
            what,
            "a kernel of coLinux runs inside of coLinux only; coop's default kernel takes its place",
        );
    }

    /// The initrd, which cannot be carried over.
    pub(super) fn set_initrd(&mut self, what: &str, at: &At) {
        self.changed(
            at,
            what,
            "coop starts its kernel with an initramfs of its own, which finds the root and loads \
             the modules that boot needs",
        );
    }
}

/// A name that ends in an index, as `cobd12`: the name's own part and the index.
pub(super) fn split_index(name: &str) -> Option<(&str, &str)> {
    let end = name
        .trim_end_matches(|digit: char| digit.is_ascii_digit())
        .len();
    let (stem, digits) = name.split_at(end);
    (!stem.is_empty() && !digits.is_empty()).then_some((stem, digits))
}

/// An index below a limit.
pub(super) fn index(digits: &str, limit: u32) -> Option<u32> {
    digits.parse().ok().filter(|index| *index < limit)
}

/// Whether a recipe may have a character as it is: nothing unruly, no mark of a text's beginning,
/// nothing that is none (YAML 1.2.2, section 5.1).
pub(super) fn is_text(character: char) -> bool {
    !is_unruly(character) && !matches!(character, '\u{feff}' | '\u{fffe}' | '\u{ffff}')
}

/// A text with escapes for what neither a recipe nor a terminal should see as it is.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match is_text(character) {
            true => escaped.push(character),
            false => escaped.extend(character.escape_default()),
        }
    }
    escaped
}

/// The first characters of a text for a sentence about it.
pub(super) fn shorten(text: &str) -> String {
    const SHOWN_MAX: usize = 120;
    let end = text.char_indices().nth(SHOWN_MAX).map(|(end, _)| end);
    match end {
        Some(end) => escape(&text[..end]) + "…",
        None => escape(text),
    }
}
