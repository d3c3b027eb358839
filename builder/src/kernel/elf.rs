//! The one change that a prebuilt kernel needs: which dynamic loader starts it.
//!
//! A kernel from a newer suite wants a newer C library than the host may have. A UML kernel cannot
//! be started as `ld.so PROGRAM` (it needs its own program break), so the interpreter in the
//! program itself is made relative, and the suite's own loader lies beside the kernel.

use object::Endianness;
use object::elf::{EM_X86_64, FileHeader64, PT_INTERP};
use object::read::elf::{FileHeader, ProgramHeader};

/// The loader, relative to the folder in which the kernel is started.
pub(super) const INTERPRETER: &[u8] = b"./ld.so";

/// Points a dynamic executable at [`INTERPRETER`]; says whether it was dynamic at all.
///
/// # Errors
/// A sentence: not an ELF executable for x86-64, damaged, or without room for the path.
pub(super) fn use_relative_interpreter(program: &mut [u8]) -> Result<bool, String> {
    let Some((start, length)) = interpreter_range(program)? else {
        return Ok(false);
    };
    let range = start
        .checked_add(length)
        .and_then(|end| program.get_mut(start..end))
        .ok_or("names an interpreter outside of itself")?;
    if range.len() <= INTERPRETER.len() {
        return Err("has no room for another interpreter's path".into());
    }
    range.fill(0);
    range[..INTERPRETER.len()].copy_from_slice(INTERPRETER);
    Ok(true)
}

/// Whether a program needs a dynamic loader.
///
/// # Errors
/// As [`use_relative_interpreter`].
pub(super) fn is_dynamic(program: &[u8]) -> Result<bool, String> {
    Ok(interpreter_range(program)?.is_some())
}

fn interpreter_range(program: &[u8]) -> Result<Option<(usize, usize)>, String> {
    let damaged = |error: object::Error| format!("is not a valid ELF file: {error}");
    let header = FileHeader64::<Endianness>::parse(program).map_err(damaged)?;
    let endian = header.endian().map_err(damaged)?;
    if header.e_machine(endian) != EM_X86_64 {
        return Err("is not an executable for x86-64".into());
    }
    for segment in header.program_headers(endian, program).map_err(damaged)? {
        if segment.p_type(endian) == PT_INTERP {
            let (offset, size) = segment.file_range(endian);
            let too_large = |_| "names an interpreter outside of itself".to_owned();
            let start = usize::try_from(offset).map_err(too_large)?;
            let length = usize::try_from(size).map_err(too_large)?;
            return Ok(Some((start, length)));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The test program itself: dynamic on every machine that runs the tests.
    fn this_program() -> Vec<u8> {
        fs_err::read("/proc/self/exe").unwrap()
    }

    #[test]
    fn the_interpreter_is_replaced_and_nothing_else() {
        let before = this_program();
        let mut after = before.clone();
        assert_eq!(use_relative_interpreter(&mut after), Ok(true));
        let (start, length) = interpreter_range(&before).unwrap().unwrap();
        assert_eq!(&after[start..start + 8], b"./ld.so\0");
        assert_eq!(before[..start], after[..start]);
        assert_eq!(before[start + length..], after[start + length..]);
    }

    #[test]
    fn damaged_programs_are_refused() {
        assert!(use_relative_interpreter(&mut []).is_err());
        assert!(use_relative_interpreter(&mut b"#!/bin/sh\n".repeat(20)).is_err());
        // Headers and interpreter lie in the first pages.
        let whole = this_program()[..1 << 16].to_vec();
        for length in [4, 16, 63, 64, 100, 500] {
            let _ = use_relative_interpreter(&mut whole[..length].to_vec());
        }
        for index in 0..512 {
            let mut mutated = whole.clone();
            mutated[index] ^= 0xff;
            let _ = use_relative_interpreter(&mut mutated);
        }
    }
}
