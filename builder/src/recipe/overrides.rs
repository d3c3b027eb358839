//! Changes to a tree before it becomes an image, for people who cannot change it where it is: who
//! need files of root's, capabilities or devices, and are not root.
//!
//! ```yaml
//! - {path: /usr/bin/sudo, mode: 0o4755, owner: 0, group: 0}
//! - {path: /home/me, owner: 1000, group: 1000, recursive: true}
//! - {path: /usr/bin/ping, xattrs: {security.capability: 0x0100000200200000000000000000000000000000}}
//! - {path: /dev/console, make: {char: "5:1"}, mode: 0o600}
//! - {path: /var/cache/junk, removed: true}
//! ```

use std::path::{Path, PathBuf};

use coop_image::tree::{
    Entries, Inode, InodeId, Kind, Metadata, Name, Times, Timestamp, Tree, TreeError,
};

use super::decode::{At, Decoder, Keys};
use super::diagnostic::{Diagnostic, Place, Problem, Source};
use super::node::{self, Node, Value};
use super::units::shorten;

const KEYS: Keys = Keys {
    known: &[
        "path",
        "mode",
        "owner",
        "group",
        "recursive",
        "xattrs",
        "make",
        "removed",
    ],
    later: &[],
};
const MADE: Keys = Keys {
    known: &["char", "block", "fifo", "directory", "symlink"],
    later: &[],
};
/// The highest user or group; the one above means "no change" to the kernel.
const ID_MAX: u32 = u32::MAX - 1;
/// The highest device numbers that Linux has.
const DEVICE_MAX: (u32, u32) = (0xfff, 0xf_ffff);

/// A file of overrides, read.
#[derive(Clone, Debug)]
pub struct Overrides {
    file: PathBuf,
    entries: Vec<Entry>,
}

#[derive(Clone, Debug)]
struct Entry {
    path: String,
    place: Option<Place>,
    mode: Option<u16>,
    owner: Option<u32>,
    group: Option<u32>,
    recursive: bool,
    xattrs: Vec<(Name, Box<[u8]>)>,
    make: Option<Kind>,
    removed: bool,
}

impl Overrides {
    /// Reads the text of a file of overrides; `file` is its path, for messages.
    ///
    /// # Errors
    /// Every error, in the order of the text.
    pub fn parse(text: &str, file: &Path) -> Result<Self, Vec<Diagnostic>> {
        let source = Source {
            file,
            text,
            names: None,
        };
        let mut decoder = Decoder::new(&source);
        let root = match node::parse(text) {
            Ok(root) => root,
            Err(rejected) => {
                let name = |text: String| text.replace("recipe", "file of overrides");
                let problem = match rejected.problem {
                    Problem::Syntax(reason) => Problem::Syntax(name(reason)),
                    Problem::Limit(reason) => Problem::Limit(name(reason)),
                    other => other,
                };
                decoder.report(rejected.at, problem, None);
                return Err(decoder.diagnostics);
            }
        };
        let entries = decoder.list(&root, "overrides", entry);
        match entries {
            Some(entries) if decoder.diagnostics.is_empty() => Ok(Self {
                file: file.to_owned(),
                entries,
            }),
            _ => Err(decoder.diagnostics),
        }
    }

    /// Changes a tree, entry by entry; `time` is that of what is made.
    ///
    /// # Errors
    /// The first entry whose path the tree does not have, or that does not fit what is there.
    pub fn apply(&self, tree: &mut Tree, time: Timestamp) -> Result<(), Box<Diagnostic>> {
        for entry in &self.entries {
            entry.apply(tree, time).map_err(|reason| {
                Box::new(Diagnostic {
                    file: self.file.clone(),
                    place: entry.place.clone(),
                    problem: Problem::Value {
                        path: entry.path.clone(),
                        reason,
                    },
                    hint: None,
                })
            })?;
        }
        Ok(())
    }
}

fn entry(d: &mut Decoder<'_>, node: &Node<'_>, path: &str) -> Option<Entry> {
    let fields = d.map(node, path, &KEYS)?;
    let number =
        |d: &mut Decoder<'_>, node: &Node<'_>, path: &str| d.integer(node, path, 0..=ID_MAX);
    let value = |at: Option<At<u32>>| at.map(|at| at.value);
    let name = d.required(&fields, "path", |d, node, path| {
        d.parsed(node, path, absolute)
    });
    let mode = d.field(&fields, "mode", |d, node, path| {
        d.parsed(node, path, super::written::mode)
    });
    let entry = Entry {
        place: d.source.place(fields.at()),
        mode: mode.map(|at| at.value),
        owner: value(d.field(&fields, "owner", number)),
        group: value(d.field(&fields, "group", number)),
        recursive: d.field(&fields, "recursive", Decoder::boolean) == Some(true),
        xattrs: d.field(&fields, "xattrs", xattrs).unwrap_or_default(),
        make: d.field(&fields, "make", make),
        removed: d.field(&fields, "removed", Decoder::boolean) == Some(true),
        path: name?.value,
    };
    let changes = entry.mode.is_some()
        || entry.owner.is_some()
        || entry.group.is_some()
        || entry.make.is_some()
        || !entry.xattrs.is_empty();
    if entry.removed == changes {
        d.reject(
            node.at,
            path,
            "needs either 'removed: true' or something to change",
        );
    }
    if entry.recursive && (entry.mode.is_some() || entry.make.is_some() || !entry.xattrs.is_empty())
    {
        d.reject(node.at, path, "recursive is for owner and group only");
    }
    Some(entry)
}

