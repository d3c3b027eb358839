//! What each fuzz target does with its input. The ordinary tests replay the corpus through the
//! same functions, so this file knows neither.

use std::fs::File;
use std::io::{self, Cursor, Read};
use std::num::NonZeroUsize;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use coop_appliance::bundle::{
    AttachedSignature, BlobDigest, Blobs, BundleError, Descriptor, Layout, OciIndex, Package,
    SignatureForm, is_bundle, media, verify, write_bundle,
};
use coop_appliance::trust::{
    MinisignSignature, Policy, PublicKey, SecretKeyFile, Subject, check as trust_check,
};
use coop_builder::debian::mirror::AptSources;
use coop_builder::debian::packages::{PackageList, Universe};
use coop_builder::debian::relations::Relation;
use coop_builder::debian::release::Release;
use coop_builder::debian::resolve::{ResolveRequest, Variant, resolve};
use coop_builder::evidence::licence_expression;
use coop_builder::guest::{ParsedRequest, parse_request};
use coop_builder::import::import_texts;
use coop_builder::kernel::Target as KernelTarget;
use coop_builder::kernel::config::{self, DotConfig};
use coop_builder::kernel::kconfig::Kconfig;
use coop_builder::kernel::modules;
use coop_builder::kernel::source;
use coop_builder::recipe::{self, Problem};
use coop_guest::frame::{Decoder, HEADER_SIZE, REPLY_MAX};
use coop_guest::message::Reply;
use coop_image::compress::{self as unpacking, Limits};
use coop_image::disk::{
    Chain, ChainError, Disk, ExtentKind, NoChain, Qcow2Options, Reference, write_qcow2,
};
use coop_image::partition::{self, SectorSize};
use coop_image::tree::{Blob, BlobId, Inode, Kind, Metadata, Tree};
use coop_image::{cpio, ext4, fat, tar};
use coop_runtime::nfs::{Export, KEY_BYTES, Squash};

/// Inputs and outputs stay below this.
const BYTES_MAX: u64 = 1 << 20;

/// Images have at least so many bytes.
const IMAGE_BYTES: usize = 140 << 10;

/// A target by the name of its corpus.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
#[allow(dead_code, reason = "each fuzz binary runs one of them")]
pub const TARGETS: [Target; 19] = [
    ("tar", tar),
    ("compress", compress),
    ("cpio", cpio),
    ("partition", partition),
    ("qcow2", qcow2),
    ("vmdk", vmdk),
    ("fat", fat),
    ("ext4_reader", ext4_reader),
    ("agent", agent),
    ("debian_index", debian_index),
    ("kconfig", kconfig),
    ("module_elf", module_elf),
    ("patch", patch),
    ("proxy_request", proxy_request),
    ("copyright", copyright),
    ("nfs", nfs),
    ("import", import),
    ("bundle", bundle),
    ("trust", trust),
];

/// Gives the same bytes for every blob.
struct OneBlob<'b>(&'b [u8]);

impl Blobs for OneBlob<'_> {
    fn open(&self, _: &Descriptor) -> Result<Box<dyn Read + Send + '_>, BundleError> {
        Ok(Box::new(self.0))
    }
}

/// Opens a bundle, reads a manifest and unpacks chunks; all of the same bytes. What opens can be
/// written and opens again as the same.
pub fn bundle(data: &[u8]) {
    let _ = OciIndex::parse(data);
    let _ = Package::open(data.to_vec(), &OneBlob(b"{}"));
    let _ = AttachedSignature::of_artifact(data, BlobDigest::of(b""), &OneBlob(b"{}"));
    chunks(data);
    let _ = is_bundle(data);
    let mut file = tempfile::tempfile().expect("a temporary file");
    io::Write::write_all(&mut file, &resealed(data)).expect("it is written");
    let Ok(layout) = Layout::open(file) else {
        return;
    };
    let package = layout.package();
    if package
        .layers()
        .any(|(_, member)| member.size_bytes > 16 * BYTES_MAX)
    {
        return;
    }
    if verify(package, &layout).is_err() {
        return;
    }
    let mut output = tempfile::tempfile().expect("a temporary file");
    write_bundle(package, layout.signatures(), &layout, &mut output).expect("it can be written");
    let again = Layout::open(output).expect("what was written opens");
    assert_eq!(again.package().digest(), package.digest());
    assert_eq!(again.signatures(), layout.signatures());
}

