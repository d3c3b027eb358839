//! The engine with kernels of a few instructions, and with a real one where there is one.

#![cfg(target_arch = "x86_64")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::executable::tests::program;
use super::user::{DeviceSocket, EngineError, Guest, UserOptions, start};
use super::{GuestEnd, Pin};
use crate::device::rng::Rng;
use crate::transport::{DeviceServer, GuestProcess, ServeOptions};

const PATIENCE: Duration = Duration::from_secs(20);

/// `exit_group(7)`.
const EXIT_7: &[u8] = b"\xbf\x07\0\0\0\xb8\xe7\0\0\0\x0f\x05";
/// A jump to itself.
const LOOP: &[u8] = b"\xeb\xfe";
/// An instruction that does not exist.
const ILLEGAL: &[u8] = b"\x0f\x0b";
/// `fork()`; both processes then sleep in `poll(0, 0, -1)`.
const TWO_SLEEPERS: &[u8] =
    b"\xb8\x39\0\0\0\x0f\x05\x31\xff\x31\xf6\xba\xff\xff\xff\xff\xb8\x07\0\0\0\x0f\x05\xeb\xfe";

/// Code that writes `text` to descriptor 1 and then runs `rest`.
fn say(text: &[u8], rest: &[u8]) -> Vec<u8> {
    let mut code = b"\xbf\x01\0\0\0\x48\x8d\x35".to_vec(); // edi = 1; lea rsi, [rip + …]
    let behind = u32::try_from(5 + 7 + rest.len()).unwrap();
    code.extend(behind.to_le_bytes());
    code.push(0xba); // edx = length
    code.extend(u32::try_from(text.len()).unwrap().to_le_bytes());
    code.extend(b"\xb8\x01\0\0\0\x0f\x05"); // write
    code.extend(rest);
    code.extend(text);
    code
}

/// `tgkill(getpid(), gettid(), 6)`.
const ABORT: &[u8] = b"\xb8\x27\0\0\0\x0f\x05\x89\xc7\xb8\xba\0\0\0\x0f\x05\x89\xc6\xba\x06\0\0\0\xb8\xea\0\0\0\x0f\x05\xeb\xfe";

struct Bench {
    folder: tempfile::TempDir,
    memory: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            memory: tempfile::tempdir().unwrap(),
        }
    }

    fn options(&self, code: &[u8]) -> UserOptions {
        use std::os::unix::fs::PermissionsExt;
        let vmlinux = self.folder.path().join("vmlinux");
        fs::write(&vmlinux, program(0x6000_0000, code)).unwrap();
        fs::set_permissions(&vmlinux, fs::Permissions::from_mode(0o755)).unwrap();
        UserOptions {
            vmlinux,
            cpus: 1,
            libraries: None,
            initrd: None,
            memory_bytes: 64 << 20,
            memory_folder: self.memory.path().to_owned(),
            cmdline: Vec::new(),
            devices: Vec::new(),
            folder: self.folder.path().to_owned(),
            pin: Pin::Automatic,
            process: GuestProcess::default(),
            console: None,
        }
    }

    fn run(&self, code: &[u8]) -> GuestEnd {
        let guest = start(self.options(code)).unwrap();
        let end = end(&guest);
        assert_eq!(fs::read_dir(self.memory.path()).unwrap().count(), 0);
        end
    }
}

fn end(guest: &Guest) -> GuestEnd {
    guest
        .wait_timeout(PATIENCE)
        .expect("the guest has not ended")
}

#[test]
fn every_end_has_its_name() {
    let bench = Bench::new();
    assert_eq!(bench.run(EXIT_7), GuestEnd::PoweredOff { code: 7 });
    assert_eq!(bench.run(ILLEGAL), GuestEnd::Signalled { signal: 4 });
    assert_eq!(bench.run(ABORT), GuestEnd::Signalled { signal: 6 });
    let panic = say(b"Kernel panic - not syncing: out of luck\n", ABORT);
    let message = "out of luck".to_owned();
    assert_eq!(bench.run(&panic), GuestEnd::Panicked { message });
}

