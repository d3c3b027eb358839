//! The recipe's `kernel:`: first as it is written, then what it means.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::Path;

use fs_err as fs;

use super::decode::{At, Decoder, Keys};
use super::diagnostic::{Position, Problem, nearest};
use super::model::{
    BuildPlace, HostFile, Kernel, KernelLocation, KernelOrigin, KernelPackage, KernelSource,
};
use super::names;
use super::node::{Node, Value};
use super::resolve::Resolver;
use super::units::shorten;
use super::written::{self, Tarball};
use crate::kernel::Target;
use crate::kernel::config::{
    self, Condition, FRAGMENT_BYTES_MAX, Place, Wanted, check_symbol, check_value,
};

const KERNEL: Keys = Keys {
    known: &["package", "source", "config", "modules", "cmdline"],
    later: &[],
};
const PACKAGE: Keys = Keys {
    known: &["name", "suite"],
    later: &[],
};
const SOURCE: Keys = Keys {
    known: &["debian", "suite", "tarball", "patches", "target", "in"],
    later: &[],
};
const DEBIAN: Keys = Keys {
    known: &["package", "suite"],
    later: &[],
};
const TARBALL: Keys = Keys {
    known: &["path", "url", "sha256"],
    later: &[],
};

/// The suite of kernels and their sources; the newest kernels are there.
const SUITE: &str = "sid";
/// The entry of `config:` that starts from the architecture's defconfig.
const DEFCONFIG: &str = "defconfig";
/// The name of a file that lists patches, as quilt has it.
const SERIES: &str = "series";
/// The largest series, in bytes.
const SERIES_BYTES_MAX: usize = 1 << 20;
/// The most patches; Debian's own kernel has about a hundred.
const PATCHES_MAX: usize = 2000;
/// The most wanted symbols of all entries together.
const WANTED_MAX: usize = 100_000;

/// `kernel:` as it is written.
#[derive(Default)]
pub(super) struct WrittenKernel {
    package: Option<WrittenPackage>,
    source: Option<WrittenSource>,
    config: Vec<ConfigEntry>,
    modules: Option<At<bool>>,
    cmdline: Vec<At<String>>,
}

struct WrittenPackage {
    name: Option<At<String>>,
    suite: Option<At<String>>,
}

struct WrittenSourcePackage {
    package: At<String>,
    suite: Option<At<String>>,
}

struct WrittenSource {
    at: Position,
    debian: Option<WrittenSourcePackage>,
    suite: Option<At<String>>,
    tarball: Option<Tarball>,
    patches: Vec<At<String>>,
    target: Option<At<Target>>,
    place: Option<At<BuildPlace>>,
}

/// An entry of `config:`, with its path for sentences.
struct ConfigEntry {
    path: String,
    content: ConfigContent,
}

enum ConfigContent {
    /// A fragment's name or path.
    Fragment(At<String>),
    /// A symbol and its value as in a .config.
    Symbol(At<String>, String),
}

/// Reads `kernel:`.
pub(super) fn read(d: &mut Decoder<'_>, node: &Node<'_>, path: &str) -> Option<WrittenKernel> {
    let fields = d.map(node, path, &KERNEL)?;
    let config = d.field(&fields, "config", |d, node, path| {
        d.list(node, path, config_entries)
    });
    Some(WrittenKernel {
        package: d.field(&fields, "package", package),
        source: d.field(&fields, "source", source),
        config: config.unwrap_or_default().into_iter().flatten().collect(),
        modules: d.field(&fields, "modules", |d, node, path| {
            let value = d.boolean(node, path)?;
            Some(At { value, at: node.at })
        }),
        cmdline: d
            .field(&fields, "cmdline", Decoder::texts)
            .unwrap_or_default(),
    })
}

fn package(d: &mut Decoder<'_>, node: &Node<'_>, path: &str) -> Option<WrittenPackage> {
    let fields = d.map(node, path, &PACKAGE)?;
    Some(WrittenPackage {
        name: d.field(&fields, "name", Decoder::text),
        suite: d.field(&fields, "suite", Decoder::text),
    })
}

