//! coMosix's `comosix.ini`. Sections and keys are the same in any case, as Windows has it.

use std::collections::BTreeMap;
use std::path::Path;

use super::settings::{NfsSetting, Placed, Settings, shorten};
use super::{At, Outcome};

/// Lines of a configuration.
const LINES_MAX: usize = 10_000;
/// Images that coMosix took.
const COBD_MAX: u32 = 10;
/// What coMosix gave its guest if nobody said otherwise, in MiB.
const MEMORY_DEFAULT_MIB: &str = "16";
/// What its servers exported if nobody said otherwise.
const PATH_DEFAULT: &str = "/comosix";

/// Reads a configuration.
pub(super) fn read(file: &Path, text: &str, settings: &mut Settings) {
    let mut values = Values::default();
    let mut section: Option<String> = None;
    for (number, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        let at = At {
            file: file.to_owned(),
            line: number + 1,
        };
        if number >= LINES_MAX {
            settings.wrong(&at, format!("there are more than {LINES_MAX} lines"));
            break;
        }
        let line = line.trim();
        if line.is_empty() || line.starts_with([';', '#']) {
            continue;
        }
        if let Some(rest) = line.strip_prefix('[') {
            section = None;
            match rest.strip_suffix(']').map(str::trim) {
                Some(name) if !name.is_empty() => section = Some(name.to_ascii_lowercase()),
                _ => settings.wrong(&at, format!("'{}' is not a [section]", shorten(line))),
            }
        } else if let Some((key, value)) = line.split_once('=') {
            let key = key.trim().to_ascii_lowercase();
            match &section {
                Some(section) => values.add(settings, section, key, unquote(value.trim()), at),
                None => settings.wrong(&at, format!("{}: stands in no section", shorten(&key))),
            }
        } else {
            let reason = format!("'{}' is neither a [section] nor key=value", shorten(line));
            settings.wrong(&at, reason);
        }
    }
    values.take(file, settings);
}

fn unquote(value: &str) -> &str {
    let inner = value
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'));
    inner.unwrap_or(value)
}

/// The known keys, each once, with their places.
#[derive(Default)]
struct Values(BTreeMap<(String, String), Placed<String>>);

impl Values {
    fn add(&mut self, settings: &mut Settings, section: &str, key: String, value: &str, at: At) {
        let what = shorten(&format!("{key}={value}"));
        let is_known = match section {
            "comosix" => key == "memory_size",
            "nfs" => matches!(&*key, "server" | "path" | "share" | "options"),
            "cobd" => key.starts_with("path_"),
            _ => false,
        };
        if !is_known {
            let what = format!("[{}] {what}", shorten(section));
            settings.left_out(&at, what, "coop knows no such key of coMosix");
            return;
        }
        // Options may be none.
        if value.is_empty() && key != "options" {
            settings.wrong(&at, format!("{} has no value", shorten(&key)));
            return;
        }
        // share is another name of path.
        let name = if key == "share" {
            "path".to_owned()
        } else {
            key
        };
        let placed = Placed {
            value: value.to_owned(),
            at: at.clone(),
        };
        let place = (section.to_owned(), name);
        if let Some(before) = self.0.get(&place) {
            let reason = format!("{what}: stands in line {} already", before.at.line);
            settings.wrong(&at, reason);
            return;
        }
        self.0.insert(place, placed);
    }

    fn get(&mut self, section: &str, key: &str) -> Option<Placed<String>> {
        self.0.remove(&(section.to_owned(), key.to_owned()))
    }

    fn take(mut self, file: &Path, settings: &mut Settings) {
        let at = At {
            file: file.to_owned(),
            line: 1,
        };
        let memory = self.get("comosix", "memory_size");
        let (text, at) = match &memory {
            Some(memory) => (&*memory.value, memory.at.clone()),
            None => (MEMORY_DEFAULT_MIB, at),
        };
        let what = format!("memory_size={}", shorten(text));
        settings.set_memory(text, &what, &at);
        self.take_nfs(settings);
        self.take_disks(settings);
        // coMosix's node was always on the network.
        settings.networks.insert(0, at);
    }

    fn take_nfs(&mut self, settings: &mut Settings) {
        let path = self.get("nfs", "path");
        let options = self.get("nfs", "options");
        let Some(server) = self.get("nfs", "server") else {
            if let Some(at) = path.or(options).map(|placed| placed.at) {
                settings.wrong(&at, "[NFS] needs a server");
            }
            return;
        };
        let path = path.map_or_else(|| PATH_DEFAULT.to_owned(), |path| path.value);
        if !path.starts_with('/') {
            let reason = format!("[NFS] path '{}' is not absolute", shorten(&path));
            settings.wrong(&server.at, reason);
            return;
        }
        settings.nfs = Some(Placed {
            value: NfsSetting {
                server: server.value,
                path,
                options: options.map(|options| options.value).unwrap_or_default(),
            },
            at: server.at,
        });
    }

    /// The list of images ends where a number is missing.
    fn take_disks(mut self, settings: &mut Settings) {
        let mut number = 0;
        while let Some(path) = self.get("cobd", &format!("path_{number}")) {
            let what = shorten(&format!("path_{number}={}", path.value));
            settings.set_disk(number, &path.value, &what, &path.at);
            number += 1;
            if number == COBD_MAX {
                break;
            }
        }
        for ((_, key), placed) in self.0 {
            let digits = key.strip_prefix("path_").unwrap_or_default();
            let what = shorten(&format!("{key}={}", placed.value));
            let is_index =
                super::settings::index(digits, COBD_MAX).is_some_and(|_| digits.len() == 1);
            if is_index {
                let why = format!(
                    "is skipped as coMosix skipped it: there is no path_{number}, and the list \
                     ends at a gap; name it path_{number} to have it"
                );
                settings.note(&placed.at, Outcome::LeftOut, what, why);
            } else {
                let reason = format!("{what}: the number is not one digit");
                settings.wrong(&placed.at, reason);
            }
        }
    }
}
