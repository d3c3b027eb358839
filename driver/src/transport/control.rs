//! The control side of vhost-user: the guest kernel's messages, turned into commands.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Sender, sync_channel};
use std::time::Duration;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use vhost::vhost_user::message::{
    VhostTransferStateDirection, VhostTransferStatePhase, VhostUserConfigFlags, VhostUserInflight,
    VhostUserLog, VhostUserMemoryRegion, VhostUserProtocolFeatures, VhostUserShMemConfig,
    VhostUserSharedMsg, VhostUserSingleMemoryRegion, VhostUserVirtioFeatures,
    VhostUserVringAddrFlags, VhostUserVringState,
};
use vhost::vhost_user::{Error, GpuBackend, Result, VhostUserBackendReqHandlerMut};
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};
use virtio_queue::{Queue, QueueT};
use vm_memory::GuestAddress;

use super::memory::{GuestProcess, Memory};
use super::queues::{QUEUE_SIZE_MAX, Ring};
use super::report::Counters;
use super::waker::Waker;
use super::worker::Command;

/// How long the guest is kept waiting for a ring to stop: the request that is being carried out
/// must end first.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// Feature bits that the transport itself brings.
const FEATURES: u64 =
    1 << VIRTIO_F_VERSION_1 | 1 << VIRTIO_RING_F_INDIRECT_DESC | 1 << VIRTIO_RING_F_EVENT_IDX;

/// What the guest has said about one ring.
#[derive(Debug, Default)]
struct RingState {
    size: u16,
    descriptors: u64,
    available: u64,
    used: u64,
    base: u16,
    kick: Option<File>,
    call: Option<File>,
    enabled: bool,
    running: bool,
}

/// Answers the guest kernel. Nothing here waits for I/O, but for a ring that is being stopped.
#[derive(Debug)]
pub(super) struct Control {
    device_features: u64,
    config: Vec<u8>,
    rings: Vec<RingState>,
    features: u64,
    memory: Arc<Memory>,
    process: GuestProcess,
    counters: Arc<Counters>,
    commands: Sender<Command>,
    command_waker: Waker,
}

/// What a [`Control`] is made of.
pub(super) struct ControlParts {
    pub(super) device_features: u64,
    pub(super) config: Vec<u8>,
    pub(super) queue_count: usize,
    pub(super) process: GuestProcess,
    pub(super) counters: Arc<Counters>,
    pub(super) commands: Sender<Command>,
    pub(super) command_waker: Waker,
}

/// Makes a descriptor of the guest's safe to write to: it must not block.
fn non_blocking(file: Option<File>) -> Result<Option<File>> {
    if let Some(file) = &file {
        let flags = fcntl_getfl(file)
            .map_err(io::Error::from)
            .map_err(Error::ReqHandlerError)?;
        fcntl_setfl(file, flags | OFlags::NONBLOCK)
            .map_err(io::Error::from)
            .map_err(Error::ReqHandlerError)?;
    }
    Ok(file)
}

impl Control {
    pub(super) fn new(parts: ControlParts) -> Self {
        Self {
            device_features: parts.device_features,
            config: parts.config,
            rings: (0..parts.queue_count)
                .map(|_| RingState {
                    size: QUEUE_SIZE_MAX,
                    ..RingState::default()
                })
                .collect(),
            features: 0,
            memory: Arc::default(),
            process: parts.process,
            counters: parts.counters,
            commands: parts.commands,
            command_waker: parts.command_waker,
        }
    }

    fn offered(&self) -> u64 {
        self.device_features | FEATURES | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits()
    }

    fn send(&self, command: Command) {
        // A worker that is gone has been reported; the guest then talks to nobody.
        let _ = self.commands.send(command);
        self.command_waker.wake();
    }

    fn ring(&mut self, index: u32) -> Result<(usize, &mut RingState)> {
        let index = usize::try_from(index).map_err(|_| Error::InvalidParam)?;
        let ring = self.rings.get_mut(index).ok_or(Error::InvalidParam)?;
        Ok((index, ring))
    }

    /// Starts a ring once everything about it is known.
    fn try_start(&mut self, index: usize) -> Result<()> {
        let negotiated = VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits();
        let always = self.features & negotiated == 0;
        let memory = Arc::clone(&self.memory);
        let event_idx = self.features & (1 << VIRTIO_RING_F_EVENT_IDX) != 0;
        let Some(state) = self.rings.get_mut(index) else {
            return Err(Error::InvalidParam);
        };
        if state.running || !(state.enabled || always) || state.available == 0 {
            return Ok(());
        }
        let Some(kick) = &state.kick else {
            return Ok(());
        };
        let kick = kick.try_clone().map_err(Error::ReqHandlerError)?;
        let call = state.call.as_ref().map(File::try_clone).transpose();
        let call = call.map_err(Error::ReqHandlerError)?;
        let queue = queue_of(state, event_idx, &memory)?;
        state.running = true;
        let ring = Box::new(Ring::new(queue, memory, kick, call));
        self.send(Command::Start(index, ring));
        Ok(())
    }