fn source(d: &mut Decoder<'_>, node: &Node<'_>, path: &str) -> Option<WrittenSource> {
    let fields = d.map(node, path, &SOURCE)?;
    Some(WrittenSource {
        at: fields.at(),
        debian: d.field(&fields, "debian", debian),
        suite: d.field(&fields, "suite", Decoder::text),
        tarball: d.field(&fields, "tarball", tarball),
        patches: d
            .field(&fields, "patches", Decoder::texts)
            .unwrap_or_default(),
        target: d.field(&fields, "target", |d, node, path| {
            d.parsed(node, path, target)
        }),
        place: d.field(&fields, "in", |d, node, path| d.parsed(node, path, place)),
    })
}

/// `linux-source-7.2`, or a map of package and suite.
fn debian(d: &mut Decoder<'_>, node: &Node<'_>, path: &str) -> Option<WrittenSourcePackage> {
    if !matches!(node.value, Value::Map(_)) {
        return Some(WrittenSourcePackage {
            package: d.text(node, path)?,
            suite: None,
        });
    }
    let fields = d.map(node, path, &DEBIAN)?;
    let package = d.required(&fields, "package", Decoder::text);
    let suite = d.field(&fields, "suite", Decoder::text);
    Some(WrittenSourcePackage {
        package: package?,
        suite,
    })
}

fn tarball(d: &mut Decoder<'_>, node: &Node<'_>, path: &str) -> Option<Tarball> {
    let fields = d.map(node, path, &TARBALL)?;
    Some(written::archive(d, &fields))
}

fn target(text: &str) -> Result<Target, String> {
    Target::parse(text).ok_or_else(|| unknown("target", text, &["um", "x86_64"]))
}

fn place(text: &str) -> Result<BuildPlace, String> {
    match text {
        "host" => Ok(BuildPlace::Host),
        "guest" => Ok(BuildPlace::Guest),
        other => Err(unknown("place", other, &["host", "guest"])),
    }
}

fn unknown(what: &str, found: &str, known: &[&str]) -> String {
    let found = shorten(found);
    format!(
        "unknown {what} '{found}'; known are {}",
        known.join(" and ")
    )
}

fn config_entries(d: &mut Decoder<'_>, node: &Node<'_>, path: &str) -> Option<Vec<ConfigEntry>> {
    let Value::Map(entries) = &node.value else {
        let name = d.text(node, path)?;
        let path = path.to_owned();
        let content = ConfigContent::Fragment(name);
        return Some(vec![ConfigEntry { path, content }]);
    };
    let mut symbols = Vec::new();
    for (key, value) in entries {
        let path = format!("{path}.{}", shorten(&key.name));
        let Some(value) = symbol_value(d, value, &path) else {
            continue;
        };
        let symbol = At {
            value: with_prefix(&key.name),
            at: key.at,
        };
        let content = ConfigContent::Symbol(symbol, value);
        symbols.push(ConfigEntry { path, content });
    }
    Some(symbols)
}

/// A recipe may leave the prefix of symbols out.
fn with_prefix(symbol: &str) -> String {
    if symbol.starts_with("CONFIG_") {
        symbol.to_owned()
    } else {
        format!("CONFIG_{symbol}")
    }
}

/// A YAML value as a .config writes it: true and false are y and n, text is put in quotes but for
/// y, m and n.
fn symbol_value(d: &mut Decoder<'_>, node: &Node<'_>, path: &str) -> Option<String> {
    let text = match &node.value {
        Value::Bool(true) => return Some("y".to_owned()),
        Value::Bool(false) => return Some("n".to_owned()),
        Value::Number(number) => return Some(number.clone().into_owned()),
        // Its variable may have stood for anything.
        Value::Filled(text) if check_value("", text).is_ok() => return Some(text.clone()),
        Value::Filled(text) if text == "true" => return Some("y".to_owned()),
        Value::Filled(text) if text == "false" => return Some("n".to_owned()),
        _ => d.text(node, path)?.value,
    };
    if matches!(&*text, "y" | "m" | "n") {
        return Some(text);
    }
    if matches!(
        &*text.to_ascii_lowercase(),
        "yes" | "no" | "on" | "off" | "y" | "m" | "n"
    ) {
        let reason = format!("'{text}' is none of y, m and n");
        let problem = Problem::Value {
            path: path.to_owned(),
            reason,
        };
        let hint = format!("where this text is meant, write '\"{text}\"'");
        d.report(node.at, problem, Some(hint));
        return None;
    }
    // Text that has its quotes already is in the form of a .config.
    if text.starts_with('"') && check_value("", &text).is_ok() {
        return Some(text);
    }
    Some(config::quote(&text))
}

