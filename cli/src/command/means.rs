//! What work from a recipe needs: the recipe, the cache, downloads, and who watches and interrupts.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::ValueEnum;
use coop_builder::build::{BuildError, BuildRequest};
use coop_builder::debian::mirror::AptSources;
use coop_builder::fetch::{Fetcher, Options};
use coop_builder::guest::{StepLog, StepMeans};
use coop_builder::kernel::{KernelChoice, KernelRequest};
use coop_builder::lock::Pins;
use coop_builder::recipe::{self, Architecture, Kernel, Recipe};
use coop_builder::source::Archive;
use coop_builder::store::Store;
use coop_runtime::Host;
use coop_runtime::event::Observer;

use super::subject::{self, Kind};
use super::{build, lock, steps, watched};
use crate::arguments::{DefaultKernel, RecipeOptions};
use crate::environment::Environment;
use crate::failure::Failure;
use crate::host;
use crate::render::Output;
use crate::render::progress::{self, Interruptible};
use crate::signals::Interruption;

/// The host's apt configuration.
pub(super) const APT_FOLDER: &str = "/etc/apt";

/// Reads a recipe and shows its warnings.
pub(super) fn read(
    file: &Path,
    options: &RecipeOptions,
    output: &Output,
) -> Result<Recipe, Failure> {
    subject::expect(file, &[Kind::Recipe])?;
    let (recipe, warnings) = recipe::read(file, &options.sets()).map_err(Failure::recipe)?;
    progress::recipe_warnings(options.progress, output, &warnings);
    Ok(recipe)
}

/// A recipe, and the means of work with it and the lock beside it.
pub(super) fn of_recipe(
    file: &Path,
    options: &RecipeOptions,
    environment: &Environment,
    output: &Output,
) -> Result<(Recipe, Means), Failure> {
    let recipe = read(file, options, output)?;
    let pins = lock::pins(file, options)?;
    Ok((recipe, Means::prepare(options, pins, environment, output)?))
}

/// Opens the cache.
pub(super) fn open_store(environment: &Environment) -> Result<Store, Failure> {
    let Some(cache) = &environment.cache else {
        let failure = Failure::usage("there is no folder for the cache");
        return Err(failure.with_hint("set COOP_CACHE or HOME"));
    };
    let absolute = std::path::absolute(cache).map_err(|error| Failure::work(&error))?;
    Store::open(&absolute).map_err(|error| {
        let failure = Failure::work(&error);
        failure.with_hint("COOP_CACHE names another folder for the cache")
    })
}

/// Which kernel recipes without one get: what the command line says, else COOP_KERNEL.
pub(super) fn kernel_choice(
    options: &RecipeOptions,
    environment: &Environment,
) -> Result<KernelChoice, Failure> {
    let choice = match (options.kernel, &environment.kernel) {
        (Some(choice), _) => choice,
        (None, None) => DefaultKernel::Auto,
        (None, Some(name)) => {
            let text = name.to_string_lossy();
            DefaultKernel::from_str(&text, false).map_err(|_| {
                let message = format!("COOP_KERNEL is '{}'", text.escape_debug());
                Failure::usage(message).with_hint("it may be auto, prebuilt or trimmed")
            })?
        }
    };
    Ok(match choice {
        DefaultKernel::Auto => KernelChoice::Auto,
        DefaultKernel::Prebuilt => KernelChoice::Prebuilt,
        DefaultKernel::Trimmed => KernelChoice::Trimmed,
    })
}

/// The means of one piece of work. While they live, the first signal calls the work off.
pub(super) struct Means {
    /// Downloads, and the cache.
    pub(super) fetcher: Fetcher,
    /// Who watches.
    pub(super) observer: Arc<dyn Observer>,
    /// What the recipe's steps have beside their guests; the log is the output's.
    pub(super) steps: StepMeans,
    /// Which kernel recipes without one get.
    pub(super) kernel: KernelChoice,
    /// Whether what a kernel's configuration does not hold is a warning only.
    allow_dropped: bool,
    /// What the host offers to guests.
    pub(super) host: Host,
    /// Where the host's programs are looked for.
    programs: Vec<PathBuf>,
    apt: AptSources,
    mirror: Option<String>,
    snapshots: Option<String>,
    now_seconds: i64,
    /// A lock, and what was asked so far.
    pub(super) pins: Pins,
    interruption: Interruption,
}

