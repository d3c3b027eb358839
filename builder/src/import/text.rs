//! coLinux's text configuration: words of `key=value`, blanks between them.
//!
//! A word may have parts in double quotes, in which blanks and `#` are ordinary; elsewhere `#`
//! begins a comment. `@file` reads more words from a file, whose name is relative to the file that
//! names it. What no key is known of goes to the kernel's command line.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::network::{self, Network};
use super::settings::{
    COBD_MAX, ETH_MAX, OTHER_MAX, Placed, Settings, index, shorten, split_index,
};
use super::{At, ImportError, ReadText};

/// Words of a configuration with all that it includes.
const WORDS_MAX: usize = 10_000;
/// Files that a configuration includes, counted each time.
const INCLUDES_MAX: usize = 32;
/// How deep included files include others.
const DEPTH_MAX: usize = 8;
/// The largest console.
const CELLS_MAX: u16 = 1000;

/// Reads a configuration and what it includes.
pub(super) fn read(file: &Path, text: &str, texts: ReadText<'_>, settings: &mut Settings) {
    let mut reader = Reader {
        settings,
        texts,
        seen: BTreeMap::new(),
        bare: Vec::new(),
        within: Vec::new(),
        words: 0,
        includes: 0,
    };
    reader.file(file, text);
    reader.place_bare();
}

struct Reader<'a> {
    settings: &'a mut Settings,
    texts: ReadText<'a>,
    /// Where each key stood first.
    seen: BTreeMap<String, At>,
    /// Aliases with a path of their own, which takes the first free number at the end.
    bare: Vec<(String, Placed<String>)>,
    /// The files that are being read, the innermost last.
    within: Vec<PathBuf>,
    words: usize,
    includes: usize,
}

