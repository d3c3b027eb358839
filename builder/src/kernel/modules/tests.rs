//! depmod's files beside those of kmod's depmod, and damaged modules.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use coop_image::folder;
use coop_image::tree::{InodeId, Tree};
use fs_err as fs;

use super::index::tests::read as read_index;
use super::testing::{Ko, Random, tree_of};
use super::*;

/// The release that depmod is told; any would do.
const RELEASE: &str = "7.2.0";
/// What the kernel's own installation leaves beside the modules.
const LISTS: [&str; 3] = [
    "modules.order",
    "modules.builtin",
    "modules.builtin.modinfo",
];

/// kmod's major version, where depmod is installed.
fn depmod_version() -> Option<u32> {
    let version = depmod_command().arg("--version").output().ok();
    let version = version.and_then(|output| {
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.split_whitespace()
            .nth(2)?
            .split('.')
            .next()?
            .parse()
            .ok()
    });
    assert!(
        version.is_some() || std::env::var_os("COOP_REQUIRE_ORACLES").is_none(),
        "depmod is not installed"
    );
    if version.is_none() {
        eprintln!("skipped: depmod is not installed");
    }
    version
}

fn depmod_command() -> Command {
    let mut command = Command::new("depmod");
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{path}:/usr/sbin:/sbin"));
    command
}

fn read_folder(path: &Path) -> Tree {
    let options = folder::Options {
        cross_mounts: true,
        xattrs: false,
        check: std::sync::Arc::new(|| Ok(())),
    };
    let root = fs::File::open(path).unwrap().into_parts().0;
    folder::read(root.into(), &options).unwrap().tree
}

/// Runs depmod on a folder as `lib/modules/RELEASE` is and compares each file with ours.
fn compare(folder: &Path, kmod: u32) {
    let ours = depmod_files(&read_folder(folder)).unwrap();
    let home = tempfile::tempdir().unwrap();
    let copy = home.path().join("lib/modules").join(RELEASE);
    fs::create_dir_all(&copy).unwrap();
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name();
        if entry.path().is_dir() || LISTS.iter().any(|list| *list == name) {
            symlink(entry.path().canonicalize().unwrap(), copy.join(&name)).unwrap();
        }
    }
    let output = depmod_command()
        .args(["-C", "/dev/null", "-b"])
        .arg(home.path())
        .arg(RELEASE)
        .output()
        .unwrap();
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{complaints}");
    for (name, bytes) in &ours {
        if *name == "modules.weakdep" && kmod < 32 {
            continue;
        }
        let theirs = fs::read(copy.join(name)).unwrap();
        // Since version 34 an index has its nodes in another order.
        if kmod >= 34 && name.ends_with(".bin") && !theirs.is_empty() {
            assert_eq!(bytes.len(), theirs.len(), "{name}: {complaints}");
            assert!(read_index(bytes) == read_index(&theirs), "{name} differs");
        } else {
            assert!(
                *bytes == theirs,
                "{name} differs: {complaints}\n{}\n{}",
                String::from_utf8_lossy(bytes),
                String::from_utf8_lossy(&theirs)
            );
        }
    }
}

/// Each section's name, type and content.
pub(super) fn sections_of(module: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
    use object::read::elf::{FileHeader, SectionHeader};
    let header = object::elf::FileHeader64::<object::Endianness>::parse(module).unwrap();
    let endian = header.endian().unwrap();
    let sections = header.sections(endian, module).unwrap();
    let describe = |section: &object::elf::SectionHeader64<_>| {
        let name = sections.section_name(endian, section).unwrap();
        (
            String::from_utf8(name.to_vec()).unwrap(),
            section.sh_type(endian).0,
            section.data(endian, module).unwrap().to_vec(),
        )
    };
    sections.iter().map(describe).collect()
}

/// Sixty modules with what modules have; each needs only modules made before it.
fn generated(seed: u64) -> Vec<(String, Vec<u8>)> {
    let mut random = Random(seed);
    let mut files = Vec::new();
    let (mut order, mut symbols) = (String::new(), vec!["printk".to_owned()]);
    for number in 0..60 {
        let stem = ["snd-", "virtio_", "x-y_", ""][random.below(4)];
        let folder = ["kernel/a", "kernel/b/c", "updates", "extra/build"][random.below(4)];
        let path = format!("{folder}/{stem}m{number}.ko");
        let mut ko = Ko::default();
        for index in 0..random.below(12) {
            let symbol = &symbols[random.below(symbols.len())];
            if index % 5 == 4 {
                ko.versions.push(symbol.clone());
            } else {
                ko.undefined.push(symbol.clone());
            }
        }
        for index in 0..random.below(6) {
            let symbol = format!("sym_{}_{number}_{index}", "long".repeat(random.below(9)));
            symbols.push(symbol.clone());
            ko.exports.push(symbol);
        }
        ko.has_checksums = random.below(3) == 0;
        for _ in 0..random.below(8) {
            let alias = match random.below(7) {
                0 => format!("pci:v0000{:04X}d*sv-[0-9]*", random.below(20)),
                1 => "fs-shared".to_owned(),
                2 => format!("usb:bad[{number}"),
                3 => format!("devname:dev{number}"),
                4 => format!("char-major-10-{}", random.below(256)),
                5 => format!("block-major-{}-*", random.below(256)),
                _ => format!("net-pf-{number}-proto-{}", random.below(9)),
            };
            ko.info.push(format!("alias={alias}"));
        }
        if random.below(4) == 0 {
            ko.info.push(format!("softdep=pre: m{number} post: x-y"));
            ko.info.push(format!("weakdep=w-{number}"));
        }
        ko.info.push("description=alias=none".to_owned());
        if random.below(3) != 0 {
            order.push_str(&format!("{path}\n"));
        }
        files.push((path, ko.bytes()));
    }
    order.push_str("kernel/a/is-not-there.ko\n");
    files.push(("modules.order".into(), order.into_bytes()));
    let builtin = "kernel/fs/ext4/ext4.ko\nkernel/lib/crc-t10dif.ko\n# none\n";
    files.push(("modules.builtin".into(), builtin.into()));
    let info = "ext4.license=GPL\0ext4.alias=fs-ext4\0crc-t10dif.alias=fs-ext4\0a.alias=x[\0";
    files.push(("modules.builtin.modinfo".into(), info.into()));
    files
}

