//! `coop push`: an appliance to a registry.

use std::path::Path;

use coop_appliance::Appliance;
use coop_appliance::bundle::Layout;
use coop_builder::registry::{Access, Pushed, Registry, Version};
use serde_json::json;

use super::means::open_store;
use super::subject::{self, Kind};
use super::watched::Watched;
use super::{Ended, bundle, registry};
use crate::arguments::PushOptions;
use crate::environment::Environment;
use crate::failure::Failure;
use crate::host;
use crate::render::{Output, bytes, data, json as render_json, line};

/// Packs a folder, or opens a bundle, and pushes it.
pub(crate) fn run(options: &PushOptions, environment: &Environment, output: &Output) -> Ended {
    if let Version::Digest(_) = options.reference.version {
        let failure = Failure::usage("an appliance is pushed to a tag; its digest comes by itself");
        return Err(failure.with_hint("write oci://HOST/NAME:TAG"));
    }
    let store = open_store(environment)?;
    let watched = Watched::start(options.progress, output)?;
    let layout = layout(&options.appliance, &host::host(environment).scratch)?;
    let reference = &options.reference;
    let connect = || registry::connect(reference, Access::Push, &options.registry, environment);
    let pushed = connect().and_then(|connected: Registry| {
        connected.push(
            layout.package(),
            &layout,
            layout.signatures(),
            &store,
            &*watched.observer,
        )
    });
    let pushed = pushed.map_err(|error| {
        let stopped = watched.stopped("the push was stopped by a signal; the next one goes on");
        stopped.unwrap_or_else(|| registry::explain(&error, reference, environment))
    })?;
    tell(&pushed, options);
    Ok(0)
}

/// A folder is packed into a file without a name.
fn layout(path: &Path, scratch: &Path) -> Result<Layout, Failure> {
    let failed = |error: &dyn std::error::Error| Failure::work(error);
    if subject::expect(path, &[Kind::Appliance, Kind::Bundle])? != Kind::Appliance {
        return bundle::open(path);
    }
    let appliance = Appliance::open(path).map_err(|error| failed(&error))?;
    let scratch = tempfile::tempfile_in(scratch).map_err(|error| failed(&error))?;
    Layout::of_appliance(&appliance, scratch).map_err(|error| failed(&error).about(path))
}

fn tell(pushed: &Pushed, options: &PushOptions) {
    if options.json {
        render_json::value(&json!({
            "reference": options.reference.to_string(),
            "pinned": pushed.pinned,
            "digest": pushed.descriptor.digest.to_string(),
            "sent_blobs": pushed.sent.0,
            "sent_bytes": pushed.sent.1,
            "present_blobs": pushed.there,
            "signatures": pushed.signatures,
        }));
        return;
    }
    let blobs = |count| match count {
        1 => "1 blob".to_owned(),
        _ => format!("{count} blobs"),
    };
    let (count, size) = pushed.sent;
    line(&format!(
        "sent {} ({}); {} there already",
        blobs(count),
        bytes(size),
        blobs(pushed.there)
    ));
    if pushed.signatures == 0 {
        line("warning: it is not signed: who pulls it needs --insecure-allow-unsigned");
    }
    data(&format!("{}\n", pushed.pinned));
}
