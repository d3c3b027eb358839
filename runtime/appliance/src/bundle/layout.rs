//! The bundle file: a tar archive with an OCI image layout.
//!
//! ```text
//! oci-layout              {"imageLayoutVersion":"1.0.0"}
//! index.json              the appliance's manifest, and those of its signatures
//! blobs/sha256/DIGEST     manifests, configs, layers and signatures, by digest
//! ```

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::FileExt;

use serde::Deserialize;

use super::archive::{self, Entry};
use super::blobs::{Blobs, Checked, read_small, unwrap_io};
use super::chunks;
use super::digest::{BlobDigest, Hashing};
use super::error::{BundleError, bound};
use super::media;
use super::oci::{DOCUMENT_BYTES_MAX, Descriptor, OciIndex, OciManifest};
use super::package::Package;
use super::signed::{AttachedSignature, SIGNATURE_BYTES_MAX, SIGNATURES_MAX};
use crate::digest::as_u64;
use crate::manifest::{Appliance, ApplianceError, MANIFEST_NAME, Manifest, Member};

const LAYOUT_NAME: &str = "oci-layout";
const LAYOUT: &[u8] = b"{\"imageLayoutVersion\":\"1.0.0\"}";
const LAYOUT_BYTES_MAX: u64 = 4096;
const INDEX_NAME: &str = "index.json";
const BLOBS: &str = "blobs/sha256/";
/// How many manifests an index may name.
const MANIFESTS_MAX: usize = 256;
/// Output is gathered to pieces of this size.
const BUFFER_BYTES: usize = 1 << 20;

/// An appliance with its blobs and signatures, in one file.
#[derive(Debug)]
pub struct Layout {
    stored: Stored,
    package: Package,
    signatures: Vec<AttachedSignature>,
}

/// Where a blob is in the file.
#[derive(Clone, Copy, Debug)]
struct Place {
    start: u64,
    size: u64,
}

impl Blobs for Layout {
    fn open(&self, blob: &Descriptor) -> Result<Box<dyn Read + Send + '_>, BundleError> {
        self.stored.open(blob)
    }
}

/// A part of a file, from its start.
struct Window<'f> {
    file: &'f File,
    place: Place,
}

impl Read for Window<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let room = usize::try_from(self.place.size).unwrap_or(usize::MAX);
        let room = room.min(buffer.len());
        let count = self.file.read_at(&mut buffer[..room], self.place.start)?;
        self.place.start = self.place.start.saturating_add(as_u64(count));
        self.place.size = self.place.size.saturating_sub(as_u64(count));
        Ok(count)
    }
}

/// Whether a file that begins so, with 512 bytes, may be a bundle: it is a tar archive, and its first
/// name is one of a layout.
#[must_use]
pub fn is_bundle(start: &[u8]) -> bool {
    let name = start.strip_prefix(b"./").unwrap_or(start);
    let mut names = [LAYOUT_NAME, INDEX_NAME, "blobs/"].into_iter();
    archive::is_archive(start) && names.any(|known| name.starts_with(known.as_bytes()))
}

impl Layout {
    /// Packs an appliance's files into `scratch`, an empty file for as long as the layout is used.
    ///
    /// # Errors
    /// A file cannot be read, or is not what the manifest says; the scratch file cannot be written.
    pub fn of_appliance(appliance: &Appliance, scratch: File) -> Result<Self, BundleError> {
        let mut packer = Packer {
            output: Hashing::new(BufWriter::with_capacity(BUFFER_BYTES, &scratch)),
            at: 0,
            blobs: BTreeMap::new(),
        };
        let config = appliance.manifest.to_json().into_bytes();
        let config = match fs_err::read(appliance.folder.join(MANIFEST_NAME)) {
            // The file's own bytes, unless they say something else.
            Ok(found) if Manifest::parse(&found, MANIFEST_NAME.as_ref())? == appliance.manifest => {
                found
            }
            _ => config,
        };
        packer.blob(|output| Ok(output.write_all(&config)?))?;
        let mut layers = Vec::new();
        for member in appliance.manifest.members() {
            layers.push(packer.layer(appliance, member)?);
        }
        let blobs = packer.finish()?;
        Ok(Self {
            package: Package::new(config, layers)?,
            stored: Stored {
                file: scratch,
                blobs,
            },
            signatures: Vec::new(),
        })
    }

