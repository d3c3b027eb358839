//! Extended attributes in an inode and in a block of their own.

use std::collections::BTreeMap;

use super::ReadError;
use super::inode::Inode;
use super::volume::Volume;
use crate::ext4::checksum;
use crate::ext4::encoding::{acl_from_disk, is_acl_index, join_xattr_name};
use crate::ext4::format::{
    EXT4_XATTR_MAGIC, EXT4_XATTR_PAD, XATTR_IBODY_HEADER_SIZE, XattrEntry, XattrHeader,
};
use crate::tree::Name;

type Attributes = BTreeMap<Name, Box<[u8]>>;

/// Every attribute of an inode, as `getxattr` would give it.
pub(super) fn read(volume: &Volume, inode: &Inode) -> Result<Attributes, ReadError> {
    let mut found = Attributes::new();
    let body = inode.bytes.get(inode.fields_end()..).unwrap_or_default();
    let magic = body.first_chunk().map(|bytes| u32::from_le_bytes(*bytes));
    if magic == Some(EXT4_XATTR_MAGIC) {
        let area = &body[XATTR_IBODY_HEADER_SIZE..];
        read_entries(inode, area, area, &mut found)?;
    }
    let number = inode.attribute_block();
    if number != 0 {
        if !volume.has_blocks(number, 1) {
            return Err(malformed(inode));
        }
        let block = volume.block(number)?;
        check_block(volume, inode, number, &block)?;
        let entries = block.get(XattrHeader::SIZE..).unwrap_or_default();
        read_entries(inode, entries, &block, &mut found)?;
    }
    Ok(found)
}

fn malformed(inode: &Inode) -> ReadError {
    ReadError::corrupt(inode.place(), "its extended attributes are malformed")
}

fn check_block(volume: &Volume, inode: &Inode, number: u64, block: &[u8]) -> Result<(), ReadError> {
    let header = XattrHeader::decode(block).ok_or_else(|| malformed(inode))?;
    if header.h_magic != EXT4_XATTR_MAGIC || header.h_blocks != 1 {
        return Err(malformed(inode));
    }
    if let Some(seed) = volume.seed
        && checksum::xattr_block(seed, number, block) != header.h_checksum
    {
        return Err(ReadError::checksum(format!(
            "{}, attribute block {number}",
            inode.place()
        )));
    }
    Ok(())
}

/// `entries` is the list; offsets of values count from the start of `values`.
fn read_entries(
    inode: &Inode,
    entries: &[u8],
    values: &[u8],
    found: &mut Attributes,
) -> Result<(), ReadError> {
    let mut rest = entries;
    loop {
        let end = rest.first_chunk::<4>().ok_or_else(|| malformed(inode))?;
        if *end == [0; 4] {
            return Ok(());
        }
        let entry = XattrEntry::decode(rest).ok_or_else(|| malformed(inode))?;
        let name_end = XattrEntry::SIZE.saturating_add(usize::from(entry.e_name_len));
        let name = rest.get(XattrEntry::SIZE..name_end);
        let name = name.ok_or_else(|| malformed(inode))?;
        let (name, value) = attribute(inode, &entry, name, values)?;
        if found.insert(name, value).is_some() {
            return Err(malformed(inode));
        }
        rest = rest
            .get(name_end.next_multiple_of(EXT4_XATTR_PAD)..)
            .ok_or_else(|| malformed(inode))?;
    }
}

fn attribute(
    inode: &Inode,
    entry: &XattrEntry,
    name: &[u8],
    values: &[u8],
) -> Result<(Name, Box<[u8]>), ReadError> {
    if entry.e_value_inum != 0 {
        return Err(ReadError::unsupported(
            inode.place(),
            "an attribute's value as an inode (ea_inode)",
        ));
    }
    let full = join_xattr_name(entry.e_name_index, name).ok_or_else(|| {
        ReadError::unsupported(
            inode.place(),
            format!("an attribute with name index {}", entry.e_name_index),
        )
    })?;
    let is_acl = is_acl_index(entry.e_name_index);
    if name.contains(&0) || is_acl != name.is_empty() {
        return Err(malformed(inode));
    }
    let start = usize::from(entry.e_value_offs);
    let value = usize::try_from(entry.e_value_size)
        .ok()
        .and_then(|size| values.get(start..start.checked_add(size)?))
        // An empty value has no place.
        .or_else(|| (entry.e_value_size == 0).then_some(&[][..]))
        .ok_or_else(|| malformed(inode))?;
    let value = if is_acl {
        acl_from_disk(value).ok_or_else(|| malformed(inode))?.into()
    } else {
        value.into()
    };
    Ok((full.into(), value))
}
