//! What people and programs see.

pub(crate) mod error;
pub(crate) mod json;
pub(crate) mod progress;

use std::io::{ErrorKind, IsTerminal, Write};
use std::sync::OnceLock;

use coop_image::tree::is_unruly;

use crate::environment::Environment;

/// Where output goes and how rich it may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    /// Whether stderr takes colours.
    pub(crate) colour: bool,
    /// Whether stderr is a terminal that can redraw lines.
    pub(crate) redraw: bool,
}

impl Output {
    /// Looks at stderr and the environment.
    pub(crate) fn new(environment: &Environment) -> Self {
        let redraw = std::io::stderr().is_terminal() && !environment.dumb_terminal;
        Self {
            colour: redraw && !environment.no_color,
            redraw,
        }
    }
}

/// Why data did not reach stdout, the first time.
static LOST: OnceLock<String> = OnceLock::new();

/// Writes data to stdout. A reader that went away is no error of ours; another failure is told, and
/// spoils the end of the program: see [`lost`].
pub(crate) fn data(text: &str) {
    let mut stdout = std::io::stdout().lock();
    let written = stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush());
    if let Err(error) = written
        && error.kind() != ErrorKind::BrokenPipe
    {
        let _ = LOST.set(error.to_string());
    }
}

/// Why not all data could be written to stdout, if so.
pub(crate) fn lost() -> Option<&'static str> {
    LOST.get().map(String::as_str)
}

/// Writes a line to stderr. There is nowhere to complain if that fails.
pub(crate) fn line(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// Text from elsewhere, fit for a terminal: unruly characters are shown, not obeyed.
pub(crate) fn plain(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        if is_unruly(character) && character != '\t' {
            safe.extend(character.escape_default());
        } else {
            safe.push(character);
        }
    }
    safe
}

/// An amount of bytes for people: three digits or more are enough.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if count < 1024 {
        return format!("{count} bytes");
    }
    // Tenths of the unit, cut off.
    let mut tenths = u128::from(count) * 10;
    let mut unit = "";
    for name in UNITS {
        if tenths < 10240 {
            break;
        }
        tenths /= 1024;
        unit = name;
    }
    match tenths % 10 {
        0 => format!("{} {unit}", tenths / 10),
        tenth => format!("{}.{tenth} {unit}", tenths / 10),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_short() {
        for (count, text) in [
            (0, "0 bytes"),
            (1023, "1023 bytes"),
            (1024, "1 KiB"),
            (1536, "1.5 KiB"),
            (100 << 20, "100 MiB"),
            (u64::MAX, "16383.9 PiB"),
        ] {
            assert_eq!(bytes(count), text);
        }
    }

    #[test]
    fn control_characters_are_not_obeyed() {
        assert_eq!(plain("a\u{1b}[31mb\tc\r"), "a\\u{1b}[31mb\tc\\r");
    }
}
