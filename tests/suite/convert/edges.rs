//! What people name by mistake, and disks that are not whole.

use std::io::Read;
use std::os::unix::fs::FileExt;
use std::process::{Command, Stdio};

use fs_err as fs;
use rustix::fs::{CWD, FileType, FlockOperation, Mode, flock, mknodat};

use super::{MAKERS, MIB, disk, json, part_of, refused, tool, tools};
use crate::support::{self, coop_in, temp_folder};

/// No file that is read is written over: not the disk, by whatever name, not what it is made of, and
/// not the appliance that it lies in.
#[test]
fn what_is_read_is_not_replaced() {
    if !tools(MAKERS) {
        return;
    }
    let home = temp_folder();
    let folder = home.path();
    disk(folder, "gpt");
    tool(
        folder,
        "qemu-img convert -f raw -O qcow2 disk.raw base.qcow2",
        "",
    );
    tool(
        folder,
        "qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 middle.qcow2",
        "",
    );
    tool(
        folder,
        "qemu-img create -q -f qcow2 -b middle.qcow2 -F qcow2 top.qcow2",
        "",
    );
    fs::hard_link(folder.join("base.qcow2"), folder.join("hard.qcow2")).unwrap();
    std::os::unix::fs::symlink("middle.qcow2", folder.join("link.qcow2")).unwrap();
    fs::create_dir(folder.join("out")).unwrap();
    fs::copy(folder.join("disk.raw"), folder.join("out/disk.raw")).unwrap();
    support::give(&folder.join("out"));
    let base = fs::read(folder.join("base.qcow2")).unwrap();
    for words in [
        &["base.qcow2", "base.qcow2"][..],
        &["base.qcow2", "hard.qcow2"],
        &["top.qcow2", "top.qcow2", "--allow-chain", "."],
        &["top.qcow2", "base.qcow2", "--allow-chain", "."],
        &["top.qcow2", "hard.qcow2", "--allow-chain", "."],
        &["top.qcow2", "link.qcow2", "--allow-chain", "."],
        &["out/disk.raw", "--appliance", "out"],
        &["top.qcow2", "--appliance", ".", "--allow-chain", "."],
    ] {
        refused(folder, words, 1, "would take its own source's place");
    }
    // An appliance's folder is as its manifest says.
    fs::write(folder.join("out/appliance.json"), "{}").unwrap();
    for (name, said) in [("disk.raw", "belongs to"), ("new.raw", "would lie in")] {
        let output = format!("out/{name}");
        let done = coop_in(folder, &["convert", "base.qcow2", &output]).expect(2);
        assert!(done.stderr.contains(said), "{}", done.stderr);
    }
    assert!(fs::read(folder.join("base.qcow2")).unwrap() == base);
    assert!(folder.join("out/disk.raw").exists());
    // Beside what is read there is room.
    let words = ["convert", "top.qcow2", "flat.qcow2", "--allow-chain", "."];
    coop_in(folder, &words).expect(0);
    tool(
        folder,
        "qemu-img compare -f raw -F qcow2 disk.raw flat.qcow2",
        "",
    );
}

/// A disk that a machine has open is looked at, and copied once it is not.
#[test]
fn a_disk_in_use_is_not_copied() {
    if !tools(MAKERS) || !tools(&["qemu-io"]) {
        return;
    }
    let home = temp_folder();
    let folder = home.path();
    disk(folder, "gpt");
    tool(
        folder,
        "qemu-img create -q -f qcow2 -b disk.raw -F raw top.qcow2",
        "",
    );
    let mut qemu = Command::new("qemu-io");
    qemu.args(["-f", "raw", "disk.raw"]).current_dir(folder);
    qemu.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut qemu = qemu.spawn().unwrap();
    // It asks for a command once it has the disk.
    let mut prompt = [0; 1];
    qemu.stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut prompt)
        .unwrap();
    for words in [
        &["disk.raw", "x.cobd"][..],
        &["disk.raw", "x.raw"],
        &["disk.raw", "--appliance", "out"],
        &["top.qcow2", "x.cobd", "--allow-chain", "."],
    ] {
        let done = refused(folder, words, 1, "is in use");
        assert!(done.stderr.contains("stop the machine"), "{}", done.stderr);
    }
    let done = coop_in(folder, &["convert", "disk.raw", "--list"]).expect(0);
    assert!(
        done.text().contains("a machine that runs"),
        "{}",
        done.text()
    );
    drop(qemu.stdin.take());
    qemu.wait().unwrap();
    coop_in(folder, &["convert", "disk.raw", "x.cobd"]).expect(0);
    // A machine of coop's has a lock of another kind.
    let cobd = fs::File::open(folder.join("x.cobd")).unwrap();
    flock(cobd.file(), FlockOperation::NonBlockingLockExclusive).unwrap();
    let done = coop_in(folder, &["convert", "x.cobd", "x.qcow2"]).expect(1);
    assert!(done.stderr.contains("is in use"), "{}", done.stderr);
    assert!(!folder.join("x.raw").exists() && !folder.join("x.qcow2").exists());
}

