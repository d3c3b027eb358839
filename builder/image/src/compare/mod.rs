//! What two trees differ in, path by path and field by field.
//!
//! Both trees are walked side by side in the order of their names; nothing is hashed and no content
//! is held. A hole and zeroes are the same content.

mod content;
mod difference;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::ControlFlow;

use crate::tree::{
    Content, Entries, Inode, InodeId, Kind, Metadata, Name, Timestamp, Tree, display,
};

use content::{Cursor, PIECE_BYTES, first_difference};
pub use difference::{Difference, Field};

/// So many bytes of an attribute's value are shown.
const VALUE_SHOWN_MAX: usize = 64;

/// Content that could not be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the content of '{path}' in the {side} one: {source}")]
pub struct CompareError {
    /// The file.
    pub path: String,
    /// `first` or `second`.
    pub side: &'static str,
    /// What its blob says.
    pub source: io::Error,
}

/// Compares two trees in all fields but those of `ignore`, and hands every difference to `visit`
/// until that breaks off.
///
/// # Errors
/// Content cannot be read.
pub fn compare(
    first: &Tree,
    second: &Tree,
    ignore: &BTreeSet<Field>,
    visit: &mut dyn FnMut(Difference) -> ControlFlow<()>,
) -> Result<(), CompareError> {
    let mut comparison = Comparison {
        first,
        second,
        ignore,
        visit,
        counts: [first.name_counts(), second.name_counts()],
        partners: [BTreeMap::new(), BTreeMap::new()],
        buffers: [vec![0; PIECE_BYTES], vec![0; PIECE_BYTES]],
    };
    match comparison.walk() {
        Err(Stop::Failed(error)) => Err(error),
        Ok(()) | Err(Stop::Enough) => Ok(()),
    }
}

/// Why a walk ends early.
enum Stop {
    Enough,
    Failed(CompareError),
}

struct Comparison<'a> {
    first: &'a Tree,
    second: &'a Tree,
    ignore: &'a BTreeSet<Field>,
    visit: &'a mut dyn FnMut(Difference) -> ControlFlow<()>,
    /// How many names each inode has.
    counts: [Vec<u32>; 2],
    /// For inodes of several names: the other tree's inode under the first of them, and the name.
    partners: [BTreeMap<InodeId, (InodeId, Vec<u8>)>; 2],
    buffers: [Vec<u8>; 2],
}

