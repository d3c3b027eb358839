//! `coop convert`: disks that other tools made, beside what these say of them, and disks that nobody
//! should trust.

mod debian;
mod edges;
mod stopped;

use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use fs_err as fs;
use serde_json::Value;

use crate::support::{self, Done, RUN_DEADLINE, coop, coop_in, oracle, run, small, temp_folder};

/// A tool that makes or looks at a disk, on a busy machine.
const TOOL: Duration = Duration::from_secs(60);
const MIB: u64 = 1 << 20;

/// Runs a tool in a folder, as whoever runs the tests, with a text to read.
#[track_caller]
fn tool(folder: &Path, line: &str, input: &str) -> Done {
    let mut words = line.split(' ');
    let mut command = Command::new(words.next().unwrap());
    command.args(words).current_dir(folder).env(
        "PATH",
        "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    );
    support::run_with_input(&mut command, input.as_bytes(), TOOL).expect(0)
}

/// Whether every tool is there.
fn tools(names: &[&str]) -> bool {
    names.iter().all(|name| oracle(name))
}

/// `coop convert` ends with this code and says this.
#[track_caller]
fn refused(folder: &Path, words: &[&str], code: i32, said: &str) -> Done {
    let words = [&["convert"], words].concat();
    let done = coop_in(folder, &words).expect(code);
    assert!(done.stderr.contains(said), "{words:?}: {}", done.stderr);
    done
}

fn json(done: &Done) -> Value {
    serde_json::from_slice(&done.stdout).unwrap()
}

/// Puts a file's bytes into another one, at a MiB.
fn place(folder: &Path, part: &str, disk: &str, at_mib: u64) {
    let bytes = fs::read(folder.join(part)).unwrap();
    let disk = fs::OpenOptions::new()
        .write(true)
        .open(folder.join(disk))
        .unwrap();
    disk.file().write_all_at(&bytes, at_mib * MIB).unwrap();
}

/// A part of a disk, by MiB.
fn part_of(folder: &Path, disk: &str, at_mib: u64, size_mib: u64) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(size_mib * MIB).unwrap()];
    let disk = fs::File::open(folder.join(disk)).unwrap();
    disk.file().read_exact_at(&mut bytes, at_mib * MIB).unwrap();
    bytes
}

/// The tools that [`disk`] needs.
const MAKERS: &[&str] = &[
    "sfdisk",
    "mke2fs",
    "mkfs.vfat",
    "mkswap",
    "blkid",
    "qemu-img",
];

/// A disk of 40 MiB as `disk.raw`: FAT at 1 MiB, a root at 5, swap at 18, data at 25, of
/// 4, 12, 6 and 12 MiB. An MBR has the last two as logical ones.
fn disk(folder: &Path, label: &str) {
    let table = match label {
        "gpt" => {
            "label: gpt\nstart=2048, size=8192, type=U, name=\"boot\"\n\
             start=10240, size=24576, type=L\nstart=36864, size=12288, type=S\n\
             start=51200, size=24576, type=L, name=\"my data\"\n"
        }
        _ => {
            "label: dos\nstart=2048, size=8192, type=c, bootable\n\
             start=10240, size=24576, type=83\nstart=34816, size=47104, type=5\n\
             start=36864, size=12288, type=82\nstart=51200, size=24576, type=83\n"
        }
    };
    fs::create_dir_all(folder.join("root/etc")).unwrap();
    fs::create_dir_all(folder.join("root/usr/bin")).unwrap();
    fs::write(folder.join("root/etc/hostname"), "old-box\n").unwrap();
    fs::create_dir_all(folder.join("data")).unwrap();
    fs::write(folder.join("data/file"), "data").unwrap();
    for (name, size) in [
        ("disk.raw", 40),
        ("fat", 4),
        ("ext4", 12),
        ("swap", 6),
        ("ext2", 12),
    ] {
        let file = fs::File::create(folder.join(name)).unwrap();
        file.set_len(size * MIB).unwrap();
    }
    tool(folder, "sfdisk -q disk.raw", table);
    tool(folder, "mkfs.vfat -n BOOT fat", "");
    tool(folder, "mke2fs -q -t ext4 -L oldroot -d root ext4", "");
    tool(folder, "mkswap -q -L spare swap", "");
    tool(folder, "mke2fs -q -t ext2 -L files -d data ext2", "");
    for (part, at) in [("fat", 1), ("ext4", 5), ("swap", 18), ("ext2", 25)] {
        place(folder, part, "disk.raw", at);
        fs::remove_file(folder.join(part)).unwrap();
    }
}