#[test]
fn a_guest_is_killed_with_its_helpers() {
    let bench = Bench::new();
    for code in [LOOP, TWO_SLEEPERS] {
        let guest = start(bench.options(code)).unwrap();
        assert_eq!(guest.wait_timeout(Duration::from_millis(50)), None);
        let group = guest.process_id();
        assert!(members(group) >= 1);
        guest.kill();
        assert_eq!(end(&guest), GuestEnd::Killed);
        guest.kill();
        let begin = Instant::now();
        while members(group) > 0 {
            assert!(begin.elapsed() < PATIENCE, "processes are left");
            std::thread::sleep(Duration::from_millis(5));
        }
        drop(start(bench.options(code)).unwrap());
    }
}

/// Processes of a group that are not dead.
fn members(group: u32) -> usize {
    let stats = fs::read_dir("/proc").unwrap().flatten();
    let stats = stats.filter_map(|entry| fs::read_to_string(entry.path().join("stat")).ok());
    let fields = stats.filter_map(|stat| {
        let (_, rest) = stat.rsplit_once(") ")?;
        let mut fields = rest.split(' ');
        Some((fields.next()? != "Z", fields.nth(1)?.to_owned()))
    });
    fields
        .filter(|(alive, other)| *alive && *other == group.to_string())
        .count()
}

#[test]
fn the_console_is_heard() {
    let bench = Bench::new();
    let heard = Arc::new(Mutex::new(Vec::<u8>::new()));
    let sink = Arc::clone(&heard);
    let mut options = bench.options(&say(b"hello\n", EXIT_7));
    options.console = Some(Box::new(move |bytes| sink.lock().unwrap().extend(bytes)));
    let guest = start(options).unwrap();
    end(&guest);
    assert_eq!(heard.lock().unwrap().as_slice(), b"hello\n");
    assert_eq!(guest.console_tail(), "hello\n");
}

#[test]
fn senseless_options_are_refused() {
    let bench = Bench::new();
    let refused = |change: &dyn Fn(&mut UserOptions)| {
        let mut options = bench.options(EXIT_7);
        change(&mut options);
        start(options).unwrap_err().to_string()
    };
    let text = refused(&|options| options.memory_bytes = 1 << 20);
    assert!(text.contains("fewer than"), "{text}");
    for word in [
        "",
        "two words",
        "mem=1G",
        "ncpus=2",
        "con0=xterm",
        "noreboot",
    ] {
        let text = refused(&|options| options.cmdline.push(word.to_owned()));
        assert!(text.contains("cannot be a word"), "{text}");
    }
    let text = refused(&|options| options.cmdline.push("x".repeat(3000)));
    assert!(text.contains("takes 2048"), "{text}");
    let text = refused(&|options| options.initrd = Some(PathBuf::from("relative")));
    assert!(text.contains("absolute"), "{text}");
    let text = refused(&|options| options.initrd = Some(PathBuf::from("/nowhere/initrd")));
    assert!(text.contains("/nowhere/initrd"), "{text}");
    let text = refused(&|options| options.vmlinux = PathBuf::from("/nowhere/vmlinux"));
    assert!(text.contains("/nowhere/vmlinux"), "{text}");
    let text = refused(&|options| fs::write(&options.vmlinux, "#!/bin/sh").unwrap());
    assert!(text.contains("User-Mode-Linux"), "{text}");
    let socket = DeviceSocket {
        socket: bench.folder.path().join("none"),
        device_id: 2,
    };
    let text = refused(&|options| options.devices.push(socket.clone()));
    assert!(text.contains("none"), "{text}");
    assert!(matches!(
        start(UserOptions {
            pin: Pin::Processor(5000),
            ..bench.options(EXIT_7)
        }),
        Err(EngineError::Processor(_))
    ));
}

/// A cpio archive (newc) of files given by name, mode and content; devices by mode and number.
fn cpio(entries: &[(&str, u32, u32, &[u8])]) -> Vec<u8> {
    let mut archive = Vec::new();
    let end: &[(&str, u32, u32, &[u8])] = &[("TRAILER!!!", 0, 0, b"")];
    for (inode, &(name, mode, minor, content)) in entries.iter().chain(end).enumerate() {
        let (size, length) = (content.len(), name.len() + 1);
        let major = if minor == 0 { 0 } else { 5 };
        let inode = u32::try_from(inode).unwrap() + 1;
        let (size, length) = (u32::try_from(size).unwrap(), u32::try_from(length).unwrap());
        archive.extend(b"070701");
        for field in [inode, mode, 0, 0, 1, 0, size, 0, 0, major, minor, length, 0] {
            archive.extend(format!("{field:08x}").bytes());
        }
        archive.extend(name.bytes());
        archive.push(0);
        archive.resize(archive.len().next_multiple_of(4), 0);
        archive.extend(content);
        archive.resize(archive.len().next_multiple_of(4), 0);
    }
    archive
}