impl Comparison<'_> {
    fn walk(&mut self) -> Result<(), Stop> {
        let mut pending = vec![(Vec::new(), Some(InodeId::ROOT), Some(InodeId::ROOT))];
        while let Some((path, first, second)) = pending.pop() {
            let (Some(one), Some(two)) = (first, second) else {
                self.present_once(path, first, second)?;
                continue;
            };
            let shown = if path.is_empty() { b"/" } else { &path[..] };
            if self.is_known_pair(shown, one, two)? {
                continue;
            }
            let (first, second) = (self.first, self.second);
            let (one, two) = (first.inode(one), second.inode(two));
            self.inodes(shown, one, two)?;
            if let (Kind::Directory(ours), Kind::Directory(theirs)) = (&one.kind, &two.kind) {
                push_children(&mut pending, &path, ours, theirs);
            }
        }
        Ok(())
    }

    fn tell(
        &mut self,
        path: &[u8],
        field: Field,
        detail: Option<String>,
        first: Option<String>,
        second: Option<String>,
    ) -> Result<(), Stop> {
        if self.ignore.contains(&field) {
            return Ok(());
        }
        let difference = Difference {
            path: path.to_vec(),
            field,
            detail,
            first,
            second,
        };
        match (self.visit)(difference) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Stop::Enough),
        }
    }

    /// Tells of two values where they differ.
    fn values<T: PartialEq>(
        &mut self,
        path: &[u8],
        field: Field,
        values: [T; 2],
        show: impl Fn(&T) -> String,
    ) -> Result<(), Stop> {
        if values[0] == values[1] {
            return Ok(());
        }
        let [first, second] = values.map(|value| Some(show(&value)));
        self.tell(path, field, None, first, second)
    }

    /// A name that one tree has; what is below it goes without saying.
    fn present_once(
        &mut self,
        path: Vec<u8>,
        first: Option<InodeId>,
        second: Option<InodeId>,
    ) -> Result<(), Stop> {
        let [first, second] = [(self.first, first), (self.second, second)]
            .map(|(tree, id)| Some(kind_name(&tree.inode(id?).kind).to_owned()));
        self.tell(&path, Field::Presence, None, first, second)
    }

    /// Tells where two names are one inode in one tree only. Says whether the two inodes have been
    /// compared under another name.
    fn is_known_pair(&mut self, path: &[u8], one: InodeId, two: InodeId) -> Result<bool, Stop> {
        let several = |side: usize, id: InodeId| {
            self.counts[side]
                .get(id.index())
                .is_some_and(|count| *count > 1)
        };
        if !several(0, one) && !several(1, two) {
            return Ok(false);
        }
        let before = [
            self.partners[0].get(&one).cloned(),
            self.partners[1].get(&two).cloned(),
        ];
        for (side, id, partner) in [(0, one, two), (1, two, one)] {
            if several(side, id) && before[side].is_none() {
                self.partners[side].insert(id, (partner, path.to_vec()));
            }
        }
        let others = [(&before[0], two), (&before[1], one)];
        let agrees = |at: usize| {
            let (before, partner) = others[at];
            before.as_ref().map(|(known, _)| *known == partner)
        };
        match (agrees(0), agrees(1)) {
            (None, None) => Ok(false),
            (Some(true), _) | (_, Some(true)) => Ok(true),
            _ => {
                let [first, second] = before.map(|known| {
                    let (_, name) = known?;
                    Some(format!("the same file as {}", display(&name)))
                });
                self.tell(path, Field::Hardlink, None, first, second)?;
                Ok(false)
            }
        }
    }

    fn inodes(&mut self, path: &[u8], one: &Inode, two: &Inode) -> Result<(), Stop> {
        let kinds = [kind_name(&one.kind), kind_name(&two.kind)];
        self.values(path, Field::Kind, kinds, |kind| (*kind).to_owned())?;
        self.metadata(path, &one.metadata, &two.metadata)?;
        self.xattrs(path, [&one.metadata.xattrs, &two.metadata.xattrs])?;
        let number = |(major, minor): &(u32, u32)| format!("{major}:{minor}");
        match (&one.kind, &two.kind) {
            (Kind::File(ours), Kind::File(theirs)) => self.files(path, ours, theirs),
            (Kind::Symlink(ours), Kind::Symlink(theirs)) => {
                self.values(path, Field::Target, [ours, theirs], |target| {
                    display(target)
                })
            }
            (
                Kind::CharDevice { major, minor },
                Kind::CharDevice {
                    major: other_major,
                    minor: other_minor,
                },
            )
            | (
                Kind::BlockDevice { major, minor },
                Kind::BlockDevice {
                    major: other_major,
                    minor: other_minor,
                },
            ) => {
                let values = [(*major, *minor), (*other_major, *other_minor)];
                self.values(path, Field::Device, values, number)
            }
            _ => Ok(()),
        }
    }

    fn metadata(&mut self, path: &[u8], one: &Metadata, two: &Metadata) -> Result<(), Stop> {
        self.values(path, Field::Mode, [one.mode, two.mode], |mode| {
            format!("{mode:04o}")
        })?;
        self.values(path, Field::Uid, [one.uid, two.uid], u32::to_string)?;
        self.values(path, Field::Gid, [one.gid, two.gid], u32::to_string)?;
        let (ours, theirs) = (&one.times, &two.times);
        let modified = [ours.modified, theirs.modified];
        if modified[0].seconds != modified[1].seconds {
            self.values(path, Field::Mtime, modified, show_time)?;
        } else {
            self.values(path, Field::MtimeNs, modified, show_time)?;
        }
        for (field, times) in [
            (Field::Atime, [ours.accessed, theirs.accessed]),
            (Field::Ctime, [ours.changed, theirs.changed]),
            (Field::Crtime, [ours.created, theirs.created]),
        ] {
            self.values(path, field, times, show_time)?;
        }
        Ok(())
    }

    fn xattrs(&mut self, path: &[u8], sides: [&BTreeMap<Name, Box<[u8]>>; 2]) -> Result<(), Stop> {
        let names: BTreeSet<&Name> = sides.iter().flat_map(|side| side.keys()).collect();
        for name in names {
            let values = sides.map(|side| side.get(name));
            if values[0] != values[1] {
                let [first, second] = values.map(|value| value.map(|value| show_value(value)));
                self.tell(path, Field::Xattr, Some(display(name)), first, second)?;
            }
        }
        Ok(())
    }

    fn files(&mut self, path: &[u8], one: &Content, two: &Content) -> Result<(), Stop> {
        self.values(path, Field::Size, [one.size, two.size], u64::to_string)?;
        if one.size != two.size || self.ignore.contains(&Field::Content) {
            return Ok(());
        }
        let [mut ours, mut theirs] = std::mem::take(&mut self.buffers);
        let mut cursors = [
            Cursor::new(self.first, one, "first", &mut ours),
            Cursor::new(self.second, two, "second", &mut theirs),
        ];
        let found = first_difference(&mut cursors, one.size).map_err(|(side, source)| {
            Stop::Failed(CompareError {
                path: display(path),
                side,
                source,
            })
        });
        self.buffers = [ours, theirs];
        let Some((offset, bytes)) = found? else {
            return Ok(());
        };
        let [first, second] = bytes.map(|byte| Some(format!("{byte:#04x}")));
        self.tell(
            path,
            Field::Content,
            Some(format!("at byte {offset}")),
            first,
            second,
        )
    }
}

