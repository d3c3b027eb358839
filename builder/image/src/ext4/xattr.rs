//! Attributes on disk: what goes into the inode, what into a block, what into inodes of their own,
//! and all encoded.

use std::borrow::Cow;

use super::checksum::Checksum;
use super::encoding::{acl_to_disk, is_acl_index, split_xattr_name};
use super::format::{
    EXT4_XATTR_MAGIC, EXT4_XATTR_PAD, XATTR_IBODY_HEADER_SIZE, XattrEntry, XattrHeader,
};
use super::options::INODE_XATTR_SIZE;
use crate::tree::{Metadata, display};

/// Bytes that end a list of entries.
const TERMINATOR_SIZE: usize = 4;
/// The longest name that Linux has, with its prefix (`XATTR_NAME_MAX`): longer ones could be listed,
/// but not read.
const NAME_SIZE_MAX: usize = 255;
/// The longest value that Linux has (`XATTR_SIZE_MAX`).
pub(crate) const VALUE_SIZE_MAX: usize = 64 << 10;

/// An attribute as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Attribute<'t> {
    index: u8,
    name: &'t [u8],
    pub(crate) value: Cow<'t, [u8]>,
    /// Whether the value is in an inode of its own (`ea_inode`).
    pub(crate) outside: bool,
}

/// The attributes of an inode by the place where they go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Split<'t> {
    pub(crate) inline: Vec<Attribute<'t>>,
    pub(crate) block: Vec<Attribute<'t>>,
}

/// Why attributes cannot be stored; the name is the full one.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Problem {
    Name(String),
    Acl(String),
    TooLarge { name: String, size: usize },
}

/// The inode that holds a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ValueInode {
    pub(crate) number: u32,
    pub(crate) hash: u32,
}

/// The hash that the inode of a value keeps.
pub(crate) fn value_hash(seed: Checksum, value: &[u8]) -> u32 {
    seed.add(value).value()
}

impl Attribute<'_> {
    fn entry_size(&self) -> usize {
        XattrEntry::SIZE + self.name.len().next_multiple_of(EXT4_XATTR_PAD)
    }

    fn value_size(&self) -> usize {
        if self.outside {
            return 0;
        }
        self.value.len().next_multiple_of(EXT4_XATTR_PAD)
    }

    fn size(&self) -> usize {
        self.entry_size() + self.value_size()
    }

    /// `e_hash`: the name, then the padded value, or the hash of a value that is elsewhere.
    fn hash(&self, outside: Option<ValueInode>) -> u32 {
        let name_hash = self
            .name
            .iter()
            .fold(0_u32, |hash, byte| hash.rotate_left(5) ^ u32::from(*byte));
        if let Some(inode) = outside {
            return name_hash.rotate_left(16) ^ inode.hash;
        }
        self.value
            .chunks(EXT4_XATTR_PAD)
            .fold(name_hash, |hash, bytes| {
                let mut word = [0; 4];
                word[..bytes.len()].copy_from_slice(bytes);
                hash.rotate_left(16) ^ u32::from_le_bytes(word)
            })
    }
}

/// Sorts the attributes of an inode as the kernel wants them and fills the inode first. Where they
/// do not fit inode and block, the largest values get inodes of their own, one after the other.
///
/// # Errors
/// An attribute that ext4 cannot hold, or entries that fit neither inode nor block.
pub(crate) fn split(metadata: &Metadata, block_size: usize) -> Result<Split<'_>, Problem> {
    if metadata.xattrs.is_empty() {
        return Ok(Split::default());
    }
    let mut attributes = Vec::with_capacity(metadata.xattrs.len());
    for (full, value) in &metadata.xattrs {
        let (index, name) = split_xattr_name(full)
            .filter(|_| full.len() <= NAME_SIZE_MAX)
            .ok_or_else(|| Problem::Name(display(full)))?;
        if value.len() > VALUE_SIZE_MAX {
            return Err(Problem::TooLarge {
                name: display(full),
                size: value.len(),
            });
        }
        let value = if is_acl_index(index) {
            Cow::Owned(acl_to_disk(value).ok_or_else(|| Problem::Acl(display(full)))?)
        } else {
            Cow::Borrowed(&**value)
        };
        let outside = false;
        attributes.push((
            Attribute {
                index,
                name,
                value,
                outside,
            },
            full,
        ));
    }
    attributes.sort_by(|(a, _), (b, _)| {
        (a.index, a.name.len(), a.name).cmp(&(b.index, b.name.len(), b.name))
    });
    // Entries alone must fit before any value is moved, which also bounds the number of rounds.
    let entries: usize = attributes.iter().map(|(entry, _)| entry.entry_size()).sum();
    let room = INODE_XATTR_SIZE + block_size;
    loop {
        let misfit = match fit(&attributes, block_size) {
            Ok(split) => return Ok(split),
            Err(misfit) => misfit,
        };
        let largest = attributes
            .iter_mut()
            .map(|(attribute, _)| attribute)
            .filter(|attribute| attribute.value_size() > 0)
            .rev()
            .max_by_key(|attribute| attribute.value.len());
        match largest {
            Some(attribute) if entries <= room => attribute.outside = true,
            _ => {
                let (attribute, full) = &attributes[misfit];
                return Err(Problem::TooLarge {
                    name: display(full),
                    size: attribute.value.len(),
                });
            }
        }
    }
}

