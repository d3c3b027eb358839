//! `coop pull`: an appliance from a registry.

use std::path::Path;

use coop_appliance::bundle::Blobs;
use coop_appliance::trust::Signer;
use coop_builder::registry::{Access, Offered, Reference, Registry, RegistryError, Version};
use coop_builder::store::Store;
use serde_json::json;

use super::build::{Held, OUTPUT_FOLDER};
use super::means::open_store;
use super::watched::Watched;
use super::{Ended, bundle, pack, registry, trust};
use crate::arguments::{PullOptions, RegistryOptions, RunOptions, TrustOptions};
use crate::environment::Environment;
use crate::failure::Failure;
use crate::render::{Output, data, json as render_json};

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
        store: &store,
        watched: &watched,
        is_run: false,
    };
    let (connected, offered, signer) = wanted.offered()?;
    let blobs = wanted.pull(&connected, &offered)?;
    // Whoever writes hears signals by itself.
    drop(watched);
    if place.extension().is_some_and(|end| end == pack::SUFFIX) {
        pack::write(&offered.package, &offered.signatures, &blobs, &place)?;
    } else {
        bundle::unpack(&offered.package, &blobs, &place)?;
    }
    tell(options, &offered, signer.as_ref(), &place);
    Ok(0)
}

/// What `coop run oci://…` boots. What is named by its digest and in the cache needs no registry.
pub(super) fn for_run(
    reference: &Reference,
    options: &RunOptions,
    environment: &Environment,
) -> Result<Held, Failure> {
    let store = open_store(environment)?;
    if let Some(held) = cached(reference, &options.trust, &store, environment)? {
        return Ok(held);
    }
    let watched = Watched::start_quietly(options.recipe_options.progress)?;
    let wanted = Wanted {
        reference,
        registry: &options.registry,
        trust: &options.trust,
        environment,
        store: &store,
        watched: &watched,
        is_run: true,
    };
    let (connected, offered, _) = wanted.offered()?;
    if let Ok(held) = bundle::held(&offered.package, &store) {
        return Ok(held);
    }
    let blobs = wanted.pull(&connected, &offered)?;
    drop(watched);
    bundle::hold(&offered.package, &blobs, environment)
}

/// What the cache has under a digest, if the registry offered it once and somebody trusted today
/// has signed it.
fn cached(
    reference: &Reference,
    options: &TrustOptions,
    store: &Store,
    environment: &Environment,
) -> Result<Option<Held>, Failure> {
    let failed = |error: RegistryError| Failure::work(&error);
    let remembered = Offered::remembered(reference, store).map_err(failed)?;
    let Some(offered) = remembered else {
        return Ok(None);
    };
    if !trust::is_trusted(reference, &offered, options, environment)? {
        return Ok(None);
    }
    if let Ok(held) = bundle::held(&offered.package, store) {
        return Ok(Some(held));
    }
    match offered.stored(store).map_err(failed)? {
        Some(blobs) => bundle::hold(&offered.package, &blobs, environment).map(Some),
        None => Ok(None),
    }
}

/// An appliance of a registry, and on which terms.
struct Wanted<'a, 's> {
    reference: &'a Reference,
    registry: &'a RegistryOptions,
    trust: &'a TrustOptions,
    environment: &'a Environment,
    store: &'s Store,
    watched: &'a Watched,
    /// Whether it is to be booted at once.
    is_run: bool,
}

impl<'s> Wanted<'_, 's> {
    /// Asks for everything but the layers, which are for what is trusted.
    fn offered(&self) -> Result<(Registry, Offered, Option<Signer>), Failure> {
        let (reference, environment) = (self.reference, self.environment);
        let (connected, offered) = registry::offered(
            reference,
            Access::Pull,
            self.registry,
            self.store,
            environment,
        )
        .map_err(|error| self.failed(&error))?;
        let signer = trust::check_offered(reference, &offered, self.trust, environment)?;
        Ok((connected, offered, signer))
    }

    fn pull(
        &self,
        connected: &Registry,
        offered: &Offered,
    ) -> Result<impl Blobs + use<'s>, Failure> {
        connected
            .pull(&offered.package, self.store, &*self.watched.observer)
            .map_err(|error| self.failed(&error))
    }

    fn failed(&self, error: &RegistryError) -> Failure {
        let stopped = "the pull was stopped by a signal; the next one goes on";
        if let Some(stopped) = self.watched.stopped(stopped) {
            return stopped;
        }
        let failure = registry::explain(error, self.reference, self.environment);
        match (error, &self.reference.version) {
            (RegistryError::Network { .. }, Version::Tag(_)) if self.is_run => failure.with_hint(
                "what a tag names is always asked for; oci://HOST/NAME@sha256:DIGEST runs without \
                 the registry where the cache has it",
            ),
            _ => failure,
        }
    }
}

fn tell(options: &PullOptions, offered: &Offered, signer: Option<&Signer>, place: &Path) {
    if !options.json {
        data(&format!("{}\n", place.display()));
        return;
    }
    render_json::value(&json!({
        "reference": options.reference.to_string(),
        "digest": offered.package.digest().to_string(),
        "output": render_json::path(place),
        "signer": signer.map(|signer| json!({ "name": signer.name, "key": signer.key })),
    }));
}
