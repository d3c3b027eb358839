//! `coop run --nodes`: several machines of one appliance, on one network, in one program.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier, Mutex, MutexGuard, PoisonError};
use std::thread;

use coop_appliance::Forward;
use coop_builder::recipe::forwards_overlap;
use coop_runtime::{
    Cause, Console, ExecError, ExecHandle, ExecRequest, ExecStreams, Exit, Exports, Machine,
    MachineSpec, NodeState, Report, Running, Seat, Watch, Workload, join_nodes, node_names,
};

use super::attend::{GRACE, SHUT_DOWN_PATIENCE};
use super::run::End;
use crate::arguments::RunOptions;
use crate::environment::Environment;
use crate::failure::Failure;
use crate::render::{line, progress};
use crate::signals::{self, Signal};

/// How much of a console is kept, in bytes: a guest must not fill the host's disk.
const CONSOLE_BYTES_MAX: u64 = 16 << 20;
/// The longest line that is printed as one, in bytes.
const LINE_BYTES_MAX: usize = 16 << 10;

/// How one of several nodes ended.
pub(super) struct NodeEnd {
    pub(super) name: String,
    pub(super) report: Report,
    /// The command's own code.
    pub(super) code: Option<u8>,
}

impl NodeEnd {
    /// Whether something went wrong with it.
    fn has_failed(&self) -> bool {
        match (self.code, &self.report.cause) {
            (Some(code), _) => code != 0,
            (None, cause) => *cause != Cause::PoweredOff,
        }
    }
}

/// The machine as the one node that it is to be; what it is lasts as long as what is returned.
pub(super) fn dress(
    spec: &mut MachineSpec,
    appliance: &str,
    name: &str,
    environment: &Environment,
) -> Result<NodeState, Failure> {
    let state = open(appliance, name, environment)?;
    let seats = join_nodes(&[name.to_owned()]).map_err(|error| Failure::work(&error))?;
    take_on(spec, &state, seats.first());
    Ok(state)
}

fn open(appliance: &str, name: &str, environment: &Environment) -> Result<NodeState, Failure> {
    let Some(state) = &environment.state else {
        let failure = Failure::usage("there is no place where nodes are kept");
        return Err(failure.with_hint("set XDG_STATE_HOME or HOME"));
    };
    let state = NodeState::open(&state.join("nodes"), appliance, name);
    state.map_err(|error| match &error {
        coop_runtime::NodeError::Name(_) => {
            Failure::usage(error.to_string()).with_hint("give the nodes a name by --node")
        }
        _ => Failure::work(&error),
    })
}

fn take_on(spec: &mut MachineSpec, state: &NodeState, seat: Option<&Seat>) {
    spec.hostname = Some(state.name().to_owned());
    spec.identity = state.identity();
    if let Some(network) = &mut spec.network {
        network.seat = seat.cloned();
    }
}

/// Starts the nodes and stays until the last has ended.
pub(super) fn run(
    spec: &MachineSpec,
    appliance: &str,
    count: u8,
    options: &RunOptions,
    environment: &Environment,
) -> Result<End, Failure> {
    if options.persist && count > 1 {
        let message = "--persist keeps the changes of one machine, not of several nodes";
        return Err(Failure::usage(message));
    }
    if spec.network.is_none() && count > 1 {
        let message = "nodes reach each other by a network, and the appliance has none";
        return Err(Failure::usage(message));
    }
    let base = options.node.node.as_deref().unwrap_or(appliance);
    let names = node_names(base, count.into());
    let states: Vec<NodeState> = names
        .iter()
        .map(|name| open(appliance, name, environment))
        .collect::<Result<_, _>>()?;
    let seats = join_nodes(&names).map_err(|error| Failure::work(&error))?;
    let mut specs = Vec::new();
    for (index, (state, seat)) in states.iter().zip(&seats).enumerate() {
        let mut spec = spec.clone();
        take_on(&mut spec, state, Some(seat));
        if let Some(network) = &mut spec.network {
            network.forwards = shifted(&network.forwards, index)?;
        }
        specs.push(spec);
    }
    check_forwards(&specs)?;
    // Every machine is checked before the first starts.
    let mut exports = Exports::default();
    let machines: Vec<Machine> = names
        .iter()
        .zip(specs)
        .map(|(name, spec)| {
            let failed = |error| Failure::work(&error).of(name);
            Machine::check_among(spec, &mut exports).map_err(failed)
        })
        .collect::<Result<_, _>>()?;
    let crew = Arc::new(Crew::default());
    let hearing = Arc::clone(&crew);
    let watch = signals::Watch::start(move |signal| Crew::hear(&hearing, signal));
    let watch = watch.map_err(|error| Failure::work(&error))?;
    let mut members = Vec::new();
    for (state, machine) in states.iter().zip(machines) {
        let name = state.name();
        let watch = Watch {
            observer: Arc::from(progress::quiet_observer(options.recipe_options.progress)),
            kernel_log: None,
        };
        let running = machine.start(watch);
        let running = running.map_err(|error| Failure::work(&error).of(name))?;
        tell_ports(name, &running);
        members.push(Arc::new(Member {
            name: name.to_owned(),
            running,
            is_init: spec.workload == Workload::Init,
            command: Mutex::new(None),
        }));
    }
    crew.begin(&members);
    if spec.workload == Workload::Init {
        for (member, state) in members.iter().zip(&states) {
            log_console(member, state.folder())?;
        }
        line("nobody types at the nodes' consoles; Ctrl-C ends the nodes");
    }
    let ends = attend(&members, options);
    drop(watch);
    let signal = *lock(&crew.signal);
    Ok(summary(ends, signal))
}

