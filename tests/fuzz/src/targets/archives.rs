//! Archives, compressed and not.

use std::io::{self, Cursor, Read};
use std::num::NonZeroUsize;
use std::sync::Arc;

use coop_image::compress::{self as unpacking, Limits};
use coop_image::tree::{BlobId, Kind, Metadata, Tree};
use coop_image::{cpio, tar};

use super::{BYTES_MAX, size_of_file, touch_content};

/// Reads an archive in place and as a stream, which must agree, and with every option; what reads
/// must survive writing and reading again.
pub fn tar(data: &[u8]) {
    let data = resealed(data);
    let other = tar::Options {
        strip_components: 1,
        keep_directory_symlinks: true,
        ignore_zeros: true,
        ..tar_options()
    };
    let _ = read_tar(&data, &other);
    let tree = read_tar(&data, &tar_options());
    match (&tree, stream_tar(&data)) {
        (Ok(tree), Ok(streamed)) => assert_eq!(tree.inodes(), streamed.inodes()),
        // A stream that ends too early is noticed before the entry is put anywhere.
        (Err(error), Err(streamed)) => {
            let (error, streamed) = (error.to_string(), streamed.to_string());
            assert!(error == streamed || streamed.contains("cut off"), "{error}");
        }
        (tree, streamed) => panic!("{:?} {:?}", tree.as_ref().err(), streamed.err()),
    }
    let Ok(tree) = tree else {
        return;
    };
    touch_content(&tree);
    let total: u64 = tree.inodes().iter().map(size_of_file).sum();
    if total > BYTES_MAX {
        return;
    }
    let mut written = Vec::new();
    tar::write(&tree, &mut written).expect("what was read can be written");
    let again = read_tar(&written, &tar::Options::default()).expect("what was written reads back");
    assert_eq!(again.paths().len(), tree.paths().len());
    for (path, id) in tree.paths() {
        let found = again.lookup(&path).expect("every path is there again");
        assert_eq!(again.inode(found).metadata, tree.inode(id).metadata);
        assert_eq!(
            size_of_file(again.inode(found)),
            size_of_file(tree.inode(id))
        );
        if matches!(tree.inode(id).kind, Kind::File(_)) {
            let bytes = tree.read_file(id, BYTES_MAX).expect("content is there");
            assert_eq!(again.read_file(found, BYTES_MAX).ok(), Some(bytes));
        }
    }
}

fn tar_options() -> tar::Options {
    tar::Options {
        limits: tar::Limits {
            entries: 1000,
            sparse_runs: 1000,
            ..tar::Limits::default()
        },
        ..tar::Options::default()
    }
}

/// Blocks that look like headers get the checksum that they would need: nearly every mutation
/// would stop there otherwise.
pub(super) fn resealed(data: &[u8]) -> Vec<u8> {
    let mut bytes = data.to_vec();
    for block in bytes.chunks_exact_mut(512) {
        if block[257..262] == *b"ustar" {
            block[148..156].fill(b' ');
            let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
    }
    bytes
}

fn read_tar(data: &[u8], options: &tar::Options) -> Result<Tree, tar::TarError> {
    let mut tree = Tree::new(Metadata::default());
    let blob = tree
        .add_blob(Arc::new(data.to_vec()))
        .expect("the first blob");
    tar::read_blob(&mut tree, blob, options)?;
    Ok(tree)
}

/// Content that comes from a stream is where the archive has it.
struct InArchive<'d> {
    data: &'d [u8],
    blob: BlobId,
}

impl tar::ContentSink for InArchive<'_> {
    fn keep(
        &mut self,
        bytes: &mut dyn Read,
        offset: u64,
        length: u64,
    ) -> io::Result<(BlobId, u64)> {
        let mut seen = Vec::new();
        bytes.read_to_end(&mut seen)?;
        assert_eq!(u64::try_from(seen.len()), Ok(length));
        let start = usize::try_from(offset).expect("an offset in the input");
        assert!(self.data[start..].starts_with(&seen));
        Ok((self.blob, offset))
    }
}

fn stream_tar(data: &[u8]) -> Result<Tree, tar::TarError> {
    let mut tree = Tree::new(Metadata::default());
    let blob = tree
        .add_blob(Arc::new(data.to_vec()))
        .expect("the first blob");
    let options = tar_options();
    let mut entries = tar::Entries::stream(data, options.limits);
    tar::read_into(
        &mut tree,
        &mut entries,
        &mut InArchive { data, blob },
        &options,
    )?;
    Ok(tree)
}

/// Unpacks with one thread and with several, which must agree.
pub fn compress(data: &[u8]) {
    let limits = Limits {
        output_bytes: BYTES_MAX,
        ..Limits::default()
    };
    let read = |opened: io::Result<(_, Box<dyn Read + Send>)>| {
        let mut bytes = Vec::new();
        opened.and_then(|(_, mut reader)| reader.read_to_end(&mut bytes))?;
        io::Result::Ok(bytes)
    };
    let options = unpacking::Options {
        limits,
        threads: NonZeroUsize::MIN.saturating_add(1),
    };
    let data = data.to_vec();
    let alone = read(unpacking::decompress(Cursor::new(data.clone()), limits));
    let threaded = read(unpacking::decompress_threaded(Cursor::new(data), options));
    match (alone, threaded) {
        (Ok(alone), Ok(threaded)) => assert!(alone == threaded),
        (Err(_), Err(_)) => {}
        (alone, threaded) => panic!("{:?} {:?}", alone.err(), threaded.err()),
    }
}

/// Reads an initramfs; what the writer then takes must read back.
pub fn cpio(data: &[u8]) {
    let Ok(entries) = cpio::read(data, BYTES_MAX) else {
        return;
    };
    let mut written = Vec::new();
    if cpio::write(&entries, &mut written).is_ok() {
        let again = cpio::read(&written[..], u64::MAX).expect("what was written reads back");
        assert_eq!(again, entries);
    }
}
