//! The signed index of a suite: `dists/SUITE/InRelease`, what it says, and whether to believe it.

use std::collections::BTreeMap;

use crate::debian::date;
use crate::debian::deb822::{Deb822Error, Stanzas};
use crate::debian::keys::{Keyring, KeysError};
use crate::debian::mirror::join_url;
use crate::digest::Digest;
use crate::fetch::{FetchError, Fetcher};
use crate::store::StoreError;

/// The largest InRelease file, in bytes.
pub const RELEASE_BYTES_MAX: u64 = 16 << 20;
/// The most files that a Release file may list.
const FILES_MAX: usize = 200_000;
/// How far this machine's clock and that of an archive may be apart, in seconds: so far in the future
/// may a Release file's date lie, and so far in the past its Valid-Until.
pub const CLOCK_TOLERANCE_SECONDS: i64 = 3600;
/// How long after its date an index is signed at the latest; an archive's machinery and people take
/// their time, hours for a point release.
const SIGNING_SECONDS_MAX: i64 = 24 * 3600;
/// Kind of the note that remembers a suite's newest Release file.
const NOTE_KIND: &str = "release-1";

/// A file that a Release file lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexFile {
    /// SHA-256 of the file.
    pub digest: Digest,
    /// Its size in bytes.
    pub size_bytes: u64,
}

/// What a Release file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    /// `Debian` for Debian's own archive; may be empty.
    pub origin: String,
    /// `stable`; may be empty.
    pub suite: String,
    /// `trixie`; may be empty.
    pub codename: String,
    /// When it was made, in seconds since 1970.
    pub date_seconds: i64,
    /// Until when it may be used, in seconds since 1970.
    pub valid_until_seconds: Option<i64>,
    /// Whether apt takes nothing of it unasked (`NotAutomatic`).
    pub not_automatic: bool,
    /// Whether it then still upgrades what is from it (`ButAutomaticUpgrades`).
    pub but_automatic_upgrades: bool,
    /// Whether files can be fetched by their digest.
    pub acquire_by_hash: bool,
    /// `main`, `contrib`, …
    pub components: Vec<String>,
    /// `amd64`, `all`, …
    pub architectures: Vec<String>,
    /// By path relative to the suite's folder.
    pub files: BTreeMap<String, IndexFile>,
}