/// Unpacks bytes as the chunks of a kernel, whose length they say themselves.
fn chunks(data: &[u8]) {
    let size = data.get(24..32).and_then(|field| field.try_into().ok());
    let size = size.map_or(0, u64::from_le_bytes);
    let none = "0".repeat(64);
    let member = |path: &str, size: u64| {
        format!(r#"{{"path": "{path}", "sha256": "{none}", "size_bytes": {size}}}"#)
    };
    let config = format!(
        r#"{{"format": 1, "name": "a", "description": "", "architecture": "", "inputs": "",
            "kernel": {{"release": "", "vmlinux": {}, "config": {}, "modules": null,
            "libraries": [], "cmdline": []}}, "machine": {{"memory_bytes": 0, "cpus": 1}},
            "cobd": [], "conet": [], "cocon": {{"columns": 1, "rows": 1}}, "test": []}}"#,
        member("vmlinux", size.min(32 << 20)),
        member("config", 5)
    );
    let layer = |path: &str| Descriptor::of(media::CHUNKS, data).annotated(media::TITLE, path);
    let layers = vec![layer("vmlinux"), layer("config")];
    let package = Package::new(config.into_bytes(), layers).expect("a sound package");
    // No file has a digest of zeroes.
    assert!(verify(&package, &OneBlob(data)).is_err());
}

/// Reads keys, a signature and a policy with that key's file, zero bytes between them. What reads
/// reads the same when written again.
pub fn trust(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut parts = text.splitn(4, '\0').map(str::to_owned);
    let mut next = || parts.next().unwrap_or_default();
    let (key, secret, signature, policy) = (next(), next(), next(), next());
    if let Ok(key) = PublicKey::parse(&key)
        && let Some(text) = key.to_text()
    {
        assert_eq!(PublicKey::parse(&text).as_ref(), Ok(&key));
    }
    if let Ok(SecretKeyFile::Plain(secret)) = SecretKeyFile::parse(&secret) {
        let policy = Policy::of_key("k", secret.public().expect("a key has a public key"));
        let manifest = BlobDigest::of(signature.as_bytes());
        let subject = Subject {
            manifest,
            appliance: "a",
            reference: None,
        };
        assert!(trust_check(&subject, &[secret.sign(manifest)], &policy).is_ok());
    }
    if let Ok(parsed) = MinisignSignature::parse(&signature) {
        let again = MinisignSignature::parse(&parsed.to_text());
        assert_eq!(again.as_ref(), Ok(&parsed));
    }
    let load = |_: &str| Ok(key.clone());
    let Ok(policy) = Policy::parse(&policy, &load) else {
        return;
    };
    let subject = Subject {
        manifest: BlobDigest::of(b"manifest"),
        appliance: "web",
        reference: Some("r.example/team/web"),
    };
    let attached = |form| AttachedSignature {
        form,
        bytes: signature.clone().into_bytes(),
    };
    let signatures = [SignatureForm::Minisign, SignatureForm::Ed25519].map(attached);
    if let Err(error) = trust_check(&subject, &signatures, &policy) {
        assert!(!error.to_string().contains('\n'), "{error:?}");
    }
}

