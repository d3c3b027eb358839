//! The server against a small client: what it says, whom it refuses, and bytes of any kind.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};

use coop_image::tree::{
    Content, Entries, Inode, InodeId, Kind, Metadata, Segment, Times, Timestamp, Tree,
};

use super::protocol::{MOUNT_PROGRAM, NFS_PROGRAM, Status, procedure};
use super::server::CONNECTIONS_PER_ADDRESS_MAX;
use super::xdr::{Reader, Writer};
use super::{Export, NfsServer, Squash};

const KEY: [u8; 32] = [7; 32];
const ROOT_USER: u32 = 0;
const USER: u32 = 1000;
/// A name that is no text.
const ODD_NAME: &[u8] = b"\xff\xfe odd";

fn add(tree: &mut Tree, folder: InodeId, name: &[u8], mode: u16, kind: Kind) -> InodeId {
    let metadata = Metadata {
        mode,
        times: Times::all(Timestamp {
            seconds: 1_700_000_000,
            nanoseconds: 5,
        }),
        ..Metadata::default()
    };
    let id = tree.add_inode(Inode { metadata, kind }).unwrap();
    tree.link(folder, name, id).unwrap();
    id
}

fn folder() -> Kind {
    Kind::Directory(Entries::new())
}

/// A file with bytes, a hole, and bytes that are not the blob's first.
fn sparse(tree: &mut Tree) -> Content {
    let whole = tree.add_bytes(b"..headtail".to_vec()).unwrap();
    let blob = whole.segments[0].blob;
    let run = |offset, blob_offset| Segment {
        offset,
        length: 4,
        blob,
        blob_offset,
    };
    Content {
        size: 10_000,
        segments: Box::new([run(0, 2), run(5_000, 6)]),
    }
}

fn tree() -> Tree {
    let root = Metadata {
        mode: 0o755,
        ..Metadata::default()
    };
    let mut tree = Tree::new(root);
    let top = InodeId::ROOT;
    let secret = tree.add_bytes(b"secret\n".to_vec()).unwrap();
    add(&mut tree, top, b"secret", 0o600, Kind::File(secret));
    let content = sparse(&mut tree);
    let file = add(&mut tree, top, b"file", 0o644, Kind::File(content));
    tree.link(top, b"file-too", file).unwrap();
    let program = tree.add_bytes(b"#!".to_vec()).unwrap();
    add(&mut tree, top, b"program", 0o711, Kind::File(program));
    let link = Kind::Symlink(b"file"[..].into());
    add(&mut tree, top, b"link", 0o777, link);
    let (major, minor) = (4, 300);
    add(
        &mut tree,
        top,
        b"tty",
        0o620,
        Kind::CharDevice { major, minor },
    );
    add(
        &mut tree,
        top,
        b"disk",
        0o660,
        Kind::BlockDevice { major, minor },
    );
    add(&mut tree, top, b"pipe", 0o644, Kind::Fifo);
    add(&mut tree, top, b"socket", 0o644, Kind::Socket);
    add(
        &mut tree,
        top,
        ODD_NAME,
        0o644,
        Kind::File(Content::default()),
    );
    add(
        &mut tree,
        top,
        &[b'n'; 255],
        0o644,
        Kind::File(Content::default()),
    );
    let closed = add(&mut tree, top, b"closed", 0o700, folder());
    add(
        &mut tree,
        closed,
        b"inside",
        0o644,
        Kind::File(Content::default()),
    );
    // It can be passed, but not listed; and the other way round.
    let passed = add(&mut tree, top, b"passed", 0o711, folder());
    add(
        &mut tree,
        passed,
        b"inside",
        0o644,
        Kind::File(Content::default()),
    );
    let listed = add(&mut tree, top, b"listed", 0o744, folder());
    add(
        &mut tree,
        listed,
        b"inside",
        0o644,
        Kind::File(Content::default()),
    );
    tree
}

fn call(program: u32, procedure: u32, uid: Option<u32>, arguments: &[u8]) -> Vec<u8> {
    let mut call = Writer::default();
    for word in [9, 0, 2, program, 3, procedure] {
        call.u32(word);
    }
    match uid {
        None => call.zeroes(2),
        Some(uid) => {
            let mut credential = Writer::default();
            credential.u32(0);
            credential.opaque(b"client");
            for word in [uid, uid, 1, 4] {
                credential.u32(word);
            }
            call.u32(1);
            call.opaque(&credential.into_bytes());
        }
    }
    call.zeroes(2);
    call.fixed(arguments);
    call.into_bytes()
}

