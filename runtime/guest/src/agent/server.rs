//! Serving the host: one loop over the channel, the commands' streams, and what else wakes us.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use coop_guest::boot::BootConfig;
use coop_guest::frame::DATA_MAX;
use coop_guest::message::{Exec, ExecId, Phase, Reply, Request};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::Pid;
use rustix::time::Timespec;

use crate::boot::boot_us;
use crate::channel::{Channel, Host};
use crate::child::{Child, Got};
use crate::control::Control;
use crate::failure::{Doing, Failure};
use crate::network::Resolver;
use crate::reaper::Reaper;
use crate::{log, stop};

/// How long the host has to hear the last words.
const PARTING_TIMEOUT: Duration = Duration::from_secs(3);
/// How long the root's init may take until it can be talked to.
const INIT_TIMEOUT: Duration = Duration::from_secs(60);
const INIT_PAUSE: Duration = Duration::from_millis(10);
/// Where systemd listens to its own tools.
const SYSTEMD_SOCKET: &str = "/run/systemd/private";
/// What every command finds in its environment unless the host says otherwise.
const ENVIRONMENT: [(&str, &str); 3] = [
    (
        "PATH",
        "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    ),
    ("HOME", "/root"),
    ("TERM", "linux"),
];

/// What the server is besides.
pub(crate) enum Role {
    /// Process 1: it reaps, and it ends the guest itself.
    Init {
        /// Whether there is swap to turn off.
        swap: bool,
        /// The resolver's file, to be taken back.
        resolver: Option<Resolver>,
        /// The shell on the console and the socket for `poweroff`, where the root has no init.
        console: Option<(Pid, Option<Control>)>,
    },
    /// A process beside the root's own init.
    Beside,
}

/// Why the loop ended.
enum End {
    /// The host or the console's user asks for it.
    Stop,
    /// There is nobody to serve.
    HostGone,
}

/// What woke the loop.
enum Token {
    Channel,
    Reaper,
    Control,
    Input(ExecId),
    Output(ExecId),
}

pub(crate) struct Server {
    channel: Channel,
    environment: Vec<(OsString, OsString)>,
    children: BTreeMap<ExecId, Child>,
    reaper: Reaper,
    role: Role,
    buffer: Vec<u8>,
}

impl Server {
    pub(crate) fn new(channel: Channel, config: &BootConfig, role: Role) -> Result<Self, Failure> {
        let own = config.environment.iter();
        let own = own.map(|(name, value)| (name.as_str(), value.as_str()));
        let environment = ENVIRONMENT
            .into_iter()
            .chain(own)
            .map(|(name, value)| (name.into(), value.into()))
            .collect();
        Ok(Self {
            channel,
            environment,
            children: BTreeMap::new(),
            reaper: Reaper::start()?,
            role,
            buffer: vec![0; DATA_MAX],
        })
    }

    /// Serves until the end: of the guest for process 1, which does not return; of the connection
    /// for a server beside the real init.
    pub(crate) fn run(mut self) -> ExitCode {
        loop {
            let end = self.serve();
            match (self.role, end) {
                (Role::Init { swap, resolver, .. }, _) => {
                    // The commands' outputs are closed here, so that nothing waits for a reader.
                    self.children.clear();
                    drop(self.reaper);
                    end_guest(self.channel, swap, resolver)
                }
                (Role::Beside, End::Stop) => {
                    ask_init_to_stop();
                    self.reaper.child_started();
                    self.role = Role::Beside;
                }
                (Role::Beside, End::HostGone) => return ExitCode::SUCCESS,
            }
        }
    }

    /// Goes on until somebody asks for the end.
    fn serve(&mut self) -> End {
        loop {
            for token in self.wait() {
                if let Some(end) = self.handle(&token) {
                    return end;
                }
            }
            self.finish_children();
            if self.channel.flush() == Host::Gone {
                log::line("the host has closed the agent's port");
                return End::HostGone;
            }
        }
    }

    /// Sleeps until something happens.
    fn wait(&self) -> Vec<Token> {
        let mut tokens = vec![Token::Channel, Token::Reaper];
        let mut channel = PollFlags::empty();
        channel.set(PollFlags::IN, self.channel.is_listened());
        channel.set(PollFlags::OUT, self.channel.pending());
        let mut fds = vec![
            PollFd::from_borrowed_fd(self.channel.fd(), channel),
            PollFd::from_borrowed_fd(self.reaper.fd(), PollFlags::IN),
        ];
        if let Role::Init {
            console: Some((_, Some(control))),
            ..
        } = &self.role
        {
            tokens.push(Token::Control);
            fds.push(PollFd::from_borrowed_fd(control.fd(), PollFlags::IN));
        }
        let mut look_again: Option<Instant> = None;
        for (id, child) in &self.children {
            if let Some((fd, pending)) = child.input() {
                let mut flags = PollFlags::empty();
                flags.set(PollFlags::OUT, pending);
                tokens.push(Token::Input(*id));
                fds.push(PollFd::from_borrowed_fd(fd, flags));
            }
            let wanted = child.sources.iter().filter_map(|source| source.wanted());
            for fd in wanted.filter(|_| !self.channel.full()) {
                tokens.push(Token::Output(*id));
                fds.push(PollFd::from_borrowed_fd(fd, PollFlags::IN));
            }
            look_again = [look_again, child.look_again_at()]
                .into_iter()
                .flatten()
                .min();
        }
        let left = look_again.map(|at| at.saturating_duration_since(Instant::now()));
        let timeout =
            left.and_then(|left| Timespec::try_from(left + Duration::from_millis(1)).ok());
        if poll(&mut fds, timeout.as_ref()).is_err() {
            return Vec::new();
        }
        let happened = fds.iter().map(|fd| !fd.revents().is_empty());
        tokens
            .into_iter()
            .zip(happened)
            .filter_map(|(token, happened)| happened.then_some(token))
            .collect()
    }

    fn handle(&mut self, token: &Token) -> Option<End> {
        match token {
            Token::Channel => return self.receive(),
            Token::Reaper => {
                for (pid, exit) in self.reaper.reap() {
                    if self.is_console(pid) {
                        return Some(End::Stop);
                    }
                    let mut children = self.children.values_mut();
                    if let Some(child) = children.find(|child| child.pid() == pid) {
                        child.has_ended(exit);
                    }
                }
            }
            Token::Control => {
                if let Role::Init {
                    console: Some((_, Some(control))),
                    ..
                } = &self.role
                    && control.asked()
                {
                    return Some(End::Stop);
                }
            }
            Token::Input(id) => self.write_input(*id),
            Token::Output(id) => self.read_outputs(*id),
        }
        None
    }

    fn is_console(&self, ended: Pid) -> bool {
        matches!(&self.role, Role::Init { console: Some((pid, _)), .. } if *pid == ended)
    }

    fn receive(&mut self) -> Option<End> {
        if self.channel.receive() == Host::Gone {
            log::line("the host has closed the agent's port");
            return Some(End::HostGone);
        }
        loop {
            match self.channel.request() {
                Ok(Some(Request::Shutdown)) => return Some(End::Stop),
                Ok(Some(Request::Exec { id, exec })) => self.start(id, &exec),
                Ok(Some(Request::Stdin { id, data })) => {
                    if let Some(child) = self.children.get_mut(&id) {
                        child.feed(data);
                        self.write_input(id);
                    }
                }
                Ok(Some(Request::StdinEnd { id })) => self.tell(id, Child::end_input),
                Ok(Some(Request::Credit { id, output, bytes })) => {
                    self.tell(id, |child| child.credit(output, bytes));
                }
                Ok(Some(Request::CloseOutput { id, output })) => {
                    self.tell(id, |child| child.close_output(output));
                }
                Ok(Some(Request::Signal { id, signal })) => {
                    self.tell(id, |child| child.signal(signal));
                }
                Ok(Some(Request::Resize { id, size })) => {
                    self.tell(id, |child| child.resize(size));
                }
                Ok(Some(Request::Bye)) => {}
                Ok(None) => return None,
                Err(failure) => {
                    log::line(&failure.to_string());
                    return Some(End::HostGone);
                }
            }
        }
    }

    /// Does something to a command, unless it has just ended and is no longer there.
    fn tell(&mut self, id: ExecId, act: impl FnOnce(&mut Child)) {
        if let Some(child) = self.children.get_mut(&id) {
            act(child);
        }
    }

    fn start(&mut self, id: ExecId, exec: &Exec) {
        match Child::start(exec, &self.environment) {
            Ok(child) => {
                self.children.insert(id, child);
                self.reaper.child_started();
                self.channel.send(&Reply::Started { id });
            }
            Err(failure) => {
                let text = &failure.to_string();
                self.channel.send(&Reply::Refused { id, text });
            }
        }
    }

    fn write_input(&mut self, id: ExecId) {
        let Some(child) = self.children.get_mut(&id) else {
            return;
        };
        let idle = child.input().is_some_and(|(_, pending)| !pending);
        if idle && closed(child) {
            child.close_input();
            return self.channel.send(&Reply::StdinClosed { id });
        }
        let (written, closed) = child.write_input();
        if let Some(bytes) = u32::try_from(written).ok().filter(|bytes| *bytes > 0) {
            self.channel.send(&Reply::Credit { id, bytes });
        }
        if closed {
            self.channel.send(&Reply::StdinClosed { id });
        }
    }

    fn read_outputs(&mut self, id: ExecId) {
        let Some(child) = self.children.get_mut(&id) else {
            return;
        };
        for at in 0..child.sources.len() {
            if let Got::Data(output, data) = child.read(at, &mut self.buffer) {
                self.channel.send(&Reply::Output { id, output, data });
            }
        }
    }

    /// Reads what ended commands have left in their pipes and reports their ends.
    fn finish_children(&mut self) {
        let ended = self.children.iter().filter(|(_, child)| child.is_ended());
        let ended: Vec<ExecId> = ended.map(|(id, _)| *id).collect();
        for id in ended {
            if !self.channel.full() {
                self.read_outputs(id);
            }
            if let Some(exit) = self.children.get(&id).and_then(Child::finished) {
                self.children.remove(&id);
                self.channel.send(&Reply::Exited { id, exit });
            }
        }
    }
}

/// Whether nobody reads the command's input any more.
fn closed(child: &Child) -> bool {
    let Some((fd, _)) = child.input() else {
        return false;
    };
    let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::empty())];
    let polled = poll(&mut fds, Some(&Timespec::default()));
    let [fd] = fds;
    polled.is_ok() && fd.revents().intersects(PollFlags::ERR | PollFlags::HUP)
}