fn absolute(text: &str) -> Result<String, String> {
    if text.starts_with('/') && !text.split('/').any(|part| part == "..") {
        return Ok(text.to_owned());
    }
    Err(format!(
        "'{}' does not begin with '/', or has '..' in it",
        shorten(text)
    ))
}

fn xattrs(d: &mut Decoder<'_>, node: &Node<'_>, path: &str) -> Option<Vec<(Name, Box<[u8]>)>> {
    let Value::Map(entries) = &node.value else {
        d.reject(node.at, path, "must be a map of names and values");
        return None;
    };
    let mut found = Vec::new();
    for (key, value) in entries {
        let path = format!("{path}.{}", shorten(&key.name));
        let value = d.parsed(value, &path, attribute)?;
        found.push((key.name.as_bytes().into(), value.value));
    }
    Some(found)
}

/// Text as it is, or `0x` and digits, as setfattr(1) has it.
fn attribute(text: &str) -> Result<Box<[u8]>, String> {
    let Some(digits) = text.strip_prefix("0x") else {
        return Ok(text.as_bytes().into());
    };
    let pairs = digits.as_bytes().chunks(2).map(|pair| {
        let pair = std::str::from_utf8(pair)
            .ok()
            .filter(|pair| pair.len() == 2)?;
        u8::from_str_radix(pair, 16).ok()
    });
    pairs
        .collect::<Option<Vec<u8>>>()
        .map(Into::into)
        .ok_or_else(|| "'0x' needs an even number of hexadecimal digits".to_owned())
}

fn make(d: &mut Decoder<'_>, node: &Node<'_>, path: &str) -> Option<Kind> {
    if let Value::Text(text) = &node.value {
        match &**text {
            "fifo" => return Some(Kind::Fifo),
            "directory" => return Some(Kind::Directory(Entries::new())),
            _ => {}
        }
    }
    let (kind, value) = d.variant(node, path, &MADE)?;
    let path = format!("{path}.{kind}");
    match kind {
        "char" => {
            let (major, minor) = d.parsed(value, &path, device)?.value;
            Some(Kind::CharDevice { major, minor })
        }
        "block" => {
            let (major, minor) = d.parsed(value, &path, device)?.value;
            Some(Kind::BlockDevice { major, minor })
        }
        "symlink" => {
            let target = d.text(value, &path)?.value;
            Some(Kind::Symlink(target.as_bytes().into()))
        }
        other => {
            d.reject(node.at, &path, format!("write 'make: {other}'"));
            None
        }
    }
}

fn device(text: &str) -> Result<(u32, u32), String> {
    let numbers = text.split_once(':');
    numbers
        .and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)))
        .filter(|(major, minor)| *major <= DEVICE_MAX.0 && *minor <= DEVICE_MAX.1)
        .ok_or_else(|| {
            format!(
                "'{}' is not a device; write MAJOR:MINOR, as \"5:1\"",
                shorten(text)
            )
        })
}

impl Entry {
    fn apply(&self, tree: &mut Tree, time: Timestamp) -> Result<(), String> {
        let said = |error: TreeError| error.to_string();
        let path = self.path.trim_end_matches('/');
        if self.removed {
            let (folder, name) = path.rsplit_once('/').ok_or("the root stays")?;
            let folder = tree.resolve(folder.as_bytes()).map_err(said)?;
            tree.unlink(folder, name.as_bytes()).map_err(said)?;
            return Ok(());
        }
        let id = match &self.make {
            Some(kind) => self.make(tree, path, kind, time)?,
            None => tree.lookup(path.as_bytes()).map_err(said)?,
        };
        let ids = if self.recursive {
            tree.paths_below(id).into_iter().map(|(_, id)| id).collect()
        } else {
            vec![id]
        };
        for id in ids {
            self.change(&mut tree.inode_mut(id).metadata);
        }
        Ok(())
    }

