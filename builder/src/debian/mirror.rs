//! Which Debian mirror to use: the recipe's, the environment's, or the one in the host's apt
//! sources. No host is written in the code.

use std::io;
use std::path::Path;

use fs_err as fs;

use crate::debian::date;
use crate::debian::deb822::Stanzas;

/// Words of codenames and suites that Debian's archive has.
const DEBIAN_SUITES: &[&str] = &[
    "bullseye",
    "bookworm",
    "trixie",
    "forky",
    "duke",
    "sid",
    "oldoldstable",
    "oldstable",
    "stable",
    "testing",
    "unstable",
    "experimental",
];
/// What may follow them.
const SUITE_SUFFIXES: &[&str] = &["", "-updates", "-backports", "-proposed-updates"];
/// What mirrors and snapshot archives call Debian's main archive, and the one for security.
const DEBIAN_ARCHIVE: &str = "debian";
const SECURITY_ARCHIVE: &str = "debian-security";
/// The most bytes of one file of apt's configuration.
const CONFIG_BYTES_MAX: u64 = 1 << 20;

/// Where the mirror was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MirrorOrigin {
    /// The recipe names it.
    Recipe,
    /// The environment names it.
    Environment,
    /// The host's apt sources name it.
    AptSources,
}

/// A Debian archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    /// Base URL without a final slash: `dists/` is below it.
    pub url: String,
    /// Who named it.
    pub origin: MirrorOrigin,
    /// Whether an index past its Valid-Until is refused; the host's apt configuration may say no.
    pub check_valid_until: bool,
    /// The instant whose archive it is, where it is a snapshot.
    pub snapshot: Option<Snapshot>,
}

/// An archive as it was at some instant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The snapshot archive's base URL without a final slash: `archive/` is below it.
    pub base: String,
    /// The instant as the archive writes it: `20260801T000000Z`.
    pub stamp: String,
    /// The same in seconds since 1970.
    pub seconds: i64,
}

/// Why there is no mirror.
#[derive(Debug, thiserror::Error)]
pub enum MirrorError {
    /// Nobody names one: the user's matter.
    #[error(
        "no Debian mirror is known: name one as rootfs.source.debian.mirror in the recipe or in \
         COOP_DEBIAN_MIRROR (the host's apt sources name none)"
    )]
    Missing,
    /// The name is no URL that can be used.
    #[error("the mirror '{0}' is not an http:, https: or file: URL")]
    Invalid(String),
    /// The security archive that belongs to a mirror is not known.
    #[error(
        "no security archive is known that belongs to the mirror '{0}': name its address as mirror of \
         that repository"
    )]
    NoSecurity(String),
    /// Nobody names a snapshot archive: the user's matter.
    #[error(
        "no snapshot archive is known: name one as rootfs.source.debian.snapshot.url in the recipe or \
         in COOP_DEBIAN_SNAPSHOT"
    )]
    NoSnapshots,
    /// The instant is none.
    #[error("'{0}' is not an instant like 20260801T000000Z")]
    InvalidStamp(String),
    /// The host's apt configuration cannot be read.
    #[error("the host's apt sources cannot be read: {0}")]
    Io(#[from] io::Error),
}

/// What the host's apt configuration says about Debian's archive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AptSources {
    sources: Vec<Source>,
    /// `Acquire::Check-Valid-Until "false"` in apt.conf.
    ignores_valid_until: bool,
}

/// One line or stanza that may name a Debian archive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Source {
    uris: Vec<String>,
    suites: Vec<String>,
    components: Vec<String>,
    signed_by: Option<String>,
    check_valid_until: Option<bool>,
}

