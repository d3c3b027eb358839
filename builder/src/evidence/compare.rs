//! Where two appliances differ first, for people who want to know why.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::path::Path;

use coop_appliance::{Appliance, ApplianceError, MANIFEST_NAME};
use coop_image::compare::Field;
use coop_image::tree::display;
use fs_err as fs;
use serde::Serialize;
use serde_json::Value;

use crate::cobd::{self, DiffError, Found, Operand};

/// The largest JSON file that is looked into, in bytes.
const JSON_BYTES_MAX: u64 = 64 << 20;
/// So much of a value is shown, in characters.
const SHOWN_MAX: usize = 200;
/// Files are compared in pieces of this size.
const PIECE_BYTES: usize = 1 << 20;

/// The first difference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The appliance's file.
    pub file: String,
    /// The path in the file system that it holds.
    pub path: Option<String>,
    /// What differs: a property of an inode, `byte`, a JSON pointer.
    pub field: String,
    /// What the first has.
    pub first: Option<String>,
    /// What the second has.
    pub second: Option<String>,
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.file)?;
        if let Some(path) = &self.path {
            write!(f, ": {path}")?;
        }
        let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "nothing".into());
        let (first, second) = (shown(&self.first), shown(&self.second));
        write!(f, ": {}: {first}, {second}", self.field)
    }
}

/// Where two appliances differ first, whose manifests tell the truth: in what their file systems
/// hold, in another file, in the manifest, or, where it is nothing of that, in the bytes of an image.
///
/// # Errors
/// A file cannot be read.
pub fn first_difference(one: &Appliance, two: &Appliance) -> Result<Option<Difference>, DiffError> {
    if one.manifest == two.manifest {
        return Ok(None);
    }
    let mut first = None;
    let both = [one, two].map(|side| Operand::Appliance(Box::new(side.clone())));
    let [ours, theirs] = both;
    cobd::diff(ours, theirs, &BTreeSet::new(), &mut |found| {
        first = Some(found);
        ControlFlow::Break(())
    })?;
    if let Some(found) = first {
        return Ok(Some(describe(one, two, found)));
    }
    for member in one.manifest.members() {
        let others = two.manifest.members();
        let other = others
            .filter(|other| other.path == member.path)
            .find(|other| other != &member);
        if other.is_some() {
            let [left, right] = [one, two].map(|side| side.folder.join(&member.path));
            return Ok(Some(
                bytes(&member.path, &left, &right)
                    .map_err(ApplianceError::Io)
                    .map_err(cobd::OpenError::from)?,
            ));
        }
    }
    Ok(Some(Difference {
        file: MANIFEST_NAME.to_owned(),
        path: None,
        field: "members".to_owned(),
        first: None,
        second: None,
    }))
}

fn describe(one: &Appliance, two: &Appliance, found: Found) -> Difference {
    let Found { cobd, difference } = found;
    let field = match &difference.detail {
        Some(detail) => format!("{} {detail}", difference.field.name()),
        None => difference.field.name().to_owned(),
    };
    let path = display(&difference.path);
    if let Some(name) = cobd {
        let mut devices = one.manifest.cobd.iter();
        let image = devices.find(|device| device.name == name);
        return Difference {
            file: image.map_or(name, |device| device.image.path.clone()),
            path: Some(path),
            field,
            first: difference.first,
            second: difference.second,
        };
    }
    let file = path.trim_start_matches('/').to_owned();
    if file.ends_with(".json") && difference.field != Field::Manifest {
        let [left, right] = [one, two].map(|side| json(&side.folder.join(&file)));
        let pointed = left
            .zip(right)
            .and_then(|(left, right)| pointer(&left, &right, ""));
        if let Some((pointer, first, second)) = pointed {
            return Difference {
                file,
                path: None,
                field: pointer,
                first,
                second,
            };
        }
    }
    Difference {
        file,
        path: None,
        field,
        first: difference.first,
        second: difference.second,
    }
}

