//! The parts of a read-only root that lie in memory: whatever the root is mounted from.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use coop_guest::boot::{ETC_FOLDER, ETC_KEPT_FOLDER, Readonly, Writable};
use rustix::mount::{MountFlags, mount_bind, mount_move};

use crate::copy::Copier;
use crate::failure::{Doing, Failure};
use crate::mounts::attach;

/// Where folders are filled before they are moved to their places.
const STAGING: &str = "/run/coop/staging";
/// The folder of everything that coop makes in `/tmp`: a file system of its own, for what clears
/// `/tmp` at boot or by age stops at another file system.
const COOP_FOLDER: &str = "/tmp/coop";
/// The root's own table of file systems, for machines whose root is read-only.
const FSTAB_LOCAL: &str = "/etc/fstab.local";
/// The resolver's file among those of `/etc`.
pub(crate) const RESOLVER: &str = "resolv.conf";
const FSTAB: &str = "fstab";
const TMP: &str = "/tmp";

/// Makes the folders writable and the files of `/etc`. Gives what could not be as it should, one
/// sentence each; the guest can do without.
pub(crate) fn apply(readonly: &Readonly) -> Result<Vec<String>, Failure> {
    let mut copier = Copier::default();
    let mut folders = readonly.writable.clone();
    folders.entry(TMP.to_owned()).or_insert(Writable::Empty);
    // All are filled before the first is in its place: it would hide what lies below it.
    let mut filled: Vec<(PathBuf, &Path)> = Vec::new();
    for (index, (folder, start)) in folders.iter().enumerate() {
        let folder = Path::new(folder);
        let staged = PathBuf::from(format!("{STAGING}/{index}"));
        fill(&mut copier, folder, &staged, *start, &|path| {
            path != folder && folders.keys().any(|other| Path::new(other) == path)
        })?;
        filled.push((staged, folder));
    }
    for (staged, folder) in &filled {
        show(staged, folder)?;
    }
    let _ = fs::remove_dir(STAGING);
    let memory = MountFlags::NOSUID | MountFlags::NODEV;
    attach("tmpfs", COOP_FOLDER, "tmpfs", memory, "mode=0755")?;
    fs::create_dir_all(ETC_FOLDER).doing(|| format!("make {ETC_FOLDER}"))?;
    let mut warnings = Vec::new();
    for name in &readonly.etc {
        make(&mut copier, name, &readonly.writable).or_else(|failure| {
            warnings.push(failure.to_string());
            Ok::<(), Failure>(())
        })?;
    }
    warnings.extend(copier.complaints());
    Ok(warnings)
}

/// Puts a folder that the root has into memory as it is, unless it is there already.
pub(crate) fn folder_into_memory(folder: &Path) -> Result<Vec<String>, Failure> {
    let mut copier = Copier::default();
    let staged = PathBuf::from(STAGING);
    fill(&mut copier, folder, &staged, Writable::Copy, &|_| false)?;
    show(&staged, folder)?;
    Ok(copier.complaints())
}

/// Fills a folder in memory with what one of the root starts with.
fn fill(
    copier: &mut Copier,
    folder: &Path,
    staged: &Path,
    start: Writable,
    only_itself: &dyn Fn(&Path) -> bool,
) -> Result<(), Failure> {
    let shown = folder.display();
    if !folder.is_dir() {
        let sentence = format!("the root is read-only and has no folder {shown} to be writable");
        return Err(Failure::new(sentence));
    }
    let flags = match folder == Path::new(TMP) {
        true => MountFlags::NOSUID | MountFlags::NODEV,
        false => MountFlags::empty(),
    };
    let target = staged.to_string_lossy();
    attach("tmpfs", &target, "tmpfs", flags, "")?;
    // A link to a folder stands for the folder.
    let folder = folder.canonicalize().doing(|| format!("find {shown}"))?;
    match start {
        Writable::Empty => copier.folder_itself(&folder, staged),
        Writable::Copy => copier.folder(&folder, staged, only_itself),
    }
}