/// A path and what each tree has there.
type Pending = (Vec<u8>, Option<InodeId>, Option<InodeId>);

/// What two folders have, so that the first name comes out first.
fn push_children(pending: &mut Vec<Pending>, path: &[u8], ours: &Entries, theirs: &Entries) {
    let at = pending.len();
    let mut ours = ours.iter().peekable();
    let mut theirs = theirs.iter().peekable();
    loop {
        let name = match (ours.peek(), theirs.peek()) {
            (Some((one, _)), Some((two, _))) => one.min(two),
            (Some((name, _)), None) | (None, Some((name, _))) => name,
            (None, None) => break,
        };
        let name: &Name = name;
        let one = ours.next_if(|(ours, _)| *ours == name).map(|(_, id)| *id);
        let two = theirs
            .next_if(|(theirs, _)| *theirs == name)
            .map(|(_, id)| *id);
        pending.push(([path, b"/", &**name].concat(), one, two));
    }
    pending[at..].reverse();
}

fn kind_name(kind: &Kind) -> &'static str {
    match kind {
        Kind::Directory(_) => "directory",
        Kind::File(_) => "file",
        Kind::Symlink(_) => "symbolic link",
        Kind::CharDevice { .. } => "character device",
        Kind::BlockDevice { .. } => "block device",
        Kind::Fifo => "fifo",
        Kind::Socket => "socket",
    }
}

fn show_time(time: &Timestamp) -> String {
    format!("{}.{:09}", time.seconds, time.nanoseconds)
}

