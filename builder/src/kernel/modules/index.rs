//! kmod's binary index (`modules.*.bin`): a trie of ASCII keys with values by priority.
//!
//! The file is the magic number, the version and the root's offset, then the nodes, children
//! before their parent, all numbers big-endian. A node's offset carries flags that say which of its
//! parts are there: a prefix (text with a NUL), its children (first and last character, then an
//! offset for each character between, 0 for none), and values (their count, then for each its
//! priority and text with a NUL). The format is described in kmod's `libkmod/libkmod-index.c`;
//! kmod since version 34 writes parents first, and reads both orders.

use super::name::NAME_BYTES_MAX;

const MAGIC: u32 = 0xb007_f457;
const VERSION: u32 = 0x0002_0001;
/// Bytes of magic number, version and root.
const HEADER_BYTES: usize = 12;

const HAS_PREFIX: u32 = 0x8000_0000;
const HAS_VALUES: u32 = 0x4000_0000;
const HAS_CHILDREN: u32 = 0x2000_0000;
/// An offset has so many bits; the rest are flags.
const OFFSET_MAX: usize = 0x0fff_ffff;

/// One key with one value.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// What is looked up.
    pub(super) key: String,
    /// Values of one key come by rising priority, equal ones in the reverse of their order here.
    pub(super) priority: u32,
    /// What is found.
    pub(super) value: String,
}

/// A node whose children are not all known yet. The keys at hand all start with what leads here.
struct Open {
    /// Where its prefix starts in the key.
    start: usize,
    /// Where its prefix ends.
    end: usize,
    /// Characters with the offsets of the nodes behind them, rising.
    children: Vec<(u8, u32)>,
    /// Its values: a range of the entries.
    values: std::ops::Range<usize>,
}

/// Writes the index of these entries.
///
/// # Errors
/// A sentence: a key or value that is not ASCII text, too long a key, or too many of them.
pub(super) fn index(mut entries: Vec<Entry>) -> Result<Vec<u8>, String> {
    for Entry { key, value, .. } in &entries {
        if let Some(text) = [key, value].into_iter().find(|text| !is_text(text)) {
            let text = coop_image::tree::display(text.as_bytes());
            return Err(format!("'{text}' is not ASCII text"));
        }
        if key.len() > NAME_BYTES_MAX {
            return Err(format!(
                "a name has {} bytes, more than {NAME_BYTES_MAX}",
                key.len()
            ));
        }
    }
    // kmod puts a value in front of those that have its priority already.
    entries.reverse();
    entries.sort_by(|a, b| (&a.key, a.priority).cmp(&(&b.key, b.priority)));
    Writer::new(&entries).write()
}

fn is_text(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii() && byte != 0)
}

struct Writer<'e> {
    entries: &'e [Entry],
    /// The nodes on the way to the last key, the root first.
    open: Vec<Open>,
    bytes: Vec<u8>,
}

impl<'e> Writer<'e> {
    fn new(entries: &'e [Entry]) -> Self {
        let root = Open {
            start: 0,
            end: 0,
            children: Vec::new(),
            values: 0..0,
        };
        Self {
            entries,
            open: vec![root],
            bytes: vec![0; HEADER_BYTES],
        }
    }

    fn write(mut self) -> Result<Vec<u8>, String> {
        let mut last_key: &[u8] = b"";
        let mut first = 0;
        for group in self.entries.chunk_by(|a, b| a.key == b.key) {
            let key = group[0].key.as_bytes();
            let values = first..first + group.len();
            first = values.end;
            let common = last_key.iter().zip(key).take_while(|(a, b)| a == b).count();
            self.close_beyond(common, last_key)?;
            match self.open.last_mut() {
                // Only the empty key ends where the last one ended, and it is the root's.
                Some(node) if key.len() == common => node.values = values,
                _ => self.open.push(Open {
                    start: common + 1,
                    end: key.len(),
                    children: Vec::new(),
                    values,
                }),
            }
            last_key = key;
        }
        self.close_beyond(0, last_key)?;
        let root = match self.open.pop() {
            Some(root) => self.node(&root, b"")?,
            None => 0,
        };
        for (place, word) in self.bytes.chunks_mut(4).zip([MAGIC, VERSION, root]) {
            place.copy_from_slice(&word.to_be_bytes());
        }
        Ok(self.bytes)
    }

