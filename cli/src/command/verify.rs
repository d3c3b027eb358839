//! `coop verify`: is the appliance what it says, and what does building it again give?

use std::path::Path;

use coop_appliance::Appliance;
use coop_appliance::trust::Signer;
use coop_builder::build::{self, BuildError, BuildRequest};
use coop_builder::evidence::{self, Difference, Rebuild, RebuildError};
use coop_builder::kernel::ObtainError;
use coop_builder::kernel::make::MakeError;
use coop_builder::lock::Pins;
use coop_builder::registry::{Access, Reference};
use serde_json::{Value, json};

use super::build::explain;
use super::means::{Means, open_store};
use super::subject::{self, Kind};
use super::watched::Watched;
use super::{Ended, bundle, inspect, registry, trust};
use crate::arguments::{RecipeOptions, VerifyOptions};
use crate::environment::Environment;
use crate::failure::{FAILED, Failure};
use crate::host;
use crate::render::{Output, bytes, data, json as render_json, plain};

/// Compares digests, and with --rebuild builds again.
pub(crate) fn run(options: &VerifyOptions, environment: &Environment, output: &Output) -> Ended {
    if let Some(reference) = registry::asked(&options.appliance, &options.registry)? {
        return in_registry(&reference, options, environment, output);
    }
    if options.download {
        let failure = Failure::usage("--download gets what a registry has");
        return Err(failure.with_hint("what is here is compared anyway"));
    }
    let kind = subject::expect(&options.appliance, &[Kind::Appliance, Kind::Bundle])?;
    if kind != Kind::Appliance {
        return of_bundle(options, environment);
    }
    if options.trust.is_given() {
        let failure = Failure::usage("only bundles and registries have signatures");
        return Err(failure.with_hint("coop pack makes a bundle, coop sign signs it"));
    }
    let appliance = Appliance::open(&options.appliance).map_err(|error| Failure::work(&error))?;
    appliance
        .verify()
        .map_err(|error| inspect::explain(&appliance, &error))?;
    let others = evidence::unlisted(&appliance).map_err(|error| Failure::work(&error))?;
    if let Some(first) = others.first() {
        let message = format!(
            "{} has {} that its manifest does not name, the first is '{first}'",
            options.appliance.display(),
            files(others.len())
        );
        return Err(Failure::sentence(FAILED, message));
    }
    let count = appliance.manifest.members().count();
    if !options.rebuild {
        report(options, None);
        if !options.json {
            data(&format!(
                "{} with their digests, and no others\n",
                files(count)
            ));
        }
        return Ok(0);
    }
    let difference = rebuild(&appliance, options, environment, output)?;
    report(options, Some(&difference));
    if options.json {
        return Ok(code(&difference));
    }
    match &difference {
        None => data(&format!("identical: {}\n", files(count))),
        Some(difference) => data(&format!("{}\n", plain(&difference.to_string()))),
    }
    Ok(code(&difference))
}

/// Asks who signed a bundle, and compares every digest of it.
fn of_bundle(options: &VerifyOptions, environment: &Environment) -> Ended {
    refuse_rebuild(options, "coop unpack makes one of the bundle")?;
    let layout = bundle::open(&options.appliance)?;
    let package = layout.package();
    let origin = options.appliance.display().to_string();
    let signatures = layout.signatures();
    let from = (&*origin, None);
    let signer = trust::check(package, signatures, from, &options.trust, environment)?;
    coop_appliance::bundle::verify(package, &layout)
        .map_err(|error| bundle::explain(&error).about(&options.appliance))?;
    let digest = package.digest().to_string();
    if options.json {
        render_json::value(&json!({
            "bundle": render_json::path(&options.appliance),
            "digest": digest,
            "verified": true,
            "signer": signer.as_ref().map(described),
        }));
        return Ok(0);
    }
    let count = files(package.appliance().members().count());
    let signed = signed(signer.as_ref());
    data(&format!("{digest}\n{count} with their digests, {signed}\n"));
    Ok(0)
}

