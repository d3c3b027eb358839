//! A few threads that take jobs in the order in which these come.

use std::io;
use std::num::NonZeroUsize;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};

/// Name of every thread that decompresses.
const THREAD_NAME: &str = "coop-unpack";

type Job = Box<dyn FnOnce() + Send>;

/// Threads that end when this is dropped and their jobs are done.
pub(super) struct Workers {
    queue: SyncSender<Job>,
}

impl Workers {
    pub(super) fn start(threads: NonZeroUsize) -> io::Result<Self> {
        let (queue, jobs) = sync_channel(threads.get());
        let jobs = Arc::new(Mutex::new(jobs));
        for _ in 0..threads.get() {
            let jobs = Arc::clone(&jobs);
            spawn(move || work(&jobs))?;
        }
        Ok(Self { queue })
    }

    /// Hands over a job, waiting while as many wait as there are threads. Where the threads were
    /// lost the job is dropped, and with it what its reader waits for.
    pub(super) fn run(&self, job: impl FnOnce() + Send + 'static) {
        let _ = self.queue.send(Box::new(job));
    }
}

fn work(jobs: &Mutex<Receiver<Job>>) {
    loop {
        // The lock is held while one thread waits; the others wait for the lock.
        let job = match jobs.lock() {
            Ok(jobs) => jobs.recv(),
            Err(_) => return,
        };
        match job {
            Ok(job) => job(),
            Err(_) => return,
        }
    }
}

/// Starts one thread of this module.
pub(super) fn spawn(body: impl FnOnce() + Send + 'static) -> io::Result<()> {
    std::thread::Builder::new()
        .name(THREAD_NAME.into())
        .spawn(body)
        .map(drop)
}
