//! coLinux's XML, until 0.6. A document type would bring entities, so there may be none.

use std::path::Path;

use roxmltree::{Document, Node, ParsingOptions};

use super::At;
use super::network::{self, Network};
use super::settings::{COBD_MAX, ETH_MAX, OTHER_MAX, Placed, Settings, index, shorten};

/// The largest document, in bytes. The parser compares the attributes of an element with each other,
/// which takes minutes where an element has a MiB of them.
const BYTES_MAX: usize = 64 << 10;
/// Elements and texts of a document.
const NODES_MAX: u32 = 10_000;
/// Words of the kernel's command line.
const WORDS_MAX: usize = 1000;

/// Reads a configuration.
pub(super) fn read(file: &Path, text: &str, settings: &mut Settings) {
    let text = text
        .trim_start_matches('\u{feff}')
        .trim_start_matches(['\r', '\n', ' ', '\t']);
    let options = ParsingOptions {
        allow_dtd: false,
        nodes_limit: NODES_MAX,
        ..ParsingOptions::default()
    };
    let refused = if text.len() > BYTES_MAX {
        Some(format!("an XML file has at most {BYTES_MAX} bytes"))
    } else if text.contains("xmlns") {
        // Each element could have those of all that it is in.
        Some("coLinux's XML has no namespaces (xmlns)".to_owned())
    } else {
        None
    };
    if let Some(reason) = refused {
        let file = file.to_owned();
        settings.wrong(&At { file, line: 1 }, reason);
        return;
    }
    let document = match Document::parse_with_options(text, options) {
        Ok(document) => document,
        Err(error) => {
            let at = At {
                file: file.to_owned(),
                line: usize::try_from(error.pos().row).unwrap_or(1),
            };
            settings.wrong(
                &at,
                format!("invalid XML: {}", sentence(&error.to_string())),
            );
            return;
        }
    };
    let mut reader = Reader {
        settings,
        file,
        line_ends: text.match_indices('\n').map(|(at, _)| at).collect(),
    };
    reader.root(document.root_element());
}

/// What the parser says, as one of our sentences.
fn sentence(text: &str) -> String {
    let text = shorten(text);
    let mut characters = text.chars();
    match (characters.next(), characters.clone().next()) {
        (Some(first), Some('a'..='z')) => first.to_lowercase().chain(characters).collect(),
        _ => text,
    }
}

struct Reader<'a> {
    settings: &'a mut Settings,
    file: &'a Path,
    line_ends: Vec<usize>,
}

