//! A kernel alone, as files in a folder.

use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use coop_appliance::{ApplianceError, Member};
use coop_image::tar;
use coop_image::tree::{InodeId, Metadata, Tree, TreeError};
use fs_err as fs;
use serde::Serialize;

use super::{FetchedKernel, Target, modules};
use crate::publish::Staging;

/// The name of the file that says what a folder's kernel is; a folder without it is not replaced.
pub const DESCRIPTION_NAME: &str = "kernel.json";
/// The name of the file with the whole configuration.
pub const CONFIG_NAME: &str = "config";
const PROGRAM: &str = "vmlinux";
const MINIMAL: &str = "defconfig";
const BOOT_IMAGE: &str = "bzImage";
const MODULES: &str = "modules.tar";
/// The folder of the loader and libraries that a dynamic kernel is started with.
const LIBRARIES: &str = "lib";

/// Why a kernel's files could not be written. The folder is then as it was.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The file system says no.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The modules cannot be put below `/lib/modules`.
    #[error("kernel modules: {0}")]
    Tree(#[from] TreeError),
    /// The archive of modules cannot be written.
    #[error("kernel modules: {0}")]
    Tar(#[from] tar::WriteError),
    /// A file that was just written cannot be described.
    #[error(transparent)]
    Appliance(#[from] ApplianceError),
}

/// What lies in the folder: the content of [`DESCRIPTION_NAME`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Exported {
    /// What the kernel is built for.
    pub target: Target,
    /// `uname -r`.
    pub release: String,
    /// What it was made from, one line each.
    pub sources: Vec<String>,
    /// The files, with sizes and digests.
    pub files: Vec<Member>,
}

/// Writes a kernel's files into a folder, which appears whole or not at all: `vmlinux`, `config`,
/// and as far as the kernel has them `defconfig`, `bzImage`, `modules.tar` (with
/// `lib/modules/RELEASE` in it) and `lib/` with the C library that it is started with.
///
/// # Errors
/// See [`ExportError`]; also if the folder exists and is neither empty nor from here.
pub fn export(kernel: &FetchedKernel, output: &Path) -> Result<Exported, ExportError> {
    let staging = Staging::new(output, DESCRIPTION_NAME)?;
    let folder = staging.path();
    let files = &kernel.files;
    let mut members = Vec::new();
    let mut add = |path: &str| -> Result<(), ExportError> {
        members.push(Member::of(folder, path)?);
        Ok(())
    };
    write_program(&folder.join(PROGRAM), &files.vmlinux)?;
    add(PROGRAM)?;
    fs::write(folder.join(CONFIG_NAME), &files.config)?;
    add(CONFIG_NAME)?;
    if let Some(minimal) = &files.minimal_config {
        fs::write(folder.join(MINIMAL), minimal)?;
        add(MINIMAL)?;
    }
    if let Some(image) = &files.boot_image {
        fs::write(folder.join(BOOT_IMAGE), image)?;
        add(BOOT_IMAGE)?;
    }
    if let Some(tree) = &files.modules {
        let times = tree.inode(InodeId::ROOT).metadata.times;
        let mut root = Tree::new(Metadata {
            mode: 0o755,
            times,
            ..Metadata::default()
        });
        modules::install(&mut root, files, times.modified)?;
        let mut archive = io::BufWriter::new(fs::File::create(folder.join(MODULES))?);
        tar::write(&root, &mut archive)?;
        archive.flush()?;
        drop(archive);
        add(MODULES)?;
    }
    for library in &files.libraries {
        fs::create_dir_all(folder.join(LIBRARIES))?;
        let path = format!("{LIBRARIES}/{}", library.name);
        write_program(&folder.join(&path), &library.bytes)?;
        add(&path)?;
    }
    let exported = Exported {
        target: files.target,
        release: files.release.clone(),
        sources: kernel.resolved.clone(),
        files: members,
    };
    let text = serde_json::to_string_pretty(&exported).map_err(io::Error::from)?;
    fs::write(folder.join(DESCRIPTION_NAME), text + "\n")?;
    staging.publish()?;
    Ok(exported)
}

fn write_program(path: &Path, bytes: &[u8]) -> io::Result<()> {
    fs::write(path, bytes)?;
    fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))
}

#[cfg(test)]
mod tests {
    use super::super::{KernelFiles, Library};
    use super::*;

    fn kernel() -> FetchedKernel {
        let mut modules = Tree::new(Metadata::default());
        let folder = Metadata {
            mode: 0o755,
            ..Metadata::default()
        };
        modules.make_directories(b"/kernel/fs", &folder).unwrap();
        FetchedKernel {
            files: KernelFiles {
                target: Target::X86_64,
                release: "7.2.1".to_owned(),
                vmlinux: b"ELF".to_vec(),
                boot_image: Some(b"boot".to_vec()),
                config: "CONFIG_A=y\n".to_owned(),
                minimal_config: Some(String::new()),
                modules: Some(modules),
                libraries: vec![Library {
                    name: "ld.so".to_owned(),
                    bytes: b"ld".to_vec(),
                }],
            },
            resolved: vec!["source x".to_owned()],
        }
    }

    #[test]
    fn a_kernel_becomes_a_folder_and_replaces_only_its_like() {
        let home = tempfile::tempdir().unwrap();
        let output = home.path().join("out/k");
        let exported = export(&kernel(), &output).unwrap();
        let mut names: Vec<&str> = exported.files.iter().map(|file| &*file.path).collect();
        names.sort_unstable();
        let expected = "bzImage config defconfig lib/ld.so modules.tar vmlinux";
        assert_eq!(names.join(" "), expected);
        for file in &exported.files {
            assert!(output.join(&file.path).is_file());
        }
        let mode = fs::metadata(output.join(PROGRAM)).unwrap().permissions();
        assert_eq!(mode.mode() & 0o777, 0o755);
        let text = fs::read_to_string(output.join(DESCRIPTION_NAME)).unwrap();
        assert!(text.contains("\"target\": \"x86_64\""), "{text}");
        let mut small = kernel();
        small.files.modules = None;
        export(&small, &output).unwrap();
        assert!(!output.join(MODULES).exists());
        let foreign = home.path().join("mine");
        fs::create_dir(&foreign).unwrap();
        fs::write(foreign.join("letter"), "dear").unwrap();
        assert!(export(&small, &foreign).is_err());
        assert!(foreign.join("letter").exists());
    }
}
