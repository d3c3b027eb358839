//! Writes an appliance's files into its staging folder: images, kernel, manifest.

use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use coop_appliance::{
    ApplianceError, Cobd, Cocon, Conet, FORMAT, Filesystem, Kernel, MANIFEST_NAME, Machine,
    Manifest, Member, TestStep,
};
use coop_image::cpio::{self, CpioError};
use coop_image::ext4::{self, Size, WriteError};
use coop_image::swap::{self, SwapError};
use coop_image::tree::{Metadata, Times, Timestamp, Tree};
use coop_runtime::{InitramfsError, LoneMachine, lone_initramfs};
use fs_err as fs;

use crate::digest::Digest;
use crate::inputs::{self, FileDigests, seed};
use crate::kernel::{KernelFiles, Target};
use crate::recipe::{self, CobdContent, Recipe, RootSize};

const VMLINUX: &str = "vmlinux";
const CONFIG: &str = "config";
const BOOT_IMAGE: &str = "bzImage";
const INITRAMFS: &str = "initramfs.cpio";
const MODULES: &str = "modules.cpio";
/// The folder of the loader and libraries that a dynamic kernel is started with.
const LIBRARIES: &str = "lib";

/// Files are copied by hand in pieces of this size.
const PIECE_BYTES: usize = 1 << 20;

