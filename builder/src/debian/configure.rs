//! The shell script that finishes, in the guest, what was unpacked natively.
//!
//! dpkg runs a package's `preinst` before it unpacks the package, with what it Pre-Depends on
//! configured. Here the files are there already, and the scripts follow: first those of the
//! essential packages and all that these need, which are then configured; then the others', each
//! after the configuration of what it Pre-Depends on; then everything that is left.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Write as _;

use crate::debian::deb::Deb;
use crate::debian::relations;
use crate::debian::resolve::priority_rank;

/// Where the .deb files lie that the guest's own dpkg has to unpack.
pub(super) const DEFERRED_FOLDER: &str = "/var/cache/coop-deferred";
/// Denies starting services while packages are configured.
const POLICY_PATH: &str = "/usr/sbin/policy-rc.d";

/// No answer is one word.
const END_OF_ANSWERS: &str = "coop-end-of-answers";

const HEAD: &str = r#"#!/bin/sh
set -e
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export HOME=/root LC_ALL=C.UTF-8 LANG=C.UTF-8 LANGUAGE=C.UTF-8 TERM=dumb
export DEBIAN_FRONTEND=noninteractive DEBCONF_NONINTERACTIVE_SEEN=true DEBCONF_NOWARNINGS=yes
umask 022
cd /

preinst() {
	rm -rf /var/lib/dpkg/tmp.ci
	mkdir /var/lib/dpkg/tmp.ci
	for file in /var/lib/dpkg/info/"$1".*; do
		kind=${file#/var/lib/dpkg/info/"$1".}
		# The files of python3.13 are not python3's.
		case $kind in *.*) continue ;; esac
		ln -s "$file" /var/lib/dpkg/tmp.ci/"$kind"
	done
	# debconf looks there for whose questions they are.
	echo "Package: ${1%%:*}" > /var/lib/dpkg/tmp.ci/control
	DPKG_MAINTSCRIPT_PACKAGE="${1%%:*}" DPKG_MAINTSCRIPT_ARCH="$2" \
	DPKG_MAINTSCRIPT_NAME=preinst DPKG_MAINTSCRIPT_PACKAGE_REFCOUNT=1 \
	DPKG_ROOT= DPKG_ADMINDIR=/var/lib/dpkg DPKG_RUNNING_VERSION="$dpkg_version" \
	/var/lib/dpkg/tmp.ci/preinst install
	rm -rf /var/lib/dpkg/tmp.ci
}

# dpkg makes the list of a package that has none, while configuration files wait beside their names.
make_md5sums() {
	while IFS= read -r path; do
		for file in "$path.dpkg-new" "$path"; do
			if [ -f "$file" ] && [ ! -L "$file" ]; then
				sum=$(md5sum < "$file")
				echo "${sum%% *}  ${path#/}"
				break
			fi
		done
	done < /var/lib/dpkg/info/"$1".list > /var/lib/dpkg/info/"$1".md5sums
}

# The essential packages are configured before systemd comes, and their scripts do otherwise where
# they find it.
hide_systemctl() {
	for file in /bin/systemctl /usr/bin/systemctl; do
		if [ -e $file ]; then mv $file $file.coop; fi
	done
}

show_systemctl() {
	for file in /bin/systemctl /usr/bin/systemctl; do
		if [ -e $file.coop ]; then mv $file.coop $file; fi
	done
}

# apt downloads as a user of its own, and gives it these folders when it runs.
give_apt_its_folders() {
	for folder in /var/lib/apt/lists/partial /var/cache/apt/archives/partial; do
		if [ -d $folder ] && grep -q ^_apt: /etc/passwd; then
			chown _apt $folder
			chmod 700 $folder
		fi
	done
}
"#;

/// Whether a package has to be unpacked by the guest's dpkg: its `preinst` moves another package's
/// files out of the way of its own.
pub(super) fn must_be_deferred(deb: &Deb) -> bool {
    let script = deb.control_text("preinst").unwrap_or_default();
    diverts(deb)
        && script
            .split_ascii_whitespace()
            .any(|word| word == "--rename")
}

/// Whether a package's `preinst` may put another package's files out of its way.
pub(super) fn diverts(deb: &Deb) -> bool {
    let script = deb.control_text("preinst").unwrap_or_default();
    script.contains("dpkg-divert")
}

/// The positions of the essential packages and of all that they depend on.
pub(super) fn base(debs: &[Deb]) -> BTreeSet<usize> {
    Plan::new(debs).base()
}