/// Imports a configuration and, behind a zero byte, a file that it may include. Whatever it says, its
/// recipe is wrong at most in that its files are not there.
pub fn import(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (text, more) = text.split_once('\0').unwrap_or((&text, ""));
    let Ok(imported) = import_texts(&[("a.conf", text), ("more.conf", more)]) else {
        return;
    };
    let again = import_texts(&[("a.conf", text), ("more.conf", more)]);
    assert_eq!(again.ok().as_ref(), Some(&imported));
    for note in &imported.notes {
        assert!(!note.to_string().contains('\n'), "{note:?}");
    }
    let file = std::path::Path::new("nowhere/a.yaml");
    let Err(wrong) = recipe::parse(&imported.recipe, file, &Default::default()) else {
        return;
    };
    for diagnostic in wrong {
        let is_known = matches!(
            diagnostic.problem,
            Problem::File { .. } | Problem::NotSupported(_)
        );
        assert!(is_known, "{diagnostic}\n{}", imported.recipe);
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

/// A package's copyright file becomes one licence expression: balanced, of one line, and the same
/// each time.
pub fn copyright(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let Some(expression) = licence_expression(&text) else {
        return;
    };
    assert_eq!(licence_expression(&text).as_ref(), Some(&expression));
    let allowed = |c: char| c.is_ascii_alphanumeric() || " ().-+".contains(c);
    assert!(expression.chars().all(allowed), "{expression}");
    let count = |wanted: char| expression.chars().filter(|c| *c == wanted).count();
    assert_eq!(count('('), count(')'), "{expression}");
}

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
fn resealed(data: &[u8]) -> Vec<u8> {
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

/// Disks have at least so many bytes.
const DISK_BYTES: usize = 256 << 10;

/// Reads a partition table; its partitions lie on the disk and apart from each other. The input is
/// the disk's first sectors and, behind the byte that says how it is read, its last ones.
pub fn partition(data: &[u8]) {
    let Some((choice, data)) = data.split_first() else {
        return;
    };
    let size = if choice & 1 == 0 {
        SectorSize::B512
    } else {
        SectorSize::B4096
    };
    let options = partition::ReadOptions {
        sector_size: (choice & 2 == 0).then_some(size),
        use_backup: choice & 4 != 0,
    };
    let mut disk = data.to_vec();
    if choice & 8 != 0 {
        let (head, tail) = data.split_at(data.len() / 2);
        disk = head.to_vec();
        disk.resize(DISK_BYTES.saturating_sub(tail.len()).max(head.len()), 0);
        disk.extend_from_slice(tail);
    } else {
        disk.resize(disk.len().max(DISK_BYTES), 0);
    }
    if choice & 16 != 0 {
        reseal(&mut disk, size);
    }
    let bytes = disk.len() as u64;
    let Ok(table) = partition::read(&disk, bytes, &options) else {
        return;
    };
    let mut ends: Vec<(u64, u64)> = table
        .partitions
        .iter()
        .filter(|part| !part.is_extended)
        .map(|part| (part.first_byte, part.first_byte + part.length_bytes))
        .collect();
    ends.sort_unstable();
    assert!(ends.iter().all(|(first, end)| first < end && *end <= bytes));
    assert!(ends.windows(2).all(|pair| pair[0].1 <= pair[1].0));
}

/// Gives headers of a GPT the checksums that they would need.
fn reseal(disk: &mut [u8], size: SectorSize) {
    let sector = usize::try_from(size.bytes()).expect("small");
    let word = |disk: &[u8], at: usize| {
        let field = disk.get(at..).and_then(|rest| rest.first_chunk());
        field.map_or(0, |field| u32::from_le_bytes(*field) as usize)
    };
    for header in [sector, disk.len() - sector] {
        let entries = word(disk, header + 72).saturating_mul(sector);
        let length = word(disk, header + 80).saturating_mul(word(disk, header + 84));
        if let Some(entries) = disk.get(entries..entries.saturating_add(length)) {
            let crc = crc32(entries);
            disk[header + 88..header + 92].copy_from_slice(&crc.to_le_bytes());
        }
        let length = word(disk, header + 12);
        disk[header + 16..header + 20].fill(0);
        if let Some(bytes) = disk.get(header..header.saturating_add(length)) {
            let crc = crc32(bytes);
            disk[header + 16..header + 20].copy_from_slice(&crc.to_le_bytes());
        }
    }
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc: u32, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            crc >> 1 ^ if crc & 1 == 1 { 0xEDB8_8320 } else { 0 }
        })
    })
}

/// Clusters with parts have 16 KiB at least: a disk that ends before so many bytes has zeroes there.
const CLUSTERS_BYTES: usize = 96 << 10;