    fn change(&self, metadata: &mut Metadata) {
        metadata.mode = self.mode.unwrap_or(metadata.mode);
        metadata.uid = self.owner.unwrap_or(metadata.uid);
        metadata.gid = self.group.unwrap_or(metadata.gid);
        for (name, value) in &self.xattrs {
            metadata.xattrs.insert(name.clone(), value.clone());
        }
    }

    /// Makes an inode, in folders that are made where they are missing. It takes the place of
    /// anything but a folder; a folder takes that of nothing.
    fn make(
        &self,
        tree: &mut Tree,
        path: &str,
        kind: &Kind,
        time: Timestamp,
    ) -> Result<InodeId, String> {
        let said = |error: TreeError| error.to_string();
        let (folder, name) = path.rsplit_once('/').ok_or("the root is there already")?;
        let metadata = |mode| Metadata {
            mode,
            times: Times::all(time),
            ..Metadata::default()
        };
        let folder = tree
            .make_directories(folder.as_bytes(), &metadata(0o755))
            .map_err(said)?;
        let makes_folder = matches!(kind, Kind::Directory(_));
        if let Some(before) = tree.child(folder, name.as_bytes()) {
            match (tree.entries(before).is_some(), makes_folder) {
                (true, true) => return Ok(before),
                (true, false) => return Err("is a directory already".to_owned()),
                (false, true) => return Err("is there already and no directory".to_owned()),
                (false, false) => {}
            }
        }
        let mode = match kind {
            Kind::Directory(_) => 0o755,
            Kind::Symlink(_) => 0o777,
            _ => 0o644,
        };
        let inode = Inode {
            metadata: metadata(mode),
            kind: kind.clone(),
        };
        let id = tree.add_inode(inode).map_err(said)?;
        tree.replace(folder, name.as_bytes(), id).map_err(said)?;
        Ok(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Overrides, String> {
        Overrides::parse(text, Path::new("o.yaml")).map_err(|errors| errors[0].to_string())
    }

    #[test]
    fn a_tree_is_changed_as_written() {
        let mut tree = Tree::new(Metadata::default());
        tree.make_directories(b"/home/me", &Metadata::default())
            .unwrap();
        tree.make_directories(b"/junk/more", &Metadata::default())
            .unwrap();
        let text = "\
- {path: /home, owner: 5, group: 6, recursive: true}
- {path: /, mode: 0o700}
- {path: /home/me, mode: 0750, xattrs: {user.a: text, user.b: 0x00ff}}
- {path: /dev/console, make: {char: 5:1}, mode: 0o600}
- {path: /dev/fd, make: {symlink: /proc/self/fd}}
- {path: /run/pipe, make: fifo}
- {path: /junk, removed: true}
";
        parse(text)
            .unwrap()
            .apply(&mut tree, Timestamp::from_seconds(7))
            .unwrap();
        let inode = |path: &str| tree.inode(tree.lookup(path.as_bytes()).unwrap());
        let me = &inode("/home/me").metadata;
        assert_eq!((me.uid, me.gid, me.mode), (5, 6, 0o750));
        assert_eq!(&*me.xattrs[&b"user.b"[..]], [0, 0xff]);
        assert_eq!(inode("/").metadata.mode, 0o700);
        assert_eq!(
            inode("/dev/console").kind,
            Kind::CharDevice { major: 5, minor: 1 }
        );
        assert_eq!(inode("/run/pipe").metadata.times.modified.seconds, 7);
        assert!(tree.lookup(b"/junk").is_err());
    }

    #[test]
    fn what_is_wrong_has_a_place() {
        for (text, part) in [
            ("- {path: /a, mod: 1}", "o.yaml:1:14: unknown key 'mod'"),
            ("- {path: a, mode: 0o1}", "does not begin with '/'"),
            ("- {path: /../a, mode: 0o1}", "'..'"),
            ("- {path: /a, mode: 755}", "not an octal mode"),
            ("- {path: /a}", "something to change"),
            ("- {path: /a, removed: true, mode: 0o1}", "needs either"),
            ("- {path: /a, make: {char: \"x\"}}", "MAJOR:MINOR"),
            (
                "- {path: /a, recursive: true, mode: 0o1}",
                "owner and group only",
            ),
            ("- {path: /a, xattrs: {user.a: 0x1}}", "even number"),
            ("path: /a", "a list"),
            ("", "overrides must be a list, but this is nothing"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
        let mut tree = Tree::new(Metadata::default());
        let overrides = parse("\n- {path: /a/b, mode: 0o1}").unwrap();
        let error = overrides
            .apply(&mut tree, Timestamp::default())
            .unwrap_err();
        assert_eq!(error.to_string(), "o.yaml:2:3: /a/b: '/a/b' does not exist");
    }
}