impl Reader<'_> {
    fn file(&mut self, file: &Path, text: &str) {
        self.within.push(file.to_owned());
        self.lines(file, text);
        self.within.pop();
    }

    fn lines(&mut self, file: &Path, text: &str) {
        for (number, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
            let at = At {
                file: file.to_owned(),
                line: number + 1,
            };
            let words = match split(line) {
                Ok(words) => words,
                Err(reason) => {
                    self.settings.wrong(&at, reason);
                    continue;
                }
            };
            for word in words {
                self.words += 1;
                if self.words > WORDS_MAX {
                    if self.words == WORDS_MAX + 1 {
                        let reason = format!("there are more than {WORDS_MAX} words");
                        self.settings.wrong(&at, reason);
                    }
                    return;
                }
                match word.strip_prefix('@') {
                    Some(name) => self.include(name, &at),
                    None => self.word(&word, &at),
                }
            }
        }
    }

    fn include(&mut self, name: &str, at: &At) {
        let shown = shorten(name);
        if name.is_empty() {
            self.settings.wrong(at, "@ names no file");
            return;
        }
        self.includes += 1;
        if self.within.len() > DEPTH_MAX || self.includes > INCLUDES_MAX {
            let reason = format!(
                "@{shown}: more than {INCLUDES_MAX} files, or files in files deeper than {DEPTH_MAX}"
            );
            if self.includes <= INCLUDES_MAX + 1 {
                self.settings.wrong(at, reason);
            }
            return;
        }
        let path = match super::paths::adapt(name) {
            Ok(adapted) => adapted.path,
            Err(reason) => {
                self.settings.wrong(at, format!("@{shown}: {reason}"));
                return;
            }
        };
        let folder = at.file.parent().unwrap_or(Path::new(""));
        let path = folder.join(path);
        if self.within.contains(&path) {
            self.settings
                .wrong(at, format!("@{shown}: the file includes itself"));
            return;
        }
        match (self.texts)(&path) {
            Ok(text) => self.file(&path, &text),
            Err(ImportError::File { reason, .. }) => {
                self.settings.wrong(at, format!("@{shown}: {reason}"));
            }
            Err(error) => self.settings.wrong(at, format!("@{shown}: {error}")),
        }
    }

    fn word(&mut self, word: &str, at: &At) {
        let Some((key, value)) = word.split_once('=') else {
            self.kernel_word(word, at);
            return;
        };
        let shown = shorten(word);
        if matches!(key, "kernel" | "initrd" | "mem" | "cocon" | "setcobd") {
            if !self.has_value(key, value, at) {
                return;
            }
            self.again(key, at, false);
            match key {
                "kernel" => self.settings.set_kernel(&shown, at),
                "initrd" => self.settings.set_initrd(&shown, at),
                "mem" => self.settings.set_memory(value, &shown, at),
                "cocon" => self.console(value, &shown, at),
                _ => self.settings.left_out(
                    at,
                    shown,
                    "coop's block devices are always asynchronous",
                ),
            }
            return;
        }
        if is_alias(key) {
            if self.has_value(key, value, at) && self.again(key, at, true) {
                self.alias(key, value, at);
            }
            return;
        }
        match split_index(key) {
            Some((stem @ ("cobd" | "eth" | "cofs" | "scsi" | "ttys" | "exec"), digits)) => {
                self.device(stem, digits, (key, value), at);
            }
            _ => self.kernel_word(word, at),
        }
    }

    fn kernel_word(&mut self, word: &str, at: &At) {
        self.settings.words.push(Placed {
            value: word.to_owned(),
            at: at.clone(),
        });
    }

    fn has_value(&mut self, key: &str, value: &str, at: &At) -> bool {
        if value.is_empty() {
            self.settings.wrong(at, format!("{key} has no value"));
        }
        !value.is_empty()
    }

    /// Takes note of a key. One that stood there before: the last one counts, but a device twice in
    /// one file is an error. Says whether to go on.
    fn again(&mut self, key: &str, at: &At, is_device: bool) -> bool {
        let Some(before) = self.seen.insert(key.to_owned(), at.clone()) else {
            return true;
        };
        if is_device && before.file == at.file {
            let reason = format!("{key} stands in line {} already", before.line);
            self.settings.wrong(at, reason);
            return false;
        }
        let why =
            format!("{key} stands again at {at}, and the last one counts; coLinux took the first");
        // What was said of the one before does not matter any more.
        let start = format!("{key}=");
        self.settings
            .notes
            .retain(|note| note.at != before || !note.what.starts_with(&start));
        self.settings.left_out(&before, key, why);
        true
    }

    fn device(&mut self, stem: &str, digits: &str, (key, value): (&str, &str), at: &At) {
        let limit = match stem {
            "cobd" => COBD_MAX,
            "eth" => ETH_MAX,
            _ => OTHER_MAX,
        };
        let Some(index) = index(digits, limit) else {
            let reason = format!("{}: the number is not below {limit}", shorten(key));
            self.settings.wrong(at, reason);
            return;
        };
        // cobd01 is cobd1.
        let key = format!("{stem}{index}");
        if !self.has_value(&key, value, at) || !self.again(&key, at, true) {
            return;
        }
        let shown = shorten(&format!("{key}={value}"));
        match stem {
            "cobd" => self.settings.set_disk(index, value, &shown, at),
            "eth" => self.network(index, value, &shown, at),
            "cofs" => {
                let why = "folders of the host are not shared with guests yet";
                self.settings.left_out(at, shown, why);
            }
            "scsi" => {
                let why = "coop's guests have no SCSI devices; name the image as a cobd";
                self.settings.left_out(at, shown, why);
            }
            "ttys" => {
                let why = "coop's guests have no serial lines of the host";
                self.settings.left_out(at, shown, why);
            }
            _ => {
                let why = "coop starts no programs of the host beside a guest";
                self.settings.left_out(at, shown, why);
            }
        }
    }

    fn alias(&mut self, key: &str, value: &str, at: &At) {
        let Some(target) = value.strip_prefix(':') else {
            let value = Placed {
                value: value.to_owned(),
                at: at.clone(),
            };
            self.bare.push((key.to_owned(), value));
            return;
        };
        let number = target
            .strip_prefix("cobd")
            .and_then(|digits| index(digits, COBD_MAX));
        match number {
            Some(value) => {
                let value = Placed {
                    value,
                    at: at.clone(),
                };
                self.settings.aliases.insert(key.to_owned(), value);
            }
            None => {
                let target = shorten(target);
                let reason = format!("{key}: '{target}' is not a cobd below {COBD_MAX}");
                self.settings.wrong(at, reason);
            }
        }
    }

    /// Gives aliases with a path of their own the first free number each.
    fn place_bare(&mut self) {
        for (key, path) in std::mem::take(&mut self.bare) {
            let free = (0..COBD_MAX).find(|number| !self.settings.disks.contains_key(number));
            let Some(number) = free else {
                let reason = format!("{key}: there is no free cobd below {COBD_MAX}");
                self.settings.wrong(&path.at, reason);
                continue;
            };
            let shown = shorten(&format!("{key}={}", path.value));
            self.settings
                .set_disk(number, &path.value, &shown, &path.at);
            let value = Placed {
                value: number,
                at: path.at,
            };
            self.settings.aliases.insert(key, value);
        }
    }

    fn console(&mut self, value: &str, shown: &str, at: &At) {
        let parts: Vec<Option<u16>> = value.split('x').map(|part| part.parse().ok()).collect();
        let fits = |cells: u16| (1..=CELLS_MAX).contains(&cells);
        match parts[..] {
            [Some(columns), Some(rows)] if fits(columns) && fits(rows) => {
                self.settings.console = Some((columns, rows));
            }
            [Some(columns), Some(rows), Some(_)] if fits(columns) && fits(rows) => {
                self.settings.console = Some((columns, rows));
                let why = "lines that have left the screen are the terminal's to keep";
                self.settings
                    .left_out(at, format!("{shown}: the third number"), why);
            }
            _ => {
                let reason = format!(
                    "{shown}: write cocon=COLUMNSxROWS[xSCROLL] with numbers from 1 to {CELLS_MAX}"
                );
                self.settings.wrong(at, reason);
            }
        }
    }

    fn network(&mut self, index: u32, value: &str, shown: &str, at: &At) {
        let fields: Vec<&str> = value.split(',').collect();
        let field = |number: usize| fields.get(number).copied().unwrap_or_default();
        let kind = field(0);
        let (most, network) = match kind {
            "slirp" => (
                3,
                Network {
                    kind,
                    mac: field(1),
                    redir: field(2),
                },
            ),
            _ => (
                4,
                Network {
                    kind,
                    mac: field(2),
                    redir: "",
                },
            ),
        };
        if fields.len() > most {
            let reason = format!("{shown}: {kind} has at most {most} parts");
            self.settings.wrong(at, reason);
            return;
        }
        if kind.ends_with("-bridge") && field(1).is_empty() {
            let reason = format!("{shown}: {kind} needs the name of a network of the host");
            self.settings.wrong(at, reason);
            return;
        }
        network::add(self.settings, index, network, shown, at);
    }
}