/// Asks who signed what a registry has. Its files are compared only where that is asked for: they
/// have to come first.
fn in_registry(
    reference: &Reference,
    options: &VerifyOptions,
    environment: &Environment,
    output: &Output,
) -> Ended {
    refuse_rebuild(options, "coop pull makes one of what a registry has")?;
    let store = open_store(environment)?;
    let explain = |error| registry::explain(&error, reference, environment);
    let access = Access::Pull;
    let (connected, offered) =
        registry::offered(reference, access, &options.registry, &store, environment)
            .map_err(explain)?;
    let signer = trust::check_offered(reference, &offered, &options.trust, environment)?;
    let package = &offered.package;
    if options.download {
        let watched = Watched::start(options.progress, output)?;
        let blobs = connected
            .pull(package, &store, &*watched.observer)
            .map_err(|error| {
                let stopped = watched.stopped("the download was stopped; the next one goes on");
                stopped.unwrap_or_else(|| explain(error))
            })?;
        drop(watched);
        coop_appliance::bundle::verify(package, &blobs).map_err(|error| bundle::explain(&error))?;
    }
    let (digest, checked) = (package.digest().to_string(), options.download);
    if options.json {
        let (mut known, mut unknown) = (vec!["manifest", "config"], Vec::new());
        if signer.is_some() {
            known.push("signature");
        }
        let rest = if checked { &mut known } else { &mut unknown };
        rest.push("files");
        render_json::value(&json!({
            "reference": reference.to_string(),
            "pinned": registry::pinned(reference, &offered).to_string(),
            "digest": digest,
            "verified": checked,
            "checked": known,
            "unchecked": unknown,
            "signer": signer.as_ref().map(described),
        }));
        return Ok(0);
    }
    let (signed, members) = (signed(signer.as_ref()), package.appliance().members());
    let count = files(members.count());
    let text = if checked {
        format!("{digest}\n{count} with their digests, {signed}\n")
    } else {
        let layers = package.layers().map(|(layer, _)| layer.size).sum();
        format!(
            "{digest}\nmanifest and config agree, {signed}\n\
             not checked: the content of {count} ({}), which --download gets\n",
            bytes(layers)
        )
    };
    data(&text);
    Ok(0)
}

fn refuse_rebuild(options: &VerifyOptions, hint: &str) -> Result<(), Failure> {
    if options.rebuild {
        let failure = Failure::usage("--rebuild compares with an appliance's folder");
        return Err(failure.with_hint(hint));
    }
    Ok(())
}

fn described(signer: &Signer) -> Value {
    json!({ "name": signer.name, "key": signer.key })
}

fn signed(signer: Option<&Signer>) -> String {
    match signer {
        Some(signer) => plain(&format!("signed by '{}' ({})", signer.name, signer.key)),
        None => "not signed by anybody trusted".to_owned(),
    }
}

fn files(count: usize) -> String {
    match count {
        1 => "1 file".to_owned(),
        _ => format!("{count} files"),
    }
}

fn code(difference: &Option<Difference>) -> u8 {
    if difference.is_some() { FAILED } else { 0 }
}

fn report(options: &VerifyOptions, rebuilt: Option<&Option<Difference>>) {
    if !options.json {
        return;
    }
    let mut value = json!({ "appliance": render_json::path(&options.appliance), "verified": true });
    if let Some(difference) = rebuilt {
        value["identical"] = difference.is_none().into();
        value["difference"] = json!(difference);
    }
    render_json::value(&value);
}

/// Builds what the evidence tells of, and compares.
fn rebuild(
    appliance: &Appliance,
    options: &VerifyOptions,
    environment: &Environment,
    output: &Output,
) -> Result<Option<Difference>, Failure> {
    let context = options.context.as_deref().unwrap_or(Path::new("."));
    let rebuild = evidence::prepare(appliance, context, &host::host(environment).scratch)
        .map_err(|error| explain_evidence(&error))?;
    let recipe_options = RecipeOptions::rebuilding(options, rebuild.parameters.allow_dropped);
    let pins = Pins::locked(rebuild.lock.clone());
    let mut means = Means::prepare(&recipe_options, pins, environment, output)?;
    means.use_archives(
        rebuild.parameters.mirror.as_deref(),
        rebuild.parameters.security.as_deref(),
        rebuild.parameters.snapshots.as_deref(),
    );
    let built = again(&rebuild, &means, options).map_err(|error| {
        let stopped = means.stopped("nothing was compared");
        stopped.unwrap_or_else(|| explain_build(&error, options))
    })?;
    evidence::first_difference(appliance, &built).map_err(|error| Failure::work(&error))
}

fn again(
    rebuild: &Rebuild,
    means: &Means,
    options: &VerifyOptions,
) -> Result<Appliance, BuildError> {
    let folder = rebuild.output();
    let mut request = BuildRequest {
        anew: true,
        kernel: rebuild.kernel,
        means: means.steps.clone(),
        ..means.request(&rebuild.recipe, &folder, &folder)
    };
    if !options.build_kernel {
        // Without programs a kernel can only come from the cache.
        request.programs = &[];
    }
    Ok(build::build(&request)?.appliance)
}

fn explain_evidence(error: &RebuildError) -> Failure {
    let failure = Failure::work(error);
    match error {
        RebuildError::Files { .. } => {
            failure.with_hint("--context names another folder to search in")
        }
        RebuildError::Missing(_) => {
            failure.with_hint("coop build writes an appliance's evidence with it")
        }
        _ => failure,
    }
}

fn explain_build(error: &BuildError, options: &VerifyOptions) -> Failure {
    let no_kernel = matches!(
        error,
        BuildError::Obtain(ObtainError::Make(
            MakeError::Missing(_) | MakeError::NoCompiler(_) | MakeError::Gone(_)
        ))
    );
    if no_kernel && !options.build_kernel {
        let message = "the appliance's kernel was made from source, and the cache does not have it";
        let hint = "--build-kernel makes it on this host, as the recipe says: that is for recipes \
                    that you trust";
        return Failure::sentence(FAILED, message).with_hint(hint);
    }
    explain(error)
}