/// A client that is one user.
struct Client<'a> {
    export: &'a Export,
    uid: Option<u32>,
}

impl Client<'_> {
    /// A procedure's results; the call itself must be accepted.
    fn ask(&self, program: u32, procedure: u32, arguments: &[u8]) -> Vec<u8> {
        let call = call(program, procedure, self.uid, arguments);
        let reply = self.export.reply(&call).unwrap();
        let mut reader = Reader::new(&reply);
        let head: Vec<u32> = (0..7).map(|_| reader.u32().unwrap()).collect();
        assert_eq!(head, [0, 9, 1, 0, 0, 0, 0]);
        reply[28..].to_vec()
    }

    fn root(&self) -> Vec<u8> {
        let mut path = Writer::default();
        path.opaque(b"/");
        let results = self.ask(MOUNT_PROGRAM, 1, &path.into_bytes());
        let mut reader = Reader::new(&results);
        assert_eq!(reader.u32(), Ok(0));
        let handle = reader.opaque(64).unwrap().to_vec();
        assert_eq!([reader.u32(), reader.u32()], [Ok(1), Ok(1)]);
        handle
    }

    /// Asks about an object; what follows the status.
    fn about(&self, number: u32, handle: &[u8], more: &[u8]) -> Result<Vec<u8>, u32> {
        let mut arguments = Writer::default();
        arguments.opaque(handle);
        arguments.fixed(more);
        let results = self.ask(NFS_PROGRAM, number, &arguments.into_bytes());
        match Reader::new(&results).u32().unwrap() {
            0 => Ok(results[4..].to_vec()),
            status => Err(status),
        }
    }

    fn lookup(&self, folder: &[u8], name: &[u8]) -> Result<Vec<u8>, u32> {
        let mut more = Writer::default();
        more.opaque(name);
        let found = self.about(procedure::LOOKUP, folder, &more.into_bytes())?;
        Ok(Reader::new(&found).opaque(64).unwrap().to_vec())
    }

    fn find(&self, path: &str) -> Result<Vec<u8>, u32> {
        let names = path.split('/');
        names.into_iter().try_fold(self.root(), |folder, name| {
            self.lookup(&folder, name.as_bytes())
        })
    }

    fn read(&self, handle: &[u8], offset: u64, count: u32) -> Result<(Vec<u8>, bool), u32> {
        let mut more = Writer::default();
        more.u64(offset);
        more.u32(count);
        let found = self.about(procedure::READ, handle, &more.into_bytes())?;
        let mut reader = Reader::new(&found);
        skip_attributes(&mut reader);
        let length = reader.u32().unwrap();
        let is_end = reader.u32() == Ok(1);
        let data = reader.opaque(usize::MAX).unwrap();
        assert_eq!(data.len(), usize::try_from(length).unwrap());
        Ok((data.to_vec(), is_end))
    }

    fn access(&self, handle: &[u8]) -> u32 {
        let found = self.about(procedure::ACCESS, handle, &[0, 0, 0, 0x3f]);
        let found = found.unwrap();
        let mut reader = Reader::new(&found);
        skip_attributes(&mut reader);
        reader.u32().unwrap()
    }

    fn attributes(&self, handle: &[u8]) -> Attributes {
        let found = self.about(procedure::GETATTR, handle, &[]).unwrap();
        Attributes::read(&mut Reader::new(&found))
    }

    /// All names with the numbers of their files, by as many calls as it takes.
    fn list(&self, handle: &[u8], plus: bool, bytes: u32) -> Result<Vec<(Vec<u8>, u64)>, u32> {
        let mut names = Vec::new();
        let mut cookie = 0;
        loop {
            let mut more = Writer::default();
            more.u64(cookie);
            more.u64(0);
            more.u32(bytes);
            let number = match plus {
                true => procedure::READDIRPLUS,
                false => procedure::READDIR,
            };
            if plus {
                more.u32(bytes);
            }
            let found = self.about(number, handle, &more.into_bytes())?;
            assert!(found.len() <= usize::try_from(bytes).unwrap());
            let mut reader = Reader::new(&found);
            skip_attributes(&mut reader);
            assert_eq!(reader.u64(), Ok(0));
            while reader.u32() == Ok(1) {
                let number = reader.u64().unwrap();
                let name = reader.opaque(255).unwrap();
                cookie = reader.u64().unwrap();
                names.push((name.to_vec(), number));
                if plus {
                    skip_attributes(&mut reader);
                    if reader.u32() == Ok(1) {
                        reader.opaque(64).unwrap();
                    }
                }
            }
            if reader.u32() == Ok(1) {
                return Ok(names);
            }
        }
    }
}

