//! `coop run @x.conf`: the machine of a configuration of coLinux or coMosix, on its images where they
//! are. There is nothing to build but the kernel.

use std::path::{Path, PathBuf};

use coop_appliance::{Cocon, Filesystem, NfsRoot, Readonly, Root, Writable};
use coop_builder::build::{self, LoneKernel};
use coop_builder::import::{self, Imported};
use coop_builder::recipe::{Architecture, Kernel};
use coop_runtime::{DiskSpec, DiskWrites, MachineSpec, NetworkSpec, RootSpec};

use super::import::{read, tell};
use super::lock;
use super::means::Means;
use crate::arguments::RunOptions;
use crate::environment::Environment;
use crate::failure::Failure;
use crate::host;
use crate::render::Output;

/// What a machine has whose configuration does not say.
const MEMORY_BYTES: u64 = 256 << 20;
const CONSOLE: (u16, u16) = (80, 25);
/// What of a server's root the guest can write.
const WRITABLE: [(&str, Writable); 4] = [
    ("/home", Writable::Copy),
    ("/root", Writable::Copy),
    ("/tmp", Writable::Empty),
    ("/var", Writable::Copy),
];

/// A configuration's machine.
pub(super) struct Prepared {
    /// The machine.
    pub(super) spec: MachineSpec,
    /// The console's size where no terminal says another.
    pub(super) cocon: Cocon,
    /// It must be there while the machine runs.
    pub(super) kernel: LoneKernel,
}

/// Reads the configuration, tells what is not as it was, and has a kernel fetched or made.
pub(super) fn prepare(
    file: &Path,
    options: &RunOptions,
    environment: &Environment,
    output: &Output,
) -> Result<Prepared, Failure> {
    let imported = read(file, None)?;
    tell(&imported.notes);
    let disks = disks(&imported, file)?;
    let pins = lock::pins(file, &options.recipe_options)?;
    let means = Means::prepare(&options.recipe_options, pins, environment, output)?;
    let archive = means.archive_for(Architecture::Amd64);
    let kernel = Kernel::default();
    let root = root(&imported.machine);
    let kernel = build::lone_kernel(&means.kernel_request(&kernel, &archive), &root);
    let kernel = kernel.map_err(|error| means.failed(&error, "stopped by a signal"))?;
    let spec = spec(&imported.machine, disks, &kernel, environment);
    let (columns, rows) = imported.machine.console.unwrap_or(CONSOLE);
    Ok(Prepared {
        spec,
        cocon: Cocon { columns, rows },
        kernel,
    })
}

/// The images, which must be there; what is missing is told before a kernel is made.
fn disks(imported: &Imported, file: &Path) -> Result<Vec<DiskSpec>, Failure> {
    let folder = file.parent().unwrap_or(Path::new(""));
    let mut disks = Vec::new();
    for disk in &imported.machine.disks {
        let path = std::path::absolute(folder.join(&disk.path));
        let path: PathBuf = path.map_err(|error| Failure::work(&error))?;
        if !path.is_file() {
            let shown = path.display();
            let message = format!("{}: cobd{}: there is no file {shown}", disk.at, disk.number);
            let hint = "put the image there, or change the configuration";
            return Err(Failure::usage(message).with_hint(hint));
        }
        disks.push(DiskSpec {
            name: format!("cobd{}", disk.number),
            path,
            writes: DiskWrites::Dropped,
            filesystem: Filesystem::Unknown,
            mount: None,
            file: None,
        });
    }
    Ok(disks)
}

/// Where the root is, as an appliance would have it.
fn root(machine: &import::Machine) -> Root {
    match &machine.root {
        import::Root::Cobd => Root::Cobd,
        import::Root::Nfs(nfs) => Root::Nfs(NfsRoot {
            server: Some(nfs.server.clone()),
            path: nfs.path.clone(),
            options: nfs.options.clone(),
        }),
    }
}

fn spec(
    machine: &import::Machine,
    disks: Vec<DiskSpec>,
    kernel: &LoneKernel,
    environment: &Environment,
) -> MachineSpec {
    let host = host::host(environment);
    let (root, readonly) = match &machine.root {
        import::Root::Cobd => (RootSpec::Disk, None),
        import::Root::Nfs(nfs) => {
            let root = RootSpec::Nfs {
                server: nfs.server.clone(),
                path: nfs.path.clone(),
                options: nfs.options.clone(),
            };
            let writable = WRITABLE
                .map(|(path, start)| (path.to_owned(), start))
                .into();
            let etc = Vec::new();
            (root, Some(Readonly { writable, etc }))
        }
    };
    let network = machine.network.then(|| NetworkSpec {
        forwards: machine.forwards.clone(),
        resolvers: host.resolvers.clone(),
        ..NetworkSpec::default()
    });
    let memory_bytes = machine.memory_bytes.unwrap_or(MEMORY_BYTES);
    MachineSpec {
        root,
        disks,
        readonly,
        network,
        ..MachineSpec::new(kernel.spec(&machine.cmdline), memory_bytes, host)
    }
}
