//! What apt is told in the guest: where its packages are, whose signature they have, and what it
//! prefers.

use coop_image::tree::TreeError;

use crate::debian::database::Maker;

/// A source that apt in the guest could not prefer as the recipe does.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "apt in the guest cannot tell {source_name} from others: {namesake} has the same code name and \
     another priority, and {reason}; give both the same priority, or {source_name} a mirror with a \
     host of its own"
)]
pub struct NoPin {
    source_name: String,
    namesake: String,
    reason: String,
}

/// By what apt tells the packages of a source from others (apt_preferences(5)), and how it prefers
/// them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pin {
    told_by: ToldBy,
    priority: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum ToldBy {
    /// The code name in its Release file.
    Codename(String),
    /// The host that it is fetched from, where another archive has the same code name.
    Host(String),
}

impl Pin {
    fn stanza(&self) -> String {
        let which = match &self.told_by {
            ToldBy::Codename(name) => format!("release n={name}"),
            ToldBy::Host(host) => format!("origin \"{host}\""),
        };
        let priority = self.priority;
        format!("Package: *\nPin: {which}\nPin-Priority: {priority}\n")
    }

    fn summary(&self) -> String {
        let which = match &self.told_by {
            ToldBy::Codename(name) => name.clone(),
            ToldBy::Host(host) => format!("host {host}"),
        };
        format!(" {which} at {}", self.priority)
    }
}

/// What a recipe and its Release file say of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preference {
    /// Its code name.
    pub codename: String,
    /// What apt prefers its packages with, if not with what the suite asks for.
    pub priority: Option<u16>,
}

/// Says by what apt prefers the packages of each source: by its code name, or by its host where
/// others have the code name too. Each source has its preference at the same place.
///
/// # Errors
/// Neither tells it from others that are preferred differently.
pub fn choose_pins(sources: &mut [AptSource], preferences: &[Preference]) -> Result<(), NoPin> {
    let mut pins = Vec::new();
    let both = || sources.iter().zip(preferences);
    for (source, wanted) in both() {
        let pin = match wanted.priority {
            Some(priority) if source.is_remote() => {
                let others = || {
                    both()
                        .filter(|(one, other)| one.is_remote() && other.priority != wanted.priority)
                };
                Some(Pin {
                    told_by: told_by(source, wanted, others)?,
                    priority,
                })
            }
            _ => None,
        };
        pins.push(pin);
    }
    for (source, pin) in sources.iter_mut().zip(pins) {
        source.pin = pin;
    }
    Ok(())
}

/// By what a source is told from others.
fn told_by<'a, O>(
    source: &AptSource,
    wanted: &Preference,
    others: impl Fn() -> O,
) -> Result<ToldBy, NoPin>
where
    O: Iterator<Item = (&'a AptSource, &'a Preference)>,
{
    let name = &wanted.codename;
    let Some((namesake, _)) = others().find(|(_, other)| other.codename == *name) else {
        return Ok(ToldBy::Codename(name.clone()));
    };
    let host = source.host();
    let neighbour = others().find(|(other, _)| other.host() == host);
    let reason = match (host, neighbour) {
        (Some(host), None) => return Ok(ToldBy::Host(host)),
        (Some(_), Some((other, _))) => format!("{} has the same host and another", other.shown()),
        (None, _) => "its host is no plain name".to_owned(),
    };
    Err(NoPin {
        source_name: source.shown(),
        namesake: namesake.shown(),
        reason,
    })
}

/// Where apt finds its archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AptSource {
    /// The archive's base URL; a `file:` URL is not written, as it means nothing in the guest.
    pub url: String,
    /// The suites.
    pub suites: Vec<String>,
    /// The components.
    pub components: Vec<String>,
    /// A keyring other than Debian's, binary or armoured.
    pub keyring: Option<Vec<u8>>,
    /// Whether apt refuses an index past its Valid-Until.
    pub check_valid_until: bool,
    /// How apt prefers its packages, if not as the suite asks for: see [`choose_pins`].
    pub pin: Option<Pin>,
}

