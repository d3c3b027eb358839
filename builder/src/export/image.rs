//! An OCI image of a few layers, written as a layout: a folder, or that folder in one tar archive.

use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use coop_appliance::bundle::{BlobDigest, Descriptor, OciIndex, OciManifest, media};
use coop_image::tar;
use coop_image::tree::{Content, Inode, Kind, Metadata, Tree};
use fs_err as fs;

use super::ExportError;
use crate::digest::Hasher;
use crate::publish::Staging;
use crate::staged_file::StagedFile;

/// A layer that is a tar archive, compressed with zstd (image specification, "Layer Media Types").
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
/// What a container engine reads first.
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// The file that says that a folder is a layout.
const LAYOUT_NAME: &str = "oci-layout";
const LAYOUT: &str = "{\"imageLayoutVersion\":\"1.0.0\"}";
/// How hard zstd tries: holes and text shrink, and more takes long.
const LEVEL: i32 = 3;

/// A layer that was written.
pub(super) struct Layer {
    pub(super) descriptor: Descriptor,
    /// The digest of the archive before it was compressed.
    pub(super) diff_id: BlobDigest,
    file: File,
}

impl Layer {
    /// Writes a tree into `scratch`, an empty file.
    pub(super) fn write(tree: &Tree, scratch: File) -> Result<Self, ExportError> {
        let compressed = Hashed::new(BufWriter::new(&scratch));
        let encoder = zstd::Encoder::new(compressed, LEVEL)?;
        let mut archive = Hashed::new(encoder);
        tar::write(tree, &mut archive)?;
        let (encoder, diff_id, _) = archive.finish();
        let (mut buffered, digest, size) = encoder.finish()?.finish();
        buffered.flush()?;
        drop(buffered);
        Ok(Self {
            descriptor: Descriptor {
                media_type: LAYER.to_owned(),
                digest,
                size,
                artifact_type: None,
                annotations: Default::default(),
            },
            diff_id,
            file: scratch,
        })
    }
}

/// Counts and hashes what goes through it.
struct Hashed<W> {
    inner: W,
    hasher: Hasher,
    length: u64,
}

impl<W: Write> Hashed<W> {
    fn new(inner: W) -> Self {
        Self {
            inner,
            hasher: Hasher::new(),
            length: 0,
        }
    }

    fn finish(self) -> (W, BlobDigest, u64) {
        let digest = BlobDigest::from(*self.hasher.finish().as_bytes());
        (self.inner, digest, self.length)
    }
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.hasher.update(bytes.get(..count).unwrap_or_default());
        self.length = self
            .length
            .saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// An image whose layers are written.
pub(super) struct Image {
    layers: Vec<Layer>,
    /// Small documents: config and manifest.
    documents: Vec<(BlobDigest, Vec<u8>)>,
    index: Vec<u8>,
    pub(super) manifest: Descriptor,
}

impl Image {
    /// Puts an image together; `config` says everything but the layers.
    pub(super) fn new(mut config: serde_json::Value, layers: Vec<Layer>, name: &str) -> Self {
        let diff_ids: Vec<String> = layers
            .iter()
            .map(|layer| layer.diff_id.to_string())
            .collect();
        config["rootfs"] = serde_json::json!({ "type": "layers", "diff_ids": diff_ids });
        let config = config.to_string().into_bytes();
        let described = layers
            .iter()
            .map(|layer| layer.descriptor.clone())
            .collect();
        let mut manifest = OciManifest::new("", Descriptor::of(CONFIG, &config), described);
        manifest.artifact_type = None;
        let bytes = manifest.to_bytes();
        let descriptor = Descriptor::of(media::OCI_MANIFEST, &bytes);
        let named = descriptor.clone().annotated(media::REF_NAME, name);
        Self {
            layers,
            documents: vec![(manifest.config.digest, config), (descriptor.digest, bytes)],
            index: OciIndex::new(vec![named]).to_bytes(),
            manifest: descriptor,
        }
    }

