//! Which of the host's programs and headers a kernel's build needs, and what Debian calls their
//! packages.

use super::{MakeError, Programs};
use crate::kernel::Target;
use crate::kernel::config::DotConfig;

/// Something that the host lacks.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MissingTool {
    /// A program, or a header or library file.
    pub tool: String,
    /// The Debian package that has it.
    pub package: &'static str,
}

/// Several missing tools as one sentence with what to type.
pub(super) fn sentence(missing: &[MissingTool]) -> String {
    let mut packages: Vec<&str> = missing.iter().map(|tool| tool.package).collect();
    packages.sort_unstable();
    packages.dedup();
    let tools: Vec<&str> = missing.iter().map(|tool| &*tool.tool).collect();
    format!(
        "this host lacks what a kernel is built with: {} (on Debian: apt-get install {}); or let \
         a guest build it, with in: guest in kernel.source",
        tools.join(", "),
        packages.join(" ")
    )
}

/// Programs that every kernel needs.
const ALWAYS: &[(&str, &str)] = &[
    ("make", "make"),
    ("gcc", "gcc"),
    ("ld", "binutils"),
    ("as", "binutils"),
    ("ar", "binutils"),
    ("nm", "binutils"),
    ("objcopy", "binutils"),
    ("objdump", "binutils"),
    ("readelf", "binutils"),
    ("strip", "binutils"),
    ("flex", "flex"),
    ("bison", "bison"),
    ("bc", "bc"),
    ("sh", "dash"),
    ("bash", "bash"),
    ("awk", "mawk"),
    ("sed", "sed"),
    ("grep", "grep"),
    ("find", "findutils"),
    ("xargs", "findutils"),
    ("cmp", "diffutils"),
    ("expr", "coreutils"),
    ("hostname", "hostname"),
    ("gzip", "gzip"),
];

/// Programs that a symbol of the configuration calls for.
const BY_SYMBOL: &[(&str, &str, &str)] = &[
    ("CONFIG_KERNEL_BZIP2", "bzip2", "bzip2"),
    ("CONFIG_KERNEL_LZMA", "xz", "xz-utils"),
    ("CONFIG_KERNEL_XZ", "xz", "xz-utils"),
    ("CONFIG_KERNEL_LZO", "lzop", "lzop"),
    ("CONFIG_KERNEL_LZ4", "lz4", "lz4"),
    ("CONFIG_KERNEL_ZSTD", "zstd", "zstd"),
    ("CONFIG_MODULE_COMPRESS_XZ", "xz", "xz-utils"),
    ("CONFIG_MODULE_COMPRESS_ZSTD", "zstd", "zstd"),
    ("CONFIG_DEBUG_INFO_BTF", "pahole", "pahole"),
    ("CONFIG_IKHEADERS", "cpio", "cpio"),
    ("CONFIG_IKHEADERS", "xz", "xz-utils"),
    ("CONFIG_MODULE_SIG", "openssl", "openssl"),
    ("CONFIG_RUST", "rustc", "rustc"),
];

/// Headers that a symbol of the configuration calls for.
const HEADERS_BY_SYMBOL: &[(&str, &str, &str)] = &[
    ("CONFIG_OBJTOOL", "libelf.h", "libelf-dev"),
    ("CONFIG_OBJTOOL", "gelf.h", "libelf-dev"),
    ("CONFIG_MODULE_SIG", "openssl/evp.h", "libssl-dev"),
    (
        "CONFIG_SYSTEM_TRUSTED_KEYRING",
        "openssl/evp.h",
        "libssl-dev",
    ),
    ("CONFIG_GCC_PLUGINS", "gmp.h", "libgmp-dev"),
];

/// What every kernel for the target needs and the host lacks; empty where nothing is missing. It
/// looks at file names and asks the compiler one question, so it takes a few milliseconds.
///
/// # Errors
/// The compiler is there and cannot be run.
pub fn missing(target: Target, programs: &Programs) -> Result<Vec<MissingTool>, MakeError> {
    let mut missing: Vec<MissingTool> = ALWAYS
        .iter()
        .filter(|(program, _)| programs.find(program).is_none())
        .map(|(program, package)| MissingTool {
            tool: (*program).to_owned(),
            package,
        })
        .collect();
    // The C library comes with the headers for the build's own programs; a User-Mode Linux kernel
    // has it in itself.
    let library = match target {
        Target::Um => "libc.a",
        Target::X86_64 => "crt1.o",
    };
    if programs.find("gcc").is_some() && !has_library(library, programs)? {
        missing.push(MissingTool {
            tool: library.to_owned(),
            package: "libc6-dev",
        });
    }
    Ok(missing)
}

/// The same for what a configuration calls for.
///
/// # Errors
/// The compiler cannot be run.
pub(super) fn missing_for(
    config: &DotConfig,
    programs: &Programs,
) -> Result<Vec<MissingTool>, MakeError> {
    let is_set = |symbol: &str| config.get(symbol) == "y";
    let mut missing = Vec::new();
    for (symbol, program, package) in BY_SYMBOL {
        if is_set(symbol) && programs.find(program).is_none() {
            missing.push(MissingTool {
                tool: (*program).to_owned(),
                package,
            });
        }
    }
    for (symbol, header, package) in HEADERS_BY_SYMBOL {
        if is_set(symbol) && !has_header(header, programs)? {
            missing.push(MissingTool {
                tool: (*header).to_owned(),
                package,
            });
        }
    }
    missing.sort();
    missing.dedup();
    Ok(missing)
}

/// The compiler repeats a name that it does not find.
fn has_library(file: &str, programs: &Programs) -> Result<bool, MakeError> {
    let answer = programs.ask("gcc", &[&format!("-print-file-name={file}")])?;
    Ok(answer.is_some_and(|path| path.trim_end().starts_with('/')))
}

/// Whether the compiler finds a header.
pub(super) fn has_header(header: &str, programs: &Programs) -> Result<bool, MakeError> {
    let arguments = ["-E", "-include", header, "-x", "c", "/dev/null"];
    Ok(programs.ask("gcc", &arguments)?.is_some())
}
