//! What a kernel was configured to: a `.config` wherever one is found, and what two differ in.

use std::fmt;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use fs_err as fs;

use super::config::DotConfig;

/// The largest `.config` that is read, unpacked, in bytes; distributions' have 300 KiB.
const CONFIG_BYTES_MAX: u64 = 4 << 20;
/// So much of a kernel is searched for the configuration in it, in bytes.
const KERNEL_BYTES_MAX: u64 = 4 << 30;
/// How much of a kernel is looked at in one go, in bytes.
const CHUNK_BYTES: usize = 1 << 20;
/// What stands before the packed configuration in a kernel with `CONFIG_IKCONFIG`.
const EMBEDDED: &[u8] = b"IKCFG_ST";
const GZIP: &[u8] = &[0x1f, 0x8b];
const ELF: &[u8] = b"\x7fELF";
/// Where the x86 boot protocol has its mark, and the mark.
const BOOT_MARK: (usize, &[u8]) = (0x202, b"HdrS");
/// The value of a symbol that a `.config` does not name or says is not set.
const UNSET: &str = "n";

/// Why a file gives no configuration.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The kernel keeps no configuration.
    #[error("{}: the kernel does not carry its configuration: it was built without IKCONFIG", .0.display())]
    NoneEmbedded(PathBuf),
    /// A compressed kernel.
    #[error("{}: a compressed kernel is not looked into; its vmlinux or its .config is", .0.display())]
    Compressed(PathBuf),
    /// The packed configuration is damaged.
    #[error("{}: the packed configuration is damaged: {source}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What the decoder says.
        source: io::Error,
    },
    /// Too long for a configuration.
    #[error("{}: a configuration has at most {CONFIG_BYTES_MAX} bytes", .0.display())]
    TooLarge(PathBuf),
    /// Not text.
    #[error("{}: it is not UTF-8, so it is no configuration", .0.display())]
    NotText(PathBuf),
    /// Text of another kind.
    #[error("{}: no line of it is a setting of a kernel", .0.display())]
    NotConfig(PathBuf),
}

fn unset(line: &str) -> Option<&str> {
    let symbol = line.strip_prefix("# ")?.strip_suffix(" is not set")?;
    is_symbol(symbol).then_some(symbol)
}

fn set(line: &str) -> Option<(&str, &str)> {
    let (symbol, value) = line.split_once('=')?;
    is_symbol(symbol).then_some((symbol, value))
}

fn is_symbol(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    text.strip_prefix("CONFIG_")
        .is_some_and(|name| !name.is_empty() && name.bytes().all(plain))
}

/// Whether a text is a `.config` or a fragment: its first line that is neither empty nor a mere
/// comment is a setting.
#[must_use]
pub fn is_config(text: &str) -> bool {
    for line in text.lines().map(str::trim) {
        if unset(line).is_some() || set(line).is_some() {
            return true;
        }
        if !line.is_empty() && !line.starts_with('#') {
            return false;
        }
    }
    false
}

/// A symbol that two configurations set otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The symbol, with `CONFIG_`.
    pub symbol: String,
    /// What the first one has: `n` where it is not set.
    pub first: String,
    /// What the second one has: `n` where it is not set.
    pub second: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (symbol, first, second) = (&self.symbol, &self.first, &self.second);
        // "n" is no value of a text or a number: there the symbol is simply not there.
        let switch = |value: &str| matches!(value, "y" | "m" | UNSET);
        match (first.as_str(), second.as_str()) {
            (UNSET, value) if !switch(value) => {
                write!(formatter, "{symbol}: only in the second: {value}")
            }
            (value, UNSET) if !switch(value) => {
                write!(formatter, "{symbol}: only in the first: {value}")
            }
            _ => write!(formatter, "{symbol}: {first} → {second}"),
        }
    }
}

/// What two configurations differ in, by symbol. A symbol that one of them says is not set and the
/// other does not name is the same in both.
#[must_use]
pub fn differences(first: &DotConfig, second: &DotConfig) -> Vec<Difference> {
    let mut symbols: Vec<&str> = first
        .iter()
        .chain(second.iter())
        .map(|(symbol, _)| symbol)
        .collect();
    symbols.sort_unstable();
    symbols.dedup();
    symbols
        .into_iter()
        .filter(|symbol| first.get(symbol) != second.get(symbol))
        .map(|symbol| Difference {
            symbol: symbol.to_owned(),
            first: first.get(symbol).to_owned(),
            second: second.get(symbol).to_owned(),
        })
        .collect()
}