/// Text that is no Release file.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ReleaseFormatError {
    /// It is no control stanza.
    #[error(transparent)]
    Deb822(#[from] Deb822Error),
    /// It is not UTF-8.
    #[error("it is not UTF-8")]
    Encoding,
    /// A field is missing that every Release file has.
    #[error("the field {0} is missing")]
    Missing(&'static str),
    /// A field has a value that it cannot have.
    #[error("the field {field} has the invalid value '{value}'")]
    Invalid {
        /// The field.
        field: &'static str,
        /// The value or the line of it.
        value: String,
    },
    /// More files than a Release file may list.
    #[error("it lists more than {FILES_MAX} files")]
    TooMany,
}

impl Release {
    /// Reads the text that was signed.
    ///
    /// # Errors
    /// [`ReleaseFormatError`].
    pub fn parse(text: &[u8]) -> Result<Self, ReleaseFormatError> {
        let text = std::str::from_utf8(text).map_err(|_| ReleaseFormatError::Encoding)?;
        let mut stanzas = Stanzas::new(text);
        let stanza = stanzas
            .next()
            .ok_or(ReleaseFormatError::Missing("Date"))??;
        let text_of = |name| stanza.get(name).unwrap_or_default().to_owned();
        let words_of = |name| {
            let value: &str = stanza.get(name).unwrap_or_default();
            value.split_ascii_whitespace().map(str::to_owned).collect()
        };
        let date_of = |field| {
            stanza
                .get(field)
                .map(|value| parse_date(field, value))
                .transpose()
        };
        let date_seconds = date_of("Date")?.ok_or(ReleaseFormatError::Missing("Date"))?;
        let table = stanza
            .get("SHA256")
            .ok_or(ReleaseFormatError::Missing("SHA256"))?;
        Ok(Self {
            origin: text_of("Origin"),
            suite: text_of("Suite"),
            codename: text_of("Codename"),
            date_seconds,
            valid_until_seconds: date_of("Valid-Until")?,
            not_automatic: stanza.get("NotAutomatic") == Some("yes"),
            but_automatic_upgrades: stanza.get("ButAutomaticUpgrades") == Some("yes"),
            acquire_by_hash: stanza.get("Acquire-By-Hash") == Some("yes"),
            components: words_of("Components"),
            architectures: words_of("Architectures"),
            files: parse_table(table)?,
        })
    }

    /// The priority that apt gives to its packages where nobody says otherwise
    /// (apt_preferences(5)).
    #[must_use]
    pub fn default_priority(&self) -> u16 {
        match (self.not_automatic, self.but_automatic_upgrades) {
            (false, _) => 500,
            (true, true) => 100,
            (true, false) => 1,
        }
    }
}

fn parse_date(field: &'static str, value: &str) -> Result<i64, ReleaseFormatError> {
    date::parse(value).ok_or_else(|| invalid(field, value))
}

fn invalid(field: &'static str, value: &str) -> ReleaseFormatError {
    ReleaseFormatError::Invalid {
        field,
        value: value.chars().take(100).collect(),
    }
}

fn parse_table(table: &str) -> Result<BTreeMap<String, IndexFile>, ReleaseFormatError> {
    let mut files = BTreeMap::new();
    for line in table.lines().filter(|line| !line.trim().is_empty()) {
        if files.len() >= FILES_MAX {
            return Err(ReleaseFormatError::TooMany);
        }
        let (path, file) = parse_row(line).ok_or_else(|| invalid("SHA256", line))?;
        if files
            .insert(path.to_owned(), file)
            .is_some_and(|other| other != file)
        {
            return Err(invalid("SHA256", line));
        }
    }
    Ok(files)
}

fn parse_row(line: &str) -> Option<(&str, IndexFile)> {
    let mut words = line.split_ascii_whitespace();
    let digest = words.next()?.parse().ok()?;
    let size_bytes = words.next()?.parse().ok()?;
    let path = words.next()?;
    let file = IndexFile { digest, size_bytes };
    (words.next().is_none() && is_plain_path(path)).then_some((path, file))
}

/// Whether a path from an index stays below the folder that it is relative to.
pub(crate) fn is_plain_path(path: &str) -> bool {
    let plain_part = |part: &str| !matches!(part, "" | "." | "..");
    path.split('/').all(plain_part) && path.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Which suite to open, and how strictly.
#[derive(Clone, Debug)]
pub struct ReleaseRequest<'a> {
    /// The archive's base URL, as `http://host/debian`.
    pub mirror: &'a str,
    /// Suite or codename, as `trixie` or `stable-updates`.
    pub suite: &'a str,
    /// Who may sign.
    pub keyring: &'a Keyring,
    /// What `Origin` may be, if not all is allowed; the embedded keys sign for Debian's archives.
    pub origins: &'a [&'a str],
    /// The present, in seconds since 1970.
    pub now_seconds: i64,
    /// Whether a Release file past its Valid-Until is refused.
    pub check_valid_until: bool,
    /// The InRelease file that a lock names; then its age does not matter.
    pub pinned: Option<Digest>,
    /// The instant that a snapshot archive is asked for, in seconds since 1970: the Release file must
    /// not be younger, and is judged as of then.
    pub snapshot_seconds: Option<i64>,
}

/// A Release file that was verified.
#[derive(Clone, Debug)]
pub struct VerifiedRelease {
    /// What it says.
    pub release: Release,
    /// SHA-256 of the InRelease file, signature and all; the store has it as a blob.
    pub digest: Digest,
    /// The suite's folder: `MIRROR/dists/SUITE`.
    pub folder_url: String,
    /// Whether it is past its Valid-Until (and that was allowed).
    pub expired: bool,
}

