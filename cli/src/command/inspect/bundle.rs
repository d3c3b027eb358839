//! What a bundle says about itself.

use std::path::Path;

use coop_appliance::bundle::{AttachedSignature, SignatureForm, verify};
use coop_appliance::trust::MinisignSignature;
use serde_json::json;

use super::super::{Ended, bundle};
use super::{Table, describe};
use crate::render::{bytes, data, json as render_json};

/// Prints the appliance, and what of it is in the bundle. Whose signatures count is for
/// `coop verify` to say.
pub(super) fn run(path: &Path, verified: bool, json: bool) -> Ended {
    let layout = bundle::open(path)?;
    let package = layout.package();
    if verified {
        verify(package, &layout).map_err(|error| bundle::explain(&error).about(path))?;
    }
    if json {
        let signatures: Vec<_> = layout.signatures().iter().map(maker).collect();
        render_json::value(&json!({
            "digest": package.digest().to_string(),
            "oci_manifest": package.manifest(),
            "manifest": package.appliance(),
            "signatures": signatures,
        }));
        return Ok(0);
    }
    let mut table = Table::default();
    table.row("bundle", &package.digest().to_string());
    let layers = &package.manifest().layers;
    let size = layers.iter().map(|layer| layer.size).sum();
    let text = format!("{} in {}", layers.len(), bytes(size));
    table.row("layers", &text);
    for signature in layout.signatures() {
        table.row("signature of", &maker(signature));
    }
    if layout.signatures().is_empty() {
        table.row("signature of", "nobody");
    }
    table.0.push_str(&describe(package.appliance(), verified));
    data(&table.0);
    Ok(0)
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
