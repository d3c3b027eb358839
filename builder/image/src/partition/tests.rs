//! Against sfdisk, sgdisk, the kernel, and damaged disks.

use std::fs::{self, File};
use std::path::Path;

use super::gpt::crc32;
use super::*;
use crate::testing::{have, is_root, sh, skip};

const MIB: u64 = 1 << 20;

fn read_path(path: &Path, options: &ReadOptions) -> Result<Table, PartitionError> {
    let file = File::open(path).unwrap();
    let size = file.metadata().unwrap().len();
    read(&file, size, options)
}

fn read_bytes(bytes: &[u8], options: &ReadOptions) -> Result<Table, PartitionError> {
    let size = u64::try_from(bytes.len()).unwrap();
    read(&bytes.to_vec(), size, options)
}

fn guid(number: u8) -> Guid {
    Guid([number; 16])
}

fn gpt_partition(number: u8, kind: Guid, length_bytes: u64) -> NewPartition {
    NewPartition {
        kind: PartitionType::Gpt(kind),
        name: format!("part-{number}-ä"),
        uuid: guid(number),
        first_byte: None,
        length_bytes,
        attributes: 0,
        is_bootable: false,
        is_logical: false,
    }
}

fn mbr_partition(kind: u8, length_bytes: u64, is_logical: bool) -> NewPartition {
    NewPartition {
        kind: PartitionType::Mbr(kind),
        name: String::new(),
        uuid: Guid::default(),
        first_byte: None,
        length_bytes,
        attributes: 0,
        is_bootable: false,
        is_logical,
    }
}

fn gpt_of(sector_size: SectorSize, partitions: Vec<NewPartition>) -> NewTable {
    let kind = TableKind::Gpt {
        disk: guid(0xDD),
        from_backup: false,
        damage: None,
        is_hybrid: false,
    };
    NewTable {
        kind,
        sector_size,
        size_bytes: None,
        partitions,
    }
}

fn mbr_of(sector_size: SectorSize, partitions: Vec<NewPartition>) -> NewTable {
    NewTable {
        kind: TableKind::Mbr {
            signature: 0xA1B2_C3D4,
        },
        ..gpt_of(sector_size, partitions)
    }
}

fn sample_gpt(sector_size: SectorSize) -> NewTable {
    let mut bios = gpt_partition(1, Guid::BIOS_BOOT, MIB);
    bios.is_bootable = true;
    let mut last = gpt_partition(3, Guid::LINUX_ROOT_AMD64, 3 * MIB + 8192);
    last.attributes = 1 << 60;
    let partitions = vec![bios, gpt_partition(2, Guid::EFI_SYSTEM, 2 * MIB), last];
    gpt_of(sector_size, partitions)
}

fn sample_mbr(sector_size: SectorSize) -> NewTable {
    let mut boot = mbr_partition(0x83, MIB, false);
    boot.is_bootable = true;
    let partitions = vec![
        boot,
        mbr_partition(0x0C, 2 * MIB, false),
        mbr_partition(0x83, 4096, true),
        mbr_partition(0x82, MIB, true),
        mbr_partition(0x8E, 2 * MIB, true),
    ];
    mbr_of(sector_size, partitions)
}

/// Runs a script with the disk `$dev`: the image, or a loop device where its sectors are large.
/// `None` where there is none.
fn with_disk(folder: &Path, size: SectorSize, script: &str) -> Option<String> {
    let sector = size.bytes();
    let script = if size == SectorSize::B512 {
        format!("dev=a.img\n{script}")
    } else if is_root() && have("losetup") {
        format!(
            "dev=$(losetup -b {sector} --show -f a.img 2>/dev/null) || {{ echo none; exit 0; }}
             trap 'losetup -d $dev' EXIT
             {script}"
        )
    } else {
        return None;
    };
    let said = String::from_utf8(sh(folder, &script)).unwrap();
    if said == "none\n" {
        skip("there is no loop device");
        return None;
    }
    Some(said)
}

