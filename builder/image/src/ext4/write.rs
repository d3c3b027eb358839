//! Writes an image as it was planned: content and folders first, the superblock last.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::checksum::{self, Checksum};
use super::content;
use super::directory::{self, Identity};
use super::error::WriteError;
use super::extent::TreeBlock;
use super::format::{
    EXT4_DIND_BLOCK, EXT4_JOURNAL_INO, EXT4_ORPHAN_BLOCK_MAGIC, EXT4_RESIZE_INO, I_BLOCK_SIZE,
    OrphanBlockTail, XattrHeader, inode_flags, mode, split_u64,
};
use super::inode::{self, Fields};
use super::jbd2::{self, JournalHeader, JournalSuperBlock};
use super::kept::Kept;
use super::layout::{Area, Layout};
use super::options::{
    INODE_SIZE, INODE_SIZE_U64, Inodes, Journal, LABEL_LENGTH_MAX, Options, PERCENT_MAX, Size,
    Summary,
};
use super::scan::{Scan, number_of};
use super::sink::Sink;
use super::superblock::{self, Tables};
use crate::tree::{Entries, Inode, Kind, Metadata, Times, Timestamp, Tree};

/// More inodes than one for so many bytes would leave no room for content.
const BYTES_PER_INODE_MIN: u32 = 1024;

/// Writes `tree` as an ext4 image into `output`, whose former content is lost. Blocks that hold
/// nothing, or only zeroes, are left as holes.
///
/// The same tree and options give the same bytes.
///
/// # Errors
/// Whatever ext4 cannot hold is refused before the first byte is written; later only reading
/// content and writing the image can fail.
pub fn write(tree: &Tree, options: &Options, output: &File) -> Result<Summary, WriteError> {
    check_options(options)?;
    let output = Arc::new(output.try_clone().map_err(WriteError::Output)?);
    let lost_found = made_lost_found(options);
    let scan = Scan::new(tree, &lost_found, options)?;
    let kept = Kept::nothing();
    let layout = Layout::plan(&scan, &kept, options)?;
    empty(&output)?;
    set_size(&output, size_bytes(&layout, options))?;
    content::copy_all(&scan, &kept, &layout, &output, options.threads)?;
    write_rest(&scan, &layout, options, &output)
}

/// Says what [`write()`] would make, without making it.
///
/// # Errors
/// As [`write()`], but nothing is read or written.
pub fn measure(tree: &Tree, options: &Options) -> Result<Summary, WriteError> {
    check_options(options)?;
    let lost_found = made_lost_found(options);
    let scan = Scan::new(tree, &lost_found, options)?;
    let layout = Layout::plan(&scan, &Kept::nothing(), options)?;
    Ok(summary(&scan, &layout, options))
}

/// Length of the image file.
pub(crate) fn size_bytes(layout: &Layout, options: &Options) -> u64 {
    match options.size {
        Size::Auto { .. } => layout.geometry.blocks * layout.geometry.block_bytes(),
        Size::Bytes(bytes) => bytes,
    }
}

/// Writes everything but the content of files into `output`, where all that is not content reads as
/// zeroes.
///
/// # Errors
/// The output cannot be written, or a fault in the layout.
pub(crate) fn write_rest(
    scan: &Scan<'_>,
    layout: &Layout,
    options: &Options,
    output: &Arc<File>,
) -> Result<Summary, WriteError> {
    let writer = Writer {
        scan,
        layout,
        options,
        output,
        seed: Checksum::of_uuid(&options.uuid),
    };
    writer.write()?;
    Ok(summary(scan, layout, options))
}

fn summary(scan: &Scan<'_>, layout: &Layout, options: &Options) -> Summary {
    let blocks_used = layout.used_blocks(0, layout.geometry.blocks);
    Summary {
        size_bytes: size_bytes(layout, options),
        block_size_bytes: options.block_size.bytes(),
        blocks: layout.geometry.blocks,
        blocks_free: layout.geometry.blocks - blocks_used,
        blocks_journal: layout.journal.blocks,
        inodes: layout.geometry.inodes(),
        inodes_free: layout.geometry.inodes() - scan.inodes(),
    }
}

/// Makes `output` empty. A file that is empty already is not cut: ext4 on the host would take a cut
/// for the replacement of a file and write all out when it is closed.
///
/// # Errors
/// What the operating system says.
pub(crate) fn empty(output: &File) -> Result<(), WriteError> {
    if output.metadata().map_err(WriteError::Output)?.len() > 0 {
        set_size(output, 0)?;
    }
    Ok(())
}