impl Means {
    /// Looks at the host and the environment.
    pub(super) fn prepare(
        options: &RecipeOptions,
        pins: Pins,
        environment: &Environment,
        output: &Output,
    ) -> Result<Self, Failure> {
        let failed = |error: &dyn std::error::Error| Failure::work(error);
        let secrets = steps::secrets(&options.secrets, environment)?;
        let store = open_store(environment)?;
        let fetch = Options {
            offline: options.offline,
            ..Options::default()
        };
        let apt = AptSources::read(Path::new(APT_FOLDER)).map_err(|error| failed(&error))?;
        let interruption = watched::interruption()?;
        Ok(Self {
            fetcher: Fetcher::new(store, fetch),
            observer: Arc::new(Interruptible {
                inner: progress::observer(options.progress, output),
                heard: interruption.flag(),
            }),
            steps: StepMeans {
                secrets: Arc::new(secrets),
                ..StepMeans::default()
            },
            kernel: kernel_choice(options, environment)?,
            allow_dropped: options.allow_dropped,
            host: host::host(environment),
            programs: environment.programs.clone(),
            apt,
            mirror: environment.debian_mirror.clone(),
            snapshots: environment.debian_snapshots.clone(),
            now_seconds: now_seconds(),
            pins,
            interruption,
        })
    }

    /// Takes archives in place of the host's, as far as they are given.
    pub(super) fn use_archives(
        &mut self,
        mirror: Option<&str>,
        security: Option<&str>,
        snapshots: Option<&str>,
    ) {
        if let Some(url) = mirror {
            let mut apt = AptSources::default();
            apt.add_list(&format!("deb {url} stable main"));
            if let Some(url) = security {
                apt.add_list(&format!("deb {url} stable-security main"));
            }
            (self.apt, self.mirror) = (apt, None);
        }
        if let Some(url) = snapshots {
            self.snapshots = Some(url.to_owned());
        }
    }

    /// Where Debian packages come from.
    pub(super) fn archive(&self, recipe: &Recipe) -> Archive<'_> {
        self.archive_for(recipe.architecture)
    }

    /// Where Debian packages of an architecture come from.
    pub(super) fn archive_for(&self, architecture: Architecture) -> Archive<'_> {
        Archive {
            environment: self.mirror.as_deref(),
            snapshots: self.snapshots.as_deref(),
            apt: &self.apt,
            architecture: architecture.debian_name(),
            now_seconds: self.now_seconds,
            pins: &self.pins,
        }
    }

    /// What a build is asked for. Where nothing is built there is no output: its path is empty.
    pub(super) fn request<'a>(
        &'a self,
        recipe: &'a Recipe,
        origin: &'a Path,
        output: &'a Path,
    ) -> BuildRequest<'a> {
        let log = steps::log_path(self.fetcher.store().root(), &recipe.name, output);
        BuildRequest {
            recipe,
            origin,
            anew: false,
            output,
            fetcher: &self.fetcher,
            archive: self.archive(recipe),
            kernel: self.kernel,
            host: self.host.clone(),
            programs: &self.programs,
            allow_dropped: self.allow_dropped,
            means: StepMeans {
                log: Some(Arc::new(StepLog::new(log))),
                ..self.steps.clone()
            },
            observer: Arc::clone(&self.observer),
        }
    }

    /// What is asked of a kernel alone.
    pub(super) fn kernel_request<'a>(
        &'a self,
        kernel: &'a Kernel,
        archive: &'a Archive<'a>,
    ) -> KernelRequest<'a> {
        KernelRequest {
            kernel,
            choice: self.kernel,
            fetcher: &self.fetcher,
            archive,
            programs: &self.programs,
            allow_dropped: self.allow_dropped,
            only_stored: false,
            host: &self.host,
            observer: &self.observer,
        }
    }

    /// The failure of what a build does. Where a signal called it off, `stopped` says what that left.
    pub(super) fn failed(&self, error: &BuildError, stopped: &str) -> Failure {
        let stopped = self.stopped(stopped);
        stopped.unwrap_or_else(|| build::explain(error))
    }

    /// The failure of work that a signal has called off: whatever failed then failed because of it.
    pub(super) fn stopped(&self, message: &str) -> Option<Failure> {
        let signal = self.interruption.signal()?;
        Some(Failure::sentence(signal.shell_code(), message))
    }
}

/// A clock before 1970 counts as 1970: signatures are then not valid yet, which says enough.
fn now_seconds() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |time| i64::try_from(time.as_secs()).unwrap_or(i64::MAX))
}