impl Resolver<'_, '_> {
    /// Turns `kernel:` into its meaning.
    pub(super) fn kernel(&mut self, written: WrittenKernel) -> Kernel {
        let is_package = written.package.is_some();
        let origin = self.origin(written.package, written.source);
        let (defconfig, mut wanted) = self.config(written.config, is_package);
        let modules = written.modules.as_ref().is_none_or(|at| at.value);
        if let Some(at) = written.modules.filter(|at| !at.value) {
            wanted.push(Wanted {
                symbol: "CONFIG_MODULES".to_owned(),
                value: "n".to_owned(),
                place: in_recipe(at.at),
                condition: Condition::default(),
            });
        }
        Kernel {
            origin,
            wanted,
            defconfig,
            modules,
            cmdline: self.all_checked(written.cmdline, "kernel.cmdline", names::kernel_word),
        }
    }

    fn origin(
        &mut self,
        package: Option<WrittenPackage>,
        source: Option<WrittenSource>,
    ) -> KernelOrigin {
        match (package, source) {
            (None, None) => KernelOrigin::Default,
            (Some(package), None) => KernelOrigin::Package(self.kernel_package(package)),
            (Some(_), Some(source)) => {
                let reason = "has both a package and a source";
                self.d.reject(source.at, "kernel", reason);
                KernelOrigin::Default
            }
            (None, Some(source)) => self
                .kernel_source(source)
                .map_or(KernelOrigin::Default, KernelOrigin::Source),
        }
    }

    fn kernel_package(&mut self, written: WrittenPackage) -> KernelPackage {
        let name = written
            .name
            .map(|name| self.checked(name, "kernel.package.name", kernel_package_name));
        let default = KernelPackage::user_mode_linux();
        KernelPackage {
            name: name.unwrap_or(default.name),
            suite: self.kernel_suite(written.suite, "kernel.package.suite"),
        }
    }

    fn kernel_suite(&mut self, written: Option<At<String>>, path: &str) -> String {
        written.map_or_else(
            || SUITE.to_owned(),
            |suite| self.checked(suite, path, names::suite),
        )
    }

    fn kernel_source(&mut self, written: WrittenSource) -> Option<KernelSource> {
        const PATH: &str = "kernel.source";
        let before = self.d.diagnostics.len();
        if let (None, Some(suite)) = (&written.debian, &written.suite) {
            let reason = "a suite goes with debian only";
            self.d.reject(suite.at, "kernel.source.suite", reason);
        }
        let location = match (written.debian, written.tarball) {
            (Some(debian), None) => Some(self.source_package(debian, written.suite)),
            (None, Some(tarball)) => self
                .tarball_location(tarball, "kernel.source.tarball")
                .map(KernelLocation::Tarball),
            (Some(_), Some(tarball)) => {
                let reason = "has both a debian and a tarball";
                self.d.reject(tarball.at, PATH, reason);
                None
            }
            (None, None) => {
                // What is there may have been reported already.
                if before == self.d.diagnostics.len() {
                    let reason = "needs a debian or a tarball";
                    self.d.reject(written.at, PATH, reason);
                }
                None
            }
        };
        Some(KernelSource {
            patches: self.patches(written.patches),
            location: location?,
            target: written.target.map_or(Target::Um, |at| at.value),
            place: written.place.map_or(BuildPlace::Host, |at| at.value),
        })
    }