    /// Writes the nodes that end after `length` characters of `key`; one that starts before is cut
    /// in two there. Then the last open node ends at `length`.
    fn close_beyond(&mut self, length: usize, key: &[u8]) -> Result<(), String> {
        while let Some(node) = self.open.pop_if(|node| node.end > length) {
            let is_cut = node.start <= length;
            let start = if is_cut { length + 1 } else { node.start };
            let offset = self.node(&node, &key[start..node.end])?;
            let child = (key[start - 1], offset);
            match self.open.last_mut() {
                Some(parent) if !is_cut => parent.children.push(child),
                _ => self.open.push(Open {
                    start: node.start,
                    end: length,
                    children: vec![child],
                    values: 0..0,
                }),
            }
        }
        Ok(())
    }

    /// Writes a node whose children are written; gives its offset with the flags.
    fn node(&mut self, node: &Open, prefix: &[u8]) -> Result<u32, String> {
        let mut offset = self.offset()?;
        if !prefix.is_empty() {
            self.text(prefix);
            offset |= HAS_PREFIX;
        }
        if let (Some((first, _)), Some((last, _))) = (node.children.first(), node.children.last()) {
            self.bytes.extend([*first, *last]);
            let mut children = node.children.iter().peekable();
            for character in *first..=*last {
                let child = children.next_if(|(c, _)| *c == character);
                self.word(child.map_or(0, |(_, offset)| *offset));
            }
            offset |= HAS_CHILDREN;
        }
        let values = &self.entries[node.values.clone()];
        if !values.is_empty() {
            self.word(u32::try_from(values.len()).map_err(|_| too_large())?);
            for value in values {
                self.word(value.priority);
                self.text(value.value.as_bytes());
            }
            offset |= HAS_VALUES;
        }
        Ok(offset)
    }

    fn offset(&self) -> Result<u32, String> {
        let offset = Some(self.bytes.len()).filter(|offset| *offset <= OFFSET_MAX);
        offset
            .and_then(|offset| u32::try_from(offset).ok())
            .ok_or_else(too_large)
    }

    fn word(&mut self, word: u32) {
        self.bytes.extend(word.to_be_bytes());
    }

    fn text(&mut self, text: &[u8]) {
        self.bytes.extend_from_slice(text);
        self.bytes.push(0);
    }
}

