//! A person at a terminal: a pseudo-terminal that the tests type into and read.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Termios, Winsize, tcgetattr, tcsetwinsize};

use crate::support;

/// A program on a terminal of its own.
pub struct Terminal {
    child: Child,
    /// What is typed.
    keyboard: File,
    /// The program's side, kept open so that the modes can be looked at.
    line: OwnedFd,
    before: Termios,
    screen: Receiver<Vec<u8>>,
    shown: Vec<u8>,
    /// How much of what was shown has been looked through.
    seen: usize,
    deadline: Instant,
}

impl Terminal {
    /// Starts `coop` as the ordinary user with these words, in a session whose terminal this is.
    /// Whatever happens, it is over at the deadline.
    pub fn start(words: &[&str], deadline: Duration) -> Self {
        let mut program = support::coop();
        program.args(words);
        Self::run(&program, deadline)
    }

    /// Starts a program with its arguments and the plain environment and its own, likewise.
    pub fn run(program: &Command, deadline: Duration) -> Self {
        let keyboard = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&keyboard).unwrap();
        unlockpt(&keyboard).unwrap();
        let name = ptsname(&keyboard, Vec::new()).unwrap();
        let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY;
        let line = rustix::fs::open(&*name, flags, rustix::fs::Mode::empty()).unwrap();
        let before = tcgetattr(&line).unwrap();
        resize(&line, 100, 30);
        let side = || Stdio::from(line.as_fd().try_clone_to_owned().unwrap());
        let mut command = Command::new("setsid");
        command
            .args(["--ctty", "--wait"])
            .arg(program.get_program())
            .args(program.get_args())
            .stdin(side())
            .stdout(side())
            .stderr(side());
        support::plain_environment(&mut command);
        let own = program.get_envs();
        command.envs(own.filter_map(|(name, value)| Some((name, value?))));
        command.env("TERM", "xterm");
        let child = command.spawn().unwrap();
        let keyboard = File::from(keyboard);
        let (sender, screen) = channel();
        let mut reader = keyboard.try_clone().unwrap();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = reader.read(&mut buffer) {
                if sender.send(buffer[..count].to_vec()).is_err() {
                    break;
                }
            }
        });
        Self {
            child,
            keyboard,
            line,
            before,
            screen,
            shown: Vec::new(),
            seen: 0,
            deadline: Instant::now() + deadline,
        }
    }

    /// Waits until the terminal shows a text that it has not shown before.
    #[track_caller]
    pub fn expect(&mut self, text: &str) {
        loop {
            let fresh = &self.shown[self.seen..];
            if let Some(at) = fresh.windows(text.len()).position(|w| w == text.as_bytes()) {
                self.seen += at + text.len();
                return;
            }
            let left = self.deadline.saturating_duration_since(Instant::now());
            match self.screen.recv_timeout(left) {
                Ok(more) => self.shown.extend(more),
                Err(_) => panic!("'{text}' is not shown:\n{}", self.text()),
            }
        }
    }

    /// Gives the terminal another size.
    pub fn resize(&self, columns: u16, rows: u16) {
        resize(&self.line, columns, rows);
    }

    /// Waits until the program passes every key on, Ctrl-C too.
    #[track_caller]
    pub fn expect_raw(&self) {
        let is_raw = || {
            let modes = tcgetattr(&self.line).unwrap().local_modes;
            !modes.intersects(LocalModes::ISIG | LocalModes::ICANON | LocalModes::ECHO)
        };
        let left = self.deadline.saturating_duration_since(Instant::now());
        assert!(support::eventually(left, is_raw), "{}", self.text());
    }

    /// Sends a signal to the program.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// The program's process: setsid executes it in its own.
    pub fn process_id(&self) -> u32 {
        self.child.id()
    }

    /// Types.
    pub fn send(&mut self, text: &str) {
        self.keyboard.write_all(text.as_bytes()).unwrap();
    }

    /// Everything that was shown so far.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.shown).into_owned()
    }

    /// Waits for the end and checks that the terminal is as it was; gives the exit code.
    #[track_caller]
    pub fn end(mut self) -> Option<i32> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        let status = support::wait(&mut self.child, left);
        while let Ok(more) = self.screen.try_recv() {
            self.shown.extend(more);
        }
        let Some(status) = status else {
            panic!("no end:\n{}", self.text());
        };
        let after = tcgetattr(&self.line).unwrap();
        assert_eq!(
            format!("{after:?}"),
            format!("{:?}", self.before),
            "the terminal's modes are not restored"
        );
        status.code()
    }
}

fn resize(line: &OwnedFd, columns: u16, rows: u16) {
    let size = Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(line, size).unwrap();
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // The session's leader, and with it the terminal: the rest hears SIGHUP.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_person_uses_the_console_and_leaves() {
    let debian = support::debian().to_str().unwrap();
    let mut terminal = Terminal::start(&["run", debian], support::RUN_DEADLINE);
    terminal.expect("# ");
    terminal.send("stty size; echo $((6*7))\r");
    terminal.expect("30 100");
    terminal.expect("42");
    terminal.expect("# ");
    terminal.send("exit\r");
    assert_eq!(terminal.end(), Some(0));
}

#[test]
fn an_escape_ends_a_guest_that_hangs() {
    let debian = support::debian().to_str().unwrap();
    let mut terminal = Terminal::start(&["run", debian], support::RUN_DEADLINE);
    terminal.expect("# ");
    terminal.send("exec sleep 1000\r");
    terminal.expect("sleep 1000");
    terminal.send("\x1dq");
    assert_eq!(terminal.end(), Some(137));
}

#[test]
fn a_command_gets_a_terminal() {
    let debian = support::debian().to_str().unwrap();
    let words = ["run", debian, "-t", "--", "sh"];
    let mut terminal = Terminal::start(&words, support::RUN_DEADLINE);
    terminal.expect("# ");
    terminal.send("tty && exit 3\r");
    terminal.expect("/dev/pts/");
    assert_eq!(terminal.end(), Some(3));
}