/// Cuts `output`, or extends it by a hole.
///
/// # Errors
/// What the operating system says.
pub(crate) fn set_size(output: &File, size_bytes: u64) -> Result<(), WriteError> {
    output.set_len(size_bytes).map_err(WriteError::Output)
}

/// Refuses what is out of its range.
///
/// # Errors
/// [`WriteError::InvalidOption`].
pub(crate) fn check_options(options: &Options) -> Result<(), WriteError> {
    let invalid = |text: String| Err(WriteError::InvalidOption(text));
    let label = options.label.as_bytes();
    if label.len() > LABEL_LENGTH_MAX || label.contains(&0) {
        return invalid(format!(
            "the label '{}' has more than {LABEL_LENGTH_MAX} bytes or a NUL",
            options.label
        ));
    }
    let free_percent = match options.size {
        Size::Auto { free_percent, .. } => free_percent,
        Size::Bytes(_) => 0,
    };
    if free_percent > PERCENT_MAX || options.reserved_percent > PERCENT_MAX {
        return invalid(format!("more than {PERCENT_MAX} percent free or reserved"));
    }
    if let Journal::Blocks(blocks) = options.journal
        && blocks < jbd2::JBD2_MIN_JOURNAL_BLOCKS
    {
        return invalid(format!(
            "a journal of {blocks} blocks, fewer than {}",
            jbd2::JBD2_MIN_JOURNAL_BLOCKS
        ));
    }
    if options.orphan_file && options.journal == Journal::None {
        return invalid("an orphan file without a journal".into());
    }
    if let Inodes::PerBytes(bytes) = options.inodes
        && bytes < BYTES_PER_INODE_MIN
    {
        return invalid(format!("an inode for every {bytes} bytes"));
    }
    if superblock::encode_time(options.time).is_none() {
        return invalid(format!(
            "the time {} is before 1970 or too late",
            options.time.seconds
        ));
    }
    Ok(())
}

/// Metadata of an inode that the tree does not have.
fn made_metadata(options: &Options, mode: u16) -> Metadata {
    Metadata {
        mode,
        times: Times::all(options.time),
        ..Metadata::default()
    }
}

/// The `lost+found` of a tree that has none.
pub(crate) fn made_lost_found(options: &Options) -> Inode {
    Inode {
        metadata: made_metadata(options, 0o700),
        kind: Kind::Directory(Entries::new()),
    }
}

struct Writer<'w> {
    scan: &'w Scan<'w>,
    layout: &'w Layout,
    options: &'w Options,
    output: &'w Arc<File>,
    seed: Checksum,
}

