//! `coop run`: boots an appliance, or what a recipe builds.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use coop_appliance::{Appliance, ApplianceError, Cocon, Filesystem, Forward};
use coop_builder::recipe::forwards_overlap;
use coop_builder::registry::Reference;
use coop_runtime::{
    Cause, ConsoleSpec, DiskSpec, DiskWrites, Machine, MachineSpec, NetworkSpec, Report, Running,
    Watch, Workload,
};
use serde_json::Value;

use super::nodes::{self, NodeEnd};
use super::subject::{self, Kind};
use super::{Ended, attend, detached, imported, qemu, registry};
use crate::arguments::{RecipeOptions, RunOptions};
use crate::environment::Environment;
use crate::failure::{COOP_FAILED, FAILED, Failure, TIMED_OUT};
use crate::render::{Output, json, line, progress};
use crate::signals::Signal;
use crate::{host, terminal};

/// Boots, and ends with the command's code if there is one.
pub(crate) fn run(options: &RunOptions, environment: &Environment, output: &Output) -> Ended {
    let code = failed_code(options);
    if options.detach {
        return detached::leave();
    }
    let begin = Instant::now();
    let booted = boot(options, environment, output);
    let end = match booted.map_err(|failure| failure.with_work_code(code)) {
        // The supervisor of a machine that was left running has nobody to tell.
        Ok(None) => return Ok(0),
        Ok(Some(end)) => end,
        Err(failure) if options.json => {
            json::value(&json::failure(&failure));
            return Ok(failure.code);
        }
        Err(failure) => return Err(failure),
    };
    let ended = exit_code(&end).map_err(|failure| failure.with_work_code(code));
    if options.json {
        let code = match &ended {
            Ok(code) => *code,
            Err(failure) => failure.code,
        };
        json::value(&report(&end, code, begin.elapsed()));
    }
    ended
}

/// The code of a run that failed, rather than its command.
fn failed_code(options: &RunOptions) -> u8 {
    match options.command.is_empty() {
        true => FAILED,
        false => COOP_FAILED,
    }
}