/// What blkid says of a part of a disk: `LABEL=…` and so on.
fn blkid(folder: &Path, first_byte: u64, size_bytes: u64) -> impl Fn(&str) -> String + use<> {
    let line = format!("blkid -p -o export -O {first_byte} -S {size_bytes} disk.raw");
    let text = tool(folder, &line, "").text();
    move |key| {
        let mut lines = text.lines();
        let found = lines.find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        found.unwrap_or_default().replace("\\ ", " ")
    }
}

#[test]
fn partitions_are_listed_as_other_tools_see_them() {
    if !tools(MAKERS) {
        return;
    }
    for label in ["gpt", "dos"] {
        let home = temp_folder();
        let folder = home.path();
        disk(folder, label);
        let listed = json(&coop_in(folder, &["convert", "disk.raw", "--list", "--json"]).expect(0));
        let expected: Value =
            serde_json::from_slice(&tool(folder, "sfdisk --json disk.raw", "").stdout).unwrap();
        let expected = expected["partitiontable"]["partitions"].as_array().unwrap();
        // The one that contains the others is nothing to take.
        let expected = expected.iter().filter(|one| one["type"] != "5");
        let parts = listed["partitions"].as_array().unwrap();
        assert_eq!(parts.len(), 4, "{listed}");
        for (part, expected) in parts.iter().zip(expected) {
            let number = part["number"].as_u64().unwrap();
            assert_eq!(expected["node"], format!("disk.raw{number}"));
            let first_byte = part["first_byte"].as_u64().unwrap();
            let size_bytes = part["size_bytes"].as_u64().unwrap();
            assert_eq!(expected["start"].as_u64().unwrap() * 512, first_byte);
            assert_eq!(expected["size"].as_u64().unwrap() * 512, size_bytes);
            assert_eq!(expected["name"].as_str().unwrap_or(""), part["name"]);
            if let Some(uuid) = expected["uuid"].as_str() {
                assert_eq!(uuid.to_lowercase(), part["partuuid"]);
            }
            let said = blkid(folder, first_byte, size_bytes);
            assert_eq!(said("TYPE"), part["file_system"], "{part}");
            assert_eq!(said("LABEL"), part["label"], "{part}");
            assert_eq!(said("UUID"), part["uuid"], "{part}");
            assert_eq!(part["is_root"], part["label"] == "oldroot");
        }
        let text = coop_in(folder, &["convert", "disk.raw", "--list"]).expect(0);
        assert!(text.text().contains("taken as the root"), "{}", text.text());
        assert_eq!(text.stderr, "");
    }
}

#[test]
fn a_partition_becomes_a_cobd_and_its_zeroes_holes() {
    if !tools(MAKERS) {
        return;
    }
    let home = temp_folder();
    let folder = home.path();
    disk(folder, "dos");
    tool(
        folder,
        "qemu-img convert -f raw -O qcow2 disk.raw disk.qcow2",
        "",
    );
    tool(
        folder,
        "qemu-img convert -f raw -O vmdk disk.raw disk.vmdk",
        "",
    );
    tool(folder, "qemu-img snapshot -c before disk.qcow2", "");
    for source in ["disk.raw", "disk.qcow2", "disk.vmdk"] {
        for (words, at, size) in [
            (&[][..], 5, 12),
            (&["--partition", "root"], 5, 12),
            (&["--partition", "files"], 25, 12),
            (&["--partition", "5"], 18, 6),
            (&["--partition", "1"], 1, 4),
        ] {
            let words = [&["convert", "--json", source, "x.cobd"], words].concat();
            let done = json(&coop_in(folder, &words).expect(0));
            assert_eq!(done["size_bytes"], size * MIB);
            let cobd = folder.join("x.cobd");
            assert!(fs::read(&cobd).unwrap() == part_of(folder, "disk.raw", at, size));
            let on_disk = fs::metadata(&cobd).unwrap().blocks() * 512;
            assert!(on_disk < size * MIB / 2 + 65_536, "{words:?}: {on_disk}");
            let left = done["left_behind"].as_array().unwrap();
            let kinds: Vec<&str> = left
                .iter()
                .map(|one| one["kind"].as_str().unwrap())
                .collect();
            assert_eq!(kinds.iter().filter(|kind| **kind == "partition").count(), 3);
            assert_eq!(
                kinds.contains(&"snapshot"),
                source == "disk.qcow2",
                "{left:?}"
            );
        }
    }
    let done = coop_in(folder, &["convert", "disk.qcow2", "x.cobd"]).expect(0);
    assert_eq!(done.text(), "x.cobd\n");
    for said in [
        "partition 2 (ext4 'oldroot'), as cobd: 12 MiB",
        "left behind: the snapshot 'before'",
        "left behind: the partition table (MBR)",
        "left behind: partition 6: 12MiB, ext2 'files'",
    ] {
        assert!(done.stderr.contains(said), "{said}: {}", done.stderr);
    }
    // A whole disk as it is, in another format.
    coop_in(folder, &["convert", "disk.qcow2", "whole.img"]).expect(0);
    assert!(
        fs::read(folder.join("whole.img")).unwrap() == fs::read(folder.join("disk.raw")).unwrap()
    );
}

