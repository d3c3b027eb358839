//! A series of patches over a folder.

use std::collections::BTreeMap;
use std::io;

use coop_image::tree::display;
use coop_runtime::event::{Event, Observer};

use super::hunk::{Direction, NoPlace, place};
use super::{FilePatch, Operation, Patch, PatchError};
use crate::kernel::source::folder::{Folder, Found};

/// The largest file that is patched, in bytes (64 MiB).
const FILE_BYTES_MAX: u64 = 64 << 20;
/// How much of a differing line is shown, in characters.
const SHOWN_CHARS_MAX: usize = 80;
/// How many names like a missing one are shown.
const SIMILAR_MAX: usize = 3;

/// A file as it will be.
#[derive(Clone, Debug)]
struct Patched {
    content: Vec<u8>,
    executable: bool,
}

/// What the patches made of the files that they touch; `None` is no file.
type Overlay = BTreeMap<Vec<u8>, Option<Patched>>;

/// Applies all patches in their order; nothing is written before all of them fit. `false` where it
/// was called off.
pub(in super::super) fn apply(
    patches: &[Patch],
    folder: &Folder,
    modified_seconds: i64,
    observer: &dyn Observer,
) -> Result<bool, PatchError> {
    let mut overlay = Overlay::new();
    for patch in patches {
        for file in patch.files()? {
            if observer.is_cancelled() {
                return Ok(false);
            }
            let one = One {
                patch: &patch.name,
                folder,
                observer,
            };
            one.apply(&file, &mut overlay)?;
        }
    }
    for (path, state) in overlay {
        write(folder, &path, state, modified_seconds)
            .map_err(|source| tree_error(&path, source))?;
    }
    Ok(true)
}

fn write(
    folder: &Folder,
    path: &[u8],
    state: Option<Patched>,
    modified_seconds: i64,
) -> io::Result<()> {
    folder.remove(path)?;
    match state {
        Some(file) => folder.make_file(path, &file.content, file.executable, modified_seconds),
        None => Ok(()),
    }
}

fn tree_error(path: &[u8], source: io::Error) -> PatchError {
    PatchError::Tree {
        target: display(path),
        source,
    }
}

/// One patch over one folder.
struct One<'a> {
    patch: &'a str,
    folder: &'a Folder,
    observer: &'a dyn Observer,
}