/// Text where it is text, digits otherwise, and not too much of either.
fn show_value(value: &[u8]) -> String {
    let (shown, more) = match value.get(..VALUE_SHOWN_MAX) {
        Some(start) if value.len() > VALUE_SHOWN_MAX => (start, "…"),
        _ => (value, ""),
    };
    match std::str::from_utf8(shown) {
        Ok(text) if !text.contains(char::is_control) => format!("\"{text}\"{more}"),
        _ => {
            let digits: String = shown.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("0x{digits}{more}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{Segment, Times};
    use std::sync::Arc;

    fn put(tree: &mut Tree, name: &[u8], kind: Kind) -> InodeId {
        let inode = Inode {
            metadata: Metadata {
                mode: 0o644,
                ..Metadata::default()
            },
            kind,
        };
        let id = tree.add_inode(inode).unwrap();
        tree.link(InodeId::ROOT, name, id).unwrap();
        id
    }

    /// One of everything.
    fn sample() -> Tree {
        let mut tree = Tree::new(Metadata::default());
        let content = tree.add_bytes(b"hello".to_vec()).unwrap();
        let file = put(&mut tree, b"file", Kind::File(content));
        tree.link(InodeId::ROOT, b"hard", file).unwrap();
        let other = tree.add_bytes(b"hello".to_vec()).unwrap();
        put(&mut tree, b"other", Kind::File(other));
        put(&mut tree, b"link", Kind::Symlink(b"file"[..].into()));
        put(&mut tree, b"null", Kind::CharDevice { major: 1, minor: 3 });
        tree.make_directories(b"/dir/inner", &Metadata::default())
            .unwrap();
        tree
    }

    fn all(one: &Tree, two: &Tree, ignore: &[Field]) -> Vec<String> {
        let mut found = Vec::new();
        let ignore = ignore.iter().copied().collect();
        compare(one, two, &ignore, &mut |difference| {
            found.push(difference.to_string());
            ControlFlow::Continue(())
        })
        .unwrap();
        found
    }

    #[track_caller]
    fn expect(change: impl FnOnce(&mut Tree), field: Field, lines: &[&str]) {
        let one = sample();
        let mut two = sample();
        change(&mut two);
        assert_eq!(all(&one, &two, &[]), lines);
        let all_but = |field| {
            Field::ALL
                .into_iter()
                .filter(|f| *f != field)
                .collect::<Vec<_>>()
        };
        assert_eq!(all(&one, &two, &all_but(field)).len(), lines.len());
        assert_eq!(all(&one, &two, &[field]), [""; 0]);
    }

    fn metadata<'t>(tree: &'t mut Tree, path: &[u8]) -> &'t mut Metadata {
        let id = tree.lookup(path).unwrap();
        &mut tree.inode_mut(id).metadata
    }

    #[test]
    fn equal_trees_are_equal() {
        assert_eq!(all(&sample(), &sample(), &[]), [""; 0]);
    }

    #[test]
    fn each_field_is_told_by_name() {
        expect(
            |tree| metadata(tree, b"/file").mode = 0o600,
            Field::Mode,
            &["/file: mode: 0644, 0600"],
        );
        expect(
            |tree| metadata(tree, b"/dir/inner").uid = 7,
            Field::Uid,
            &["/dir/inner: uid: 0, 7"],
        );
        expect(
            |tree| metadata(tree, b"/").gid = 7,
            Field::Gid,
            &["/: gid: 0, 7"],
        );
        let time = |seconds, nanoseconds| Timestamp {
            seconds,
            nanoseconds,
        };
        expect(
            |tree| metadata(tree, b"/link").times.modified = time(-2, 5),
            Field::Mtime,
            &["/link: mtime: 0.000000000, -2.000000005"],
        );
        expect(
            |tree| metadata(tree, b"/link").times.modified = time(0, 5),
            Field::MtimeNs,
            &["/link: mtime-ns: 0.000000000, 0.000000005"],
        );
        expect(
            |tree| {
                let times = &mut metadata(tree, b"/link").times;
                *times = Times {
                    accessed: time(1, 0),
                    ..*times
                };
            },
            Field::Atime,
            &["/link: atime: 0.000000000, 1.000000000"],
        );
        expect(
            |tree| {
                let xattrs = &mut metadata(tree, b"/null").xattrs;
                xattrs.insert(b"user.a"[..].into(), b"v"[..].into());
                xattrs.insert(b"user.b"[..].into(), b"\0"[..].into());
            },
            Field::Xattr,
            &[
                "/null: xattr user.a: nothing, \"v\"",
                "/null: xattr user.b: nothing, 0x00",
            ],
        );
    }

    #[test]
    fn what_an_inode_is_is_told() {
        let set = |tree: &mut Tree, path: &[u8], kind| {
            let id = tree.lookup(path).unwrap();
            tree.inode_mut(id).kind = kind;
        };
        expect(
            |t| set(t, b"/null", Kind::Fifo),
            Field::Kind,
            &["/null: kind: character device, fifo"],
        );
        expect(
            |t| set(t, b"/null", Kind::CharDevice { major: 1, minor: 4 }),
            Field::Device,
            &["/null: device: 1:3, 1:4"],
        );
        expect(
            |t| set(t, b"/link", Kind::Symlink(b"x"[..].into())),
            Field::Target,
            &["/link: target: file, x"],
        );
        expect(
            |t| {
                t.unlink(InodeId::ROOT, b"dir").unwrap();
                put(t, b"e\n", Kind::Socket);
            },
            Field::Presence,
            &[
                "/dir: presence: directory, nothing",
                "/e\\n: presence: nothing, socket",
            ],
        );
    }

    #[test]
    fn content_is_compared_byte_by_byte_and_once() {
        let set = |tree: &mut Tree, text: &str| {
            let content = tree.add_bytes(text.into()).unwrap();
            let id = tree.lookup(b"/file").unwrap();
            tree.inode_mut(id).kind = Kind::File(content);
        };
        expect(
            |tree| set(tree, "helmo"),
            Field::Content,
            &["/file: content at byte 3: 0x6c, 0x6d"],
        );
        expect(
            |tree| set(tree, "hell"),
            Field::Size,
            &["/file: size: 5, 4"],
        );
    }

    #[test]
    fn the_structure_of_hard_links_counts() {
        expect(
            |tree| {
                tree.unlink(InodeId::ROOT, b"hard").unwrap();
                let content = tree.add_bytes(b"hello".to_vec()).unwrap();
                put(tree, b"hard", Kind::File(content));
            },
            Field::Hardlink,
            &["/hard: hardlink: the same file as /file, nothing"],
        );
        expect(
            |tree| {
                tree.unlink(InodeId::ROOT, b"other").unwrap();
                let file = tree.lookup(b"/file").unwrap();
                tree.link(InodeId::ROOT, b"other", file).unwrap();
            },
            Field::Hardlink,
            &["/other: hardlink: nothing, the same file as /file"],
        );
    }

    #[test]
    fn holes_are_zeroes_and_are_not_read() {
        #[derive(Debug)]
        struct Zeroes;
        impl crate::tree::Blob for Zeroes {
            fn read_at(&self, buffer: &mut [u8], _: u64) -> io::Result<usize> {
                buffer.fill(0);
                Ok(buffer.len())
            }
        }
        let file = |segments: &[(u64, u64)], last: &[u8]| {
            let mut tree = Tree::new(Metadata::default());
            let blob = tree.add_blob(Arc::new(Zeroes)).unwrap();
            let end = tree.add_blob(Arc::new(last.to_vec())).unwrap();
            let mut segments: Vec<Segment> = segments
                .iter()
                .map(|(offset, length)| Segment {
                    offset: *offset,
                    length: *length,
                    blob,
                    blob_offset: 0,
                })
                .collect();
            segments.push(Segment {
                offset: (1 << 40) - 1,
                length: 1,
                blob: end,
                blob_offset: 0,
            });
            let content = Content {
                size: (1 << 40) + 9,
                segments: segments.into(),
            };
            put(&mut tree, b"file", Kind::File(content));
            tree
        };
        let one = file(&[(1, 5), (1 << 30, 3 << 20)], b"x");
        assert_eq!(all(&one, &file(&[(700_000, 9)], b"x"), &[]), [""; 0]);
        let expected = format!("/file: content at byte {}: 0x78, 0x79", (1_u64 << 40) - 1);
        assert_eq!(all(&one, &file(&[], b"y"), &[]), [expected]);
    }

    #[test]
    fn a_visitor_may_have_enough() {
        let one = sample();
        let two = Tree::new(Metadata::default());
        let mut count = 0;
        compare(&one, &two, &BTreeSet::new(), &mut |_| {
            count += 1;
            ControlFlow::Break(())
        })
        .unwrap();
        assert_eq!(count, 1);
    }
}