/// Why a suite cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ReleaseError {
    /// The suite's name is nothing that can be in a URL.
    #[error("'{0}' is not the name of a suite")]
    InvalidSuite(String),
    /// It could not be downloaded.
    #[error("cannot get the index of suite '{suite}': {source}")]
    Fetch {
        /// The suite.
        suite: String,
        /// Why.
        source: FetchError,
    },
    /// Nobody in the keyring signed it, or it was changed.
    #[error("'{url}' cannot be trusted: {source}")]
    Untrusted {
        /// The InRelease file.
        url: String,
        /// Why.
        source: KeysError,
    },
    /// It is signed but no Release file.
    #[error("'{url}' is not a release file: {source}")]
    Format {
        /// The InRelease file.
        url: String,
        /// Why.
        source: ReleaseFormatError,
    },
    /// It is signed for something else.
    #[error("'{url}' is for {found}, not for {wanted}")]
    Wrong {
        /// The InRelease file.
        url: String,
        /// What it says.
        found: String,
        /// What was asked for.
        wanted: String,
    },
    /// It is past its Valid-Until.
    #[error(
        "'{url}' expired {age_hours} hours ago: the mirror is out of date, or someone holds back updates"
    )]
    Expired {
        /// The InRelease file.
        url: String,
        /// How long ago.
        age_hours: i64,
    },
    /// It is dated in the future.
    #[error("'{url}' is dated {ahead_hours} hours in the future: is this machine's clock right?")]
    Future {
        /// The InRelease file.
        url: String,
        /// How far.
        ahead_hours: i64,
    },
    /// It is not what the snapshot archive was asked for.
    #[error(
        "'{url}' is {younger_hours} hours younger than the snapshot that was asked for: the server does \
         not heed the timestamp"
    )]
    Younger {
        /// The InRelease file.
        url: String,
        /// By how much, rounded up.
        younger_hours: i64,
    },
    /// There is no snapshot of the future: the recipe's matter, or the clock's.
    #[error("the snapshot for '{url}' is {ahead_hours} hours in the future; there is none yet")]
    FutureSnapshot {
        /// The InRelease file.
        url: String,
        /// How far, rounded up.
        ahead_hours: i64,
    },
    /// It is older than the one seen before.
    #[error(
        "'{url}' is {older_hours} hours older than the one seen before: the mirror went back in time"
    )]
    RolledBack {
        /// The InRelease file.
        url: String,
        /// By how much, rounded up.
        older_hours: i64,
    },
    /// The mirror does not have the one that the lock names any more.
    #[error("'{url}' has the SHA-256 {actual}, but the lock names {pinned}")]
    Moved {
        /// The InRelease file.
        url: String,
        /// What the lock names.
        pinned: Digest,
        /// What the mirror has.
        actual: Digest,
    },
    /// Nothing is remembered and the network must not be used.
    #[error("the index of suite '{0}' is not in the cache, and offline was asked for")]
    Offline(String),
    /// The cache folder fails.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Fetches (or, offline or pinned, finds) the InRelease file of a suite and verifies it. What was
/// accepted is remembered, so that an older one is refused later.
///
/// # Errors
/// [`ReleaseError`].
pub fn open_release(
    fetcher: &Fetcher,
    request: &ReleaseRequest<'_>,
) -> Result<VerifiedRelease, ReleaseError> {
    if !is_plain_path(request.suite) || request.suite.contains(['%', '?', '#']) {
        return Err(ReleaseError::InvalidSuite(request.suite.to_owned()));
    }
    let folder_url = join_url(request.mirror, &format!("dists/{}", request.suite));
    let url = join_url(&folder_url, "InRelease");
    if let Some(at) = request.snapshot_seconds
        && at > request.now_seconds
    {
        let ahead_hours = hours_up(at - request.now_seconds);
        return Err(ReleaseError::FutureSnapshot { url, ahead_hours });
    }
    let note_key = format!("{} {}", request.mirror, request.suite);
    let remembered = recall(fetcher, &note_key)?;
    let bytes = obtain(fetcher, request, &url, remembered)?;
    let digest = Digest::of(&bytes);
    let is_pinned = request.pinned.is_some();
    let release = verify(request, &url, &bytes)?;
    let expired = check_age(request, &url, &release, remembered)?;
    fetcher.store().put(&bytes)?;
    let value = format!("{} {digest}", release.date_seconds);
    let is_newer =
        remembered.is_none_or(|(date, old)| release.date_seconds >= date && old != digest);
    if !is_pinned && is_newer {
        fetcher
            .store()
            .put_note(NOTE_KIND, &note_key, value.as_bytes())?;
    }
    Ok(VerifiedRelease {
        release,
        digest,
        folder_url,
        expired,
    })
}

/// Date and digest of the newest Release file seen; a damaged note counts as none.
fn recall(fetcher: &Fetcher, key: &str) -> Result<Option<(i64, Digest)>, StoreError> {
    let note = fetcher.store().note(NOTE_KIND, key)?.unwrap_or_default();
    let text = String::from_utf8(note).unwrap_or_default();
    let parsed = text.split_once(' ').and_then(|(date, digest)| {
        let date = date.parse::<i64>().ok()?;
        Some((date, digest.parse::<Digest>().ok()?))
    });
    Ok(parsed)
}

fn obtain(
    fetcher: &Fetcher,
    request: &ReleaseRequest<'_>,
    url: &str,
    remembered: Option<(i64, Digest)>,
) -> Result<Vec<u8>, ReleaseError> {
    let is_remote = !request.mirror.starts_with("file:");
    let known = if fetcher.is_offline() && is_remote {
        request.pinned.or(remembered.map(|(_, digest)| digest))
    } else {
        request.pinned
    };
    if let Some(digest) = known
        && let Some(bytes) = stored(fetcher, &digest)?
    {
        return Ok(bytes);
    }
    if fetcher.is_offline() && is_remote {
        fetcher.refuse(url);
        return Err(ReleaseError::Offline(request.suite.to_owned()));
    }
    let bytes = fetcher
        .read(url, RELEASE_BYTES_MAX)
        .map_err(|source| ReleaseError::Fetch {
            suite: request.suite.to_owned(),
            source,
        })?;
    let actual = Digest::of(&bytes);
    match request.pinned {
        Some(pinned) if pinned != actual => Err(ReleaseError::Moved {
            url: url.to_owned(),
            pinned,
            actual,
        }),
        _ => Ok(bytes),
    }
}