impl One<'_> {
    fn apply(&self, file: &FilePatch<'_>, overlay: &mut Overlay) -> Result<(), PatchError> {
        match file.operation {
            Operation::Create => self.create(file, overlay),
            Operation::Modify if self.makes_a_missing_file(file, overlay)? => {
                self.create(file, overlay)
            }
            Operation::Modify => {
                let path = self.named(file, overlay)?;
                let patched = self.changed(file, &path, overlay)?;
                overlay.insert(path, Some(patched));
                Ok(())
            }
            Operation::Delete => {
                let patched = self.changed(file, &file.old, overlay)?;
                // An empty diff of a deletion (git's -D) leaves the content unsaid.
                if !patched.content.is_empty() {
                    return Err(PatchError::NotEmpty {
                        patch: self.patch.to_owned(),
                        target: display(&file.old),
                    });
                }
                overlay.insert(file.old.clone(), None);
                Ok(())
            }
            Operation::Rename | Operation::Copy => {
                let patched = self.changed(file, &file.old, overlay)?;
                if file.old != file.new && self.state(&file.new, overlay)?.is_some() {
                    return Err(self.exists(&file.new));
                }
                if file.operation == Operation::Rename {
                    overlay.insert(file.old.clone(), None);
                }
                overlay.insert(file.new.clone(), Some(patched));
                Ok(())
            }
        }
    }

    fn create(&self, file: &FilePatch<'_>, overlay: &mut Overlay) -> Result<(), PatchError> {
        let placed = place(b"", &file.hunks, Direction::Forward)
            .map_err(|no_place| self.hunk(&file.new, &no_place))?;
        if let Some(existing) = self.state(&file.new, overlay)? {
            if existing.content == placed.content {
                return Err(self.applied(&file.new));
            }
            return Err(self.exists(&file.new));
        }
        let patched = Patched {
            content: placed.content,
            executable: file.executable.unwrap_or(false),
        };
        overlay.insert(file.new.clone(), Some(patched));
        Ok(())
    }

    /// diff(1) has no `/dev/null` where it was told to treat absent files as empty ones (`-N`).
    fn makes_a_missing_file(
        &self,
        file: &FilePatch<'_>,
        overlay: &Overlay,
    ) -> Result<bool, PatchError> {
        let adds_all = match &*file.hunks {
            [hunk] => {
                hunk.old_start == 0 && hunk.changes.iter().all(|(c, _)| *c == super::Change::Add)
            }
            _ => false,
        };
        Ok(adds_all && self.state(&file.new, overlay)?.is_none())
    }

    /// Which of a plain diff's two names is meant, where they differ: the one that is there.
    fn named(&self, file: &FilePatch<'_>, overlay: &Overlay) -> Result<Vec<u8>, PatchError> {
        if file.old != file.new && self.state(&file.new, overlay)?.is_none() {
            return Ok(file.old.clone());
        }
        Ok(file.new.clone())
    }

    /// The file with the hunks in it.
    fn changed(
        &self,
        file: &FilePatch<'_>,
        path: &[u8],
        overlay: &Overlay,
    ) -> Result<Patched, PatchError> {
        let Some(before) = self.state(path, overlay)? else {
            return Err(self.missing(file, path, overlay)?);
        };
        let placed = place(&before.content, &file.hunks, Direction::Forward).map_err(
            |no_place| match place(&before.content, &file.hunks, Direction::Backward) {
                Ok(_) => self.applied(path),
                Err(_) => self.hunk(path, &no_place),
            },
        )?;
        for (hunk, moved) in placed.moved {
            let message = format!(
                "{}: {}, hunk {hunk} is {} lines further {} than it says",
                self.patch,
                display(path),
                moved.unsigned_abs(),
                if moved < 0 { "up" } else { "down" }
            );
            self.observer.event(&Event::Note { message: &message });
        }
        Ok(Patched {
            content: placed.content,
            executable: file.executable.unwrap_or(before.executable),
        })
    }

    fn state(&self, path: &[u8], overlay: &Overlay) -> Result<Option<Patched>, PatchError> {
        if let Some(state) = overlay.get(path) {
            return Ok(state.clone());
        }
        match self.folder.read(path, FILE_BYTES_MAX) {
            Ok(Found::File {
                content,
                executable,
            }) => Ok(Some(Patched {
                content,
                executable,
            })),
            Ok(Found::Nothing) => Ok(None),
            Ok(Found::Other) => Err(PatchError::NotAFile {
                patch: self.patch.to_owned(),
                target: display(path),
            }),
            Err(source) => Err(tree_error(path, source)),
        }
    }

    fn missing(
        &self,
        file: &FilePatch<'_>,
        path: &[u8],
        overlay: &Overlay,
    ) -> Result<PatchError, PatchError> {
        // A rename that was done leaves nothing behind.
        let moved_here = match file.operation {
            Operation::Rename => self.state(&file.new, overlay)?,
            _ => None,
        };
        if let Some(moved) = moved_here
            && place(&moved.content, &file.hunks, Direction::Backward).is_ok()
        {
            return Ok(self.applied(&file.new));
        }
        let similar = self.folder.similar(path, SIMILAR_MAX);
        let hint = match &*similar {
            [] => String::new(),
            names => {
                let names: Vec<String> = names.iter().map(|name| display(name)).collect();
                format!(" (there is {})", names.join(", "))
            }
        };
        Ok(PatchError::Missing {
            patch: self.patch.to_owned(),
            target: display(path),
            hint,
        })
    }

    fn exists(&self, path: &[u8]) -> PatchError {
        PatchError::Exists {
            patch: self.patch.to_owned(),
            target: display(path),
        }
    }

    fn applied(&self, path: &[u8]) -> PatchError {
        PatchError::Applied {
            patch: self.patch.to_owned(),
            target: display(path),
        }
    }

    fn hunk(&self, path: &[u8], no_place: &NoPlace) -> PatchError {
        let detail = match &no_place.differs {
            None => String::new(),
            Some((line, wanted, None)) => {
                format!(
                    " (the file ends before line {line}, which should be '{}')",
                    shown(wanted)
                )
            }
            Some((_, wanted, Some(found))) if ends_as_windows(wanted) != ends_as_windows(found) => {
                let (patch, file) = match ends_as_windows(wanted) {
                    true => ("patch", "file"),
                    false => ("file", "patch"),
                };
                format!(" (the {patch} has Windows line ends and the {file} has not)")
            }
            Some((line, wanted, Some(found))) => {
                format!(
                    " (line {line} is '{}', the patch has '{}')",
                    shown(found),
                    shown(wanted)
                )
            }
        };
        PatchError::Hunk {
            patch: self.patch.to_owned(),
            target: display(path),
            hunk: no_place.hunk,
            line: no_place.line,
            detail,
        }
    }
}

fn ends_as_windows(line: &[u8]) -> bool {
    line.ends_with(b"\r\n")
}

fn shown(line: &[u8]) -> String {
    display(line.trim_ascii())
        .chars()
        .take(SHOWN_CHARS_MAX)
        .collect()
}
