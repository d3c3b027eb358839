//! What a module file says of itself: its aliases, what it exports, and what it needs.
//!
//! A module is a relocatable ELF object. Its own statements are `key=value` strings in `.modinfo`.
//! What it exports stands in its symbol table as `__crc_NAME` where the kernel has symbol versions,
//! else in `__ksymtab_strings`. What it needs is undefined in its symbol table; `__versions` repeats
//! that, with what the compiler refers to.

use std::io::{Cursor, Read};

use coop_image::compress::{self, Limits};
use object::Endianness;
use object::elf::{ET_REL, FileHeader64, SHN_UNDEF, SHT_STRTAB, SHT_SYMTAB};
use object::read::elf::{FileHeader, SectionHeader, SectionTable, Sym};

/// The largest module, unpacked, in bytes. With all debugging information some reach 100 MiB.
pub(super) const MODULE_BYTES_MAX: u64 = 256 << 20;
/// The longest name of a symbol in bytes; the kernel itself stops at 512.
const SYMBOL_BYTES_MAX: usize = 4096;
/// One entry of `__versions` in a 64-bit module: a checksum of 8 bytes, then the name.
const VERSION_BYTES: usize = 64;
/// Where the name starts in it.
const VERSION_NAME: usize = 8;

/// What depmod wants to know of a module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModuleObject {
    /// `alias=`: what it can be asked for by, with wildcards.
    pub aliases: Vec<String>,
    /// `softdep=`: `pre: a b post: c`.
    pub soft_dependencies: Vec<String>,
    /// `weakdep=`: names of modules that it may ask for later.
    pub weak_dependencies: Vec<String>,
    /// The symbols that it exports.
    pub exports: Vec<String>,
    /// The symbols that it needs, the kernel's among them.
    pub needs: Vec<String>,
}

/// Reads a module that may be compressed as gzip, xz or zstd, at most `MODULE_BYTES_MAX`.
///
/// # Errors
/// A sentence: it is no module, or damaged.
pub fn read_module(bytes: Vec<u8>) -> Result<ModuleObject, String> {
    parse(&unpacked(bytes)?)
}

/// The module without its compression.
///
/// # Errors
/// A sentence: the compression is unknown, the data damaged or too large.
pub(super) fn unpacked(bytes: Vec<u8>) -> Result<Vec<u8>, String> {
    if bytes.starts_with(&object::elf::ELFMAG) {
        return Ok(bytes);
    }
    let limits = Limits {
        output_bytes: MODULE_BYTES_MAX,
        ..Limits::default()
    };
    let mut plain = Vec::new();
    compress::decompress(Cursor::new(bytes), limits)
        .and_then(|(_, mut reader)| reader.read_to_end(&mut plain))
        .map_err(|error| format!("cannot be unpacked: {error}"))?;
    Ok(plain)
}

fn parse(data: &[u8]) -> Result<ModuleObject, String> {
    let header = FileHeader64::<Endianness>::parse(data).map_err(damaged)?;
    let endian = header.endian().map_err(damaged)?;
    if header.e_type(endian) != ET_REL {
        return Err("is no kernel module but another kind of ELF file".into());
    }
    let reader = Reader {
        data,
        endian,
        sections: header.sections(endian, data).map_err(damaged)?,
    };
    let mut module = ModuleObject::default();
    reader.statements(&mut module)?;
    reader.symbols(&mut module)?;
    if module.exports.is_empty() {
        for name in strings(reader.section(b"__ksymtab_strings")?) {
            module.exports.push(text(name)?);
        }
    }
    for version in reader.section(b"__versions")?.chunks_exact(VERSION_BYTES) {
        let name = strings(&version[VERSION_NAME..]).next().unwrap_or(b"");
        module.needs.push(text(name)?);
    }
    Ok(module)
}

fn damaged(error: object::Error) -> String {
    format!("is not a valid 64-bit ELF file: {error}")
}

struct Reader<'d> {
    data: &'d [u8],
    endian: Endianness,
    sections: SectionTable<'d, FileHeader64<Endianness>>,
}

impl<'d> Reader<'d> {
    /// A section's content; nothing where there is no such section.
    fn section(&self, name: &[u8]) -> Result<&'d [u8], String> {
        match self.sections.section_by_name(self.endian, name) {
            Some((_, section)) => section.data(self.endian, self.data).map_err(damaged),
            None => Ok(&[]),
        }
    }

    fn statements(&self, module: &mut ModuleObject) -> Result<(), String> {
        for statement in strings(self.section(b".modinfo")?) {
            let mut parts = statement.splitn(2, |byte| *byte == b'=');
            let list = match parts.next() {
                Some(b"alias") => &mut module.aliases,
                Some(b"softdep") => &mut module.soft_dependencies,
                Some(b"weakdep") => &mut module.weak_dependencies,
                _ => continue,
            };
            list.push(text(parts.next().unwrap_or(b""))?);
        }
        Ok(())
    }

    fn symbols(&self, module: &mut ModuleObject) -> Result<(), String> {
        let table = self.sections.symbols(self.endian, self.data, SHT_SYMTAB);
        let table = table.map_err(damaged)?;
        if table.is_empty() {
            return Err("has no symbol table".into());
        }
        let names = self.sections.section(table.string_section());
        let names = names.map_err(damaged)?;
        if names.sh_type(self.endian) != SHT_STRTAB {
            return Err("has symbols without a table of their names".into());
        }
        let names = names.data(self.endian, self.data).map_err(damaged)?;
        for symbol in table.iter().skip(1) {
            let offset = symbol.st_name(self.endian);
            let name = usize::try_from(offset).ok().and_then(|o| names.get(o..));
            let name = name.ok_or("has a symbol whose name is outside of the table of names")?;
            if symbol.st_shndx(self.endian) == SHN_UNDEF {
                module.needs.push(symbol_name(name)?);
            }
            if let Some(exported) = name.strip_prefix(b"__crc_") {
                module.exports.push(symbol_name(exported)?);
            }
        }
        module.needs.retain(|name| !name.is_empty());
        Ok(())
    }
}

/// The name at the start of `bytes`.
fn symbol_name(bytes: &[u8]) -> Result<String, String> {
    let window = &bytes[..bytes.len().min(SYMBOL_BYTES_MAX)];
    let end = window.iter().position(|byte| *byte == 0);
    let end = end.ok_or_else(|| {
        format!("has a symbol whose name does not end or has more than {SYMBOL_BYTES_MAX} bytes")
    })?;
    text(&window[..end])
}

fn text(bytes: &[u8]) -> Result<String, String> {
    match str::from_utf8(bytes) {
        Ok(text) if text.is_ascii() => Ok(text.to_owned()),
        _ => {
            let text = coop_image::tree::display(bytes);
            Err(format!("has the name '{text}', which is not ASCII text"))
        }
    }
}

/// The strings between zeroes.
fn strings(section: &[u8]) -> impl Iterator<Item = &[u8]> {
    section
        .split(|byte| *byte == 0)
        .filter(|string| !string.is_empty())
}
