//! Signals, taken off their usual course: a thread hears them and tells whoever asked.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread::JoinHandle;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGWINCH};
use signal_hook::iterator::{Handle, Signals};
use signal_hook::low_level::emulate_default_handler;

/// A signal that coop acts on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signal {
    /// SIGINT: a person pressed Ctrl-C.
    Interrupt,
    /// SIGTERM: someone wants an orderly end.
    Terminate,
    /// SIGHUP: the terminal went away.
    Hangup,
    /// SIGWINCH: the terminal has another size.
    Resized,
}

impl Signal {
    fn from_number(number: i32) -> Option<Self> {
        match number {
            SIGINT => Some(Self::Interrupt),
            SIGTERM => Some(Self::Terminate),
            SIGHUP => Some(Self::Hangup),
            SIGWINCH => Some(Self::Resized),
            _ => None,
        }
    }

    /// The number, as in `kill -l`.
    pub(crate) fn number(self) -> u8 {
        let number = match self {
            Self::Interrupt => SIGINT,
            Self::Terminate => SIGTERM,
            Self::Hangup => SIGHUP,
            Self::Resized => SIGWINCH,
        };
        u8::try_from(number).unwrap_or(u8::MAX)
    }

    /// The code that a shell would report for a process that the signal ended.
    pub(crate) fn shell_code(self) -> u8 {
        self.number().saturating_add(128)
    }
}

/// While this lives, signals go to the handler. Dropping it ends the thread; from then on the
/// signals have no effect, which is what the last steps of an orderly end want.
pub(crate) struct Watch {
    handle: Handle,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Starts to hear SIGINT, SIGTERM, SIGHUP and SIGWINCH.
    ///
    /// # Errors
    /// The host gives no thread or no pipe.
    pub(crate) fn start(mut handler: impl FnMut(Signal) + Send + 'static) -> io::Result<Self> {
        let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP, SIGWINCH])?;
        let handle = signals.handle();
        let thread = std::thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || {
                signals
                    .forever()
                    .filter_map(Signal::from_number)
                    .for_each(&mut handler);
            })?;
        Ok(Self {
            handle,
            thread: Some(thread),
        })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.handle.close();
        if let Some(thread) = self.thread.take() {
            // A panic there was reported there.
            let _ = thread.join();
        }
    }
}

/// Signals for work that looks whether it was called off. The first one calls it off, so that it
/// cleans up; a second one ends the program at once.
pub(crate) struct Interruption {
    /// The number of the first signal, 0 before.
    heard: Arc<AtomicU8>,
    _watch: Watch,
}

impl Interruption {
    /// Starts to hear signals; `first` is called at the first one.
    ///
    /// # Errors
    /// The host gives no thread or no pipe.
    pub(crate) fn start(first: impl Fn() + Send + 'static) -> io::Result<Self> {
        let heard = Arc::new(AtomicU8::new(0));
        let shared = Arc::clone(&heard);
        let watch = Watch::start(move |signal| {
            if signal == Signal::Resized {
                return;
            }
            let number = signal.number();
            let before = shared.compare_exchange(0, number, Ordering::SeqCst, Ordering::SeqCst);
            match before {
                Ok(_) => first(),
                // It only returns if the host knows no such signal.
                Err(_) => drop(emulate_default_handler(number.into())),
            }
        })?;
        Ok(Self {
            heard,
            _watch: watch,
        })
    }

    /// What tells of the first signal, for other threads.
    pub(crate) fn flag(&self) -> Arc<AtomicU8> {
        Arc::clone(&self.heard)
    }

    /// The first signal that was heard.
    pub(crate) fn signal(&self) -> Option<Signal> {
        Signal::from_number(self.heard.load(Ordering::SeqCst).into())
    }
}