/// Ends the guest in order; only process 1 does it.
fn end_guest(mut channel: Channel, swap: bool, resolver: Option<Resolver>) -> ! {
    stop::end_processes();
    let unclean = stop::leave_filesystems(swap, resolver);
    let text = &unclean.join("; ");
    for sentence in &unclean {
        log::line(sentence);
    }
    let clean = unclean.is_empty();
    channel.send(&Reply::Stopped { clean, text });
    channel.part(PARTING_TIMEOUT);
    stop::power_off()
}

/// Tells the host why the guest cannot boot, and powers off.
pub(crate) fn fail(mut channel: Channel, failure: &Failure) -> ! {
    let text = &failure.to_string();
    log::line(text);
    channel.send(&Reply::Failed { text });
    channel.part(PARTING_TIMEOUT);
    stop::power_off()
}

/// The root's init powers off in its own way.
fn ask_init_to_stop() {
    let asked = Command::new("poweroff")
        .env_clear()
        .envs(ENVIRONMENT)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    if let Err(error) = asked {
        log::line(&format!("cannot run poweroff: {error}"));
    }
}

/// The file from which a server beside the real init learns what it needs.
const HANDOVER: &str = "/run/coop/agent.json";

/// Starts a server beside the init that is about to become process 1.
pub(crate) fn leave_beside(
    channel: &Channel,
    config: &BootConfig,
    init: &Path,
) -> Result<(), Failure> {
    let what = || "leave a server beside the init".to_owned();
    let text = config.to_json().doing(what)?;
    std::fs::write(HANDOVER, text).doing(what)?;
    let port: OwnedFd = channel.duplicate().doing(what)?;
    use std::os::unix::process::CommandExt;
    Command::new("/proc/self/exe")
        // systemd spares processes whose names start so when it ends all others.
        .arg0("@coop-agent")
        .arg("--serve")
        .arg(init)
        .stdin(Stdio::from(port))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .map(drop)
        .doing(what)
}

