//! A machine that runs: its devices, its guest, its agent, and the thread that sees its end.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use coop_driver::device::cobd::Cobd;
use coop_driver::device::cocon::{Cocon, CoconOptions, CoconStreams, Resizer};
use coop_driver::device::conet::{BoundPort, Conet};
use coop_driver::device::rng::Rng;
use coop_driver::engine::user::{self, DeviceSocket, EngineError, Guest, UserOptions};
use coop_driver::engine::{ConsoleSink, GuestEnd};
use coop_driver::transport::{
    Device, DeviceServer, FailureHandler, GuestProcess, ServeOptions, TransportError,
};
use coop_guest::message::PORT_NAME;

use crate::event::{Event, Observer, Unit};
use crate::initramfs::{self, InitramfsError};
use crate::instance::Instance;
use crate::machine::Machine;
use crate::report::{Cause, Phase, Report, in_order};
use crate::session::{
    BootPhase, ExecError, ExecRequest, ExecStreams, Execution, Session, SessionEnd, SessionEvent,
};
use crate::spec::{ConsoleSpec, MachineSpec, Workload};

/// The task that an observer sees from the start until commands can be run.
const BOOT_TASK: &str = "boot";
/// What a kernel says when it powers off.
const POWERED_OFF: &str = "reboot: Power down";
/// How long the agent's last word may take to be read after the guest's end.
const LAST_WORD_TIMEOUT: Duration = Duration::from_secs(5);
/// How long each device may take to stop once the guest is gone.
const DEVICE_STOP_TIMEOUT: Duration = Duration::from_secs(2);
/// How often a running machine looks whether its work was called off.
const CANCEL_INTERVAL: Duration = Duration::from_millis(500);
/// The console of a machine whose console nobody uses.
const CONSOLE_UNUSED: ConsoleSpec = ConsoleSpec {
    columns: 80,
    rows: 25,
};

/// Why a machine was not started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The host's file system says no.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// A device cannot be served.
    #[error(transparent)]
    Device(#[from] TransportError),
    /// The guest cannot be started.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The initramfs cannot be written.
    #[error("cannot write the guest's initramfs: {0}")]
    Initramfs(String),
}

impl From<InitramfsError> for StartError {
    fn from(error: InitramfsError) -> Self {
        Self::Initramfs(error.to_string())
    }
}

/// Who watches a machine.
pub struct Watch {
    /// Told of the boot's progress and of warnings.
    pub observer: Arc<dyn Observer>,
    /// Gets everything that the kernel says on its own console.
    pub kernel_log: Option<Box<dyn Write + Send>>,
}

/// The guest's console.
pub struct Console {
    /// What the guest shows. It must be read: a guest whose console is full stops.
    pub output: Box<dyn Read + Send>,
    /// What is typed.
    pub input: Box<dyn Write + Send>,
    /// Tells the guest of another size.
    pub resizer: Resizer,
}

/// What the machine's threads share.
struct Shared {
    start: Instant,
    observer: Arc<dyn Observer>,
    guest: OnceLock<Guest>,
    /// Why the host ends the machine, if it does.
    verdict: Mutex<Option<Cause>>,
    /// Whether the guest has done all its work; see [`Shared::retire`].
    retired: AtomicBool,
    phases: Mutex<Vec<(Phase, Duration)>>,
    report: Mutex<Option<Report>>,
    reported: Condvar,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn reach(&self, phase: Phase) {
        let time = self.start.elapsed();
        lock(&self.phases).push((phase, time));
    }

    fn has_reached(&self, phase: Phase) -> bool {
        lock(&self.phases)
            .iter()
            .any(|(reached, _)| *reached == phase)
    }

    fn reach_once(&self, phase: Phase) {
        let time = self.start.elapsed();
        let mut phases = lock(&self.phases);
        if !phases.iter().any(|(reached, _)| *reached == phase) {
            phases.push((phase, time));
        }
    }

