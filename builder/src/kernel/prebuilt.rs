//! A kernel from Debian's `user-mode-linux` package.

use std::io::Read;

use coop_image::tree::{InodeId, Kind, Tree, display};

use super::config::Version;
use super::files::{KernelFiles, Library, graft};
use super::{KernelError, OLDEST_VERSION, Target, elf, modules};

/// The largest kernel, config or module that is taken from a package, in bytes.
const FILE_SIZE_MAX: u64 = 256 << 20;

const PROGRAM: &str = "/usr/bin/linux.uml";
const CONFIG: &str = "/usr/share/doc/user-mode-linux/config.gz";
const MODULES: &str = "/usr/lib/uml/modules";

/// Takes the kernel out of its package, and the loader and libraries out of `suite`: packages of
/// the same suite.
///
/// # Errors
/// A file is missing or damaged, or the kernel is older than [`OLDEST_VERSION`].
pub fn prebuilt(package: &Tree, suite: &[Tree]) -> Result<KernelFiles, KernelError> {
    let release = release(package)?;
    if Version::of_release(&release).is_none_or(|version| version < OLDEST_VERSION) {
        return Err(KernelError::TooOld { release });
    }
    let mut vmlinux = read(package, PROGRAM, "usr/bin/linux.uml")?;
    let dynamic =
        elf::use_relative_interpreter(&mut vmlinux).map_err(|problem| invalid(PROGRAM, problem))?;
    let libraries = if dynamic {
        libraries(suite)?
    } else {
        Vec::new()
    };
    Ok(KernelFiles {
        target: Target::Um,
        config: config(package)?,
        minimal_config: None,
        modules: Some(stripped_modules(package, &release)?),
        release,
        vmlinux,
        boot_image: None,
        libraries,
    })
}

fn invalid(path: &str, problem: impl Into<String>) -> KernelError {
    KernelError::Invalid {
        path: path.to_owned(),
        problem: problem.into(),
    }
}

fn read(tree: &Tree, path: &str, what: &'static str) -> Result<Vec<u8>, KernelError> {
    let id = tree
        .resolve(path.as_bytes())
        .map_err(|_| KernelError::Missing(what))?;
    Ok(tree.read_file(id, FILE_SIZE_MAX)?)
}

/// The one folder below [`MODULES`].
fn release(package: &Tree) -> Result<String, KernelError> {
    let folder = package
        .resolve(MODULES.as_bytes())
        .ok()
        .and_then(|id| package.entries(id))
        .ok_or(KernelError::Missing("usr/lib/uml/modules"))?;
    let mut names = folder.keys();
    match (names.next(), names.next()) {
        (Some(name), None) => Ok(display(name)),
        _ => Err(invalid(MODULES, "does not hold exactly one release")),
    }
}

fn config(package: &Tree) -> Result<String, KernelError> {
    let packed = read(package, CONFIG, "config.gz")?;
    let mut text = String::new();
    flate2::read::GzDecoder::new(&*packed)
        .take(FILE_SIZE_MAX)
        .read_to_string(&mut text)
        .map_err(|error| invalid(CONFIG, format!("cannot be unpacked: {error}")))?;
    if !text.lines().any(|line| line == "CONFIG_UML=y") {
        return Err(invalid(CONFIG, "is not the configuration of a UML kernel"));
    }
    Ok(text)
}

/// The package's modules, which have debugging information, as what becomes
/// `/lib/modules/RELEASE`.
fn stripped_modules(package: &Tree, release: &str) -> Result<Tree, KernelError> {
    let top = package.resolve(format!("{MODULES}/{release}").as_bytes())?;
    let mut tree = Tree::new(package.inode(top).metadata.clone());
    graft(package, top, &mut tree, InodeId::ROOT)?;
    modules::strip(&mut tree)?;
    modules::depmod(&mut tree)?;
    Ok(tree)
}

fn libraries(suite: &[Tree]) -> Result<Vec<Library>, KernelError> {
    let take = |file: &'static str, name: &str| -> Result<Library, KernelError> {
        let bytes = suite
            .iter()
            .find_map(|tree| Some((tree, find_library(tree, file)?)))
            .map(|(tree, id)| tree.read_file(id, FILE_SIZE_MAX))
            .ok_or(KernelError::Missing(file))?;
        Ok(Library {
            name: name.to_owned(),
            bytes: bytes?,
        })
    };
    Ok(vec![
        take("ld-linux-x86-64.so.2", "ld.so")?,
        take("libc.so.6", "libc.so.6")?,
        // The C library opens it when a thread is cancelled, as at power-off.
        take("libgcc_s.so.1", "libgcc_s.so.1")?,
    ])
}

fn find_library(tree: &Tree, file: &str) -> Option<InodeId> {
    ["/usr/lib/x86_64-linux-gnu", "/lib/x86_64-linux-gnu"]
        .iter()
        .filter_map(|folder| tree.resolve(format!("{folder}/{file}").as_bytes()).ok())
        .find(|id| matches!(tree.inode(*id).kind, Kind::File(_)))
}