fn too_large() -> String {
    format!("the index would have more than {OFFSET_MAX} bytes")
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// Every key with its values, read the way modprobe does.
    pub(in crate::kernel::modules) fn read(bytes: &[u8]) -> BTreeMap<String, Vec<(u32, String)>> {
        assert_eq!((word(bytes, 0), word(bytes, 4)), (MAGIC, VERSION));
        let mut found = BTreeMap::new();
        read_node(bytes, word(bytes, 8), "", &mut found);
        found
    }

    fn word(bytes: &[u8], at: usize) -> u32 {
        u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap())
    }

    fn text(bytes: &[u8], at: &mut usize) -> String {
        let length = bytes[*at..].iter().position(|b| *b == 0).unwrap();
        let text = str::from_utf8(&bytes[*at..*at + length]).unwrap();
        *at += length + 1;
        text.to_owned()
    }

    fn read_node(
        bytes: &[u8],
        offset: u32,
        before: &str,
        found: &mut BTreeMap<String, Vec<(u32, String)>>,
    ) {
        let mut at = usize::try_from(offset & 0x0fff_ffff).unwrap();
        let mut key = before.to_owned();
        if offset & HAS_PREFIX != 0 {
            key.push_str(&text(bytes, &mut at));
        }
        if offset & HAS_CHILDREN != 0 {
            let (first, last) = (bytes[at], bytes[at + 1]);
            at += 2;
            for character in first..=last {
                let child = word(bytes, at);
                at += 4;
                if child != 0 {
                    let key = format!("{key}{}", char::from(character));
                    read_node(bytes, child, &key, found);
                }
            }
        }
        if offset & HAS_VALUES != 0 {
            let count = word(bytes, at);
            at += 4;
            for _ in 0..count {
                let priority = word(bytes, at);
                at += 4;
                let value = (priority, text(bytes, &mut at));
                found.entry(key.clone()).or_default().push(value);
            }
        }
    }

    fn entry(key: &str, priority: u32, value: &str) -> Entry {
        Entry {
            key: key.into(),
            priority,
            value: value.into(),
        }
    }

    #[test]
    fn what_is_written_is_found_again() {
        let keys = ["", "b", "abc", "abd", "ab", "abcdef", "a", "zz", "zy", "b"];
        let entries: Vec<Entry> = (0..).zip(keys).map(|(n, k)| entry(k, n, "v")).collect();
        let found = read(&index(entries.clone()).unwrap());
        assert_eq!(found.len(), 9);
        for entry in &entries {
            assert!(found[&entry.key].contains(&(entry.priority, "v".into())));
        }
        assert_eq!(found["b"], [(1, "v".into()), (9, "v".into())]);
    }

    #[test]
    fn every_set_of_short_keys_is_found_again() {
        let all = ["", "a", "b", "aa", "ab", "ba", "aab", "abb"];
        for set in 0_u32..256 {
            let keys = (0..8).filter(|n| set >> n & 1 == 1).map(|n| all[n]);
            let entries: Vec<Entry> = keys.map(|k| entry(k, 7, k)).collect();
            let found = read(&index(entries.clone()).unwrap());
            let expected = entries
                .iter()
                .map(|e| (e.key.clone(), vec![(7, e.key.clone())]));
            assert_eq!(found, expected.collect());
        }
    }

    #[test]
    fn the_bytes_are_kmods() {
        assert_eq!(
            index(Vec::new()).unwrap(),
            [0xb0, 7, 0xf4, 0x57, 0, 2, 0, 1, 0, 0, 0, 12]
        );
        let bytes = index(vec![entry("ab", 1, "x"), entry("ac", 0, "y")]).unwrap();
        let nodes = b"\0\0\0\x01\0\0\0\x01x\0\0\0\0\x01\0\0\0\0y\0\
                      bc\x40\0\0\x0c\x40\0\0\x16aa\x20\0\0\x20";
        assert_eq!(bytes[HEADER_BYTES..], *nodes);
        assert_eq!(bytes[8..12], [0x20, 0, 0, 0x2a]);
    }

    #[test]
    fn equal_values_come_in_the_reverse_of_their_order() {
        let entries = vec![entry("k", 0, "a"), entry("k", 0, "b"), entry("k", 0, "c")];
        let found = read(&index(entries).unwrap());
        let values = ["c", "b", "a"].map(|v| (0, v.to_owned()));
        assert_eq!(found["k"], values);
    }

    #[test]
    fn what_kmod_cannot_look_up_is_refused() {
        assert!(index(vec![entry("ä", 0, "x")]).is_err());
        assert!(index(vec![entry("a", 0, "ä")]).is_err());
        assert!(index(vec![entry("a\0b", 0, "x")]).is_err());
        assert!(index(vec![entry(&"a".repeat(4096), 0, "x")]).is_err());
        // Deep tries need no deep stack.
        let deep = (1..4096).map(|n| entry(&"a".repeat(n), 0, "x"));
        assert_eq!(
            index(deep.collect()).unwrap().len(),
            12 + 4095 * 10 + 4095 * 6
        );
    }
}
