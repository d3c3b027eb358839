//! The archives' side: verified indices, each asked for once, and the lists that they name.

use coop_runtime::event::Event;

use super::request::DEFAULT_COMPONENT;
use super::{DebianError, SuiteFacts, SuiteRequest, Suites};
use crate::debian::extra::ExtraDeb;
use crate::debian::keys::Keyring;
use crate::debian::packages::{ListRequest, PackageList, PackagesError, fetch_list};
use crate::debian::release::{ReleaseRequest, VerifiedRelease, open_release};
use crate::digest::Digest;
use crate::fetch::Fetcher;

/// What Debian's own archives call themselves.
const DEBIAN_ORIGINS: &[&str] = &["Debian", "Debian Backports"];

impl Suites<'_> {
    /// Goes to the archives.
    pub(super) fn open_lists(&self) -> Result<Vec<SuiteFacts>, DebianError> {
        let (mut lists, mut facts) = (Vec::new(), Vec::new());
        for (request, release) in self.requests.iter().zip(self.releases()?) {
            let (of_suite, added) = self.add(request, release)?;
            if let Some(old) = self.pins.known_suite(&request.key())? {
                let digests = [old.inrelease].into_iter().chain(old.older.iter().copied());
                for digest in digests.filter(|digest| *digest != of_suite.digest) {
                    lists.extend(self.old_lists(request, digest));
                }
            }
            lists.extend(added);
            facts.push(of_suite);
        }
        self.saw(&facts);
        lists.extend(self.extra.iter().map(ExtraDeb::list));
        // Whoever was first has the same.
        self.lists.get_or_init(|| lists);
        Ok(facts)
    }

    pub(super) fn lists(&self) -> Result<&[PackageList], DebianError> {
        if self.lists.get().is_none() {
            self.open_lists()?;
        }
        Ok(self.lists.get().map_or(&[], Vec::as_slice))
    }

    /// What an old lock holds of the lists of one of its indices, as far as these can still be had:
    /// an archive forgets its old versions.
    fn old_lists(&self, request: &SuiteRequest, index: Digest) -> Vec<PackageList> {
        let is_there = matches!(self.fetcher.store().blob(&index), Ok(Some(_)));
        if !is_there {
            return Vec::new();
        }
        let request = SuiteRequest {
            pinned: Some(index),
            ..request.clone()
        };
        let release = self.open_release(&request);
        let added = release.and_then(|release| self.add(&request, &release));
        let Ok((_, mut lists)) = added else {
            return Vec::new();
        };
        for list in &mut lists {
            let held = self.pins.held(&list.key);
            list.keep(|package| held.iter().any(|held| package.is(held)));
        }
        lists
    }

    fn open_release(&self, request: &SuiteRequest) -> Result<VerifiedRelease, DebianError> {
        let release = open_suite(self.fetcher, request)?;
        if release.expired {
            let message = format!(
                "the index of suite '{}' has expired; the host's apt configuration allows that",
                request.suite
            );
            let message = &message;
            self.observer.event(&Event::Warning { message });
        }
        Ok(release)
    }

    pub(super) fn releases(&self) -> Result<&[VerifiedRelease], DebianError> {
        if self.releases.get().is_none() {
            let requests = self.requests.iter();
            let opened = requests.map(|request| self.open_release(request));
            let opened = opened.collect::<Result<_, _>>()?;
            // Whoever was first has the same.
            self.releases.get_or_init(|| opened);
        }
        Ok(self.releases.get().map_or(&[], Vec::as_slice))
    }

    fn add(
        &self,
        request: &SuiteRequest,
        release: &VerifiedRelease,
    ) -> Result<(SuiteFacts, Vec<PackageList>), DebianError> {
        let (fetcher, observer) = (self.fetcher, self.observer);
        let default = [DEFAULT_COMPONENT.to_owned()];
        let components = match request.components.as_slice() {
            [] => &default,
            some => some,
        };
        let from = ListRequest {
            release,
            mirror: &request.mirror.url,
            suite: &request.suite,
            key: &request.key(),
            architecture: self.architecture(),
            priority: request
                .priority
                .unwrap_or_else(|| release.release.default_priority()),
        };
        let mut lists = Vec::new();
        for component in components {
            lists.push(fetch_list(fetcher, &from, component, observer)?);
            for architecture in &request.foreign {
                let from = ListRequest {
                    architecture,
                    ..from
                };
                match fetch_list(fetcher, &from, component, observer) {
                    // Not every archive has what Debian has.
                    Err(PackagesError::NoComponent { .. }) => {}
                    list => lists.push(list?),
                }
            }
        }
        Ok((facts_of(release), lists))
    }
}

pub(super) fn facts_of(release: &VerifiedRelease) -> SuiteFacts {
    SuiteFacts {
        codename: release.release.codename.clone(),
        date_seconds: release.release.date_seconds,
        digest: release.digest,
    }
}

/// Fetches or finds the index of a suite, and verifies it.
///
/// # Errors
/// [`DebianError::Keys`] or [`DebianError::Release`].
pub(crate) fn open_suite(
    fetcher: &Fetcher,
    request: &SuiteRequest,
) -> Result<VerifiedRelease, DebianError> {
    let own;
    let (keyring, origins) = match &request.keyring {
        Some(keyring) => (keyring, &[][..]),
        None => {
            own = Keyring::debian()?;
            (&own, DEBIAN_ORIGINS)
        }
    };
    let request = ReleaseRequest {
        mirror: &request.mirror.url,
        suite: &request.suite,
        keyring,
        origins,
        now_seconds: request.now_seconds,
        check_valid_until: request.mirror.check_valid_until,
        pinned: request.pinned,
        snapshot_seconds: request.mirror.snapshot.as_ref().map(|one| one.seconds),
    };
    Ok(open_release(fetcher, &request)?)
}