/// Reads a configuration from a file: a `.config` or fragment, one packed by gzip as
/// `/proc/config.gz`, or a `vmlinux` that carries its own (`CONFIG_IKCONFIG`).
///
/// # Errors
/// See [`SettingsError`].
pub fn read(path: &Path) -> Result<String, SettingsError> {
    let mut file = fs::File::open(path)?;
    let mut head = Vec::new();
    let (mark_at, mark) = BOOT_MARK;
    let head_bytes = u64::try_from(mark_at + mark.len()).unwrap_or(u64::MAX);
    io::Read::take(&mut file, head_bytes).read_to_end(&mut head)?;
    let whole = io::Cursor::new(head.clone()).chain(file);
    if head.starts_with(GZIP) {
        return text_of(path, unpack(path, whole)?);
    }
    if head.starts_with(ELF) {
        return embedded(path, whole.take(KERNEL_BYTES_MAX));
    }
    if head.get(mark_at..) == Some(mark) {
        return Err(SettingsError::Compressed(path.to_owned()));
    }
    let mut bytes = Vec::new();
    whole.take(CONFIG_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    text_of(path, bytes)
}

fn unpack(path: &Path, packed: impl Read) -> Result<Vec<u8>, SettingsError> {
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(packed)
        .take(CONFIG_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(|source| SettingsError::Damaged {
            path: path.to_owned(),
            source,
        })?;
    Ok(bytes)
}

/// Finds the configuration in a kernel, which may be far larger than memory should be.
fn embedded(path: &Path, mut kernel: impl Read) -> Result<String, SettingsError> {
    let mut window = Vec::with_capacity(CHUNK_BYTES + EMBEDDED.len());
    loop {
        let chunk = u64::try_from(CHUNK_BYTES).unwrap_or(u64::MAX);
        if (&mut kernel).take(chunk).read_to_end(&mut window)? == 0 {
            return Err(SettingsError::NoneEmbedded(path.to_owned()));
        }
        // The mark is also a constant of programs that look for it: what follows decides.
        let packed: Vec<u8> = [EMBEDDED, GZIP].concat();
        let at = window.windows(packed.len()).position(|w| w == packed);
        if let Some(at) = at {
            let rest = window.split_off(at + EMBEDDED.len());
            return text_of(path, unpack(path, io::Cursor::new(rest).chain(kernel))?);
        }
        let kept = window.len().saturating_sub(packed.len() - 1);
        window.drain(..kept);
    }
}

fn text_of(path: &Path, bytes: Vec<u8>) -> Result<String, SettingsError> {
    if u64::try_from(bytes.len()).is_ok_and(|length| length > CONFIG_BYTES_MAX) {
        return Err(SettingsError::TooLarge(path.to_owned()));
    }
    let text = String::from_utf8(bytes).map_err(|_| SettingsError::NotText(path.to_owned()))?;
    if !is_config(&text) {
        return Err(SettingsError::NotConfig(path.to_owned()));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn gzip(text: &str) -> Vec<u8> {
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packer.write_all(text.as_bytes()).unwrap();
        packer.finish().unwrap()
    }

    fn read_bytes(bytes: &[u8]) -> Result<String, SettingsError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), bytes).unwrap();
        read(file.path())
    }

    #[test]
    fn what_is_not_set_is_no_difference() {
        let first = DotConfig::parse(
            "CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_C=\"x\"\nCONFIG_D=m\nCONFIG_E=1\n",
        );
        let second =
            DotConfig::parse("# hello\nCONFIG_A=y\nCONFIG_C=\"y\"\nCONFIG_D=y\nCONFIG_F=2\n");
        let shown: Vec<String> = differences(&first, &second)
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            shown,
            [
                "CONFIG_C: \"x\" → \"y\"",
                "CONFIG_D: m → y",
                "CONFIG_E: only in the first: 1",
                "CONFIG_F: only in the second: 2",
            ]
        );
        assert_eq!(differences(&first, &first), []);
    }

    #[test]
    fn a_configuration_is_told_from_other_text() {
        assert!(is_config("#\n# Linux\n\nCONFIG_A=y\n"));
        assert!(is_config("# CONFIG_A is not set\n"));
        for text in [
            "",
            "# nothing\n",
            "name: x\nCONFIG_A=y\n",
            "CONFIG_=y",
            "A=y",
        ] {
            assert!(!is_config(text), "{text:?}");
        }
    }

    #[test]
    fn configurations_are_found_where_they_lie() {
        let text = "CONFIG_A=y\n";
        assert_eq!(read_bytes(text.as_bytes()).unwrap(), text);
        assert_eq!(read_bytes(&gzip(text)).unwrap(), text);
        // The mark lies across the border between two chunks, after one that is none.
        for lead in [100, CHUNK_BYTES - 4, CHUNK_BYTES - 5, CHUNK_BYTES - 12] {
            let mut kernel = ELF.to_vec();
            kernel.extend_from_slice(b"IKCFG_ST is looked for");
            kernel.resize(lead, 0);
            kernel.extend_from_slice(EMBEDDED);
            kernel.extend(gzip(text));
            kernel.extend_from_slice(b"IKCFG_ED");
            assert_eq!(read_bytes(&kernel).unwrap(), text, "{lead}");
        }
    }

    #[test]
    fn what_has_no_configuration_says_so() {
        let says = |bytes: &[u8], part: &str| {
            let text = read_bytes(bytes).unwrap_err().to_string();
            assert!(text.contains(part), "{text}");
        };
        says(b"", "no line of it");
        says(b"name: x\n", "no line of it");
        says(b"CONFIG_A=\xff\n", "not UTF-8");
        says(b"\x7fELF nothing", "IKCONFIG");
        says(b"\x1f\x8bnothing", "damaged");
        let mut image = vec![0; BOOT_MARK.0];
        image.extend_from_slice(BOOT_MARK.1);
        image.extend_from_slice(&[0; 64]);
        says(&image, "compressed kernel");
        let large = "CONFIG_A=y\n".repeat(500_000);
        says(large.as_bytes(), "at most");
        says(&gzip(&large), "at most");
        let packed = gzip("CONFIG_A=y\n");
        says(&packed[..packed.len() / 2], "damaged");
    }
}
