//! `coop doctor`: what this host has of what coop uses, and what it lacks. Nothing is fetched.

use std::path::Path;

use coop_builder::debian::mirror::{self, AptSources};
use coop_builder::kernel::Target;
use coop_builder::kernel::make::{Programs, missing};
use coop_runtime::{LandlockState, choose_memory_folder, landlock_state};
use serde_json::{Value, json};

use super::Ended;
use super::means::{APT_FOLDER, open_store};
use crate::arguments::DoctorOptions;
use crate::environment::Environment;
use crate::failure::{FAILED, Failure, Reason};
use crate::host;
use crate::render::{bytes, data, json as render_json, plain};

/// Guest memory of a recipe that says nothing.
const MEMORY_BYTES: u64 = 256 << 20;
/// What a Debian's build wants in the cache and for the guest's writes.
const SPACE_BYTES: u64 = 2 << 30;
/// What the host's kernel does with system calls of a confined process.
const SECCOMP: &str = "/proc/sys/kernel/seccomp/actions_avail";
/// What coop's own filter and the guest's kernel answer with.
const SECCOMP_ACTIONS: [&str; 2] = ["errno", "trap"];

/// How much something matters.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// It is there.
    Good,
    /// Something works less well without it.
    Lacking,
    /// No guest starts without it.
    Missing,
}

impl State {
    fn name(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Lacking => "lacking",
            Self::Missing => "missing",
        }
    }
}

struct Finding {
    what: &'static str,
    state: State,
    found: String,
    hint: Option<&'static str>,
}

impl Finding {
    fn good(what: &'static str, found: impl Into<String>) -> Self {
        Self {
            what,
            state: State::Good,
            found: found.into(),
            hint: None,
        }
    }

    fn bad(what: &'static str, state: State, found: impl Into<String>, hint: &'static str) -> Self {
        Self {
            what,
            state,
            found: found.into(),
            hint: Some(hint),
        }
    }
}

/// Looks, and exits with 1 where no guest would start.
pub(crate) fn run(options: &DoctorOptions, environment: &Environment) -> Ended {
    let findings = [
        architecture(),
        memory(environment),
        instances(environment),
        seccomp(),
        landlock(),
        cache(environment),
        scratch(environment),
        mirror(environment),
        compiler(environment),
    ];
    let is_able = findings.iter().all(|one| one.state != State::Missing);
    if options.json {
        let each: Vec<Value> = findings.iter().map(describe).collect();
        render_json::value(&json!({ "able": is_able, "findings": each }));
    } else {
        for one in &findings {
            let (state, what) = (one.state.name(), one.what);
            data(&format!("{state:<8} {what}: {}\n", plain(&one.found)));
            if let Some(hint) = one.hint {
                data(&format!("         {hint}\n"));
            }
        }
    }
    Ok(if is_able { 0 } else { FAILED })
}

fn describe(one: &Finding) -> Value {
    json!({
        "what": one.what,
        "state": one.state.name(),
        "found": one.found,
        "hint": one.hint,
    })
}

fn architecture() -> Finding {
    let name = std::env::consts::ARCH;
    match name {
        "x86_64" => Finding::good("processor", name),
        _ => Finding::bad(
            "processor",
            State::Missing,
            name,
            "coop's guests run on x86_64 hosts only so far",
        ),
    }
}

fn memory(environment: &Environment) -> Finding {
    match choose_memory_folder(&host::host(environment).memory, MEMORY_BYTES) {
        Ok(folder) => Finding::good("guest memory", format!("in {}", folder.display())),
        Err(error) => Finding::bad(
            "guest memory",
            State::Missing,
            error.to_string(),
            "set TMPDIR to a folder with room that is not mounted noexec; containers: --shm-size",
        ),
    }
}

fn instances(environment: &Environment) -> Finding {
    let folder = host::host(environment).instances;
    let made = || -> std::io::Result<()> {
        let parent = folder.parent().unwrap_or(Path::new("/"));
        tempfile::tempfile_in(if folder.is_dir() { &folder } else { parent }).map(drop)
    };
    match made() {
        Ok(()) => Finding::good("sockets", format!("in {}", folder.display())),
        Err(error) => Finding::bad(
            "sockets",
            State::Missing,
            format!("{}: {error}", folder.display()),
            "set XDG_RUNTIME_DIR or TMPDIR to a folder of your own with a short path",
        ),
    }
}