    /// Opens a bundle: reads and checks its index, manifest, config and signatures, and that every
    /// layer is there. The layers' digests are left to whoever reads them.
    ///
    /// # Errors
    /// It cannot be read, is no bundle, or one of something else.
    pub fn open(file: File) -> Result<Self, BundleError> {
        let (mut blobs, mut layout, mut index) = (BTreeMap::new(), None, None);
        for entry in archive::list(&file)? {
            let place = Place {
                start: entry.start,
                size: entry.size,
            };
            let digest = entry
                .name
                .strip_prefix(BLOBS)
                .and_then(BlobDigest::from_hex);
            let before = match (&*entry.name, digest) {
                (_, Some(digest)) => blobs.insert(digest, place),
                (LAYOUT_NAME, _) => layout.replace(place),
                (INDEX_NAME, _) => index.replace(place),
                _ => return Err(wrong(&entry, "has no place in a bundle")),
            };
            if before.is_some() {
                return Err(wrong(&entry, "is there twice"));
            }
        }
        check_layout(&read_place(&file, layout, LAYOUT_NAME, LAYOUT_BYTES_MAX)?)?;
        let index = read_place(&file, index, INDEX_NAME, DOCUMENT_BYTES_MAX)?;
        let stored = Stored { file, blobs };
        let (package, signatures) = stored.contents(&OciIndex::parse(&index)?)?;
        for blob in package.blobs() {
            let size = stored.blobs.get(&blob.digest).map(|place| place.size);
            if size.ok_or(BundleError::Missing(blob.digest))? != blob.size {
                return Err(BundleError::Blob {
                    digest: blob.digest,
                    found: "it has another length than its descriptor says".to_owned(),
                });
            }
        }
        Ok(Self {
            stored,
            package,
            signatures,
        })
    }

    /// The appliance's manifest and config.
    #[must_use]
    pub fn package(&self) -> &Package {
        &self.package
    }

    /// The signatures that came with it, in byte order; nobody has checked them.
    #[must_use]
    pub fn signatures(&self) -> &[AttachedSignature] {
        &self.signatures
    }
}

fn wrong(entry: &Entry, what: &str) -> BundleError {
    BundleError::Archive {
        offset: entry.header,
        reason: format!("'{}' {what}", entry.name.escape_debug()),
    }
}

/// Blobs in a file, whatever they are.
#[derive(Debug)]
struct Stored {
    file: File,
    blobs: BTreeMap<BlobDigest, Place>,
}

impl Blobs for Stored {
    fn open(&self, blob: &Descriptor) -> Result<Box<dyn Read + Send + '_>, BundleError> {
        let found = self.blobs.get(&blob.digest);
        Ok(Box::new(Window {
            file: &self.file,
            place: *found.ok_or(BundleError::Missing(blob.digest))?,
        }))
    }
}

impl Stored {
    /// The one appliance of an index, and its signatures. Manifests of other things are passed over.
    fn contents(&self, index: &OciIndex) -> Result<(Package, Vec<AttachedSignature>), BundleError> {
        bound(
            "the number of manifests",
            as_u64(index.manifests.len()),
            as_u64(MANIFESTS_MAX),
        )?;
        let (mut appliance, mut others) = (None, BTreeMap::new());
        for found in &index.manifests {
            let kind = found.artifact_type.as_deref();
            let may_be = |wanted| kind.is_none_or(|kind| kind == wanted);
            if found.media_type != media::OCI_MANIFEST {
                continue;
            }
            // Other tools leave the type out; then the manifest says it.
            if !may_be(media::APPLIANCE) && !may_be(media::SIGNATURE) {
                continue;
            }
            let bytes = read_small(self, found, "manifest", DOCUMENT_BYTES_MAX)?;
            let manifest = OciManifest::parse(&bytes)?;
            if manifest.artifact_type.as_deref() == Some(media::SIGNATURE) {
                // Read again when the appliance is known, so that one at a time is in memory.
                others.insert(found.digest, found);
            } else if appliance
                .replace((found.digest, bytes))
                .is_some_and(|(digest, _)| digest != found.digest)
            {
                return Err(wrong_count("several appliances"));
            }
        }
        let Some((digest, bytes)) = appliance else {
            return Err(wrong_count("no appliance"));
        };
        let mut signatures = Vec::new();
        for found in others.values() {
            let bytes = read_small(self, found, "manifest", DOCUMENT_BYTES_MAX)?;
            signatures.extend(AttachedSignature::of_artifact(&bytes, digest, self)?);
            check_limits(&signatures)?;
        }
        signatures.sort_unstable();
        signatures.dedup();
        Ok((Package::open(bytes, self)?, signatures))
    }
}

/// What is written must be read again, too.
fn check_limits(signatures: &[AttachedSignature]) -> Result<(), BundleError> {
    let length = |one: &AttachedSignature| as_u64(one.bytes.len());
    let longest = signatures.iter().map(length).max().unwrap_or_default();
    bound(
        "the number of signatures",
        as_u64(signatures.len()),
        as_u64(SIGNATURES_MAX),
    )?;
    bound("the size of a signature", longest, SIGNATURE_BYTES_MAX)
}

fn wrong_count(found: &str) -> BundleError {
    BundleError::Document {
        what: "index",
        reason: format!("it names {found}, where a bundle has one"),
    }
}