/// Reads a qcow2; what it says in place of other files is the input again.
pub fn qcow2(data: &[u8]) {
    let mut bytes = data.to_vec();
    bytes.resize(bytes.len().max(CLUSTERS_BYTES), 0);
    disk(data);
    disk(&bytes);
}

/// Reads a VMDK; what it says in place of other files is the input again.
pub fn vmdk(data: &[u8]) {
    disk(data);
}

/// A file in memory.
fn file_of(data: &[u8]) -> File {
    let flags = rustix::fs::MemfdFlags::CLOEXEC;
    let file = rustix::fs::memfd_create("disk", flags).expect("a file in memory");
    let file = File::from(file);
    file.write_all_at(data, 0).expect("room");
    file
}

/// Every name is the same file's.
struct Again<'d>(&'d [u8]);

impl Chain for Again<'_> {
    fn open(&mut self, _: &Reference<'_>) -> Result<File, ChainError> {
        Ok(file_of(self.0))
    }
}

/// Extents lie one behind the other, holes are zeroes, and a copy is the same.
fn disk(data: &[u8]) {
    let Ok(disk) = Disk::open(file_of(data), &mut Again(data)) else {
        return;
    };
    let size = disk.size_bytes();
    let mut end = 0;
    let mut bytes = vec![0; 5000];
    for extent in disk.extents().take(1000) {
        let Ok(extent) = extent else {
            return;
        };
        assert!(extent.offset == end && extent.length > 0 && extent.end() <= size);
        end = extent.end();
        let length = usize::try_from(extent.length).map_or(bytes.len(), |n| n.min(bytes.len()));
        let Ok(count) = disk.read_at(&mut bytes[..length], extent.offset) else {
            continue;
        };
        assert_eq!(count, length);
        let is_zero = bytes[..length].iter().all(|byte| *byte == 0);
        assert!(is_zero || extent.kind == ExtentKind::Data);
    }
    if size > BYTES_MAX {
        return;
    }
    let mut whole = vec![0; usize::try_from(size).expect("small")];
    let Ok(count) = disk.read_at(&mut whole, 0) else {
        return;
    };
    assert_eq!(count, whole.len());
    let copy = file_of(&[]);
    let options = Qcow2Options { cluster_bytes: 512 };
    write_qcow2(&disk, &copy, &options).expect("what reads can be written");
    let copy = Disk::open(copy, &mut NoChain).expect("what was written reads");
    let mut again = vec![1; whole.len()];
    copy.read_at(&mut again, 0).expect("what was written reads");
    assert!(whole == again);
}

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

/// Takes bytes for a kernel module and for the lists beside it. Without its debugging information a
/// module says the same, and depmod's files are the same.
pub fn module_elf(data: &[u8]) {
    let mut tree = Tree::new(Metadata::default());
    for (parent, name) in [
        ("kernel", "virtio-blk.ko"),
        ("", "modules.builtin"),
        ("", "modules.builtin.modinfo"),
    ] {
        let content = tree.add_bytes(data.to_vec()).expect("room");
        let folder = Metadata::default();
        let parent = tree
            .make_directories(parent.as_bytes(), &folder)
            .expect("a folder");
        let inode = Inode {
            metadata: Metadata::default(),
            kind: Kind::File(content),
        };
        let id = tree.add_inode(inode).expect("room");
        tree.link(parent, name.as_bytes(), id).expect("a free name");
    }
    let before = modules::depmod_files(&tree);
    modules::strip(&mut tree).expect("bytes in memory");
    let after = modules::depmod_files(&tree);
    match (before, after) {
        (Ok(before), Ok(after)) => assert_eq!(before, after),
        (Err(before), Err(after)) => assert_eq!(before.to_string(), after.to_string()),
        (before, after) => panic!("{} before, {} after", before.is_ok(), after.is_ok()),
    }
    if modules::depmod(&mut tree).is_ok() {
        let set =
            modules::boot(&tree, KernelTarget::Um, &Default::default()).expect("a readable module");
        assert_eq!(set.len(), 1);
    }
}

