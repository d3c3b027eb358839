//! Roots on NFS, and images that are served to others: the guest's own kernel and libnfs are the
//! clients.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use coop_image::ext4;
use coop_image::tree::{Entries, Inode, InodeId, Kind, Metadata, Tree};
use fs_err as fs;
use rustix::process::Signal;

use super::support::{
    BUILD_DEADLINE, Done, Process, RUN_DEADLINE, coop, give, home, oracle, recipe, run, temp_folder,
};

/// Names in the large folder.
const NAMES: u32 = 100_000;
/// How long a client of the host may take.
const CLIENT: Duration = Duration::from_secs(60);

/// The appliance of `recipes/nfs.yaml`, built once.
fn appliance() -> &'static Path {
    static APPLIANCE: OnceLock<PathBuf> = OnceLock::new();
    APPLIANCE.get_or_init(|| {
        let folder = home().join("work/nfs");
        let _ = fs::remove_dir_all(&folder);
        let mut command = coop();
        command.args(["build", "--progress", "none", "-o"]);
        command.arg(&folder).arg(recipe("nfs.yaml"));
        run(&mut command, BUILD_DEADLINE).expect(0);
        folder
    })
}

/// What a machine may write, and what leads where.
const WRITES: &str = "touch /x; echo $?; touch /tmp/x /var/x && echo w; \
                      readlink /etc/resolv.conf; grep -c ' / nfs ro,' /proc/mounts";

#[test]
fn a_root_on_nfs_is_read_only_with_writable_parts() {
    let mut command = coop();
    command.arg("run").arg(appliance());
    command.args(["--", "sh", "-c", WRITES]);
    let served = run(&mut command, RUN_DEADLINE).expect(0);
    assert_eq!(served.text(), "1\nw\n/tmp/coop/etc/resolv.conf\n1\n");
    // The same from a disk.
    let folder = temp_folder();
    let output = folder.path().join("cobd");
    let mut command = coop();
    command.args(["build", "--progress", "none", "--set", "root=cobd0", "-o"]);
    command.arg(&output).arg(recipe("nfs.yaml"));
    run(&mut command, BUILD_DEADLINE).expect(0);
    let mut command = coop();
    command.arg("run").arg(&output);
    command.args(["--", "sh", "-c", WRITES]);
    let from_disk = run(&mut command, RUN_DEADLINE);
    assert_eq!(from_disk.text(), "1\nw\n/tmp/coop/etc/resolv.conf\n0\n");
}

#[test]
fn a_root_on_nfs_keeps_secrets_and_goes_down_clean() {
    let script = "setpriv --reuid 1000 --clear-groups cat /etc/shadow; echo $?; \
                  head -c 5 /etc/shadow; echo; stat -c '%U %a' /etc/shadow; find / -xdev | wc -l";
    let mut command = coop();
    command.arg("run").arg(appliance());
    command.args(["--json", "--", "sh", "-c", script]);
    let done = run(&mut command, RUN_DEADLINE).expect(0);
    let lines: Vec<&str> = done.stderr.lines().collect();
    let said = |line: &str| assert!(lines.contains(&line), "{line}: {}", done.stderr);
    said("cat: /etc/shadow: Permission denied");
    said("1");
    said("root:");
    said("root 640");
    assert!(!done.text().contains("\"clean\":false"), "{}", done.text());
}

/// A file system with a secret, a large folder, and names of all kinds.
fn image() -> &'static Path {
    static IMAGE: OnceLock<PathBuf> = OnceLock::new();
    IMAGE.get_or_init(|| {
        let metadata = |mode| Metadata {
            mode,
            ..Metadata::default()
        };
        let mut tree = Tree::new(metadata(0o755));
        let add = |tree: &mut Tree, folder, name: &[u8], mode, kind| {
            let metadata = metadata(mode);
            let id = tree.add_inode(Inode { metadata, kind }).unwrap();
            tree.link(folder, name, id).unwrap();
            id
        };
        let folder = || Kind::Directory(Entries::new());
        let root = InodeId::ROOT;
        let secret = tree.add_bytes(b"secret\n".to_vec()).unwrap();
        add(&mut tree, root, b"secret", 0o600, Kind::File(secret));
        let public = tree.add_bytes(b"public\n".to_vec()).unwrap();
        let public = add(&mut tree, root, b"public", 0o644, Kind::File(public));
        tree.link(root, b"public-too", public).unwrap();
        let (major, minor) = (1, 3);
        let device = Kind::CharDevice { major, minor };
        add(&mut tree, root, b"null", 0o666, device);
        add(&mut tree, root, b"socket", 0o644, Kind::Socket);
        add(&mut tree, root, b"odd \xff\xfe", 0o644, Kind::Fifo);
        add(&mut tree, root, &[b'n'; 255], 0o644, Kind::Fifo);
        let many = add(&mut tree, root, b"many", 0o755, folder());
        let mut last = public;
        for number in 0..NAMES {
            let name = format!("name {number}");
            if number % 5 == 0 {
                let file = Kind::File(Default::default());
                last = add(&mut tree, many, name.as_bytes(), 0o644, file);
            } else {
                tree.link(many, name.as_bytes(), last).unwrap();
            }
        }
        let path = home().join("work/served.cobd");
        let output = fs::File::create(&path).unwrap();
        let options = ext4::Options {
            threads: NonZeroUsize::MIN,
            ..ext4::Options::new([1; 16], [2; 16], Default::default())
        };
        ext4::write(&tree, &options, output.file()).unwrap();
        give(&path);
        path
    })
}