#[test]
fn a_cobd_becomes_a_disk_and_comes_back() {
    if !tools(&["mke2fs", "qemu-img", "sfdisk"]) {
        return;
    }
    let home = temp_folder();
    let folder = home.path();
    disk(folder, "gpt");
    coop_in(folder, &["convert", "disk.raw", "root.cobd"]).expect(0);
    for again in ["one", "two"] {
        let output = format!("{again}.qcow2");
        let done = json(&coop_in(folder, &["convert", "root.cobd", &output, "--json"]).expect(0));
        assert_eq!(done["wrapped"], true);
        tool(folder, &format!("qemu-img check {output}"), "");
    }
    let [one, two] = ["one", "two"].map(|name| fs::read(folder.join(name).with_extension("qcow2")));
    assert!(
        one.unwrap() == two.unwrap(),
        "the same cobd gives the same disk"
    );
    coop_in(folder, &["convert", "root.cobd", "wrapped.raw"]).expect(0);
    tool(folder, "sfdisk --verify wrapped.raw", "");
    tool(folder, "qemu-img compare wrapped.raw one.qcow2", "");
    for disk in ["one.qcow2", "wrapped.raw"] {
        let done = json(&coop_in(folder, &["convert", disk, "back.cobd", "--json"]).expect(0));
        assert_eq!(done["partition"]["type_name"], "Linux root (x86-64)");
        let [back, root] = ["back.cobd", "root.cobd"].map(|name| fs::read(folder.join(name)));
        assert!(back.unwrap() == root.unwrap(), "{disk}");
    }
}

#[test]
fn what_is_not_there_is_an_error_that_says_what_is() {
    if !tools(MAKERS) {
        return;
    }
    let home = temp_folder();
    let folder = home.path();
    disk(folder, "gpt");
    fs::write(folder.join("old.cobd"), "old").unwrap();
    support::give(&folder.join("old.cobd"));
    for (words, code, said) in [
        (
            &["disk.raw", "old.cobd", "--partition", "9"][..],
            1,
            "there is no partition 9\n",
        ),
        (
            &["disk.raw", "old.cobd", "--partition", "x"],
            1,
            "nothing is named 'x'\n",
        ),
        (
            &["disk.raw", "old.cobd", "--partition", "9"],
            1,
            "partition 4: ext2 'files', Linux filesystem named 'my data', 12MiB",
        ),
        (
            &["disk.raw", "out.vmdk"],
            2,
            "does not say what is to be written",
        ),
        (&["disk.raw"], 2, "<OUTPUT>"),
        (
            &["disk.raw", "old.cobd", "--list"],
            2,
            "cannot be used with",
        ),
        (&["missing.raw", "old.cobd"], 2, "missing.raw"),
        (
            &["disk.raw", "disk.raw", "--format", "cobd"],
            1,
            "would take its own source's place",
        ),
        (&["disk.raw", "no/such/x.cobd"], 1, "no/such"),
        (
            &["old.cobd", "x.raw"],
            1,
            "no partition table and no file system",
        ),
        (
            &["disk.raw", "--appliance", "out", "--partition", "swap"],
            1,
            "nothing is named 'swap'",
        ),
        (
            &["disk.raw", "--appliance", "out", "--partition", "spare"],
            1,
            "partition 3 is a swap area; coop reads the files of ext2, ext3 and ext4 only\n",
        ),
        (
            &["disk.raw", "--appliance", "out", "--partition", "files"],
            1,
            "partition 4 has no /etc",
        ),
        (
            &["disk.raw", "--appliance", "out", "--use-backup-table"],
            2,
            "--use-backup-table does not go with --appliance",
        ),
    ] {
        assert_eq!(refused(folder, words, code, said).text(), "");
    }
    assert_eq!(fs::read(folder.join("old.cobd")).unwrap(), b"old");
    assert!(!folder.join("out").exists());
    // Two that could be meant, and one that cannot be looked into.
    let root = part_of(folder, "disk.raw", 5, 12);
    let raw = fs::OpenOptions::new()
        .write(true)
        .open(folder.join("disk.raw"))
        .unwrap();
    raw.file().write_all_at(&root, 25 * MIB).unwrap();
    let done = coop_in(folder, &["convert", "disk.raw", "x.cobd"]).expect(1);
    assert!(
        done.stderr
            .contains("more than one partition looks like a root"),
        "{}",
        done.stderr
    );
    assert!(
        done.stderr.contains("--partition N takes one of them"),
        "{}",
        done.stderr
    );
    // The table's first copy is damaged.
    raw.file().write_all_at(&[0; 64], 512).unwrap();
    let done = coop_in(folder, &["convert", "disk.raw", "--list"]).expect(1);
    assert!(
        done.stderr.contains("--use-backup-table"),
        "{}",
        done.stderr
    );
    coop_in(
        folder,
        &["convert", "disk.raw", "--list", "--use-backup-table"],
    )
    .expect(0);
}