fn seccomp() -> Finding {
    let hint = "the host's kernel needs CONFIG_SECCOMP_FILTER, and a container must allow seccomp";
    match fs_err::read_to_string(SECCOMP) {
        Ok(actions) => {
            let lacks = |action: &&str| !actions.split_whitespace().any(|one| one == *action);
            match SECCOMP_ACTIONS.iter().find(|action| lacks(action)) {
                None => Finding::good("seccomp", actions.trim()),
                Some(action) => {
                    Finding::bad("seccomp", State::Missing, format!("has no {action}"), hint)
                }
            }
        }
        Err(error) => Finding::bad("seccomp", State::Lacking, error.to_string(), hint),
    }
}

fn landlock() -> Finding {
    let state = landlock_state();
    match state {
        LandlockState::Full => Finding::good("landlock", state.to_string()),
        LandlockState::Partial | LandlockState::Absent => Finding::bad(
            "landlock",
            State::Lacking,
            state.to_string(),
            "guests run without; a host with Linux 6.12 and landlock in its lsm= confines them more",
        ),
    }
}

fn cache(environment: &Environment) -> Finding {
    match open_store(environment) {
        Ok(store) => space("cache", store.root(), "COOP_CACHE names another folder"),
        Err(failure) => {
            let hint = "COOP_CACHE names another folder";
            Finding::bad("cache", State::Missing, sentence(&failure), hint)
        }
    }
}

fn scratch(environment: &Environment) -> Finding {
    let folder = host::host(environment).scratch;
    space("guests' writes", &folder, "TMPDIR names another folder")
}

fn space(what: &'static str, folder: &Path, hint: &'static str) -> Finding {
    let shown = folder.display();
    if let Err(error) = tempfile::tempfile_in(folder) {
        return Finding::bad(what, State::Missing, format!("{shown}: {error}"), hint);
    }
    match rustix::fs::statvfs(folder) {
        Ok(space) => {
            let free = space.f_bavail.saturating_mul(space.f_frsize);
            let found = format!("{} free in {shown}", bytes(free));
            match free >= SPACE_BYTES {
                true => Finding::good(what, found),
                false => Finding::bad(what, State::Lacking, found, hint),
            }
        }
        Err(error) => Finding::bad(what, State::Lacking, format!("{shown}: {error}"), hint),
    }
}

fn mirror(environment: &Environment) -> Finding {
    let hint = "set COOP_DEBIAN_MIRROR, or mirror: in recipes, to the address of a Debian mirror";
    let apt = AptSources::read(Path::new(APT_FOLDER));
    let chosen =
        apt.and_then(|apt| mirror::choose(None, environment.debian_mirror.as_deref(), &apt));
    match chosen {
        Ok(mirror) => Finding::good("Debian mirror", mirror.url),
        Err(error) => Finding::bad("Debian mirror", State::Lacking, error.to_string(), hint),
    }
}

fn compiler(environment: &Environment) -> Finding {
    let what = "kernel's tools";
    let hint = "without them Debian's prebuilt kernel is taken, which boots in a second";
    match missing(Target::Um, &Programs::of_system(&environment.programs)) {
        Ok(missing) if missing.is_empty() => {
            Finding::good(what, "all that coop's own kernel needs")
        }
        Ok(missing) => {
            let each: Vec<String> = missing
                .iter()
                .map(|one| format!("{} (in {})", one.tool, one.package))
                .collect();
            Finding::bad(
                what,
                State::Lacking,
                format!("no {}", each.join(", ")),
                hint,
            )
        }
        Err(error) => Finding::bad(what, State::Lacking, error.to_string(), hint),
    }
}

fn sentence(failure: &Failure) -> String {
    match &failure.reason {
        Reason::Sentence { message, .. } => message.clone(),
        Reason::Recipe(_) => String::new(),
    }
}