/// Chooses the mirror: recipe before environment before the host's apt sources.
///
/// # Errors
/// [`MirrorError::Missing`] or [`MirrorError::Invalid`].
pub fn choose(
    recipe: Option<&str>,
    environment: Option<&str>,
    apt: &AptSources,
) -> Result<Mirror, MirrorError> {
    let named = |url: &str, origin| {
        let url = url.trim_end_matches('/').to_owned();
        if !is_usable_url(&url) {
            return Err(MirrorError::Invalid(url));
        }
        Ok(Mirror {
            url,
            origin,
            // A recipe is the same on each host, whatever a host's apt allows.
            check_valid_until: origin == MirrorOrigin::Recipe || !apt.ignores_valid_until,
            snapshot: None,
        })
    };
    match (recipe, environment.filter(|text| !text.is_empty())) {
        (Some(url), _) => named(url, MirrorOrigin::Recipe),
        (None, Some(url)) => named(url, MirrorOrigin::Environment),
        (None, None) => apt.mirror().ok_or(MirrorError::Missing),
    }
}

/// Debian's main archive as it was at an instant: in the recipe's snapshot archive, or in the
/// environment's.
///
/// # Errors
/// [`MirrorError::NoSnapshots`], [`MirrorError::Invalid`] or [`MirrorError::InvalidStamp`].
pub fn snapshot(
    stamp: &str,
    recipe: Option<&str>,
    environment: Option<&str>,
) -> Result<Mirror, MirrorError> {
    let environment = environment.filter(|text| !text.is_empty());
    let (base, origin) = match (recipe, environment) {
        (Some(base), _) => (base, MirrorOrigin::Recipe),
        (None, Some(base)) => (base, MirrorOrigin::Environment),
        (None, None) => return Err(MirrorError::NoSnapshots),
    };
    let base = base.trim_end_matches('/').to_owned();
    if !is_usable_url(&base) {
        return Err(MirrorError::Invalid(base));
    }
    let seconds =
        date::parse_stamp(stamp).ok_or_else(|| MirrorError::InvalidStamp(stamp.to_owned()))?;
    let snapshot = Snapshot {
        base,
        stamp: stamp.to_owned(),
        seconds,
    };
    Ok(snapshot.mirror(DEBIAN_ARCHIVE, origin))
}

impl Snapshot {
    fn mirror(self, archive: &str, origin: MirrorOrigin) -> Mirror {
        let Self { base, stamp, .. } = &self;
        Mirror {
            url: format!("{base}/archive/{archive}/{stamp}"),
            origin,
            // As of the snapshot's instant.
            check_valid_until: true,
            snapshot: Some(self),
        }
    }
}

/// The security archive beside a mirror of Debian's main archive: the one that the host's apt
/// sources name, where the mirror is from there too, else the mirror's sibling.
///
/// # Errors
/// [`MirrorError::NoSecurity`].
pub fn security(main: &Mirror, apt: &AptSources) -> Result<Mirror, MirrorError> {
    if let Some(snapshot) = &main.snapshot {
        return Ok(snapshot.clone().mirror(SECURITY_ARCHIVE, main.origin));
    }
    if main.origin == MirrorOrigin::AptSources
        && let Some(mirror) = apt.security_mirror()
    {
        return Ok(mirror);
    }
    let Some(parent) = main.url.strip_suffix("/debian") else {
        return Err(MirrorError::NoSecurity(main.url.clone()));
    };
    Ok(Mirror {
        url: format!("{parent}/{SECURITY_ARCHIVE}"),
        ..main.clone()
    })
}

/// Puts a relative path below a base URL.
#[must_use]
pub fn join_url(base: &str, path: &str) -> String {
    format!("{}/{}", base.trim_end_matches('/'), path)
}

impl AptSources {
    /// Reads `sources.list`, `sources.list.d/` and `apt.conf.d/` below apt's folder (`/etc/apt`); a
    /// host without apt has none.
    ///
    /// # Errors
    /// A file that is there cannot be read.
    pub fn read(folder: &Path) -> Result<Self, MirrorError> {
        let mut apt = Self::default();
        apt.add_list(&read_text(&folder.join("sources.list"))?);
        for name in names(&folder.join("sources.list.d"))? {
            let path = folder.join("sources.list.d").join(&name);
            if name.ends_with(".list") {
                apt.add_list(&read_text(&path)?);
            } else if name.ends_with(".sources") {
                apt.add_deb822(&read_text(&path)?);
            }
        }
        for name in names(&folder.join("apt.conf.d"))? {
            apt.add_configuration(&read_text(&folder.join("apt.conf.d").join(&name))?);
        }
        apt.add_configuration(&read_text(&folder.join("apt.conf"))?);
        Ok(apt)
    }

