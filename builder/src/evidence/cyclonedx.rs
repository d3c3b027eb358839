//! The bill of materials as CycloneDX 1.6, in JSON: the packages and the kernel, without files.

use serde_json::{Value, json};

use super::components::{Bill, homepage};
use super::software::Package;

const APPLIANCE: &str = "appliance";
const KERNEL: &str = "kernel";
const ARCHIVE: &str = "archive";

/// The document about an appliance.
pub(super) fn document(bill: &Bill<'_>) -> Value {
    let mut components = vec![kernel(bill)];
    if let Some((name, sha256)) = &bill.archive {
        components.push(json!({
            "type": "file",
            "bom-ref": ARCHIVE,
            "name": name,
            "hashes": hashes(&sha256.to_string()),
        }));
    }
    for (index, one) in bill.software.packages.iter().enumerate() {
        components.push(package(bill, one, index));
    }
    let references = components.iter().map(|one| one["bom-ref"].clone());
    let all: Vec<Value> = references.collect();
    let leaves = all.iter().map(|one| json!({ "ref": one }));
    let own = json!({ "ref": APPLIANCE, "dependsOn": all });
    let dependencies: Vec<Value> = std::iter::once(own).chain(leaves).collect();
    let manifest = bill.manifest;
    json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": format!("urn:uuid:{}", bill.uuid("cyclonedx")),
        "version": 1,
        "metadata": {
            "timestamp": bill.created,
            "tools": { "components": [{
                "type": "application",
                "name": "coop",
                "version": env!("CARGO_PKG_VERSION"),
            }] },
            "component": {
                "type": "operating-system",
                "bom-ref": APPLIANCE,
                "name": manifest.name,
                "version": bill.resolved,
                "description": manifest.description,
            },
        },
        "components": components,
        "dependencies": dependencies,
    })
}

fn hashes(sha256: &str) -> Value {
    json!([{ "alg": "SHA-256", "content": sha256 }])
}

fn property(name: &str, value: &str) -> Value {
    json!({ "name": format!("coop:{name}"), "value": value })
}

fn kernel(bill: &Bill<'_>) -> Value {
    let kernel = &bill.manifest.kernel;
    let mut properties = vec![
        property("kernel:target", kernel.target.name()),
        property("kernel:config:sha256", &kernel.config.sha256),
    ];
    let sources = kernel.sources.iter();
    properties.extend(sources.map(|line| property("kernel:source", line)));
    json!({
        "type": "operating-system",
        "bom-ref": KERNEL,
        "name": "linux",
        "version": kernel.release,
        "hashes": hashes(&kernel.vmlinux.sha256),
        "licenses": [{ "expression": "GPL-2.0-only WITH Linux-syscall-note" }],
        "properties": properties,
    })
}

fn package(bill: &Bill<'_>, package: &Package, index: usize) -> Value {
    let purl = bill.purl(package);
    let (source, version) = &package.source;
    let mut value = json!({
        "type": "library",
        // Two packages of one name would be no valid document.
        "bom-ref": format!("{purl}#{index}"),
        "name": package.name,
        "version": package.version,
        "description": package.description,
        "purl": purl,
        "properties": [
            property("deb:architecture", &package.architecture),
            property("deb:source", &format!("{source} {version}")),
        ],
    });
    let name = package
        .maintainer
        .split('<')
        .next()
        .unwrap_or_default()
        .trim();
    if !name.is_empty() {
        value["supplier"] = json!({ "name": name });
    }
    if let Some(expression) = &package.licence {
        value["licenses"] = json!([{ "expression": expression }]);
    }
    if let Some(sha256) = package.sha256 {
        value["hashes"] = hashes(&sha256.to_string());
    }
    if let Some(url) = homepage(package) {
        value["externalReferences"] = json!([{ "type": "website", "url": url }]);
    }
    value
}
