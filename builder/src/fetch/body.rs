//! Files that are read while they come, and those of this machine.

use std::io::Read;
use std::path::PathBuf;

use fs_err as fs;

use super::FetchError;
use crate::percent;

/// Bytes of a file from some offset on.
pub(super) struct Body {
    pub(super) reader: Box<dyn Read>,
    pub(super) offset: u64,
}

pub(super) fn open_file(rest: &str) -> Result<Body, FetchError> {
    let path = file_path(rest).ok_or_else(|| FetchError::Scheme(format!("file:{rest}")))?;
    let file = fs::File::open(path).map_err(FetchError::File)?;
    Ok(Body {
        reader: Box::new(file),
        offset: 0,
    })
}

/// The path of a `file:` URL (RFC 8089) whose scheme is cut off; only this machine's files.
pub(super) fn file_path(rest: &str) -> Option<PathBuf> {
    use std::os::unix::ffi::OsStringExt;
    let path = match rest.strip_prefix("//") {
        Some(authority) => authority.strip_prefix("localhost").unwrap_or(authority),
        None => rest,
    };
    if !path.starts_with('/') {
        return None;
    }
    let bytes = percent::decode(path)?;
    Some(std::ffi::OsString::from_vec(bytes).into())
}
