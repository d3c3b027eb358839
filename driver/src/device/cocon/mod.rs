//! Console and agent port (virtio 1.3, section 5.3): a virtio-console with two ports.
//!
//! Port 0 is the guest's console, `/dev/hvc0`; port 1 is a plain port with a name, over which the
//! runtime talks to its agent. Each port is a pair of byte streams on the host's side, which any
//! thread may block on ([`PortReader`], [`PortWriter`]); the device's own thread never does. Both
//! directions are bounded: what the host does not read stays in the guest's ring, and what the
//! guest does not read makes the host's writer wait.
//!
//! Linux waits for a console's output with a spinlock held. So the console has a large buffer, and
//! only a reader that stays away for longer stops the guest; nothing is ever dropped.

mod control;
mod port;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use crate::transport::{Chain, Device, Queues, Waker};
use control::{Event, Message};
use port::{Port, port};
pub use port::{PortReader, PortWriter};

/// Virtio's number of a console.
const DEVICE_ID: u32 = 3;
/// The guest learns the console's size (VIRTIO_CONSOLE_F_SIZE).
const FEATURE_SIZE: u64 = 1 << 0;
/// There are several ports and a control queue (VIRTIO_CONSOLE_F_MULTIPORT).
const FEATURE_MULTIPORT: u64 = 1 << 1;
/// Device to guest, about the device itself.
const CONTROL_RECEIVE: usize = 2;
/// Guest to device, about the device itself.
const CONTROL_TRANSMIT: usize = 3;
/// The receive and the transmit queue of each port (section 5.3.2).
const PORT_QUEUES: [(usize, usize); 2] = [(0, 1), (4, 5)];
/// Control messages that wait for the guest at most; a driver never has more than a few.
const CONTROL_QUEUE_MAX: usize = 64;
/// Bytes moved in one step.
const PIECE_BYTES_MAX: usize = 64 << 10;
/// Bytes of the console's output that wait for the host's reader.
const CONSOLE_BUFFER_BYTES: usize = 1 << 20;
/// Bytes that wait in each other direction.
const PORT_BUFFER_BYTES: usize = 256 << 10;

/// What a console starts with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoconOptions {
    /// Characters in a line.
    pub columns: u16,
    /// Lines.
    pub rows: u16,
    /// The second port's name, as the guest's kernel shows it.
    pub port_name: String,
}

/// The host's side of a console device.
#[derive(Debug)]
pub struct CoconStreams {
    /// What the guest writes to its console.
    pub console_output: PortReader,
    /// What the guest reads from its console.
    pub console_input: PortWriter,
    /// What the guest writes to the named port.
    pub port_output: PortReader,
    /// What the guest reads from the named port.
    pub port_input: PortWriter,
    /// Tells the guest of another size.
    pub resizer: Resizer,
}

#[derive(Debug)]
struct Size {
    columns: u16,
    rows: u16,
    changed: bool,
    waker: Option<Waker>,
}

/// Tells the guest of the console's size. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Resizer(Arc<Mutex<Size>>);