/// What is no disk, or none that coop reads, is named with a way to go.
#[test]
fn what_is_no_disk_is_told_with_a_way_to_go() {
    if !tools(&["mke2fs", "qemu-img", "gzip", "tar"]) {
        return;
    }
    let home = temp_folder();
    let folder = home.path();
    for (name, size) in [("bare.raw", 8), ("blank.raw", 1), ("empty.raw", 0)] {
        let file = fs::File::create(folder.join(name)).unwrap();
        file.set_len(size * MIB).unwrap();
    }
    fs::create_dir_all(folder.join("root/etc")).unwrap();
    tool(folder, "mke2fs -q -t ext4 -d root bare.raw", "");
    tool(
        folder,
        "qemu-img convert -f raw -O vdi bare.raw disk.vdi",
        "",
    );
    tool(folder, "tar -cf disk.ova bare.raw", "");
    tool(folder, "gzip -k blank.raw", "");
    let mode = Mode::from_raw_mode(0o666);
    mknodat(CWD, folder.join("fifo"), FileType::Fifo, mode, 0).unwrap();
    for (words, said) in [
        (&["disk.vdi", "--list"][..], "qemu-img convert -O qcow2"),
        (&["disk.ova", "x.cobd"], "unpack it"),
        (
            &["blank.raw.gz", "x.cobd"],
            "a compressed file (gzip): unpack it",
        ),
        (&["blank.raw", "x.raw"], "hint: qemu-img convert"),
        (&["empty.raw", "x.cobd"], "no partition table"),
        // Nobody writes into it, and nobody waits for that.
        (&["fifo", "x.cobd"], "goes into a file first"),
        (
            &["bare.raw", "fifo", "--format", "raw"],
            "not a regular file",
        ),
        (
            &["bare.raw", "root", "--format", "raw"],
            "not a regular file",
        ),
        (
            &["bare.raw", "/dev/full", "--format", "raw"],
            "not a regular file",
        ),
        (
            &["bare.raw", "x.cobd", "--partition", "1"],
            "there is no partition 1; the disk has no partition table\n\
             hint: without --partition all of it is taken",
        ),
    ] {
        refused(folder, words, 1, said);
    }
    refused(folder, &["root", "x.cobd"], 2, "coop image build");
    assert!(!folder.join("x.cobd").exists() && !folder.join("x.raw").exists());
    // Bytes behind a file system's end are bytes, and make no whole sector.
    let bare = fs::OpenOptions::new()
        .append(true)
        .open(folder.join("bare.raw"));
    std::io::Write::write_all(&mut bare.unwrap(), b"abc").unwrap();
    coop_in(folder, &["convert", "bare.raw", "x.cobd"]).expect(0);
    assert!(fs::read(folder.join("x.cobd")).unwrap() == fs::read(folder.join("bare.raw")).unwrap());
    coop_in(folder, &["convert", "bare.raw", "x.qcow2"]).expect(0);
    tool(folder, "qemu-img check x.qcow2", "");
}

/// A file system that is larger than its place is not taken for a whole one, and one that cannot be
/// read is named where a root is looked for.
#[test]
fn a_disk_that_is_cut_off_is_not_taken_for_a_whole_one() {
    if !tools(MAKERS) {
        return;
    }
    let home = temp_folder();
    let folder = home.path();
    disk(folder, "gpt");
    let root = part_of(folder, "disk.raw", 5, 12);
    fs::write(folder.join("cut.raw"), &root[..10 << 20]).unwrap();
    let said =
        "the whole disk ends within its file system: this ext4 has 12MiB, and there are 10MiB";
    for words in [
        &["cut.raw", "x.cobd"][..],
        &["cut.raw", "x.raw"],
        &["cut.raw", "--appliance", "out"],
    ] {
        let done = refused(folder, words, 1, said);
        assert!(done.stderr.contains("resize2fs"), "{}", done.stderr);
    }
    assert!(!folder.join("x.cobd").exists() && !folder.join("out").exists());
    let listed = json(&coop_in(folder, &["convert", "cut.raw", "--list", "--json"]).expect(0));
    assert_eq!(listed["also"], serde_json::json!([said]));
    // One that is larger than its partition, and one whose checksum is wrong.
    let raw = fs::OpenOptions::new()
        .write(true)
        .open(folder.join("disk.raw"));
    let raw = raw.unwrap();
    raw.file().write_all_at(&root[..4 << 20], MIB).unwrap();
    raw.file()
        .write_all_at(b"new", 5 * MIB + 1024 + 120)
        .unwrap();
    let done = coop_in(folder, &["convert", "disk.raw", "x.cobd"]).expect(1);
    for said in [
        "no partition looks like a root; partition 1 ends within its file system: this ext4 has 12MiB, \
         and there are 4MiB; partition 2 cannot be read: damaged ext4 image, superblock",
        "hint: --partition N takes one of them",
    ] {
        assert!(done.stderr.contains(said), "{said}: {}", done.stderr);
    }
    // As bytes the second one is asked for by its number.
    let words = ["convert", "disk.raw", "x.cobd", "--partition", "2"];
    coop_in(folder, &words).expect(0);
    assert!(fs::read(folder.join("x.cobd")).unwrap() == part_of(folder, "disk.raw", 5, 12));
}
