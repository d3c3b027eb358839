//! Extended attributes: in an inode, in a block, and with values in inodes of their own.

use std::collections::{BTreeMap, BTreeSet};

use super::ReadError;
use super::claims::Claims;
use super::inline::Inline;
use super::inode::Inode;
use super::mapping;
use super::volume::{Volume, as_u64};
use crate::ext4::checksum;
use crate::ext4::encoding::{acl_from_disk, is_acl_index, join_xattr_name};
use crate::ext4::format::{
    EXT4_XATTR_MAGIC, EXT4_XATTR_PAD, XATTR_IBODY_HEADER_SIZE, XattrEntry, XattrHeader, incompat,
    inode_flags, mode, xattr_index,
};
use crate::tree::Name;

/// The longest value that Linux has (`XATTR_SIZE_MAX`), in bytes.
const VALUE_SIZE_MAX: u32 = 64 << 10;
/// Inodes share attributes, a tree has them once for each inode: so many bytes more than the image
/// has may all of them be together.
const SHARED_BYTES_MAX: u64 = 256 << 20;
/// The name of the attribute that holds content (`inline_data`), without its prefix.
const INLINE_DATA_NAME: &[u8] = b"data";

type Attributes = BTreeMap<Name, Box<[u8]>>;

/// What an inode's attributes say.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Every attribute, as `getxattr` would give it.
    pub(super) attributes: Attributes,
    /// Where the inode's content is, if it is in the inode.
    pub(super) inline: Option<Inline>,
}

/// Reads attributes and keeps count of what they share.
pub(super) struct Reader<'v> {
    volume: &'v Volume,
    /// Blocks and inodes of values that are counted already: many inodes may have one.
    blocks: BTreeSet<u64>,
    values: BTreeSet<u32>,
    /// How many bytes of values the tree may still get.
    bytes_left: u64,
}

/// Where a list of attributes lies.
struct List<'a> {
    inode: &'a Inode,
    /// The block, where it is one.
    block: Option<u64>,
    entries: &'a [u8],
    /// Offsets of values count from the start of this.
    values: &'a [u8],
}

impl<'v> Reader<'v> {
    pub(super) fn new(volume: &'v Volume) -> Self {
        let image = volume
            .blocks_count
            .saturating_mul(as_u64(volume.block_size));
        Self {
            volume,
            blocks: BTreeSet::new(),
            values: BTreeSet::new(),
            bytes_left: image.saturating_add(SHARED_BYTES_MAX),
        }
    }

    /// Reads the attributes of an inode.
    pub(super) fn read(&mut self, inode: &Inode, claims: &mut Claims) -> Result<Found, ReadError> {
        let mut found = Found::default();
        let body = inode.bytes.get(inode.fields_end()..).unwrap_or_default();
        let magic = body.first_chunk().map(|bytes| u32::from_le_bytes(*bytes));
        if magic == Some(EXT4_XATTR_MAGIC) {
            let area = body.get(XATTR_IBODY_HEADER_SIZE..).unwrap_or_default();
            let list = List {
                inode,
                block: None,
                entries: area,
                values: area,
            };
            self.read_list(&list, &mut found, claims)?;
        }
        let number = inode.attribute_block();
        if number != 0 {
            if !self.volume.has_blocks(number, 1) {
                return Err(malformed(
                    inode,
                    Some(number),
                    "the block is outside the image",
                ));
            }
            let block = self.volume.block(number)?;
            self.check_block(inode, number, &block)?;
            if self.blocks.insert(number) {
                claims.add(inode.number, number, 1)?;
            }
            let list = List {
                inode,
                block: Some(number),
                entries: block.get(XattrHeader::SIZE..).unwrap_or_default(),
                values: &block,
            };
            self.read_list(&list, &mut found, claims)?;
        }
        if inode.has_flag(inode_flags::INLINE_DATA) != found.inline.is_some() {
            return Err(malformed(
                inode,
                None,
                "the flag inline_data and the attribute system.data come together only",
            ));
        }
        Ok(found)
    }

