//! What verbs do with bundles: open them, ask for a signature, make folders of them.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use coop_appliance::MANIFEST_NAME;
use coop_appliance::bundle::{self, Blobs, BundleError, Descriptor, Layout, Package, is_bundle};
use coop_builder::digest::Digest;
use coop_builder::publish::Staging;
use coop_builder::store::Store;
use fs_err as fs;

use super::build::Held;
use super::means;
use super::trust;
use super::watched::interruption;
use crate::arguments::TrustOptions;
use crate::environment::Environment;
use crate::failure::Failure;

/// How often the cache may be emptied between installing and use.
const ATTEMPTS_MAX: usize = 3;
/// How much of a file tells what it is.
const START_BYTES: u64 = 512;

/// Whether there is a bundle.
pub(super) fn is_there(path: &Path) -> bool {
    let mut start = Vec::new();
    let is_read = path.is_file()
        && fs::File::open(path)
            .and_then(|file| file.take(START_BYTES).read_to_end(&mut start))
            .is_ok();
    is_read && is_bundle(&start)
}

/// Opens a bundle.
pub(super) fn open(path: &Path) -> Result<Layout, Failure> {
    let file = fs::File::open(path).map_err(|error| Failure::work(&error))?;
    let layout = Layout::open(file.into_parts().0);
    layout.map_err(|error| Failure::work(&error).about(path))
}

/// Opens a bundle that somebody trusted has signed.
pub(super) fn open_trusted(
    path: &Path,
    options: &TrustOptions,
    environment: &Environment,
) -> Result<Layout, Failure> {
    let layout = open(path)?;
    let origin = path.display().to_string();
    let from = (&*origin, None);
    trust::check(
        layout.package(),
        layout.signatures(),
        from,
        options,
        environment,
    )?;
    Ok(layout)
}

/// Makes a folder of a package, whole or not at all. The first signal calls it off.
pub(super) fn unpack(
    package: &Package,
    blobs: &dyn Blobs,
    destination: &Path,
) -> Result<(), Failure> {
    let interruption = interruption()?;
    let blobs = Interruptible {
        blobs,
        heard: interruption.flag(),
    };
    let staging =
        Staging::new(destination, MANIFEST_NAME).map_err(|error| Failure::work(&error))?;
    let done = bundle::install(package, &blobs, staging.path()).and_then(|()| {
        staging.publish()?;
        Ok(())
    });
    match (done, interruption.signal()) {
        (Ok(()), _) => Ok(()),
        (Err(_), Some(signal)) => Err(Failure::sentence(
            signal.shell_code(),
            "unpacking was stopped by a signal; nothing is left of it",
        )),
        (Err(error), None) => Err(explain(&error)),
    }
}

/// Installs a package in the cache, by its digest, unless it is there; it stays while it is held.
pub(super) fn hold(
    package: &Package,
    blobs: &dyn Blobs,
    environment: &Environment,
) -> Result<Held, Failure> {
    let store = means::open_store(environment)?;
    let place = store.appliance_path(&name(package));
    for _ in 0..ATTEMPTS_MAX {
        if let Ok(held) = held(package, &store) {
            return Ok(held);
        }
        unpack(package, blobs, &place)?;
    }
    held(package, &store).map_err(|error| Failure::work(&error))
}

/// Holds a package that is installed in the cache.
pub(super) fn held(package: &Package, store: &Store) -> std::io::Result<Held> {
    let manifest = store.hold_appliance(&name(package))?;
    Ok(Held::new(store.appliance_path(&name(package)), manifest))
}

/// What the cache has a package under.
fn name(package: &Package) -> Digest {
    Digest::from(*package.digest().as_bytes())
}

/// A failure with how to go on.
pub(super) fn explain(error: &BundleError) -> Failure {
    let failure = Failure::work(error);
    match error {
        BundleError::Blob { .. } | BundleError::Missing(_) | BundleError::Chunks { .. } => {
            failure.with_hint("get it again from whoever made it")
        }
        _ => failure,
    }
}

/// Blobs that end with an error once a signal was heard.
struct Interruptible<'b> {
    blobs: &'b dyn Blobs,
    heard: Arc<AtomicU8>,
}

impl Blobs for Interruptible<'_> {
    fn open(&self, blob: &Descriptor) -> Result<Box<dyn Read + Send + '_>, BundleError> {
        let (inner, heard) = (self.blobs.open(blob)?, Arc::clone(&self.heard));
        Ok(Box::new(InterruptibleBlob { inner, heard }))
    }
}

struct InterruptibleBlob<'b> {
    inner: Box<dyn Read + Send + 'b>,
    heard: Arc<AtomicU8>,
}

impl Read for InterruptibleBlob<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self.heard.load(Ordering::SeqCst) {
            0 => self.inner.read(buffer),
            _ => Err(std::io::Error::other("a signal was heard")),
        }
    }
}