    /// Takes the lines of a one-line-style file (sources.list(5)); apt itself complains about
    /// broken ones.
    pub fn add_list(&mut self, text: &str) {
        self.sources.extend(text.lines().filter_map(parse_line));
    }

    /// Takes the stanzas of a deb822-style file.
    pub fn add_deb822(&mut self, text: &str) {
        // A comment may stand inside a value here, unlike in an archive's index.
        let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        for stanza in Stanzas::new(&lines.join("\n")).map_while(Result::ok) {
            let words = |name| -> Vec<String> {
                let value: &str = stanza.get(name).unwrap_or_default();
                value.split_ascii_whitespace().map(str::to_owned).collect()
            };
            let disabled = stanza
                .get("Enabled")
                .is_some_and(|value| boolean(value) == Some(false));
            if disabled || !words("Types").iter().any(|word| word == "deb") {
                continue;
            }
            self.sources.push(Source {
                uris: words("URIs"),
                suites: words("Suites"),
                components: words("Components"),
                signed_by: stanza.get("Signed-By").map(str::to_owned),
                check_valid_until: stanza.get("Check-Valid-Until").and_then(boolean),
            });
        }
    }

    /// Takes a file of apt.conf(5); only the flat form of one setting is looked for.
    pub fn add_configuration(&mut self, text: &str) {
        for line in text.lines() {
            let mut words = line
                .split([' ', '\t', '"', ';'])
                .filter(|word| !word.is_empty());
            let is_setting = words
                .next()
                .is_some_and(|word| word.eq_ignore_ascii_case("Acquire::Check-Valid-Until"));
            if let (true, Some(value)) = (is_setting, words.next().and_then(boolean)) {
                self.ignores_valid_until = !value;
            }
        }
    }

    /// The likeliest mirror of Debian's main archive.
    fn mirror(&self) -> Option<Mirror> {
        let ranked = self.sources.iter().flat_map(|source| {
            let urls = source.uris.iter().filter(|url| is_usable_url(url));
            urls.filter_map(move |url| Some((rank(source, url)?, source, url)))
        });
        // The first of the best: `max_by_key` would take the last.
        let (_, source, url) =
            ranked.reduce(|best, next| if next.0 > best.0 { next } else { best })?;
        Some(self.mirror_of(source, url))
    }

    /// The first entry that may be Debian's security archive.
    fn security_mirror(&self) -> Option<Mirror> {
        let is_security = |source: &&Source| {
            let mut suites = source.suites.iter();
            suites.any(|suite| {
                let name = suite.strip_suffix("-security");
                name.is_some_and(is_debian_suite)
            })
        };
        let mut urls = self.sources.iter().filter(is_security).flat_map(|source| {
            let urls = source.uris.iter().filter(|url| is_usable_url(url));
            urls.map(move |url| (source, url))
        });
        urls.next().map(|(source, url)| self.mirror_of(source, url))
    }

    fn mirror_of(&self, source: &Source, url: &str) -> Mirror {
        Mirror {
            url: url.trim_end_matches('/').to_owned(),
            origin: MirrorOrigin::AptSources,
            check_valid_until: source
                .check_valid_until
                .unwrap_or(!self.ignores_valid_until),
            snapshot: None,
        }
    }
}

/// How likely an entry is Debian's main archive; `None` where it is another one. The signature of
/// the Release file is what decides in the end.
fn rank(source: &Source, url: &str) -> Option<u32> {
    let suites = || source.suites.iter().map(String::as_str);
    let is_debian = suites().any(is_debian_suite) && source.components.iter().any(|c| c == "main");
    if !is_debian {
        return None;
    }
    let signed_by_debian = match &source.signed_by {
        Some(keys) if keys.contains("debian-archive") => 1,
        Some(_) => return None,
        None => 0,
    };
    // `stable main` is what other vendors call their suites too.
    let has_codename = suites().any(|suite| {
        is_debian_suite(suite) && !suite.contains("stable") && !suite.starts_with("testing")
    });
    let path_is_debian = url.trim_end_matches('/').ends_with("/debian");
    Some(4 * signed_by_debian + 2 * u32::from(path_is_debian) + u32::from(has_codename))
}

