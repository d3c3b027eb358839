//! What the text forms of keys and signatures share.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::error::KeyError;

/// Takes fixed pieces off bytes.
pub(super) struct Fields<'b>(pub(super) &'b [u8]);

impl Fields<'_> {
    /// The next bytes; `None` where there are fewer.
    pub(super) fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, left) = self.0.split_first_chunk::<N>()?;
        self.0 = left;
        Some(*taken)
    }

    /// `value`, if nothing is left.
    pub(super) fn end<T>(&self, value: T) -> Option<T> {
        self.0.is_empty().then_some(value)
    }
}

/// Decodes canonical base64 only: one key, one text.
pub(super) fn decode(line: &str, what: &'static str) -> Result<Vec<u8>, KeyError> {
    STANDARD.decode(line).map_err(|_| KeyError::Form {
        what,
        reason: "its base64 is damaged",
    })
}

pub(super) fn encode(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}
