//! A program of this host with all that it needs to start elsewhere: its loader and libraries, each
//! at the place where the loader looks for it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::{Path, PathBuf};

use fs_err as fs;
use object::Endianness;
use object::elf::{DT_NEEDED, EM_X86_64, FileHeader64, PT_INTERP};
use object::read::elf::{Dyn, FileHeader, ProgramHeader};

use super::ExportError;

/// Where loaders look by themselves, in their order: Debian's, then others'.
const FOLDERS: &[&str] = &[
    "/lib/x86_64-linux-gnu",
    "/usr/lib/x86_64-linux-gnu",
    "/lib64",
    "/usr/lib64",
    "/lib",
    "/usr/lib",
];
/// The largest program or library, in bytes.
const FILE_BYTES_MAX: u64 = 2 << 30;
/// The most libraries.
const LIBRARIES_MAX: usize = 64;

/// The files that a program needs beside itself: where each goes in the image, and where it is here.
/// A static program needs none.
///
/// # Errors
/// It is no program for x86-64 Linux, or a library is not where loaders look by themselves.
pub(super) fn libraries(program: &Path) -> Result<BTreeMap<PathBuf, PathBuf>, ExportError> {
    let mut found = BTreeMap::new();
    let first = needs(program)?;
    let Some(interpreter) = first.interpreter else {
        return Ok(found);
    };
    found.insert(interpreter.clone(), interpreter.clone());
    let loader = interpreter.file_name().map(std::ffi::OsStr::to_owned);
    let mut pending = first.libraries;
    let mut known = BTreeSet::new();
    while let Some(name) = pending.pop() {
        // The loader itself is a library of the C library's.
        if loader.as_deref() == Some(name.as_ref()) || !known.insert(name.clone()) {
            continue;
        }
        if known.len() > LIBRARIES_MAX {
            return Err(problem(
                program,
                format!("it needs more than {LIBRARIES_MAX} libraries"),
            ));
        }
        let mut places = FOLDERS.iter().map(|folder| Path::new(folder).join(&name));
        let Some(place) = places.find(|place| place.is_file()) else {
            return Err(problem(
                program,
                format!(
                    "it needs '{name}', which is in no folder that loaders search by themselves"
                ),
            ));
        };
        pending.extend(needs(&place)?.libraries);
        found.insert(place.clone(), place);
    }
    Ok(found)
}

struct Needs {
    interpreter: Option<PathBuf>,
    libraries: Vec<String>,
}

fn needs(path: &Path) -> Result<Needs, ExportError> {
    let mut bytes = Vec::new();
    let file = fs::File::open(path)?;
    file.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    read(&bytes).map_err(|reason| problem(path, reason))
}

fn problem(path: &Path, problem: impl Into<String>) -> ExportError {
    ExportError::Program {
        path: path.to_owned(),
        problem: problem.into(),
    }
}

fn read(bytes: &[u8]) -> Result<Needs, String> {
    let damaged = |error: object::Error| format!("it is no valid ELF file: {error}");
    let header = FileHeader64::<Endianness>::parse(bytes).map_err(damaged)?;
    let endian = header.endian().map_err(damaged)?;
    if header.e_machine(endian) != EM_X86_64 {
        return Err("it is not for x86-64".to_owned());
    }
    let mut interpreter = None;
    for segment in header.program_headers(endian, bytes).map_err(damaged)? {
        if segment.p_type(endian) == PT_INTERP {
            let text = segment.data(endian, bytes).unwrap_or_default();
            let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
            let text = std::str::from_utf8(text).map_err(|_| "its loader's path is no text")?;
            let path = PathBuf::from(text);
            let is_plain = path.is_absolute()
                && !path
                    .components()
                    .any(|part| part == std::path::Component::ParentDir);
            if !is_plain {
                return Err("its loader has no absolute path".to_owned());
            }
            interpreter = Some(path);
        }
    }
    let sections = header.sections(endian, bytes).map_err(damaged)?;
    let mut libraries = Vec::new();
    if let Some((entries, strings)) = sections.dynamic(endian, bytes).map_err(damaged)? {
        let strings = sections.strings(endian, bytes, strings).map_err(damaged)?;
        for entry in entries {
            if entry.tag(endian) == DT_NEEDED {
                let name = entry.string(endian, strings).map_err(damaged)?;
                let name = std::str::from_utf8(name).map_err(|_| "a library has no name")?;
                if name.is_empty() || name.contains('/') {
                    return Err(format!("it needs '{}'", name.escape_debug()));
                }
                libraries.push(name.to_owned());
            }
        }
    }
    Ok(Needs {
        interpreter,
        libraries,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dynamic_program_has_its_loader_and_library() {
        let found = libraries(Path::new("/proc/self/exe")).unwrap();
        let names: Vec<_> = found.keys().filter_map(|path| path.file_name()).collect();
        assert!(names.contains(&"libc.so.6".as_ref()), "{names:?}");
        assert!(
            names
                .iter()
                .any(|name| name.to_string_lossy().starts_with("ld-linux"))
        );
        assert!(found.keys().all(|path| path.is_absolute()));
    }

    #[test]
    fn damaged_programs_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("program");
        fs::write(&path, "#!/bin/sh\n").unwrap();
        let error = libraries(&path).unwrap_err().to_string();
        assert!(error.contains("no valid ELF"), "{error}");
        let whole = fs::read("/proc/self/exe").unwrap();
        for length in [4, 16, 63, 64, 100, 500, 4096] {
            let _ = read(&whole[..length]);
        }
        for index in 0..1024 {
            let mut mutated = whole[..1 << 16].to_vec();
            mutated[index] ^= 0xff;
            let _ = read(&mutated);
        }
    }
}