    fn source_package(
        &mut self,
        debian: WrittenSourcePackage,
        beside: Option<At<String>>,
    ) -> KernelLocation {
        if let (Some(_), Some(beside)) = (&debian.suite, &beside) {
            let reason = "the suite is in debian already";
            self.d.reject(beside.at, "kernel.source.suite", reason);
        }
        let path = "kernel.source.debian";
        KernelLocation::Debian {
            package: self.checked(debian.package, path, source_package_name),
            suite: self.kernel_suite(debian.suite.or(beside), "kernel.source.suite"),
        }
    }

    /// The patches in their order, a series replaced by what it lists.
    fn patches(&mut self, written: Vec<At<String>>) -> Vec<HostFile> {
        let mut patches = Vec::new();
        for (index, entry) in written.into_iter().enumerate() {
            let path = format!("kernel.source.patches[{index}]");
            let at = entry.at;
            let before = self.d.diagnostics.len();
            let file = self.host_file(entry, &path);
            if self.d.diagnostics.len() > before {
                continue;
            }
            if file.path.file_name().is_some_and(|name| name == SERIES) {
                self.series(&file, at, &path, &mut patches);
            } else {
                patches.push(file);
            }
        }
        if patches.len() > PATCHES_MAX {
            let reason = format!("more than {PATCHES_MAX} patches");
            let at = Position::default();
            self.d.reject(at, "kernel.source.patches", reason);
        }
        patches
    }

    /// Adds the patches that a series lists; they lie in its folder.
    fn series(&mut self, series: &HostFile, at: Position, path: &str, patches: &mut Vec<HostFile>) {
        let text = match read_limited(&series.path, SERIES_BYTES_MAX) {
            Ok(text) => text,
            Err(reason) => return self.d.reject(at, path, reason),
        };
        let mut seen = BTreeSet::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default().trim();
            if line.is_empty() {
                continue;
            }
            let name = match series_line(line) {
                Ok(name) if seen.insert(name) => name,
                Ok(name) => {
                    let reason = format!("'{}' is listed twice", shorten(name));
                    return self.in_series(series, index, at, path, &reason);
                }
                Err(reason) => return self.in_series(series, index, at, path, &reason),
            };
            let beside = |whole: &Path| whole.with_file_name("").join(name);
            let full = beside(&series.path);
            if !fs::metadata(&full).is_ok_and(|metadata| metadata.is_file()) {
                let reason = format!("there is no file {}", shorten(&full.display().to_string()));
                return self.in_series(series, index, at, path, &reason);
            }
            patches.push(HostFile {
                written: beside(Path::new(&series.written)).display().to_string(),
                path: full,
            });
        }
    }

    fn in_series(
        &mut self,
        series: &HostFile,
        index: usize,
        at: Position,
        path: &str,
        reason: &str,
    ) {
        let line = index.saturating_add(1);
        let reason = format!("line {line} of {}: {reason}", series.written);
        self.d.reject(at, path, reason);
    }

    /// Whether to start from the defconfig, and what is wanted, in order.
    fn config(&mut self, entries: Vec<ConfigEntry>, is_package: bool) -> (bool, Vec<Wanted>) {
        let mut defconfig = false;
        let mut wanted = Vec::new();
        for (index, ConfigEntry { path, content }) in entries.into_iter().enumerate() {
            match content {
                ConfigContent::Fragment(name) if name.value == DEFCONFIG => {
                    if is_package {
                        let reason = "a package's kernel is configured already";
                        self.d.reject(name.at, &path, reason);
                    } else if index > 0 {
                        let reason = "defconfig is what the rest is added to, so it comes first";
                        self.d.reject(name.at, &path, reason);
                    }
                    defconfig = true;
                }
                ConfigContent::Fragment(name) => self.fragment(&name, &path, &mut wanted),
                ConfigContent::Symbol(symbol, value) => {
                    self.symbol(symbol, value, &path, &mut wanted);
                }
            }
            if wanted.len() > WANTED_MAX {
                let reason = format!("more than {WANTED_MAX} symbols");
                self.d.reject(Position::default(), &path, reason);
                break;
            }
        }
        (defconfig, wanted)
    }

    fn symbol(&mut self, symbol: At<String>, value: String, path: &str, wanted: &mut Vec<Wanted>) {
        let checked = check_symbol(&symbol.value).and_then(|()| check_value(&symbol.value, &value));
        if let Err(reason) = checked {
            self.d.reject(symbol.at, path, reason);
        }
        wanted.push(Wanted {
            symbol: symbol.value,
            value,
            place: in_recipe(symbol.at),
            condition: Condition::default(),
        });
    }

    /// Adds what a fragment wants: one that coop carries, or a file.
    fn fragment(&mut self, name: &At<String>, path: &str, wanted: &mut Vec<Wanted>) {
        let text = name.value.as_str();
        let is_path = text.contains('/') || text.ends_with(".config");
        let (content, origin) = if is_path {
            let before = self.d.diagnostics.len();
            let file = self.host_file(name.clone(), path);
            if self.d.diagnostics.len() > before {
                return;
            }
            match read_limited(&file.path, FRAGMENT_BYTES_MAX) {
                Ok(content) => (content, file.written),
                Err(reason) => return self.d.reject(name.at, path, reason),
            }
        } else if let Some(content) = config::fragment(text) {
            (content.to_owned(), format!("fragment {text}"))
        } else {
            return self.unknown_fragment(name, path);
        };
        match config::parse(&content, &origin) {
            Ok(parsed) => wanted.extend(parsed),
            Err(error) => self.d.reject(name.at, path, error.to_string()),
        }
    }

    fn unknown_fragment(&mut self, name: &At<String>, path: &str) {
        let problem = Problem::Value {
            path: path.to_owned(),
            reason: format!("unknown fragment '{}'", shorten(&name.value)),
        };
        let known = || config::fragment_names().chain([DEFCONFIG]);
        let hint = nearest(&name.value, known()).map_or_else(
            || {
                let known: Vec<&str> = known().collect();
                format!(
                    "known are {}; a file's path has a slash in it",
                    known.join(", ")
                )
            },
            |near| format!("did you mean '{near}'?"),
        );
        self.d.report(name.at, problem, Some(hint));
    }
}

