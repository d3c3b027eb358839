//! A kernel from Debian's `user-mode-linux` package.

use std::io::Read;

use coop_image::tree::{InodeId, Kind, Tree, display};

use super::modules::{BOOT, Dependencies};
use super::{KernelError, OLDEST_RELEASE, elf};

/// The largest kernel, config or module that is taken from a package, in bytes.
const FILE_SIZE_MAX: u64 = 256 << 20;

const PROGRAM: &str = "/usr/bin/linux.uml";
const CONFIG: &str = "/usr/share/doc/user-mode-linux/config.gz";
const MODULES: &str = "/usr/lib/uml/modules";

/// A file that lies beside the kernel so that it starts on any host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Library {
    /// File name: `ld.so` or the library's soname.
    pub name: String,
    /// The file.
    pub bytes: Vec<u8>,
}

/// What an appliance takes from a kernel package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prebuilt {
    /// `uname -r`.
    pub release: String,
    /// The executable, its interpreter made relative.
    pub vmlinux: Vec<u8>,
    /// Its `.config`.
    pub config: String,
    /// The modules that boot needs, in the order of loading: name and content.
    pub modules: Vec<(String, Vec<u8>)>,
    /// The loader and the C library; empty for a static kernel.
    pub libraries: Vec<Library>,
}

/// Takes the kernel out of its package, and the loader and libraries out of `suite`: packages of
/// the same suite.
///
/// # Errors
/// A file is missing or damaged, or the kernel is older than [`OLDEST_RELEASE`].
pub fn prebuilt(package: &Tree, suite: &[Tree]) -> Result<Prebuilt, KernelError> {
    let release = release(package)?;
    if version_of(&release) < version_of(OLDEST_RELEASE) {
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
    Ok(Prebuilt {
        config: config(package)?,
        modules: boot_modules(package, &release)?,
        release,
        vmlinux,
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

/// The first two numbers of a release; later ones do not matter to [`OLDEST_RELEASE`].
fn version_of(release: &str) -> (u32, u32) {
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(|part| part.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
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

fn boot_modules(package: &Tree, release: &str) -> Result<Vec<(String, Vec<u8>)>, KernelError> {
    let base = format!("{MODULES}/{release}");
    let listing = read(package, &format!("{base}/modules.dep"), "modules.dep")?;
    let listing = String::from_utf8_lossy(&listing);
    let mut modules = Vec::new();
    for path in Dependencies::parse(&listing).load_order(BOOT) {
        if !path.ends_with(".ko") {
            return Err(invalid(path, "is compressed, which the agent cannot load"));
        }
        let bytes = read(package, &format!("{base}/{path}"), "module of modules.dep")?;
        let file = path.rsplit('/').next().unwrap_or(path);
        modules.push((format!("{:02}-{file}", modules.len()), bytes));
    }
    Ok(modules)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_compared_by_number() {
        assert!(version_of("6.12.3") < version_of(OLDEST_RELEASE));
        assert!(version_of("6.16") >= version_of(OLDEST_RELEASE));
        assert!(version_of("7.2.7") >= version_of(OLDEST_RELEASE));
        assert!(version_of("6.9-rc1") < version_of(OLDEST_RELEASE));
        assert!(version_of("nonsense") < version_of(OLDEST_RELEASE));
    }
}