fn boot(
    options: &RunOptions,
    environment: &Environment,
    output: &Output,
) -> Result<Option<End>, Failure> {
    if !options.shares.is_empty() {
        return Err(Failure::usage("--share is not supported yet"));
    }
    if options.tty && !terminal::is_interactive() {
        let message = "--tty needs a terminal on stdin and stdout";
        return Err(Failure::usage(message));
    }
    let recipe_options = options.recipe_options.with(&options.secrets);
    let reference = registry::asked(&options.target, &options.registry)?;
    let is_elsewhere = reference.is_some() || super::bundle::is_there(&options.target);
    if options.trust.is_given() && !is_elsewhere {
        let message = "only bundles and registries are asked for signatures; what is run here is \
                       your own";
        return Err(Failure::usage(message));
    }
    if let Some(file) = subject::configuration(&options.target) {
        let mut given = recipe_options.given_for_recipes();
        if let Some(name) = given.find(|name| ["--set", "--secret"].contains(name)) {
            let message = format!("{name} is for recipes, and this is a configuration");
            return Err(Failure::usage(message));
        }
        if options.node.is_given() {
            let message = "nodes are of an appliance or a recipe, and this is a configuration";
            return Err(Failure::usage(message));
        }
        let prepared = imported::prepare(&file, options, environment, output)?;
        let spec = adapt(prepared.spec, &prepared.cocon, options, environment)?;
        let end = start(spec, options, environment);
        drop(prepared.kernel);
        return end;
    }
    // The cache keeps a recipe's appliance while it runs.
    let held;
    let target = match reference {
        Some(reference) => Target::Registry(reference),
        None => target(&options.target)?,
    };
    if !matches!(target, Target::Recipe(_)) {
        refuse_for_built(&recipe_options)?;
    }
    let folder = match target {
        Target::Appliance(folder) => folder,
        Target::Registry(_) if options.persist => {
            let failure = Failure::usage("--persist keeps changes in an appliance of your own");
            let hint = "get it with coop pull, then run its folder";
            return Err(failure.with_hint(hint));
        }
        Target::Registry(reference) => {
            held = super::pull::for_run(&reference, options, environment)?;
            held.folder.clone()
        }
        Target::Bundle(_) if options.persist => {
            let failure = Failure::usage("--persist keeps changes in an appliance, not a bundle");
            let hint = "unpack it with coop unpack, then run its folder";
            return Err(failure.with_hint(hint));
        }
        Target::Bundle(file) => {
            let layout = super::bundle::open_trusted(&file, &options.trust, environment)?;
            held = super::bundle::hold(layout.package(), &layout, environment)?;
            held.folder.clone()
        }
        Target::Recipe(_) if options.persist => {
            let failure = Failure::usage("--persist keeps changes in an appliance, not a recipe");
            let hint = "build it with coop build, then run its folder";
            return Err(failure.with_hint(hint));
        }
        Target::Recipe(file) => {
            held = super::build::for_run(&file, &recipe_options, environment, output)?;
            held.folder.clone()
        }
    };
    // The guest's process has a working folder of its own.
    let folder = std::path::absolute(&folder).map_err(|error| Failure::work(&error))?;
    let appliance = Appliance::open(&folder).map_err(|error| Failure::work(&error))?;
    if appliance.manifest.kernel.target != coop_appliance::Target::Um {
        return Err(foreign(&appliance));
    }
    let mut spec = specification(&appliance, options, environment)?;
    let name = &appliance.manifest.name;
    // Whoever the guest is, nobody else is it meanwhile.
    let _state = match (&options.node.node, options.node.nodes) {
        (_, Some(count)) => return nodes::run(&spec, name, count, options, environment).map(Some),
        (Some(node), None) => Some(nodes::dress(&mut spec, name, node, environment)?),
        (None, None) => None,
    };
    start(spec, options, environment)
}

/// The report of a machine, or of each of several.
fn report(end: &End, code: u8, wall: Duration) -> Value {
    if end.nodes.is_empty() {
        return json::report(&end.report, code, wall);
    }
    let node = |node: &NodeEnd| {
        let mut report = json::report(&node.report, node.code.unwrap_or(code), wall);
        report["name"] = node.name.as_str().into();
        report
    };
    let nodes: Vec<Value> = end.nodes.iter().map(node).collect();
    serde_json::json!({ "nodes": nodes, "exit_code": code })
}

/// Starts a machine and stays until it has ended. A supervisor's has no end to tell of.
fn start(
    spec: MachineSpec,
    options: &RunOptions,
    environment: &Environment,
) -> Result<Option<End>, Failure> {
    let machine = Machine::check(spec).map_err(|error| Failure::work(&error))?;
    let watch = Watch {
        observer: Arc::from(progress::quiet_observer(options.recipe_options.progress)),
        kernel_log: None,
    };
    let started = |machine: Machine, watch| {
        let running = machine.start(watch);
        running.map_err(|error| Failure::work(&error))
    };
    if options.supervise {
        let ears = detached::Ears::open()?;
        let described = detached::Described::now(options)?;
        let running = started(machine, watch)?;
        ears.attend(running, options, &described, environment)?;
        return Ok(None);
    }
    let attendance = attend::Attendance::prepare()?;
    let running = started(machine, watch)?;
    attendance.attend(running, options).map(Some)
}

/// Refuses an appliance for other machines, and says what boots it.
fn foreign(appliance: &Appliance) -> Failure {
    let failure = Failure::work(&ApplianceError::Target(appliance.manifest.kernel.target));
    match qemu::words(appliance) {
        Ok(words) => failure.with_hint(format!("QEMU boots it: {}", qemu::line(&words))),
        Err(error) => Failure::work(&error),
    }
}