/// Why an appliance could not be written.
#[derive(Debug, thiserror::Error)]
pub enum AssembleError {
    /// The file system says no.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// An ext4 image cannot be made.
    #[error("cobd '{name}' at {}: {source}", path.display())]
    Ext4 {
        /// The recipe's name for the device.
        name: String,
        /// The image.
        path: PathBuf,
        /// Why.
        source: WriteError,
    },
    /// A swap area cannot be made.
    #[error("cobd '{name}' at {}: {source}", path.display())]
    Swap {
        /// The recipe's name for the device.
        name: String,
        /// The image.
        path: PathBuf,
        /// Why.
        source: SwapError,
    },
    /// The archive of modules cannot be made.
    #[error("kernel modules: {0}")]
    Cpio(#[from] CpioError),
    /// The initramfs cannot be made.
    #[error("initramfs: {0}")]
    Initramfs(#[from] InitramfsError),
    /// A file that was just written cannot be described.
    #[error(transparent)]
    Appliance(#[from] ApplianceError),
}

/// What an appliance is made of.
#[derive(Debug)]
pub struct Parts<'a> {
    /// The recipe.
    pub recipe: &'a Recipe,
    /// What the files of the host are that it names.
    pub files: &'a FileDigests,
    /// The finished root file system.
    pub root: &'a Tree,
    /// The kernel, whose files [`write_kernel`] has written already.
    pub kernel: Kernel,
    /// The modules that boot needs, in the order of loading: name and content.
    pub boot_modules: &'a [(String, Vec<u8>)],
    /// The digest of the recipe and its files, for the manifest.
    pub inputs: Digest,
    /// The digest of everything that the recipe resolved to; UUIDs come from it.
    pub resolved: Digest,
    /// The time that stands in superblocks.
    pub epoch: Timestamp,
}

/// Writes images into `folder`, which has the kernel's files, and gives the manifest that is still
/// without evidence: [`write_manifest`] writes it.
///
/// # Errors
/// See [`AssembleError`].
pub fn assemble(parts: &Parts<'_>, folder: &Path) -> Result<Manifest, AssembleError> {
    let mut cobd = Vec::new();
    for device in &parts.recipe.devices.cobd {
        cobd.push(write_cobd(parts, device, folder)?);
    }
    let mut kernel = parts.kernel.clone();
    if kernel.target == Target::X86_64 {
        kernel.initramfs = Some(write_initramfs(parts, &cobd, folder)?);
    }
    let manifest = Manifest {
        format: FORMAT,
        name: parts.recipe.name.clone(),
        description: parts.recipe.description.clone(),
        architecture: parts.recipe.architecture.debian_name().to_owned(),
        inputs: parts.inputs.to_string(),
        kernel,
        machine: Machine {
            memory_bytes: parts.recipe.devices.memory.0,
            cpus: parts.recipe.devices.cpus,
        },
        root: parts.recipe.devices.root.clone(),
        cobd,
        readonly: parts.recipe.rootfs.readonly.clone(),
        conet: parts.recipe.devices.conet.iter().map(conet).collect(),
        cocon: Cocon {
            columns: parts.recipe.devices.cocon.columns,
            rows: parts.recipe.devices.cocon.rows,
        },
        test: parts.recipe.test.iter().map(test_step).collect(),
        evidence: Vec::new(),
    };
    Ok(manifest)
}

/// Writes the manifest, which is the last file of an appliance.
///
/// # Errors
/// The file system says no.
pub fn write_manifest(manifest: &Manifest, folder: &Path) -> io::Result<()> {
    fs::write(folder.join(MANIFEST_NAME), manifest.to_json())
}

fn conet(device: &recipe::Conet) -> Conet {
    match device {
        recipe::Conet::User {
            forward,
            allow_host,
        } => Conet::User {
            forward: forward.clone(),
            allow_host: *allow_host,
        },
    }
}

fn test_step(step: &recipe::TestStep) -> TestStep {
    TestStep {
        run: step.run.clone(),
        expect: step.expect.clone(),
        timeout_ms: u64::try_from(step.timeout.as_millis()).unwrap_or(u64::MAX),
    }
}

fn write_cobd(
    parts: &Parts<'_>,
    device: &recipe::Cobd,
    folder: &Path,
) -> Result<Cobd, AssembleError> {
    let path = format!("{}.cobd", device.name);
    let (filesystem, mount, readonly) = match &device.content {
        CobdContent::File { file, readonly } => {
            copy_sparse(&file.path, &folder.join(&path))?;
            (Filesystem::Unknown, None, *readonly)
        }
        CobdContent::Root { size } => {
            let size = match size {
                RootSize::Auto { free, free_min } => Size::Auto {
                    free_percent: free.0,
                    free_bytes_min: free_min.0,
                },
                RootSize::Given(bytes) => Size::Bytes(bytes.0),
            };
            write_ext4(parts, &device.name, parts.root, size, &folder.join(&path))?;
            let readonly = parts.recipe.rootfs.readonly.is_some();
            (Filesystem::Ext4, Some("/".to_owned()), readonly)
        }
        CobdContent::Ext4 { size, mount } => {
            let empty = Tree::new(Metadata {
                mode: 0o755,
                times: Times::all(parts.epoch),
                ..Metadata::default()
            });
            let size = Size::Bytes(size.0);
            write_ext4(parts, &device.name, &empty, size, &folder.join(&path))?;
            (Filesystem::Ext4, mount.clone(), false)
        }
        CobdContent::Swap { size } => {
            let output = fs::File::create(folder.join(&path))?;
            let uuid = seed(&parts.resolved, &format!("cobd {} uuid", device.name));
            swap::write_swap(output.file(), size.0, uuid, "").map_err(|source| {
                AssembleError::Swap {
                    name: device.name.clone(),
                    path: folder.join(&path),
                    source,
                }
            })?;
            (Filesystem::Swap, None, false)
        }
    };
    let image = describe(folder, &path)?;
    if let CobdContent::File { file, .. } = &device.content
        && parts.files.digest(&file.path)?.to_string() != image.sha256
    {
        return Err(inputs::changed(&file.path).into());
    }
    Ok(Cobd {
        name: device.name.clone(),
        image,
        filesystem,
        mount,
        readonly,
    })
}

/// Hashes an image while the disk takes it: it has to be there before the appliance is.
fn describe(folder: &Path, path: &str) -> Result<Member, AssembleError> {
    let image = fs::File::open(folder.join(path))?;
    std::thread::scope(|scope| {
        let flushed = std::thread::Builder::new()
            .name("coop-flush".into())
            .spawn_scoped(scope, || image.sync_all())?;
        let member = Member::of(folder, path)?;
        let failed = || Err(io::Error::other("the thread that flushes ended"));
        flushed.join().unwrap_or_else(|_| failed())?;
        Ok(member)
    })
}

fn write_ext4(
    parts: &Parts<'_>,
    name: &str,
    tree: &Tree,
    size: Size,
    path: &Path,
) -> Result<(), AssembleError> {
    let seed = |purpose| seed(&parts.resolved, &format!("cobd {name} {purpose}"));
    let options = ext4::Options {
        size,
        threads: std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
        ..ext4::Options::new(seed("uuid"), seed("hash seed"), parts.epoch)
    };
    let output = fs::File::create(path)?;
    ext4::write(tree, &options, output.file()).map_err(|source| AssembleError::Ext4 {
        name: name.to_owned(),
        path: path.to_owned(),
        source,
    })?;
    Ok(())
}

/// Writes the kernel's files into `folder`: they come first, because guests that build start from
/// there.
///
/// # Errors
/// The files cannot be written.
pub fn write_kernel(
    kernel: &KernelFiles,
    boot_modules: &[(String, Vec<u8>)],
    sources: &[String],
    cmdline: &[String],
    folder: &Path,
) -> Result<Kernel, AssembleError> {
    write_program(&folder.join(VMLINUX), &kernel.vmlinux)?;
    fs::write(folder.join(CONFIG), &kernel.config)?;
    let boot_image = match &kernel.boot_image {
        Some(image) => {
            fs::write(folder.join(BOOT_IMAGE), image)?;
            Some(Member::of(folder, BOOT_IMAGE)?)
        }
        None => None,
    };
    // Another target's are in its initramfs.
    let modules = if boot_modules.is_empty() || kernel.target != Target::Um {
        None
    } else {
        write_modules(boot_modules, &folder.join(MODULES))?;
        Some(Member::of(folder, MODULES)?)
    };
    let mut libraries = Vec::new();
    for library in &kernel.libraries {
        fs::create_dir_all(folder.join(LIBRARIES))?;
        let path = format!("{LIBRARIES}/{}", library.name);
        write_program(&folder.join(&path), &library.bytes)?;
        libraries.push(Member::of(folder, &path)?);
    }
    Ok(Kernel {
        release: kernel.release.clone(),
        target: kernel.target,
        sources: sources.to_vec(),
        boot_image,
        initramfs: None,
        vmlinux: Member::of(folder, VMLINUX)?,
        config: Member::of(folder, CONFIG)?,
        modules,
        libraries,
        cmdline: cmdline.to_vec(),
    })
}

fn write_program(path: &Path, bytes: &[u8]) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::write(path, bytes)?;
    fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))
}