/// Takes a text for each file of an archive; what was resolved has what was asked for.
pub fn debian_index(data: &[u8]) {
    let _ = Release::parse(data);
    let text = String::from_utf8_lossy(data).into_owned();
    let mut apt = AptSources::default();
    apt.add_list(&text);
    apt.add_deb822(&text);
    apt.add_configuration(&text);
    let lists = [PackageList {
        priority: 500,
        suites: Vec::new(),
        key: String::new(),
        mirror: "http://nowhere.invalid".to_owned(),
        url: String::new(),
        text,
        only: None,
    }];
    let Ok(universe) = Universe::new(&lists) else {
        return;
    };
    for (id, package) in universe.packages().take(10) {
        let _ = universe.download(id);
        let wanted = [Relation {
            name: package.name,
            qualifier: None,
            constraint: None,
        }];
        let request = ResolveRequest {
            targets: &[],
            architecture: "amd64",
            foreign: &["i386"],
            variant: Variant::Minimal,
            packages: &wanted,
            recommends: true,
            exclude: &[],
            held: &[],
        };
        if let Ok(chosen) = resolve(&universe, &request) {
            let mut names = chosen.packages.iter().map(|id| universe.package(*id).name);
            let provided = universe
                .providing(package.name)
                .iter()
                .any(|(id, _)| chosen.packages.contains(id));
            assert!(provided || names.any(|name| name == package.name));
        }
    }
}

/// Reads a tree's Kconfig; what is wished of it and does not hold has one line that says why. Zero
/// bytes are between the parts: a .config, the wishes, and the files.
pub fn kconfig(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut parts = text.split('\0');
    let config = DotConfig::parse(parts.next().unwrap_or_default());
    let wishes = parts.next().unwrap_or_default();
    let names = ["Kconfig", "arch/um/Kconfig", "a/Kconfig", "a/b"];
    let texts: Vec<(&str, &str)> = names.into_iter().zip(parts).collect();
    let Ok(kconfig) = Kconfig::read_texts(&texts, KernelTarget::Um) else {
        return;
    };
    for symbol in kconfig.symbols() {
        assert_eq!(kconfig.symbol(symbol.name).as_ref(), Some(&symbol));
    }
    let mut wanted = config::parse(wishes, "fuzz").unwrap_or_default();
    wanted.truncate(20);
    for dropped in kconfig.dropped(&config, &wanted) {
        let said = dropped.to_string();
        assert!(!said.contains(char::is_control), "{said}");
    }
}

/// A patch and, behind a zero byte, what it is applied to. What changes nothing is as it was, and
/// nothing comes from elsewhere than from the two.
pub fn patch(data: &[u8]) {
    let zero = data.iter().position(|byte| *byte == 0);
    let (text, content) = data.split_at(zero.unwrap_or(data.len()));
    let content = content.get(1..).unwrap_or_default();
    match source::patched(text, content) {
        Ok(files) => {
            for patched in files.into_iter().flatten() {
                assert!(patched.len() <= text.len() + 1 + content.len());
            }
        }
        Err(error) => {
            let said = error.to_string();
            assert!(!said.contains(char::is_control), "{said}");
        }
    }
}

/// Content must be where the tree says that it is.
fn touch_content(tree: &Tree) {
    for (_, id) in tree.paths() {
        if size_of_file(tree.inode(id)) <= BYTES_MAX && matches!(tree.inode(id).kind, Kind::File(_))
        {
            tree.read_file(id, BYTES_MAX).expect("content is there");
        }
    }
}

fn size_of_file(inode: &coop_image::tree::Inode) -> u64 {
    match &inode.kind {
        Kind::File(content) => content.size,
        _ => 0,
    }
}

/// Reads what a guest asks of the proxy; a request is the same without what follows it.
pub fn proxy_request(data: &[u8]) {
    let ParsedRequest::Whole(request) = parse_request(data) else {
        return;
    };
    assert!(request.length > 0 && request.length <= data.len());
    let alone = parse_request(&data[..request.length]);
    assert_eq!(alone, ParsedRequest::Whole(request.clone()));
    let (host, path) = request.address.split_once('/').unwrap();
    assert!(!host.is_empty() && !host.contains('@'));
    let mut parts = path.split('/');
    assert!(parts.all(|part| !matches!(part, "" | "." | "..")));
}