/// Fills inode and block; the index of what does not fit.
///
/// Entries whose values are elsewhere go into the block first: the blocks of such values count for
/// the inode, and e2fsck takes a short link that has blocks, but none of attributes, for one whose
/// target is a list of blocks.
fn fit<'t, N>(attributes: &[(Attribute<'t>, N)], block_size: usize) -> Result<Split<'t>, usize> {
    let mut split = Split::default();
    let mut inline_free = INODE_XATTR_SIZE - XATTR_IBODY_HEADER_SIZE - TERMINATOR_SIZE;
    let mut block_free = block_size - XattrHeader::SIZE - TERMINATOR_SIZE;
    for (at, (attribute, _)) in attributes.iter().enumerate() {
        let size = attribute.size();
        let prefers_block = attribute.outside && size <= block_free;
        if size <= inline_free && !prefers_block {
            inline_free -= size;
            split.inline.push(attribute.clone());
        } else if size <= block_free {
            block_free -= size;
            split.block.push(attribute.clone());
        } else {
            return Err(at);
        }
    }
    Ok(split)
}

/// Finds the inode of a value that is in one.
pub(crate) type FindValue<'f> = &'f dyn Fn(&[u8]) -> ValueInode;

/// Writes entries from `entries_at` on and values from the end of `area` down. Value offsets count
/// from `base`.
fn encode(
    attributes: &[Attribute<'_>],
    area: &mut [u8],
    entries_at: usize,
    base: usize,
    is_block: bool,
    find: FindValue<'_>,
) {
    let mut at = entries_at;
    let mut value_at = area.len();
    for attribute in attributes {
        let outside = attribute.outside.then(|| find(&attribute.value));
        let mut offset = 0;
        if outside.is_none() && !attribute.value.is_empty() {
            value_at -= attribute.value_size();
            area[value_at..value_at + attribute.value.len()].copy_from_slice(&attribute.value);
            offset = value_at - base;
        }
        let hashed = is_block || outside.is_some();
        let entry = XattrEntry {
            e_name_len: u8::try_from(attribute.name.len()).unwrap_or(u8::MAX),
            e_name_index: attribute.index,
            e_value_offs: u16::try_from(offset).unwrap_or(u16::MAX),
            e_value_inum: outside.map_or(0, |inode| inode.number),
            e_value_size: u32::try_from(attribute.value.len()).unwrap_or(u32::MAX),
            e_hash: if hashed { attribute.hash(outside) } else { 0 },
        };
        area[at..at + XattrEntry::SIZE].copy_from_slice(&entry.encode());
        let name_at = at + XattrEntry::SIZE;
        area[name_at..name_at + attribute.name.len()].copy_from_slice(attribute.name);
        at += attribute.entry_size();
    }
}

/// Encodes attributes behind an inode's fields; `area` is all zero and [`INODE_XATTR_SIZE`] long.
pub(crate) fn encode_inline(attributes: &[Attribute<'_>], find: FindValue<'_>, area: &mut [u8]) {
    if attributes.is_empty() {
        return;
    }
    area[..XATTR_IBODY_HEADER_SIZE].copy_from_slice(&EXT4_XATTR_MAGIC.to_le_bytes());
    let base = XATTR_IBODY_HEADER_SIZE;
    encode(attributes, area, base, base, false, find);
}

/// Encodes an attribute block, with `h_refcount` and `h_checksum` still zero.
pub(crate) fn encode_block(
    attributes: &[Attribute<'_>],
    block_size: usize,
    find: FindValue<'_>,
) -> Vec<u8> {
    let mut block = vec![0; block_size];
    let hash = attributes
        .iter()
        .map(|attribute| attribute.hash(attribute.outside.then(|| find(&attribute.value))))
        .try_fold(0_u32, |hash, entry| {
            (entry != 0).then_some(hash.rotate_left(16) ^ entry)
        });
    let header = XattrHeader {
        h_magic: EXT4_XATTR_MAGIC,
        h_blocks: 1,
        h_hash: hash.unwrap_or(0),
        ..XattrHeader::zeroed()
    };
    block[..XattrHeader::SIZE].copy_from_slice(&header.encode());
    encode(attributes, &mut block, XattrHeader::SIZE, 0, true, find);
    block
}