/// `reboot(…, LINUX_REBOOT_CMD_POWER_OFF)`.
const POWER_OFF: &[u8] =
    b"\xbf\xad\xde\xe1\xfe\xbe\x69\x19\x12\x28\xba\xdc\xfe\x21\x43\xb8\xa9\0\0\0\x0f\x05";

/// Boots the kernel in the folder named by `COOP_TEST_KERNEL` (`vmlinux`, and `ld.so` and
/// libraries for a dynamic one), with a first program made of `code`.
fn boot(code: &[u8], check: impl FnOnce(&Guest) -> GuestEnd) -> Option<(GuestEnd, String)> {
    let Some(folder) = std::env::var_os("COOP_TEST_KERNEL") else {
        assert!(
            std::env::var_os("COOP_REQUIRE_ORACLES").is_none(),
            "COOP_TEST_KERNEL names no folder with a kernel"
        );
        eprintln!("skipped: COOP_TEST_KERNEL names no folder with a kernel");
        return None;
    };
    let folder = Path::new(&folder);
    let bench = Bench::new();
    let initrd = bench.folder.path().join("initrd");
    let init = program(0x40_0000, code);
    let files: &[(&str, u32, u32, &[u8])] = &[
        ("dev", 0o40755, 0, b""),
        ("dev/console", 0o20600, 1, b""),
        ("init", 0o100755, 0, &init),
    ];
    fs::write(&initrd, cpio(files)).unwrap();
    let process = GuestProcess::default();
    let serve = ServeOptions {
        name: "rng".to_owned(),
        process: process.clone(),
        on_failure: None,
    };
    let server = DeviceServer::start(&bench.folder.path().join("s"), Box::new(Rng), serve).unwrap();
    let socket = DeviceSocket {
        socket: server.socket().to_owned(),
        device_id: 4,
    };
    let libraries = folder.join("ld.so").exists().then(|| folder.to_owned());
    let guest = start(UserOptions {
        vmlinux: folder.join("vmlinux"),
        libraries,
        initrd: Some(initrd),
        devices: vec![socket],
        process,
        ..bench.options(b"")
    })
    .unwrap();
    let end = check(&guest);
    let text = guest.console_tail();
    drop(guest);
    server.stop(PATIENCE).unwrap();
    assert_eq!(fs::read_dir(bench.memory.path()).unwrap().count(), 0);
    Some((end, text))
}

#[test]
fn a_kernel_boots_and_powers_off() {
    let Some((end, text)) = boot(&say(b"first words\n", POWER_OFF), end) else {
        return;
    };
    assert!(text.contains("first words"), "{text}");
    assert_eq!(end, GuestEnd::PoweredOff { code: 0 }, "{text}");
}

#[test]
fn a_kernel_panics_with_its_words() {
    let Some((end, text)) = boot(EXIT_7, end) else {
        return;
    };
    let GuestEnd::Panicked { message } = end else {
        panic!("{end:?}: {text}");
    };
    assert!(message.contains("Attempted to kill init"), "{message}");
}

#[test]
fn a_program_of_another_kind_does_not_take_its_kernel_down() {
    // A 32-bit call (int 0x80): the outer filter must leave it to the kernel.
    let code = [
        b"\xb8\x14\0\0\0\xcd\x80".as_slice(),
        &say(b"still here\n", POWER_OFF),
    ]
    .concat();
    let Some((end, text)) = boot(&code, end) else {
        return;
    };
    assert!(text.contains("still here"), "{end:?}: {text}");
}

#[test]
fn a_busy_kernel_is_killed() {
    let killed = |guest: &Guest| {
        assert_eq!(guest.wait_timeout(Duration::from_secs(2)), None);
        guest.kill();
        end(guest)
    };
    if let Some((end, _)) = boot(LOOP, killed) {
        assert_eq!(end, GuestEnd::Killed);
    }
}
