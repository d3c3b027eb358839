//! What `--diff` compares with: whatever has a kernel's configuration.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use coop_appliance::{Appliance, MANIFEST_NAME};
use coop_builder::kernel::export;
use coop_builder::kernel::settings::{self, SettingsError};
use coop_builder::recipe::{self, Recipe};

use crate::failure::Failure;
use crate::render::{Output, error};

/// The word for the host's own kernel.
const RUNNING: &str = "running";
/// Where the host's kernel shows its configuration, if it was built to.
const PROC: &str = "/proc/config.gz";
/// The name of a configuration in a kernel's build folder.
const DOT_CONFIG: &str = ".config";

/// The other side of a comparison.
pub(super) enum Other {
    /// The text of a configuration.
    Config(String),
    /// A recipe, whose kernel is to be configured.
    Recipe(Box<Recipe>),
}

/// Finds out what a word of the command line names.
pub(super) fn open(word: &Path, output: &Output) -> Result<Other, Failure> {
    if word == Path::new(RUNNING) {
        return running().map(Other::Config);
    }
    if word.is_dir() {
        return folder(word).map(Other::Config);
    }
    let is_yaml = word
        .extension()
        .is_some_and(|extension| extension == "yaml" || extension == "yml");
    if !is_yaml {
        match settings::read(word) {
            Ok(text) => return Ok(Other::Config(text)),
            // It may be a recipe by another name.
            Err(SettingsError::NotConfig(_)) => {}
            Err(error) => return Err(Failure::work(&error)),
        }
    }
    // Variables of the command line are those of the first recipe.
    let read = recipe::read(word, &BTreeMap::new());
    let (recipe, warnings) = read.map_err(Failure::recipe)?;
    error::warnings(output, &warnings);
    Ok(Other::Recipe(Box::new(recipe)))
}

/// An appliance, what `coop kernel build` has written, or a kernel's build folder.
fn folder(folder: &Path) -> Result<String, Failure> {
    let read = |path: &Path| settings::read(path).map_err(|error| Failure::work(&error));
    if folder.join(MANIFEST_NAME).is_file() {
        let appliance = Appliance::open(folder).map_err(|error| Failure::work(&error))?;
        let path = appliance.path(&appliance.manifest.kernel.config);
        return read(&path.map_err(|error| Failure::work(&error))?);
    }
    let known = [
        (export::DESCRIPTION_NAME, export::CONFIG_NAME),
        (DOT_CONFIG, DOT_CONFIG),
    ];
    let mut found = known.iter().filter(|(mark, _)| folder.join(mark).is_file());
    match found.next() {
        Some((_, name)) => read(&folder.join(name)),
        None => {
            let shown = folder.display();
            let message = format!("{shown} has no kernel's configuration: it is no appliance");
            Err(Failure::usage(message))
        }
    }
}

/// The configuration of the kernel that the host runs.
fn running() -> Result<String, Failure> {
    let names = rustix::system::uname();
    let release = names.release().to_string_lossy();
    let places = [
        PathBuf::from(PROC),
        PathBuf::from(format!("/boot/config-{release}")),
        PathBuf::from(format!("/lib/modules/{release}/config")),
    ];
    let Some(place) = places.iter().find(|place| place.exists()) else {
        let places: Vec<String> = places.iter().map(|p| p.display().to_string()).collect();
        let message = format!(
            "the running kernel {release} does not say how it was configured: there is none of {}",
            places.join(", ")
        );
        return Err(Failure::usage(message).with_hint("name its .config instead"));
    };
    settings::read(place).map_err(|error| Failure::work(&error))
}
