//! The recipe of an appliance from a disk: what `coop convert --appliance` builds.

use std::collections::BTreeMap;
use std::path::Path;

use coop_image::ext4::{self, Size};
use coop_image::tree::{Timestamp, Tree, display};
use serde_json::{Value, json};

use super::fixups::{self, FixUps};
use super::left::{self, Left};
use super::{ConvertError, Input, Part, Which};
use crate::recipe::{self, ByteCount, Recipe};

/// Memory of the guest: what a whole system with systemd runs in.
const MEMORY: &str = "512MiB";
/// The largest `/etc/hostname` that is read, in bytes.
const HOSTNAME_BYTES_MAX: u64 = 4096;
/// A root file system is a whole number of these.
const BLOCK_BYTES: u64 = 4096;
/// The recipe lies nowhere; names in it are looked for beside the disk.
const RECIPE_NAME: &str = "convert.yaml";

/// Which appliance is wanted.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// The disk.
    pub input: &'a Input,
    /// Where it lies.
    pub source: &'a Path,
    /// Which of its partitions is the root.
    pub which: &'a Which,
    /// The appliance's folder, after which it is named.
    pub folder: &'a Path,
    /// Size of the root's image. Without one it is as large as the partition was, or as large as
    /// its files need.
    pub size: Option<RootSize>,
}

/// Size of a root's image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RootSize {
    /// What its files need, and some free space.
    Auto,
    /// So much.
    Given(ByteCount),
}

/// An appliance that can be built.
#[derive(Debug)]
pub struct Prepared {
    /// Its recipe, which names the disk.
    pub recipe: Recipe,
    /// The partition that becomes the root.
    pub part: Part,
    /// What the build will change in it, and what it will leave as it is.
    pub fix_ups: FixUps,
    /// What the appliance does not have of the disk.
    pub left: Vec<Left>,
}

/// Looks at a disk's root, and writes the recipe that makes an appliance of it. Nothing is written
/// to the host.
///
/// # Errors
/// There is no root, it is no ext2, ext3 or ext4, is damaged, or cannot be fitted.
pub fn prepare(wanted: &Wanted<'_>) -> Result<Prepared, ConvertError> {
    let input = wanted.input;
    input.refuse_replacing(wanted.source, wanted.folder)?;
    input.check_unused()?;
    let part = input.choose(wanted.which)?;
    let mut tree = input.tree(part)?;
    if !super::choice::is_root(&tree) {
        return Err(ConvertError::Unsupported(format!(
            "{}: {part} has no /etc, or nothing that could run: no appliance can be made of it",
            input.name
        )));
    }
    if let Some(machine) = super::machine::foreign(&tree) {
        return Err(ConvertError::Unsupported(format!(
            "{}: {part} has programs for {machine}, and an appliance runs those of x86-64 only",
            input.name
        )));
    }
    let hostname = hostname(&tree);
    let fix_ups = fixups::apply(&mut tree, Timestamp::default())?;
    let size = match wanted.size {
        Some(RootSize::Auto) => None,
        Some(RootSize::Given(size)) => Some(size),
        None => same_size(&tree, part),
    };
    let chain = chain(input)?;
    let with = |hostname: Option<&str>| parse(wanted, part, &chain, size, hostname);
    // A name that no machine should have is not worth a failure.
    let recipe = with(hostname.as_deref()).or_else(|_| with(None));
    Ok(Prepared {
        recipe: recipe.map_err(ConvertError::Recipe)?,
        part: part.clone(),
        fix_ups,
        left: left::beside(input, part)?,
    })
}

/// The files that the disk names as parts of itself, for the recipe.
fn chain(input: &Input) -> Result<Vec<String>, ConvertError> {
    let files = input.chain.iter().map(|path| {
        let name = path.to_str().map(str::to_owned);
        name.ok_or_else(|| {
            ConvertError::Unsupported(format!(
                "{}: the disk is made of {}, whose name is not UTF-8, so that no recipe can name it",
                input.name,
                display(path.as_os_str().as_encoded_bytes())
            ))
        })
    });
    files.collect()
}

fn hostname(tree: &Tree) -> Option<String> {
    let id = tree.resolve(b"/etc/hostname").ok()?;
    let bytes = tree.read_file(id, HOSTNAME_BYTES_MAX).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    let mut lines = text.lines().map(str::trim);
    let name = lines.find(|line| !line.is_empty() && !line.starts_with('#'))?;
    Some(name.to_owned())
}

/// The partition's size, where our own ext4 holds its files in it.
fn same_size(tree: &Tree, part: &Part) -> Option<ByteCount> {
    let size = part.length_bytes / BLOCK_BYTES * BLOCK_BYTES;
    let options = ext4::Options {
        size: Size::Bytes(size),
        ..ext4::Options::new([1; 16], [1; 16], Timestamp::default())
    };
    ext4::measure(tree, &options).ok()?;
    Some(ByteCount(size))
}

fn parse(
    wanted: &Wanted<'_>,
    part: &Part,
    chain: &[String],
    size: Option<ByteCount>,
    hostname: Option<&str>,
) -> Result<Recipe, Vec<recipe::Diagnostic>> {
    let file = wanted.source.file_name().unwrap_or_default();
    let file = file.to_string_lossy();
    let name = name(wanted.folder);
    let partition = match part.number() {
        Some(number) => number.to_string(),
        None => Which::Root.to_string(),
    };
    let size = match size {
        // A plain number is so many bytes only with its unit.
        Some(ByteCount(bytes)) => format!("{}KiB", bytes / 1024),
        None => "auto".to_owned(),
    };
    let chain: Vec<Value> = chain.iter().map(|file| text(file)).collect();
    let value = json!({
        "name": name,
        "description": text(&format!("Converted from {file}")),
        "rootfs": {
            "source": {"disk": {
                "path": text(&file),
                "partition": partition,
                "keep_state": true,
                "chain": chain,
            }},
            "hostname": text(hostname.unwrap_or(&name)),
        },
        "devices": {
            "memory": MEMORY,
            "cobd": [{"root": {"filesystem": "ext4", "size": size}}],
        },
    });
    let place = wanted.source.with_file_name(RECIPE_NAME);
    let (recipe, _) = recipe::parse(&value.to_string(), &place, &BTreeMap::new())?;
    Ok(recipe)
}

/// A text that is nobody's variable.
fn text(text: &str) -> Value {
    Value::String(text.replace("${", "$${"))
}

/// The appliance's name: that of its folder, as far as it can be one.
fn name(folder: &Path) -> String {
    /// The longest name.
    const LENGTH_MAX: usize = 63;
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    let name: String = name
        .to_lowercase()
        .chars()
        .map(|one| {
            if one.is_ascii_alphanumeric() {
                one
            } else {
                '-'
            }
        })
        .take(LENGTH_MAX)
        .collect();
    match name.trim_matches('-') {
        "" => "converted".to_owned(),
        name => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_give_names() {
        for (folder, expected) in [
            ("out/web", "web"),
            ("/srv/My Machine.old/", "my-machine-old"),
            ("..", "converted"),
            ("é", "converted"),
        ] {
            assert_eq!(name(Path::new(folder)), expected);
        }
    }
}