    /// Stops a ring, and returns the next index that the device would have taken.
    fn stop(&mut self, index: usize) -> Result<u16> {
        let running = self
            .rings
            .get_mut(index)
            .is_some_and(|state| std::mem::take(&mut state.running));
        if running {
            let (reply, answer) = sync_channel(1);
            self.send(Command::Stop(index, reply));
            let base = answer
                .recv_timeout(STOP_TIMEOUT)
                .map_err(|_| Error::BackendInternalError)?;
            if let (Some(base), Some(state)) = (base, self.rings.get_mut(index)) {
                state.base = base;
            }
        }
        self.rings
            .get(index)
            .map(|state| state.base)
            .ok_or(Error::InvalidParam)
    }

    fn refuse<T>(&self, what: &'static str) -> Result<T> {
        Counters::add(&self.counters.refused_messages);
        Err(Error::InvalidOperation(what))
    }
}

fn queue_of(state: &RingState, event_idx: bool, memory: &Memory) -> Result<Queue> {
    let mut queue = Queue::new(QUEUE_SIZE_MAX).map_err(|_| Error::BackendInternalError)?;
    let set = queue
        .try_set_size(state.size)
        .and_then(|()| queue.try_set_desc_table_address(GuestAddress(state.descriptors)))
        .and_then(|()| queue.try_set_avail_ring_address(GuestAddress(state.available)))
        .and_then(|()| queue.try_set_used_ring_address(GuestAddress(state.used)));
    set.map_err(|_| Error::InvalidParam)?;
    queue.set_event_idx(event_idx);
    queue.set_next_avail(state.base);
    let used = queue.used_idx(&memory.map, std::sync::atomic::Ordering::Acquire);
    queue.set_next_used(used.map_err(|_| Error::InvalidParam)?.0);
    queue.set_ready(true);
    Ok(queue)
}

impl VhostUserBackendReqHandlerMut for Control {
    fn set_owner(&mut self) -> Result<()> {
        Ok(())
    }

    fn reset_owner(&mut self) -> Result<()> {
        self.reset_device()
    }

    fn reset_device(&mut self) -> Result<()> {
        for index in 0..self.rings.len() {
            self.stop(index)?;
            if let Some(state) = self.rings.get_mut(index) {
                *state = RingState {
                    size: QUEUE_SIZE_MAX,
                    ..RingState::default()
                };
            }
        }
        self.features = 0;
        Ok(())
    }

    fn get_features(&mut self) -> Result<u64> {
        Ok(self.offered())
    }

    fn set_features(&mut self, features: u64) -> Result<()> {
        if features & !self.offered() != 0 {
            return self.refuse("a feature that was not offered");
        }
        self.features = features;
        self.send(Command::Features(features));
        Ok(())
    }

    fn set_mem_table(
        &mut self,
        regions: &[VhostUserMemoryRegion],
        files: Vec<File>,
        _postcopy_listening: Option<bool>,
    ) -> Result<Option<Vec<u64>>> {
        let memory = Memory::new(regions, files, self.process.clone());
        let memory = Arc::new(memory.map_err(|error| {
            Counters::add(&self.counters.refused_messages);
            Error::ReqHandlerError(error)
        })?);
        self.memory = Arc::clone(&memory);
        self.send(Command::Memory(memory));
        Ok(None)
    }

    fn set_vring_num(&mut self, index: u32, size: u32) -> Result<()> {
        let (_, state) = self.ring(index)?;
        match u16::try_from(size) {
            Ok(size) if size <= QUEUE_SIZE_MAX && size.is_power_of_two() => state.size = size,
            _ => return self.refuse("a ring size out of range"),
        }
        Ok(())
    }

    fn set_vring_addr(
        &mut self,
        index: u32,
        _flags: VhostUserVringAddrFlags,
        descriptors: u64,
        used: u64,
        available: u64,
        _log: u64,
    ) -> Result<()> {
        let memory = Arc::clone(&self.memory);
        let address = |virtual_address| memory.guest_address(virtual_address);
        let all = (address(descriptors), address(used), address(available));
        let (Some(descriptors), Some(used), Some(available)) = all else {
            return self.refuse("a ring outside the guest's memory");
        };
        let (_, state) = self.ring(index)?;
        (state.descriptors, state.used, state.available) = (descriptors, used, available);
        Ok(())
    }