    /// Tells the observer, however the boot ended.
    fn boot_is_over(&self) {
        let (task, elapsed) = (BOOT_TASK, self.start.elapsed());
        self.observer.event(&Event::TaskFinished { task, elapsed });
    }

    /// Ends a guest that has said that nothing is left to do: no process, nothing unwritten. Its
    /// kernel would take its devices apart one by one before it powers off, for nobody's use.
    fn retire(&self) {
        self.retired.store(true, Ordering::Release);
        if let Some(guest) = self.guest.get() {
            guest.kill();
        }
    }

    /// Ends the guest for this reason, unless there is one already or its work is done.
    fn end(&self, cause: Cause) {
        if self.retired.load(Ordering::Acquire) {
            return;
        }
        lock(&self.verdict).get_or_insert(cause);
        if let Some(guest) = self.guest.get() {
            guest.kill();
        }
    }
}

/// A machine that runs. Dropping it kills the guest and leaves nothing behind.
pub struct Running {
    shared: Arc<Shared>,
    session: Session,
    console: Mutex<Option<Console>>,
    boot_deadline: Instant,
    ports: Vec<BoundPort>,
    folder: PathBuf,
    supervisor: Option<std::thread::JoinHandle<()>>,
}

impl Machine {
    /// Starts the devices, then the guest; returns as soon as the guest's process runs.
    ///
    /// # Errors
    /// The host has no room, thread or descriptor for it; nothing is left behind.
    pub fn start(self, watch: Watch) -> Result<Running, StartError> {
        let Self {
            spec,
            disks,
            network,
            ports,
            memory_folder,
            warning,
        } = self;
        if let Some(message) = &warning {
            watch.observer.event(&Event::Warning { message });
        }
        let instance = Instance::create(&spec.instances_folder)?;
        let initrd = instance.folder().join("initrd");
        initramfs::write(&spec, &initrd)?;
        let shared = Arc::new(Shared {
            start: Instant::now(),
            observer: watch.observer,
            guest: OnceLock::new(),
            verdict: Mutex::new(None),
            retired: AtomicBool::new(false),
            phases: Mutex::new(Vec::new()),
            report: Mutex::new(None),
            reported: Condvar::new(),
        });
        let process = GuestProcess::default();
        let mut bus = Bus::new(instance.folder(), &process, &shared);
        for (index, disk) in (spec.root.first_disk()..).zip(disks) {
            let serial = initramfs::serial(index);
            let device = Cobd::new(disk, &serial);
            bus.add(serial, Box::new(device))?;
        }
        bus.add("rng".to_owned(), Box::new(Rng))?;
        if let Some(network) = network {
            bus.add("conet0".to_owned(), Box::new(Conet::new(network)))?;
        }
        let size = spec.console.unwrap_or(CONSOLE_UNUSED);
        let (cocon, streams) = Cocon::new(CoconOptions {
            columns: size.columns,
            rows: size.rows,
            port_name: PORT_NAME.to_owned(),
        });
        bus.add("cocon".to_owned(), Box::new(cocon))?;
        let servers = bus.servers;
        let options = UserOptions {
            vmlinux: spec.kernel.vmlinux.clone(),
            libraries: spec.kernel.libraries.clone(),
            initrd: Some(initrd),
            memory_bytes: spec.memory_bytes,
            cpus: spec.cpus,
            memory_folder,
            cmdline: spec.kernel.cmdline.clone(),
            devices: servers.iter().map(|(_, server)| socket(server)).collect(),
            folder: instance.folder().to_owned(),
            pin: spec.pin,
            process,
            console: Some(kernel_sink(&shared, watch.kernel_log)),
        };
        let (session, console) = connect(&shared, &spec, streams)?;
        let event = Event::TaskStarted {
            task: BOOT_TASK,
            total: None,
            unit: Unit::Items,
        };
        shared.observer.event(&event);
        let guest = user::start(options)?;
        shared.reach(Phase::Process);
        shared.guest.get_or_init(|| guest);
        if lock(&shared.verdict).is_some() {
            // A device failed before there was a guest to end.
            shared.guest.get().map(Guest::kill);
        }
        let folder = instance.folder().to_owned();
        let supervisor = Supervisor {
            shared: Arc::clone(&shared),
            session: session.clone(),
            servers,
            workload: spec.workload,
            deadline: spec.timeout.map(|timeout| shared.start + timeout),
            instance,
        };
        let thread = std::thread::Builder::new().name("supervisor".to_owned());
        let supervisor = thread.spawn(move || supervisor.run());
        let mut running = Running {
            boot_deadline: shared.start + spec.boot_timeout,
            shared,
            session,
            console: Mutex::new(console),
            ports,
            folder,
            supervisor: None,
        };
        running.supervisor = Some(supervisor?);
        Ok(running)
    }
}

