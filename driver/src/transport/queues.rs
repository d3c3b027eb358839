//! The rings of one device, as its front sees them: take a chain, give it back.

use std::fs::File;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress};

use super::chain::{Chain, Malformed};
use super::memory::Memory;
use super::report::Counters;

/// Descriptors in a ring at most: what a User-Mode-Linux kernel asks for.
pub const QUEUE_SIZE_MAX: u16 = 256;

/// Flags and index before the entries of the available and of the used ring.
const AVAILABLE_HEADER_BYTES: u64 = 4;
const USED_HEADER_BYTES: u64 = 4;
/// Size of an element of the used ring.
const USED_ELEMENT_BYTES: u64 = 8;

/// A ring that the guest has started.
#[derive(Debug)]
pub(crate) struct Ring {
    pub(crate) queue: Queue,
    pub(crate) memory: Arc<Memory>,
    /// Where to interrupt the guest.
    pub(crate) call: Option<File>,
    /// Where the guest says that there is something; watched for edges, never read.
    pub(crate) kick: File,
    generation: u64,
    /// Chains were completed since the guest was last told.
    completed: bool,
    /// Where the used ring stood when the guest was last told, or asked whether to be.
    told: u16,
    /// The last look found no further chain.
    drained: bool,
}

impl Ring {
    pub(crate) fn new(queue: Queue, memory: Arc<Memory>, kick: File, call: Option<File>) -> Self {
        Self {
            told: queue.next_used(),
            queue,
            memory,
            call,
            kick,
            generation: 0,
            completed: false,
            drained: false,
        }
    }
}

impl Ring {
    /// Puts elements into the used ring, and only then moves its index.
    fn add_used_together(&mut self, elements: &[(u16, u32)]) -> Result<(), ()> {
        let Some((&(head, written), before)) = elements.split_last() else {
            return Ok(());
        };
        let size = self.queue.size().max(1);
        let mut at = self.queue.next_used();
        for (head, written) in before {
            let offset = USED_HEADER_BYTES + USED_ELEMENT_BYTES * u64::from(at % size);
            let address = self.queue.used_ring().checked_add(offset).ok_or(())?;
            let element = [u32::from(*head).to_le_bytes(), written.to_le_bytes()].concat();
            let stored = self.memory.map.write_slice(&element, GuestAddress(address));
            stored.map_err(|_| ())?;
            at = at.wrapping_add(1);
        }
        self.queue.set_next_used(at);
        let added = self.queue.add_used(&self.memory.map, head, written);
        self.completed = true;
        added.map_err(|_| ())
    }

    /// Whether the guest wants to hear of what was completed since this was last asked (virtio
    /// 1.3, 2.7.7.2). The queue's own answer knows nothing of chains that were added together.
    fn wants_interrupt(&mut self) -> bool {
        let new = self.queue.next_used();
        let old = std::mem::replace(&mut self.told, new);
        if !self.queue.event_idx_enabled() {
            return true;
        }
        // What was completed must be visible before the guest's wish is read.
        fence(Ordering::SeqCst);
        let offset = AVAILABLE_HEADER_BYTES + 2 * u64::from(self.queue.size());
        let address = self.queue.avail_ring().checked_add(offset);
        let event = address.and_then(|address| {
            let memory = &self.memory.map;
            memory
                .load::<u16>(GuestAddress(address), Ordering::Relaxed)
                .ok()
        });
        event.is_none_or(|event| {
            let ahead = new.wrapping_sub(u16::from_le(event)).wrapping_sub(1);
            ahead < new.wrapping_sub(old)
        })
    }
}

/// All rings of a device; those that the guest has not started, or that are broken, are empty.
///
/// A device takes a [`Chain`] with [`Queues::pop`] and gives it back with [`Queues::complete`],
/// at once or in a later call. The guest is told once after each call into the device, or at
/// [`Queues::flush`].
#[derive(Debug)]
pub struct Queues {
    rings: Vec<Option<Ring>>,
    /// Rings given up, until the worker stops watching them.
    broken: Vec<Ring>,
    generation: u64,
    pub(crate) counters: Arc<Counters>,
}

impl Queues {
    pub(crate) fn new(count: usize, counters: Arc<Counters>) -> Self {
        let rings = (0..count).map(|_| None).collect();
        Self {
            rings,
            broken: Vec::new(),
            generation: 0,
            counters,
        }
    }

    pub(crate) fn start(&mut self, index: usize, mut ring: Ring) {
        self.generation += 1;
        ring.generation = self.generation;
        if let Some(place) = self.rings.get_mut(index) {
            *place = Some(ring);
        }
    }

    pub(crate) fn take(&mut self, index: usize) -> Option<Ring> {
        self.rings.get_mut(index).and_then(Option::take)
    }

    pub(crate) fn get_mut(&mut self, index: usize) -> Option<&mut Ring> {
        self.rings.get_mut(index).and_then(Option::as_mut)
    }

    /// How many queues the device has.
    #[must_use]
    pub fn count(&self) -> usize {
        self.rings.len()
    }

    /// Whether the guest has started a queue.
    #[must_use]
    pub fn is_started(&self, queue: usize) -> bool {
        self.rings.get(queue).is_some_and(Option::is_some)
    }

    /// Takes the next chain of a queue, or nothing where there is none.
    ///
    /// Chains that no driver should have made are completed with length 0, counted, and skipped.
    pub fn pop(&mut self, queue: usize) -> Option<Chain> {
        for _ in 0..QUEUE_SIZE_MAX {
            let (head, parsed) = self.next(queue)?;
            Counters::add(&self.counters.requests);
            match parsed {
                Ok(chain) => return Some(chain),
                Err(_) => {
                    Counters::add(&self.counters.malformed);
                    self.put(queue, head, 0);
                }
            }
        }
        // So much rubbish in a row: the worker comes back after a look at its other events.
        if let Some(ring) = self.get_mut(queue) {
            ring.drained = true;
        }
        None
    }