fn read_place(
    file: &File,
    place: Option<Place>,
    name: &'static str,
    limit: u64,
) -> Result<Vec<u8>, BundleError> {
    let Some(place) = place else {
        let reason = format!("it has no {name}");
        return Err(BundleError::Archive { offset: 0, reason });
    };
    bound(&format!("the size of {name}"), place.size, limit)?;
    let mut bytes = Vec::new();
    Window { file, place }.read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LayoutFile {
    image_layout_version: String,
}

fn check_layout(bytes: &[u8]) -> Result<(), BundleError> {
    let found = serde_json::from_slice::<LayoutFile>(bytes);
    let reason = match found {
        Ok(found) if found.image_layout_version.starts_with("1.") => return Ok(()),
        Ok(found) => format!(
            "it has version '{}', this program reads 1.0.0",
            found.image_layout_version.escape_debug()
        ),
        Err(error) => error.to_string(),
    };
    Err(BundleError::Document {
        what: LAYOUT_NAME,
        reason,
    })
}

/// Puts blobs one after the other.
struct Packer<W> {
    output: Hashing<W>,
    at: u64,
    blobs: BTreeMap<BlobDigest, Place>,
}

impl<W: Write> Packer<W> {
    /// Writes a blob; gives its digest and size.
    fn blob<T>(
        &mut self,
        write: impl FnOnce(&mut Hashing<W>) -> Result<T, BundleError>,
    ) -> Result<(T, BlobDigest, u64), BundleError> {
        let result = write(&mut self.output)?;
        let (digest, size) = self.output.take();
        let place = Place {
            start: self.at,
            size,
        };
        self.blobs.insert(digest, place);
        self.at = self.at.saturating_add(size);
        Ok((result, digest, size))
    }

    fn layer(&mut self, appliance: &Appliance, member: &Member) -> Result<Descriptor, BundleError> {
        let path = appliance.path(member)?;
        let mut file = fs_err::File::open(&path)?.into_parts().0;
        let manifest = &appliance.manifest;
        let is_for_people = *member == manifest.kernel.config || manifest.evidence.contains(member);
        let media_type = if is_for_people {
            media::FILE
        } else {
            media::CHUNKS
        };
        let (found, digest, size) = self.blob(|output| {
            if is_for_people {
                io::copy(&mut file, output)?;
                Ok(None)
            } else {
                chunks::pack(&file, output).map(Some)
            }
        })?;
        let (plain, plain_size) = found.unwrap_or((digest, size));
        if plain.hex() != member.sha256 || plain_size != member.size_bytes {
            return Err(ApplianceError::Member {
                path,
                found: format!("sha256 {} and {plain_size} bytes", plain.hex()),
                expected: format!("sha256 {} and {} bytes", member.sha256, member.size_bytes),
            }
            .into());
        }
        let descriptor = Descriptor {
            media_type: media_type.to_owned(),
            digest,
            size,
            artifact_type: None,
            annotations: BTreeMap::new(),
        };
        Ok(descriptor.annotated(media::TITLE, &member.path))
    }

    fn finish(mut self) -> Result<BTreeMap<BlobDigest, Place>, BundleError> {
        self.output.flush()?;
        Ok(self.blobs)
    }
}

/// What a bundle's blob is written from.
enum Source<'a> {
    Bytes(Vec<u8>),
    Blob(&'a Descriptor),
}

/// Writes a bundle: the same package and signatures give the same bytes.
///
/// # Errors
/// A blob cannot be read or is another, or the output cannot be written.
pub fn write_bundle(
    package: &Package,
    signatures: &[AttachedSignature],
    blobs: &dyn Blobs,
    output: impl Write,
) -> Result<(), BundleError> {
    let mut sources: BTreeMap<BlobDigest, (u64, Source<'_>)> = BTreeMap::new();
    for blob in package.blobs() {
        sources.insert(blob.digest, (blob.size, Source::Blob(blob)));
    }
    let subject = package.descriptor();
    let mut small = vec![
        (package.manifest().config.digest, package.config().to_vec()),
        (subject.digest, package.bytes().to_vec()),
    ];
    let name = package.appliance().name.clone();
    let mut manifests = vec![subject.clone().annotated(media::REF_NAME, &name)];
    let mut signatures = signatures.to_vec();
    signatures.sort_unstable();
    signatures.dedup();
    check_limits(&signatures)?;
    for signature in &signatures {
        let artifact = signature.to_artifact(&subject);
        small.push((artifact.descriptor.digest, artifact.manifest));
        manifests.push(artifact.descriptor);
        let blobs = artifact.blobs.into_iter();
        small.extend(blobs.map(|(blob, bytes)| (blob.digest, bytes)));
    }
    for (digest, bytes) in small {
        sources.insert(digest, (as_u64(bytes.len()), Source::Bytes(bytes)));
    }
    let index = OciIndex::new(manifests).to_bytes();
    let output = BufWriter::with_capacity(BUFFER_BYTES, output);
    let mut archive = archive::Writer::new(output);
    for (name, bytes) in [(LAYOUT_NAME, LAYOUT), (INDEX_NAME, &index)] {
        archive.entry(name, as_u64(bytes.len()), |output| {
            Ok(output.write_all(bytes)?)
        })?;
    }
    for (digest, (size, source)) in sources {
        let name = format!("{BLOBS}{}", digest.hex());
        archive.entry(&name, size, |output| match source {
            Source::Bytes(bytes) => Ok(output.write_all(&bytes)?),
            Source::Blob(blob) => {
                let mut input = Checked::new(blobs.open(blob)?, blob);
                io::copy(&mut input, output).map_err(unwrap_io)?;
                Ok(())
            }
        })?;
    }
    Ok(archive.finish()?)
}
