//! `rootfs.source.debian`: which packages, from where, and how they are installed.

use super::decode::{At, Decoder, Keys};
use super::diagnostic::Position;
use super::model::{
    Debian, Exclude, Installation, Keyring, Mirror, PathRule, Repository, RepositoryMirror,
    TarballLocation, Variant,
};
use super::names;
use super::node::{Node, Value};
use super::resolve::Resolver;
use super::units::shorten;
use super::written::{self, Tarball, keys, list_of, texts};
use crate::debian::date::parse_stamp;

/// The most suites beside the main one.
const REPOSITORIES_MAX: usize = 32;
/// The most .deb files beside the archives'.
const DEBS_MAX: usize = 1000;
/// The most patterns of paths; each is tried on every path of every package.
const RULES_MAX: usize = 200;
/// The most answers for debconf.
const ANSWERS_MAX: usize = 10_000;
/// Words for what people leave out most, as rules in dpkg's order; true keeps what the rule
/// matches. The folders of manuals stay: update-alternatives links into them.
pub(super) const PRESETS: &[(&str, &[(bool, &str)])] = &[
    (
        "documentation",
        &[
            (false, "/usr/share/doc/*"),
            (true, "/usr/share/doc/*/copyright"),
            (false, "/usr/share/man/*/*"),
            (false, "/usr/share/info/*"),
            (false, "/usr/share/gtk-doc/*"),
            (false, "/usr/share/lintian/*"),
        ],
    ),
    (
        "locales",
        &[
            (false, "/usr/share/locale/*"),
            (true, "/usr/share/locale/locale.alias"),
            (false, "/usr/share/man/*/man*/*"),
        ],
    ),
];
/// The archive's component that a recipe without components means.
const COMPONENT: &str = "main";

pub(super) struct WrittenDebian {
    pub(super) suite: At<String>,
    pub(super) packages: Vec<At<String>>,
    pub(super) components: Option<Vec<At<String>>>,
    pub(super) variant: Option<At<Variant>>,
    pub(super) mirror: Option<At<String>>,
    pub(super) snapshot: Option<WrittenSnapshot>,
    pub(super) keyring: Option<At<String>>,
    pub(super) recommends: Option<bool>,
    pub(super) repositories: Vec<WrittenRepository>,
    pub(super) debs: Vec<Tarball>,
    pub(super) exclude: WrittenExclude,
    pub(super) debconf: Vec<At<String>>,
    pub(super) unpack_only: Option<At<String>>,
}

#[derive(Default)]
pub(super) struct WrittenExclude {
    pub(super) packages: Vec<At<String>>,
    pub(super) paths: Vec<At<String>>,
    pub(super) keep: Vec<At<String>>,
}

pub(super) struct WrittenSnapshot {
    pub(super) instant: At<String>,
    pub(super) url: Option<At<String>>,
}

pub(super) struct WrittenRepository {
    pub(super) suite: At<String>,
    pub(super) components: Option<Vec<At<String>>>,
    pub(super) mirror: Option<At<String>>,
    pub(super) keyring: Option<At<String>>,
    pub(super) priority: Option<At<u32>>,
}

const DEBIAN: Keys = keys(
    &[
        "suite",
        "packages",
        "components",
        "variant",
        "mirror",
        "snapshot",
        "keyring",
        "recommends",
        "repositories",
        "debs",
        "exclude",
        "debconf",
        "unpack_only",
    ],
    &[],
);
const SNAPSHOT: Keys = keys(&["at", "url"], &[]);
const REPOSITORY: Keys = keys(
    &["suite", "components", "mirror", "keyring", "priority"],
    &["snapshot"],
);
const DEB: Keys = keys(&["path", "url", "sha256"], &[]);
const EXCLUDE: Keys = keys(&["packages", "paths", "keep"], &[]);
const ANSWER: Keys = keys(&["package", "question", "type", "value"], &[]);

