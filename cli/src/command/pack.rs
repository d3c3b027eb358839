//! `coop pack` and `coop unpack`: from an appliance's folder to one file, and back.

use std::path::{Path, PathBuf};

use coop_appliance::Appliance;
use coop_appliance::bundle::{AttachedSignature, Blobs, Layout, Package, write_bundle};
use coop_builder::staged_file::StagedFile;
use serde_json::json;

use super::build::OUTPUT_FOLDER;
use super::subject::{self, Kind};
use super::{Ended, bundle};
use crate::arguments::{PackOptions, UnpackOptions};
use crate::environment::Environment;
use crate::failure::Failure;
use crate::render::{data, json as render_json};

/// The end of a bundle's name.
pub(super) const SUFFIX: &str = "coop";

/// Packs, and prints the bundle's name.
pub(crate) fn pack(options: &PackOptions) -> Ended {
    subject::expect(&options.appliance, &[Kind::Appliance])?;
    let appliance = Appliance::open(&options.appliance).map_err(|error| Failure::work(&error))?;
    let named = || PathBuf::from(format!("{}.{SUFFIX}", appliance.manifest.name));
    let output = options.output.clone().unwrap_or_else(named);
    // It has no name and lies where there must be room for it anyway.
    let folder = output.parent().filter(|folder| *folder != Path::new(""));
    let scratch = tempfile::tempfile_in(folder.unwrap_or(Path::new(".")));
    let scratch = scratch.map_err(|error| Failure::work(&error).about(&output))?;
    let layout =
        Layout::of_appliance(&appliance, scratch).map_err(|error| bundle::explain(&error))?;
    let size = write(layout.package(), &[], &layout, &output)?;
    let (shown, digest) = (output.display(), layout.package().digest());
    if options.json {
        render_json::value(&json!({
            "bundle": render_json::path(&output),
            "digest": digest.to_string(),
            "size_bytes": size,
        }));
    } else {
        data(&format!("{shown} {digest}\n"));
    }
    Ok(0)
}

/// Writes a bundle, whole or not at all; gives its size.
pub(super) fn write(
    package: &Package,
    signatures: &[AttachedSignature],
    blobs: &dyn Blobs,
    output: &Path,
) -> Result<u64, Failure> {
    let failed = |error: std::io::Error| Failure::work(&error).about(output);
    let staged = StagedFile::new(output).map_err(failed)?;
    write_bundle(package, signatures, blobs, &**staged.file())
        .map_err(|error| bundle::explain(&error).about(output))?;
    let size = staged.file().metadata().map_err(failed)?.len();
    staged.publish(true).map_err(failed)?;
    Ok(size)
}

/// Unpacks what is trusted, and prints the appliance's folder.
pub(crate) fn unpack(options: &UnpackOptions, environment: &Environment) -> Ended {
    subject::expect(&options.bundle, &[Kind::Bundle])?;
    let layout = bundle::open_trusted(&options.bundle, &options.trust, environment)?;
    let package = layout.package();
    let named = || Path::new(OUTPUT_FOLDER).join(&package.appliance().name);
    let output = options.output.clone().unwrap_or_else(named);
    bundle::unpack(package, &layout, &output)?;
    if options.json {
        render_json::value(&json!({
            "appliance": render_json::path(&output),
            "digest": package.digest().to_string(),
            "manifest": package.appliance(),
        }));
    } else {
        data(&format!("{}\n", output.display()));
    }
    Ok(0)
}
