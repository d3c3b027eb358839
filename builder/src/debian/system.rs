//! A system from packages: the tree with everything unpacked, and the script that configures it.

use std::collections::BTreeSet;
use std::sync::Arc;

use coop_image::tree::{Inode, Kind, Metadata, Times, Timestamp, Tree, TreeError};

use crate::debian::apt::{self, AptSource};
use crate::debian::configure;
use crate::debian::database::{self, Maker};
use crate::debian::deb::Deb;
use crate::debian::paths::PathFilter;
use crate::debian::unpack::{UnpackError, Unpacked, unpack_all};

/// What reads the answers for debconf, in the guest.
const SET_SELECTIONS: &[u8] = b"/usr/bin/debconf-set-selections";

/// Where the script waits that another machine has to run.
const WAITING_FOLDER: &str = "/var/lib/coop";
/// Where apt keeps what it knows beyond dpkg.
const APT_STATE: &[u8] = b"/var/lib/apt";

/// How to make a system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SystemOptions {
    /// Debian's name of the architecture.
    pub architecture: String,
    /// Further architectures that packages may have.
    pub foreign: Vec<String>,
    /// The time of every file that is not a package's: an input, as the clock must not show.
    pub time: Timestamp,
    /// What goes into `/etc/apt/sources.list.d/debian.sources`, a stanza each.
    pub apt: Vec<AptSource>,
    /// What of the packages is not unpacked.
    pub paths: PathFilter,
    /// Answers for debconf, one a line, as debconf-set-selections(1) reads them.
    pub debconf: Vec<String>,
    /// The packages that are there for their own sake, foreign ones as `name:architecture`: apt
    /// takes the others away when nothing needs them any more.
    pub requested: BTreeSet<String>,
    /// Whether the script is run at once; otherwise it waits in the tree.
    pub configures: bool,
}

/// A system that was unpacked and not yet configured.
#[derive(Debug)]
pub struct System {
    /// Its files.
    pub tree: Tree,
    /// What the guest's root has to run, with `/bin/sh`, without arguments; it ends with 0 when
    /// every package is configured. It needs `/proc` and `/dev`. Nothing where it waits in the tree.
    pub script: Option<String>,
}

/// Unpacks packages, which are in the order of their dependencies, into a system.
///
/// # Errors
/// [`UnpackError`].
pub fn build_system(mut debs: Vec<Deb>, options: &SystemOptions) -> Result<System, UnpackError> {
    // The folders of base-files have the modes that count.
    debs.sort_by_key(|deb| deb.package.name != "base-files");
    let (mut deferred, mut native): (Vec<Deb>, Vec<Deb>) =
        debs.into_iter().partition(configure::must_be_deferred);
    let Unpacked { mut tree, lists } = loop {
        let error = match unpack_all(&native, &options.paths) {
            Ok(unpacked) => break unpacked,
            Err(error) => error,
        };
        // A package that moves the other one's file away does so before it is unpacked.
        match diverting(&native, &error) {
            Some(index) => deferred.push(native.remove(index)),
            None => return Err(error),
        }
    };
    if !options.debconf.is_empty() && tree.resolve(SET_SELECTIONS).is_err() {
        return Err(UnpackError::NoDebconf);
    }
    let mut maker = Maker {
        tree: &mut tree,
        time: options.time,
    };
    let mut architectures = vec![options.architecture.as_str()];
    architectures.extend(options.foreign.iter().map(String::as_str));
    database::write(&mut maker, &architectures, &native, &lists)?;
    apt::write_sources(&mut maker, &options.apt)?;
    if !options.paths.rules.is_empty() {
        let folder = maker.folder("/etc/dpkg/dpkg.cfg.d")?;
        let config = options.paths.config().into_bytes();
        maker.file(folder, "coop", 0o644, config)?;
    }
    if maker.tree.resolve(APT_STATE).is_ok() {
        let text = apt_states(&native, &deferred, options).into_bytes();
        let folder = maker.folder("/var/lib/apt")?;
        maker.file(folder, "extended_states", 0o644, text)?;
    }
    let names = deferred.iter().enumerate();
    let names: Vec<(String, &Deb)> = names
        .map(|(number, deb)| (format!("{number:04}-{}.deb", deb.package.name), deb))
        .collect();
    for (name, deb) in &names {
        keep_for_later(&mut maker, name, deb)?;
    }
    let script = configure::script(&native, &names, &options.debconf);
    if !options.configures {
        let folder = maker.folder(WAITING_FOLDER)?;
        maker.file(folder, "configure", 0o755, script.into_bytes())?;
        return Ok(System { tree, script: None });
    }
    let script = Some(script);
    Ok(System { tree, script })
}

/// The package that diverts the file over which two packages conflict, if one of them may do so.
fn diverting(debs: &[Deb], error: &UnpackError) -> Option<usize> {
    let UnpackError::Conflict { package, other, .. } = error else {
        return None;
    };
    let mut indexes = 0..debs.len();
    indexes.find(|index| {
        let deb = &debs[*index];
        let name = &deb.package.name;
        (name == package || name == other) && configure::diverts(deb)
    })
}

/// Which packages apt may take away by itself. Those that the essential ones depend on are not
/// marked, as they are not where a system is made by apt: they are there before it.
fn apt_states(native: &[Deb], deferred: &[Deb], options: &SystemOptions) -> String {
    let base = configure::base(native);
    let native = native.iter().enumerate();
    let native = native.filter(|(index, _)| !base.contains(index));
    let others = native.map(|(_, deb)| deb).chain(deferred);
    let own = &options.architecture;
    let mut automatic: Vec<(&str, &str)> = others
        .map(|deb| match deb.package.architecture.as_str() {
            "all" => (deb.package.name.as_str(), own.as_str()),
            architecture => (deb.package.name.as_str(), architecture),
        })
        .filter(|(name, architecture)| {
            let qualified = match *architecture == own {
                true => (*name).to_owned(),
                false => format!("{name}:{architecture}"),
            };
            !options.requested.contains(&qualified)
        })
        .collect();
    automatic.sort_unstable();
    let stanza = |(name, architecture)| {
        format!("Package: {name}\nArchitecture: {architecture}\nAuto-Installed: 1\n\n")
    };
    automatic.into_iter().map(stanza).collect()
}

/// Puts the .deb itself into the tree.
fn keep_for_later(maker: &mut Maker<'_>, name: &str, deb: &Deb) -> Result<(), TreeError> {
    let folder = maker.folder(configure::DEFERRED_FOLDER)?;
    let blob = maker.tree.add_blob(Arc::clone(&deb.file) as _)?;
    let size = deb.package.download.size_bytes.unwrap_or_default();
    let id = maker.tree.add_inode(Inode {
        metadata: Metadata {
            mode: 0o644,
            times: Times::all(maker.time),
            ..Metadata::default()
        },
        kind: Kind::File(coop_image::tree::Content::contiguous(blob, 0, size)),
    })?;
    maker.tree.replace(folder, name.as_bytes(), id)?;
    Ok(())
}
