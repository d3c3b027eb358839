//! Modules without their debugging information.
//!
//! Debian's `user-mode-linux` has modules with it: five sixths of 170 MB. What goes are the
//! sections whose name starts with `.debug_` and their relocations; their headers stay as inactive
//! ones, so that neither sections nor symbols change their number.

use coop_image::tree::{Kind, Tree};
use object::Endianness;
use object::elf::{FileHeader64, SHT_PROGBITS, SHT_RELA, SectionHeader64};
use object::read::elf::{FileHeader, SectionHeader, SectionTable};
use rayon::prelude::*;

use super::module_file::MODULE_BYTES_MAX;
use super::name::is_module;

/// What stands at the end of a signed module: its signature holds for every byte.
const SIGNATURE: &[u8] = b"~Module signature appended~\n";
const FILE_HEADER_BYTES: usize = 64;
const SECTION_HEADER_BYTES: usize = 64;
/// Where the file header has the section headers' offset.
const SECTION_HEADERS_FIELD: std::ops::Range<usize> = 40..48;
/// Where a section header has its content's offset.
const OFFSET_FIELD: std::ops::Range<usize> = 24..32;
/// The largest alignment of a section's content that is kept.
const ALIGNMENT_MAX: u64 = 1 << 16;

/// Takes the debugging information out of every uncompressed module of a tree. What has none, is
/// signed or no module stays as it is.
///
/// # Errors
/// A module cannot be read, or the tree is full.
pub fn strip(modules: &mut Tree) -> std::io::Result<()> {
    let is_file = |id: &_| matches!(modules.inode(*id).kind, Kind::File(_));
    let named = modules.paths().into_iter().filter(|(path, id)| {
        let file = path.rsplit(|byte| *byte == b'/').next().unwrap_or(path);
        is_file(id) && str::from_utf8(file).is_ok_and(is_module)
    });
    let files: Vec<_> = named.map(|(_, id)| id).collect();
    let stripped: Vec<std::io::Result<_>> = files
        .into_par_iter()
        .map(|id| {
            let module = modules.read_file(id, MODULE_BYTES_MAX)?;
            Ok((id, without_debugging(&module)))
        })
        .collect();
    for result in stripped {
        if let (id, Some(bytes)) = result? {
            let content = modules.add_bytes(bytes).map_err(std::io::Error::other)?;
            modules.inode_mut(id).kind = Kind::File(content);
        }
    }
    Ok(())
}

/// The module without its debugging information; `None` where it has none, is signed, or is not
/// what can be read.
pub(super) fn without_debugging(module: &[u8]) -> Option<Vec<u8>> {
    if module.ends_with(SIGNATURE) {
        return None;
    }
    let header = FileHeader64::<Endianness>::parse(module).ok()?;
    let endian = header.endian().ok()?;
    if endian != Endianness::Little || header.e_phnum(endian) != 0 {
        return None;
    }
    let sections = header.sections(endian, module).ok()?;
    let kept = kept(&sections, endian)?;
    let mut file = module.get(..FILE_HEADER_BYTES)?.to_vec();
    let mut headers = Vec::new();
    let start = usize::try_from(header.e_shoff(endian)).ok()?;
    for (index, section) in sections.iter().enumerate() {
        let at = start.checked_add(index.checked_mul(SECTION_HEADER_BYTES)?)?;
        let own = module.get(at..at.checked_add(SECTION_HEADER_BYTES)?)?;
        if !kept[index] {
            headers.extend([0; SECTION_HEADER_BYTES]);
            continue;
        }
        let mut own = own.to_vec();
        // The first header stands for no section.
        if index > 0 {
            let content = section.data(endian, module).ok()?;
            let offset = append(&mut file, content, section.sh_addralign(endian))?;
            own[OFFSET_FIELD].copy_from_slice(&offset.to_le_bytes());
        }
        headers.extend(own);
        // Sections of a sound file do not overlap.
        if file.len() > module.len() {
            return None;
        }
    }
    let offset = append(&mut file, &headers, 8)?;
    file[SECTION_HEADERS_FIELD].copy_from_slice(&offset.to_le_bytes());
    Some(file)
}