    fn set_vring_base(&mut self, index: u32, base: u32) -> Result<()> {
        let base = u16::try_from(base).map_err(|_| Error::InvalidParam)?;
        self.ring(index)?.1.base = base;
        Ok(())
    }

    fn get_vring_base(&mut self, index: u32) -> Result<VhostUserVringState> {
        let (place, _) = self.ring(index)?;
        let base = self.stop(place)?;
        let (_, state) = self.ring(index)?;
        (state.kick, state.call) = (None, None);
        Ok(VhostUserVringState::new(index, u32::from(base)))
    }

    fn set_vring_kick(&mut self, index: u8, file: Option<File>) -> Result<()> {
        let (place, state) = self.ring(u32::from(index))?;
        state.kick = file;
        self.try_start(place)
    }

    fn set_vring_call(&mut self, index: u8, file: Option<File>) -> Result<()> {
        let file = non_blocking(file)?;
        let (place, state) = self.ring(u32::from(index))?;
        let copy = file.as_ref().map(File::try_clone).transpose();
        let copy = copy.map_err(Error::ReqHandlerError)?;
        state.call = file;
        if state.running {
            self.send(Command::Call(place, copy));
        }
        Ok(())
    }

    fn set_vring_err(&mut self, index: u8, _file: Option<File>) -> Result<()> {
        self.ring(u32::from(index)).map(|_| ())
    }

    fn get_protocol_features(&mut self) -> Result<VhostUserProtocolFeatures> {
        Ok(VhostUserProtocolFeatures::MQ
            | VhostUserProtocolFeatures::CONFIG
            | VhostUserProtocolFeatures::REPLY_ACK)
    }

    fn set_protocol_features(&mut self, _features: u64) -> Result<()> {
        Ok(())
    }

    fn get_queue_num(&mut self) -> Result<u64> {
        u64::try_from(self.rings.len()).map_err(|_| Error::BackendInternalError)
    }

    fn set_vring_enable(&mut self, index: u32, enable: bool) -> Result<()> {
        let (place, state) = self.ring(index)?;
        state.enabled = enable;
        if enable {
            return self.try_start(place);
        }
        self.stop(place).map(|_| ())
    }

    fn get_config(
        &mut self,
        offset: u32,
        size: u32,
        _flags: VhostUserConfigFlags,
    ) -> Result<Vec<u8>> {
        let count = |number| usize::try_from(number).map_err(|_| Error::InvalidParam);
        let (offset, size) = (count(offset)?, count(size)?);
        let bytes = self.config.iter().copied().chain(std::iter::repeat(0));
        Ok(bytes.skip(offset).take(size).collect())
    }

    fn set_config(
        &mut self,
        _offset: u32,
        _buf: &[u8],
        _flags: VhostUserConfigFlags,
    ) -> Result<()> {
        self.refuse("the configuration space is read-only")
    }

    fn set_gpu_socket(&mut self, _gpu_backend: GpuBackend) -> Result<()> {
        self.refuse("no GPU here")
    }

    fn get_shared_object(&mut self, _uuid: VhostUserSharedMsg) -> Result<File> {
        self.refuse("no shared objects here")
    }

    fn get_inflight_fd(
        &mut self,
        _inflight: &VhostUserInflight,
    ) -> Result<(VhostUserInflight, File)> {
        self.refuse("no in-flight tracking here")
    }

    fn set_inflight_fd(&mut self, _inflight: &VhostUserInflight, _file: File) -> Result<()> {
        self.refuse("no in-flight tracking here")
    }

    fn get_max_mem_slots(&mut self) -> Result<u64> {
        self.refuse("memory does not grow")
    }

    fn add_mem_region(
        &mut self,
        _region: &VhostUserSingleMemoryRegion,
        _file: File,
        _postcopy_listening: Option<bool>,
    ) -> Result<Option<u64>> {
        self.refuse("memory does not grow")
    }

    fn remove_mem_region(&mut self, _region: &VhostUserSingleMemoryRegion) -> Result<()> {
        self.refuse("memory does not shrink")
    }

    fn set_device_state_fd(
        &mut self,
        _direction: VhostTransferStateDirection,
        _phase: VhostTransferStatePhase,
        _file: File,
    ) -> Result<Option<File>> {
        self.refuse("no migration here")
    }

    fn check_device_state(&mut self) -> Result<()> {
        self.refuse("no migration here")
    }

    fn get_shmem_config(&mut self) -> Result<VhostUserShMemConfig> {
        self.refuse("no shared memory regions here")
    }

    fn set_log_base(&mut self, _log: &VhostUserLog, _file: File) -> Result<()> {
        self.refuse("no dirty log here")
    }
}