/// What sfdisk says, one line for each partition.
fn dump(said: &str) -> Vec<String> {
    let lines = said.lines().filter(|line| line.contains(" : "));
    let lines = lines.filter_map(|line| {
        let line = line.strip_prefix("a.img").or_else(|| {
            let name = line.strip_prefix("/dev/loop")?;
            Some(name.trim_start_matches(|letter: char| letter.is_ascii_digit()))
        })?;
        Some(line.strip_prefix('p').unwrap_or(line))
    });
    lines
        .map(|line| {
            let (number, fields) = line.split_once(" : ").unwrap();
            let mut fields: Vec<String> = fields
                .split(", ")
                .map(|field| field.replace(' ', "").replace("\\xc3\\xa4", "ä"))
                .filter(|field| !field.starts_with("attrs="))
                .collect();
            fields.sort();
            format!("{number}: {}", fields.join(" ").to_lowercase())
        })
        .collect()
}

/// The same of a table that we have read.
fn dump_of(table: &Table) -> Vec<String> {
    let sector = table.sector_size.bytes();
    let lines = table.partitions.iter().map(|partition| {
        let mut fields = vec![
            format!("start={}", partition.first_byte / sector),
            format!("size={}", partition.length_bytes / sector),
        ];
        match partition.kind {
            PartitionType::Gpt(kind) => {
                fields.push(format!("type={kind}"));
                fields.push(format!("uuid={}", partition.uuid));
                if !partition.name.is_empty() {
                    fields.push(format!("name=\"{}\"", partition.name.replace(' ', "")));
                }
            }
            PartitionType::Mbr(byte) => {
                fields.push(format!("type={byte:x}"));
                if partition.is_bootable {
                    fields.push("bootable".into());
                }
            }
        }
        fields.sort();
        format!("{}: {}", partition.number, fields.join(" ").to_lowercase())
    });
    lines.collect()
}

fn with_size(size: SectorSize) -> ReadOptions {
    ReadOptions {
        sector_size: Some(size),
        use_backup: false,
    }
}

#[test]
fn what_is_written_reads_back_and_pleases_other_tools() {
    let temp = tempfile::tempdir().unwrap();
    for size in SectorSize::ALL {
        for new in [sample_gpt(size), sample_mbr(size), gpt_of(size, vec![])] {
            let path = temp.path().join("a.img");
            let file = File::options()
                .read(true)
                .write(true)
                .create(true)
                .truncate(true)
                .open(&path)
                .unwrap();
            let table = write(&file, &new).unwrap();
            assert_eq!(read_path(&path, &with_size(size)).unwrap(), table);
            let first = fs::read(&path).unwrap();
            write(&file, &new).unwrap();
            assert_eq!(fs::read(&path).unwrap(), first);
            if have("sfdisk")
                && !table.partitions.is_empty()
                && let Some(said) = with_disk(temp.path(), size, "sfdisk -d $dev; sfdisk -V $dev")
            {
                assert_eq!(dump(&said), dump_of(&table));
                assert!(said.contains("No errors detected"), "{said}");
            }
            let is_gpt = matches!(table.kind, TableKind::Gpt { .. });
            if is_gpt {
                let probed = read_path(&path, &ReadOptions::default()).unwrap();
                assert_eq!(probed.sector_size, size);
                other_reader_agrees(&path, &table);
            }
            if is_gpt && size == SectorSize::B512 && have("sgdisk") {
                let said = String::from_utf8(sh(temp.path(), "sgdisk -v a.img; sgdisk -p a.img"));
                let said = said.unwrap();
                assert!(said.contains("No problems found"), "{said}");
            }
        }
    }
}

/// The `gpt` crate.
fn other_reader_agrees(path: &Path, table: &Table) {
    use ::gpt::disk::LogicalBlockSize;
    let size = match table.sector_size {
        SectorSize::B512 => LogicalBlockSize::Lb512,
        SectorSize::B4096 => LogicalBlockSize::Lb4096,
    };
    let config = ::gpt::GptConfig::new()
        .logical_block_size(size)
        .only_valid_headers(true);
    let disk = config.open(path).unwrap();
    let found: Vec<(u32, String, u64, u64)> = disk
        .partitions()
        .iter()
        .filter(|(_, part)| part.is_used())
        .map(|(number, part)| {
            let start = part.bytes_start(size).unwrap();
            (
                *number,
                part.name.clone(),
                start,
                part.bytes_len(size).unwrap(),
            )
        })
        .collect();
    let expected: Vec<(u32, String, u64, u64)> = table
        .partitions
        .iter()
        .map(|part| {
            (
                part.number,
                part.name.clone(),
                part.first_byte,
                part.length_bytes,
            )
        })
        .collect();
    assert_eq!(found, expected);
}

