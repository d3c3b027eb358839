//! Modules made by hand, for tests.

use coop_image::tree::{Inode, InodeId, Kind, Metadata, Tree};

/// A small, repeatable source of numbers.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn below(&mut self, limit: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        usize::try_from(self.0 >> 33).unwrap() % limit
    }
}

/// What a module is made of.
#[derive(Default)]
pub(in crate::kernel) struct Ko {
    pub(super) info: Vec<String>,
    pub(super) exports: Vec<String>,
    pub(super) undefined: Vec<String>,
    pub(super) versions: Vec<String>,
    /// Whether the exports stand in the symbol table too.
    pub(super) has_checksums: bool,
    /// What the debugging sections have.
    pub(super) debugging: Vec<u8>,
}

const SHT_PROGBITS: u32 = 1;
const SHT_SYMTAB: u32 = 2;
const SHT_STRTAB: u32 = 3;

impl Ko {
    pub(super) fn with_info(info: &[&str]) -> Self {
        Self {
            info: info.iter().map(|text| (*text).to_owned()).collect(),
            ..Self::default()
        }
    }

    /// The module as a little-endian, relocatable ELF file.
    pub(in crate::kernel) fn bytes(&self) -> Vec<u8> {
        let (symbols, names) = self.symbols();
        let versions = self.versions.iter().flat_map(|name| {
            let mut entry = vec![0; 64];
            entry[8..8 + name.len()].copy_from_slice(name.as_bytes());
            entry
        });
        let mut sections: Vec<(&str, u32, Vec<u8>)> = vec![
            (".modinfo", SHT_PROGBITS, strings(&self.info)),
            ("__ksymtab_strings", SHT_PROGBITS, strings(&self.exports)),
            ("__versions", SHT_PROGBITS, versions.collect()),
            (".gnu.linkonce.this_module", SHT_PROGBITS, vec![0; 64]),
            (".symtab", SHT_SYMTAB, symbols),
            (".strtab", SHT_STRTAB, names),
        ];
        if !self.debugging.is_empty() {
            sections.insert(0, (".debug_info", SHT_PROGBITS, self.debugging.clone()));
            sections.push((".rela.debug_info", SHT_PROGBITS, self.debugging.clone()));
        }
        write(&sections)
    }

    fn symbols(&self) -> (Vec<u8>, Vec<u8>) {
        let checksums = self.exports.iter().filter(|_| self.has_checksums);
        let defined = checksums.map(|name| (format!("__crc_{name}"), 0xfff1));
        let undefined = self.undefined.iter().map(|name| (name.clone(), 0));
        let (mut symbols, mut names) = (vec![0; 24], vec![0]);
        for (name, section) in undefined.chain(defined) {
            let offset = u32::try_from(names.len()).unwrap();
            symbols.extend(offset.to_le_bytes());
            symbols.extend([0x10, 0]);
            symbols.extend(u16::to_le_bytes(section));
            symbols.extend([0; 16]);
            names.extend_from_slice(name.as_bytes());
            names.push(0);
        }
        (symbols, names)
    }
}

fn strings(list: &[String]) -> Vec<u8> {
    list.iter()
        .flat_map(|text| [text, "\0"].concat().into_bytes())
        .collect()
}

fn write(sections: &[(&str, u32, Vec<u8>)]) -> Vec<u8> {
    let mut file = vec![0; 64];
    let mut names = vec![0];
    let mut headers = vec![0; 64];
    let all = sections
        .iter()
        .map(|(name, kind, data)| (*name, *kind, data.clone()));
    let (mut at, count) = (64, sections.len() + 2);
    for (name, kind, mut data) in all.chain([(".shstrtab", SHT_STRTAB, Vec::new())]) {
        let name_at = u32::try_from(names.len()).unwrap();
        names.extend_from_slice(name.as_bytes());
        names.push(0);
        if name == ".shstrtab" {
            data.clone_from(&names);
        }
        let is_names = |(name, _, _): &(&str, u32, Vec<u8>)| *name == ".strtab";
        let names_at = sections.iter().position(is_names).unwrap() + 1;
        let link = if kind == SHT_SYMTAB {
            u32::try_from(names_at).unwrap()
        } else {
            0
        };
        let entry: u64 = if kind == SHT_SYMTAB { 24 } else { 0 };
        headers.extend(name_at.to_le_bytes());
        headers.extend(kind.to_le_bytes());
        let size = u64::try_from(data.len()).unwrap();
        for number in [0, 0, at, size] {
            headers.extend(u64::to_le_bytes(number));
        }
        headers.extend(u32::to_le_bytes(link));
        headers.extend([0; 4]);
        headers.extend(1_u64.to_le_bytes());
        headers.extend(entry.to_le_bytes());
        data.resize(data.len().next_multiple_of(8), 0);
        at += u64::try_from(data.len()).unwrap();
        file.extend(data);
    }
    file.extend(headers);
    let count = u16::try_from(count).unwrap();
    file[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    file[16..20].copy_from_slice(&[1, 0, 62, 0]);
    file[20] = 1;
    file[40..48].copy_from_slice(&at.to_le_bytes());
    file[52..54].copy_from_slice(&64_u16.to_le_bytes());
    file[58..60].copy_from_slice(&64_u16.to_le_bytes());
    file[60..62].copy_from_slice(&count.to_le_bytes());
    file[62..64].copy_from_slice(&(count - 1).to_le_bytes());
    file
}

/// A tree with these files.
pub(in crate::kernel) fn tree_of(files: &[(&str, Vec<u8>)]) -> Tree {
    let folder = Metadata {
        mode: 0o755,
        ..Metadata::default()
    };
    let mut tree = Tree::new(folder.clone());
    for (path, bytes) in files {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        let parent = if parent.is_empty() {
            InodeId::ROOT
        } else {
            tree.make_directories(parent.as_bytes(), &folder).unwrap()
        };
        let content = tree.add_bytes(bytes.clone()).unwrap();
        let inode = Inode {
            metadata: Metadata {
                mode: 0o644,
                ..Metadata::default()
            },
            kind: Kind::File(content),
        };
        let id = tree.add_inode(inode).unwrap();
        tree.link(parent, name.as_bytes(), id).unwrap();
    }
    tree
}
