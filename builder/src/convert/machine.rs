//! For which machine the programs of a root are.

use coop_image::tree::{Kind, Tree, read_exact_at};

/// Programs that a root has, one of them at least.
const PROGRAMS: &[&str] = &["/sbin/init", "/bin/sh", "/usr/bin/env", "/bin/busybox"];
/// `e_ident` and what is behind it up to `e_machine` (System V ABI, ELF header).
const HEADER_BYTES: usize = 20;
const CLASS_64: u8 = 2;
const BIG_ENDIAN: u8 = 2;

/// What machine's programs a root has, where it is another one than the guest's. A root without
/// any program that is known has nobody's.
pub(super) fn foreign(tree: &Tree) -> Option<String> {
    let mut headers = PROGRAMS.iter().filter_map(|path| header(tree, path));
    let header = headers.next()?;
    let number = [header[18], header[19]];
    let number = match header[5] {
        BIG_ENDIAN => u16::from_be_bytes(number),
        _ => u16::from_le_bytes(number),
    };
    let name = match (number, header[4]) {
        (62, CLASS_64) => return None,
        (62, _) => "x32",
        (3, _) => "i386",
        (40, _) => "arm",
        (183, _) => "arm64",
        (8, _) => "mips",
        (20 | 21, _) => "powerpc",
        (22, _) => "s390x",
        (243, _) => "riscv64",
        _ => return Some(format!("machine {number} (ELF)")),
    };
    Some(name.to_owned())
}

/// The beginning of a file, where it is an ELF program.
fn header(tree: &Tree, path: &str) -> Option<[u8; HEADER_BYTES]> {
    let id = tree.resolve(path.as_bytes()).ok()?;
    let Kind::File(content) = &tree.inode(id).kind else {
        return None;
    };
    let first = content.segments.first().filter(|one| one.offset == 0)?;
    let mut header = [0; HEADER_BYTES];
    if first.length < u64::try_from(HEADER_BYTES).unwrap_or(u64::MAX) {
        return None;
    }
    read_exact_at(&**tree.blob(first.blob), &mut header, first.blob_offset).ok()?;
    header.starts_with(b"\x7fELF").then_some(header)
}

#[cfg(test)]
mod tests {
    use coop_image::tree::Metadata;

    use super::*;
    use crate::rootfs::put_file;

    #[test]
    fn programs_say_which_machine_they_are_for() {
        let of = |text: &[u8]| {
            let mut tree = Tree::new(Metadata::default());
            let content = tree.add_bytes(text.to_vec()).unwrap();
            put_file(&mut tree, b"/bin/sh", content, Metadata::default()).unwrap();
            foreign(&tree)
        };
        let elf = |class: u8, order: u8, machine: [u8; 2]| {
            let mut bytes = b"\x7fELF".to_vec();
            bytes.extend([class, order, 1]);
            bytes.resize(18, 0);
            bytes.extend(machine);
            of(&bytes)
        };
        assert_eq!(elf(2, 1, [62, 0]), None);
        assert_eq!(elf(1, 1, [3, 0]).as_deref(), Some("i386"));
        assert_eq!(elf(2, 1, [183, 0]).as_deref(), Some("arm64"));
        assert_eq!(elf(2, 2, [0, 22]).as_deref(), Some("s390x"));
        assert_eq!(elf(2, 1, [1, 1]).as_deref(), Some("machine 257 (ELF)"));
        for other in [&b""[..], b"#!/bin/x\n# and more of it", b"\x7fELF"] {
            assert_eq!(of(other), None);
        }
    }
}