    /// Writes the layout as a folder, which appears whole.
    pub(super) fn write_folder(self, destination: &Path) -> Result<(), ExportError> {
        let staging =
            Staging::new(destination, LAYOUT_NAME).map_err(|error| match error.kind() {
                io::ErrorKind::AlreadyExists => io::Error::new(
                    error.kind(),
                    format!(
                        "'{}' exists and is no OCI layout; it is not overwritten",
                        destination.display()
                    ),
                ),
                _ => error,
            })?;
        let blobs = staging.path().join("blobs/sha256");
        fs::create_dir_all(&blobs)?;
        fs::write(staging.path().join(LAYOUT_NAME), LAYOUT)?;
        fs::write(staging.path().join("index.json"), &self.index)?;
        for (digest, bytes) in &self.documents {
            fs::write(blobs.join(digest.hex()), bytes)?;
        }
        for layer in self.layers {
            let mut from = layer.file;
            from.seek(SeekFrom::Start(0))?;
            let mut to = fs::File::create(blobs.join(layer.descriptor.digest.hex()))?;
            io::copy(&mut from, &mut to)?;
        }
        Ok(staging.publish()?)
    }

    /// Writes the layout as one archive, which appears whole.
    pub(super) fn write_archive(self, destination: &Path) -> Result<(), ExportError> {
        let mut tree = Tree::new(folder(0o755));
        let add = |tree: &mut Tree, path: &str, content: Content| put(tree, path, 0o644, content);
        let layout = tree.add_bytes(LAYOUT.as_bytes().to_vec())?;
        add(&mut tree, LAYOUT_NAME, layout)?;
        let index = tree.add_bytes(self.index)?;
        add(&mut tree, "index.json", index)?;
        let blob = |digest: BlobDigest| format!("blobs/sha256/{}", digest.hex());
        for (digest, bytes) in self.documents {
            let content = tree.add_bytes(bytes)?;
            add(&mut tree, &blob(digest), content)?;
        }
        for layer in self.layers {
            let id = tree.add_blob(Arc::new(layer.file))?;
            let content = Content::contiguous(id, 0, layer.descriptor.size);
            add(&mut tree, &blob(layer.descriptor.digest), content)?;
        }
        let staged = StagedFile::new(destination)?;
        let mut output = BufWriter::new(staged.file().as_ref());
        tar::write(&tree, &mut output)?;
        output.flush()?;
        drop(output);
        Ok(staged.publish(true)?)
    }
}

/// A folder of root's from 1970.
pub(super) fn folder(mode: u16) -> Metadata {
    Metadata {
        mode,
        ..Metadata::default()
    }
}

/// Puts a file of root's from 1970 into a tree, with the folders on its way.
pub(super) fn put(
    tree: &mut Tree,
    path: &str,
    mode: u16,
    content: Content,
) -> Result<(), ExportError> {
    let path = path.trim_start_matches('/');
    let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
    let parent = tree.make_directories(parent.as_bytes(), &folder(0o755))?;
    let id = tree.add_inode(Inode {
        metadata: folder(mode),
        kind: Kind::File(content),
    })?;
    Ok(tree.link(parent, name.as_bytes(), id)?)
}

/// Puts a file of this host into a tree: its bytes, and whether it may be executed.
pub(super) fn put_file(tree: &mut Tree, path: &str, from: &Path) -> Result<(), ExportError> {
    let mut file = fs::File::open(from)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        let problem = "it is not a regular file".to_owned();
        let path = from.to_owned();
        return Err(ExportError::Program { path, problem });
    }
    // What cannot be read fails here, with its name.
    let _ = file.read(&mut [0])?;
    let mode = if metadata.permissions().mode() & 0o111 == 0 {
        0o644
    } else {
        0o755
    };
    let id = tree.add_blob(Arc::new(file.into_parts().0))?;
    put(tree, path, mode, Content::contiguous(id, 0, metadata.len()))
}
