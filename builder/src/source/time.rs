//! The latest time in what a source has: nothing in an image is younger. It is kept, so that a build
//! need not read an archive or a disk to know it.

use coop_image::tree::{Timestamp, Tree};

use crate::store::{Store, StoreError};

/// The store's kind of notes with the latest time of an archive's entries, or of a disk's files.
const TIME_NOTE: &str = "archive-time-1";

/// The latest time of what was read before under this key.
pub(super) fn known_time(store: &Store, key: &str) -> Result<Option<Timestamp>, StoreError> {
    let note = store.note(TIME_NOTE, key)?;
    let text = note.and_then(|bytes| String::from_utf8(bytes).ok());
    let (seconds, nanoseconds) = match text.as_deref().and_then(|text| text.split_once(' ')) {
        Some((seconds, nanoseconds)) => (seconds.parse(), nanoseconds.parse()),
        None => return Ok(None),
    };
    Ok(match (seconds, nanoseconds) {
        (Ok(seconds), Ok(nanoseconds)) => Some(Timestamp {
            seconds,
            nanoseconds,
        }),
        _ => None,
    })
}

/// Keeps the latest time for [`known_time`].
pub(super) fn remember_time(store: &Store, key: &str, time: Timestamp) -> Result<(), StoreError> {
    let text = format!("{} {}", time.seconds, time.nanoseconds);
    store.put_note(TIME_NOTE, key, text.as_bytes())
}

/// The time of the youngest entry: nothing that coop adds is younger than the archive itself.
pub(super) fn latest_time(tree: &Tree) -> Timestamp {
    let times = tree.inodes().iter().map(|i| i.metadata.times.modified);
    times.max().unwrap_or_default()
}
