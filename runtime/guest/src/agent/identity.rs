//! What makes a machine the one that it is: files over the root's own, in memory only.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path};

use coop_guest::boot::IdentityFile;
use rustix::mount::mount_bind;

use crate::failure::{Doing, Failure};
use crate::overlay;

/// Where the files lie.
const FOLDER: &str = "/run/coop/identity";
/// Where ssh keeps what is a machine's own.
const SSH: &str = "/etc/ssh";

/// Shows the files. Gives what could not be done, one sentence each.
///
/// A file that the root has is mounted over. Where the root has none, its folder is put into
/// memory and gets it; only `/etc` itself is left where it is, and gets an empty file instead.
pub(crate) fn install(files: &[IdentityFile], is_readonly: bool) -> Result<Vec<String>, Failure> {
    let mut warnings = Vec::new();
    if is_readonly && Path::new(SSH).is_dir() {
        // A server without keys makes some when it starts.
        warnings.extend(overlay::folder_into_memory(Path::new(SSH))?);
    }
    for (index, file) in files.iter().enumerate() {
        if let Err(failure) = show(file, index, &mut warnings) {
            warnings.push(failure.to_string());
        }
    }
    Ok(warnings)
}

fn show(file: &IdentityFile, index: usize, warnings: &mut Vec<String>) -> Result<(), Failure> {
    let place = Path::new(&file.path);
    let is_plain = |part| matches!(part, Component::Normal(_));
    let (true, Some(folder)) = (
        place.is_absolute() && place.components().skip(1).all(is_plain),
        place.parent(),
    ) else {
        let path = &file.path;
        return Err(Failure::new(format!(
            "'{path}' is no place for a file of identity"
        )));
    };
    if !folder.is_dir() {
        return Ok(());
    }
    let what = || format!("make {}", place.display());
    if !place.exists() {
        if folder != Path::new("/etc") {
            if !in_memory(folder) {
                warnings.extend(overlay::folder_into_memory(folder)?);
            }
            return write(place, file);
        }
        fs::write(place, "").doing(what)?;
    }
    // A read-only root may have a link there, which leads into memory.
    let place = &fs::canonicalize(place).doing(what)?;
    if in_memory(place) {
        // Whoever put it there, it belongs to this boot only.
        fs::remove_file(place).doing(what)?;
        return write(place, file);
    }
    let source = format!("{FOLDER}/{index}");
    fs::create_dir_all(FOLDER).doing(|| format!("make {FOLDER}"))?;
    write(Path::new(&source), file)?;
    mount_bind(source.as_str(), place).doing(|| format!("show {source} at {}", place.display()))
}

/// Whether a path lies on a file system in memory.
fn in_memory(path: &Path) -> bool {
    /// tmpfs, statfs(2).
    const TMPFS_MAGIC: u64 = 0x0102_1994;
    let magic = rustix::fs::statfs(path).map(|found| u64::try_from(found.f_type));
    matches!(magic, Ok(Ok(TMPFS_MAGIC)))
}

fn write(path: &Path, file: &IdentityFile) -> Result<(), Failure> {
    let what = || format!("write {}", path.display());
    let mut options = OpenOptions::new();
    options
        .write(true)
        .create_new(true)
        .mode(u32::from(file.mode) & 0o7777);
    let mut opened = options.open(path).doing(what)?;
    opened.write_all(file.content.as_bytes()).doing(what)
}