impl Resizer {
    /// Sets the console's size in characters; never blocks.
    pub fn resize(&self, columns: u16, rows: u16) {
        let mut size = self.lock();
        size.columns = columns;
        size.rows = rows;
        size.changed = true;
        if let Some(waker) = &size.waker {
            waker.wake();
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Size> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The device's front.
#[derive(Debug)]
pub struct Cocon {
    port_name: String,
    size: Resizer,
    ports: [Port; 2],
    /// Chains whose bytes the host has not taken all, with how many it has.
    held: [Option<(Chain, usize)>; 2],
    control: VecDeque<Vec<u8>>,
    /// The console's port is up, so that it can be told its size.
    console_ready: bool,
}

impl Cocon {
    /// A console device and the host's side of it.
    #[must_use]
    pub fn new(options: CoconOptions) -> (Self, CoconStreams) {
        let (console, console_output, console_input) =
            port(CONSOLE_BUFFER_BYTES, PORT_BUFFER_BYTES);
        let (second, port_output, port_input) = port(PORT_BUFFER_BYTES, PORT_BUFFER_BYTES);
        let resizer = Resizer(Arc::new(Mutex::new(Size {
            columns: options.columns,
            rows: options.rows,
            changed: true,
            waker: None,
        })));
        let cocon = Self {
            port_name: options.port_name,
            size: resizer.clone(),
            ports: [console, second],
            held: [None, None],
            control: VecDeque::new(),
            console_ready: false,
        };
        let streams = CoconStreams {
            console_output,
            console_input,
            port_output,
            port_input,
            resizer,
        };
        (cocon, streams)
    }

    /// Takes what the guest says on the control queue.
    fn hear(&mut self, queues: &mut Queues) {
        while let Some(chain) = queues.pop(CONTROL_TRANSMIT) {
            let mut bytes = [0; control::MESSAGE_BYTES];
            let heard = chain.readable().copy_to(&mut bytes).ok();
            match heard.and_then(|()| Message::parse(&bytes)) {
                Some(message) => {
                    self.obey(&message, queues);
                    queues.complete(chain, 0);
                }
                None => queues.refuse(chain),
            }
        }
    }

    fn obey(&mut self, message: &Message, queues: &Queues) {
        let known = usize::try_from(message.port).ok();
        let known = known.filter(|index| *index < self.ports.len());
        match (message.event, known) {
            (Event::DeviceReady, _) if message.value == 1 => {
                for port in 0..self.ports.len() {
                    self.say(port, Event::PortAdd, 0, &[], queues);
                }
            }
            (Event::PortReady, Some(0)) if message.value == 1 => {
                self.say(0, Event::ConsolePort, 1, &[], queues);
                self.say(0, Event::PortOpen, 1, &[], queues);
                self.console_ready = true;
                self.size.lock().changed = true;
            }
            (Event::PortReady, Some(port)) if message.value == 1 => {
                let name = self.port_name.clone().into_bytes();
                self.say(port, Event::PortName, 1, &name, queues);
                self.say(port, Event::PortOpen, 1, &[], queues);
            }
            (Event::PortOpen, Some(port)) => self.ports[port].set_open(message.value != 0),
            // A driver that cannot use a port says so with value 0; nothing else is for us.
            _ => queues.count_failure(),
        }
    }

    fn say(&mut self, port: usize, event: Event, value: u16, more: &[u8], queues: &Queues) {
        if self.control.len() >= CONTROL_QUEUE_MAX {
            queues.count_failure();
            return;
        }
        let port = u32::try_from(port).unwrap_or(u32::MAX);
        let mut message = Message { port, event, value }.to_bytes().to_vec();
        message.extend_from_slice(more);
        self.control.push_back(message);
    }

    /// Gives the guest the control messages that it has room for.
    fn speak(&mut self, queues: &mut Queues) {
        if self.console_ready {
            let mut size = self.size.lock();
            let changed = std::mem::take(&mut size.changed);
            let (columns, rows) = (size.columns, size.rows);
            drop(size);
            if changed {
                let dimensions = control::dimensions(columns, rows);
                self.say(0, Event::Resize, 0, &dimensions, queues);
            }
        }
        while let Some(message) = self.control.front() {
            let Some(chain) = queues.pop(CONTROL_RECEIVE) else {
                return;
            };
            if chain.writable().copy_from(message).is_err() {
                // Too small for a message: nothing could ever be said through it.
                queues.refuse(chain);
                continue;
            }
            let written = message.len();
            self.control.pop_front();
            queues.complete(chain, written);
        }
    }

    /// Moves a port's output to the host, as far as there is room.
    fn transmit(&mut self, index: usize, queues: &mut Queues) {
        let (_, queue) = PORT_QUEUES[index];
        loop {
            let next = self.held[index].take();
            let Some((chain, done)) = next.or_else(|| Some((queues.pop(queue)?, 0))) else {
                return;
            };
            let left = chain.readable().len().saturating_sub(done);
            if left == 0 {
                queues.complete(chain, 0);
                continue;
            }
            let room = self.ports[index].room(left).min(PIECE_BYTES_MAX);
            if room == 0 {
                self.held[index] = Some((chain, done));
                return;
            }
            match piece(&chain, done, room) {
                Some(bytes) => {
                    self.ports[index].push(&bytes);
                    self.held[index] = Some((chain, done + room));
                }
                None => {
                    queues.count_failure();
                    queues.complete(chain, 0);
                }
            }
        }
    }

    /// Moves the host's bytes to a port, as far as the guest has given room.
    fn receive(&mut self, index: usize, queues: &mut Queues) {
        let (queue, _) = PORT_QUEUES[index];
        while self.ports[index].has_input() {
            let Some(chain) = queues.pop(queue) else {
                return;
            };
            let room = chain.writable().len().min(PIECE_BYTES_MAX);
            if room == 0 {
                queues.refuse(chain);
                continue;
            }
            let bytes = self.ports[index].take(room);
            let target = chain.writable().split_at(bytes.len());
            let copied = target.and_then(|(target, _)| target.copy_from(&bytes));
            if copied.is_err() {
                queues.count_failure();
            }
            let written = copied.map_or(0, |()| bytes.len());
            queues.complete(chain, written);
        }
    }
}

/// Some of a chain's readable bytes.
fn piece(chain: &Chain, from: usize, length: usize) -> Option<Vec<u8>> {
    let (_, rest) = chain.readable().split_at(from).ok()?;
    let mut bytes = vec![0; length];
    rest.copy_to(&mut bytes).ok()?;
    Some(bytes)
}

impl Device for Cocon {
    fn device_id(&self) -> u32 {
        DEVICE_ID
    }

    fn queue_count(&self) -> usize {
        6
    }

    fn features(&self) -> u64 {
        FEATURE_SIZE | FEATURE_MULTIPORT
    }

    fn config(&self) -> Vec<u8> {
        let size = self.size.lock();
        let mut config = Vec::new();
        config.extend_from_slice(&size.columns.to_le_bytes());
        config.extend_from_slice(&size.rows.to_le_bytes());
        config.extend_from_slice(&2_u32.to_le_bytes());
        // Emergency writes are not offered.
        config.extend_from_slice(&0_u32.to_le_bytes());
        config
    }

    fn attach(&mut self, waker: Waker) {
        for port in &self.ports {
            port.attach(waker.clone());
        }
        self.size.lock().waker = Some(waker);
    }

    fn process(&mut self, queue: usize, queues: &mut Queues) {
        match queue {
            CONTROL_TRANSMIT => {
                self.hear(queues);
                self.speak(queues);
                // A port that was just opened may have input waiting.
                self.wake(queues);
            }
            CONTROL_RECEIVE => self.speak(queues),
            _ => {
                for (index, (receive, transmit)) in PORT_QUEUES.into_iter().enumerate() {
                    if queue == receive {
                        self.receive(index, queues);
                    }
                    if queue == transmit {
                        self.transmit(index, queues);
                    }
                }
            }
        }
    }

    fn wake(&mut self, queues: &mut Queues) {
        self.speak(queues);
        for index in 0..self.ports.len() {
            self.transmit(index, queues);
            self.receive(index, queues);
        }
    }

    fn stopped(&mut self, queue: usize) {
        for (index, (_, transmit)) in PORT_QUEUES.into_iter().enumerate() {
            if queue == transmit {
                self.held[index] = None;
            }
        }
    }
}

#[cfg(test)]
mod tests;