/// The devices of a machine that is being started.
struct Bus<'a> {
    folder: &'a Path,
    process: &'a GuestProcess,
    on_failure: FailureHandler,
    servers: Vec<(String, DeviceServer)>,
}

impl<'a> Bus<'a> {
    fn new(folder: &'a Path, process: &'a GuestProcess, shared: &Arc<Shared>) -> Self {
        // Weak, for the devices belong to the supervisor, which belongs to the machine.
        let weak = Arc::downgrade(shared);
        let on_failure = move |device: &str, why: &str| {
            if let Some(shared) = weak.upgrade() {
                shared.end(Cause::DeviceFailed {
                    device: device.to_owned(),
                    why: why.to_owned(),
                });
            }
        };
        Self {
            folder,
            process,
            on_failure: Arc::new(on_failure),
            servers: Vec::new(),
        }
    }

    fn add(&mut self, name: String, device: Box<dyn Device>) -> Result<(), StartError> {
        let options = ServeOptions {
            name: name.clone(),
            process: self.process.clone(),
            on_failure: Some(Arc::clone(&self.on_failure)),
        };
        let server = DeviceServer::start(&self.folder.join(&name), device, options)?;
        self.servers.push((name, server));
        Ok(())
    }
}

fn socket(server: &DeviceServer) -> DeviceSocket {
    DeviceSocket {
        socket: server.socket().to_owned(),
        device_id: server.device_id(),
    }
}

/// Passes the kernel's words on, and notes the first.
fn kernel_sink(shared: &Arc<Shared>, mut log: Option<Box<dyn Write + Send>>) -> ConsoleSink {
    let weak = Arc::downgrade(shared);
    let mut silent = true;
    Box::new(move |bytes| {
        if std::mem::take(&mut silent)
            && let Some(shared) = weak.upgrade()
        {
            shared.reach(Phase::Kernel);
        }
        if let Some(writer) = &mut log
            && writer
                .write_all(bytes)
                .and_then(|()| writer.flush())
                .is_err()
        {
            // A log that cannot be written is given up; the report has the end of it.
            log = None;
        }
    })
}

/// Joins the console device to the session and to whoever uses the console.
fn connect(
    shared: &Arc<Shared>,
    spec: &MachineSpec,
    streams: CoconStreams,
) -> std::io::Result<(Session, Option<Console>)> {
    let weak = Arc::downgrade(shared);
    let listener = move |event: SessionEvent| {
        let Some(shared) = weak.upgrade() else {
            return;
        };
        match event {
            SessionEvent::Phase(phase, _) => {
                let phase = match phase {
                    BootPhase::Agent => Phase::Agent,
                    BootPhase::Modules => Phase::Modules,
                    BootPhase::Root => Phase::Root,
                    BootPhase::Ready => Phase::Ready,
                };
                shared.reach_once(phase);
                if phase == Phase::Ready {
                    let elapsed = shared.start.elapsed();
                    let task = BOOT_TASK;
                    shared
                        .observer
                        .event(&Event::TaskFinished { task, elapsed });
                }
            }
            SessionEvent::Warning(message) => {
                let message = &format!("the guest's agent: {message}");
                shared.observer.event(&Event::Warning { message });
            }
            SessionEvent::Stopped { clean } => {
                shared.reach_once(Phase::Unmounted);
                if clean {
                    shared.retire();
                }
            }
            SessionEvent::Ended(SessionEnd::Protocol(why)) => shared.end(Cause::AgentFailed(why)),
            SessionEvent::Ended(_) => {}
        }
    };
    let reader = Box::new(streams.port_output);
    let writer = Box::new(streams.port_input);
    let session = Session::start(reader, writer, Box::new(listener))?;
    // Without a user the console's output is thrown away, so that it never fills.
    let console = spec.console.map(|_| Console {
        output: Box::new(streams.console_output),
        input: Box::new(streams.console_input),
        resizer: streams.resizer,
    });
    Ok((session, console))
}