    fn check_block(&self, inode: &Inode, number: u64, block: &[u8]) -> Result<(), ReadError> {
        let header = XattrHeader::decode(block)
            .filter(|header| header.h_magic == EXT4_XATTR_MAGIC && header.h_blocks == 1);
        let header = header.ok_or_else(|| malformed(inode, Some(number), "the block is none"))?;
        if let Some(seed) = self.volume.seed
            && checksum::xattr_block(seed, number, block) != header.h_checksum
        {
            return Err(ReadError::checksum(format!(
                "{}, attribute block {number}",
                inode.place()
            )));
        }
        Ok(())
    }

    fn read_list(
        &mut self,
        list: &List<'_>,
        found: &mut Found,
        claims: &mut Claims,
    ) -> Result<(), ReadError> {
        let cut = || malformed(list.inode, list.block, "the list has no end");
        let mut rest = list.entries;
        loop {
            let end = rest.first_chunk::<4>().ok_or_else(cut)?;
            if *end == [0; 4] {
                return Ok(());
            }
            let entry = XattrEntry::decode(rest).ok_or_else(cut)?;
            let name_end = XattrEntry::SIZE.saturating_add(usize::from(entry.e_name_len));
            let name = rest.get(XattrEntry::SIZE..name_end).ok_or_else(cut)?;
            if entry.e_name_index == xattr_index::SYSTEM {
                let inline = inline_data(list, &entry, name)?;
                if found.inline.replace(inline).is_some() {
                    return Err(malformed(
                        list.inode,
                        list.block,
                        "system.data is there twice",
                    ));
                }
            } else {
                let (name, value) = self.attribute(list, &entry, name, claims)?;
                if found.attributes.insert(name, value).is_some() {
                    return Err(malformed(list.inode, list.block, "a name is there twice"));
                }
            }
            rest = rest
                .get(name_end.next_multiple_of(EXT4_XATTR_PAD)..)
                .ok_or_else(cut)?;
        }
    }

    fn attribute(
        &mut self,
        list: &List<'_>,
        entry: &XattrEntry,
        name: &[u8],
        claims: &mut Claims,
    ) -> Result<(Name, Box<[u8]>), ReadError> {
        let index = entry.e_name_index;
        let full = join_xattr_name(index, name).ok_or_else(|| {
            ReadError::unsupported(
                list.inode.place(),
                format!("an attribute with name index {index}"),
            )
        })?;
        let is_acl = is_acl_index(index);
        if name.contains(&0) || is_acl != name.is_empty() {
            return Err(malformed(list.inode, list.block, "a name is impossible"));
        }
        let value: Box<[u8]> = if entry.e_value_inum == 0 {
            let range = value_range(list, entry)?;
            self.count_value(list, entry)?;
            list.values.get(range).unwrap_or_default().into()
        } else {
            self.value_of_inode(list, entry, name, claims)?.into()
        };
        let value = if is_acl {
            acl_from_disk(&value)
                .ok_or_else(|| malformed(list.inode, list.block, "an access control list is none"))?
                .into()
        } else {
            value
        };
        Ok((full.into(), value))
    }

    fn count_value(&mut self, list: &List<'_>, entry: &XattrEntry) -> Result<(), ReadError> {
        let left = self.bytes_left.checked_sub(entry.e_value_size.into());
        self.bytes_left = left.ok_or_else(|| {
            ReadError::unsupported(
                list.inode.place(),
                "so much in shared attributes (256 MiB more than the image)",
            )
        })?;
        Ok(())
    }