/// Moves a filled folder to its place.
fn show(staged: &Path, folder: &Path) -> Result<(), Failure> {
    mount_move(staged, folder).doing(|| format!("show memory at {}", folder.display()))?;
    fs::remove_dir(staged).doing(|| format!("remove {}", staged.display()))
}

/// Makes a file of `/etc`.
fn make(
    copier: &mut Copier,
    name: &str,
    writable: &std::collections::BTreeMap<String, Writable>,
) -> Result<(), Failure> {
    let file = PathBuf::from(format!("{ETC_FOLDER}/{name}"));
    let what = || format!("make {}", file.display());
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder).doing(what)?;
    }
    let place = PathBuf::from(format!("/etc/{name}"));
    let is_link = fs::read_link(&place).is_ok_and(|target| target == file);
    let kept = PathBuf::from(format!("{ETC_KEPT_FOLDER}/{name}"));
    match (name, exists(&kept)) {
        (FSTAB, _) => {
            let table = match fs::read(FSTAB_LOCAL) {
                Ok(table) => table,
                Err(error) if error.kind() == io::ErrorKind::NotFound => fstab(writable)?,
                Err(error) => return Err(error).doing(|| format!("read {FSTAB_LOCAL}")),
            };
            fs::write(&file, table).doing(what)?;
        }
        (_, true) => copier.file(&kept, &file)?,
        // A root that was not built for this has its own file there still.
        (_, false) if !is_link && exists(&place) => copier.file(&place, &file)?,
        // What the image does not have, a program may make.
        (_, false) => {}
    }
    if is_link {
        return Ok(());
    }
    if !place.exists() {
        let place = place.display();
        let sentence = format!("{place} is no link into {ETC_FOLDER}: the root has no such file");
        return Err(Failure::new(sentence));
    }
    mount_bind(&file, &place).doing(|| format!("show {} at {}", file.display(), place.display()))
}

fn exists(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

/// The table of a root without one of its own: the root as it is mounted, and the memory.
fn fstab(writable: &std::collections::BTreeMap<String, Writable>) -> Result<Vec<u8>, Failure> {
    let table = "/proc/self/mounts";
    let mounts = fs::read_to_string(table).doing(|| format!("read {table}"))?;
    let mut text =
        "# Made at boot: the root is read-only, and all of this is mounted.\n".to_owned();
    text.push_str(&root_line(&mounts).unwrap_or_default());
    for folder in writable.keys() {
        text.push_str(&format!("tmpfs {} tmpfs defaults 0 0\n", escape(folder)));
    }
    Ok(text.into_bytes())
}

/// The root's line: the last that is mounted there.
fn root_line(mounts: &str) -> Option<String> {
    let fields = |line: &str| {
        let mut fields = line.split(' ').map(str::to_owned);
        let (source, point, kind) = (fields.next()?, fields.next()?, fields.next()?);
        (point == "/").then(|| format!("{source} / {kind} ro 0 0\n"))
    };
    mounts.lines().rev().find_map(fields)
}

/// Blanks in a table are written as octal numbers.
fn escape(path: &str) -> String {
    path.replace('\\', "\\134")
        .replace(' ', "\\040")
        .replace('\t', "\\011")
        .replace('\n', "\\012")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_is_what_is_mounted_last() {
        let mounts = "rootfs / rootfs rw 0 0\nproc /proc proc rw 0 0\n\
                      /dev/cobd0 / ext4 ro,relatime 0 0\ntmpfs /run tmpfs rw 0 0\n";
        assert_eq!(root_line(mounts).unwrap(), "/dev/cobd0 / ext4 ro 0 0\n");
        assert_eq!(root_line("proc /proc proc rw 0 0\n"), None);
        assert_eq!(escape("/srv/a b\\c"), "/srv/a\\040b\\134c");
    }
}
