//! Disks of other virtual machines as coop reads and writes them, beside qemu-img: every format,
//! partition table and size of cluster, changed by qemu-io after it was made.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use coop_image::disk::{Chain, Disk, Folder, LeftBehind, NoChain, Qcow2Options, View, write_qcow2};
use coop_image::partition::{
    self, Guid, NewPartition, NewTable, PartitionType, ReadOptions, SectorSize, TableKind,
};
use coop_image::tree::read_exact_at;
use fs_err as fs;

use crate::images::random::Random;
use crate::support::{RUN_DEADLINE, oracle, program, run, temp_folder, unprivileged};

/// Tables by name; `odd` is a GPT on a disk that ends within a sector.
const TABLES: [&str; 6] = ["mbr63", "logical", "gpt512", "gpt4096", "bare", "odd"];

/// Whether qemu-io may write to a disk after it was made.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    Changed,
    /// With clusters that are compressed one by one.
    ChangedAndPacked,
    Unchanged,
}

use Then::{Changed, ChangedAndPacked, Unchanged};

/// Formats: a name, qemu-img's words, and what happens then.
const FORMATS: [(&str, &str, Then); 21] = [
    ("raw", "raw", Changed),
    ("v2", "qcow2 -o compat=0.10", ChangedAndPacked),
    ("v2-512", "qcow2 -o compat=0.10,cluster_size=512", Changed),
    ("v3-512", "qcow2 -o cluster_size=512", ChangedAndPacked),
    ("v3-4k", "qcow2 -o cluster_size=4k,refcount_bits=1", Changed),
    ("v3-64k", "qcow2 -o lazy_refcounts=on", ChangedAndPacked),
    (
        "v3-2m",
        "qcow2 -o cluster_size=2M,refcount_bits=64",
        ChangedAndPacked,
    ),
    ("full", "qcow2 -o preallocation=metadata", Changed),
    (
        "parts-16k",
        "qcow2 -o extended_l2=on,cluster_size=16k",
        Changed,
    ),
    (
        "parts-128k",
        "qcow2 -o extended_l2=on,cluster_size=128k",
        ChangedAndPacked,
    ),
    ("zlib-512", "qcow2 -c -o cluster_size=512", Changed),
    ("zlib-64k", "qcow2 -c", Unchanged),
    ("zlib-2m", "qcow2 -c -o cluster_size=2M", Changed),
    (
        "zstd-4k",
        "qcow2 -c -o compression_type=zstd,cluster_size=4k",
        ChangedAndPacked,
    ),
    ("zstd-64k", "qcow2 -c -o compression_type=zstd", Changed),
    (
        "zstd-2m",
        "qcow2 -c -o compression_type=zstd,cluster_size=2M",
        Unchanged,
    ),
    ("vmdk", "vmdk -o subformat=monolithicSparse", Changed),
    ("stream", "vmdk -o subformat=streamOptimized", Unchanged),
    ("footer", "vmdk -o subformat=streamOptimized", Unchanged),
    ("split", "vmdk -o subformat=twoGbMaxExtentSparse", Changed),
    ("flat", "vmdk -o subformat=monolithicFlat", Changed),
];

fn tool(folder: &Path, program: &str, words: &[&str]) {
    let output = Command::new(program)
        .args(words)
        .current_dir(folder)
        .env("LC_ALL", "C.UTF-8")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{program} {words:?}\n{text}{error}"
    );
}