fn json(path: &Path) -> Option<Value> {
    let metadata = fs::metadata(path).ok()?;
    if metadata.len() > JSON_BYTES_MAX {
        return None;
    }
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

type Pointed = (String, Option<String>, Option<String>);

/// The pointer (RFC 6901) to the first value that differs, with both. Values that serde_json has
/// read are at most 128 deep.
fn pointer(one: &Value, two: &Value, at: &str) -> Option<Pointed> {
    let below = |key: &str, left: Option<&Value>, right: Option<&Value>| {
        let key = key.replace('~', "~0").replace('/', "~1");
        let at = format!("{at}/{key}");
        match (left, right) {
            (Some(left), Some(right)) => pointer(left, right, &at),
            (left, right) => Some((at, left.map(shown), right.map(shown))),
        }
    };
    match (one, two) {
        (Value::Object(left), Value::Object(right)) => {
            let keys: BTreeSet<&String> = left.keys().chain(right.keys()).collect();
            let mut keys = keys.into_iter();
            keys.find_map(|key| below(key, left.get(key), right.get(key)))
        }
        (Value::Array(left), Value::Array(right)) => {
            let longest = left.len().max(right.len());
            let mut indices = 0..longest;
            indices.find_map(|index| below(&index.to_string(), left.get(index), right.get(index)))
        }
        (left, right) if left == right => None,
        (left, right) => Some((at.to_owned(), Some(shown(left)), Some(shown(right)))),
    }
}

fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(SHOWN_MAX) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

/// The first byte that two files differ in.
fn bytes(name: &str, one: &Path, two: &Path) -> std::io::Result<Difference> {
    let (one, two) = (fs::File::open(one)?, fs::File::open(two)?);
    let mut buffers = [vec![0; PIECE_BYTES], vec![0; PIECE_BYTES]];
    let mut at = 0_u64;
    let value = |bytes: &[u8], index: usize| bytes.get(index).map(|byte| format!("{byte:#04x}"));
    loop {
        let [left, right] = &mut buffers;
        let counts = [fill(one.file(), left, at)?, fill(two.file(), right, at)?];
        let (left, right) = (&left[..counts[0]], &right[..counts[1]]);
        let common = left
            .iter()
            .zip(right)
            .take_while(|(left, right)| left == right)
            .count();
        if common < left.len().max(right.len()) || left.is_empty() {
            let offset = at.saturating_add(u64::try_from(common).unwrap_or(u64::MAX));
            return Ok(Difference {
                file: name.to_owned(),
                path: None,
                field: format!("byte {offset}"),
                first: value(left, common),
                second: value(right, common),
            });
        }
        at = at.saturating_add(u64::try_from(common).unwrap_or(u64::MAX));
    }
}

/// Reads until the buffer is full or the file ends.
fn fill(file: &std::fs::File, buffer: &mut [u8], offset: u64) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        let from = offset.saturating_add(u64::try_from(filled).unwrap_or(u64::MAX));
        match file.read_at(&mut buffer[filled..], from) {
            Ok(0) => break,
            Ok(count) => filled = filled.saturating_add(count),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_first_value_is_pointed_at() {
        let one = json!({"a": [1, {"b/c": "x"}], "d": null});
        assert_eq!(pointer(&one, &one, ""), None);
        for (two, expected) in [
            (json!({"a": [1, {"b/c": "y"}], "d": null}), "/a/1/b~1c"),
            (json!({"a": [1], "d": null}), "/a/1"),
            (json!({"a": [1, {"b/c": "x"}]}), "/d"),
            (json!([]), ""),
        ] {
            assert_eq!(pointer(&one, &two, "").unwrap().0, expected);
        }
    }

    #[test]
    fn the_first_byte_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: &[u8]| {
            let path = folder.path().join(name);
            fs::write(&path, bytes).unwrap();
            path
        };
        let mut long = vec![7; PIECE_BYTES + 10];
        let one = write("one", &long);
        long[PIECE_BYTES + 3] = 8;
        let two = write("two", &long);
        let found = bytes("f", &one, &two).unwrap();
        assert_eq!(
            found.to_string(),
            format!("f: byte {}: 0x07, 0x08", PIECE_BYTES + 3)
        );
        let short = write("short", &long[..5]);
        let found = bytes("f", &one, &short).unwrap();
        assert_eq!(found.to_string(), "f: byte 5: 0x07, nothing");
    }
}