/// What is to be booted.
pub(super) enum Target {
    Appliance(PathBuf),
    Bundle(PathBuf),
    Registry(Reference),
    Recipe(PathBuf),
}

/// What a word names that can be booted; another file is a recipe.
pub(super) fn target(word: &Path) -> Result<Target, Failure> {
    let kind = subject::expect(word, &[Kind::Recipe, Kind::Appliance, Kind::Bundle])?;
    Ok(match kind {
        Kind::Appliance => Target::Appliance(word.to_owned()),
        Kind::Bundle => Target::Bundle(word.to_owned()),
        _ => Target::Recipe(word.to_owned()),
    })
}

/// Refuses what changes how a recipe is built, where all is built.
pub(super) fn refuse_for_built(options: &RecipeOptions) -> Result<(), Failure> {
    match options.given_for_recipes().next() {
        None => Ok(()),
        Some(name) => {
            let message = format!("{name} is for recipes, and this is built already");
            Err(Failure::usage(message).with_hint("name the recipe, or build it anew"))
        }
    }
}

/// The appliance's machine with what the command line changes.
fn specification(
    appliance: &Appliance,
    options: &RunOptions,
    environment: &Environment,
) -> Result<MachineSpec, Failure> {
    let spec = MachineSpec::of_appliance(appliance, host::host(environment));
    let spec = spec.map_err(|error| Failure::work(&error))?;
    adapt(spec, &appliance.manifest.cocon, options, environment)
}

/// A machine with what the command line changes.
fn adapt(
    mut spec: MachineSpec,
    cocon: &Cocon,
    options: &RunOptions,
    environment: &Environment,
) -> Result<MachineSpec, Failure> {
    if let Some(memory) = options.memory {
        spec.memory_bytes = memory.0;
    }
    if let Some(cpus) = options.cpus {
        spec.cpus = cpus;
    }
    if !options.forwards.is_empty() || options.allow_host {
        let network = spec.network.get_or_insert_with(|| NetworkSpec {
            resolvers: host::host(environment).resolvers,
            ..NetworkSpec::default()
        });
        network.forwards = merge_forwards(&network.forwards, &options.forwards)?;
        network.allow_host |= options.allow_host;
    }
    for (index, path) in options.disks.iter().enumerate() {
        spec.disks.push(DiskSpec {
            name: format!("disk{index}"),
            path: path.clone(),
            writes: DiskWrites::Dropped,
            filesystem: Filesystem::Unknown,
            mount: None,
            file: None,
        });
    }
    if options.persist {
        for disk in &mut spec.disks {
            if disk.writes == DiskWrites::Dropped {
                disk.writes = DiskWrites::Kept {
                    ignore_flush: false,
                };
            }
        }
    }
    if options.command.is_empty() {
        let (columns, rows) = terminal::size().unwrap_or((cocon.columns, cocon.rows));
        spec.console = Some(ConsoleSpec { columns, rows });
        spec.workload = Workload::Init;
    }
    spec.timeout = options.timeout;
    Ok(spec)
}

/// The command line's forwards and those of the appliance that lead elsewhere in the guest: so a
/// second machine of an appliance can be reached through ports of its own.
fn merge_forwards(appliance: &[Forward], given: &[Forward]) -> Result<Vec<Forward>, Failure> {
    let same_goal = |a: &Forward, b: &Forward| {
        a.protocol == b.protocol && a.guest_port == b.guest_port && a.count == b.count
    };
    let kept = appliance
        .iter()
        .filter(|old| !given.iter().any(|new| same_goal(old, new)));
    let mut merged: Vec<Forward> = Vec::new();
    for forward in kept.chain(given) {
        if merged.iter().any(|other| forwards_overlap(other, forward)) {
            let port = forward.host_port;
            let message = format!("port {port} of the host would be forwarded twice");
            return Err(Failure::usage(message));
        }
        merged.push(forward.clone());
    }
    Ok(merged)
}

