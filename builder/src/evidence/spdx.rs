//! The bill of materials as SPDX 2.3, in JSON. It has every regular file of the root file system
//! with the package that it belongs to; what no package has belongs to the appliance.

use std::fmt::Write as _;

use coop_image::tree::display;
use serde::Serialize;
use serde_json::{Value, json};
use sha1::{Digest as _, Sha1};

use super::components::{Bill, homepage};
use super::software::{File, Package};

/// The appliance among the packages.
const APPLIANCE: &str = "SPDXRef-Appliance";
const KERNEL: &str = "SPDXRef-Kernel";
const ARCHIVE: &str = "SPDXRef-Archive";
const DOCUMENT: &str = "SPDXRef-DOCUMENT";
const NOBODY_SAYS: &str = "NOASSERTION";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Document {
    spdx_version: &'static str,
    data_license: &'static str,
    #[serde(rename = "SPDXID")]
    id: &'static str,
    name: String,
    document_namespace: String,
    creation_info: Value,
    packages: Vec<Value>,
    files: Vec<SpdxFile>,
    relationships: Vec<Relationship>,
    has_extracted_licensing_infos: Vec<Value>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SpdxFile {
    #[serde(rename = "SPDXID")]
    id: String,
    file_name: String,
    checksums: [Checksum; 2],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Checksum {
    algorithm: &'static str,
    checksum_value: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Relationship {
    spdx_element_id: String,
    relationship_type: &'static str,
    related_spdx_element: String,
}

/// The document about an appliance.
pub(super) fn document(bill: &Bill<'_>) -> Document {
    let software = bill.software;
    let uuid = bill.uuid("spdx");
    let owned = owned(bill);
    let mut packages = vec![
        appliance(bill, &owned[software.packages.len()]),
        kernel(bill),
    ];
    let mut relationships = vec![
        relation(DOCUMENT, "DESCRIBES", APPLIANCE),
        relation(APPLIANCE, "CONTAINS", KERNEL),
    ];
    for (index, (name, sha256)) in bill.kernel_sources.iter().enumerate() {
        let id = format!("SPDXRef-KernelSource-{index}");
        packages.push(json!({
            "SPDXID": id,
            "name": name,
            "downloadLocation": NOBODY_SAYS,
            "filesAnalyzed": false,
            "checksums": [{ "algorithm": "SHA256", "checksumValue": sha256 }],
        }));
        relationships.push(relation(KERNEL, "GENERATED_FROM", &id));
    }
    if let Some((name, sha256)) = &bill.archive {
        packages.push(json!({
            "SPDXID": ARCHIVE,
            "name": name,
            "downloadLocation": NOBODY_SAYS,
            "filesAnalyzed": false,
            "checksums": [{ "algorithm": "SHA256", "checksumValue": sha256 }],
        }));
        relationships.push(relation(APPLIANCE, "GENERATED_FROM", ARCHIVE));
    }
    for (index, one) in software.packages.iter().enumerate() {
        packages.push(package(bill, one, index, &owned[index]));
        relationships.push(relation(APPLIANCE, "CONTAINS", &package_id(one, index)));
    }
    for (index, file) in software.files.iter().enumerate() {
        let owner = file
            .owner
            .and_then(|at| Some((software.packages.get(at)?, at)));
        let owner = owner.map_or(APPLIANCE.to_owned(), |(one, at)| package_id(one, at));
        relationships.push(Relationship {
            spdx_element_id: owner,
            relationship_type: "CONTAINS",
            related_spdx_element: file_id(index),
        });
    }
    let licences = software.licences.iter().map(|(reference, own)| {
        json!({ "licenseId": reference, "name": own.name, "extractedText": own.text })
    });
    Document {
        spdx_version: "SPDX-2.3",
        data_license: "CC0-1.0",
        id: DOCUMENT,
        name: bill.manifest.name.clone(),
        document_namespace: format!("urn:uuid:{uuid}"),
        creation_info: json!({
            "created": bill.created,
            "creators": [format!("Tool: coop-{}", env!("CARGO_PKG_VERSION"))],
        }),
        packages,
        files: software.files.iter().enumerate().map(file).collect(),
        relationships,
        has_extracted_licensing_infos: licences.collect(),
    }
}

fn relation(from: &str, kind: &'static str, to: &str) -> Relationship {
    Relationship {
        spdx_element_id: from.to_owned(),
        relationship_type: kind,
        related_spdx_element: to.to_owned(),
    }
}

/// The SHA-1 digests of each package's files, and last of those that are nobody's.
fn owned(bill: &Bill<'_>) -> Vec<Vec<String>> {
    let nobodys = bill.software.packages.len();
    let mut owned = vec![Vec::new(); nobodys.saturating_add(1)];
    for file in &bill.software.files {
        let at = file.owner.unwrap_or(nobodys).min(nobodys);
        owned[at].push(hexadecimal(&file.sha1));
    }
    owned
}

/// SPDX 2.3, 7.9: over the files' digests in their order.
fn verification_code(digests: &[String]) -> Value {
    let mut sorted: Vec<&String> = digests.iter().collect();
    sorted.sort();
    let mut hasher = Sha1::new();
    for digest in sorted {
        hasher.update(digest);
    }
    json!({ "packageVerificationCodeValue": hexadecimal(&hasher.finalize()) })
}

/// What only a package with files may have.
fn with_files(mut package: Value, digests: &[String]) -> Value {
    if digests.is_empty() {
        package["filesAnalyzed"] = false.into();
    } else {
        package["filesAnalyzed"] = true.into();
        package["packageVerificationCode"] = verification_code(digests);
    }
    package
}

fn appliance(bill: &Bill<'_>, digests: &[String]) -> Value {
    let manifest = bill.manifest;
    let package = json!({
        "SPDXID": APPLIANCE,
        "name": manifest.name,
        "versionInfo": bill.resolved,
        "downloadLocation": NOBODY_SAYS,
        "licenseConcluded": NOBODY_SAYS,
        "licenseDeclared": NOBODY_SAYS,
        "copyrightText": NOBODY_SAYS,
        "primaryPackagePurpose": "OPERATING-SYSTEM",
        "summary": manifest.description,
    });
    with_files(package, digests)
}

fn kernel(bill: &Bill<'_>) -> Value {
    let kernel = &bill.manifest.kernel;
    json!({
        "SPDXID": KERNEL,
        "name": "linux",
        "versionInfo": kernel.release,
        "downloadLocation": NOBODY_SAYS,
        "filesAnalyzed": false,
        "licenseConcluded": NOBODY_SAYS,
        "licenseDeclared": "GPL-2.0-only WITH Linux-syscall-note",
        "copyrightText": NOBODY_SAYS,
        "primaryPackagePurpose": "OPERATING-SYSTEM",
        "checksums": [{ "algorithm": "SHA256", "checksumValue": kernel.vmlinux.sha256 }],
        "comment": format!(
            "for {} machines; its configuration has sha256 {}",
            kernel.target, kernel.config.sha256
        ),
    })
}

fn package(bill: &Bill<'_>, package: &Package, index: usize, digests: &[String]) -> Value {
    let (source, version) = &package.source;
    let licence = package.licence.as_deref().unwrap_or(NOBODY_SAYS);
    let mut value = json!({
        "SPDXID": package_id(package, index),
        "name": package.name,
        "versionInfo": package.version,
        "supplier": supplier(&package.maintainer),
        "downloadLocation": NOBODY_SAYS,
        "sourceInfo": format!("built from source package {source} {version}"),
        "licenseConcluded": NOBODY_SAYS,
        "licenseDeclared": licence,
        "copyrightText": NOBODY_SAYS,
        "summary": package.description,
        "externalRefs": [{
            "referenceCategory": "PACKAGE-MANAGER",
            "referenceType": "purl",
            "referenceLocator": bill.purl(package),
        }],
    });
    if let Some(url) = homepage(package) {
        value["homepage"] = url.into();
    }
    if let Some(sha256) = package.sha256 {
        value["checksums"] = json!([{ "algorithm": "SHA256", "checksumValue": sha256 }]);
    }
    with_files(value, digests)
}

/// `Name <address>` as SPDX has it; nobody says whether it is a person.
fn supplier(maintainer: &str) -> String {
    let (name, address) = match maintainer.split_once('<') {
        Some((name, rest)) => (name, rest.split('>').next().unwrap_or_default()),
        None => (maintainer, ""),
    };
    let plain = |text: &str| text.replace(['(', ')', '"'], " ").trim().to_owned();
    match (plain(name), plain(address)) {
        (name, _) if name.is_empty() => NOBODY_SAYS.to_owned(),
        (name, address) if address.is_empty() => format!("Organization: {name}"),
        (name, address) => format!("Organization: {name} ({address})"),
    }
}

fn package_id(package: &Package, index: usize) -> String {
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '-';
    let name = package
        .name
        .chars()
        .map(|c| if allowed(c) { c } else { '-' });
    format!("SPDXRef-Package-{index}-{}", name.collect::<String>())
}

fn file_id(index: usize) -> String {
    format!("SPDXRef-File-{index}")
}

fn file((index, file): (usize, &File)) -> SpdxFile {
    SpdxFile {
        id: file_id(index),
        file_name: format!(".{}", display(&file.path)),
        checksums: [
            Checksum {
                algorithm: "SHA1",
                checksum_value: hexadecimal(&file.sha1),
            },
            Checksum {
                algorithm: "SHA256",
                checksum_value: hexadecimal(&file.sha256),
            },
        ],
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().saturating_mul(2));
    for byte in bytes {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maintainers_become_suppliers() {
        for (maintainer, expected) in [
            ("GNU Libc <a@b>", "Organization: GNU Libc (a@b)"),
            ("\"X (Y)\" <a@b>", "Organization: X  Y (a@b)"),
            ("X", "Organization: X"),
            ("", "NOASSERTION"),
            ("<a@b>", "NOASSERTION"),
        ] {
            assert_eq!(supplier(maintainer), expected);
        }
    }
}