fn skip_attributes(reader: &mut Reader<'_>) {
    if reader.u32() == Ok(1) {
        Attributes::read(reader);
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Attributes {
    kind: u32,
    mode: u32,
    links: u32,
    size: u64,
    used: u64,
    device: (u32, u32),
    number: u64,
    modified: (u32, u32),
}

impl Attributes {
    fn read(reader: &mut Reader<'_>) -> Self {
        let mut word = || reader.u32().unwrap();
        let (kind, mode, links, ..) = (word(), word(), word(), word(), word());
        let (size, used) = (reader.u64().unwrap(), reader.u64().unwrap());
        let device = (reader.u32().unwrap(), reader.u32().unwrap());
        reader.u64().unwrap();
        let number = reader.u64().unwrap();
        reader.u64().unwrap();
        let modified = (reader.u32().unwrap(), reader.u32().unwrap());
        reader.u64().unwrap();
        Self {
            kind,
            mode,
            links,
            size,
            used,
            device,
            number,
            modified,
        }
    }
}

fn export() -> Export {
    Export::new(tree(), KEY, Squash::No)
}

fn client(export: &Export, uid: u32) -> Client<'_> {
    let uid = Some(uid);
    Client { export, uid }
}

fn denied<T>(status: Status) -> Result<T, u32> {
    Err(status.number())
}

#[test]
fn attributes_are_those_of_the_tree() {
    let export = export();
    let client = client(&export, ROOT_USER);
    let of = |name: &[u8]| client.attributes(&client.lookup(&client.root(), name).unwrap());
    let file = of(b"file");
    assert_eq!((file.kind, file.mode, file.links), (1, 0o644, 2));
    assert_eq!((file.size, file.used), (10_000, 8));
    assert_eq!(file.modified, (1_700_000_000, 5));
    assert_eq!(of(b"file-too"), file);
    let root = client.attributes(&client.root());
    assert_eq!((root.kind, root.links, root.number), (2, 5, 2));
    assert_eq!(of(b".."), root);
    for (name, kind, device) in [
        (&b"tty"[..], 4, (4, 300)),
        (b"disk", 3, (4, 300)),
        (b"link", 5, (0, 0)),
        (b"socket", 6, (0, 0)),
        (b"pipe", 7, (0, 0)),
        (ODD_NAME, 1, (0, 0)),
        (&[b'n'; 255], 1, (0, 0)),
    ] {
        assert_eq!((of(name).kind, of(name).device), (kind, device));
    }
    let link = client.find("link").unwrap();
    let target = client.about(procedure::READLINK, &link, &[]).unwrap();
    let mut reader = Reader::new(&target);
    skip_attributes(&mut reader);
    assert_eq!(reader.opaque(10), Ok(&b"file"[..]));
}

#[test]
fn content_is_read_with_its_holes() {
    let export = export();
    let client = client(&export, USER);
    let file = client.find("file").unwrap();
    let (whole, is_end) = client.read(&file, 0, u32::MAX).unwrap();
    assert!(is_end && whole.len() == 10_000);
    assert_eq!(
        (&whole[..5], &whole[4_999..5_005]),
        (&b"head\0"[..], &b"\0tail\0"[..])
    );
    for (offset, count) in [
        (0, 3),
        (2, 10),
        (3, 5_000),
        (4_998, 4),
        (5_003, 1),
        (9_990, 10),
    ] {
        let end = offset + count;
        let (part, is_end) = client
            .read(&file, offset, u32::try_from(count).unwrap())
            .unwrap();
        let range = usize::try_from(offset).unwrap()..usize::try_from(end).unwrap();
        assert_eq!((&part[..], is_end), (&whole[range], end == 10_000));
    }
    for offset in [10_000, 10_001, u64::MAX] {
        assert_eq!(client.read(&file, offset, 7), Ok((Vec::new(), true)));
    }
    assert_eq!(
        client.read(&client.root(), 0, 1),
        denied(Status::IsDirectory)
    );
    let pipe = client.find("pipe").unwrap();
    assert_eq!(client.read(&pipe, 0, 1), denied(Status::Invalid));
}

#[test]
fn permissions_are_those_of_the_caller() {
    let export = export();
    let (root, user) = (client(&export, ROOT_USER), client(&export, USER));
    let secret = user.find("secret").unwrap();
    assert_eq!(user.read(&secret, 0, 9), denied(Status::Access));
    assert_eq!(root.read(&secret, 0, 9), Ok((b"secret\n".to_vec(), true)));
    assert_eq!((root.access(&secret), user.access(&secret)), (0x01, 0));
    // A program is read to be executed.
    let program = user.find("program").unwrap();
    assert_eq!(user.access(&program), 0x20);
    assert!(user.read(&program, 0, 2).is_ok());
    assert_eq!(user.find("closed/inside"), denied(Status::Access));
    let closed = user.find("closed").unwrap();
    assert_eq!(user.list(&closed, false, 4096), denied(Status::Access));
    assert!(root.find("closed/inside").is_ok());
    let passed = user.find("passed").unwrap();
    assert!(user.find("passed/inside").is_ok());
    assert_eq!(user.list(&passed, true, 4096), denied(Status::Access));
    let listed = user.find("listed").unwrap();
    assert_eq!(user.list(&listed, true, 4096).unwrap().len(), 3);
    assert_eq!(user.find("listed/inside"), denied(Status::Access));
    assert_eq!((user.access(&listed), user.access(&passed)), (0x01, 0x02));
    // Devices, pipes and sockets are written to by way of the client.
    let (pipe, file) = (user.find("pipe").unwrap(), user.find("file").unwrap());
    assert_eq!((root.access(&pipe), user.access(&pipe)), (0x2d, 0x01));
    assert_eq!((root.access(&file), user.access(&file)), (0x01, 0x01));
    // Who says nothing is nobody, and so is root where it is not believed.
    let nobody = Client {
        export: &export,
        uid: None,
    };
    assert_eq!(nobody.read(&secret, 0, 9), denied(Status::Access));
    let squashing = Export::new(tree(), KEY, Squash::Root);
    let squashed = client(&squashing, ROOT_USER);
    assert_eq!(squashed.read(&secret, 0, 9), denied(Status::Access));
}

#[test]
fn nothing_can_be_written() {
    let export = export();
    let client = client(&export, ROOT_USER);
    let file = client.find("file").unwrap();
    for number in [2, 7, 8, 9, 10, 11, 12, 13, 14, 15, 21] {
        let tried = client.about(number, &file, &[]);
        assert_eq!(tried, denied(Status::ReadOnly), "procedure {number}");
        let foreign = client.about(number, b"foreign", &[]);
        assert_eq!(foreign, denied(Status::BadHandle), "procedure {number}");
    }
}

#[test]
fn handles_of_others_are_refused() {
    let export = export();
    let client_here = client(&export, ROOT_USER);
    let good = client_here.find("file").unwrap();
    let other = Export::new(tree(), [8; 32], Squash::No);
    let foreign = client(&other, ROOT_USER).find("file").unwrap();
    assert_eq!(foreign[..8], good[..8]);
    let about = |handle: &[u8]| client_here.about(procedure::GETATTR, handle, &[]);
    assert!(about(&good).is_ok());
    assert_eq!(about(&foreign), denied(Status::Stale));
    for handle in [
        &b""[..],
        b"x",
        &good[..23],
        &[good.clone(), vec![0]].concat(),
    ] {
        assert_eq!(about(handle), denied(Status::BadHandle));
    }
    for place in 0..good.len() {
        for bit in 0..8 {
            let mut forged = good.clone();
            forged[place] ^= 1 << bit;
            assert!(about(&forged).is_err(), "bit {bit} of byte {place}");
        }
    }
}

#[test]
fn large_folders_are_listed_exactly() {
    const NAMES: u32 = 100_000;
    let mut tree = Tree::new(Metadata {
        mode: 0o755,
        ..Metadata::default()
    });
    let many = add(&mut tree, InodeId::ROOT, b"many", 0o755, folder());
    let mut expected = BTreeMap::from([(b".".to_vec(), 1_u64), (b"..".to_vec(), 0)]);
    let mut last = None;
    for number in 0..NAMES {
        let name = format!(
            "{:0width$}",
            number,
            width = 5 + usize::try_from(number % 40).unwrap()
        );
        // Every seventh is another name of the one before.
        let id = match last {
            Some(id) if number % 7 == 0 => {
                tree.link(many, name.as_bytes(), id).unwrap();
                id
            }
            _ => {
                let kind = Kind::File(Content::default());
                add(&mut tree, many, name.as_bytes(), 0o644, kind)
            }
        };
        last = Some(id);
        expected.insert(name.into_bytes(), u64::try_from(id.index()).unwrap());
    }
    let export = Export::new(tree, KEY, Squash::No);
    let client = client(&export, USER);
    let many = client.find("many").unwrap();
    for (plus, bytes) in [
        (false, 1_000),
        (false, 65_536),
        (true, 8_192),
        (true, 1 << 20),
    ] {
        // A client that asks for more than a reply has gets less.
        let listed = client.list(&many, plus, bytes).unwrap();
        assert_eq!(listed.len(), expected.len(), "{plus} {bytes}");
        let listed: BTreeMap<Vec<u8>, u64> = listed
            .into_iter()
            .map(|(name, number)| (name, number - 2))
            .collect();
        assert!(listed == expected, "{plus} {bytes}");
    }
    assert_eq!(client.list(&many, false, 100), denied(Status::TooSmall));
    let beyond = |cookie: u64, verifier: u64| {
        let mut more = Writer::default();
        more.u64(cookie);
        more.u64(verifier);
        more.u32(4096);
        client.about(procedure::READDIR, &many, &more.into_bytes())
    };
    assert!(beyond(u64::from(NAMES) + 2, 0).is_ok());
    assert_eq!(beyond(u64::from(NAMES) + 3, 0), denied(Status::BadCookie));
    assert_eq!(beyond(u64::MAX, 0), denied(Status::BadCookie));
    assert_eq!(beyond(5, 1), denied(Status::BadCookie));
}

#[test]
fn names_and_paths_are_checked() {
    let export = export();
    let client = client(&export, USER);
    let root = client.root();
    assert_eq!(client.lookup(&root, b"none"), denied(Status::NoEntry));
    assert_eq!(client.lookup(&root, b""), denied(Status::NoEntry));
    assert_eq!(
        client.lookup(&root, &[b'n'; 256]),
        denied(Status::NameTooLong)
    );
    let file = client.find("file").unwrap();
    assert_eq!(client.lookup(&file, b"x"), denied(Status::NotDirectory));
    for (path, status) in [
        (&b"/closed"[..], 0),
        (b"//listed/", 0),
        (b"/passed/../.", 0),
        (b"/closed/inside", 13),
        (b"/passed/inside", 20),
        (b"/link", 20),
        (b"/none", 2),
    ] {
        let mut argument = Writer::default();
        argument.opaque(path);
        let mounted = client.ask(MOUNT_PROGRAM, 1, &argument.into_bytes());
        assert_eq!(Reader::new(&mounted).u32(), Ok(status));
    }
    let names = client.list(&root, true, 4096).unwrap();
    assert_eq!(names.len(), 16);
    for number in [procedure::FSSTAT, procedure::FSINFO, procedure::PATHCONF] {
        assert!(client.about(number, &root, &[]).is_ok());
    }
}

/// The words after the transaction's number.
fn verdict(export: &Export, call: &[u8]) -> Vec<u32> {
    let reply = export.reply(call).unwrap();
    let words = reply[8..].as_chunks::<4>().0.iter();
    words.map(|word| u32::from_be_bytes(*word)).collect()
}

#[test]
fn calls_that_cannot_be_are_told_so() {
    let export = export();
    assert_eq!(
        verdict(&export, &call(100_000, 0, None, &[])),
        [1, 0, 0, 0, 1]
    );
    assert_eq!(
        verdict(&export, &call(NFS_PROGRAM, 22, None, &[])),
        [1, 0, 0, 0, 3]
    );
    assert_eq!(
        verdict(&export, &call(MOUNT_PROGRAM, 6, None, &[])),
        [1, 0, 0, 0, 3]
    );
    assert_eq!(
        verdict(&export, &call(NFS_PROGRAM, 1, None, &[])),
        [1, 0, 0, 0, 4]
    );
    let with = |place: usize, value: u32, mut call: Vec<u8>| {
        call[place * 4..place * 4 + 4].copy_from_slice(&value.to_be_bytes());
        verdict(&export, &call)
    };
    let plain = || call(NFS_PROGRAM, 0, None, &[]);
    assert_eq!(with(4, 4, plain()), [1, 0, 0, 0, 2, 3, 3]);
    assert_eq!(with(2, 3, plain()), [1, 1, 0, 2, 2]);
    assert_eq!(with(6, 6, plain()), [1, 1, 1, 2]);
    // The seventeenth group.
    let user = call(NFS_PROGRAM, 0, Some(USER), &[]);
    assert_eq!(with(14, 17, user), [1, 1, 1, 1]);
    assert!(export.reply(b"").is_none() && export.reply(&[0; 7]).is_none());
    assert!(export.reply(&[0xff; 64]).is_none());
}

/// Every byte of every kind of call takes other values, and calls end early: replies come or do
/// not, but nothing panics, and no reply is longer than was asked for.
#[test]
fn no_bytes_do_harm() {
    let export = export();
    let handle = client(&export, USER).root();
    let mut arguments = Writer::default();
    arguments.opaque(&handle);
    arguments.zeroes(8);
    let arguments = arguments.into_bytes();
    for number in 0..=22 {
        let whole = call(NFS_PROGRAM, number, Some(USER), &arguments);
        for length in 0..whole.len() {
            export.reply(&whole[..length]);
        }
        for place in 0..whole.len() {
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let mut changed = whole.clone();
                changed[place] = value;
                let reply = export.reply(&changed).unwrap_or_default();
                assert!(reply.len() < 2 << 20);
            }
        }
    }
}

