//! What both bills of materials say of an appliance beside its packages: the kernel, and the
//! archive that a root file system without packages comes from.

use coop_appliance::Manifest;
use coop_image::tree::display;

use super::Evidence;
use super::inputs::{Inputs, Use};
use super::software::{Package, Software};
use crate::calendar::Moment;
use crate::digest::Digest;
use crate::inputs::seed;
use crate::lock::Lock;
use crate::recipe::{Source, TarballLocation};

/// What bills of materials are made of.
pub(super) struct Bill<'a> {
    pub(super) manifest: &'a Manifest,
    pub(super) software: &'a Software,
    /// The archive of the root file system: name and digest.
    pub(super) archive: Option<(String, Digest)>,
    /// The identifier of a document, for a purpose.
    pub(super) resolved: Digest,
    /// The source's present, as `2026-11-22T09:00:00Z`.
    pub(super) created: String,
    /// What the kernel was made from: name and digest.
    pub(super) kernel_sources: Vec<(String, Digest)>,
}

impl<'a> Bill<'a> {
    /// `lock` calls the host's files as `inputs` does.
    pub(super) fn new(
        evidence: &Evidence<'a>,
        software: &'a Software,
        lock: &Lock,
        inputs: &Inputs,
    ) -> Self {
        let sources = evidence.manifest.kernel.sources.iter();
        Self {
            manifest: evidence.manifest,
            software,
            archive: archive(&evidence.recipe.rootfs.source, lock, inputs),
            resolved: evidence.resolved,
            created: rfc3339(evidence.epoch.seconds),
            kernel_sources: sources.filter_map(|line| pinned(line)).collect(),
        }
    }

    /// A UUID for a purpose, as text.
    pub(super) fn uuid(&self, purpose: &str) -> String {
        let mut text = String::with_capacity(36);
        for (index, byte) in seed(&self.resolved, purpose).iter().enumerate() {
            if matches!(index, 4 | 6 | 8 | 10) {
                text.push('-');
            }
            text.push_str(&format!("{byte:02x}"));
        }
        text
    }

    pub(super) fn purl(&self, package: &Package) -> String {
        super::purl::of_vendor(
            &self.software.vendor,
            &package.name,
            &package.version,
            &package.architecture,
            Some(&self.software.release),
        )
    }
}

/// The archive or disk that a root file system comes from, by its name in the evidence.
fn archive(source: &Source, lock: &Lock, inputs: &Inputs) -> Option<(String, Digest)> {
    let name = match source.location()? {
        TarballLocation::Url { url, .. } => url.clone(),
        TarballLocation::Path { file, .. } => inputs.name(Use::Content, file),
    };
    let file = lock.files.iter().find(|file| file.name == name)?;
    let last = name.rsplit('/').next().unwrap_or_default();
    Some((last.to_owned(), file.sha256))
}

/// A line that ends with a digest.
pub(super) fn pinned(line: &str) -> Option<(String, Digest)> {
    let (name, digest) = line.rsplit_once(" sha256:")?;
    Some((display(name.as_bytes()), digest.parse().ok()?))
}

/// Seconds since 1970 as date and time in UTC; what is before 1970 or after 9999 is cut off there.
pub(super) fn rfc3339(seconds: i64) -> String {
    let Moment {
        year,
        month,
        day,
        hour,
        minute,
        second,
    } = Moment::of(seconds.max(0));
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// An address that may stand in a document.
pub(super) fn homepage(package: &Package) -> Option<&str> {
    let url = package.homepage.as_str();
    let is_web = url.starts_with("https://") || url.starts_with("http://");
    let allowed = |byte: u8| byte.is_ascii_graphic() && !b"\"<>\\^`{|}[]".contains(&byte);
    (is_web && url.bytes().all(allowed)).then_some(url)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lock::LockedFile;
    use crate::recipe::Tarball;

    #[test]
    fn seconds_become_dates() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_767_225_599, "2025-12-31T23:59:59Z"),
            (-5, "1970-01-01T00:00:00Z"),
            (i64::MAX, "9999-12-31T23:59:59Z"),
        ] {
            assert_eq!(rfc3339(seconds), text);
        }
    }

    #[test]
    fn the_archive_of_the_root_is_not_the_kernels() {
        let url = "http://a.invalid/root.tar";
        let file = |name: &str, text: &str| LockedFile {
            name: name.to_owned(),
            size: None,
            sha256: Digest::of(text.as_bytes()),
        };
        let lock = Lock {
            files: vec![
                file("http://a.invalid/linux.tar", "linux"),
                file(url, "root"),
            ],
            ..Lock::default()
        };
        let source = Source::Tarball(Tarball {
            location: TarballLocation::Url {
                url: url.to_owned(),
                sha256: None,
            },
            strip_components: 0,
        });
        assert_eq!(
            archive(&source, &lock, &Inputs::default()),
            Some(("root.tar".to_owned(), Digest::of(b"root")))
        );
    }
}
