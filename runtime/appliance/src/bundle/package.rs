//! An appliance as OCI has it: manifest, config and one layer for each file.

use std::collections::BTreeMap;
use std::path::Path;

use super::blobs::{Blobs, read_small};
use super::chunks;
use super::digest::BlobDigest;
use super::error::{BundleError, bound};
use super::media;
use super::oci::{Descriptor, OciManifest};
use crate::manifest::{MANIFEST_NAME, MANIFEST_SIZE_MAX, Manifest, Member};

/// How many files an appliance may have.
pub const LAYERS_MAX: usize = 1024;
/// How long an appliance's name may be, in bytes.
const NAME_BYTES_MAX: usize = 128;
/// How long a file may be, in bytes, holes included.
pub const FILE_BYTES_MAX: u64 = 16 << 40;

/// An appliance's manifest with its config: everything but the layers' content.
#[derive(Clone, Debug)]
pub struct Package {
    bytes: Vec<u8>,
    manifest: OciManifest,
    config: Vec<u8>,
    appliance: Manifest,
}

impl Package {
    /// Reads a manifest's bytes, gets its config and checks that both tell of the same files. That
    /// the bytes are those of a trusted digest is the caller's to check.
    ///
    /// # Errors
    /// It is no appliance's manifest, the config is missing or another blob, or they do not agree.
    pub fn open(bytes: Vec<u8>, blobs: &dyn Blobs) -> Result<Self, BundleError> {
        let manifest = OciManifest::parse(&bytes)?;
        expect(
            "its artifact type",
            manifest.artifact_type.as_deref().unwrap_or_default(),
            media::APPLIANCE,
        )?;
        expect(
            "its config's media type",
            &manifest.config.media_type,
            media::CONFIG,
        )?;
        let layers = crate::digest::as_u64(manifest.layers.len());
        let most = crate::digest::as_u64(LAYERS_MAX);
        bound("the number of layers", layers, most)?;
        let config = read_small(blobs, &manifest.config, "config", MANIFEST_SIZE_MAX)?;
        let appliance = Manifest::parse(&config, Path::new(MANIFEST_NAME))?;
        let package = Self {
            bytes,
            manifest,
            config,
            appliance,
        };
        package.agree()?;
        Ok(package)
    }

    /// Puts a package together.
    ///
    /// # Errors
    /// The layers are not the appliance's files.
    pub fn new(config: Vec<u8>, layers: Vec<Descriptor>) -> Result<Self, BundleError> {
        let appliance = Manifest::parse(&config, Path::new(MANIFEST_NAME))?;
        let described = Descriptor::of(media::CONFIG, &config);
        let mut manifest = OciManifest::new(media::APPLIANCE, described, layers);
        let notes = &mut manifest.annotations;
        notes.insert(media::TITLE.to_owned(), appliance.name.clone());
        if !appliance.description.is_empty() {
            let description = appliance.description.clone();
            notes.insert(media::DESCRIPTION.to_owned(), description);
        }
        let package = Self {
            bytes: manifest.to_bytes(),
            manifest,
            config,
            appliance,
        };
        package.agree()?;
        Ok(package)
    }

    /// The manifest's bytes: what its digest is of.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The digest of the manifest: the appliance's name to registries, caches and signatures.
    #[must_use]
    pub fn digest(&self) -> BlobDigest {
        BlobDigest::of(&self.bytes)
    }

    /// The manifest's descriptor, with the appliance's name where it can be a reference.
    #[must_use]
    pub fn descriptor(&self) -> Descriptor {
        let mut descriptor = Descriptor::of(media::OCI_MANIFEST, &self.bytes);
        descriptor.artifact_type = Some(media::APPLIANCE.to_owned());
        descriptor
    }

    /// The OCI manifest.
    #[must_use]
    pub fn manifest(&self) -> &OciManifest {
        &self.manifest
    }

    /// The appliance's own manifest.
    #[must_use]
    pub fn appliance(&self) -> &Manifest {
        &self.appliance
    }

    /// The bytes of `appliance.json`: the config.
    #[must_use]
    pub fn config(&self) -> &[u8] {
        &self.config
    }

    /// Every layer with the file that it holds.
    pub fn layers(&self) -> impl Iterator<Item = (&Descriptor, &Member)> {
        let members = members(&self.appliance);
        self.manifest.layers.iter().filter_map(move |layer| {
            Some((
                layer,
                *members.get(layer.annotations.get(media::TITLE)?.as_str())?,
            ))
        })
    }

    /// Every blob but the manifest itself, each once: config and layers, in the manifest's order.
    #[must_use]
    pub fn blobs(&self) -> Vec<&Descriptor> {
        let mut seen = std::collections::BTreeSet::new();
        let all = std::iter::once(&self.manifest.config).chain(&self.manifest.layers);
        all.filter(|blob| seen.insert(blob.digest)).collect()
    }

    fn agree(&self) -> Result<(), BundleError> {
        if !is_file_name(&self.appliance.name) {
            return Err(BundleError::NotAnAppliance {
                what: "its name",
                found: self.appliance.name.escape_debug().to_string(),
                expected: "letters, digits, and '-', '_' and '.' between them",
            });
        }
        let mut members = members(&self.appliance);
        for member in self.appliance.members() {
            member.plain_path()?;
            let known = members.get(member.path.as_str()).copied();
            if member.path == MANIFEST_NAME || known != Some(member) {
                return Err(disagree(&member.path, "the appliance names it twice"));
            }
            let what = format!("the size of '{}'", member.path.escape_debug());
            bound(&what, member.size_bytes, FILE_BYTES_MAX)?;
        }
        for layer in &self.manifest.layers {
            let title = layer.annotations.get(media::TITLE);
            let title = title.map_or("", String::as_str);
            let Some(member) = members.remove(title) else {
                let reason = "the appliance does not name this layer, or it is there twice";
                return Err(disagree(title, reason));
            };
            let sound = match layer.media_type.as_str() {
                // A plain layer is the file, so both name the same bytes.
                media::FILE => {
                    layer.size == member.size_bytes && layer.digest.hex() == member.sha256
                }
                media::CHUNKS => layer.size <= chunks::packed_bytes_max(member.size_bytes),
                other => return expect("a layer's media type", other, media::CHUNKS),
            };
            if !sound {
                return Err(disagree(title, "its size or digest differs"));
            }
        }
        match members.keys().next() {
            Some(path) => Err(disagree(path, "no layer holds it")),
            None => Ok(()),
        }
    }
}

/// Names become those of files and references, wherever an appliance comes from.
fn is_file_name(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let ends = [name.bytes().next(), name.bytes().next_back()];
    let is_inner = |end: Option<u8>| end.is_some_and(|byte| byte.is_ascii_alphanumeric());
    name.len() <= NAME_BYTES_MAX && name.bytes().all(is_plain) && ends.into_iter().all(is_inner)
}

fn members(appliance: &Manifest) -> BTreeMap<&str, &Member> {
    let members = appliance.members();
    members
        .map(|member| (member.path.as_str(), member))
        .collect()
}

fn disagree(path: &str, reason: &'static str) -> BundleError {
    let path = path.escape_debug().to_string();
    BundleError::Layer { path, reason }
}

fn expect(what: &'static str, found: &str, expected: &'static str) -> Result<(), BundleError> {
    if found == expected {
        return Ok(());
    }
    Err(BundleError::NotAnAppliance {
        what,
        found: found.escape_debug().to_string(),
        expected,
    })
}