impl AptSource {
    fn is_remote(&self) -> bool {
        self.url.starts_with("http://") || self.url.starts_with("https://")
    }

    /// The host as apt knows it: without a port, an IPv6 address without brackets. Nothing where it
    /// could mean something else in apt_preferences(5).
    fn host(&self) -> Option<String> {
        let (_, rest) = self.url.split_once("://")?;
        let authority = rest.split('/').next().unwrap_or_default();
        let (_, place) = authority.rsplit_once('@').unwrap_or(("", authority));
        let host = match place.strip_prefix('[') {
            Some(address) => address.split(']').next(),
            None => place.split(':').next(),
        };
        let host = host.unwrap_or_default().to_ascii_lowercase();
        let is_plain = |c: char| c.is_ascii_alphanumeric() || ".-:_".contains(c);
        (!host.is_empty() && host.chars().all(is_plain)).then_some(host)
    }

    fn shown(&self) -> String {
        format!("{} at {}", self.suites.join(" "), self.url)
    }

    /// What of it shows in a system, but for the keyring, on one line.
    #[must_use]
    pub fn summary(&self) -> String {
        if !self.is_remote() {
            return "not for the guest".to_owned();
        }
        let Self {
            url,
            suites,
            components,
            check_valid_until,
            pin,
            ..
        } = self;
        let check = if *check_valid_until { "" } else { " unchecked" };
        let pin = pin.as_ref().map_or_else(String::new, Pin::summary);
        let (suites, components) = (suites.join(" "), components.join(" "));
        format!("{url} {suites} ({components}){check}{pin}")
    }
}

/// Writes the sources, their keyrings, and what is preferred.
pub(super) fn write_sources(maker: &mut Maker<'_>, sources: &[AptSource]) -> Result<(), TreeError> {
    let remote: Vec<&AptSource> = sources.iter().filter(|one| one.is_remote()).collect();
    if remote.is_empty() || maker.tree.resolve(b"/etc/apt").is_err() {
        return Ok(());
    }
    let (mut stanzas, mut pins) = (Vec::new(), Vec::new());
    for source in &remote {
        let signed_by = signed_by(maker, source, &remote)?;
        stanzas.push(apt_stanza(source, signed_by.as_deref()));
        pins.extend(source.pin.as_ref().map(Pin::stanza));
    }
    let folder = maker.folder("/etc/apt/sources.list.d")?;
    maker.file(
        folder,
        "debian.sources",
        0o644,
        stanzas.join("\n").into_bytes(),
    )?;
    if pins.is_empty() {
        return Ok(());
    }
    let folder = maker.folder("/etc/apt/preferences.d")?;
    maker.file(folder, "coop.pref", 0o644, pins.join("\n").into_bytes())
}

/// The keyring of a source in the guest, which is written if it is not Debian's.
fn signed_by(
    maker: &mut Maker<'_>,
    source: &AptSource,
    all: &[&AptSource],
) -> Result<Option<String>, TreeError> {
    let Some(bytes) = &source.keyring else {
        let paths =
            ["pgp", "gpg"].map(|end| format!("/usr/share/keyrings/debian-archive-keyring.{end}"));
        let mut paths = paths.into_iter();
        return Ok(paths.find(|path| maker.tree.resolve(path.as_bytes()).is_ok()));
    };
    // Sources with the same keyring share a file.
    let first = all
        .iter()
        .position(|other| other.keyring.as_ref() == Some(bytes));
    let number = match first {
        None | Some(0) => String::new(),
        Some(number) => format!("-{number}"),
    };
    let is_armoured = bytes.starts_with(b"-----BEGIN");
    let end = if is_armoured { "asc" } else { "pgp" };
    let name = format!("coop{number}.{end}");
    let folder = maker.folder("/etc/apt/keyrings")?;
    maker.file(folder, &name, 0o644, bytes.clone())?;
    Ok(Some(format!("/etc/apt/keyrings/{name}")))
}