/// Layouts for sfdisk: size of the disk and script.
const LAYOUTS: [(&str, &str); 14] = [
    (
        "64M",
        "label: gpt\nsize=1MiB, name=\"a b\"\nsize=2MiB,type=U\n-",
    ),
    (
        "64M",
        "label: gpt\ntable-length: 4\nsize=1MiB\nsize=1MiB\nsize=1MiB\n-",
    ),
    (
        "64M",
        "label: gpt\ntable-length: 512\nstart=10MiB,size=1MiB\nstart=2MiB,size=1MiB",
    ),
    ("5T", "label: gpt\nsize=3TiB\n-"),
    ("64M", "label: dos\nsize=1MiB,bootable\nsize=1MiB,type=c\n-"),
    (
        "64M",
        "label: dos\nsize=1MiB\nsize=40MiB,type=5\nsize=1MiB\nsize=2MiB\nsize=3MiB\nsize=1MiB",
    ),
    (
        "64M",
        "label: dos\nsize=1MiB\nsize=40MiB,type=f\nsize=1MiB\nsize=2MiB,type=82\nsize=3MiB",
    ),
    (
        "64M",
        "label: dos\nstart=63,size=1000\nstart=1100,size=12000,type=85\nstart=1200,size=63\n-",
    ),
    (
        "64M",
        "label: dos\n1: start=40MiB,size=1MiB\n4: start=1MiB,size=1MiB",
    ),
    (
        "64M",
        "label: dos\n1: start=2MiB,type=5\n5: size=4MiB\n6: size=1MiB",
    ),
    ("64M", "label: dos\nsize=10MiB,type=5\nsize=10MiB"),
    ("1M", "label: dos\nstart=1,size=2"),
    ("10M", "label: gpt\nfirst-lba: 40\nstart=40,size=1000"),
    ("64M", "label: dos\n"),
];