/// A plain disk with a table and something in its partitions, written as `TABLE.raw`.
fn plain(folder: &Path, table: &str, random: &mut Random) -> PathBuf {
    let path = folder.join(format!("{table}.raw"));
    let file = fs::File::create_new(&path).unwrap();
    let sectors = random.between(18_000, 24_000);
    let tail = if table == "odd" { 100 } else { 0 };
    file.set_len(sectors * 512 + tail).unwrap();
    if table == "bare" {
        let name = path.file_name().unwrap().to_str().unwrap();
        tool(folder, "mkfs.ext4", &["-q", "-F", "-b", "1024", name]);
    } else {
        partition::write(file.file(), &new_table(table, sectors * 512)).unwrap();
        // The table is on whole sectors.
        file.set_len(sectors * 512 + tail).unwrap();
    }
    for _ in 0..random.between(4, 12) {
        let length = random.between(1, 90_000);
        let bytes = if random.chance(50) {
            random.bytes(usize::try_from(length).unwrap())
        } else {
            b"something that packs well. ".repeat(usize::try_from(length).unwrap() / 27 + 1)
        };
        let at = random.between(6 << 20, (8 << 20) - 1);
        file.file().write_all_at(&bytes, at).unwrap();
    }
    path
}

fn new_table(table: &str, size_bytes: u64) -> NewTable {
    let gpt = TableKind::Gpt {
        disk: Guid([1; 16]),
        from_backup: false,
        damage: None,
        is_hybrid: false,
    };
    let mbr = TableKind::Mbr {
        signature: 0xC0_0B_D1_5C,
    };
    let (kind, sector_size, places) = match table {
        "mbr63" => (
            mbr,
            SectorSize::B512,
            vec![(63 * 512, 65_024), (1 << 20, 8 << 20)],
        ),
        "logical" => (
            mbr,
            SectorSize::B512,
            vec![(1 << 20, 1 << 20), (3 << 20, 5 << 20)],
        ),
        "gpt4096" => (
            gpt,
            SectorSize::B4096,
            vec![(1 << 20, 3 << 20), (5 << 20, 3 << 20)],
        ),
        _ => (
            gpt,
            SectorSize::B512,
            vec![(40 * 512, 512), (1 << 20, (7 << 20) + 512)],
        ),
    };
    let is_gpt = matches!(kind, TableKind::Gpt { .. });
    let partitions = places
        .into_iter()
        .zip(1_u8..)
        .map(|(place, id)| NewPartition {
            kind: match is_gpt {
                true => PartitionType::Gpt(Guid::LINUX),
                false => PartitionType::Mbr(0x83),
            },
            name: String::new(),
            uuid: Guid(if is_gpt { [id + 1; 16] } else { [0; 16] }),
            first_byte: Some(place.0),
            length_bytes: place.1,
            attributes: 0,
            is_bootable: false,
            is_logical: table == "logical" && id == 2,
        });
    NewTable {
        kind,
        sector_size,
        size_bytes: Some(size_bytes - size_bytes % sector_size.bytes()),
        partitions: partitions.collect(),
    }
}

/// Has qemu-io write, clear and forget here and there in the partitions.
fn change(folder: &Path, disk: &str, format: &str, then: Then, random: &mut Random) {
    if then == ChangedAndPacked {
        // Where there is something already, qemu-io refuses to write compressed clusters.
        let packed = "qemu-io -c 'write -c -P 65 2M 2M' -c 'write -c -P 66 4M 2M' \"$0\" || true";
        tool(folder, "bash", &["-euc", packed, disk]);
    }
    let mut words = vec!["-f".to_owned(), format.to_owned()];
    for _ in 0..random.between(3, 10) {
        let at = random.between(3 << 11, 15 << 10) * 512;
        let length = random.between(1, 300) * 512;
        let pattern = random.between(0, 3);
        let command = match random.below(3) {
            0 => format!("write -z {at} {length}"),
            1 => format!("discard {at} {length}"),
            _ => format!("write -P {pattern} {at} {length}"),
        };
        words.extend(["-c".to_owned(), command]);
    }
    words.push(disk.to_owned());
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    tool(folder, "qemu-io", &words);
}