/// What is known of all of them: the first that failed speaks for the rest.
fn summary(ends: Vec<NodeEnd>, signal: Option<Signal>) -> End {
    let at = ends.iter().position(NodeEnd::has_failed).unwrap_or(0);
    // There is one node at least.
    let chosen = &ends[at];
    End {
        report: chosen.report.clone(),
        code: chosen.code,
        signal,
        escaped: false,
        nodes: ends,
        chosen: Some(at),
    }
}

/// The forwards of the node at this place: the same ports of the guest, later ones of the host.
fn shifted(forwards: &[Forward], index: usize) -> Result<Vec<Forward>, Failure> {
    let shift = |forward: &Forward| {
        let offset = u16::try_from(index).ok()?.checked_mul(forward.count)?;
        let host_port = forward.host_port.checked_add(offset)?;
        host_port.checked_add(forward.count - 1)?;
        Some(Forward {
            host_port,
            ..forward.clone()
        })
    };
    let shifted = forwards.iter().map(|forward| {
        shift(forward).ok_or_else(|| {
            let port = forward.host_port;
            Failure::usage(format!("the host has no port for each node from {port} on"))
        })
    });
    shifted.collect()
}

fn check_forwards(specs: &[MachineSpec]) -> Result<(), Failure> {
    let networks = specs.iter().filter_map(|spec| spec.network.as_ref());
    let all: Vec<&Forward> = networks.flat_map(|network| &network.forwards).collect();
    for (index, forward) in all.iter().enumerate() {
        let mut others = all.iter().skip(index + 1);
        if others.any(|other| forwards_overlap(forward, other)) {
            let message = format!(
                "the nodes' ports of the host from {} on meet those of another forward",
                forward.host_port
            );
            let hint = "each node takes the next ports; leave room for them";
            return Err(Failure::usage(message).with_hint(hint));
        }
    }
    Ok(())
}