/// A port of the loopback that nobody has at the moment.
fn free_port() -> u16 {
    let any = TcpListener::bind("127.0.0.1:0").unwrap();
    any.local_addr().unwrap().port()
}

/// A server that others reach on the loopback, and its port.
fn serve(words: &[&str]) -> (Process, u16) {
    serve_target(image(), words)
}

fn serve_target(target: &Path, words: &[&str]) -> (Process, u16) {
    let port = free_port();
    let mut command = coop();
    command.arg("serve").arg(target).args(words);
    command.arg("--listen").arg(format!("127.0.0.1:{port}"));
    let server = Process::start(command.stdin(Stdio::null()), BUILD_DEADLINE);
    server.expect("mount -t nfs -o ro,");
    (server, port)
}

#[test]
fn a_guest_mounts_what_is_served() {
    let (server, port) = serve(&[]);
    let options = format!(
        "addr=10.0.2.2,vers=3,proto=tcp,mountproto=tcp,port={port},mountport={port},nolock"
    );
    let script = format!(
        "set -e; mkdir /tmp/m; mount -i -t nfs -o ro,{options} 10.0.2.2:/ /tmp/m; cd /tmp/m; \
         ls -U many | wc -l; ls -U many | sort -u | wc -l; ls -Ui many | cut -d' ' -f1 | sort -u | \
         wc -l; stat -c %h 'many/name 7' public; stat -c '%F %t %T' null socket; ls | wc -l; \
         cat public-too; cat secret || echo refused; touch public || echo refused"
    );
    let mut command = coop();
    command.arg("run").arg(appliance()).arg("--allow-host");
    command.args(["--", "sh", "-c", &script]);
    let done = run(&mut command, RUN_DEADLINE).expect(0);
    let said = done.text();
    let said: Vec<&str> = said.lines().collect();
    let device = "character special file 1 3";
    assert_eq!(
        said,
        [
            "100000",
            "100000",
            "20000",
            "5",
            "2",
            device,
            "socket 0 0",
            "8",
            "public",
            "refused",
            "refused"
        ],
        "{}",
        done.stderr
    );
    server.signal(Signal::TERM);
    server.end().expect(0);
}

/// The root of one appliance is served to another, as to a machine elsewhere.
#[test]
fn a_root_comes_from_another_server() {
    let (server, port) = serve_target(appliance(), &["--no-root-squash"]);
    let folder = temp_folder();
    let client = folder.path().join("client");
    let mut command = Command::new("cp");
    run(command.arg("-al").arg(appliance()).arg(&client), CLIENT).expect(0);
    let manifest = client.join("appliance.json");
    let text = fs::read(&manifest).unwrap();
    let mut value: serde_json::Value = serde_json::from_slice(&text).unwrap();
    let options = [format!("port={port}"), format!("mountport={port}")];
    value["root"] = serde_json::json!({
        "nfs": { "server": "10.0.2.2", "path": "/", "options": options }
    });
    fs::remove_file(&manifest).unwrap();
    fs::write(&manifest, value.to_string()).unwrap();
    let mut command = coop();
    command.arg("run").arg(&client).arg("--allow-host");
    command.args(["--", "sh", "-c", WRITES]);
    let done = run(&mut command, RUN_DEADLINE).expect(0);
    assert_eq!(done.text(), "1\nw\n/tmp/coop/etc/resolv.conf\n1\n");
    drop(server);
}