/// Writes what the boot image is started with: an initramfs that needs no coop on the host.
fn write_initramfs(
    parts: &Parts<'_>,
    cobd: &[Cobd],
    folder: &Path,
) -> Result<Member, AssembleError> {
    let archive = lone_initramfs(&LoneMachine {
        readonly: parts.recipe.rootfs.readonly.as_ref(),
        cobd,
        network: !parts.recipe.devices.conet.is_empty(),
        modules: parts.boot_modules,
    })?;
    fs::write(folder.join(INITRAMFS), archive)?;
    Ok(Member::of(folder, INITRAMFS)?)
}

/// Writes the archive of modules that follows the agent's in the initramfs.
fn write_modules(modules: &[(String, Vec<u8>)], path: &Path) -> Result<(), AssembleError> {
    let mut entries = vec![cpio::Entry::directory("modules", 0o755)];
    for (name, bytes) in modules {
        entries.push(cpio::Entry::file(
            &format!("modules/{name}"),
            0o644,
            bytes.clone(),
        ));
    }
    let mut output = io::BufWriter::new(fs::File::create(path)?);
    cpio::write(&entries, &mut output)?;
    output.flush()?;
    Ok(())
}

/// Copies a file with its holes, inside the kernel where the file systems can.
///
/// # Errors
/// What the file system says.
fn copy_sparse(from: &Path, to: &Path) -> io::Result<()> {
    use rustix::fs::{SeekFrom, seek};
    let source = fs::File::open(from)?;
    let size = source.metadata()?.len();
    let target = fs::File::create(to)?;
    target.set_len(size)?;
    let mut copying = Copying {
        source: &source,
        target: &target,
        by_hand: None,
    };
    let mut position = 0;
    while position < size {
        let start = match seek(&source, SeekFrom::Data(position)) {
            Ok(start) => start,
            // No data from here to the end.
            Err(rustix::io::Errno::NXIO) => break,
            Err(error) => return Err(error.into()),
        };
        position = seek(&source, SeekFrom::Hole(start))?;
        copying.range(start, position)?;
    }
    Ok(())
}

/// Two files, one of which becomes the other.
struct Copying<'a> {
    source: &'a fs::File,
    target: &'a fs::File,
    /// What is read into where the kernel copies nothing, as between file systems.
    by_hand: Option<Vec<u8>>,
}

impl Copying<'_> {
    fn range(&mut self, mut start: u64, end: u64) -> io::Result<()> {
        while start < end {
            let count = self.piece(start, usize::try_from(end - start).unwrap_or(usize::MAX))?;
            if count == 0 {
                let path = self.source.path().display();
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    format!("{path} became shorter while it was copied"),
                ));
            }
            start = start.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
        }
        Ok(())
    }

    fn piece(&mut self, at: u64, length: usize) -> io::Result<usize> {
        use rustix::fs::copy_file_range;
        use rustix::io::Errno;
        if self.by_hand.is_none() {
            let (mut from, mut to) = (at, at);
            match copy_file_range(
                self.source,
                Some(&mut from),
                self.target,
                Some(&mut to),
                length,
            ) {
                Err(Errno::XDEV | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {}
                done => return Ok(done?),
            }
        }
        let buffer = self.by_hand.get_or_insert_with(|| vec![0; PIECE_BYTES]);
        let wanted = length.min(buffer.len());
        let count = self.source.file().read_at(&mut buffer[..wanted], at)?;
        self.target.file().write_all_at(&buffer[..count], at)?;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn holes_survive_a_copy() {
        let here = tempfile::tempdir().unwrap();
        // Another file system, where there is one: the kernel copies nothing between two.
        let there =
            tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap());
        for home in [&here, &there] {
            let (from, to) = (home.path().join("from"), here.path().join("to"));
            let source = fs::File::create(&from).unwrap();
            source.set_len(64 << 20).unwrap();
            source.file().write_all_at(b"middle", 20 << 20).unwrap();
            copy_sparse(&from, &to).unwrap();
            assert_eq!(fs::metadata(&to).unwrap().len(), 64 << 20);
            assert!(fs::metadata(&to).unwrap().blocks() * 512 < 1 << 20);
            assert_eq!(fs::read(&to).unwrap(), fs::read(&from).unwrap());
        }
    }
}