fn tell_ports(name: &str, running: &Running) {
    for port in running.ports() {
        line(&format!(
            "{name}: {} port {} of the host leads to its port {}",
            port.transport, port.host_port, port.guest_port
        ));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A node that runs.
struct Member {
    name: String,
    running: Running,
    is_init: bool,
    command: Mutex<Option<ExecHandle>>,
}

/// All nodes, and the signal that asked for their end.
#[derive(Default)]
struct Crew {
    members: Mutex<Vec<Arc<Member>>>,
    signal: Mutex<Option<Signal>>,
}

impl Crew {
    /// From now on a signal has somebody to go to; one that came before ends them all.
    fn begin(&self, members: &[Arc<Member>]) {
        let mut present = lock(&self.members);
        *present = members.to_vec();
        if lock(&self.signal).is_some() {
            present.iter().for_each(|member| member.running.kill());
        }
    }

    /// The first signal asks every node, a second one kills them.
    fn hear(crew: &Self, signal: Signal) {
        if signal == Signal::Resized {
            return;
        }
        let members = lock(&crew.members);
        let is_second = lock(&crew.signal).replace(signal).is_some();
        for member in members.iter() {
            if is_second {
                member.running.kill();
                continue;
            }
            let member = Arc::clone(member);
            thread::spawn(move || member.end(signal));
        }
    }
}

impl Member {
    fn end(&self, signal: Signal) {
        let command = lock(&self.command).clone();
        match command {
            Some(command) => {
                let asked = command.signal(signal.number());
                if asked.is_err() || self.running.wait_timeout(GRACE).is_none() {
                    self.running.kill();
                }
            }
            None if self.is_init => self.running.shut_down(GRACE),
            None => self.running.kill(),
        }
    }
}

/// Stays with every node, a thread each. Commands begin when all nodes are up, and nodes end when
/// all commands have: so each finds the others.
fn attend(members: &[Arc<Member>], options: &RunOptions) -> Vec<NodeEnd> {
    let gate = Barrier::new(members.len());
    let is_lost = AtomicBool::new(false);
    thread::scope(|scope| {
        let stay = |member: &Arc<Member>| {
            let (member, gate, is_lost) = (Arc::clone(member), &gate, &is_lost);
            scope.spawn(move || {
                let code = match member.is_init {
                    true => None,
                    false => together(&member, gate, is_lost, options),
                };
                NodeEnd {
                    name: member.name.clone(),
                    report: member.running.wait(),
                    code,
                }
            })
        };
        let threads: Vec<_> = members.iter().map(stay).collect();
        let ended = threads.into_iter().map(thread::ScopedJoinHandle::join);
        // A thread that panicked has said so.
        ended.flatten().collect()
    })
}

fn together(
    member: &Member,
    gate: &Barrier,
    is_lost: &AtomicBool,
    options: &RunOptions,
) -> Option<u8> {
    if member.running.wait_ready().is_err() {
        is_lost.store(true, Ordering::Release);
    }
    gate.wait();
    let code = match is_lost.load(Ordering::Acquire) {
        true => None,
        false => command(member, options),
    };
    gate.wait();
    member.running.shut_down(SHUT_DOWN_PATIENCE);
    code
}

/// Runs the command in one node. Nothing is returned where the guest ended first.
fn command(member: &Member, options: &RunOptions) -> Option<u8> {
    let request = ExecRequest {
        argv: options.command.clone(),
        ..ExecRequest::default()
    };
    let to = |sink| Box::new(Prefixed::new(&member.name, sink));
    let streams = ExecStreams {
        stdin: None,
        stdout: to(match options.json {
            true => Sink::Error,
            false => Sink::Output,
        }),
        stderr: to(Sink::Error),
    };
    let execution = match member.running.exec(&request, streams) {
        Ok(execution) => execution,
        Err(ExecError::Session(_)) => return None,
        Err(error) => {
            line(&format!("{}: {error}", member.name));
            return Some(crate::failure::COOP_FAILED);
        }
    };
    *lock(&member.command) = Some(execution.handle());
    let ended = execution.wait();
    *lock(&member.command) = None;
    match ended {
        Ok(exit) => Some(Exit::shell_code(exit)),
        Err(ExecError::Output(error)) => {
            line(&format!("{}: {error}", member.name));
            Some(crate::failure::COOP_FAILED)
        }
        Err(_) => None,
    }
}

/// Where lines go.
#[derive(Clone, Copy)]
enum Sink {
    Output,
    Error,
}

/// Prints lines with a name before them; whole ones, so that the nodes' do not mix.
struct Prefixed {
    prefix: String,
    line: Vec<u8>,
    sink: Sink,
}

impl Prefixed {
    fn new(name: &str, sink: Sink) -> Self {
        Self {
            prefix: format!("{name}: "),
            line: Vec::new(),
            sink,
        }
    }

    fn print(&mut self) -> io::Result<()> {
        let mut whole = self.prefix.clone().into_bytes();
        whole.append(&mut self.line);
        if !whole.ends_with(b"\n") {
            whole.push(b'\n');
        }
        match self.sink {
            Sink::Output => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(&whole)?;
                stdout.flush()
            }
            Sink::Error => io::stderr().lock().write_all(&whole),
        }
    }
}

impl Write for Prefixed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            for part in piece.chunks(LINE_BYTES_MAX) {
                self.line.extend_from_slice(part);
                if self.line.ends_with(b"\n") || self.line.len() >= LINE_BYTES_MAX {
                    self.print()?;
                }
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Prefixed {
    fn drop(&mut self) {
        if !self.line.is_empty() {
            // Whoever reads has gone; there is nobody to tell.
            let _ = self.print();
        }
    }
}

/// Writes a node's console to a file beside what is kept of it.
fn log_console(member: &Arc<Member>, folder: &Path) -> Result<(), Failure> {
    let Some(console) = member.running.take_console() else {
        return Ok(());
    };
    let path: PathBuf = folder.join("console.log");
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let log = options.open(&path).map_err(|error| {
        let sentence = format!("cannot write {}: {error}", path.display());
        Failure::work(&io::Error::new(error.kind(), sentence))
    })?;
    line(&format!(
        "{}: its console is in {}",
        member.name,
        path.display()
    ));
    thread::spawn(move || record(console, log));
    Ok(())
}

/// Records a console to its end; what is beyond the limit is thrown away, for a guest whose console
/// is full would stop.
fn record(console: Console, mut log: File) {
    let Console {
        mut output, input, ..
    } = console;
    let mut left = CONSOLE_BYTES_MAX;
    let mut buffer = [0; 16 << 10];
    while let Ok(count @ 1..) = output.read(&mut buffer) {
        let bytes = u64::try_from(count).unwrap_or(u64::MAX);
        if bytes > left || log.write_all(&buffer[..count]).is_err() {
            left = 0;
            continue;
        }
        left -= bytes;
    }
    // Until here somebody might have typed.
    drop(input);
}

#[cfg(test)]
mod tests {
    use super::*;
    use coop_builder::recipe::parse_forward;

    #[test]
    fn every_node_has_ports_of_its_own() {
        let forwards = [
            parse_forward("tcp:2200:22").unwrap(),
            parse_forward("udp:5000:53:10").unwrap(),
        ];
        let ports = |index| -> Vec<u16> {
            let shifted = shifted(&forwards, index).unwrap();
            shifted.iter().map(|forward| forward.host_port).collect()
        };
        assert_eq!(ports(0), [2200, 5000]);
        assert_eq!(ports(3), [2203, 5030]);
        let last = parse_forward("tcp:65530:22").unwrap();
        assert!(shifted(&[last], 6).is_err());
    }
}