fn in_recipe(at: Position) -> Place {
    Place {
        origin: "recipe".to_owned(),
        line: at.line,
    }
}

/// A package with a kernel whose layout coop knows.
fn kernel_package_name(text: &str) -> Result<(), String> {
    names::package(text)?;
    if text == "user-mode-linux" || text.starts_with("linux-image-") {
        return Ok(());
    }
    let text = shorten(text);
    Err(format!(
        "'{text}' is no package of a kernel that coop knows; those are user-mode-linux and linux-image-…"
    ))
}

/// A package with a kernel's source.
fn source_package_name(text: &str) -> Result<(), String> {
    names::package(text)?;
    if text == "linux-source" || text.starts_with("linux-source-") {
        return Ok(());
    }
    let text = shorten(text);
    Err(format!(
        "'{text}' is no package of a kernel's source; those are named like linux-source-7.2"
    ))
}

/// The patch that a line of a series names, without its comment. Patches are applied with `-p1`.
fn series_line(line: &str) -> Result<&str, String> {
    let mut words = line.split_whitespace();
    let name = words.next().unwrap_or_default();
    if let Some(option) = words.find(|word| *word != "-p1") {
        let option = shorten(option);
        return Err(format!("patches are applied with -p1, not with '{option}'"));
    }
    let inside = Path::new(name)
        .components()
        .all(|part| matches!(part, std::path::Component::Normal(_)));
    if inside {
        Ok(name)
    } else {
        let name = shorten(name);
        Err(format!("'{name}' is not in the folder of the series"))
    }
}

fn read_limited(path: &Path, limit: usize) -> Result<String, String> {
    let shown = shorten(&path.display().to_string());
    let mut text = String::new();
    let file = fs::File::open(path).map_err(|error| error.to_string())?;
    let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    file.take(most)
        .read_to_string(&mut text)
        .map_err(|_| format!("{shown} cannot be read as text"))?;
    if text.len() > limit {
        return Err(format!("{shown} has more than {limit} bytes"));
    }
    Ok(text)
}