    /// The next available head and what its chain is.
    fn next(&mut self, index: usize) -> Option<(u16, Result<Chain, Malformed>)> {
        let ring = self.rings.get_mut(index)?.as_mut()?;
        let head = match next_head(&mut ring.queue, &ring.memory) {
            Ok(Some(head)) => head,
            Ok(None) => {
                ring.drained = true;
                return None;
            }
            Err(()) => {
                self.give_up(index);
                return None;
            }
        };
        ring.drained = false;
        let table = (ring.queue.desc_table(), ring.queue.size());
        let origin = (index, ring.generation);
        let chain = Chain::parse(&ring.memory, &self.counters, table, origin, head);
        Some((head, chain))
    }

    /// Gives a chain back to the guest, with the number of bytes that were filled in from the
    /// beginning of its writable part. A chain of a ring that was stopped meanwhile is dropped.
    pub fn complete(&mut self, chain: Chain, written: usize) {
        let ring = self.rings.get(chain.queue).and_then(Option::as_ref);
        if ring.is_some_and(|ring| ring.generation == chain.generation) {
            let written = written.min(chain.writable().len());
            self.put(
                chain.queue,
                chain.head,
                u32::try_from(written).unwrap_or(u32::MAX),
            );
        }
    }

    /// Gives back chains of one queue that belong together, as the parts of one packet do (virtio
    /// 1.3, 5.1.6.4): the guest sees all of them at once. Each comes with the number of bytes that
    /// were filled in; the list is emptied.
    pub fn complete_together(&mut self, chains: &mut Vec<(Chain, usize)>) {
        let Some(index) = chains.first().map(|(chain, _)| chain.queue) else {
            return;
        };
        let Some(ring) = self.rings.get_mut(index).and_then(Option::as_mut) else {
            return chains.clear();
        };
        let elements = chains.drain(..).filter_map(|(chain, written)| {
            let ours = chain.queue == index && chain.generation == ring.generation;
            let written = u32::try_from(written.min(chain.writable().len())).unwrap_or(u32::MAX);
            ours.then_some((chain.head, written))
        });
        let elements: Vec<(u16, u32)> = elements.collect();
        if ring.add_used_together(&elements).is_err() {
            self.give_up(index);
        }
    }

    /// Gives back a chain that is no request of this device: length 0, and counted as malformed.
    pub fn refuse(&mut self, chain: Chain) {
        Counters::add(&self.counters.malformed);
        self.complete(chain, 0);
    }

    /// Counts a request that was understood and could not be carried out.
    pub fn count_failure(&self) {
        Counters::add(&self.counters.failed);
    }

    fn put(&mut self, index: usize, head: u16, written: u32) {
        let Some(ring) = self.rings.get_mut(index).and_then(Option::as_mut) else {
            return;
        };
        if head >= ring.queue.size() {
            // No such descriptor: there is nothing to give back.
            return;
        }
        if ring.queue.add_used(&ring.memory.map, head, written).is_ok() {
            ring.completed = true;
        } else {
            self.give_up(index);
        }
    }

    /// Stops serving a ring whose own structure is broken.
    fn give_up(&mut self, index: usize) {
        if let Some(ring) = self.take(index) {
            Counters::add(&self.counters.broken_rings);
            self.broken.push(ring);
        }
    }

    pub(crate) fn take_broken(&mut self) -> Vec<Ring> {
        std::mem::take(&mut self.broken)
    }

    /// Tells the guest now of what was completed in a queue, instead of after this call.
    pub fn flush(&mut self, queue: usize) {
        let counters = Arc::clone(&self.counters);
        let Some(ring) = self.get_mut(queue) else {
            return;
        };
        if !std::mem::take(&mut ring.completed) {
            return;
        }
        if ring.wants_interrupt()
            && let Some(call) = &mut ring.call
        {
            // A full pipe holds an interrupt already, and a closed one has nobody to tell.
            let _ = call.write(&1u64.to_ne_bytes());
            Counters::add(&counters.interrupts);
        }
    }

    /// Asks the guest for no kicks on a queue while it is being looked at.
    pub(crate) fn quieten(&mut self, queue: usize) {
        if let Some(ring) = self.get_mut(queue) {
            ring.drained = false;
            let _ = ring.queue.disable_notification(&ring.memory.map);
        }
    }

    /// Tells the guest of everything completed, asks for kicks again where the device has taken
    /// every chain, and returns a mask of the queues where more has come meanwhile.
    pub(crate) fn settle(&mut self) -> u64 {
        let mut more = 0;
        for index in 0..self.rings.len() {
            self.flush(index);
            let Some(ring) = self.get_mut(index) else {
                continue;
            };
            if !std::mem::take(&mut ring.drained) {
                continue;
            }
            match ring.queue.enable_notification(&ring.memory.map) {
                Ok(false) => {}
                Ok(true) => more |= 1 << index,
                Err(_) => self.give_up(index),
            }
        }
        more
    }
}

/// Takes the next head from the available ring; an error where the ring makes no sense.
fn next_head(queue: &mut Queue, memory: &Memory) -> Result<Option<u16>, ()> {
    use virtio_queue::QueueOwnedT;
    let mut heads = queue.iter(&memory.map).map_err(|_| ())?;
    Ok(heads.next().map(|chain| chain.head_index()))
}