fn null_record() -> Vec<u8> {
    let call = call(NFS_PROGRAM, 0, None, &[]);
    let head = u32::try_from(call.len()).unwrap() | 1 << 31;
    [&head.to_be_bytes()[..], &call].concat()
}

fn converse(mut stream: impl Read + Write) {
    for _ in 0..2 {
        stream.write_all(&null_record()).unwrap();
        let mut reply = [0; 28];
        stream.read_exact(&mut reply).unwrap();
        assert_eq!(reply[..8], [0x80, 0, 0, 24, 0, 0, 0, 9]);
    }
}

#[test]
fn a_guest_and_the_world_are_served() {
    let server = NfsServer::new(export());
    let (guest, host) = UnixStream::pair().unwrap();
    (server.service(2049).accept)(host);
    converse(guest);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (over, server) = (&over, &server);
        let served = scope.spawn(move || server.serve(&listener, &|| over.load(Ordering::Relaxed)));
        converse(TcpStream::connect(address).unwrap());
        // One that talks nonsense is closed, and others are served still.
        let mut nonsense = TcpStream::connect(address).unwrap();
        nonsense.write_all(&[0xff; 64]).unwrap();
        assert_eq!(nonsense.read(&mut [0]).unwrap_or(0), 0);
        converse(TcpStream::connect(address).unwrap());
        over.store(true, Ordering::Relaxed);
        served.join().unwrap().unwrap();
    });
}

#[test]
fn connections_are_bounded() {
    let server = NfsServer::new(export());
    let connect = || {
        let (mut guest, host) = UnixStream::pair().unwrap();
        (server.service(2049).accept)(host);
        guest.write_all(&null_record()).is_ok() && guest.read(&mut [0]).unwrap_or(0) == 1
    };
    let mut held = Vec::new();
    for _ in 0..CONNECTIONS_PER_ADDRESS_MAX {
        let (guest, host) = UnixStream::pair().unwrap();
        (server.service(2049).accept)(host);
        held.push(guest);
    }
    assert!(!connect());
    held.clear();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while !connect() {
        assert!(std::time::Instant::now() < deadline, "no place became free");
        std::thread::yield_now();
    }
}

#[test]
fn attributes_that_are_not_told_are_counted() {
    assert_eq!(export().attributed(), None);
    let mut tree = tree();
    let id = tree.lookup(b"/program").unwrap();
    let name = b"security.capability"[..].into();
    let attributes = &mut tree.inode_mut(id).metadata.xattrs;
    attributes.insert(name, Box::from([1; 20]));
    let attributed = Export::new(tree, KEY, Squash::No).attributed().unwrap();
    assert_eq!((attributed.count, &*attributed.example), (1, "/program"));
}