/// `hda`, `sdb3`.
fn is_alias(key: &str) -> bool {
    let rest = key.strip_prefix("hd").or_else(|| key.strip_prefix("sd"));
    let Some(mut rest) = rest.map(str::chars) else {
        return false;
    };
    rest.next()
        .is_some_and(|letter| letter.is_ascii_lowercase())
        && rest.as_str().len() <= 2
        && rest.all(|digit| digit.is_ascii_digit())
}

/// The words of a line.
fn split(line: &str) -> Result<Vec<String>, &'static str> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quoted = false;
    for character in line.chars() {
        match character {
            '"' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            '#' if !quoted => break,
            blank if blank.is_whitespace() && !quoted => words.extend(word.take()),
            other => word.get_or_insert_default().push(other),
        }
    }
    if quoted {
        return Err("a quote is not closed in its line");
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_split_as_quotes_say() {
        let words = split("  a=\"b c\"d\t\"#e\" f#g h").unwrap();
        assert_eq!(words, ["a=b cd", "#e", "f"]);
        assert!(split("a=\"b").is_err());
        assert_eq!(split("\"\"").unwrap(), [""]);
        assert!(split("# all of it").unwrap().is_empty());
    }

    #[test]
    fn aliases_are_told_from_other_keys() {
        for key in ["hda", "hda1", "sdb12"] {
            assert!(is_alias(key), "{key}");
        }
        for key in ["hd", "hda123", "hdA", "hdab", "xda1", "hd1"] {
            assert!(!is_alias(key), "{key}");
        }
    }
}
