//! What two file systems, or two appliances, differ in.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use coop_appliance::{Appliance, Cobd, Filesystem, MANIFEST_NAME};
use coop_image::compare::{CompareError, Difference, Field, compare};
use coop_image::tree::{Content, Inode, InodeId, Kind, Metadata, Tree, TreeError};
use fs_err as fs;
use serde_json::Value;

use super::open::{OpenError, Operand, appliance_tree};

/// Why two things could not be compared.
#[derive(Debug, thiserror::Error)]
pub enum DiffError {
    /// A part of an appliance cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Content cannot be read.
    #[error(transparent)]
    Compare(#[from] CompareError),
    /// The manifest has no JSON form, or there are too many files.
    #[error("the appliances cannot be compared: {0}")]
    Appliance(String),
}

/// A difference and in which part of an appliance it is.
#[derive(Clone, Debug)]
pub struct Found {
    /// The cobd's name; `None` for two trees, and for an appliance's own files.
    pub cobd: Option<String>,
    /// The difference.
    pub difference: Difference,
}

/// Hands every difference in a field that is not in `ignore` to `visit`, until that breaks off.
///
/// Of two appliances all file systems, all other files and the manifest are compared; what the
/// manifest says about the sizes and digests of its files is not, as the files are. An appliance
/// beside something else counts as its root file system.
///
/// # Errors
/// A part cannot be read.
pub fn diff(
    first: Operand,
    second: Operand,
    ignore: &BTreeSet<Field>,
    visit: &mut dyn FnMut(Found) -> ControlFlow<()>,
) -> Result<(), DiffError> {
    let mut visitor = Visitor {
        ignore,
        visit,
        enough: false,
    };
    match (first, second) {
        (Operand::Appliance(one), Operand::Appliance(two)) => visitor.appliances(&one, &two),
        (one, two) => visitor.trees(None, &one.into_tree(None)?, &two.into_tree(None)?),
    }
}

struct Visitor<'a> {
    ignore: &'a BTreeSet<Field>,
    visit: &'a mut dyn FnMut(Found) -> ControlFlow<()>,
    enough: bool,
}

impl Visitor<'_> {
    fn trees(&mut self, cobd: Option<&str>, one: &Tree, two: &Tree) -> Result<(), DiffError> {
        if self.enough {
            return Ok(());
        }
        compare(one, two, self.ignore, &mut |difference| {
            let found = Found {
                cobd: cobd.map(str::to_owned),
                difference,
            };
            let flow = (self.visit)(found);
            self.enough = flow.is_break();
            flow
        })?;
        Ok(())
    }

    fn appliances(&mut self, one: &Appliance, two: &Appliance) -> Result<(), DiffError> {
        for ours in file_systems(one) {
            if file_systems(two).any(|theirs| theirs.name == ours.name) {
                let trees = [one, two].map(|side| appliance_tree(side, Some(&ours.name)));
                let [first, second] = trees;
                self.trees(Some(&ours.name), &first?, &second?)?;
            }
        }
        let files = [one, two].map(files);
        let [first, second] = files;
        self.trees(None, &first?, &second?)?;
        self.manifests(one, two)
    }

    fn manifests(&mut self, one: &Appliance, two: &Appliance) -> Result<(), DiffError> {
        let mut sides = [BTreeMap::new(), BTreeMap::new()];
        for (appliance, leaves) in [one, two].into_iter().zip(&mut sides) {
            let value = serde_json::to_value(&appliance.manifest)
                .map_err(|error| DiffError::Appliance(error.to_string()))?;
            put_leaves(&value, String::new(), leaves);
        }
        let keys: BTreeSet<&String> = sides.iter().flat_map(BTreeMap::keys).collect();
        for key in keys {
            let [first, second] = [&sides[0], &sides[1]].map(|side| side.get(key).cloned());
            let ignored = self.enough || self.ignore.contains(&Field::Manifest);
            if first == second || ignored {
                continue;
            }
            let difference = Difference {
                path: format!("/{MANIFEST_NAME}").into(),
                field: Field::Manifest,
                detail: Some(key.clone()),
                first,
                second,
            };
            let found = Found {
                cobd: None,
                difference,
            };
            self.enough = (self.visit)(found).is_break();
        }
        Ok(())
    }
}

fn file_systems(appliance: &Appliance) -> impl Iterator<Item = &Cobd> {
    let devices = appliance.manifest.cobd.iter();
    devices.filter(|cobd| cobd.filesystem == Filesystem::Ext4)
}

/// The appliance's files that are no file systems, as a tree of names and content.
fn files(appliance: &Appliance) -> Result<Tree, DiffError> {
    let failed = |error: TreeError| DiffError::Appliance(error.to_string());
    let images: BTreeSet<&str> = file_systems(appliance)
        .map(|cobd| cobd.image.path.as_str())
        .collect();
    let mut tree = Tree::new(Metadata::default());
    for member in appliance.manifest.members() {
        if images.contains(member.path.as_str()) {
            continue;
        }
        let path = appliance.path(member).map_err(OpenError::from)?;
        let (file, _) = fs::File::open(path).map_err(OpenError::from)?.into_parts();
        let blob = tree.add_blob(Arc::new(file)).map_err(failed)?;
        let inode = Inode {
            metadata: Metadata::default(),
            kind: Kind::File(Content::contiguous(blob, 0, member.size_bytes)),
        };
        let id = tree.add_inode(inode).map_err(failed)?;
        let (folder, name) = match member.path.rsplit_once('/') {
            Some((folder, name)) => (folder, name),
            None => ("", member.path.as_str()),
        };
        let folder = match folder {
            "" => InodeId::ROOT,
            _ => tree
                .make_directories(folder.as_bytes(), &Metadata::default())
                .map_err(failed)?,
        };
        tree.replace(folder, name.as_bytes(), id).map_err(failed)?;
    }
    Ok(tree)
}

/// Every value that is no list and no map, by its path, but for sizes and digests of files.
fn put_leaves(value: &Value, path: String, leaves: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let is_of_a_file =
                    key == "sha256" || (key == "size_bytes" && map.contains_key("sha256"));
                if !is_of_a_file {
                    let path = if path.is_empty() {
                        key.clone()
                    } else {
                        format!("{path}.{key}")
                    };
                    put_leaves(value, path, leaves);
                }
            }
        }
        Value::Array(list) => {
            for (index, value) in list.iter().enumerate() {
                put_leaves(value, format!("{path}[{index}]"), leaves);
            }
        }
        Value::Null => {}
        other => {
            leaves.insert(path, other.to_string());
        }
    }
}