/// Roots that coop does not look into are named where nothing else is a root, and again where
/// somebody wants one of them, with a way to go.
#[test]
fn what_cannot_be_looked_into_is_named() {
    if !tools(MAKERS) {
        return;
    }
    let home = temp_folder();
    let folder = home.path();
    disk(folder, "gpt");
    let raw = fs::OpenOptions::new()
        .write(true)
        .open(folder.join("disk.raw"))
        .unwrap();
    let root = 5 * MIB;
    for (magic, at, kind, hint) in [
        (
            &b"LABELONE"[..],
            512,
            "a physical volume of LVM",
            "dd if=/dev/GROUP/VOLUME",
        ),
        (
            b"LUKS\xba\xbe\0\x02",
            0,
            "encrypted (LUKS)",
            "cryptsetup open",
        ),
        (b"XFSB", 0, "xfs", "rootfs.source.tarball"),
        (b"_BHRfS_M", 65_600, "btrfs", "rootfs.source.tarball"),
    ] {
        raw.file().write_all_at(&vec![0; 70_000], root).unwrap();
        raw.file().write_all_at(magic, root + at).unwrap();
        let done = coop_in(folder, &["convert", "disk.raw", "x.cobd"]).expect(1);
        let said = format!(
            "no partition looks like a root; partition 2 is {kind}, which coop does not look into\n"
        );
        assert!(done.stderr.contains(&said), "{}", done.stderr);
        assert!(done.stderr.contains(hint), "{}", done.stderr);
        let words = [
            "convert",
            "disk.raw",
            "--appliance",
            "out",
            "--partition",
            "2",
        ];
        let done = coop_in(folder, &words).expect(1);
        let said =
            format!("partition 2 is {kind}; coop reads the files of ext2, ext3 and ext4 only\n");
        assert!(done.stderr.contains(&said), "{}", done.stderr);
        assert!(done.stderr.contains(hint), "{}", done.stderr);
        // Its bytes are bytes all the same.
        coop_in(
            folder,
            &["convert", "disk.raw", "x.cobd", "--partition", "2"],
        )
        .expect(0);
        assert!(fs::read(folder.join("x.cobd")).unwrap() == part_of(folder, "disk.raw", 5, 12));
    }
    // A second table, which firmware of another kind would read.
    let mut second = [0; 16];
    second[4] = 0x83;
    second[8..12].copy_from_slice(&51_200_u32.to_le_bytes());
    second[12..].copy_from_slice(&24_576_u32.to_le_bytes());
    raw.file().write_all_at(&second, 446 + 16).unwrap();
    let listed = json(&coop_in(folder, &["convert", "disk.raw", "--list", "--json"]).expect(0));
    assert_eq!(listed["partitions"].as_array().unwrap().len(), 4);
    assert!(
        listed["also"].to_string().contains("a hybrid MBR"),
        "{listed}"
    );
    let words = ["convert", "disk.raw", "x.cobd", "--partition", "4"];
    let done = coop_in(folder, &words).expect(0);
    assert!(
        done.stderr.contains("(GPT, and a hybrid MBR"),
        "{}",
        done.stderr
    );
    // A disk without a table that is nothing but swap.
    fs::write(folder.join("swap.raw"), part_of(folder, "disk.raw", 18, 6)).unwrap();
    let done = coop_in(folder, &["convert", "swap.raw", "--appliance", "out"]).expect(1);
    assert!(
        done.stderr.contains("the whole disk is a swap area"),
        "{}",
        done.stderr
    );
}