fn stored(fetcher: &Fetcher, digest: &Digest) -> Result<Option<Vec<u8>>, StoreError> {
    let Some(mut file) = fetcher.store().blob(digest)? else {
        return Ok(None);
    };
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut file, &mut bytes)?;
    Ok((Digest::of(&bytes) == *digest).then_some(bytes))
}

fn verify(request: &ReleaseRequest<'_>, url: &str, bytes: &[u8]) -> Result<Release, ReleaseError> {
    let format = |source| ReleaseError::Format {
        url: url.to_owned(),
        source,
    };
    // What a lock names by its digest is judged as of its own date, and a snapshot as of its instant:
    // it may be older than a key's last day. What claims to be of later is judged as of then, and
    // refused for its date, which says more than that its signature is none yet.
    let claimed = claimed_date(bytes).unwrap_or(request.now_seconds);
    let at_seconds = match (request.pinned, request.snapshot_seconds) {
        // It is signed some time after its date.
        (Some(_), _) => claimed.saturating_add(SIGNING_SECONDS_MAX),
        (None, at) => at.unwrap_or(request.now_seconds).max(claimed),
    };
    let signed = request
        .keyring
        .verify(bytes, at_seconds)
        .map_err(|source| ReleaseError::Untrusted {
            url: url.to_owned(),
            source,
        })?;
    let release = Release::parse(&signed).map_err(format)?;
    let wrong = |found: String, wanted: &str| ReleaseError::Wrong {
        url: url.to_owned(),
        found,
        wanted: wanted.to_owned(),
    };
    if request.suite != release.suite && request.suite != release.codename {
        let found = format!("suite '{}' ('{}')", release.suite, release.codename);
        return Err(wrong(found, &format!("'{}'", request.suite)));
    }
    match request.origins {
        [first, ..] if !request.origins.contains(&&*release.origin) => Err(wrong(
            format!("origin '{}'", release.origin),
            &format!("'{first}'"),
        )),
        _ => Ok(release),
    }
}

fn claimed_date(bytes: &[u8]) -> Option<i64> {
    let text = String::from_utf8_lossy(bytes);
    let line = text.lines().find_map(|line| line.strip_prefix("Date:"))?;
    date::parse(line)
}

/// Says whether the Release file is past its Valid-Until, where that is allowed.
fn check_age(
    request: &ReleaseRequest<'_>,
    url: &str,
    release: &Release,
    remembered: Option<(i64, Digest)>,
) -> Result<bool, ReleaseError> {
    let url = || url.to_owned();
    if request.pinned.is_some() {
        return Ok(false);
    }
    if let Some(at) = request.snapshot_seconds {
        // Whose date is later than the instant was not there at the instant.
        if release.date_seconds > at {
            return Err(ReleaseError::Younger {
                url: url(),
                younger_hours: hours_up(release.date_seconds - at),
            });
        }
        return expired(request, url(), release, at);
    }
    let ahead = release.date_seconds - request.now_seconds;
    if ahead > CLOCK_TOLERANCE_SECONDS {
        return Err(ReleaseError::Future {
            url: url(),
            ahead_hours: ahead / 3600,
        });
    }
    if let Some((date, _)) = remembered
        && release.date_seconds < date
    {
        return Err(ReleaseError::RolledBack {
            url: url(),
            older_hours: hours_up(date - release.date_seconds),
        });
    }
    expired(request, url(), release, request.now_seconds)
}

/// Whether it is past its Valid-Until at some instant.
fn expired(
    request: &ReleaseRequest<'_>,
    url: String,
    release: &Release,
    at_seconds: i64,
) -> Result<bool, ReleaseError> {
    let late = release
        .valid_until_seconds
        .map_or(0, |until| at_seconds - until);
    let is_expired = late > CLOCK_TOLERANCE_SECONDS;
    if is_expired && request.check_valid_until {
        let age_hours = late / 3600;
        return Err(ReleaseError::Expired { url, age_hours });
    }
    Ok(is_expired)
}

fn hours_up(seconds: i64) -> i64 {
    seconds.saturating_add(3599) / 3600
}
