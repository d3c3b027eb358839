//! One socket, two threads: a device being served.

use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use vhost::vhost_user::{BackendReqHandler, Error as VhostError};

use super::control::{Control, ControlParts};
use super::memory::GuestProcess;
use super::report::{Counters, DeviceReport};
use super::waker::Waker;
use super::worker::{Command, Worker};
use super::{Device, QUEUES_MAX};

/// The longest socket path in bytes, without the final zero (`sun_path`).
pub const SOCKET_PATH_BYTES_MAX: usize = 107;
/// Refused control messages after which the connection is given up.
const REFUSED_MESSAGES_MAX: usize = 64;

/// Called, from any thread, when a device ends before it was stopped; gets the device's name and
/// why. It must not block.
pub type FailureHandler = Arc<dyn Fn(&str, &str) + Send + Sync>;

/// What a device is served with.
#[derive(Clone)]
pub struct ServeOptions {
    /// The device's name in messages and of its threads: `cobd0`.
    pub name: String,
    /// The guest's process, to be set once it runs.
    pub process: GuestProcess,
    /// Told when the device fails.
    pub on_failure: Option<FailureHandler>,
}

/// Why a device is not served.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// The socket cannot be made.
    #[error("cannot listen on {path}: {source}")]
    Listen {
        /// The socket.
        path: PathBuf,
        /// What the host says.
        source: io::Error,
    },
    /// The socket's path does not fit the host's limit.
    #[error("socket path {path} has more than {SOCKET_PATH_BYTES_MAX} bytes")]
    PathTooLong {
        /// The socket.
        path: PathBuf,
    },
    /// The device has too many queues, or none.
    #[error("device {name} has {count} queues, not 1 to {QUEUES_MAX}")]
    Queues {
        /// The device.
        name: String,
        /// Its queues.
        count: usize,
    },
    /// Threads or descriptors are out.
    #[error("cannot serve device {name}: {source}")]
    Start {
        /// The device.
        name: String,
        /// What the host says.
        source: io::Error,
    },
    /// A thread did not end in time; it is left behind.
    #[error("device {name} did not stop within {} ms", waited.as_millis())]
    Stuck {
        /// The device.
        name: String,
        /// How long it was waited for.
        waited: Duration,
    },
}

/// What both threads and the owner share.
struct Shared {
    options: ServeOptions,
    counters: Arc<Counters>,
    stopping: AtomicBool,
    stop: Waker,
    connection: Mutex<Option<UnixStream>>,
}

impl Shared {
    fn fail(&self, why: &str) {
        if !self.stopping.load(Ordering::Acquire)
            && let Some(handler) = &self.options.on_failure
        {
            handler(&self.options.name, why);
        }
    }

    fn connection(&self) -> std::sync::MutexGuard<'_, Option<UnixStream>> {
        self.connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// A device that listens for its guest, or serves it. Dropping it stops it without a report.
pub struct DeviceServer {
    socket: PathBuf,
    device_id: u32,
    shared: Arc<Shared>,
    commands: Sender<Command>,
    command_waker: Waker,
    threads: Vec<(JoinHandle<()>, Receiver<()>)>,
}

impl DeviceServer {
    /// Binds `socket` and starts the device's threads; when this returns, a guest may be started.
    ///
    /// The socket's folder should be private (mode 0700): whoever can connect first is the guest.
    ///
    /// # Errors
    /// The path is taken or too long, or the host is out of threads or descriptors.
    pub fn start(
        socket: &Path,
        mut device: Box<dyn Device>,
        options: ServeOptions,
    ) -> Result<Self, TransportError> {
        let name = options.name.clone();
        let count = device.queue_count();
        if count == 0 || count > QUEUES_MAX {
            return Err(TransportError::Queues { name, count });
        }
        let listener = listen(socket)?;
        let failed = |source| TransportError::Start {
            name: name.clone(),
            source,
        };
        let (waker, command_waker) = (Waker::new().map_err(failed)?, Waker::new().map_err(failed)?);
        let shared = Arc::new(Shared {
            options,
            counters: Arc::default(),
            stopping: AtomicBool::new(false),
            stop: Waker::new().map_err(failed)?,
            connection: Mutex::new(None),
        });
        let (commands, inbox) = channel();
        let device_id = device.device_id();
        let control = Control::new(ControlParts {
            device_features: device.features(),
            config: device.config(),
            queue_count: count,
            process: shared.options.process.clone(),
            counters: Arc::clone(&shared.counters),
            commands: commands.clone(),
            command_waker: command_waker.clone(),
        });
        device.attach(waker.clone());
        let counters = Arc::clone(&shared.counters);
        let worker =
            Worker::new(device, counters, inbox, command_waker.clone(), waker).map_err(failed)?;
        let mut server = Self {
            socket: socket.to_owned(),
            device_id,
            shared,
            commands,
            command_waker,
            threads: Vec::new(),
        };
        server
            .spawn("", move |_| worker.run().map_err(|error| error.to_string()))
            .map_err(failed)?;
        server
            .spawn("-control", move |shared| serve(&listener, control, shared))
            .map_err(failed)?;
        Ok(server)
    }

