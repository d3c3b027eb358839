//! Signals, taken off their usual course: a thread hears them and tells whoever asked.

use std::io;
use std::thread::JoinHandle;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGWINCH};
use signal_hook::iterator::{Handle, Signals};

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