    /// A value that is the content of an inode (`ea_inode`).
    fn value_of_inode(
        &mut self,
        list: &List<'_>,
        entry: &XattrEntry,
        name: &[u8],
        claims: &mut Claims,
    ) -> Result<Vec<u8>, ReadError> {
        if !self.volume.has_incompat(incompat::EA_INODE) {
            let reason = "a value is an inode, which needs the feature ea_inode";
            return Err(malformed(list.inode, list.block, reason));
        }
        let holder = Inode::read(self.volume, entry.e_value_inum)?;
        let corrupt = |reason: &str| {
            let reason = format!(
                "{reason}, as the value of an attribute of {}",
                list.inode.place()
            );
            ReadError::corrupt(holder.place(), reason)
        };
        if !holder.has_flag(inode_flags::EA_INODE)
            || holder.has_flag(inode_flags::INLINE_DATA)
            || holder.format() != mode::S_IFREG
            || holder.raw.i_links_count == 0
        {
            return Err(corrupt("it is of another kind"));
        }
        if entry.e_value_size > VALUE_SIZE_MAX {
            return Err(ReadError::unsupported(
                list.inode.place(),
                format!("an attribute of {} bytes", entry.e_value_size),
            ));
        }
        if holder.size() != u64::from(entry.e_value_size) {
            return Err(corrupt("its size is another"));
        }
        self.count_value(list, entry)?;
        let value = self.content(&holder, claims)?;
        // The hash stands in the place of the access time (`ext4_xattr_inode_get_hash`).
        let hash = self.volume.value_seed.add(&value).value();
        if hash != holder.raw.i_atime || entry_hashes(name, hash).all(|hash| hash != entry.e_hash) {
            return Err(ReadError::checksum(format!(
                "{}, the value of an attribute of {}",
                holder.place(),
                list.inode.place()
            )));
        }
        Ok(value)
    }

    fn content(&mut self, holder: &Inode, claims: &mut Claims) -> Result<Vec<u8>, ReadError> {
        let mapping = mapping::read(self.volume, holder)?;
        if self.values.insert(holder.number) {
            claims.add_mapping(holder.number, &mapping)?;
        }
        mapping.content(self.volume, holder)
    }
}

fn malformed(inode: &Inode, block: Option<u64>, reason: &str) -> ReadError {
    let place = block.map_or_else(
        || inode.place(),
        |block| format!("{}, block {block}", inode.place()),
    );
    ReadError::corrupt(
        place,
        format!("its extended attributes are malformed: {reason}"),
    )
}

/// The attribute that holds content.
fn inline_data(list: &List<'_>, entry: &XattrEntry, name: &[u8]) -> Result<Inline, ReadError> {
    if name != INLINE_DATA_NAME {
        let full = crate::tree::display(name);
        return Err(ReadError::unsupported(
            list.inode.place(),
            format!("the attribute system.{full}"),
        ));
    }
    if list.block.is_some() || entry.e_value_inum != 0 {
        let reason = "system.data is not in the inode";
        return Err(malformed(list.inode, list.block, reason));
    }
    let range = value_range(list, entry)?;
    let start = list.inode.bytes.len().saturating_sub(list.values.len());
    Ok(Inline {
        value: start.saturating_add(range.start)..start.saturating_add(range.end),
    })
}

/// Where a value is in the list's values; an empty one has no place.
fn value_range(list: &List<'_>, entry: &XattrEntry) -> Result<std::ops::Range<usize>, ReadError> {
    if entry.e_value_size == 0 {
        return Ok(0..0);
    }
    let start = usize::from(entry.e_value_offs);
    usize::try_from(entry.e_value_size)
        .ok()
        .and_then(|size| start.checked_add(size))
        .filter(|end| *end <= list.values.len())
        .map(|end| start..end)
        .ok_or_else(|| malformed(list.inode, list.block, "a value is outside its place"))
}

/// What `e_hash` may be where the value is an inode with this hash (`ext4_xattr_hash_entry`):
/// kernels have taken the characters of names as unsigned, and some as signed.
fn entry_hashes(name: &[u8], value_hash: u32) -> impl Iterator<Item = u32> {
    let unsigned = |byte: u8| u32::from(byte);
    let signed = |byte: u8| i32::from(byte.cast_signed()).cast_unsigned();
    let hash = |widen: fn(u8) -> u32| {
        let name = name
            .iter()
            .fold(0_u32, |hash, byte| hash.rotate_left(5) ^ widen(*byte));
        name.rotate_left(16) ^ value_hash
    };
    [hash(unsigned), hash(signed)].into_iter()
}