/// Writes the script for packages in their order; `deferred` are those that are only in
/// [`DEFERRED_FOLDER`], by file name, and `answers` are debconf's.
pub(super) fn script(debs: &[Deb], deferred: &[(String, &Deb)], answers: &[String]) -> String {
    let mut text = HEAD.to_owned();
    let mut line = |words: &str| {
        // Writing to a String does not fail.
        let _ = writeln!(text, "{words}");
    };
    let dpkg = debs.iter().find(|deb| deb.package.name == "dpkg");
    let version = dpkg.map_or("", |deb| &deb.package.version);
    line(&format!("dpkg_version={}", quote(version)));
    line(&format!(
        "if [ -e {POLICY_PATH} ]; then echo '{POLICY_PATH} is there already' >&2; exit 1; fi"
    ));
    line(&format!("printf '#!/bin/sh\\nexit 101\\n' > {POLICY_PATH}"));
    line(&format!("chmod 755 {POLICY_PATH}"));
    for deb in debs
        .iter()
        .filter(|deb| !deb.control.contains_key("md5sums"))
    {
        line(&format!("make_md5sums {}", quote(&deb.database_name())));
    }
    let plan = Plan::new(debs);
    let base = plan.base();
    let mut configured: BTreeSet<usize> = BTreeSet::new();
    let (accounts, rest): (Vec<usize>, Vec<usize>) = plan
        .base_first(&base)
        .into_iter()
        .filter(|index| plan.has_preinst(*index))
        .partition(|index| is_base_of_base(&debs[*index]));
    for index in accounts {
        line(&preinst_line(&debs[index]));
    }
    if !answers.is_empty() {
        // All that this needs is unpacked, and no script but those above has asked anything yet.
        line(&format!("debconf-set-selections <<'{END_OF_ANSWERS}'"));
        answers.iter().for_each(|answer| line(answer));
        line(END_OF_ANSWERS);
    }
    for index in rest {
        line(&preinst_line(&debs[index]));
    }
    let others = || (0..debs.len()).filter(|index| !base.contains(index));
    let hides = others().any(|index| debs[index].package.name == "systemd");
    if hides {
        line("hide_systemctl");
    }
    if hides || !deferred.is_empty() || others().any(|index| plan.has_preinst(index)) {
        line(&configure_line(debs, &base));
        configured.extend(&base);
    }
    if hides {
        line("show_systemctl");
    }
    for index in others().filter(|index| plan.has_preinst(*index)) {
        let name = &debs[index].package.name;
        let mut needed = plan.closure_of(plan.needs(index, &["Pre-Depends"]));
        needed.retain(|needed| *needed != index && !configured.contains(needed));
        let has_own_preinst = needed
            .iter()
            .any(|needed| *needed > index && plan.has_preinst(*needed));
        if !needed.is_empty() && !has_own_preinst {
            line(&format!("# {name} needs these to be configured before"));
            line(&configure_line(debs, &needed));
            configured.extend(&needed);
        }
        line(&preinst_line(&debs[index]));
    }
    for (file, _) in deferred {
        let path = quote(&format!("{DEFERRED_FOLDER}/{file}"));
        line(&format!("dpkg --force-depends --unpack {path}"));
    }
    line(&format!("rm -rf {DEFERRED_FOLDER}"));
    line("dpkg --configure -a");
    line("dpkg --audit");
    line("give_apt_its_folders");
    line(&format!("rm -f {POLICY_PATH}"));
    text
}

/// Whether a package makes the accounts and folders that other scripts take for granted.
fn is_base_of_base(deb: &Deb) -> bool {
    matches!(deb.package.name.as_str(), "base-passwd" | "base-files")
}

fn preinst_line(deb: &Deb) -> String {
    format!(
        "preinst {} {}",
        quote(&deb.database_name()),
        quote(&deb.package.architecture)
    )
}

/// `--force-depends`: what is configured early may need something by an alternative that dpkg has
/// not seen configured.
fn configure_line(debs: &[Deb], indexes: &BTreeSet<usize>) -> String {
    let names = indexes
        .iter()
        .map(|index| quote(&debs[*index].database_name()));
    format!(
        "dpkg --force-depends --configure {}",
        names.collect::<Vec<_>>().join(" ")
    )
}

/// What needs what, by position.
struct Plan<'d> {
    debs: &'d [Deb],
    providers: HashMap<&'d str, Vec<usize>>,
}

