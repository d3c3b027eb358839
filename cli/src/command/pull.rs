//! `coop pull`: an appliance from a registry.

use std::path::Path;

use coop_appliance::bundle::{AttachedSignature, Blobs, Package, write_bundle};
use coop_appliance::trust::Signer;
use coop_builder::registry::{Access, Reference, RegistryError};
use coop_builder::staged_file::StagedFile;
use coop_builder::store::Store;
use serde_json::json;

use super::build::Held;
use super::means::open_store;
use super::watched::Watched;
use super::{Ended, bundle, registry, trust};
use crate::arguments::{PullOptions, RegistryOptions, RunOptions, TrustOptions};
use crate::environment::Environment;
use crate::failure::Failure;
use crate::render::{Output, data, json as render_json};

/// Where appliances go that nobody gave a place.
const OUTPUT_FOLDER: &str = "out";
/// What a bundle's name ends with.
const BUNDLE_EXTENSION: &str = "coop";

/// Gets it into the cache, and from there to its place.
pub(crate) fn run(options: &PullOptions, environment: &Environment, output: &Output) -> Ended {
    let store = open_store(environment)?;
    let reference = &options.reference;
    let place = options.output.clone();
    let place = place.unwrap_or_else(|| Path::new(OUTPUT_FOLDER).join(reference.short_name()));
    let watched = Watched::start(options.progress, output)?;
    let wanted = Wanted {
        reference,
        registry: &options.registry,
        trust: &options.trust,
        environment,
    };
    let (offered, blobs) = wanted.pull(&store, &watched)?;
    // Whoever writes hears signals by itself.
    drop(watched);
    if place.extension().is_some_and(|end| end == BUNDLE_EXTENSION) {
        write(&offered, &blobs, &place)?;
    } else {
        bundle::unpack(&offered.package, &blobs, &place)?;
    }
    tell(options, &offered, &place);
    Ok(0)
}

/// What `coop run oci://…` boots.
pub(super) fn for_run(
    reference: &Reference,
    options: &RunOptions,
    environment: &Environment,
) -> Result<Held, Failure> {
    let store = open_store(environment)?;
    let watched = Watched::start_quietly(options.recipe_options.progress)?;
    let wanted = Wanted {
        reference,
        registry: &options.registry,
        trust: &options.trust,
        environment,
    };
    let (offered, blobs) = wanted.pull(&store, &watched)?;
    drop(watched);
    bundle::hold(&offered.package, &blobs, environment)
}

/// An appliance of a registry, and on which terms.
struct Wanted<'a> {
    reference: &'a Reference,
    registry: &'a RegistryOptions,
    trust: &'a TrustOptions,
    environment: &'a Environment,
}

/// An appliance that a registry has and somebody trusted has signed.
struct Offered {
    package: Package,
    signatures: Vec<AttachedSignature>,
    /// Nobody where the signature was waived.
    signer: Option<Signer>,
}

impl Wanted<'_> {
    /// Asks for manifest, signatures and config, and for the layers only once that is trusted.
    fn pull<'s>(
        &self,
        store: &'s Store,
        watched: &Watched,
    ) -> Result<(Offered, impl Blobs + use<'s>), Failure> {
        let failed = |error: RegistryError| {
            let stopped = watched.stopped("the pull was stopped by a signal; the next one goes on");
            stopped.unwrap_or_else(|| registry::explain(&error, self.reference, self.environment))
        };
        let connect = registry::connect;
        let connected = connect(
            self.reference,
            Access::Pull,
            self.registry,
            self.environment,
        )
        .map_err(failed)?;
        let found = connected.appliance().map_err(failed)?;
        let digest = found.descriptor.digest;
        let signatures = connected.signatures(digest, store).map_err(failed)?;
        let package = connected.package(found, store).map_err(failed)?;
        let origin = self.reference.to_string();
        let name = format!("{}/{}", self.reference.authority, self.reference.repository);
        let from = (&*origin, Some(&*name));
        let signer = trust::check(&package, &signatures, from, self.trust, self.environment)?;
        let blobs = connected
            .pull(&package, store, &*watched.observer)
            .map_err(failed)?;
        let offered = Offered {
            package,
            signatures,
            signer,
        };
        Ok((offered, blobs))
    }
}

/// Writes a bundle, which appears whole.
fn write(offered: &Offered, blobs: &dyn Blobs, place: &Path) -> Result<(), Failure> {
    let failed = |error: &dyn std::error::Error| Failure::work(error);
    let staged = StagedFile::new(place).map_err(|error| failed(&error))?;
    let file = staged.file().as_ref();
    write_bundle(&offered.package, &offered.signatures, blobs, file)
        .map_err(|error| failed(&error).about(place))?;
    staged.publish(true).map_err(|error| failed(&error))
}

fn tell(options: &PullOptions, offered: &Offered, place: &Path) {
    if !options.json {
        data(&format!("{}\n", place.display()));
        return;
    }
    let signer = offered.signer.as_ref();
    render_json::value(&json!({
        "reference": options.reference.to_string(),
        "digest": offered.package.digest().to_string(),
        "output": place,
        "signer": signer.map(|signer| json!({ "name": signer.name, "key": signer.key })),
    }));
}