    fn spawn(
        &mut self,
        suffix: &str,
        work: impl FnOnce(&Shared) -> Result<(), String> + Send + 'static,
    ) -> io::Result<()> {
        let (done, finished) = channel();
        let shared = Arc::clone(&self.shared);
        let name = format!("{}{suffix}", shared.options.name);
        let thread = std::thread::Builder::new().name(name).spawn(move || {
            match catch_unwind(AssertUnwindSafe(|| work(&shared))) {
                Ok(Ok(())) => {}
                Ok(Err(why)) => shared.fail(&why),
                Err(_) => shared.fail("its thread panicked"),
            }
            // The owner may have given up waiting.
            let _ = done.send(());
        })?;
        self.threads.push((thread, finished));
        Ok(())
    }

    /// The socket that the guest connects to.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The virtio device number.
    #[must_use]
    pub fn device_id(&self) -> u32 {
        self.device_id
    }

    /// What the device has counted so far.
    #[must_use]
    pub fn report(&self) -> DeviceReport {
        self.shared.counters.report()
    }

    /// Ends the threads, waits for them, drops the device, and takes the socket away. The guest
    /// should have ended before: it would find its device gone.
    ///
    /// # Errors
    /// A thread did not end within `deadline`.
    pub fn stop(mut self, deadline: Duration) -> Result<DeviceReport, TransportError> {
        self.finish(deadline)?;
        Ok(self.shared.counters.report())
    }

    /// Tells the threads to end, and returns at once: [`DeviceServer::stop`] waits for them. So
    /// several devices stop at the same time.
    pub fn begin_stop(&self) {
        self.shared.stopping.store(true, Ordering::Release);
        self.shared.stop.wake();
        if let Some(stream) = self.shared.connection().as_ref() {
            // It fails only where the guest has gone already.
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
        let _ = self.commands.send(Command::Quit);
        self.command_waker.wake();
    }

    fn finish(&mut self, deadline: Duration) -> Result<(), TransportError> {
        self.begin_stop();
        // A socket that someone else removed is as good.
        let _ = fs_err::remove_file(&self.socket);
        let start = Instant::now();
        for (thread, finished) in self.threads.drain(..) {
            let left = deadline.saturating_sub(start.elapsed());
            if finished.recv_timeout(left).is_err() && !thread.is_finished() {
                let name = self.shared.options.name.clone();
                return Err(TransportError::Stuck {
                    name,
                    waited: deadline,
                });
            }
            // A panic was caught and reported inside.
            let _ = thread.join();
        }
        Ok(())
    }
}

impl Drop for DeviceServer {
    fn drop(&mut self) {
        if !self.threads.is_empty() {
            // Nobody is left to hear of a thread that does not end.
            let _ = self.finish(Duration::from_secs(1));
        }
    }
}

fn listen(socket: &Path) -> Result<UnixListener, TransportError> {
    use std::os::unix::ffi::OsStrExt;
    let path = socket.to_owned();
    if socket.as_os_str().as_bytes().len() > SOCKET_PATH_BYTES_MAX {
        return Err(TransportError::PathTooLong { path });
    }
    UnixListener::bind(socket).map_err(|source| TransportError::Listen { path, source })
}

/// Waits until `listener` has a connection; nothing when the device is being stopped.
fn accept(listener: &UnixListener, shared: &Shared) -> io::Result<Option<UnixStream>> {
    loop {
        let mut waiting = [
            PollFd::new(listener, PollFlags::IN),
            PollFd::new(&shared.stop, PollFlags::IN),
        ];
        match poll(&mut waiting, None) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        }
        if shared.stopping.load(Ordering::Acquire) {
            return Ok(None);
        }
        match listener.accept() {
            Ok((stream, _)) => return Ok(Some(stream)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// The control thread: one guest, from its connection to its end.
fn serve(listener: &UnixListener, control: Control, shared: &Shared) -> Result<(), String> {
    let result = converse(listener, control, shared);
    if let Some(stream) = shared.connection().take() {
        // The guest may wait for an answer that does not come; it fails where it has gone.
        let _ = stream.shutdown(std::net::Shutdown::Both);
    }
    result
}

fn converse(listener: &UnixListener, control: Control, shared: &Shared) -> Result<(), String> {
    let Some(stream) = accept(listener, shared).map_err(|error| error.to_string())? else {
        return Ok(());
    };
    *shared.connection() = Some(stream.try_clone().map_err(|error| error.to_string())?);
    let mut handler = BackendReqHandler::from_stream(stream, Arc::new(Mutex::new(control)));
    let mut refused = 0;
    while !shared.stopping.load(Ordering::Acquire) {
        match handler.handle_request() {
            Ok(()) => {}
            Err(
                VhostError::Disconnected | VhostError::PartialMessage | VhostError::SocketBroken(_),
            ) => {
                return Ok(());
            }
            // Refused, and the guest was told so.
            Err(
                VhostError::InvalidParam
                | VhostError::InvalidOperation(_)
                | VhostError::ReqHandlerError(_)
                | VhostError::BackendInternalError,
            ) if refused < REFUSED_MESSAGES_MAX => refused += 1,
            // Anything else got no answer, and the guest would wait for ever.
            Err(error) => {
                return Err(format!(
                    "the guest's control messages make no sense: {error}"
                ));
            }
        }
    }
    Ok(())
}