impl Running {
    /// Waits until commands can be run, in init mode until the real init starts.
    ///
    /// # Errors
    /// The boot failed, or took too long; then the guest is killed. [`Running::wait`] tells more.
    pub fn wait_ready(&self) -> Result<(), SessionEnd> {
        let ready = self.session.wait_ready(Some(self.boot_deadline));
        if ready.is_ok() {
            // The listener is told no sooner than those who wait, and they may ask for a command.
            self.shared.reach_once(Phase::Ready);
        }
        if ready == Err(SessionEnd::Late) {
            let why = "its agent did not answer in time".to_owned();
            self.shared.end(Cause::BootFailed(why));
        }
        ready
    }

    /// The host's ports that lead into the guest.
    #[must_use]
    pub fn ports(&self) -> &[BoundPort] {
        &self.ports
    }

    /// The machine's private folder; it goes with the machine.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Runs a command, as soon as commands can be run.
    ///
    /// # Errors
    /// The boot failed, the machine ended, or the request is too large.
    pub fn exec(
        &self,
        request: &ExecRequest,
        streams: ExecStreams,
    ) -> Result<Execution, ExecError> {
        self.wait_ready()?;
        self.shared.reach_once(Phase::Command);
        let shared = Arc::downgrade(&self.shared);
        let execution = self.session.exec(request, streams)?;
        Ok(execution.on_exit(Box::new(move || {
            if let Some(shared) = shared.upgrade() {
                shared.reach(Phase::Exited);
            }
        })))
    }

    /// The console, if the machine was asked for one; it can be taken once.
    pub fn take_console(&self) -> Option<Console> {
        lock(&self.console).take()
    }

    /// Asks the guest to end everything and power off; [`Running::wait`] sees it happen. A guest
    /// that does not within `patience` is killed.
    pub fn shut_down(&self, patience: Duration) {
        self.shared.reach_once(Phase::ShutDown);
        let asked = self.session.shut_down();
        let deadline = Instant::now() + patience;
        if asked.is_err() || self.wait_until(Some(deadline)).is_none() {
            self.kill();
        }
    }

    /// Kills the guest at once.
    pub fn kill(&self) {
        self.shared.end(Cause::Stopped);
    }

    /// Waits for the end of the guest and of its devices.
    #[must_use]
    pub fn wait(&self) -> Report {
        loop {
            if let Some(report) = self.wait_until(None) {
                return report;
            }
        }
    }

    /// Waits for the end, but not for longer than this.
    #[must_use]
    pub fn wait_timeout(&self, patience: Duration) -> Option<Report> {
        self.wait_until(Some(Instant::now() + patience))
    }

