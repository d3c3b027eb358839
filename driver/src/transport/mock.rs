//! A guest's driver for tests: a real vhost-user front end over a real socket, with memory and
//! rings of its own, in which a test writes whatever it likes.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::fs::{MemfdFlags, memfd_create};
use vhost::vhost_user::message::{VhostUserConfigFlags, VhostUserProtocolFeatures};
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use vmm_sys_util::eventfd::EventFd;

use super::{Device, DeviceReport, DeviceServer, GuestProcess, ServeOptions};

/// Guest address where the shared memory begins; what is below is the kernel's image.
pub(crate) const SHARED_BASE: u64 = 16 << 20;
/// Bytes of shared memory.
pub(crate) const SHARED_BYTES: u64 = 32 << 20;
/// Virtual address of guest address 0.
pub(crate) const VIRTUAL_BASE: u64 = 0x6000_0000;
/// Descriptors in each ring.
pub(crate) const RING_SIZE: u16 = 256;
/// Flag of a descriptor: the chain goes on.
pub(crate) const NEXT: u16 = 1;
/// Flag of a descriptor: the device fills it.
pub(crate) const WRITE: u16 = 2;
/// Flag of a descriptor: it holds a table of descriptors.
pub(crate) const INDIRECT: u16 = 4;
/// How long any answer may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

const RING_STRIDE: u64 = 0x1_0000;
const BUFFERS: u64 = SHARED_BASE + (4 << 20);

struct MockQueue {
    kick: EventFd,
    call: EventFd,
    next_available: u16,
    last_used: u16,
    next_descriptor: u16,
}

/// The mock guest.
pub(crate) struct MockGuest {
    pub(crate) frontend: Frontend,
    memory: File,
    queues: Vec<MockQueue>,
    next_buffer: u64,
}

/// A device under test, with its guest.
pub(crate) struct Bench {
    pub(crate) guest: MockGuest,
    pub(crate) server: Option<DeviceServer>,
    pub(crate) failures: Arc<Mutex<Vec<String>>>,
    pub(crate) process: GuestProcess,
    _folder: tempfile::TempDir,
}

/// Serves a device to a mock guest.
pub(crate) fn bench(device: impl Device + 'static) -> Bench {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("s");
    let count = device.queue_count();
    let failures = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&failures);
    let process = GuestProcess::default();
    let options = ServeOptions {
        name: "test".to_owned(),
        process: process.clone(),
        on_failure: Some(Arc::new(move |_, why| {
            seen.lock().unwrap().push(why.to_owned())
        })),
    };
    let server = DeviceServer::start(&socket, Box::new(device), options).unwrap();
    let guest = MockGuest::connect(&socket, count);
    Bench {
        guest,
        server: Some(server),
        failures,
        process,
        _folder: folder,
    }
}

impl Bench {
    /// What the device has counted.
    pub(crate) fn report(&self) -> DeviceReport {
        self.server.as_ref().unwrap().report()
    }

    /// Stops the device; panics if it does not stop or has failed.
    pub(crate) fn stop(mut self) -> DeviceReport {
        let report = self.server.take().unwrap().stop(PATIENCE).unwrap();
        assert_eq!(*self.failures.lock().unwrap(), Vec::<String>::new());
        report
    }
}