#[test]
fn generated_modules_get_kmods_files() {
    let Some(kmod) = depmod_version() else {
        return;
    };
    for seed in 1..=12 {
        let mut files = generated(seed);
        match seed {
            // Without any list, and without a single module.
            2 => files.retain(|(path, _)| path.ends_with(".ko")),
            3 => files.retain(|(path, _)| !path.ends_with(".ko")),
            _ => {}
        }
        let home = tempfile::tempdir().unwrap();
        for (path, bytes) in &files {
            let path = home.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        compare(home.path(), kmod);
    }
}

/// `COOP_TEST_MODULES` names folders such as `lib/modules/RELEASE`, with colons between them.
#[test]
fn real_modules_get_kmods_files() {
    let (Some(folders), Some(kmod)) = (std::env::var_os("COOP_TEST_MODULES"), depmod_version())
    else {
        eprintln!("skipped: COOP_TEST_MODULES names no folders with modules");
        return;
    };
    for folder in std::env::split_paths(&folders) {
        compare(&folder, kmod);
        let mut tree = read_folder(&folder);
        let before = depmod_files(&tree).unwrap();
        strip(&mut tree).unwrap();
        assert!(depmod_files(&tree).unwrap() == before);
    }
}

#[test]
fn the_first_by_path_wins_and_updates_win_over_it() {
    let ko = |alias: &str| Ko::with_info(&[&format!("alias={alias}")]).bytes();
    let tree = tree_of(&[
        ("kernel/b/m-x.ko", ko("second")),
        ("kernel/a/m_x.ko.ko", ko("first")),
        ("kernel/z/n.ko", ko("old")),
        ("updates/n.ko", ko("new")),
        ("kernel/build/o.ko", ko("none")),
    ]);
    let files = depmod_files(&tree).unwrap();
    let text = str::from_utf8(&files[2].1).unwrap();
    let lines: Vec<&str> = text.lines().skip(1).collect();
    assert_eq!(lines, ["alias new n", "alias first m_x"]);
}

#[test]
fn depmod_puts_its_files_beside_the_modules() {
    let mut tree = tree_of(&[("kernel/a.ko", Ko::default().bytes())]);
    depmod(&mut tree).unwrap();
    let id = tree.child(InodeId::ROOT, b"modules.dep").unwrap();
    assert_eq!(tree.read_file(id, 100).unwrap(), b"kernel/a.ko:\n");
    assert_eq!(tree.inode(id).metadata.mode, 0o644);
    // Again, over its own files.
    depmod(&mut tree).unwrap();
    assert_eq!(tree.entries(InodeId::ROOT).unwrap().len(), 12);
}

#[test]
fn a_damaged_module_is_named() {
    let error = |bytes: Vec<u8>| {
        let tree = tree_of(&[("kernel/x/bad.ko", bytes)]);
        depmod_files(&tree).unwrap_err().to_string()
    };
    assert!(error(Vec::new()).starts_with("kernel module kernel/x/bad.ko is not a valid 64-bit"));
    let program = fs::read("/proc/self/exe").unwrap();
    assert!(error(program).ends_with("is no kernel module but another kind of ELF file"));
    assert!(error(vec![0xfd, b'7', b'z', b'X', b'Z', 0]).contains("cannot be unpacked: the xz"));
    assert!(error(vec![0x04, 0x22, 0x4d, 0x18]).contains("lz4"));
    let bad_alias = Ko::with_info(&["alias=\u{e4}"]).bytes();
    assert!(error(bad_alias).contains("which is not ASCII text"));
}

#[test]
fn no_damage_is_a_panic() {
    let mut ko = Ko::with_info(&["alias=a-b", "softdep=pre: x"]);
    ko.exports = vec!["one".into(), "two".into()];
    ko.undefined = vec!["three".into()];
    ko.versions = vec!["four".into()];
    ko.has_checksums = true;
    let whole = ko.bytes();
    assert_eq!(read_module(whole.clone()).unwrap().needs, ["three", "four"]);
    for length in 0..whole.len() {
        let _ = read_module(whole[..length].to_vec());
    }
    for index in 0..whole.len() {
        for mask in [0x01, 0x80, 0xff] {
            let mut mutated = whole.clone();
            mutated[index] ^= mask;
            let _ = read_module(mutated);
        }
    }
}