fn is_debian_suite(suite: &str) -> bool {
    DEBIAN_SUITES.iter().any(|name| {
        let suffix = suite.strip_prefix(name);
        suffix.is_some_and(|suffix| SUITE_SUFFIXES.contains(&suffix))
    })
}

fn is_usable_url(url: &str) -> bool {
    let is_known = ["http://", "https://", "file:/"]
        .iter()
        .any(|start| url.starts_with(start));
    is_known && url.bytes().all(|byte| byte.is_ascii_graphic())
}

/// `deb [option=value …] URI SUITE COMPONENT…`
fn parse_line(line: &str) -> Option<Source> {
    let line = line.split('#').next()?.trim();
    let rest = line.strip_prefix("deb")?;
    let mut rest = rest.strip_prefix([' ', '\t'])?.trim_start();
    let mut source = Source::default();
    if let Some(options) = rest.strip_prefix('[') {
        let (options, tail) = options.split_once(']')?;
        for option in options.split_ascii_whitespace() {
            match option.split_once('=')? {
                ("signed-by", value) => source.signed_by = Some(value.to_owned()),
                ("check-valid-until", value) => source.check_valid_until = boolean(value),
                _ => {}
            }
        }
        rest = tail;
    }
    let mut words = rest.split_ascii_whitespace().map(str::to_owned);
    source.uris.push(words.next()?);
    source.suites.push(words.next()?);
    source.components.extend(words);
    Some(source)
}

/// A truth value of apt's configuration.
fn boolean(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "yes" | "true" | "on" | "1" | "with" | "enable" => Some(true),
        "no" | "false" | "off" | "0" | "without" | "disable" => Some(false),
        _ => None,
    }
}

/// File names in byte order, as apt reads them; a missing folder has none.
fn names(folder: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry?.file_name().into_string());
    }
    names.sort_unstable();
    Ok(names)
}

