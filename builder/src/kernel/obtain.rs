//! A recipe's kernel: fetched, made, or chosen where the recipe leaves it to coop.

use std::path::PathBuf;
use std::sync::Arc;

use coop_runtime::Host;
use coop_runtime::event::{Event, Observer};

use super::config::{self, DotConfig, FragmentError, Unmet, Version};
use super::default::{self, Chosen, KernelChoice};
use super::make::{self, MakeError, MakeRequest, Programs};
use super::{FetchedKernel, KernelFiles, KernelSourceError, Target, fetch};
use crate::fetch::Fetcher;
use crate::lock::{Lock, NotLocked};
use crate::recipe::{Kernel, KernelOrigin, KernelPackage, KernelSource};
use crate::source::Archive;

/// Which kernel, and with what means.
#[derive(Clone, Copy)]
pub struct KernelRequest<'a> {
    /// The recipe's kernel.
    pub kernel: &'a Kernel,
    /// What it gets where it names none.
    pub choice: KernelChoice,
    /// Downloads and the store.
    pub fetcher: &'a Fetcher,
    /// Where Debian packages come from.
    pub archive: &'a Archive<'a>,
    /// Where the host's programs are looked for, first folder first.
    pub programs: &'a [PathBuf],
    /// Whether what the kernel's configuration does not hold is a warning instead of an error.
    pub allow_dropped: bool,
    /// Whether a kernel that would have to be made is an error instead: [`MakeError::NotStored`].
    pub only_stored: bool,
    /// What the host offers to the guests that build.
    pub host: &'a Host,
    /// Who watches.
    pub observer: &'a Arc<dyn Observer>,
}

/// Why there is no kernel.
#[derive(Debug, thiserror::Error)]
pub enum ObtainError {
    /// The package cannot be had or used.
    #[error(transparent)]
    Package(#[from] KernelSourceError),
    /// It was not made.
    #[error(transparent)]
    Make(#[from] MakeError),
    /// A fragment that coop carries cannot be read.
    #[error(transparent)]
    Fragment(#[from] FragmentError),
    /// The package's kernel lacks what the recipe needs.
    #[error("kernel {release} does not have what kernel.config asks for: {list}")]
    Config {
        /// The kernel's release.
        release: String,
        /// Each symbol with what it is and who wants what.
        list: String,
    },
    /// The package's kernel has modules where the recipe wants none.
    #[error("kernel {0} needs modules to boot, but the recipe says kernel.modules: false")]
    Modules(String),
    /// The lock does not have what is asked for.
    #[error("kernel: {0}")]
    NotLocked(#[from] NotLocked),
    /// Somebody asks for another default kernel than the lock has.
    #[error(
        "the lock has the {locked} kernel, and the {asked} one is asked for; coop lock --kernel \
         {asked} pins that"
    )]
    OtherChoice {
        /// Which the lock has.
        locked: &'static str,
        /// Which is asked for.
        asked: &'static str,
    },
    /// The package's kernel is not configured here.
    #[error(
        "package '{0}' has a kernel that is configured already; only one from source has a menu"
    )]
    NoMenu(String),
    /// The package's kernel has a release without a version.
    #[error("kernel release '{0}' does not begin with a version")]
    Release(String),
}

/// A recipe's kernel.
#[derive(Debug)]
pub struct Obtained {
    /// The kernel.
    pub kernel: FetchedKernel,
    /// Whether it stands in for the trimmed kernel, which has no modules: then of its own only
    /// those matter that boot needs.
    pub stands_in: bool,
}

/// Gives the recipe's kernel, checked against what the recipe wants of it.
///
/// # Errors
/// See [`ObtainError`].
pub fn obtain(request: &KernelRequest<'_>) -> Result<Obtained, ObtainError> {
    let kernel = match &request.kernel.origin {
        KernelOrigin::Package(package) => request.package(package)?,
        KernelOrigin::Source(source) => request.make(source, &request.kernel.wanted)?,
        KernelOrigin::Default => return request.choose(),
    };
    Ok(own(kernel))
}

/// Asks for all that [`obtain`] asks for on this host, so that a lock has the answers.
///
/// # Errors
/// See [`ObtainError`].
pub fn pin(request: &KernelRequest<'_>) -> Result<(), ObtainError> {
    match &request.kernel.origin {
        KernelOrigin::Package(package) => request.pin_package(package),
        KernelOrigin::Source(source) => request.pin_source(source, &request.kernel.wanted),
        KernelOrigin::Default => request.pin_default(),
    }
}