    fn wait_until(&self, deadline: Option<Instant>) -> Option<Report> {
        let mut report = lock(&self.shared.report);
        while report.is_none() {
            let bell = &self.shared.reported;
            report = match deadline {
                None => bell.wait(report).unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let left = deadline.checked_duration_since(Instant::now())?;
                    let waited = bell.wait_timeout(report, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        report.clone()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
        if let Some(supervisor) = self.supervisor.take() {
            let _ = supervisor.join();
        }
    }
}

/// The thread that sees a machine's end and cleans up.
struct Supervisor {
    shared: Arc<Shared>,
    session: Session,
    servers: Vec<(String, DeviceServer)>,
    workload: Workload,
    deadline: Option<Instant>,
    instance: Instance,
}

impl Supervisor {
    fn run(self) {
        let end = self.see_end();
        self.shared.reach(Phase::Ended);
        let ready = self.shared.has_reached(Phase::Ready);
        if !ready {
            self.shared.boot_is_over();
        }
        // The agent's last word left the guest before its process ended, but a busy host may not
        // have read it yet.
        let last_word = ready && self.workload == Workload::Commands && end != GuestEnd::Killed;
        let patience = if last_word {
            LAST_WORD_TIMEOUT
        } else {
            Duration::ZERO
        };
        let stopped = self.session.wait_stopped(Some(Instant::now() + patience));
        if stopped.is_some() {
            self.shared.reach_once(Phase::Unmounted);
        }
        let session_end = self.session.ended();
        self.session.guest_ended();
        let mut devices = Vec::new();
        for (_, server) in &self.servers {
            server.begin_stop();
        }
        for (name, server) in self.servers {
            let so_far = server.report();
            let report = server.stop(DEVICE_STOP_TIMEOUT).unwrap_or(so_far);
            devices.push((name, report));
        }
        drop(self.instance);
        let verdict = lock(&self.shared.verdict).take();
        let last_exit = match self.workload {
            Workload::Commands => self.session.last_exit(),
            Workload::Init => None,
        };
        let phases = in_order(lock(&self.shared.phases).clone());
        let kernel_log = self.shared.guest.get().map(Guest::console_tail);
        let kernel_log = kernel_log.unwrap_or_default();
        // A kernel that has said so has powered off, whatever its process died of afterwards:
        // Debian's prebuilt one aborts where it does not find libgcc_s.
        let end = match end {
            GuestEnd::Signalled { .. } if kernel_log.contains(POWERED_OFF) => {
                GuestEnd::PoweredOff { code: 0 }
            }
            GuestEnd::Killed if self.shared.retired.load(Ordering::Acquire) => {
                GuestEnd::PoweredOff { code: 0 }
            }
            end => end,
        };
        let cause = match (end, verdict, session_end) {
            (GuestEnd::Killed, Some(cause), _) => cause,
            (GuestEnd::Killed, None, _) => Cause::Stopped,
            (GuestEnd::Panicked { message }, ..) => Cause::Panic(message),
            (GuestEnd::Signalled { signal }, ..) => Cause::Killed(signal),
            (GuestEnd::PoweredOff { .. }, _, Some(SessionEnd::BootFailed(why))) => {
                Cause::BootFailed(why)
            }
            (GuestEnd::PoweredOff { .. }, ..) if !ready => {
                Cause::BootFailed("it powered off before its agent was ready".to_owned())
            }
            (GuestEnd::PoweredOff { .. }, ..) => match last_exit {
                Some(exit) => Cause::Exited(exit),
                None => Cause::PoweredOff,
            },
        };
        let report = Report {
            cause,
            clean: stopped.map(|stopped| stopped.clean),
            phases,
            devices,
            kernel_log,
        };
        *lock(&self.shared.report) = Some(report);
        self.shared.reported.notify_all();
    }

    /// Waits for the guest's end, and brings it about at the deadline.
    fn see_end(&self) -> GuestEnd {
        let Some(guest) = self.shared.guest.get() else {
            return GuestEnd::Killed;
        };
        loop {
            let now = Instant::now();
            let left = self
                .deadline
                .map(|deadline| deadline.saturating_duration_since(now));
            let patience = left.unwrap_or(CANCEL_INTERVAL).min(CANCEL_INTERVAL);
            if let Some(end) = guest.wait_timeout(patience) {
                return end;
            }
            if self
                .deadline
                .is_some_and(|deadline| deadline <= Instant::now())
            {
                self.shared.end(Cause::TimedOut);
                return guest.wait();
            }
            if self.shared.observer.is_cancelled() {
                self.shared.end(Cause::Stopped);
                return guest.wait();
            }
        }
    }
}
