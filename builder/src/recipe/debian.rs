//! `rootfs.source.debian`: which packages, from where, and how they are installed.

use super::decode::{At, Decoder, Keys};
use super::model::{Debian, Keyring, Mirror, Repository, RepositoryMirror, Variant};
use super::names;
use super::node::Node;
use super::resolve::Resolver;
use super::units::shorten;
use super::written::{keys, list_of, texts};

/// The most suites beside the main one.
const REPOSITORIES_MAX: usize = 32;
/// The archive's component that a recipe without components means.
const COMPONENT: &str = "main";

pub(super) struct WrittenDebian {
    pub(super) suite: At<String>,
    pub(super) packages: Vec<At<String>>,
    pub(super) components: Option<Vec<At<String>>>,
    pub(super) variant: Option<At<Variant>>,
    pub(super) mirror: Option<At<String>>,
    pub(super) keyring: Option<At<String>>,
    pub(super) recommends: Option<bool>,
    pub(super) repositories: Vec<WrittenRepository>,
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
        "keyring",
        "recommends",
        "repositories",
    ],
    &["snapshot"],
);
const REPOSITORY: Keys = keys(
    &["suite", "components", "mirror", "keyring", "priority"],
    &["snapshot"],
);

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
        keyring: d.field(&fields, "keyring", Decoder::text),
        recommends: d.field(&fields, "recommends", Decoder::boolean),
        repositories: list_of(d, &fields, "repositories", repository),
        suite: suite?,
    })
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
        let mirror = match written.mirror {
            Some(mirror) => {
                let url = self.checked(mirror, &path("mirror"), names::mirror);
                Mirror::Url(url.trim_end_matches('/').to_owned())
            }
            None => Mirror::Host,
        };
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
        Debian {
            suite: self.checked(written.suite, &path("suite"), names::suite),
            packages: self.all_checked(written.packages, &path("packages"), names::package),
            components,
            variant: written.variant.map_or(Variant::Minimal, |at| at.value),
            mirror,
            keyring,
            recommends: written.recommends.unwrap_or(false),
            repositories,
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