impl<'d> Plan<'d> {
    fn new(debs: &'d [Deb]) -> Self {
        let mut providers: HashMap<&str, Vec<usize>> = HashMap::new();
        for (index, deb) in debs.iter().enumerate() {
            providers.entry(&deb.package.name).or_default().push(index);
            let field = deb.field("Provides").unwrap_or_default();
            for relation in relations::parse(field)
                .unwrap_or_default()
                .into_iter()
                .flatten()
            {
                providers.entry(relation.name).or_default().push(index);
            }
        }
        Self { debs, providers }
    }

    /// The packages that satisfy a package's relations, by name alone: the resolver has seen to
    /// the versions.
    fn needs(&self, index: usize, fields: &[&str]) -> Vec<usize> {
        let mut needed = Vec::new();
        for field in fields {
            let text = self.debs[index].field(field).unwrap_or_default();
            for alternatives in relations::parse(text).unwrap_or_default() {
                let mut found = alternatives
                    .iter()
                    .filter_map(|a| self.providers.get(a.name));
                needed.extend(found.next().into_iter().flatten());
            }
        }
        needed
    }

    fn closure_of(&self, start: Vec<usize>) -> BTreeSet<usize> {
        closure(start, |index| {
            self.needs(index, &["Pre-Depends", "Depends"])
        })
    }

    /// The essential packages and what they need. Of several packages that provide the same, the
    /// most important one is there for them; the others came because somebody asked for them.
    fn base(&self) -> BTreeSet<usize> {
        let essential = |index: &usize| self.debs[*index].field("Essential") == Some("yes");
        let start = (0..self.debs.len()).filter(essential).collect();
        closure(start, |index| {
            let mut needed = Vec::new();
            for field in ["Pre-Depends", "Depends"] {
                let text = self.debs[index].field(field).unwrap_or_default();
                for alternatives in relations::parse(text).unwrap_or_default() {
                    let mut found = alternatives
                        .iter()
                        .filter_map(|a| Some((a.name, self.providers.get(a.name)?)));
                    let found = found.next().and_then(|(name, providers)| {
                        let rank = |index: &&usize| self.rank(name, **index);
                        providers.iter().min_by_key(rank)
                    });
                    needed.extend(found);
                }
            }
            needed
        })
    }

    /// Which provider of a name comes first: as the resolver has it.
    fn rank(&self, name: &str, index: usize) -> (bool, bool, usize, &str) {
        let deb = &self.debs[index];
        let priority = priority_rank(deb.field("Priority").unwrap_or_default());
        let is_essential = deb.field("Essential") == Some("yes");
        let own = &deb.package.name;
        (own != name, !is_essential, priority, own)
    }

    /// The scripts of base-passwd and base-files come first: they make the accounts and folders
    /// that other scripts take for granted.
    fn base_first(&self, indexes: &BTreeSet<usize>) -> Vec<usize> {
        let rank = |index: &usize| match self.debs[*index].package.name.as_str() {
            "base-passwd" => 0,
            "base-files" => 1,
            _ => 2,
        };
        let mut ordered: Vec<usize> = indexes.iter().copied().collect();
        ordered.sort_by_key(rank);
        ordered
    }

    /// Whether the package has a `preinst` that does something on a first installation.
    fn has_preinst(&self, index: usize) -> bool {
        let script = self.debs[index].control_text("preinst");
        script.is_some_and(|script| !is_idle(&script))
    }
}

/// All that is reached from a start.
fn closure(start: Vec<usize>, needs: impl Fn(usize) -> Vec<usize>) -> BTreeSet<usize> {
    let mut pending = start;
    let mut closure = BTreeSet::new();
    while let Some(index) = pending.pop() {
        if closure.insert(index) {
            pending.extend(needs(index));
        }
    }
    closure
}

/// A script of nothing but `dpkg-maintscript-helper` lines acts on upgrades only.
fn is_idle(script: &str) -> bool {
    let mut lines = script.lines().map(str::trim);
    lines.all(|line| {
        let is_helper = line.starts_with("dpkg-maintscript-helper ");
        let is_plain = is_helper && !line.contains([';', '&', '|', '`']) && !line.contains("$(");
        line.is_empty() || line.starts_with('#') || matches!(line, "set -e" | "exit 0") || is_plain
    })
}

/// A word for the shell.
fn quote(word: &str) -> String {
    let is_safe = |byte: u8| byte.is_ascii_alphanumeric() || b"-+._:/~=".contains(&byte);
    if !word.is_empty() && word.bytes().all(is_safe) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}