fn open(path: &Path, chain: &mut dyn Chain) -> Arc<Disk> {
    let file = fs::File::open(path).unwrap().into_file();
    Arc::new(Disk::open(file, chain).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
}

/// Compares each partition, or the whole disk where there are none, with qemu-img's plain bytes.
fn compare(name: &str, disk: &Arc<Disk>, oracle: &Path) {
    let oracle = fs::File::open(oracle).unwrap();
    let size = disk.size_bytes();
    assert_eq!(
        oracle.metadata().unwrap().len(),
        size.next_multiple_of(512),
        "{name}"
    );
    let table = partition::read(&**disk, size, &ReadOptions::default()).unwrap();
    let places = table.partitions.iter().filter(|part| !part.is_extended);
    let mut places: Vec<_> = places
        .map(|part| (part.first_byte, part.length_bytes))
        .collect();
    if places.is_empty() {
        places.push((0, size));
    }
    for (offset, length) in places {
        let view = View::new(disk.clone(), offset, length).unwrap();
        let mut expected = vec![0; usize::try_from(length).unwrap()];
        oracle.file().read_exact_at(&mut expected, offset).unwrap();
        let mut found = vec![1; expected.len()];
        read_exact_at(&view, &mut found, 0).unwrap();
        assert!(found == expected, "{name}: bytes from {offset} on differ");
        let mut end = 0;
        for extent in view.extents() {
            let extent = extent.unwrap();
            assert_eq!(extent.offset, end, "{name}");
            end = extent.end();
            if extent.kind == coop_image::disk::ExtentKind::Hole {
                let range = extent.offset.try_into().unwrap()..end.try_into().unwrap();
                assert!(expected[range].iter().all(|byte| *byte == 0), "{name}");
            }
        }
        assert_eq!(end, length, "{name}");
    }
}

/// Writes a disk as qcow2, which qemu-img has to find whole and equal.
fn write_again(folder: &Path, disk: &Disk, random: &mut Random) {
    let output = fs::File::create_new(folder.join("again")).unwrap();
    let cluster_bytes = 1 << random.between(9, 21);
    write_qcow2(disk, output.file(), &Qcow2Options { cluster_bytes }).unwrap();
    tool(folder, "qemu-img", &["check", "-q", "-f", "qcow2", "again"]);
    let compare = ["compare", "-q", "-f", "qcow2", "-F", "raw", "again", "raw"];
    tool(folder, "qemu-img", &compare);
}

/// Moves the directory's place from the header of a VMDK to a footer, where VMware has it.
fn to_footer(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let footer = bytes[..512].to_vec();
    bytes[56..64].fill(0xFF);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    let mut marker = [0; 512];
    marker[0] = 1;
    marker[12] = 3;
    bytes.extend(marker);
    bytes.extend(footer);
    bytes.extend([0; 512]);
    fs::write(path, bytes).unwrap();
}

fn one_disk(folder: &Path, number: usize) {
    let table = TABLES[number % TABLES.len()];
    let (format, words, then) = FORMATS[number / TABLES.len()];
    let name = format!("{table}-{format}");
    let mut random = Random::new(number as u64);
    let plain = folder.join(format!("{table}.raw"));
    let folder = &folder.join(&name);
    fs::create_dir(folder).unwrap();
    let mut words: Vec<&str> = words.split(' ').collect();
    let kind = words[0];
    words.splice(0..0, ["convert", "-f", "raw", "-O"]);
    words.extend([plain.to_str().unwrap(), "disk"]);
    tool(folder, "qemu-img", &words);
    let path = folder.join("disk");
    if format == "footer" {
        to_footer(&path);
    }
    if then != Unchanged {
        change(folder, "disk", kind, then, &mut random);
    }
    tool(
        folder,
        "qemu-img",
        &["convert", "-f", kind, "-O", "raw", "disk", "raw"],
    );
    let disk = match format {
        "split" | "flat" => open(&path, &mut Folder::new(folder, &path).unwrap()),
        _ => open(&path, &mut NoChain),
    };
    assert_eq!(disk.format().name(), kind, "{name}");
    compare(&name, &disk, &folder.join("raw"));
    if number.is_multiple_of(5) {
        write_again(folder, &disk, &mut random);
    }
    fs::remove_dir_all(folder).unwrap();
}

fn has_tools() -> bool {
    ["qemu-img", "qemu-io", "mkfs.ext4"].into_iter().all(oracle)
}

#[test]
fn partitions_have_the_bytes_that_qemu_reads() {
    if !has_tools() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut random = Random::new(6);
    for table in TABLES {
        plain(folder.path(), table, &mut random);
    }
    let next = AtomicUsize::new(0);
    let count = TABLES.len() * FORMATS.len();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let number = next.fetch_add(1, Ordering::Relaxed)
                    && number < count
                {
                    one_disk(folder.path(), number);
                }
            });
        }
    });
}