/// A disk and the one behind it become what both together are.
#[test]
fn a_chain_of_disks_becomes_an_appliance() {
    if !tools(MAKERS) {
        return;
    }
    let home = temp_folder();
    let folder = home.path();
    disk(folder, "gpt");
    fs::create_dir(folder.join("base")).unwrap();
    tool(
        folder,
        "qemu-img convert -f raw -O qcow2 disk.raw base/base.qcow2",
        "",
    );
    // Then something was written.
    fs::write(folder.join("root/etc/hostname"), "new-box\n").unwrap();
    fs::File::create(folder.join("ext4"))
        .unwrap()
        .set_len(12 * MIB)
        .unwrap();
    tool(folder, "mke2fs -q -t ext4 -L oldroot -d root ext4", "");
    place(folder, "ext4", "disk.raw", 5);
    let line = "qemu-img convert -f raw -O qcow2 -B base/base.qcow2 -F qcow2 disk.raw top.qcow2";
    tool(folder, line, "");
    tool(folder, "qemu-img convert -O qcow2 top.qcow2 flat.qcow2", "");
    let files = |name: &str, more: &[&str]| {
        let out = format!("out/{name}");
        let disk = format!("{name}.qcow2");
        let words = [
            &["convert", &disk, "--appliance", &out, "--progress", "none"],
            more,
        ]
        .concat();
        coop_in(folder, &words).expect(0);
        let tar = format!("{name}.tar");
        coop_in(folder, &["inspect", "--extract", "/", "-o", &tar, &out]).expect(0);
        fs::read(folder.join(tar)).unwrap()
    };
    let chained = files("top", &["--allow-chain", "base"]);
    assert!(chained == files("flat", &[]));
    assert!(chained.windows(8).any(|some| some == b"new-box\n"));
    coop_in(folder, &["convert", "top.qcow2", "--appliance", "out/no"]).expect(1);
    // All that it was made of is in its evidence.
    let words = ["verify", "--rebuild", "out/top", "--context", "."];
    let done = coop_in(folder, &words).expect(0);
    assert!(done.text().contains("identical"), "{}", done.text());
    // A recipe says what a disk may have, all of it and no more.
    for (chain, said) in [
        ("[]", "rootfs.source.disk.chain lists those"),
        (
            "[base/base.qcow2, disk.raw]",
            "does not need the file disk.raw",
        ),
    ] {
        let disk = format!("{{disk: {{path: top.qcow2, chain: {chain}}}}}");
        let recipe = format!("name: chained\nrootfs: {{source: {disk}}}\n");
        fs::write(folder.join("r.yaml"), recipe).unwrap();
        let done = coop_in(folder, &["build", "r.yaml", "--progress", "none"]).expect(1);
        assert!(done.stderr.contains(said), "{}", done.stderr);
    }
}

