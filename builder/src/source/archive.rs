//! The Debian archive that a build uses where the recipe names none, and the present time.

use coop_runtime::event::Observer;

use crate::debian::mirror::{self, AptSources, Mirror, MirrorError, MirrorOrigin};
use crate::debian::suite::{DebianError, SuiteRequest, Suites};
use crate::fetch::Fetcher;
use crate::lock::Pins;
use crate::recipe::RepositoryMirror;

/// What a build knows of Debian archives beyond its recipe.
#[derive(Clone, Copy, Debug)]
pub struct Archive<'a> {
    /// The environment's mirror.
    pub environment: Option<&'a str>,
    /// The environment's snapshot archive.
    pub snapshots: Option<&'a str>,
    /// The host's apt sources.
    pub apt: &'a AptSources,
    /// Debian's name of the architecture.
    pub architecture: &'a str,
    /// The present, in seconds since 1970: for expiry.
    pub now_seconds: i64,
    /// A lock, and what was asked so far.
    pub pins: &'a Pins,
}

impl<'a> Archive<'a> {
    /// The recipe's mirror, or the archive at hand.
    ///
    /// # Errors
    /// Nobody names one, or its name is no URL.
    pub fn mirror(&self, recipe: Option<&str>) -> Result<Mirror, MirrorError> {
        mirror::choose(recipe, self.environment, self.apt)
    }

    /// The main archive as it was at an instant, from the recipe's snapshot archive or the
    /// environment's.
    ///
    /// # Errors
    /// Nobody names one, or its name is no URL.
    pub fn snapshot(&self, stamp: &str, recipe: Option<&str>) -> Result<Mirror, MirrorError> {
        mirror::snapshot(stamp, recipe, self.snapshots)
    }

    /// Where a further suite is, seen from the main one's mirror.
    ///
    /// # Errors
    /// The address is no URL, or no security archive belongs to the mirror.
    pub fn repository_mirror(
        &self,
        repository: &RepositoryMirror,
        main: &Mirror,
    ) -> Result<Mirror, MirrorError> {
        match repository {
            RepositoryMirror::Main => Ok(main.clone()),
            RepositoryMirror::Security => mirror::security(main, self.apt),
            RepositoryMirror::Url(url) => self.mirror(Some(url)),
        }
    }

    /// A request for `main` of a suite whose name is still to be filled in, signed by Debian.
    #[must_use]
    pub fn request(&self, mirror: Mirror) -> SuiteRequest {
        SuiteRequest {
            archive: match (&mirror.snapshot, mirror.origin) {
                // Whose it is says nothing about what is in it.
                (Some(snapshot), _) => format!("at {}", snapshot.stamp),
                (None, MirrorOrigin::AptSources | MirrorOrigin::Environment) => String::new(),
                (None, MirrorOrigin::Recipe) => mirror.url.clone(),
            },
            mirror,
            suite: String::new(),
            components: Vec::new(),
            architecture: self.architecture.to_owned(),
            named_architecture: false,
            foreign: Vec::new(),
            keyring: None,
            priority: None,
            now_seconds: self.now_seconds,
            pinned: None,
        }
    }

    /// Opens suites, or looks them up in the lock.
    ///
    /// # Errors
    /// See [`Suites::open`].
    pub fn open<'b>(
        &self,
        fetcher: &'b Fetcher,
        requests: Vec<SuiteRequest>,
        observer: &'b dyn Observer,
    ) -> Result<Suites<'b>, DebianError>
    where
        'a: 'b,
    {
        Suites::open(fetcher, requests, self.pins, observer)
    }
}