/// Reads `rootfs.source.debian`.
pub(super) fn read(d: &mut Decoder<'_>, node: &Node<'_>, path: &str) -> Option<WrittenDebian> {
    let fields = d.map(node, path, &DEBIAN)?;
    let suite = d.required(&fields, "suite", Decoder::text);
    Some(WrittenDebian {
        packages: texts(d, &fields, "packages"),
        components: d.field(&fields, "components", Decoder::texts),
        variant: d.field(&fields, "variant", |d, node, path| {
            d.parsed(node, path, variant)
        }),
        mirror: d.field(&fields, "mirror", Decoder::text),
        snapshot: d.field(&fields, "snapshot", snapshot),
        keyring: d.field(&fields, "keyring", Decoder::text),
        recommends: d.field(&fields, "recommends", Decoder::boolean),
        repositories: list_of(d, &fields, "repositories", repository),
        debs: list_of(d, &fields, "debs", |d, node, path| {
            let fields = d.map(node, path, &DEB)?;
            Some(written::archive(d, &fields))
        }),
        exclude: d.field(&fields, "exclude", exclude).unwrap_or_default(),
        debconf: d.field(&fields, "debconf", debconf).unwrap_or_default(),
        unpack_only: d.field(&fields, "unpack_only", Decoder::text),
        suite: suite?,
    })
}

/// An instant, or a map with it and the archive's address.
fn snapshot(d: &mut Decoder<'_>, node: &Node<'_>, path: &str) -> Option<WrittenSnapshot> {
    if !matches!(node.value, Value::Map(_)) {
        let instant = d.parsed(node, path, instant)?;
        return Some(WrittenSnapshot { instant, url: None });
    }
    let fields = d.map(node, path, &SNAPSHOT)?;
    let at = d.required(&fields, "at", |d, node, path| d.parsed(node, path, instant));
    let url = d.field(&fields, "url", Decoder::text);
    Some(WrittenSnapshot { instant: at?, url })
}

fn instant(text: &str) -> Result<String, String> {
    match parse_stamp(text) {
        Some(_) => Ok(text.to_owned()),
        None => Err(format!(
            "'{}' is not an instant like 20260801T000000Z, in UTC",
            shorten(text)
        )),
    }
}

fn repository(d: &mut Decoder<'_>, node: &Node<'_>, path: &str) -> Option<WrittenRepository> {
    /// The largest number that apt keeps for itself is 1000: such packages are downgraded to.
    const PRIORITY_MAX: u32 = 1000;
    let fields = d.map(node, path, &REPOSITORY)?;
    let suite = d.required(&fields, "suite", Decoder::text);
    Some(WrittenRepository {
        components: d.field(&fields, "components", Decoder::texts),
        mirror: d.field(&fields, "mirror", Decoder::text),
        keyring: d.field(&fields, "keyring", Decoder::text),
        priority: d.field(&fields, "priority", |d, node, path| {
            d.integer(node, path, 1..=PRIORITY_MAX)
        }),
        suite: suite?,
    })
}

fn exclude(d: &mut Decoder<'_>, node: &Node<'_>, path: &str) -> Option<WrittenExclude> {
    let fields = d.map(node, path, &EXCLUDE)?;
    Some(WrittenExclude {
        packages: texts(d, &fields, "packages"),
        paths: texts(d, &fields, "paths"),
        keep: texts(d, &fields, "keep"),
    })
}

/// Reads what debconf-set-selections(1) reads, or a list of it and of maps that say the same.
fn debconf(d: &mut Decoder<'_>, node: &Node<'_>, path: &str) -> Option<Vec<At<String>>> {
    if !matches!(node.value, Value::List(_)) {
        return Some(vec![d.text(node, path)?]);
    }
    d.list(node, path, |d, node, path| {
        if !matches!(node.value, Value::Map(_)) {
            return d.text(node, path);
        }
        let fields = d.map(node, path, &ANSWER)?;
        let package = d.required(&fields, "package", Decoder::text);
        let question = d.required(&fields, "question", Decoder::text);
        let kind = d.required(&fields, "type", Decoder::text);
        let value = d.required(&fields, "value", plain)?;
        let words = [package?, question?, kind?];
        let is_word = |word: &&At<String>| {
            !word.value.is_empty() && !word.value.contains(char::is_whitespace)
        };
        let wrong = words.iter().find(|word| !is_word(word));
        let wrong = wrong.or_else(|| value.value.contains('\n').then_some(&value));
        if let Some(wrong) = wrong {
            let reason = "package, question and type are words, and the value is one line";
            d.reject(wrong.at, path, reason);
            return None;
        }
        let [package, question, kind] = words.map(|word| word.value);
        Some(At {
            value: format!("{package} {question} {kind} {}", value.value),
            at: node.at,
        })
    })
}