/// The server beside the real init, whose path it is told: its channel is its standard input.
pub(crate) fn beside_init(words: &[OsString]) -> ExitCode {
    let init = words.first().map(Path::new).unwrap_or(Path::new(""));
    match serve_beside(init) {
        Ok(server) => server.run(),
        Err(failure) => {
            log::line(&failure.to_string());
            ExitCode::from(125)
        }
    }
}

fn serve_beside(init: &Path) -> Result<Server, Failure> {
    // Otherwise it would be "exe", after the link by which it was started.
    let _ = rustix::thread::set_name(c"coop-agent");
    let what = || format!("read {HANDOVER}");
    let text = std::fs::read(HANDOVER).doing(what)?;
    let config = BootConfig::from_json(&text).doing(what)?;
    let port = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3).doing(what)?;
    await_init(init);
    let mut channel = Channel::on(port);
    channel.send(&Reply::Phase {
        phase: Phase::Ready,
        boot_us: boot_us(),
    });
    Server::new(channel, &config, Role::Beside)
}

/// Waits until the root's init can be talked to, so that commands that do so find it. An init that
/// is not known here is not waited for.
fn await_init(init: &Path) {
    if !is_systemd(init) {
        return;
    }
    let deadline = Instant::now() + INIT_TIMEOUT;
    while !Path::new(SYSTEMD_SOCKET).exists() && Instant::now() < deadline {
        sleep(INIT_PAUSE);
    }
}

/// Whether a path leads to systemd.
pub(crate) fn is_systemd(init: &Path) -> bool {
    let program = init.canonicalize().unwrap_or_default();
    program.file_name().is_some_and(|name| name == "systemd")
}
