//! What a running guest says to its host.

use coop_guest::frame::{Decoder, HEADER_SIZE, REPLY_MAX};
use coop_guest::message::Reply;
use coop_image::tree::{Inode, Kind, Metadata, Tree};
use coop_runtime::nfs::{Export, KEY_BYTES, Squash};

/// Listens to what calls itself the guest's agent; what is understood has one encoding.
pub fn agent(data: &[u8]) {
    let mut decoder = Decoder::new(REPLY_MAX);
    for piece in data.chunks(1000) {
        decoder.push(piece);
        while let Ok(Some(body)) = decoder.take() {
            if let Ok(reply) = Reply::decode(body) {
                let mut written = Vec::new();
                reply.append_to(&mut written);
                // Sentences and data above their limits are cut when they are written.
                if written.len() == HEADER_SIZE + body.len() {
                    assert_eq!(&written[HEADER_SIZE..], body);
                }
            }
        }
    }
}

/// What an NFS server hears on a connection: the records' bytes as they come. Every reply is a record
/// of a bounded length that begins with the transaction's number of a call.
pub fn nfs(data: &[u8]) {
    let mut replies = Vec::new();
    let _ = nfs_export().converse(data, &mut replies);
    let mut rest = &*replies;
    while let Some((head, after)) = rest.split_first_chunk() {
        let head = u32::from_be_bytes(*head);
        let length = usize::try_from(head & !(1 << 31)).unwrap();
        assert!(head >> 31 == 1 && length % 4 == 0 && (12..2 << 20).contains(&length));
        rest = &after[length..];
    }
    assert!(rest.is_empty());
}

/// A folder with each kind of file, whose handles are always the same.
fn nfs_export() -> Export {
    let metadata = |mode| Metadata {
        mode,
        ..Metadata::default()
    };
    let mut tree = Tree::new(metadata(0o755));
    let content = tree.add_bytes(vec![b'x'; 5_000]).unwrap();
    let (major, minor) = (4, 64);
    for (name, mode, kind) in [
        ("file", 0o644, Kind::File(content)),
        ("folder", 0o750, Kind::Directory(Default::default())),
        ("link", 0o777, Kind::Symlink(b"file"[..].into())),
        ("tty", 0o620, Kind::CharDevice { major, minor }),
        ("pipe", 0o600, Kind::Fifo),
    ] {
        let metadata = metadata(mode);
        let id = tree.add_inode(Inode { metadata, kind }).unwrap();
        let root = coop_image::tree::InodeId::ROOT;
        tree.link(root, name.as_bytes(), id).unwrap();
    }
    Export::new(tree, [0; KEY_BYTES], Squash::Root)
}