fn read_text(path: &Path) -> io::Result<String> {
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(String::new()),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut io::Read::take(file, CONFIG_BYTES_MAX), &mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(add: impl Fn(&mut AptSources)) -> Option<Mirror> {
        let mut apt = AptSources::default();
        add(&mut apt);
        choose(None, Some(""), &apt).ok()
    }

    #[test]
    fn the_recipe_comes_first_then_the_environment() {
        let mut apt = AptSources::default();
        apt.add_list("deb http://a.invalid/debian/ trixie main");
        let url = |recipe, environment| choose(recipe, environment, &apt).unwrap().url;
        assert_eq!(
            url(Some("http://r.invalid/"), Some("http://e.invalid")),
            "http://r.invalid"
        );
        assert_eq!(url(None, Some("http://e.invalid")), "http://e.invalid");
        assert_eq!(url(None, None), "http://a.invalid/debian");
        assert!(matches!(
            choose(Some("ftp://x"), None, &apt),
            Err(MirrorError::Invalid(_))
        ));
        let none = choose(None, None, &AptSources::default()).unwrap_err();
        assert!(none.to_string().contains("COOP_DEBIAN_MIRROR"));
    }

    #[test]
    fn a_snapshot_has_its_security_archive() {
        let stamp = "20260801T000000Z";
        let main = snapshot(stamp, None, Some("http://e.invalid/")).unwrap();
        assert_eq!(main.url, format!("http://e.invalid/archive/debian/{stamp}"));
        assert_eq!(main.snapshot.as_ref().unwrap().seconds, 1_785_542_400);
        let security = security(&main, &AptSources::default()).unwrap();
        assert_eq!(
            security.url,
            format!("http://e.invalid/archive/debian-security/{stamp}")
        );
        let own = snapshot(stamp, Some("http://r.invalid"), Some("http://e.invalid"));
        assert!(own.unwrap().url.starts_with("http://r.invalid/archive/"));
        for (stamp, base, part) in [
            (stamp, None, "COOP_DEBIAN_SNAPSHOT"),
            (stamp, Some(""), "COOP_DEBIAN_SNAPSHOT"),
            (stamp, Some("ftp://x"), "ftp://x"),
            ("20260801", Some("http://e.invalid"), "20260801T000000Z"),
        ] {
            let error = snapshot(stamp, None, base).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn other_vendors_are_not_taken() {
        let list = "# deb http://comment.invalid/debian trixie main\n\
            deb [arch=amd64 signed-by=/usr/share/keyrings/x.gpg] https://x.invalid/debian stable main\n\
            deb https://chrome.invalid/linux/chrome/deb/ stable main\n\
            deb http://security.invalid/debian-security trixie-security main\n\
            deb https://pg.invalid/pub/repos/apt trixie-pgdg main\n\
            deb https://docker.invalid/linux/debian trixie stable\n\
            deb-src http://source.invalid/debian trixie main\n\
            deb cdrom:[Debian]/ trixie main\n\
            deb [check-valid-until=no] http://right.invalid/debian trixie-updates main contrib # x\n\
            deb http://later.invalid/debian trixie main\n";
        let mirror = chosen(|apt| apt.add_list(list)).unwrap();
        assert_eq!(mirror.url, "http://right.invalid/debian");
        assert!(!mirror.check_valid_until);
        assert_eq!(mirror.origin, MirrorOrigin::AptSources);
    }

    #[test]
    fn the_security_archive_belongs_to_the_mirror() {
        let mut apt = AptSources::default();
        apt.add_list("deb http://a.invalid/debian trixie main\n");
        let sibling = |main: Option<&str>, apt: &AptSources| {
            security(&choose(main, None, apt).unwrap(), apt).map(|mirror| mirror.url)
        };
        assert_eq!(
            sibling(None, &apt).unwrap(),
            "http://a.invalid/debian-security"
        );
        apt.add_list("deb [check-valid-until=no] http://s.invalid/x/ trixie-security main\n");
        assert_eq!(sibling(None, &apt).unwrap(), "http://s.invalid/x");
        assert_eq!(
            sibling(Some("http://r.invalid/debian/"), &apt).unwrap(),
            "http://r.invalid/debian-security"
        );
        let error = sibling(Some("http://r.invalid/d"), &apt).unwrap_err();
        assert!(error.to_string().contains("http://r.invalid/d"), "{error}");
    }

    #[test]
    fn deb822_sources_are_read() {
        let text = "Types: deb deb-src\nURIs: http://no.invalid/debian\nSuites: sid\n\
            Components: main\nEnabled: no\n\n\
            # security\nTypes: deb\nURIs: http://s.invalid/debian-security\n\
            Suites: trixie-security\nComponents: main\n\n\
            Types: deb\n# comment\nURIs: http://yes.invalid/debian/\nSuites: trixie\n trixie-updates\n\
            Components: main\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n";
        let mirror = chosen(|apt| apt.add_deb822(text)).unwrap();
        assert_eq!(mirror.url, "http://yes.invalid/debian");
        assert!(mirror.check_valid_until);
        let lax = chosen(|apt| {
            apt.add_deb822(text);
            apt.add_configuration("// x\nAcquire::Check-Valid-Until \"false\";\n");
        });
        assert!(!lax.unwrap().check_valid_until);
        let vendor = text.replace("debian-archive-keyring", "vendor");
        assert_eq!(chosen(|apt| apt.add_deb822(&vendor)), None);
    }

    #[test]
    fn a_folder_is_read_and_a_missing_one_is_empty() {
        let folder = tempfile::TempDir::new().unwrap();
        let apt = AptSources::read(&folder.path().join("none")).unwrap();
        assert_eq!(apt, AptSources::default());
        fs::create_dir(folder.path().join("sources.list.d")).unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        write("sources.list", "deb file:/srv/debian sid main\n");
        write(
            "sources.list.d/x.disabled",
            "deb http://x.invalid/debian sid main\n",
        );
        let apt = AptSources::read(folder.path()).unwrap();
        assert_eq!(choose(None, None, &apt).unwrap().url, "file:/srv/debian");
    }
}
