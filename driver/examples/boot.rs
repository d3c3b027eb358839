//! Boots a User-Mode-Linux kernel with one block device and an entropy source.
//!
//! `boot VMLINUX LIBRARIES|- INITRD|- IMAGE MODE FOLDER [WORD…]`, where MODE is `rw`, `ro` or
//! `overlay`, and FOLDER is private to the run. The kernel's console goes to stdout.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::unwrap_used,
    missing_docs
)]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use coop_driver::device::cobd::{Cobd, DiskMode, open};
use coop_driver::device::rng::Rng;
use coop_driver::engine::user::{DeviceSocket, UserOptions, start};
use coop_driver::engine::{Pin, choose_memory_folder};
use coop_driver::transport::{Device, DeviceServer, GuestProcess, ServeOptions};

const MEMORY_BYTES: u64 = 512 << 20;
const DEADLINE: Duration = Duration::from_secs(120);

fn serve(
    folder: &Path,
    name: &str,
    device: Box<dyn Device>,
    process: &GuestProcess,
) -> DeviceServer {
    let report = |name: &str, why: &str| eprintln!("device {name}: {why}");
    let options = ServeOptions {
        name: name.to_owned(),
        process: process.clone(),
        on_failure: Some(std::sync::Arc::new(report)),
    };
    DeviceServer::start(&folder.join(name), device, options).unwrap()
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut next = || {
        arguments
            .next()
            .expect("boot VMLINUX LIBRARIES INITRD IMAGE MODE FOLDER")
    };
    let optional = |text: String| (text != "-").then(|| PathBuf::from(text));
    let vmlinux = PathBuf::from(next());
    let libraries = optional(next());
    let initrd = optional(next());
    let image = PathBuf::from(next());
    let mode = next();
    let folder = PathBuf::from(next());
    let mode = match mode.as_str() {
        "rw" => DiskMode::ReadWrite {
            ignore_flush: false,
        },
        "ro" => DiskMode::ReadOnly,
        _ => DiskMode::Overlay {
            folder: folder.clone(),
        },
    };
    let process = GuestProcess::default();
    let disk = open(&image, &mode).unwrap();
    let servers = [
        serve(
            &folder,
            "cobd0",
            Box::new(Cobd::new(disk, "root")),
            &process,
        ),
        serve(&folder, "rng", Box::new(Rng), &process),
    ];
    let candidates = [PathBuf::from("/dev/shm"), PathBuf::from("/tmp")];
    let memory_folder = choose_memory_folder(&candidates, MEMORY_BYTES).unwrap();
    let devices = servers.iter().map(|server| DeviceSocket {
        socket: server.socket().to_owned(),
        device_id: server.device_id(),
    });
    let begin = Instant::now();
    let guest = start(UserOptions {
        vmlinux,
        libraries,
        initrd,
        cpus: 1,
        memory_bytes: MEMORY_BYTES,
        memory_folder,
        cmdline: arguments.collect(),
        devices: devices.collect(),
        folder,
        pin: Pin::Automatic,
        process,
        console: Some(Box::new(move |bytes| {
            let mut out = std::io::stdout().lock();
            write!(out, "{:?} ", begin.elapsed()).unwrap();
            out.write_all(bytes).unwrap();
        })),
    })
    .unwrap();
    let end = guest.wait_timeout(DEADLINE);
    if end.is_none() {
        guest.kill();
    }
    println!(
        "{:?} after {:?}, walls {:?}",
        guest.wait(),
        begin.elapsed(),
        guest.walls()
    );
    for server in servers {
        println!("{:?}", server.stop(Duration::from_secs(5)));
    }
}
