//! The text of the recipe, with comments for whoever reads it.

use std::fmt::Write as _;
use std::path::Path;

use coop_appliance::{Forward, Protocol};

use super::machine::{Machine, Root};
use super::settings::{escape, is_text, shorten};
use super::{Dialect, Note};

/// What a recipe's text is made of.
pub(super) struct Text<'a> {
    pub(super) machine: &'a Machine,
    pub(super) dialect: Dialect,
    /// The configuration.
    pub(super) file: &'a Path,
    pub(super) notes: &'a [Note],
    /// What is put before relative names of files.
    pub(super) folder: Option<&'a Path>,
}

impl Text<'_> {
    /// Writes the recipe.
    pub(super) fn render(&self) -> String {
        let Self {
            machine,
            dialect,
            file,
            notes,
            ..
        } = *self;
        let mut text = String::new();
        let from = file.file_name().unwrap_or_default().to_string_lossy();
        let from = shorten(&from);
        // Writing to a text cannot fail.
        let _ = writeln!(text, "# Imported by coop from {from} ({dialect}).");
        if !notes.is_empty() {
            let _ = writeln!(text, "#\n# What is not as it was, with the line of {from}:");
            for note in notes {
                let place = match note.at.file == file {
                    true => note.at.line.to_string(),
                    false => note.at.to_string(),
                };
                let _ = writeln!(text, "#   {}: {}: {}", escape(&place), note.what, note.why);
            }
        }
        let _ = writeln!(text, "name: {}", machine.name);
        let _ = writeln!(
            text,
            "description: {}",
            quoted(&format!("Imported from {from}"))
        );
        self.rootfs(&mut text);
        if !machine.cmdline.is_empty() {
            let words: Vec<String> = machine.cmdline.iter().map(|word| quoted(word)).collect();
            let _ = writeln!(text, "\nkernel:\n  cmdline: [{}]", words.join(", "));
        }
        let _ = writeln!(text, "\ndevices:");
        if let Some(bytes) = machine.memory_bytes {
            let _ = writeln!(text, "  memory: {}MiB", bytes >> 20);
        }
        root(&mut text, machine);
        self.cobd(&mut text);
        conet(&mut text, machine);
        if let Some((columns, rows)) = machine.console {
            let _ = writeln!(text, "  cocon: {{columns: {columns}, rows: {rows}}}");
        }
        text
    }

    fn rootfs(&self, text: &mut String) {
        let machine = self.machine;
        let _ = writeln!(text, "\nrootfs:\n  source:");
        match (&machine.root, machine.disks.first()) {
            (Root::Cobd, Some(root)) => {
                let (number, path) = (root.number, self.name(&root.path));
                let _ = writeln!(text, "    # What was /dev/cobd{number}.");
                let _ = writeln!(text, "    disk: {{path: {path}}}");
            }
            _ => {
                let _ = writeln!(
                    text,
                    "    # A recipe needs one; the guest's root is the server's."
                );
                let _ = writeln!(text, "    debian: {{suite: trixie, variant: essential}}");
            }
        }
        if matches!(machine.root, Root::Nfs(_)) {
            let _ = writeln!(
                text,
                "  # The server's root stays as it is; these are in memory."
            );
            let _ = writeln!(text, "  readonly:");
            let writable = "{/home: copy, /root: copy, /tmp: empty, /var: copy}";
            let _ = writeln!(text, "    writable: {writable}\n    etc: []");
        }
    }

    fn cobd(&self, text: &mut String) {
        let machine = self.machine;
        let others = match machine.root {
            Root::Cobd => machine.disks.get(1..).unwrap_or_default(),
            Root::Nfs(_) => &machine.disks,
        };
        if others.is_empty() {
            return;
        }
        let _ = writeln!(text, "  cobd:\n    - root: {{size: auto}}");
        for disk in others {
            let _ = writeln!(
                text,
                "    - cobd{}: {{file: {}}}",
                disk.number,
                self.name(&disk.path)
            );
        }
    }

    /// A name as the recipe has it.
    fn name(&self, path: &str) -> String {
        let path = match self.folder {
            Some(folder) => folder.join(path).display().to_string(),
            None => path.to_owned(),
        };
        quoted(&path)
    }
}

fn root(text: &mut String, machine: &Machine) {
    let Root::Nfs(nfs) = &machine.root else {
        return;
    };
    let _ = writeln!(text, "  root:\n    nfs:");
    let _ = writeln!(text, "      server: {}", quoted(&nfs.server));
    let _ = writeln!(text, "      path: {}", quoted(&nfs.path));
    if !nfs.options.is_empty() {
        let options: Vec<String> = nfs.options.iter().map(|one| quoted(one)).collect();
        let _ = writeln!(text, "      options: [{}]", options.join(", "));
    }
}

fn conet(text: &mut String, machine: &Machine) {
    if !machine.network {
        let _ = writeln!(text, "  conet: []");
        return;
    }
    if machine.forwards.is_empty() {
        let _ = writeln!(text, "  conet: [user]");
        return;
    }
    let _ = writeln!(text, "  conet:\n    - user:\n        forward:");
    for forward in &machine.forwards {
        let _ = writeln!(text, "          - {}", quoted(&written(forward)));
    }
}

fn written(forward: &Forward) -> String {
    let protocol = match forward.protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    };
    let (host, guest) = (forward.host_port, forward.guest_port);
    match forward.count {
        1 => format!("{protocol}:{host}:{guest}"),
        count => format!("{protocol}:{host}:{guest}:{count}"),
    }
}

/// A text in double quotes, as YAML and JSON read them alike; `${` begins no variable.
fn quoted(text: &str) -> String {
    let json = serde_json::Value::String(text.replace("${", "$${")).to_string();
    let mut quoted = String::with_capacity(json.len());
    for character in json.chars() {
        if is_text(character) {
            quoted.push(character);
        } else {
            // All of them have four digits at most. Writing to a text cannot fail.
            let _ = write!(quoted, "\\u{:04x}", u32::from(character));
        }
    }
    quoted
}