#[test]
fn tables_of_sfdisk_read_as_it_shows_them() {
    if !have("sfdisk") {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("a.img");
    for (size, layout) in LAYOUTS {
        for sector in SectorSize::ALL {
            sh(
                temp.path(),
                &format!("rm -f a.img; truncate -s {size} a.img"),
            );
            let script = format!(
                "sfdisk -q --no-reread --no-tell-kernel --wipe never $dev <<'END' >/dev/null\n{layout}\nEND\nsfdisk -d $dev"
            );
            let Some(said) = with_disk(temp.path(), sector, &script) else {
                continue;
            };
            let table = read_path(&path, &with_size(sector))
                .unwrap_or_else(|error| panic!("{layout}: {error}"));
            assert_eq!(dump_of(&table), dump(&said), "{layout}");
            if size != "5T" {
                kernel_agrees(&path, &table);
            }
        }
    }
}

/// Where loop devices can be had, the kernel finds the same partitions.
fn kernel_agrees(path: &Path, table: &Table) {
    if !is_root() || !have("losetup") {
        return;
    }
    let sector = table.sector_size.bytes();
    let script = format!(
        "dev=$(losetup -P -r -b {sector} --show -f a.img 2>/dev/null) || {{ echo none; exit 0; }}
         sleep 0.05
         cd /sys/block/${{dev#/dev/}}
         for p in $(ls -d loop*p* 2>/dev/null | sort -V)
         do echo \"$(cat $p/partition) $(cat $p/start) $(cat $p/size)\"
         done
         losetup -d $dev"
    );
    let said = String::from_utf8(sh(path.parent().unwrap(), &script)).unwrap();
    if said == "none\n" || said.is_empty() && !table.partitions.is_empty() {
        skip("there is no loop device, or the kernel reads no partition tables");
        return;
    }
    // The kernel counts in 512 bytes, and shows one KiB of an extended partition.
    let expected: String = table
        .partitions
        .iter()
        .map(|part| {
            let length = if part.is_extended {
                part.length_bytes.min(sector.max(1024))
            } else {
                part.length_bytes
            };
            format!(
                "{} {} {}\n",
                part.number,
                part.first_byte / 512,
                length / 512
            )
        })
        .collect();
    assert_eq!(said, expected);
}

fn bytes_of(new: &NewTable) -> Vec<u8> {
    use std::io::{Read, Seek};
    let mut file = tempfile::tempfile().unwrap();
    write(&file, new).unwrap();
    let mut bytes = Vec::new();
    file.rewind().unwrap();
    file.read_to_end(&mut bytes).unwrap();
    bytes
}

#[test]
fn a_damaged_gpt_is_read_from_its_backup_only_on_request() {
    for size in SectorSize::ALL {
        let good = bytes_of(&sample_gpt(size));
        let sector = usize::try_from(size.bytes()).unwrap();
        let intact = read_bytes(&good, &ReadOptions::default()).unwrap();
        let use_backup = ReadOptions {
            use_backup: true,
            ..ReadOptions::default()
        };
        // The signature, a number, the checksum, and an entry.
        for at in [sector, sector + 45, sector + 16, 2 * sector + 33] {
            let mut bytes = good.clone();
            bytes[at] ^= 1;
            let error = read_bytes(&bytes, &ReadOptions::default()).unwrap_err();
            assert!(
                matches!(error, PartitionError::PrimaryDamaged { .. }),
                "{error}"
            );
            assert!(error.to_string().contains("only on request"));
            let table = read_bytes(&bytes, &use_backup).unwrap();
            assert_eq!(table.partitions, intact.partitions);
            assert!(matches!(
                table.kind,
                TableKind::Gpt {
                    from_backup: true,
                    damage: Some(_),
                    ..
                }
            ));
            let last = bytes.len() - sector;
            bytes[last + 60] ^= 1;
            let error = read_bytes(&bytes, &use_backup).unwrap_err();
            assert!(
                matches!(error, PartitionError::GptDamaged { .. }),
                "{error}"
            );
        }
        let cut = &good[..good.len() - sector];
        let table = read_bytes(cut, &ReadOptions::default()).unwrap();
        let TableKind::Gpt { damage, .. } = table.kind else {
            panic!("no GPT");
        };
        assert!(damage.unwrap().contains("behind the disk's end"));
        let mut bytes = good.clone();
        let last = bytes.len() - sector;
        bytes[last] ^= 1;
        let table = read_bytes(&bytes, &ReadOptions::default()).unwrap();
        let TableKind::Gpt { damage, .. } = table.kind else {
            panic!("no GPT");
        };
        assert!(damage.unwrap().contains("has no header"));
    }
}

/// Changes the first header and entries, and makes their checksums right again.
fn forged(good: &[u8], change: impl FnOnce(&mut [u8])) -> Result<Table, PartitionError> {
    let mut bytes = good.to_vec();
    change(&mut bytes);
    let count = u32_at(&bytes, 512 + 80).min(1 << 12) * u32_at(&bytes, 512 + 84).min(1 << 12);
    let end = (1024 + usize::try_from(count).unwrap()).min(bytes.len());
    let crc = crc32(&bytes[1024..end]);
    bytes[512 + 88..][..4].copy_from_slice(&crc.to_le_bytes());
    bytes[512 + 16..][..4].fill(0);
    let crc = crc32(&bytes[512..512 + 92]);
    bytes[512 + 16..][..4].copy_from_slice(&crc.to_le_bytes());
    read_bytes(&bytes, &ReadOptions::default())
}

#[test]
fn hostile_gpts_are_refused_by_name() {
    let good = bytes_of(&sample_gpt(SectorSize::B512));
    let put = |at: usize, value: u64| {
        let bytes = value.to_le_bytes();
        let change = move |disk: &mut [u8]| disk[at..at + 8].copy_from_slice(&bytes);
        forged(&good, change).map_or_else(|error| error.to_string(), |_| "fine".into())
    };
    let end = u64::try_from(good.len() / 512).unwrap();
    let entry = 1024;
    for (at, value, expected) in [
        (512 + 24, 2, "elsewhere"),
        (512 + 40, end, "usable"),
        (512 + 48, end, "usable"),
        (512 + 48, u64::MAX, "usable"),
        (512 + 72, 1, "entries lie outside"),
        (512 + 72, u64::MAX, "entries lie outside"),
        (512 + 72, 2048, "entries lie outside"),
        (512 + 80, 0x80_0000_0000, "number of its entries"),
        (512 + 80, 0x80_FFFF_FFFF, "number of its entries"),
        (512 + 80, 0x81_0000_0080, "size of its entries"),
        (512 + 80, 0x40_0000_0080, "size of its entries"),
        (512 + 80, 0x8000_0000_0000_0001, "size of its entries"),
        (512 + 8, 0x5C_0002_0000, "revision"),
        (entry + 32, 4096 + 1, "partition 1"),
        (entry + 40, u64::MAX, "outside of the disk"),
        (entry + 32, 3, "outside of the sectors"),
        (entry + 40, 4096, "partitions 1 and 2 overlap"),
    ] {
        let said = put(at, value);
        assert!(said.contains(expected), "{at} {value}: {said}");
    }
    // A larger disk than the table was made for is fine, and so are large entries.
    let mut grown = good.clone();
    grown.resize(good.len() + 5000, 0);
    assert!(read_bytes(&grown, &ReadOptions::default()).is_ok());
}

#[test]
fn entries_of_256_bytes_and_hybrid_tables_are_read() {
    let good = bytes_of(&sample_gpt(SectorSize::B512));
    let table = forged(&good, |bytes| {
        bytes[512 + 80] = 64;
        bytes[512 + 84..][..2].copy_from_slice(&256_u16.to_le_bytes());
        let second = bytes[1024 + 128..][..128].to_vec();
        bytes[1024 + 128..][..256].fill(0);
        bytes[1024 + 256..][..128].copy_from_slice(&second);
        bytes[1024 + 384..][..128].fill(0);
    })
    .unwrap();
    let numbers: Vec<u32> = table.partitions.iter().map(|part| part.number).collect();
    assert_eq!(numbers, [1, 2]);
    let TableKind::Gpt { damage, .. } = table.kind else {
        panic!("no GPT");
    };
    assert!(damage.unwrap().contains("differs"));
    let mut hybrid = good.clone();
    hybrid[446 + 16 + 4] = 0x83;
    hybrid[446 + 16 + 12] = 1;
    let table = read_bytes(&hybrid, &ReadOptions::default()).unwrap();
    assert!(matches!(
        table.kind,
        TableKind::Gpt {
            is_hybrid: true,
            ..
        }
    ));
    let mut unprotected = good.clone();
    for fill in [446..510, 510..512] {
        unprotected[fill].fill(0);
        let error = read_bytes(&unprotected, &ReadOptions::default()).unwrap_err();
        assert!(matches!(error, PartitionError::Unprotected), "{error}");
    }
}

#[test]
fn hostile_chains_are_refused_by_name() {
    let good = bytes_of(&sample_mbr(SectorSize::B512));
    let table = read_bytes(&good, &ReadOptions::default()).unwrap();
    let extended = table
        .partitions
        .iter()
        .find(|part| part.is_extended)
        .unwrap();
    let first = usize::try_from(extended.first_byte).unwrap();
    let put = |at: usize, value: &[u8]| {
        let mut bytes = good.clone();
        bytes[at..at + value.len()].copy_from_slice(value);
        let read = read_bytes(&bytes, &with_size(SectorSize::B512));
        read.map_or_else(|error| error.to_string(), |_| "fine".into())
    };
    // Types, addresses and lengths: of the first record of the chain, and of the table.
    let (kind, data, link) = (first + 446 + 4, first + 446 + 8, first + 446 + 16 + 8);
    let end = u32::try_from(extended.length_bytes / 512).unwrap();
    let zero = [0; 4];
    let all = [0xFF; 4];
    for (at, value, expected) in [
        (link, &zero[..], "circle"),
        (
            link,
            &end.to_le_bytes(),
            "outside of the extended partition",
        ),
        (link, &all, "outside of the extended partition"),
        (link, &[1], "no boot record"),
        (data, &zero, "begins with it"),
        (data, &all, "partition 5"),
        (data + 4, &all, "partition 5"),
        (data + 4, &[0, 0x10], "lies in a logical partition"),
        (kind, &[0x05], "more than one continuation"),
        (link - 4, &[0x83], "more than one partition"),
        (446 + 8, &zero, "begins with the table"),
        (446 + 12, &all, "outside of the disk"),
        (446 + 12, &[0, 0x10], "partitions 1 and 2 overlap"),
        (446 + 4, &[0x05], "more than one extended"),
    ] {
        let said = put(at, value);
        assert!(said.contains(expected), "{at} {value:x?}: {said}");
    }
    let many = vec![mbr_partition(0x83, 512, true); LOGICAL_MAX + 1];
    let error = write(
        &tempfile::tempfile().unwrap(),
        &mbr_of(SectorSize::B512, many),
    );
    assert!(matches!(error, Err(PartitionError::TooManyLogical)));
}

#[test]
fn bare_file_systems_are_not_taken_for_tables() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("a.img");
    for (tool, script, expected) in [
        ("mkfs.fat", "mkfs.fat -C a.img 4000", FileSystem::Fat),
        ("mkfs.fat", "mkfs.fat -F 32 -C a.img 40000", FileSystem::Fat),
        (
            "mkfs.fat",
            "mkfs.fat -S 4096 -C a.img 40000",
            FileSystem::Fat,
        ),
        ("mke2fs", "mke2fs -q a.img 4M", FileSystem::Ext),
        (
            "mkswap",
            "truncate -s 1M a.img; mkswap -q a.img",
            FileSystem::Swap,
        ),
    ] {
        if !have(tool) {
            continue;
        }
        sh(temp.path(), &format!("rm -f a.img; {script}"));
        let table = read_path(&path, &ReadOptions::default()).unwrap();
        assert_eq!(table.kind, TableKind::Bare(expected), "{script}");
        if tool == "mke2fs" {
            // A boot loader's sector before ext4, and then a real table over its remains.
            let mut bytes = fs::read(&path).unwrap();
            bytes[..446].fill(0x90);
            bytes[510..512].copy_from_slice(&[0x55, 0xAA]);
            let read = read_bytes(&bytes, &ReadOptions::default()).unwrap();
            assert_eq!(read.kind, TableKind::Bare(FileSystem::Ext));
            bytes[446 + 4] = 0x83;
            bytes[446 + 9] = 8;
            bytes[446 + 12] = 1;
            let read = read_bytes(&bytes, &ReadOptions::default()).unwrap();
            assert!(matches!(read.kind, TableKind::Mbr { .. }));
        }
    }
    for size in [0, 1, 511, 512, 1 << 20] {
        let error = read_bytes(&vec![0; size], &ReadOptions::default()).unwrap_err();
        assert!(matches!(error, PartitionError::NoTable), "{error}");
    }
}

#[test]
fn large_sectors_of_an_mbr_are_found_by_what_is_in_the_partitions() {
    let mut new = sample_mbr(SectorSize::B4096);
    new.partitions.truncate(2);
    let mut bytes = bytes_of(&new);
    let table = read_bytes(&bytes, &with_size(SectorSize::B4096)).unwrap();
    let start = usize::try_from(table.partitions[0].first_byte).unwrap();
    bytes[start..start + 4].copy_from_slice(b"XFSB");
    assert_eq!(read_bytes(&bytes, &ReadOptions::default()).unwrap(), table);
    let found = volume(&bytes, table.partitions[0].first_byte, MIB).unwrap();
    assert_eq!(found.unwrap().file_system, FileSystem::Xfs);
}

#[test]
fn impossible_tables_are_not_written() {
    let one = |change: fn(&mut NewPartition)| {
        let mut partition = gpt_partition(1, Guid::LINUX, MIB);
        change(&mut partition);
        gpt_of(SectorSize::B512, vec![partition])
    };
    let sized = |size: u64, mut table: NewTable| {
        table.size_bytes = Some(size);
        table
    };
    let two = |first: u64| {
        let mut partition = gpt_partition(2, Guid::LINUX, MIB);
        partition.first_byte = Some(first);
        gpt_of(
            SectorSize::B512,
            vec![gpt_partition(1, Guid::LINUX, MIB), partition],
        )
    };
    let many = (0..8200).map(|_| gpt_partition(1, Guid::LINUX, MIB));
    let primary = |count| vec![mbr_partition(0x83, MIB, false); count];
    let mut logical = primary(4);
    logical.push(mbr_partition(0x83, MIB, true));
    let mut behind = vec![mbr_partition(0x83, MIB, true)];
    behind.extend(primary(1));
    for (table, expected) in [
        (one(|part| part.length_bytes = 0), "whole sectors"),
        (one(|part| part.length_bytes = 513), "whole sectors"),
        (one(|part| part.length_bytes = u64::MAX - 511), "too large"),
        (one(|part| part.first_byte = Some(1 << 63)), "too large"),
        (one(|part| part.name = "x".repeat(37)), "36"),
        (one(|part| part.uuid = Guid::default()), "identifier"),
        (
            one(|part| part.kind = PartitionType::Mbr(0x83)),
            "not a GPT's",
        ),
        (one(|part| part.is_logical = true), "logical"),
        (one(|part| part.first_byte = Some(512)), "outside"),
        (sized(2 * MIB, one(|_| {})), "outside"),
        (sized(8192, gpt_of(SectorSize::B512, vec![])), "too small"),
        (
            sized(100, gpt_of(SectorSize::B512, vec![])),
            "whole sectors",
        ),
        (two(MIB + 512), "overlap"),
        (gpt_of(SectorSize::B512, many.collect()), "too many"),
        (mbr_of(SectorSize::B512, primary(5)), "four primary"),
        (mbr_of(SectorSize::B512, logical), "four primary"),
        (mbr_of(SectorSize::B512, behind), "behind logical"),
        (
            mbr_of(SectorSize::B512, vec![mbr_partition(0x83, 3 << 40, false)]),
            "make it a GPT",
        ),
        (
            mbr_of(SectorSize::B512, vec![mbr_partition(0x05, MIB, false)]),
            "made by coop only",
        ),
    ] {
        let file = tempfile::tempfile().unwrap();
        let error = write(&file, &table).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn one_byte_mutations_never_panic() {
    for new in [sample_gpt(SectorSize::B512), sample_mbr(SectorSize::B512)] {
        let good = bytes_of(&new);
        let starts = (0..good.len()).filter(|at| good[at / 512 * 512..][..512] != [0; 512]);
        let mut bytes = good.clone();
        for at in starts {
            for value in [0, 1, 5, 0x7F, 0x80, 0xFF] {
                let former = std::mem::replace(&mut bytes[at], value);
                let size = u64::try_from(bytes.len()).unwrap();
                for use_backup in [false, true] {
                    let options = ReadOptions {
                        use_backup,
                        ..ReadOptions::default()
                    };
                    let _ = read(&bytes, size, &options);
                }
                bytes[at] = former;
            }
        }
    }
}

#[test]
fn identifiers_are_text_and_back() {
    let text = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b";
    assert_eq!(Guid::EFI_SYSTEM.to_string(), text);
    assert_eq!(text.to_uppercase().parse(), Ok(Guid::EFI_SYSTEM));
    for bad in [
        "",
        "c12a7328-f81f-11d2-ba4b-00a0c93ec93",
        &"é".repeat(18),
        &"-".repeat(36),
    ] {
        assert!(bad.parse::<Guid>().is_err());
    }
    assert_eq!(PartitionType::Gpt(Guid::LINUX_SWAP).name(), "Linux swap");
    assert_eq!(PartitionType::Mbr(0x83).to_string(), "0x83");
}