#[test]
fn libnfs_reads_what_is_served() {
    if !oracle("nfs-ls") || !oracle("nfs-cat") {
        return;
    }
    let (server, port) = serve(&[]);
    let client = |program: &str, path: &str, uid: u32| -> Done {
        let more = format!("version=3&nfsport={port}&mountport={port}&uid={uid}&gid={uid}");
        let mut command = Command::new(program);
        command.arg(format!("nfs://127.0.0.1/{path}?{more}"));
        run(&mut command, CLIENT)
    };
    let listed = client("nfs-ls", "many", 1000).expect(0).text();
    let mut names: Vec<&str> = listed
        .lines()
        .filter_map(|line| line.split("name ").nth(1))
        .collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!((listed.lines().count(), names.len()), (100_000, 100_000));
    assert_eq!(
        client("nfs-cat", "/public", 1000).expect(0).text(),
        "public\n"
    );
    for uid in [0, 1000] {
        assert_ne!(client("nfs-cat", "/secret", uid).code(), Some(0));
    }
    drop(server);
    let (believing, port) = serve(&["--no-root-squash"]);
    let client = |uid: u32| {
        let more = format!("version=3&nfsport={port}&mountport={port}&uid={uid}&gid={uid}");
        let mut command = Command::new("nfs-cat");
        command.arg(format!("nfs://127.0.0.1//secret?{more}"));
        run(&mut command, CLIENT)
    };
    assert_eq!(client(0).expect(0).text(), "secret\n");
    assert_ne!(client(1000).code(), Some(0));
    drop(believing);
}

/// Sends a call of a program's procedure without credentials; gives the results.
fn ask(stream: &mut TcpStream, program: u32, procedure: u32, argument: &[u8]) -> Vec<u8> {
    let mut call = Vec::new();
    let length = u32::try_from(argument.len()).unwrap();
    for word in [1, 0, 2, program, 3, procedure, 0, 0, 0, 0, length] {
        call.extend_from_slice(&u32::to_be_bytes(word));
    }
    call.extend_from_slice(argument);
    call.resize(call.len().next_multiple_of(4), 0);
    let head = u32::try_from(call.len()).unwrap() | 1 << 31;
    stream.write_all(&head.to_be_bytes()).unwrap();
    stream.write_all(&call).unwrap();
    let mut head = [0; 4];
    stream.read_exact(&mut head).unwrap();
    let length = u32::from_be_bytes(head) & !(1 << 31);
    let mut reply = vec![0; usize::try_from(length).unwrap()];
    stream.read_exact(&mut reply).unwrap();
    reply[24..].to_vec()
}

#[test]
fn a_handle_of_another_server_is_refused() {
    const MOUNT: u32 = 100_005;
    const NFS: u32 = 100_003;
    let (one, one_port) = serve(&[]);
    let (other, other_port) = serve(&[]);
    let connect = |port| {
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(CLIENT)).unwrap();
        stream
    };
    let (mut one_stream, mut other_stream) = (connect(one_port), connect(other_port));
    let mounted = ask(&mut one_stream, MOUNT, 1, b"/");
    let handle = mounted[8..32].to_vec();
    let status = |stream: &mut TcpStream, handle: &[u8]| ask(stream, NFS, 1, handle)[..4].to_vec();
    assert_eq!(status(&mut one_stream, &handle), [0; 4]);
    // NFS3ERR_STALE, and NFS3ERR_BADHANDLE.
    assert_eq!(status(&mut other_stream, &handle), [0, 0, 0, 70]);
    assert_eq!(status(&mut other_stream, b"handle"), [0, 0, 0x27, 0x11]);
    drop((one, other));
}

#[test]
fn what_cannot_be_served_is_refused() {
    let refused = |target: &Path, words: &[&str], what: &str| {
        let mut command = coop();
        command.arg("serve").arg(target).args(words);
        let done = run(&mut command, CLIENT);
        assert_ne!(done.code(), Some(0));
        assert!(done.stderr.contains(what), "{}", done.stderr);
    };
    refused(image(), &[], "--listen");
    let loopback = ["--listen", "127.0.0.1:0"];
    refused(&home().join("coop"), &loopback, "no ext4");
    refused(
        image(),
        &[&loopback[..], &["--cobd", "root"]].concat(),
        "--cobd",
    );
    refused(image(), &["--listen", "192.0.2.1:0"], "cannot listen");
}