/// What is known at the end.
pub(super) struct End {
    /// What the runtime says.
    pub(super) report: Report,
    /// The command's own code.
    pub(super) code: Option<u8>,
    /// The signal that asked coop to end.
    pub(super) signal: Option<Signal>,
    /// A person ended the guest from the console.
    pub(super) escaped: bool,
    /// Each of several nodes, in order.
    pub(super) nodes: Vec<NodeEnd>,
    /// The place of the node that the rest is about.
    pub(super) chosen: Option<usize>,
}

impl End {
    /// The end of one machine.
    pub(super) fn of(report: Report, code: Option<u8>, signal: Option<Signal>) -> Self {
        Self {
            report,
            code,
            signal,
            escaped: false,
            nodes: Vec::new(),
            chosen: None,
        }
    }

    /// The code with which coop would exit.
    pub(super) fn exit_code(&self, options: &RunOptions) -> u8 {
        one_code(self).unwrap_or_else(|failure| failure.with_work_code(failed_code(options)).code)
    }
}

/// What keeps a machine from its work that did not come up.
pub(super) fn not_up(running: &Running) -> Failure {
    running.kill();
    failed(&running.wait())
}

/// The code of a process that SIGKILL ended, as a shell reports it.
const KILLED: u8 = 137;

fn exit_code(end: &End) -> Ended {
    let reports = end.nodes.iter().map(|node| &node.report);
    if reports
        .chain([&end.report])
        .any(|report| report.clean == Some(false))
    {
        line("warning: the guest left a file system unclean");
    }
    let chosen = end.chosen.and_then(|at| end.nodes.get(at));
    let ended = one_code(end);
    match chosen {
        Some(node) => ended.map_err(|failure| failure.of(&node.name)),
        None => ended,
    }
}

fn one_code(end: &End) -> Ended {
    match (&end.report.cause, end.code, end.signal) {
        (_, Some(code), _) => Ok(code),
        (Cause::TimedOut, ..) => Err(Failure::sentence(TIMED_OUT, end.report.cause.to_string())),
        (Cause::PoweredOff, ..) => Ok(0),
        (Cause::Exited(exit), ..) => Ok(exit.shell_code()),
        (Cause::Stopped, _, Some(signal)) => Ok(signal.shell_code()),
        (Cause::Stopped, ..) if end.escaped => Ok(KILLED),
        _ => Err(failed(&end.report)),
    }
}

/// Why a machine failed, with its kernel's last words.
fn failed(report: &Report) -> Failure {
    let mut message = report.cause.to_string();
    let log = report.kernel_log.trim_end();
    if !log.is_empty() {
        message.push_str("\nthe guest's kernel said last:");
        let lines: Vec<&str> = log.lines().collect();
        let from = lines.len().saturating_sub(KERNEL_LINES_SHOWN);
        for text in lines.get(from..).unwrap_or_default() {
            message.push_str("\n  ");
            message.push_str(text.trim_end());
        }
    }
    Failure::sentence(FAILED, message)
}

/// How many of the kernel's last lines an error shows.
const KERNEL_LINES_SHOWN: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;
    use coop_builder::recipe::parse_forward;

    fn forwards(texts: &[&str]) -> Vec<Forward> {
        let parsed = texts.iter().map(|text| parse_forward(text));
        parsed.collect::<Result<_, _>>().unwrap()
    }

    #[test]
    fn a_given_forward_replaces_the_one_to_its_goal() {
        let own = forwards(&["tcp:2222:22", "tcp:8080:80"]);
        let merged = merge_forwards(&own, &forwards(&["tcp:2300:22"])).unwrap();
        assert_eq!(merged, forwards(&["tcp:8080:80", "tcp:2300:22"]));
        assert!(merge_forwards(&own, &forwards(&["tcp:8080:81"])).is_err());
        assert!(merge_forwards(&own, &forwards(&["udp:8080:81"])).is_ok());
    }
}