impl Reader<'_> {
    fn at(&self, node: Node<'_, '_>) -> At {
        let start = node.range().start;
        At {
            file: self.file.to_owned(),
            line: self.line_ends.partition_point(|end| *end < start) + 1,
        }
    }

    fn root(&mut self, root: Node<'_, '_>) {
        if root.tag_name().name() != "colinux" {
            let at = self.at(root);
            let name = shorten(root.tag_name().name());
            let reason = format!("the outermost element is {name}, not colinux");
            self.settings.wrong(&at, reason);
            return;
        }
        for node in root.children().filter(Node::is_element) {
            self.element(node);
        }
    }

    fn element(&mut self, node: Node<'_, '_>) {
        let at = self.at(node);
        match node.tag_name().name() {
            "block_device" => self.block_device(node, &at),
            "cofs_device" => self.cofs_device(node, &at),
            "image" => {
                self.only(node, &["path"], &at);
                let path = node.attribute("path").unwrap_or("vmlinux");
                self.settings
                    .set_kernel(&shorten(&format!("image path={path}")), &at);
            }
            "initrd" => {
                self.only(node, &["path"], &at);
                let path = node.attribute("path").unwrap_or_default();
                self.settings
                    .set_initrd(&shorten(&format!("initrd path={path}")), &at);
            }
            "memory" => {
                self.only(node, &["size"], &at);
                if let Some(size) = self.needs(node, "size", &at) {
                    let what = format!("memory size={}", shorten(size));
                    self.once(self.settings.memory.is_some(), "memory", &at);
                    self.settings.set_memory(size.trim(), &what, &at);
                }
            }
            "bootparams" => self.bootparams(node, &at),
            "network" => self.network(node, &at),
            other => {
                let what = format!("element {}", shorten(other));
                self.settings
                    .left_out(&at, what, "coop knows no such element of coLinux");
            }
        }
    }

    /// Attributes that are not known are told.
    fn only(&mut self, node: Node<'_, '_>, known: &[&str], at: &At) {
        for attribute in node
            .attributes()
            .filter(|attribute| !known.contains(&attribute.name()))
        {
            let element = node.tag_name().name();
            let what = format!("{element} {}={}", attribute.name(), attribute.value());
            let why = "coop knows no such attribute of coLinux";
            self.settings.left_out(at, shorten(&what), why);
        }
    }

    fn needs<'n>(&mut self, node: Node<'n, '_>, name: &str, at: &At) -> Option<&'n str> {
        let value = node.attribute(name).filter(|value| !value.is_empty());
        if value.is_none() {
            let element = node.tag_name().name();
            self.settings.wrong(at, format!("{element} needs '{name}'"));
        }
        value
    }

    fn once(&mut self, is_there: bool, what: &str, at: &At) {
        if is_there {
            self.settings
                .wrong(at, format!("{what} stands there twice"));
        }
    }

    fn index(&mut self, node: Node<'_, '_>, limit: u32, at: &At) -> Option<u32> {
        let text = self.needs(node, "index", at)?;
        let found = index(text, limit);
        if found.is_none() {
            let (element, text) = (node.tag_name().name(), shorten(text));
            let reason = format!("{element}: index '{text}' is not a number below {limit}");
            self.settings.wrong(at, reason);
        }
        found
    }

    fn is_enabled(&mut self, node: Node<'_, '_>, what: &str, at: &At) -> bool {
        let is_enabled = node.attribute("enabled") == Some("true");
        if !is_enabled {
            self.settings
                .left_out(at, what, "it is not enabled=\"true\"");
        }
        is_enabled
    }

    fn block_device(&mut self, node: Node<'_, '_>, at: &At) {
        self.only(node, &["index", "path", "enabled", "alias"], at);
        let (Some(number), Some(path)) =
            (self.index(node, COBD_MAX, at), self.needs(node, "path", at))
        else {
            return;
        };
        let what = shorten(&format!("block_device {number} path={path}"));
        if !self.is_enabled(node, &what, at) {
            return;
        }
        let is_there = self.settings.disks.contains_key(&number);
        self.once(is_there, &format!("block_device {number}"), at);
        self.settings.set_disk(number, path, &what, at);
        let alias = node.attribute("alias").filter(|alias| !alias.is_empty());
        if let Some(alias) = alias {
            let alias = alias.strip_prefix("/dev/").unwrap_or(alias);
            let value = Placed {
                value: number,
                at: at.clone(),
            };
            let is_there = self
                .settings
                .aliases
                .insert(shorten(alias), value)
                .is_some();
            self.once(is_there, &format!("alias {}", shorten(alias)), at);
        }
    }

    fn cofs_device(&mut self, node: Node<'_, '_>, at: &At) {
        self.only(node, &["index", "path", "type", "enabled"], at);
        let Some(number) = self.index(node, OTHER_MAX, at) else {
            return;
        };
        let path = node.attribute("path").unwrap_or_default();
        let what = shorten(&format!("cofs_device {number} path={path}"));
        if self.is_enabled(node, &what, at) {
            let why = "folders of the host are not shared with guests yet";
            self.settings.left_out(at, what, why);
        }
    }

    fn bootparams(&mut self, node: Node<'_, '_>, at: &At) {
        self.only(node, &[], at);
        for child in node.children().filter(|child| !child.is_comment()) {
            let Some(text) = child.text().filter(|_| child.is_text()) else {
                let reason = "bootparams: has something else than text in it";
                self.settings.wrong(at, reason);
                return;
            };
            for word in text.split_whitespace() {
                if self.settings.words.len() >= WORDS_MAX {
                    let reason = format!("bootparams: more than {WORDS_MAX} words");
                    self.settings.wrong(at, reason);
                    return;
                }
                self.settings.words.push(Placed {
                    value: word.to_owned(),
                    at: at.clone(),
                });
            }
        }
    }

    fn network(&mut self, node: Node<'_, '_>, at: &At) {
        self.only(
            node,
            &[
                "index", "type", "name", "mac", "redir", "promisc", "enabled",
            ],
            at,
        );
        let Some(number) = self.index(node, ETH_MAX, at) else {
            return;
        };
        let Some(kind) = self.needs(node, "type", at) else {
            return;
        };
        let what = shorten(&format!("network {number} type={kind}"));
        if node.attribute("enabled").is_some() && !self.is_enabled(node, &what, at) {
            return;
        }
        let is_there = self.settings.networks.contains_key(&number);
        self.once(is_there, &format!("network {number}"), at);
        let network = Network {
            kind,
            mac: node.attribute("mac").unwrap_or_default(),
            redir: node.attribute("redir").unwrap_or_default(),
        };
        network::add(self.settings, number, network, &what, at);
    }
}
