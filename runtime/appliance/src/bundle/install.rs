//! From blobs to an appliance's folder.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use fs_err as fs;

use super::blobs::{Blobs, Checked, unwrap_io};
use super::chunks::{self, Expected};
use super::error::BundleError;
use super::media;
use super::oci::Descriptor;
use super::package::Package;
use crate::manifest::{MANIFEST_NAME, Manifest, Member};

/// Writes an appliance into an empty folder, which the caller publishes once it is whole. Every
/// digest is checked while its file is written, and no file becomes longer than the manifest says.
///
/// # Errors
/// A blob is missing, damaged or another one, or a file cannot be written. The folder is then of no
/// use.
pub fn install(package: &Package, blobs: &dyn Blobs, folder: &Path) -> Result<(), BundleError> {
    let appliance = package.appliance();
    let mut layers: Vec<_> = package.layers().collect();
    // In the manifest's order, whatever the layers' is.
    let order: Vec<&str> = appliance.members().map(|member| &*member.path).collect();
    layers.sort_by_key(|(_, member)| order.iter().position(|path| *path == member.path));
    for (layer, member) in layers {
        let path = folder.join(member.plain_path()?);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        let mut options = fs::OpenOptions::new();
        let file = options.write(true).create_new(true).open(&path)?;
        let file = file.into_parts().0;
        if programs(appliance).contains(&*member.path) {
            file.set_permissions(std::fs::Permissions::from_mode(0o755))?;
        }
        write(layer, member, blobs, Some(&file)).map_err(|error| named(error, &path))?;
    }
    fs::write(folder.join(MANIFEST_NAME), package.config())?;
    Ok(())
}

/// Reads everything that an appliance has and checks every digest, as [`install`] does, but writes
/// nothing.
///
/// # Errors
/// A blob is missing, damaged or another one.
pub fn verify(package: &Package, blobs: &dyn Blobs) -> Result<(), BundleError> {
    package
        .layers()
        .try_for_each(|(layer, member)| write(layer, member, blobs, None))
}

/// What the host executes: the kernel and what it is linked with.
fn programs(appliance: &Manifest) -> BTreeSet<&str> {
    let kernel = &appliance.kernel;
    let all = std::iter::once(&kernel.vmlinux).chain(&kernel.libraries);
    all.map(|member| &*member.path).collect()
}

fn write(
    layer: &Descriptor,
    member: &Member,
    blobs: &dyn Blobs,
    file: Option<&File>,
) -> Result<(), BundleError> {
    let mut input = Checked::new(blobs.open(layer)?, layer);
    if layer.media_type == media::CHUNKS {
        let expected = Expected {
            path: &member.path,
            size: member.size_bytes,
            sha256: &member.sha256,
        };
        return chunks::unpack(&mut input, file, &expected);
    }
    // Its descriptor's digest is the file's.
    let mut sink = io::sink();
    let mut file = file;
    let output: &mut dyn Write = match &mut file {
        Some(file) => file,
        None => &mut sink,
    };
    io::copy(&mut input, output).map_err(unwrap_io)?;
    Ok(())
}

/// Has an error of the host name the file.
fn named(error: BundleError, path: &Path) -> BundleError {
    match error {
        BundleError::Io(error) => {
            let message = format!("{}: {error}", path.display());
            BundleError::Io(io::Error::new(error.kind(), message))
        }
        other => other,
    }
}
