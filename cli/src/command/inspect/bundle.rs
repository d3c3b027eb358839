//! What a bundle says about itself.

use std::path::Path;

use coop_appliance::bundle::{AttachedSignature, Package, SignatureForm, verify};
use coop_appliance::trust::MinisignSignature;
use coop_builder::registry::{Access, Reference};
use serde_json::json;

use super::super::means::open_store;
use super::super::{Ended, bundle, registry};
use super::{Table, describe};
use crate::arguments::InspectOptions;
use crate::environment::Environment;
use crate::failure::Failure;
use crate::render::{bytes, data, json as render_json};

/// Prints the appliance, and what of it is in the bundle. Whose signatures count is for
/// `coop verify` to say.
pub(super) fn run(path: &Path, verified: bool, json: bool) -> Ended {
    let layout = bundle::open(path)?;
    let package = layout.package();
    if verified {
        verify(package, &layout).map_err(|error| bundle::explain(&error).about(path))?;
    }
    show(package, layout.signatures(), verified, json);
    Ok(0)
}

/// The same of what a registry has, by its manifest and config alone.
pub(super) fn in_registry(
    reference: &Reference,
    options: &InspectOptions,
    environment: &Environment,
) -> Ended {
    if options.verify {
        let failure = Failure::usage("--verify reads every file, and those are in the registry");
        return Err(failure.with_hint("coop verify --download gets and compares them"));
    }
    let store = open_store(environment)?;
    let access = Access::Pull;
    let (_, offered) = registry::offered(reference, access, &options.registry, &store, environment)
        .map_err(|error| registry::explain(&error, reference, environment))?;
    show(&offered.package, &offered.signatures, false, options.json);
    Ok(0)
}

fn show(package: &Package, signatures: &[AttachedSignature], verified: bool, json: bool) {
    if json {
        let signatures: Vec<_> = signatures.iter().map(maker).collect();
        render_json::value(&json!({
            "digest": package.digest().to_string(),
            "oci_manifest": package.manifest(),
            "manifest": package.appliance(),
            "signatures": signatures,
        }));
        return;
    }
    let mut table = Table::default();
    table.row("bundle", &package.digest().to_string());
    let layers = &package.manifest().layers;
    let size = layers.iter().map(|layer| layer.size).sum();
    let text = format!("{} in {}", layers.len(), bytes(size));
    table.row("layers", &text);
    for signature in signatures {
        table.row("signature of", &maker(signature));
    }
    if signatures.is_empty() {
        table.row("signature of", "nobody");
    }
    table.0.extend(describe(package.appliance(), verified).0);
    data(&table.text());
}

/// Who says to have made a signature.
fn maker(signature: &AttachedSignature) -> String {
    match signature.form {
        SignatureForm::Ed25519 => "an Ed25519 key".to_owned(),
        SignatureForm::Minisign => {
            let text = String::from_utf8_lossy(&signature.bytes);
            let parsed = MinisignSignature::parse(&text);
            parsed.map_or_else(|error| error.to_string(), |parsed| parsed.key())
        }
    }
}