/// Reads text, a number or a truth value as it is written.
fn plain(d: &mut Decoder<'_>, node: &Node<'_>, path: &str) -> Option<At<String>> {
    match &node.value {
        Value::Bool(value) => Some(At {
            value: value.to_string(),
            at: node.at,
        }),
        _ => d.parsed(node, path, |text| Ok(text.to_owned())),
    }
}

fn variant(text: &str) -> Result<Variant, String> {
    match text {
        "essential" => Ok(Variant::Essential),
        "minimal" => Ok(Variant::Minimal),
        other => Err(format!(
            "unknown variant '{}'; known are essential and minimal",
            shorten(other)
        )),
    }
}

impl Resolver<'_, '_> {
    /// Turns `rootfs.source.debian` into its meaning.
    pub(super) fn debian(&mut self, written: WrittenDebian) -> Debian {
        const PATH: &str = "rootfs.source.debian";
        let path = |key: &str| format!("{PATH}.{key}");
        let components = match written.components {
            Some(list) => self.all_checked(list, &path("components"), names::suite),
            None => vec![COMPONENT.to_owned()],
        };
        let mirror = self.mirror(written.mirror, written.snapshot);
        let keyring = match written.keyring {
            Some(file) => Keyring::File(self.host_file(file, &path("keyring"))),
            None => Keyring::Debian,
        };
        if written.repositories.len() > REPOSITORIES_MAX {
            let reason = format!("has more than {REPOSITORIES_MAX} entries, coop's limit");
            self.d
                .reject(written.suite.at, &path("repositories"), reason);
        }
        let repositories = written.repositories.into_iter().enumerate();
        let repositories = repositories
            .map(|(index, one)| self.repository(index, one, &components, &keyring))
            .collect();
        let wanted = written.packages.clone();
        Debian {
            suite: self.checked(written.suite, &path("suite"), names::suite),
            packages: self.all_checked(written.packages, &path("packages"), names::package),
            components,
            variant: written.variant.map_or(Variant::Minimal, |at| at.value),
            mirror,
            keyring,
            recommends: written.recommends.unwrap_or(false),
            repositories,
            debs: self.debs(written.debs),
            exclude: self.exclude(written.exclude, &wanted),
            debconf: self.debconf(written.debconf),
            installation: match written.unpack_only {
                Some(text) => Installation::Unpacked {
                    architecture: self.checked(text, &path("unpack_only"), names::architecture),
                },
                None => Installation::Configured,
            },
        }
    }

    fn debs(&mut self, written: Vec<Tarball>) -> Vec<TarballLocation> {
        const PATH: &str = "rootfs.source.debian.debs";
        if let Some(first) = written.first().filter(|_| written.len() > DEBS_MAX) {
            let reason = format!("has more than {DEBS_MAX} entries, coop's limit");
            self.d.reject(first.at, PATH, reason);
        }
        let written = written.into_iter().enumerate();
        written
            .filter_map(|(index, deb)| self.tarball_location(deb, &format!("{PATH}[{index}]")))
            .collect()
    }