impl MockGuest {
    /// Connects, takes all features, and starts all queues.
    pub(crate) fn connect(socket: &std::path::Path, queues: usize) -> Self {
        let mut frontend = Frontend::connect(socket, u64::try_from(queues).unwrap()).unwrap();
        let features = frontend.get_features().unwrap();
        frontend.set_owner().unwrap();
        frontend.set_features(features).unwrap();
        let protocol = frontend.get_protocol_features().unwrap();
        assert!(protocol.contains(VhostUserProtocolFeatures::CONFIG));
        frontend.set_protocol_features(protocol).unwrap();
        let memory = File::from(memfd_create("mock", MemfdFlags::CLOEXEC).unwrap());
        memory.set_len(SHARED_BYTES).unwrap();
        let region = VhostUserMemoryRegionInfo {
            guest_phys_addr: SHARED_BASE,
            memory_size: SHARED_BYTES,
            userspace_addr: VIRTUAL_BASE + SHARED_BASE,
            mmap_offset: 0,
            mmap_handle: memory.as_raw_fd(),
        };
        frontend.set_mem_table(&[region]).unwrap();
        let mut guest = Self {
            frontend,
            memory,
            queues: Vec::new(),
            next_buffer: BUFFERS,
        };
        for index in 0..queues {
            guest.start_queue(index);
        }
        guest
    }

    fn start_queue(&mut self, index: usize) {
        let kick = EventFd::new(0).unwrap();
        let call = EventFd::new(libc_nonblock()).unwrap();
        let ring = VIRTUAL_BASE + Self::ring(index);
        let config = VringConfigData {
            queue_max_size: RING_SIZE,
            queue_size: RING_SIZE,
            flags: 0,
            desc_table_addr: ring,
            avail_ring_addr: ring + 0x1000,
            used_ring_addr: ring + 0x2000,
            log_addr: None,
        };
        self.frontend.set_vring_num(index, RING_SIZE).unwrap();
        self.frontend.set_vring_base(index, 0).unwrap();
        self.frontend.set_vring_addr(index, &config).unwrap();
        self.frontend.set_vring_call(index, &call).unwrap();
        self.frontend.set_vring_kick(index, &kick).unwrap();
        self.frontend.set_vring_enable(index, true).unwrap();
        self.queues.push(MockQueue {
            kick,
            call,
            next_available: 0,
            last_used: 0,
            next_descriptor: 0,
        });
    }

    fn ring(index: usize) -> u64 {
        SHARED_BASE + RING_STRIDE * u64::try_from(index).unwrap()
    }

    /// The beginning of the configuration space.
    pub(crate) fn config(&mut self, length: u32) -> Vec<u8> {
        let buffer = vec![0; usize::try_from(length).unwrap()];
        let flags = VhostUserConfigFlags::WRITABLE;
        self.frontend
            .get_config(0, length, flags, &buffer)
            .unwrap()
            .1
    }

    /// Writes guest memory.
    pub(crate) fn write(&self, address: u64, bytes: &[u8]) {
        self.memory
            .write_all_at(bytes, address - SHARED_BASE)
            .unwrap();
    }

    /// Reads guest memory.
    pub(crate) fn read(&self, address: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.memory
            .read_exact_at(&mut bytes, address - SHARED_BASE)
            .unwrap();
        bytes
    }

    /// Takes memory for a buffer.
    pub(crate) fn allocate(&mut self, length: usize) -> u64 {
        let address = self.next_buffer;
        let length = u64::try_from(length).unwrap().next_multiple_of(16);
        if address + length > SHARED_BASE + SHARED_BYTES {
            self.next_buffer = BUFFERS + length;
            return BUFFERS;
        }
        self.next_buffer += length;
        address
    }

    /// Takes memory and fills it.
    pub(crate) fn store(&mut self, bytes: &[u8]) -> u64 {
        let address = self.allocate(bytes.len());
        self.write(address, bytes);
        address
    }

