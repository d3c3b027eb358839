//! The thread that runs a device.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError};

use rustix::event::epoll;
use virtio_queue::QueueT;

use super::memory::Memory;
use super::queues::{Queues, Ring};
use super::report::Counters;
use super::waker::Waker;
use super::{Device, QUEUES_MAX};

/// Events taken from the kernel at a time.
const EVENTS_MAX: usize = 16;
/// Token of the event that says: there is a command.
const TOKEN_COMMAND: u64 = 1000;
/// Token of the device's waker.
const TOKEN_WAKE: u64 = 1001;

/// What the control thread tells the device's thread.
#[derive(Debug)]
pub(super) enum Command {
    /// The guest's driver chose these features.
    Features(u64),
    /// Serve this ring.
    Start(usize, Box<Ring>),
    /// Stop serving a ring, and tell where it stood.
    Stop(usize, SyncSender<Option<u16>>),
    /// Interrupt the guest here from now on.
    Call(usize, Option<File>),
    /// The guest's memory is mapped anew.
    Memory(Arc<Memory>),
    /// End the thread.
    Quit,
}

pub(super) struct Worker {
    device: Box<dyn Device>,
    queues: Queues,
    commands: Receiver<Command>,
    command_waker: Waker,
    waker: Waker,
    epoll: std::os::fd::OwnedFd,
    /// Queues to be looked at: one bit each.
    pending: u64,
    quit: bool,
}

impl Worker {
    pub(super) fn new(
        device: Box<dyn Device>,
        counters: Arc<Counters>,
        commands: Receiver<Command>,
        command_waker: Waker,
        waker: Waker,
    ) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        for (waker, token) in [(&command_waker, TOKEN_COMMAND), (&waker, TOKEN_WAKE)] {
            let data = epoll::EventData::new_u64(token);
            epoll::add(&epoll, waker, data, epoll::EventFlags::IN)?;
        }
        if let Some(readiness) = device.readiness() {
            let data = epoll::EventData::new_u64(TOKEN_WAKE);
            epoll::add(&epoll, readiness, data, epoll::EventFlags::IN)?;
        }
        let queues = Queues::new(device.queue_count().min(QUEUES_MAX), counters);
        Ok(Self {
            device,
            queues,
            commands,
            command_waker,
            waker,
            epoll,
            pending: 0,
            quit: false,
        })
    }

    /// Runs until told to quit.
    pub(super) fn run(mut self) -> io::Result<()> {
        while !self.quit {
            let woken = self.wait()?;
            if woken {
                self.waker.clear();
                self.device.wake(&mut self.queues);
            }
            for queue in 0..self.queues.count() {
                if self.pending & (1 << queue) != 0 && self.queues.is_started(queue) {
                    self.queues.quieten(queue);
                    self.device.process(queue, &mut self.queues);
                }
            }
            self.pending = self.queues.settle();
            for ring in self.queues.take_broken() {
                self.unwatch(&ring);
            }
        }
        Ok(())
    }

    /// Waits for something to do, obeys commands, and says whether the device was woken.
    fn wait(&mut self) -> io::Result<bool> {
        let mut woken = false;
        let mut commanded = false;
        let mut events = Vec::with_capacity(EVENTS_MAX);
        let now = rustix::event::Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let timeout = (self.pending != 0).then_some(&now);
        match epoll::wait(
            &self.epoll,
            rustix::buffer::spare_capacity(&mut events),
            timeout,
        ) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for event in &events {
            match event.data.u64() {
                TOKEN_COMMAND => commanded = true,
                TOKEN_WAKE => woken = true,
                queue => {
                    self.pending |= u32::try_from(queue)
                        .ok()
                        .and_then(|queue| 1u64.checked_shl(queue))
                        .unwrap_or(0)
                }
            }
        }
        if commanded {
            self.command_waker.clear();
            self.obey();
        }
        Ok(woken)
    }

    fn obey(&mut self) {
        loop {
            match self.commands.try_recv() {
                Ok(Command::Features(features)) => self.device.negotiate(features),
                Ok(Command::Start(index, ring)) => self.start(index, *ring),
                Ok(Command::Stop(index, reply)) => {
                    let base = self.queues.take(index).map(|ring| {
                        self.unwatch(&ring);
                        ring.queue.next_avail()
                    });
                    self.device.stopped(index);
                    // Nobody waits any more where the control thread gave up.
                    let _ = reply.try_send(base);
                }
                Ok(Command::Call(index, call)) => {
                    if let Some(ring) = self.queues.get_mut(index) {
                        ring.call = call;
                    }
                }
                Ok(Command::Memory(memory)) => {
                    for index in 0..self.queues.count() {
                        if let Some(ring) = self.queues.get_mut(index) {
                            ring.memory = Arc::clone(&memory);
                        }
                    }
                }
                Ok(Command::Quit) | Err(TryRecvError::Disconnected) => {
                    self.quit = true;
                    return;
                }
                Err(TryRecvError::Empty) => return,
            }
        }
    }

    /// The guest holds the other end of a kick descriptor, so closing ours is not enough.
    fn unwatch(&self, ring: &Ring) {
        let _ = epoll::delete(&self.epoll, &ring.kick);
    }

    fn start(&mut self, index: usize, ring: Ring) {
        let valid = index < self.queues.count() && ring.queue.is_valid(&ring.memory.map);
        let token = u64::try_from(index).map(epoll::EventData::new_u64);
        let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
        let watched = valid
            && token.is_ok_and(|token| {
                epoll::add(&self.epoll, ring.kick.as_fd(), token, flags).is_ok()
            });
        if !watched {
            Counters::add(&self.queues.counters.broken_rings);
            return;
        }
        self.queues.start(index, ring);
        // The guest may have kicked before anyone watched.
        self.pending |= 1 << index;
    }
}