#[test]
fn what_a_disk_names_is_read_from_the_folder_that_is_allowed_only() {
    if !has_tools() {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let folder = &place.path().join("disks");
    fs::create_dir_all(folder.join("base")).unwrap();
    let mut random = Random::new(7);
    plain(folder, "gpt512", &mut random);
    let make = "
        qemu-img convert -f raw -O qcow2 gpt512.raw base/middle.qcow2
        qemu-img create -q -f qcow2 -b middle.qcow2 -F qcow2 base/upper.qcow2 20M
        qemu-img create -q -f qcow2 -b base/upper.qcow2 -F qcow2 -o cluster_size=4k top.qcow2
        qemu-io -c 'write -P 7 3M 70k' -c 'write -z 7000k 300k' base/upper.qcow2
        qemu-io -c 'write -P 8 3100k 6k' -c 'write -P 9 18M 1M' top.qcow2
        qemu-img convert -O raw top.qcow2 top-raw
        qemu-img create -q -f qcow2 -o data_file=data.raw,cluster_size=64k data.qcow2 20M
        qemu-img convert -n -f raw -O qcow2 gpt512.raw data.qcow2
        qemu-img convert -O raw data.qcow2 data-raw
    ";
    tool(folder, "bash", &["-euc", make]);
    for (name, role) in [
        ("top", "backing file 'base/upper.qcow2'"),
        ("data", "data file 'data.raw'"),
    ] {
        let path = folder.join(format!("{name}.qcow2"));
        let file = fs::File::open(&path).unwrap().into_file();
        let error = Disk::open(file, &mut NoChain).unwrap_err().to_string();
        assert!(
            error.contains(role) && error.contains("not read unless"),
            "{error}"
        );
        let disk = open(&path, &mut Folder::new(folder, &path).unwrap());
        compare(name, &disk, &folder.join(format!("{name}-raw")));
        let other = &place.path().join("other");
        let _ = fs::create_dir(other);
        fs::copy(&path, other.join("disk")).unwrap();
        let file = fs::File::open(&path).unwrap().into_file();
        let mut chain = Folder::new(other, &other.join("disk")).unwrap();
        assert!(Disk::open(file, &mut chain).is_err());
    }
    let secret = place.path().join("secret");
    fs::write(&secret, "secret").unwrap();
    let rebase = format!(
        "qemu-img rebase -u -f qcow2 -b {} -F raw top.qcow2",
        secret.display()
    );
    tool(folder, "bash", &["-euc", &rebase]);
    let path = folder.join("top.qcow2");
    let file = fs::File::open(&path).unwrap().into_file();
    let mut chain = Folder::new(folder, &path).unwrap();
    let error = Disk::open(file, &mut chain).unwrap_err().to_string();
    assert!(error.contains("outside of the folder"), "{error}");
}

#[test]
fn what_stays_behind_is_named() {
    if !has_tools() {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let make = "
        qemu-img create -q -f qcow2 disk.qcow2 10M
        qemu-io -c 'write -P 1 0 1M' disk.qcow2
        qemu-img snapshot -c 'before the upgrade' disk.qcow2
        qemu-io -c 'write -P 2 512k 1M' disk.qcow2
        qemu-img snapshot -c second disk.qcow2
        qemu-img bitmap --add disk.qcow2 changed
        qemu-io -c 'write -P 3 1M 1M' disk.qcow2
        qemu-img convert -O raw disk.qcow2 raw
    ";
    tool(place.path(), "bash", &["-euc", make]);
    let disk = open(&place.path().join("disk.qcow2"), &mut NoChain);
    let snapshot = |name: &str| LeftBehind::Snapshot {
        name: name.to_owned(),
        has_machine_state: false,
    };
    assert_eq!(
        disk.left_behind(),
        [
            snapshot("before the upgrade"),
            snapshot("second"),
            LeftBehind::Bitmaps { count: 1 }
        ]
    );
    let mut found = vec![0; 10 << 20];
    assert_eq!(disk.read_at(&mut found, 0).unwrap(), found.len());
    assert!(found == fs::read(place.path().join("raw")).unwrap());
}

/// Writes numbers of a format at their places into a file that is as long as the last of them says.
fn hostile(path: &Path, length: u64, places: &[(u64, &[u8])]) {
    let file = fs::File::create_new(path).unwrap();
    file.set_len(length).unwrap();
    for (at, bytes) in places {
        file.file().write_all_at(bytes, *at).unwrap();
    }
}

/// What `coop convert` may have in memory, in KiB.
const RESIDENT_KIB_MAX: u64 = 64 << 10;

#[test]
fn hostile_disks_take_little_memory() {
    if !["time", "qemu-img"].into_iter().all(oracle) {
        return;
    }
    let folder = temp_folder();
    let path = |name: &str| folder.path().join(name);
    let four = |number: u32| number.to_be_bytes();
    let eight = |number: u64| number.to_be_bytes();
    let head = |version: u32, bits: u32| {
        [b"QFI\xfb".as_slice(), &four(version), &[0; 12], &four(bits)].concat()
    };
    // The largest first level, all of it empty; and one that names 64 Ki tables of zeroes.
    let sizes = |l1: u32| {
        [
            eight(u64::from(l1) << 15).as_slice(),
            &four(0),
            &four(l1),
            &eight(512),
        ]
        .concat()
    };
    let full = (4_u32 << 20, 65_536_u32);
    hostile(
        &path("empty"),
        512 + (32 << 20),
        &[(0, &head(2, 9)), (24, &sizes(full.0))],
    );
    let first = 512 + u64::from(full.1) * 8;
    let tables: Vec<u8> = (0..u64::from(full.1))
        .flat_map(|index| eight(1 << 63 | (first + index * 512)))
        .collect();
    hostile(
        &path("tables"),
        first + u64::from(full.1) * 512,
        &[(0, &head(2, 9)), (24, &sizes(full.1)), (512, &tables)],
    );
    // More than there may be.
    hostile(
        &path("huge"),
        1 << 40,
        &[(0, &head(2, 9)), (24, &sizes(u32::MAX))],
    );
    // Clusters of 2 MiB that are compressed, so that each has a codec's state and two buffers.
    plain(folder.path(), "gpt512", &mut Random::new(8));
    let pack = "qemu-img convert -c -f raw -O qcow2 -o cluster_size=2M,compression_type=zstd \
        gpt512.raw packed";
    tool(folder.path(), "bash", &["-euc", pack]);
    let no_table = "no partition table";
    let cases = [
        ("empty", 1, no_table),
        ("tables", 1, no_table),
        ("huge", 1, "4294967295 entries"),
        ("packed", 0, ""),
    ];
    for (name, code, text) in cases {
        let mut command = unprivileged("time");
        command
            .args(["-f", "resident %M", "--quiet"])
            .arg(program())
            .args([
                "convert",
                "--no-sync",
                "--progress",
                "none",
                "--threads",
                "4",
            ])
            .args([path(name), path("out.raw")]);
        let done = run(&mut command, RUN_DEADLINE).expect(code);
        let _ = fs::remove_file(path("out.raw"));
        let said = done.stderr;
        let resident = said.lines().find_map(|line| line.strip_prefix("resident "));
        let resident: u64 = resident.unwrap().parse().unwrap();
        assert!(resident < RESIDENT_KIB_MAX, "{name}: {said}");
        assert!(said.contains(text), "{name}: {said}");
    }
}