/// As [`pin`], but passes over what a kernel of the store makes needless.
///
/// # Errors
/// See [`ObtainError`].
pub fn pin_missing(request: &KernelRequest<'_>) -> Result<(), ObtainError> {
    let pins = request.archive.pins;
    let before = pins.downloads();
    let is_made = match &request.kernel.origin {
        KernelOrigin::Package(_) => false,
        KernelOrigin::Source(source) => {
            let making = request.making(source, &request.kernel.wanted);
            make::is_made(&making).unwrap_or(false)
        }
        KernelOrigin::Default if request.known_default()? == Some(false) => false,
        KernelOrigin::Default => {
            let wanted = default::wanted(&request.kernel.wanted)?;
            let making = default::source();
            make::is_made(&request.making(&making, &wanted)).unwrap_or(false)
        }
    };
    pins.wants_only(before);
    match is_made {
        true => Ok(()),
        false => pin(request),
    }
}

fn own(kernel: FetchedKernel) -> Obtained {
    Obtained {
        kernel,
        stands_in: false,
    }
}

impl KernelRequest<'_> {
    fn pin_package(&self, package: &KernelPackage) -> Result<(), ObtainError> {
        Ok(fetch::pin(
            package,
            self.fetcher,
            self.archive,
            &**self.observer,
        )?)
    }

    fn pin_source(
        &self,
        source: &KernelSource,
        wanted: &[config::Wanted],
    ) -> Result<(), ObtainError> {
        Ok(make::pin(&self.making(source, wanted))?)
    }

    fn pin_default(&self) -> Result<(), ObtainError> {
        let pins = self.archive.pins;
        let wanted = default::wanted(&self.kernel.wanted)?;
        let trimmed = || self.pin_source(&default::source(), &wanted);
        let prebuilt = || self.pin_package(&KernelPackage::user_mode_linux());
        let known = self.known_default()?;
        let is_trimmed = match known {
            Some(is_trimmed) => {
                if is_trimmed { trimmed() } else { prebuilt() }?;
                is_trimmed
            }
            None => {
                let before = pins.seen();
                match trimmed() {
                    Ok(()) => true,
                    Err(error) if self.may_stand_in(&error) => {
                        pins.restore(before);
                        prebuilt()?;
                        false
                    }
                    Err(error) => return Err(error),
                }
            }
        };
        self.saw_default(is_trimmed);
        Ok(())
    }

    fn may_stand_in(&self, error: &ObtainError) -> bool {
        let no_tools = matches!(error, ObtainError::Make(MakeError::Missing(_)));
        (no_tools || self.asks_for_nothing()) && !self.observer.is_cancelled()
    }

    /// Whether it is the trimmed kernel, where somebody says so: who asks, or a lock.
    pub(super) fn known_default(&self) -> Result<Option<bool>, ObtainError> {
        let pins = self.archive.pins;
        let locked = match pins.known_names(default::QUESTION)? {
            Some(names) => match names.as_slice() {
                [name] if name == default::TRIMMED => Some(true),
                [name] if name == default::PREBUILT => Some(false),
                _ => return Err(NotLocked(default::QUESTION.to_owned()).into()),
            },
            None => None,
        };
        let asked = match self.choice {
            KernelChoice::Auto => None,
            KernelChoice::Prebuilt => Some(false),
            KernelChoice::Trimmed => Some(true),
        };
        match (asked, locked) {
            (Some(asked), Some(locked)) if asked != locked && !pins.is_making() => {
                Err(ObtainError::OtherChoice {
                    locked: default::name(locked),
                    asked: default::name(asked),
                })
            }
            _ => Ok(asked.or(locked)),
        }
    }

    fn saw_default(&self, is_trimmed: bool) {
        let name = default::name(is_trimmed).to_owned();
        self.archive.pins.saw_names(default::QUESTION, &[name]);
    }

    fn package(&self, package: &KernelPackage) -> Result<FetchedKernel, ObtainError> {
        let kernel = fetch::fetch(package, self.fetcher, self.archive, &**self.observer)?;
        self.check(&kernel.files)?;
        Ok(kernel)
    }

    /// Compares what was built by others with what the recipe wants.
    fn check(&self, kernel: &KernelFiles) -> Result<(), ObtainError> {
        if !self.kernel.modules && kernel.modules.is_some() {
            return Err(ObtainError::Modules(kernel.release.clone()));
        }
        let version = Version::of_release(&kernel.release)
            .ok_or_else(|| ObtainError::Release(kernel.release.clone()))?;
        let merged = config::merge(&self.kernel.wanted, kernel.target, version);
        for conflict in &merged.conflicts {
            let message = &conflict.to_string();
            self.observer.event(&Event::Warning { message });
        }
        let config = DotConfig::parse(&kernel.config);
        let unmet = config::unmet(&merged.wanted, &config, self.kernel.modules);
        if unmet.is_empty() {
            return Ok(());
        }
        let each: Vec<String> = unmet.iter().map(Unmet::to_string).collect();
        if self.allow_dropped {
            for message in &each {
                self.observer.event(&Event::Warning { message });
            }
            return Ok(());
        }
        Err(ObtainError::Config {
            release: kernel.release.clone(),
            list: each.join("; "),
        })
    }

    /// What a kernel from source is made with.
    pub(super) fn making<'b>(
        &'b self,
        source: &'b KernelSource,
        wanted: &'b [config::Wanted],
    ) -> MakeRequest<'b> {
        MakeRequest {
            source,
            wanted,
            defconfig: self.kernel.defconfig,
            allow_dropped: self.allow_dropped,
            only_stored: self.only_stored,
            fetcher: self.fetcher,
            archive: self.archive,
            programs: self.programs,
            host: self.host,
            observer: self.observer,
        }
    }

    fn make(
        &self,
        source: &KernelSource,
        wanted: &[config::Wanted],
    ) -> Result<FetchedKernel, ObtainError> {
        Ok(make::build(&self.making(source, wanted))?)
    }

    fn choose(&self) -> Result<Obtained, ObtainError> {
        let known = self.known_default()?;
        let obtained = match known.filter(|_| self.archive.pins.used().is_some()) {
            Some(true) => {
                self.note(&default::trimmed_because(default::AS_LOCKED));
                own(self.make_default()?)
            }
            Some(false) => {
                self.note(&default::prebuilt_because(default::AS_LOCKED));
                self.stand_in()?
            }
            None => self.choose_live()?,
        };
        self.saw_default(!obtained.stands_in);
        Ok(obtained)
    }

    fn choose_live(&self) -> Result<Obtained, ObtainError> {
        let before = self.archive.pins.seen();
        let missing = match self.choice {
            KernelChoice::Auto => make::missing(Target::Um, &Programs::of_system(self.programs)),
            KernelChoice::Prebuilt | KernelChoice::Trimmed => Ok(Vec::new()),
        };
        let missing = match missing {
            Ok(missing) => missing,
            Err(error) if self.asks_for_nothing() => return self.stand_in_because(&error),
            Err(error) => return Err(error.into()),
        };
        match default::choose(self.choice, &missing) {
            Chosen::Prebuilt => {
                self.note(&default::prebuilt_sentence(&[]));
                self.stand_in()
            }
            Chosen::Trimmed => {
                self.note(&default::trimmed_sentence(self.choice));
                self.trimmed(before)
            }
            Chosen::Stored => match self.make_default() {
                Ok(kernel) => {
                    self.note(&default::stored_sentence(&kernel.files.release));
                    Ok(own(kernel))
                }
                // It is there, and it is not what the recipe asks for.
                Err(error @ ObtainError::Make(MakeError::Dropped { .. })) => Err(error),
                Err(error) if self.observer.is_cancelled() => Err(error),
                Err(_) => {
                    self.archive.pins.restore(before);
                    self.note(&default::prebuilt_sentence(&missing));
                    self.stand_in()
                }
            },
        }
    }

    /// Makes the trimmed kernel. Where nobody asked for any kernel in particular, a prebuilt one
    /// stands in for one that cannot be made.
    fn trimmed(&self, before: Lock) -> Result<Obtained, ObtainError> {
        match self.make_default() {
            Err(error) if self.asks_for_nothing() && !self.observer.is_cancelled() => {
                self.archive.pins.restore(before);
                self.stand_in_because(&error)
            }
            other => other.map(own),
        }
    }

    fn asks_for_nothing(&self) -> bool {
        self.choice == KernelChoice::Auto && self.kernel.wanted.is_empty() && !self.kernel.defconfig
    }

    fn stand_in_because(&self, error: &dyn std::error::Error) -> Result<Obtained, ObtainError> {
        let message = format!(
            "the trimmed kernel could not be built, a prebuilt one takes its place: {error}"
        );
        self.observer.event(&Event::Warning { message: &message });
        self.stand_in()
    }

    fn make_default(&self) -> Result<FetchedKernel, ObtainError> {
        let wanted = default::wanted(&self.kernel.wanted)?;
        self.make(&default::source(), &wanted)
    }

    fn note(&self, message: &str) {
        self.observer.event(&Event::Note { message });
    }

    /// Debian's User-Mode Linux in place of the trimmed kernel.
    fn stand_in(&self) -> Result<Obtained, ObtainError> {
        Ok(Obtained {
            kernel: self.package(&KernelPackage::user_mode_linux())?,
            stands_in: true,
        })
    }
}
