//! `coop export --format container`: an image for container engines.

use std::fs::File;
use std::path::Path;

use coop_appliance::bundle::BlobDigest;
use coop_appliance::{Appliance, ApplianceError, MANIFEST_NAME, Target};
use coop_image::tree::{Inode, Kind, Tree};
use coop_runtime::event::{Observer, task};
use serde_json::json;

use super::image::{Image, Layer, folder, put_file};
use super::{ExportError, program};

/// The program in the image.
const PROGRAM: &str = "/usr/bin/coop";
/// The appliance in the image.
const APPLIANCE: &str = "/appliance";
/// Folders that everybody may write in: for the guest's memory, sockets, and what it writes.
const TEMPORARY: [&str; 2] = ["tmp", "var/tmp"];

/// What goes into an image, and where the image goes.
#[derive(Debug)]
pub struct ContainerOptions<'a> {
    /// What is booted.
    pub appliance: &'a Appliance,
    /// The program that boots it: coop as it runs now.
    pub program: &'a Path,
    /// A folder for the layers until the image is whole.
    pub scratch: &'a Path,
    /// The output: a folder that becomes an OCI layout, or with `archive` a file.
    pub output: &'a Path,
    /// Whether the output is one tar archive.
    pub archive: bool,
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exported {
    /// The image's name in its index.
    pub name: String,
    /// The digest of its manifest.
    pub digest: BlobDigest,
    /// The sizes of its layers: the program's, and the appliance's.
    pub layer_bytes: Vec<u64>,
}

/// Writes an image. The same appliance and program give the same bytes.
///
/// # Errors
/// The appliance is for machines that coop does not run, or is damaged; the program cannot be
/// carried; or the output cannot be written. The output is then as it was.
pub fn container(
    options: &ContainerOptions<'_>,
    observer: &dyn Observer,
) -> Result<Exported, ExportError> {
    let appliance = options.appliance;
    let target = appliance.manifest.kernel.target;
    if target != Target::Um {
        return Err(ApplianceError::Target(target).into());
    }
    task(observer, "check the appliance", || appliance.verify())?;
    let called_off = || match observer.is_cancelled() {
        true => Err(ExportError::Cancelled),
        false => Ok(()),
    };
    called_off()?;
    let write = |name: &str, tree: &Tree| {
        let scratch = scratch_file(options.scratch)?;
        task(observer, name, || Layer::write(tree, scratch))
    };
    let program = write("write the program's layer", &program_tree(options.program)?)?;
    called_off()?;
    let content = write("write the appliance's layer", &appliance_tree(appliance)?)?;
    called_off()?;
    let layers = vec![program, content];
    let layer_bytes = layers.iter().map(|layer| layer.descriptor.size).collect();
    let name = format!("{}:latest", appliance.manifest.name);
    let image = Image::new(config(appliance), layers, &name);
    let digest = image.manifest.digest;
    if options.archive {
        image.write_archive(options.output)?;
    } else {
        image.write_folder(options.output)?;
    }
    Ok(Exported {
        name,
        digest,
        layer_bytes,
    })
}

/// A file without a name, so that a killed export leaves nothing.
fn scratch_file(folder: &Path) -> Result<File, ExportError> {
    Ok(tempfile::tempfile_in(folder)?)
}

fn program_tree(program: &Path) -> Result<Tree, ExportError> {
    let mut tree = Tree::new(folder(0o755));
    put_file(&mut tree, PROGRAM, program)?;
    for (place, from) in program::libraries(program)? {
        let problem = || ExportError::Program {
            path: from.clone(),
            problem: "its path is no text".to_owned(),
        };
        let place = place.to_str().ok_or_else(problem)?;
        put_file(&mut tree, place, &from)?;
    }
    for path in TEMPORARY {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        let parent = tree.make_directories(parent.as_bytes(), &folder(0o755))?;
        let id = tree.add_inode(Inode {
            metadata: folder(0o1777),
            kind: Kind::Directory(Default::default()),
        })?;
        tree.link(parent, name.as_bytes(), id)?;
    }
    // What container engines mount over, and files that they fill.
    for path in ["proc", "sys", "dev", "etc", "run"] {
        tree.make_directories(path.as_bytes(), &folder(0o755))?;
    }
    Ok(tree)
}

fn appliance_tree(appliance: &Appliance) -> Result<Tree, ExportError> {
    let mut tree = Tree::new(folder(0o755));
    let own = appliance.folder.join(MANIFEST_NAME);
    put_file(&mut tree, &format!("{APPLIANCE}/{MANIFEST_NAME}"), &own)?;
    for member in appliance.manifest.members() {
        let from = appliance.path(member)?;
        put_file(&mut tree, &format!("{APPLIANCE}/{}", member.path), &from)?;
    }
    Ok(tree)
}

/// The image's config (image specification, "Image Configuration"). No user is named: an ordinary
/// user's engine may have no other to give than the one that runs it.
fn config(appliance: &Appliance) -> serde_json::Value {
    let manifest = &appliance.manifest;
    json!({
        "architecture": manifest.architecture,
        "os": "linux",
        "created": "1970-01-01T00:00:00Z",
        "config": {
            "Entrypoint": [PROGRAM, "run", APPLIANCE],
            "Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/tmp"],
            "WorkingDir": "/",
            "Labels": {
                "org.opencontainers.image.title": manifest.name,
                "org.opencontainers.image.description": manifest.description,
            },
        },
    })
}