impl Writer<'_> {
    fn write(&self) -> Result<(), WriteError> {
        let mut sink = Sink::threaded(Arc::clone(self.output), 0, self.options.threads)?;
        self.write_nodes(&mut sink)?;
        self.write_attribute_blocks(&mut sink)?;
        self.write_values(&mut sink)?;
        self.write_orphan_file(&mut sink)?;
        let journal = self.write_inodes(&mut sink)?;
        self.write_journal(&mut sink)?;
        let tables = Tables {
            scan: self.scan,
            layout: self.layout,
            options: self.options,
            seed: self.seed,
            journal,
        };
        tables.write(&mut sink)?;
        sink.settle()
    }

    fn block_bytes(&self) -> usize {
        usize::try_from(self.layout.geometry.block_bytes()).unwrap_or(usize::MAX)
    }

    fn offset(&self, block: u64) -> u64 {
        block * self.layout.geometry.block_bytes()
    }

    /// Folders and long link targets.
    fn write_nodes(&self, sink: &mut Sink) -> Result<(), WriteError> {
        for (position, (node, area)) in self.scan.nodes.iter().zip(&self.layout.areas).enumerate() {
            match &node.inode.kind {
                Kind::Directory(_) => self.write_directory(position, area, sink)?,
                Kind::Symlink(target) => {
                    for block in self.layout.blocks(area) {
                        let bytes = sink.zeroed(self.offset(block), self.block_bytes())?;
                        bytes[..target.len()].copy_from_slice(target);
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn write_directory(
        &self,
        position: usize,
        area: &Area,
        sink: &mut Sink,
    ) -> Result<(), WriteError> {
        let node = &self.scan.nodes[position];
        let number = number_of(position);
        let identity = Identity {
            number,
            parent: number_of(node.parent),
            seed: self.seed.of_inode(number, 0),
        };
        let listing = match node.index {
            Some(_) => Vec::new(),
            None => self.scan.listing(node),
        };
        let target = |entry: &directory::Entry<'_>| self.scan.target(entry);
        for (at, block) in self.layout.blocks(area).enumerate() {
            let bytes = sink.zeroed(self.offset(block), self.block_bytes())?;
            match &node.index {
                Some(index) => index.encode_block(at, &identity, &target, bytes),
                None if at == 0 => {
                    directory::encode_first(&listing, &identity, &target, bytes);
                }
                None => directory::encode_leaf(std::iter::empty(), &identity, bytes),
            }
        }
        Ok(())
    }

    fn write_attribute_blocks(&self, sink: &mut Sink) -> Result<(), WriteError> {
        let blocks = &self.layout.attribute_blocks;
        for (attributes, number) in self.scan.attribute_blocks.iter().zip(blocks) {
            let block = sink.piece(self.offset(*number), self.block_bytes())?;
            block.copy_from_slice(&attributes.bytes);
            if let Some(header) = XattrHeader::decode(block) {
                let mut header = XattrHeader {
                    h_refcount: attributes.references,
                    ..header
                };
                block[..XattrHeader::SIZE].copy_from_slice(&header.encode());
                header.h_checksum = checksum::xattr_block(self.seed, *number, block);
                block[..XattrHeader::SIZE].copy_from_slice(&header.encode());
            }
        }
        Ok(())
    }

    /// Values of attributes that are inodes.
    fn write_values(&self, sink: &mut Sink) -> Result<(), WriteError> {
        let block_bytes = self.block_bytes();
        for (value, area) in self.scan.values.iter().zip(&self.layout.values) {
            let pieces = value.bytes.chunks(block_bytes);
            for (block, piece) in self.layout.blocks(area).zip(pieces) {
                let bytes = sink.zeroed(self.offset(block), block_bytes)?;
                bytes[..piece.len()].copy_from_slice(piece);
            }
        }
        Ok(())
    }

    /// Blocks without a single orphan.
    fn write_orphan_file(&self, sink: &mut Sink) -> Result<(), WriteError> {
        let Some(number) = self.scan.orphan_file() else {
            return Ok(());
        };
        let seed = self.seed.of_inode(number, 0);
        for block in self.layout.blocks(&self.layout.orphan_file) {
            let bytes = sink.zeroed(self.offset(block), self.block_bytes())?;
            let tail_at = bytes.len() - OrphanBlockTail::SIZE;
            let tail = OrphanBlockTail {
                ob_magic: EXT4_ORPHAN_BLOCK_MAGIC,
                ob_checksum: checksum::orphan_block(seed, block, &bytes[..tail_at]),
            };
            bytes[tail_at..].copy_from_slice(&tail.encode());
        }
        Ok(())
    }

    /// All inodes; returns the journal's `i_block`.
    fn write_inodes(&self, sink: &mut Sink) -> Result<Option<[u8; I_BLOCK_SIZE]>, WriteError> {
        let resize = self.resize_fields();
        if let Some(fields) = resize {
            let metadata = made_metadata(self.options, 0o600);
            self.write_inode(EXT4_RESIZE_INO, &metadata, &fields, sink)?;
        }
        let journal = self.write_journal_inode(sink)?;
        for (position, (node, area)) in self.scan.nodes.iter().zip(&self.layout.areas).enumerate() {
            let number = number_of(position);
            let seed = self.seed.of_inode(number, 0);
            let (fields, tree) = inode::fields_of(node, self.layout, area, seed)?;
            self.write_tree(&tree)?;
            self.write_inode(number, &node.inode.metadata, &fields, sink)?;
        }
        self.write_value_inodes(sink)?;
        self.write_orphan_inode(sink)?;
        Ok(journal)
    }

    /// The inode of a value keeps its hash as access time and the number of references as version.
    fn write_value_inodes(&self, sink: &mut Sink) -> Result<(), WriteError> {
        for (value, area) in self.scan.values.iter().zip(&self.layout.values) {
            let mut metadata = made_metadata(self.options, 0o600);
            let hash = i64::from(value.inode.hash.cast_signed());
            metadata.times.accessed = Timestamp::from_seconds(hash);
            metadata.times.changed = Timestamp::default();
            let mut fields = self.made_fields(value.inode.number, area)?;
            fields.size = u64::try_from(value.bytes.len()).unwrap_or(u64::MAX);
            fields.flags |= inode_flags::EA_INODE;
            fields.version = value.references;
            self.write_inode(value.inode.number, &metadata, &fields, sink)?;
        }
        Ok(())
    }

    fn write_orphan_inode(&self, sink: &mut Sink) -> Result<(), WriteError> {
        let Some(number) = self.scan.orphan_file() else {
            return Ok(());
        };
        let fields = self.made_fields(number, &self.layout.orphan_file)?;
        let metadata = made_metadata(self.options, 0o600);
        self.write_inode(number, &metadata, &fields, sink)
    }

    /// Fields of a regular file that the tree does not have, with its extent tree written.
    fn made_fields(&self, number: u32, area: &Area) -> Result<Fields, WriteError> {
        let map = inode::map_area(self.layout, area, self.seed.of_inode(number, 0))?;
        self.write_tree(&map.tree)?;
        let tree_blocks = u64::try_from(map.tree.len()).unwrap_or(u64::MAX);
        Ok(Fields {
            file_type: mode::S_IFREG,
            links: 1,
            size: self.offset(area.blocks),
            flags: map.flags,
            blocks: area.blocks + tree_blocks,
            attribute_block: 0,
            version: 0,
            i_block: map.i_block,
        })
    }

    fn write_tree(&self, blocks: &[TreeBlock]) -> Result<(), WriteError> {
        for (block, bytes) in blocks {
            let offset = self.offset(*block);
            self.output
                .write_all_at(bytes, offset)
                .map_err(|source| WriteError::Write { offset, source })?;
        }
        Ok(())
    }

    fn write_inode(
        &self,
        number: u32,
        metadata: &Metadata,
        fields: &Fields,
        sink: &mut Sink,
    ) -> Result<(), WriteError> {
        let per_group = self.layout.geometry.inodes_per_group;
        let group = usize::try_from((number - 1) / per_group).unwrap_or(usize::MAX);
        let table = self.layout.placement.groups[group].inode_table;
        let at = u64::from((number - 1) % per_group) * INODE_SIZE_U64;
        let place = sink.zeroed(self.offset(table) + at, INODE_SIZE)?;
        let seed = self.seed.of_inode(number, 0);
        let find = |value: &[u8]| self.scan.value_inode(value);
        let block_size = self.options.block_size;
        inode::encode(metadata, fields, block_size, seed, &find, place)
    }

    /// The resize inode owns the reserved descriptor blocks, and their copies, through one double
    /// indirect block.
    fn resize_fields(&self) -> Option<Fields> {
        let block = self.layout.resize_block?;
        let geometry = &self.layout.geometry;
        let pointers = geometry.block_bytes() / 4;
        let copies = superblock::backup_groups(geometry).count();
        let copies = u64::try_from(copies).unwrap_or(u64::MAX);
        let mut i_block = [0; I_BLOCK_SIZE];
        i_block[EXT4_DIND_BLOCK * 4..][..4].copy_from_slice(&split_u64(block).1.to_le_bytes());
        let direct = 12;
        Some(Fields {
            file_type: mode::S_IFREG,
            links: 1,
            size: (pointers * pointers + pointers + direct) * geometry.block_bytes(),
            flags: 0,
            blocks: 1 + u64::from(geometry.reserved_gdt_blocks) * (1 + copies),
            attribute_block: 0,
            version: 0,
            i_block,
        })
    }

    fn write_journal_inode(
        &self,
        sink: &mut Sink,
    ) -> Result<Option<[u8; I_BLOCK_SIZE]>, WriteError> {
        let area = &self.layout.journal;
        if area.blocks == 0 {
            return Ok(None);
        }
        let fields = self.made_fields(EXT4_JOURNAL_INO, area)?;
        let metadata = made_metadata(self.options, 0o600);
        self.write_inode(EXT4_JOURNAL_INO, &metadata, &fields, sink)?;
        Ok(Some(fields.i_block))
    }

    /// The journal's superblock; the rest of the journal stays a hole.
    fn write_journal(&self, sink: &mut Sink) -> Result<(), WriteError> {
        let area = &self.layout.journal;
        let Some(first) = self.layout.blocks(area).next() else {
            return Ok(());
        };
        let mut journal = JournalSuperBlock {
            s_blocksize: self.options.block_size.bytes(),
            s_maxlen: u32::try_from(area.blocks).unwrap_or(u32::MAX),
            s_first: 1,
            s_sequence: 1,
            s_feature_incompat: jbd2::incompat::IS_64BIT | jbd2::incompat::CSUM_V3,
            s_uuid: self.options.uuid,
            s_nr_users: 1,
            s_checksum_type: jbd2::JBD2_CRC32C_CHKSUM,
            ..JournalSuperBlock::zeroed()
        };
        let header = JournalHeader {
            h_magic: jbd2::JBD2_MAGIC_NUMBER,
            h_blocktype: jbd2::block_type::SUPERBLOCK_V2,
            h_sequence: 0,
        };
        journal.h_magic = header.h_magic;
        journal.h_blocktype = header.h_blocktype;
        journal.s_checksum = checksum::journal_superblock(&journal.encode());
        let place = sink.zeroed(self.offset(first), self.block_bytes())?;
        place[..JournalSuperBlock::SIZE].copy_from_slice(&journal.encode());
        Ok(())
    }
}