/// Which sections stay; `None` where all do.
fn kept(
    sections: &SectionTable<'_, FileHeader64<Endianness>>,
    endian: Endianness,
) -> Option<Vec<bool>> {
    let is_kept = |section: &SectionHeader64<Endianness>| {
        let is_content = [SHT_PROGBITS, SHT_RELA].contains(&section.sh_type(endian));
        let name = sections.section_name(endian, section).unwrap_or_default();
        let name = name.strip_prefix(b".rela").unwrap_or(name);
        !(is_content && name.starts_with(b".debug_"))
    };
    let kept: Vec<bool> = sections.iter().map(is_kept).collect();
    kept.contains(&false).then_some(kept)
}

/// Puts content at the next offset that its alignment allows.
fn append(file: &mut Vec<u8>, content: &[u8], alignment: u64) -> Option<u64> {
    if alignment > ALIGNMENT_MAX {
        return None;
    }
    let alignment = usize::try_from(alignment.max(1)).ok()?;
    file.resize(file.len().checked_next_multiple_of(alignment)?, 0);
    let offset = u64::try_from(file.len()).ok()?;
    file.extend_from_slice(content);
    Some(offset)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Ko, tree_of};
    use super::super::tests::sections_of;
    use super::super::{depmod_files, read_module};
    use super::*;

    fn module() -> Ko {
        let mut ko = Ko::with_info(&["alias=a-b"]);
        ko.exports = vec!["one".into()];
        ko.undefined = vec!["two".into()];
        ko.debugging = vec![7; 5000];
        ko
    }

    #[test]
    fn debugging_information_goes_and_nothing_else() {
        let whole = module().bytes();
        let stripped = without_debugging(&whole).unwrap();
        assert!(stripped.len() < whole.len() - 5000);
        assert_eq!(read_module(stripped.clone()), read_module(whole.clone()));
        let (before, after) = (sections_of(&whole), sections_of(&stripped));
        assert_eq!(before.len(), after.len());
        for (before, after) in before.iter().zip(&after) {
            if before.0.contains(".debug_") {
                assert_eq!(*after, (String::new(), 0, Vec::new()));
            } else {
                assert_eq!(before, after);
            }
        }
        assert_eq!(without_debugging(&stripped), None);
    }

    #[test]
    fn signed_modules_and_damaged_ones_stay() {
        let mut signed = module().bytes();
        signed.extend_from_slice(SIGNATURE);
        assert_eq!(without_debugging(&signed), None);
        assert_eq!(without_debugging(b""), None);
        assert_eq!(without_debugging(b"\xfd7zXZ\0"), None);
        let whole = module().bytes();
        for index in 0..whole.len() {
            for mask in [0x01, 0x80, 0xff] {
                let mut mutated = whole.clone();
                mutated[index] ^= mask;
                if let Some(stripped) = without_debugging(&mutated) {
                    assert!(stripped.len() <= mutated.len() + 128);
                }
            }
        }
    }

    #[test]
    fn a_tree_keeps_its_names() {
        let files = [
            ("kernel/a.ko", module().bytes()),
            ("kernel/b.ko", Ko::default().bytes()),
            ("modules.order", b"kernel/b.ko\nkernel/a.ko\n".to_vec()),
        ];
        let mut tree = tree_of(&files);
        let before = depmod_files(&tree).unwrap();
        strip(&mut tree).unwrap();
        assert_eq!(depmod_files(&tree).unwrap(), before);
        let id = tree.resolve(b"kernel/a.ko").unwrap();
        assert!(tree.read_file(id, 1 << 20).unwrap().len() < files[0].1.len() - 5000);
    }
}