    fn exclude(&mut self, written: WrittenExclude, wanted: &[At<String>]) -> Exclude {
        const PATH: &str = "rootfs.source.debian.exclude";
        let mut rules = Vec::new();
        let patterns = written.paths.into_iter().map(|text| (text, "paths"));
        let kept = written.keep.into_iter().map(|text| (text, "keep"));
        for (index, (text, key)) in patterns.chain(kept).enumerate() {
            let path = format!("{PATH}.{key}");
            if index == RULES_MAX {
                let reason = format!("has more than {RULES_MAX} patterns, coop's limit");
                self.d.reject(text.at, &path, reason);
            }
            let preset = PRESETS.iter().find(|(name, _)| *name == text.value);
            if let Some((_, patterns)) = preset.filter(|_| key == "paths") {
                rules.extend(patterns.iter().map(|(include, pattern)| PathRule {
                    include: *include,
                    pattern: (*pattern).to_owned(),
                }));
                continue;
            }
            rules.push(PathRule {
                include: key == "keep",
                pattern: self.checked(text, &path, names::path_pattern),
            });
        }
        let path = format!("{PATH}.packages");
        let wanted = |name: &str| {
            wanted
                .iter()
                .any(|one| one.value.split([':', '/']).next() == Some(name))
        };
        for text in written.packages.iter().filter(|text| wanted(&text.value)) {
            let reason = format!("'{}' is also asked for", shorten(&text.value));
            self.d.reject(text.at, &path, reason);
        }
        Exclude {
            packages: self.all_checked(written.packages, &path, names::package_name),
            paths: rules,
        }
    }

    /// One answer for debconf a line, without comments and continuations.
    fn debconf(&mut self, written: Vec<At<String>>) -> Vec<String> {
        const PATH: &str = "rootfs.source.debian.debconf";
        let mut answers = Vec::new();
        for text in written {
            let joined = text.value.replace("\\\n", "");
            let lines = joined.lines().map(str::trim_start);
            for line in lines.filter(|line| !line.is_empty() && !line.starts_with('#')) {
                if let Err(reason) = names::debconf_answer(line) {
                    self.d.reject(text.at, PATH, reason);
                }
                answers.push(line.to_owned());
            }
        }
        if let (true, Some(line)) = (answers.len() > ANSWERS_MAX, answers.first()) {
            let reason = format!(
                "has more than {ANSWERS_MAX} answers, coop's limit: {}",
                shorten(line)
            );
            self.d.reject(Position::default(), PATH, reason);
        }
        answers
    }

    fn mirror(&mut self, mirror: Option<At<String>>, snapshot: Option<WrittenSnapshot>) -> Mirror {
        const PATH: &str = "rootfs.source.debian";
        match (mirror, snapshot) {
            (None, None) => Mirror::Host,
            (Some(mirror), None) => {
                let url = self.checked(mirror, &format!("{PATH}.mirror"), names::mirror);
                Mirror::Url(url.trim_end_matches('/').to_owned())
            }
            (mirror, Some(snapshot)) => {
                if let Some(mirror) = mirror {
                    let reason = "is not used with a snapshot, which has an archive of its own";
                    self.d.reject(mirror.at, &format!("{PATH}.mirror"), reason);
                }
                let path = format!("{PATH}.snapshot.url");
                let url = snapshot.url;
                Mirror::Snapshot {
                    instant: snapshot.instant.value,
                    url: url.map(|url| self.checked(url, &path, names::mirror)),
                }
            }
        }
    }

    fn repository(
        &mut self,
        index: usize,
        written: WrittenRepository,
        components: &[String],
        main: &Keyring,
    ) -> Repository {
        let path = |key: &str| format!("rootfs.source.debian.repositories[{index}].{key}");
        let suite = self.checked(written.suite, &path("suite"), names::suite);
        Repository {
            components: match written.components {
                Some(list) => self.all_checked(list, &path("components"), names::suite),
                None => components.to_vec(),
            },
            mirror: match written.mirror {
                Some(mirror) => {
                    let url = self.checked(mirror, &path("mirror"), names::mirror);
                    RepositoryMirror::Url(url.trim_end_matches('/').to_owned())
                }
                None if suite.ends_with("-security") => RepositoryMirror::Security,
                None => RepositoryMirror::Main,
            },
            keyring: match written.keyring {
                Some(file) => Keyring::File(self.host_file(file, &path("keyring"))),
                None => main.clone(),
            },
            priority: written.priority.and_then(|at| u16::try_from(at.value).ok()),
            suite,
        }
    }
}
