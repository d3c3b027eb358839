//! Attributes on disk: what goes into the inode, what into a block, and both encoded.

use std::borrow::Cow;

use super::encoding::{acl_to_disk, is_acl_index, split_xattr_name};
use super::format::{
    EXT4_XATTR_MAGIC, EXT4_XATTR_PAD, XATTR_IBODY_HEADER_SIZE, XattrEntry, XattrHeader,
};
use super::options::INODE_XATTR_SIZE;
use crate::tree::{Metadata, display};

/// Bytes that end a list of entries.
const TERMINATOR_SIZE: usize = 4;

/// An attribute as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Attribute<'t> {
    index: u8,
    name: &'t [u8],
    value: Cow<'t, [u8]>,
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

impl Attribute<'_> {
    fn entry_size(&self) -> usize {
        XattrEntry::SIZE + self.name.len().next_multiple_of(EXT4_XATTR_PAD)
    }

    fn value_size(&self) -> usize {
        self.value.len().next_multiple_of(EXT4_XATTR_PAD)
    }

    fn size(&self) -> usize {
        self.entry_size() + self.value_size()
    }

    /// `e_hash` of an entry in a block: the name, then the padded value.
    fn hash(&self) -> u32 {
        let name_hash = self
            .name
            .iter()
            .fold(0_u32, |hash, byte| hash.rotate_left(5) ^ u32::from(*byte));
        self.value
            .chunks(EXT4_XATTR_PAD)
            .fold(name_hash, |hash, bytes| {
                let mut word = [0; 4];
                word[..bytes.len()].copy_from_slice(bytes);
                hash.rotate_left(16) ^ u32::from_le_bytes(word)
            })
    }
}

/// Sorts the attributes of an inode as the kernel wants them and fills the inode first.
///
/// # Errors
/// An attribute that ext4 cannot hold, or that fits neither inode nor block.
pub(crate) fn split(metadata: &Metadata, block_size: usize) -> Result<Split<'_>, Problem> {
    let mut split = Split::default();
    if metadata.xattrs.is_empty() {
        return Ok(split);
    }
    let mut attributes = Vec::with_capacity(metadata.xattrs.len());
    for (full, value) in &metadata.xattrs {
        let (index, name) = split_xattr_name(full).ok_or_else(|| Problem::Name(display(full)))?;
        let value = if is_acl_index(index) {
            Cow::Owned(acl_to_disk(value).ok_or_else(|| Problem::Acl(display(full)))?)
        } else {
            Cow::Borrowed(&**value)
        };
        let attribute = Attribute { index, name, value };
        attributes.push((attribute, full));
    }
    attributes.sort_by(|(a, _), (b, _)| {
        (a.index, a.name.len(), a.name).cmp(&(b.index, b.name.len(), b.name))
    });
    let mut inline_free = INODE_XATTR_SIZE - XATTR_IBODY_HEADER_SIZE - TERMINATOR_SIZE;
    let mut block_free = block_size - XattrHeader::SIZE - TERMINATOR_SIZE;
    for (attribute, full) in attributes {
        let size = attribute.size();
        if size <= inline_free {
            inline_free -= size;
            split.inline.push(attribute);
        } else if size <= block_free {
            block_free -= size;
            split.block.push(attribute);
        } else {
            return Err(Problem::TooLarge {
                name: display(full),
                size: attribute.value.len(),
            });
        }
    }
    Ok(split)
}

/// Writes entries from `entries_at` on and values from the end of `area` down. Value offsets count
/// from `base`.
fn encode(
    attributes: &[Attribute<'_>],
    area: &mut [u8],
    entries_at: usize,
    base: usize,
    hashed: bool,
) {
    let mut at = entries_at;
    let mut value_at = area.len();
    for attribute in attributes {
        value_at -= attribute.value_size();
        area[value_at..value_at + attribute.value.len()].copy_from_slice(&attribute.value);
        let offset = if attribute.value.is_empty() {
            0
        } else {
            value_at - base
        };
        let entry = XattrEntry {
            e_name_len: u8::try_from(attribute.name.len()).unwrap_or(u8::MAX),
            e_name_index: attribute.index,
            e_value_offs: u16::try_from(offset).unwrap_or(u16::MAX),
            e_value_inum: 0,
            e_value_size: u32::try_from(attribute.value.len()).unwrap_or(u32::MAX),
            e_hash: if hashed { attribute.hash() } else { 0 },
        };
        area[at..at + XattrEntry::SIZE].copy_from_slice(&entry.encode());
        let name_at = at + XattrEntry::SIZE;
        area[name_at..name_at + attribute.name.len()].copy_from_slice(attribute.name);
        at += attribute.entry_size();
    }
}

/// Encodes attributes behind an inode's fields; `area` is all zero and [`INODE_XATTR_SIZE`] long.
pub(crate) fn encode_inline(attributes: &[Attribute<'_>], area: &mut [u8]) {
    if attributes.is_empty() {
        return;
    }
    area[..XATTR_IBODY_HEADER_SIZE].copy_from_slice(&EXT4_XATTR_MAGIC.to_le_bytes());
    encode(
        attributes,
        area,
        XATTR_IBODY_HEADER_SIZE,
        XATTR_IBODY_HEADER_SIZE,
        false,
    );
}

/// Encodes an attribute block, with `h_refcount` and `h_checksum` still zero.
pub(crate) fn encode_block(attributes: &[Attribute<'_>], block_size: usize) -> Vec<u8> {
    let mut block = vec![0; block_size];
    let hash = attributes
        .iter()
        .map(Attribute::hash)
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
    encode(attributes, &mut block, XattrHeader::SIZE, 0, true);
    block
}