fn apt_stanza(source: &AptSource, signed_by: Option<&str>) -> String {
    let mut text = format!(
        "Types: deb\nURIs: {}\nSuites: {}\nComponents: {}\n",
        source.url,
        source.suites.join(" "),
        source.components.join(" ")
    );
    if let Some(path) = signed_by {
        text.push_str(&format!("Signed-By: {path}\n"));
    }
    if !source.check_valid_until {
        text.push_str("Check-Valid-Until: no\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The pins of sources, each a URL, a code name and a priority.
    fn pins(of: &[(&str, &str, Option<u16>)]) -> Result<Vec<String>, String> {
        let mut sources: Vec<AptSource> = of
            .iter()
            .map(|(url, codename, _)| AptSource {
                url: (*url).to_owned(),
                suites: vec![(*codename).to_owned()],
                components: Vec::new(),
                keyring: None,
                check_valid_until: true,
                pin: None,
            })
            .collect();
        let preferences: Vec<Preference> = of
            .iter()
            .map(|(_, codename, priority)| Preference {
                codename: (*codename).to_owned(),
                priority: *priority,
            })
            .collect();
        choose_pins(&mut sources, &preferences).map_err(|error| error.to_string())?;
        let pins = sources.iter().filter_map(|source| source.pin.as_ref());
        Ok(pins
            .map(|pin| pin.stanza().lines().skip(1).collect::<Vec<_>>().join(" "))
            .collect())
    }

    const MAIN: (&str, &str, Option<u16>) = ("http://m.invalid/debian", "trixie", None);

    #[test]
    fn a_code_name_of_ones_own_is_enough() {
        let other = ("https://o.invalid:8080/x", "o", Some(100));
        assert_eq!(
            pins(&[MAIN, other]).unwrap(),
            ["Pin: release n=o Pin-Priority: 100"]
        );
        // What is preferred alike need not be told apart, and a folder is nothing to the guest.
        let twice = [other, ("http://p.invalid", "o", Some(100))];
        let expected = ["Pin: release n=o Pin-Priority: 100"; 2];
        assert_eq!(pins(&twice).unwrap(), expected);
        let folder = [("file:///srv/o", "o", Some(7)), other];
        assert_eq!(pins(&folder).unwrap(), expected[..1]);
    }

    #[test]
    fn an_archive_with_debians_code_name_is_told_by_its_host() {
        for (url, host) in [
            ("https://Others.invalid:8080/x", "others.invalid"),
            ("http://me:secret@o.invalid", "o.invalid"),
            ("http://[2001:db8::1]:80/x", "2001:db8::1"),
        ] {
            assert_eq!(
                pins(&[MAIN, (url, "trixie", Some(990))]).unwrap(),
                [format!("Pin: origin \"{host}\" Pin-Priority: 990")]
            );
        }
    }

    #[test]
    fn what_apt_cannot_tell_apart_is_refused() {
        let refused = |of: &[(&str, &str, Option<u16>)]| pins(of).unwrap_err();
        let url = "http://M.invalid:81/other";
        let main = format!("trixie at {}", MAIN.0);
        assert_eq!(
            refused(&[MAIN, (url, "trixie", Some(990))]),
            format!(
                "apt in the guest cannot tell trixie at {url} from others: {main} has the same \
                 code name and another priority, and {main} has the same host and another; give \
                 both the same priority, or trixie at {url} a mirror with a host of its own"
            )
        );
        for url in ["http://a*b/x", "http://\"/x"] {
            let error = refused(&[MAIN, (url, "trixie", Some(990))]);
            assert!(error.contains("is no plain name"), "{error}");
        }
        // A pin by the host would be one for the other suite of that host too.
        let url = "http://o.invalid/x";
        let error = refused(&[MAIN, (url, "trixie", Some(990)), (url, "else", Some(1))]);
        assert!(
            error.contains("else at http://o.invalid/x has the same host"),
            "{error}"
        );
    }
}
