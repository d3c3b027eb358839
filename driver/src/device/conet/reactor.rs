//! What wakes the network: the host's sockets and the next timer, behind one descriptor.

use std::collections::BTreeSet;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use rustix::event::{Timespec, epoll};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime,
};

/// How many events are taken from the kernel at once.
const EVENTS_PER_WAIT: usize = 64;
/// How often they are taken in one go; what is left keeps the descriptor readable.
const WAITS_PER_COLLECT: usize = 16;
/// The bits of a raw token that hold the number.
const NUMBER_BITS: u32 = 56;

/// What an event or a timer is about. Numbers are never used twice, so one that comes late is
/// harmless.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Token {
    /// The timer's descriptor.
    Clock,
    /// A TCP connection.
    Tcp(u64),
    /// A UDP flow.
    Udp(u64),
    /// A forwarded TCP port.
    TcpForward(u64),
    /// A forwarded UDP port.
    UdpForward(u64),
}

impl Token {
    fn to_raw(self) -> u64 {
        let (kind, number) = match self {
            Self::Clock => (0, 0),
            Self::Tcp(number) => (1, number),
            Self::Udp(number) => (2, number),
            Self::TcpForward(number) => (3, number),
            Self::UdpForward(number) => (4, number),
        };
        (kind << NUMBER_BITS) | number
    }

    fn from_raw(raw: u64) -> Self {
        let number = raw & ((1 << NUMBER_BITS) - 1);
        match raw >> NUMBER_BITS {
            1 => Self::Tcp(number),
            2 => Self::Udp(number),
            3 => Self::TcpForward(number),
            4 => Self::UdpForward(number),
            _ => Self::Clock,
        }
    }
}

/// What happened to a socket of the host.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ready {
    /// Whose socket it is.
    pub(super) token: Token,
    /// Something can be read, or the peer has closed.
    pub(super) readable: bool,
    /// Something can be written, or connecting has come to an end.
    pub(super) writable: bool,
    /// The socket has failed.
    pub(super) failed: bool,
}

/// Time since the network was made, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Micros(pub(super) u64);

impl Micros {
    /// This time and `seconds` more.
    pub(super) fn plus_seconds(self, seconds: u64) -> Self {
        Self(self.0.saturating_add(seconds.saturating_mul(1_000_000)))
    }
}

impl From<Micros> for smoltcp::time::Instant {
    fn from(at: Micros) -> Self {
        Self::from_micros(i64::try_from(at.0).unwrap_or(i64::MAX))
    }
}

/// The host's sockets and our timers. Sockets are watched by edges: each event is told once, and
/// whoever gets it keeps it in mind until the socket says "would block". So a guest that does not
/// read costs no wake-ups.
#[derive(Debug)]
pub(super) struct Reactor {
    epoll: OwnedFd,
    clock: OwnedFd,
    start: Instant,
    timers: BTreeSet<(Micros, Token)>,
    armed: Option<Micros>,
}

impl Reactor {
    pub(super) fn new() -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let clock = timerfd_create(
            TimerfdClockId::Monotonic,
            TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK,
        )?;
        let reactor = Self {
            epoll,
            clock,
            start: Instant::now(),
            timers: BTreeSet::new(),
            armed: None,
        };
        epoll::add(
            &reactor.epoll,
            &reactor.clock,
            epoll::EventData::new_u64(Token::Clock.to_raw()),
            epoll::EventFlags::IN | epoll::EventFlags::ET,
        )?;
        Ok(reactor)
    }

    /// Readable when there is something to do.
    pub(super) fn readiness(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }

    pub(super) fn now(&self) -> Micros {
        Micros(u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    /// Watches a socket until it is closed.
    pub(super) fn watch(&self, socket: impl AsFd, token: Token) -> io::Result<()> {
        let data = epoll::EventData::new_u64(token.to_raw());
        let flags = epoll::EventFlags::IN
            | epoll::EventFlags::OUT
            | epoll::EventFlags::RDHUP
            | epoll::EventFlags::ET;
        Ok(epoll::add(&self.epoll, socket, data, flags)?)
    }

    /// Appends what has happened since the last call to `ready`, without waiting.
    pub(super) fn collect(&self, ready: &mut Vec<Ready>) {
        for _ in 0..WAITS_PER_COLLECT {
            let mut events = [const { MaybeUninit::uninit() }; EVENTS_PER_WAIT];
            let at_once = Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            };
            let waited = epoll::wait(&self.epoll, events.as_mut_slice(), Some(&at_once));
            let Ok((events, rest)) = waited else {
                return;
            };
            ready.extend(events.iter().map(told));
            if !rest.is_empty() {
                return;
            }
        }
    }

    /// Moves a timer from `old` to `new`.
    pub(super) fn reschedule(&mut self, token: Token, old: Option<Micros>, new: Option<Micros>) {
        if old == new {
            return;
        }
        if let Some(at) = old {
            self.timers.remove(&(at, token));
        }
        if let Some(at) = new {
            self.timers.insert((at, token));
        }
    }

    /// Takes a timer that is due.
    pub(super) fn pop_due(&mut self, now: Micros) -> Option<Token> {
        let first = *self.timers.first()?;
        if first.0 > now {
            return None;
        }
        self.timers.remove(&first);
        Some(first.1)
    }

    /// Sets the clock to the next timer.
    pub(super) fn arm(&mut self) {
        let next = self.timers.first().map(|timer| timer.0);
        let now = self.now();
        // A clock that has rung or is set right is left alone.
        if next == self.armed && next.is_none_or(|at| at > now) {
            return;
        }
        // Zero would switch the clock off, so what is due rings in a microsecond.
        let delay = next.map_or(0, |at| at.0.saturating_sub(now.0).max(1));
        let setting = Itimerspec {
            it_interval: Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            },
            it_value: Timespec {
                tv_sec: i64::try_from(delay / 1_000_000).unwrap_or(i64::MAX),
                tv_nsec: i64::try_from(delay % 1_000_000 * 1000).unwrap_or(0),
            },
        };
        if timerfd_settime(&self.clock, TimerfdTimerFlags::empty(), &setting).is_ok() {
            self.armed = next;
        }
    }

    /// How many timers run.
    #[cfg(test)]
    pub(super) fn timers(&self) -> usize {
        self.timers.len()
    }
}

fn told(event: &epoll::Event) -> Ready {
    use epoll::EventFlags;
    // Copied out: the kernel's structure is packed.
    let (flags, data) = (event.flags, event.data);
    let ends = EventFlags::HUP | EventFlags::ERR;
    Ready {
        token: Token::from_raw(data.u64()),
        readable: flags.intersects(EventFlags::IN | EventFlags::RDHUP | ends),
        writable: flags.intersects(EventFlags::OUT | ends),
        failed: flags.contains(EventFlags::ERR),
    }
}
