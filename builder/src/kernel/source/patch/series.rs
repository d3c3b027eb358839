//! Which patches a recipe names: patch files, and `series` files as quilt writes them.

use super::{Patch, PatchError, read_limited};
use crate::recipe::HostFile;

/// The name by which a list of patches is known.
const SERIES: &str = "series";
/// The most patches of one recipe.
const PATCHES_MAX: usize = 10_000;
/// Components that are dropped where a series says nothing else, as git and quilt have it.
const STRIP_DEFAULT: usize = 1;

/// Reads all patches in the order in which they are applied. A file named `series` stands for those
/// of its folder that it lists.
pub(in super::super) fn read_all(files: &[HostFile]) -> Result<Vec<Patch>, PatchError> {
    let mut patches = Vec::new();
    for file in files {
        if file.path.file_name().is_some_and(|name| name == SERIES) {
            for (patch, strip) in read_series(file)? {
                patches.push(Patch::read(&patch, strip)?);
            }
        } else {
            patches.push(Patch::read(file, STRIP_DEFAULT)?);
        }
        if patches.len() > PATCHES_MAX {
            return Err(PatchError::Series {
                series: file.written.clone(),
                line: 1,
                problem: format!("more than {PATCHES_MAX} patches, coop's limit"),
            });
        }
    }
    Ok(patches)
}

/// Lines of `NAME [-pN] [# comment]`.
fn read_series(file: &HostFile) -> Result<Vec<(HostFile, usize)>, PatchError> {
    let bytes = read_limited(&file.path).map_err(|source| PatchError::Unreadable {
        patch: file.written.clone(),
        source,
    })?;
    let text = String::from_utf8_lossy(&bytes);
    let mut patches = Vec::new();
    for (index, line) in text.lines().enumerate().take(PATCHES_MAX * 10) {
        let fail = |problem: String| PatchError::Series {
            series: file.written.clone(),
            line: index + 1,
            problem,
        };
        let mut words = line
            .split_whitespace()
            .take_while(|word| !word.starts_with('#'));
        let Some(name) = words.next() else {
            continue;
        };
        let is_inside = name.split('/').all(|part| !matches!(part, "" | "." | ".."));
        if !is_inside {
            return Err(fail(format!(
                "'{name}' is not below the folder of the series"
            )));
        }
        let mut strip = STRIP_DEFAULT;
        for option in words {
            strip = option
                .strip_prefix("-p")
                .and_then(|level| match level {
                    "ab" => Some(1),
                    level => level.parse().ok().filter(|level| *level < 10),
                })
                .ok_or_else(|| fail(format!("'{option}' is not supported; -p0 and -p1 are")))?;
        }
        patches.push((beside(file, name), strip));
    }
    Ok(patches)
}

/// A file of the same folder, as the recipe would name it.
fn beside(series: &HostFile, name: &str) -> HostFile {
    let folder = series.written.strip_suffix(SERIES).unwrap_or_default();
    HostFile {
        written: format!("{folder}{name}"),
        path: series.path.with_file_name(name),
    }
}