    /// A descriptor's bytes.
    pub(crate) fn descriptor(address: u64, length: u32, flags: u16, next: u16) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&address.to_le_bytes());
        bytes[8..12].copy_from_slice(&length.to_le_bytes());
        bytes[12..14].copy_from_slice(&flags.to_le_bytes());
        bytes[14..].copy_from_slice(&next.to_le_bytes());
        bytes
    }

    /// Writes one entry of a ring's descriptor table.
    pub(crate) fn set_descriptor(&self, queue: usize, index: u16, descriptor: [u8; 16]) {
        self.write(Self::ring(queue) + 16 * u64::from(index), &descriptor);
    }

    /// Makes a head available and kicks.
    pub(crate) fn offer(&mut self, queue: usize, head: u16) {
        let available = Self::ring(queue) + 0x1000;
        let place = self.queues[queue].next_available;
        self.write(
            available + 4 + 2 * u64::from(place % RING_SIZE),
            &head.to_le_bytes(),
        );
        let next = place.wrapping_add(1);
        self.queues[queue].next_available = next;
        self.set_available_index(queue, next);
    }

    /// Writes the available ring's index, whatever it is, and kicks.
    pub(crate) fn set_available_index(&self, queue: usize, index: u16) {
        self.write(Self::ring(queue) + 0x1002, &index.to_le_bytes());
        self.queues[queue].kick.write(1).unwrap();
    }

    /// Offers a chain of buffers given as address, length and direction; returns its head.
    pub(crate) fn offer_chain(&mut self, queue: usize, parts: &[(u64, u32, bool)]) -> u16 {
        let head = self.queues[queue].next_descriptor;
        let mut index = head;
        for (place, &(address, length, writable)) in parts.iter().enumerate() {
            let next = (index + 1) % RING_SIZE;
            let more = if place + 1 < parts.len() { NEXT } else { 0 };
            let direction = if writable { WRITE } else { 0 };
            let descriptor = Self::descriptor(address, length, more | direction, next);
            self.set_descriptor(queue, index, descriptor);
            index = next;
        }
        self.queues[queue].next_descriptor = index;
        self.offer(queue, head);
        head
    }

    /// The next used element, waited for: head and length.
    pub(crate) fn wait(&mut self, queue: usize) -> (u32, u32) {
        self.wait_for(queue, PATIENCE)
            .expect("the device has not answered")
    }

    /// The next used element, if one comes in time.
    pub(crate) fn wait_for(&mut self, queue: usize, patience: Duration) -> Option<(u32, u32)> {
        let used = Self::ring(queue) + 0x2000;
        let start = Instant::now();
        let number = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().unwrap());
        while start.elapsed() < patience {
            let index = self.read(used + 2, 2);
            let last = self.queues[queue].last_used;
            if u16::from_le_bytes([index[0], index[1]]) != last {
                let element = self.read(used + 4 + 8 * u64::from(last % RING_SIZE), 8);
                let last = last.wrapping_add(1);
                self.queues[queue].last_used = last;
                // Ask to be told of the next one (used_event).
                let event = Self::ring(queue) + 0x1004 + 2 * u64::from(RING_SIZE);
                self.write(event, &last.to_le_bytes());
                return Some((number(&element[..4]), number(&element[4..])));
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        None
    }

    /// Whether the guest was interrupted for a queue since the last time.
    pub(crate) fn interrupted(&self, queue: usize) -> bool {
        self.queues[queue].call.read().is_ok()
    }

    /// Sends readable bytes and room for answers; waits; returns the used length and the answers.
    pub(crate) fn call(
        &mut self,
        queue: usize,
        readable: &[&[u8]],
        room: &[usize],
    ) -> (u32, Vec<Vec<u8>>) {
        let length = |bytes: usize| u32::try_from(bytes).unwrap();
        let mut parts = Vec::new();
        for bytes in readable {
            parts.push((self.store(bytes), length(bytes.len()), false));
        }
        let first = parts.len();
        for &bytes in room {
            parts.push((self.allocate(bytes), length(bytes), true));
        }
        let head = self.offer_chain(queue, &parts);
        let (id, used) = self.wait(queue);
        assert_eq!(id, u32::from(head));
        let answers = parts[first..].iter();
        let answers = answers.map(|part| self.read(part.0, usize::try_from(part.1).unwrap()));
        (used, answers.collect())
    }
}

/// `EFD_NONBLOCK`, which is `O_NONBLOCK`.
fn libc_nonblock() -> i32 {
    i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap()
}
