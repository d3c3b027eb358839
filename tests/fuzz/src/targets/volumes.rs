//! File systems.

use std::sync::Arc;

use coop_image::tree::{Blob, Kind};
use coop_image::{ext4, fat};

use super::touch_content;

/// Volumes have so many bytes: enough for 16 bits.
const VOLUME_BYTES: u64 = 4 << 20;

/// The first bytes of a volume; zeroes are behind them.
#[derive(Debug)]
struct Head(Vec<u8>);

impl Blob for Head {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> std::io::Result<usize> {
        let left = usize::try_from(VOLUME_BYTES.saturating_sub(offset)).unwrap_or(0);
        let length = buffer.len().min(left);
        buffer[..length].fill(0);
        let _ = self.0.read_at(&mut buffer[..length], offset)?;
        Ok(length)
    }
}

/// Reads a FAT volume; no two files share a byte of it.
pub fn fat(data: &[u8]) {
    let image = Arc::new(Head(data.to_vec()));
    let size = VOLUME_BYTES;
    let Ok(volume) = fat::read(image, size, &fat::ReadOptions::default()) else {
        return;
    };
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for inode in volume.tree.inodes() {
        if let Kind::File(content) = &inode.kind {
            let segments = content.segments.iter();
            runs.extend(segments.map(|run| (run.blob_offset, run.blob_offset + run.length)));
        }
    }
    runs.sort_unstable();
    assert!(runs.iter().all(|(first, end)| first < end && *end <= size));
    assert!(runs.windows(2).all(|pair| pair[0].1 <= pair[1].0));
    touch_content(&volume.tree);
}

/// Images have at least so many bytes.
const IMAGE_BYTES: usize = 140 << 10;

/// Reads an image that a guest may have made.
pub fn ext4_reader(data: &[u8]) {
    // An image that became too short is refused at once; behind it may be zeroes.
    let mut image = data.to_vec();
    image.resize(image.len().max(IMAGE_BYTES), 0);
    let image: Arc<dyn Blob> = Arc::new(image);
    let info = ext4::read_info(Arc::clone(&image));
    if let Ok(tree) = ext4::read(image) {
        info.expect("what reads as a tree says what it is");
        touch_content(&tree);
    }
}