#[test]
fn a_disk_has_no_file_of_the_host_that_nobody_gave_it() {
    if !tools(MAKERS) {
        return;
    }
    let home = temp_folder();
    let folder = home.path();
    disk(folder, "gpt");
    fs::create_dir(folder.join("base")).unwrap();
    fs::rename(folder.join("disk.raw"), folder.join("base/disk.raw")).unwrap();
    tool(
        folder,
        "qemu-img create -q -f qcow2 -b base/disk.raw -F raw top.qcow2",
        "",
    );
    tool(
        folder,
        "qemu-img create -q -u -f qcow2 -b nothing -F raw nothing.qcow2 1M",
        "",
    );
    let secret = folder.join("secret");
    fs::write(&secret, vec![b'S'; 1 << 20]).unwrap();
    let line = format!(
        "qemu-img create -q -f qcow2 -b {} -F raw spy.qcow2",
        secret.display()
    );
    tool(folder, &line, "");
    for (words, said) in [
        (&["top.qcow2", "x.cobd"][..], "--allow-chain DIR"),
        (&["spy.qcow2", "x.raw"], "the disk needs the backing file"),
        (
            &["spy.qcow2", "x.raw", "--allow-chain", "base"],
            "outside of the folder",
        ),
        (
            &["top.qcow2", "x.raw", "--allow-chain", "no"],
            "'no': No such",
        ),
        (
            &["nothing.qcow2", "x.raw", "--allow-chain", "base"],
            "base/nothing': No such",
        ),
        (&["spy.qcow2", "--list"], "the disk needs the backing file"),
        (
            &["spy.qcow2", "--appliance", "out"],
            "the disk needs the backing file",
        ),
    ] {
        refused(folder, words, 1, said);
    }
    assert!(!folder.join("x.raw").exists() && !folder.join("out").exists());
    coop_in(
        folder,
        &["convert", "top.qcow2", "x.cobd", "--allow-chain", "."],
    )
    .expect(0);
    assert!(fs::read(folder.join("x.cobd")).unwrap() == part_of(folder, "base/disk.raw", 5, 12));
    // A cobd is what it is, though a guest can make it look like something else.
    fs::copy(folder.join("spy.qcow2"), folder.join("guest.cobd")).unwrap();
    let done = coop_in(folder, &["convert", "guest.cobd", "x.raw"]).expect(1);
    assert!(
        done.stderr.contains("no file system that is known"),
        "{}",
        done.stderr
    );
    // Cut short, and with wild numbers.
    let good = fs::read(folder.join("top.qcow2")).unwrap();
    for at in [8, 20, 24, 36, 40, 48, 60, 96, 100] {
        let mut bad = good.clone();
        bad[at..at + 4].fill(0xff);
        fs::write(folder.join("bad.qcow2"), &bad).unwrap();
        let words = ["convert", "bad.qcow2", "--list", "--allow-chain", "."];
        let code = coop_in(folder, &words).code();
        assert!(matches!(code, Some(0 | 1)), "{at}: {code:?}");
    }
    fs::write(folder.join("bad.qcow2"), &good[..100]).unwrap();
    coop_in(
        folder,
        &["convert", "bad.qcow2", "--list", "--allow-chain", "."],
    )
    .expect(1);
}

const RECIPE: &str = "\
name: fromdisk
rootfs:
  source:
    disk: {path: disk.qcow2, partition: root}
  files:
    - {path: /etc/motd, content: \"hello\\n\"}
  run:
    - {run: \"cat /etc/motd > /made\", network: false}
";

/// A disk is a source like an archive: with files and steps, in a lock, and built again.
#[test]
fn a_recipe_takes_its_root_from_a_disk() {
    let home = temp_folder();
    let folder = home.path();
    let cobd = small().join("root.cobd");
    let mut command = coop();
    command
        .args(["convert", "--progress", "none"])
        .arg(&cobd)
        .arg(folder.join("disk.qcow2"));
    run(&mut command, RUN_DEADLINE).expect(0);
    fs::write(folder.join("r.yaml"), RECIPE).unwrap();
    coop_in(folder, &["lock", "r.yaml", "--progress", "none"]).expect(0);
    let words = [
        "build",
        "r.yaml",
        "--locked",
        "--progress",
        "none",
        "-o",
        "out",
    ];
    coop_in(folder, &words).expect(0);
    let done = coop_in(
        folder,
        &["run", "out", "--", "cat", "/made", "/etc/hostname"],
    )
    .expect(0);
    assert_eq!(done.text(), "hello\nfromdisk\n");
    let words = ["verify", "--rebuild", "out", "--context", "."];
    let done = coop_in(folder, &words).expect(0);
    assert!(done.text().contains("identical"), "{}", done.text());
    // Another disk is another input.
    fs::write(folder.join("disk.qcow2"), "QFI\u{fb}").unwrap();
    let done = coop_in(folder, &["build", "r.yaml", "--locked", "-o", "out"]).expect(1);
    assert!(
        done.stderr.contains("disk.qcow2 with sha256"),
        "{}",
        done.stderr
    );
    let done = coop_in(folder, &["convert", "disk.qcow2", "--list"]).expect(1);
    assert!(done.stderr.contains("disk.qcow2"), "{}", done.stderr);
}
