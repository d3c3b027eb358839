//! Several blobs at a time: most of a small blob's time is waiting for the registry's answers.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use coop_appliance::bundle::Descriptor;

use super::error::RegistryError;
use super::lock;
use super::progress::Progress;

/// How many blobs go or come at a time.
const AT_A_TIME: usize = 4;

/// Does some work with each blob, the largest first. Once one fails the others are called off, and
/// its error is given.
pub(super) fn each<R: Send>(
    mut blobs: Vec<&Descriptor>,
    progress: &Progress<'_>,
    work: impl Fn(&Descriptor) -> Result<R, RegistryError> + Sync,
) -> Result<Vec<R>, RegistryError> {
    blobs.sort_by_key(|blob| std::cmp::Reverse(blob.size));
    let (next, done) = (AtomicUsize::new(0), Mutex::new((Vec::new(), Vec::new())));
    let worker = || {
        while !progress.is_cancelled() {
            let Some(blob) = blobs.get(next.fetch_add(1, Ordering::Relaxed)) else {
                break;
            };
            match work(blob) {
                Ok(result) => lock(&done).0.push(result),
                Err(error) => {
                    // In this order, so that the first error is the one that called others off.
                    lock(&done).1.push(error);
                    progress.call_off();
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..AT_A_TIME.min(blobs.len()) {
            let thread = std::thread::Builder::new().name("coop-blob".into());
            // Where there are no more threads, those that there are do it all.
            let _ = thread.spawn_scoped(scope, worker);
        }
        worker();
    });
    let (results, errors) = done.into_inner().unwrap_or_default();
    match errors.into_iter().next() {
        Some(error) => Err(error),
        None if results.len() < blobs.len() => Err(RegistryError::Cancelled("blobs".to_owned())),
        None => Ok(results),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_failure_calls_the_others_off() {
        let blobs: Vec<Descriptor> = (0..20_u8).map(|i| Descriptor::of("a/b", &[i])).collect();
        let progress = Progress::silent();
        let sizes = each(blobs.iter().collect(), &progress, |blob| Ok(blob.size)).unwrap();
        assert_eq!(sizes, [1; 20]);
        let bad = &blobs[3];
        let result = each(blobs.iter().collect(), &progress, |blob| {
            if blob.digest == bad.digest {
                return Err(RegistryError::Missing("it".to_owned()));
            }
            // The others stay until they are called off.
            while blobs.iter().position(|one| one.digest == blob.digest) < Some(3) {
                if progress.is_cancelled() {
                    return Err(RegistryError::Cancelled("another".to_owned()));
                }
                std::thread::yield_now();
            }
            Ok(())
        });
        let error = result.unwrap_err();
        assert!(matches!(error, RegistryError::Missing(_)), "{error}");
        let after = each(blobs.iter().collect(), &progress, |_| Ok(()));
        assert!(matches!(after, Err(RegistryError::Cancelled(_))));
    }
}
