//! The transport against a mock guest, friendly and hostile.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::mock::{INDIRECT, MockGuest, NEXT, RING_SIZE, SHARED_BASE, SHARED_BYTES, WRITE, bench};
use super::{Chain, Device, GuestImage, Queues, Waker};

/// Echoes what it reads on queue 0; on queue 1 it keeps chains and fills one at each wake.
#[derive(Default)]
struct Echo {
    kept: Vec<Chain>,
    waker: Arc<Mutex<Option<Waker>>>,
}

impl Device for Echo {
    fn device_id(&self) -> u32 {
        42
    }

    fn queue_count(&self) -> usize {
        2
    }

    fn config(&self) -> Vec<u8> {
        b"config".to_vec()
    }

    fn attach(&mut self, waker: Waker) {
        *self.waker.lock().unwrap() = Some(waker);
    }

    fn process(&mut self, queue: usize, queues: &mut Queues) {
        if queue == 1 {
            return;
        }
        while let Some(chain) = queues.pop(queue) {
            let Ok(bytes) = chain.readable().to_vec() else {
                queues.count_failure();
                queues.complete(chain, 0);
                continue;
            };
            let count = bytes.len().min(chain.writable().len());
            match chain.writable().copy_from(&bytes[..count]) {
                Ok(()) => queues.complete(chain, count),
                Err(_) => queues.refuse(chain),
            }
        }
    }

    fn wake(&mut self, queues: &mut Queues) {
        self.kept.extend(queues.pop(1));
        if let Some(chain) = self.kept.pop() {
            chain.writable().copy_from(b"hello").unwrap();
            queues.complete(chain, 5);
        }
    }

    fn stopped(&mut self, _queue: usize) {
        self.kept.clear();
    }
}

#[test]
fn bytes_come_back_over_any_scattering() {
    let mut bench = bench(Echo::default());
    assert_eq!(bench.guest.config(8), b"config\0\0");
    let (used, answers) = bench.guest.call(0, &[b"abc", b"", b"defgh"], &[2, 4, 10]);
    assert_eq!(used, 8);
    assert_eq!(answers[0], b"ab");
    assert_eq!(answers[1], b"cdef");
    assert_eq!(&answers[2][..2], b"gh");
    for round in 0..600u32 {
        let text = round.to_le_bytes();
        let (used, answers) = bench.guest.call(0, &[&text], &[4]);
        assert_eq!((used, answers[0].as_slice()), (4, text.as_slice()));
    }
    assert!(bench.guest.interrupted(0));
    let report = bench.stop();
    assert_eq!(
        (report.requests, report.malformed, report.failed),
        (601, 0, 0)
    );
}

#[test]
fn a_backend_wakes_its_device() {
    let waker = Arc::new(Mutex::new(None));
    let mut bench = bench(Echo {
        kept: Vec::new(),
        waker: Arc::clone(&waker),
    });
    let waker = waker.lock().unwrap().clone().unwrap();
    for _ in 0..3 {
        let room = bench.guest.allocate(16);
        bench.guest.offer_chain(1, &[(room, 16, true)]);
        assert!(bench.guest.wait_for(1, Duration::from_millis(20)).is_none());
        waker.wake();
        assert_eq!(bench.guest.wait(1).1, 5);
        assert_eq!(bench.guest.read(room, 5), b"hello");
    }
    bench.stop();
}

/// Puts descriptors at index 0 and on, offers head 0, and expects length 0 and a count.
fn expect_malformed(bench: &mut super::mock::Bench, what: &str, table: &[[u8; 16]]) {
    let before = bench.report().malformed;
    for (index, descriptor) in table.iter().enumerate() {
        bench
            .guest
            .set_descriptor(0, u16::try_from(index).unwrap(), *descriptor);
    }
    bench.guest.offer(0, 0);
    assert_eq!(bench.guest.wait(0), (0, 0), "{what}");
    assert_eq!(bench.report().malformed, before + 1, "{what}");
}

#[test]
fn hostile_chains_are_completed_empty_and_counted() {
    let mut bench = bench(Echo::default());
    let good = bench.guest.allocate(4096);
    let end = SHARED_BASE + SHARED_BYTES;
    let d = MockGuest::descriptor;
    let nested = bench.guest.store(&d(good, 16, INDIRECT, 0));
    let cases: &[(&str, &[[u8; 16]])] = &[
        ("loop", &[d(good, 4, NEXT, 0)]),
        ("empty loop", &[d(good, 0, NEXT, 1), d(good, 0, NEXT, 0)]),
        ("next out of range", &[d(good, 4, NEXT, RING_SIZE)]),
        ("address outside", &[d(end, 4, 0, 0)]),
        ("length over the end", &[d(end - 2, 4, 0, 0)]),
        ("address wraps", &[d(u64::MAX - 1, 4, 0, 0)]),
        ("huge length", &[d(good, u32::MAX, 0, 0)]),
        ("across the image's end", &[d(SHARED_BASE - 2, 4, 0, 0)]),
        (
            "readable after writable",
            &[d(good, 4, WRITE | NEXT, 1), d(good, 4, 0, 0)],
        ),
        ("indirect in indirect", &[d(nested, 16, INDIRECT, 0)]),
        ("indirect of odd length", &[d(nested, 17, INDIRECT, 0)]),
        ("indirect of no length", &[d(nested, 0, INDIRECT, 0)]),
        ("indirect outside", &[d(end - 8, 16, INDIRECT, 0)]),
        ("indirect huge", &[d(good, 0xffff_fff0, INDIRECT, 0)]),
        (
            "indirect with next",
            &[d(nested, 16, INDIRECT | NEXT, 1), d(good, 4, 0, 0)],
        ),
        (
            "indirect later on",
            &[d(good, 4, NEXT, 1), d(nested, 16, INDIRECT, 0)],
        ),
    ];
    for (what, table) in cases {
        expect_malformed(&mut bench, what, table);
    }
    // A head that is no descriptor cannot be given back; the ring goes on all the same.
    let malformed = bench.report().malformed;
    bench.guest.offer(0, RING_SIZE + 7);
    let (used, answers) = bench.guest.call(0, &[b"still"], &[5]);
    assert_eq!((used, answers[0].as_slice()), (5, b"still".as_slice()));
    assert_eq!(bench.report().malformed, malformed + 1);
    bench.stop();
}

#[test]
fn indirect_tables_are_followed() {
    let mut bench = bench(Echo::default());
    let text = bench.guest.store(b"indirect");
    let room = bench.guest.allocate(8);
    let mut table = MockGuest::descriptor(text, 8, NEXT, 1).to_vec();
    table.extend(MockGuest::descriptor(room, 8, WRITE, 0));
    let table = bench.guest.store(&table);
    bench
        .guest
        .set_descriptor(0, 0, MockGuest::descriptor(table, 32, INDIRECT, 0));
    bench.guest.offer(0, 0);
    assert_eq!(bench.guest.wait(0), (0, 8));
    assert_eq!(bench.guest.read(room, 8), b"indirect");
    bench.stop();
}

#[test]
fn the_kernel_image_is_refused_without_a_process() {
    let mut bench = bench(Echo::default());
    bench.guest.offer_chain(0, &[(4096, 8, false)]);
    assert_eq!(bench.guest.wait(0).1, 0);
    let report = bench.report();
    assert_eq!(
        (report.unreachable, report.failed, report.malformed),
        (1, 1, 0)
    );
    // This process itself is no guest.
    bench.process.set(GuestImage {
        process_id: std::process::id(),
        base: 0,
    });
    bench.guest.offer_chain(0, &[(4096, 8, false)]);
    assert_eq!(bench.guest.wait(0).1, 0);
    assert_eq!(bench.stop().unreachable, 2);
}

#[test]
fn the_kernel_image_is_copied_through_its_process() {
    let mut child = std::process::Command::new("sleep")
        .arg("60")
        .spawn()
        .unwrap();
    let maps = format!("/proc/{}/maps", child.id());
    let mut start = None;
    while start.is_none() {
        // The first mapping after exec is the program's own, which begins as ELF files do.
        let text = std::fs::read_to_string(&maps).unwrap();
        let line = text
            .lines()
            .find(|line| line.ends_with("/sleep") || line.ends_with("/coreutils"));
        start = line.and_then(|line| u64::from_str_radix(line.split('-').next().unwrap(), 16).ok());
    }
    let mut bench = bench(Echo::default());
    let base = start.unwrap() - 0x3000;
    bench.process.set(GuestImage {
        process_id: child.id(),
        base,
    });
    let text = bench.guest.store(b"head");
    let tail = bench.guest.store(b"tail");
    let room = bench.guest.allocate(12);
    let parts = [
        (text, 4, false),
        (0x3000, 4, false),
        (tail, 4, false),
        (room, 12, true),
    ];
    bench.guest.offer_chain(0, &parts);
    assert_eq!(bench.guest.wait(0).1, 12);
    assert_eq!(bench.guest.read(room, 12), b"head\x7fELFtail");
    bench.process.clear();
    bench.guest.offer_chain(0, &parts);
    assert_eq!(bench.guest.wait(0).1, 0);
    child.kill().unwrap();
    child.wait().unwrap();
    let report = bench.stop();
    assert_eq!((report.image, report.unreachable), (2, 1));
}

#[test]
fn a_senseless_ring_is_given_up_alone() {
    let mut bench = bench(Echo::default());
    bench.guest.set_available_index(0, 5000);
    assert!(bench.guest.wait_for(0, Duration::from_millis(50)).is_none());
    assert_eq!(bench.report().broken_rings, 1);
    let waker_queue = bench.guest.allocate(8);
    bench.guest.offer_chain(1, &[(waker_queue, 8, true)]);
    bench.stop();
}

#[test]
fn a_ring_stops_and_starts_where_it_was() {
    use vhost::VhostBackend;
    use vhost::vhost_user::VhostUserFrontend;
    let mut bench = bench(Echo::default());
    bench.guest.call(0, &[b"one"], &[3]);
    bench.guest.frontend.set_vring_enable(0, false).unwrap();
    // The question is answered after the message before it was carried out.
    bench.guest.frontend.get_features().unwrap();
    let text = bench.guest.store(b"two");
    bench.guest.offer_chain(0, &[(text, 3, false)]);
    assert!(bench.guest.wait_for(0, Duration::from_millis(20)).is_none());
    bench.guest.frontend.set_vring_enable(0, true).unwrap();
    bench.guest.wait(0);
    assert_eq!(bench.guest.frontend.get_vring_base(0).unwrap(), 2);
    bench.stop();
}

struct Clumsy;

impl Device for Clumsy {
    fn device_id(&self) -> u32 {
        42
    }

    fn queue_count(&self) -> usize {
        1
    }

    fn process(&mut self, _queue: usize, _queues: &mut Queues) {
        panic!("clumsy");
    }
}

#[test]
fn a_panic_is_reported_and_stops() {
    let mut bench = bench(Clumsy);
    let start = std::time::Instant::now();
    while bench.failures.lock().unwrap().is_empty() && start.elapsed() < super::mock::PATIENCE {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(*bench.failures.lock().unwrap(), ["its thread panicked"]);
    bench
        .server
        .take()
        .unwrap()
        .stop(super::mock::PATIENCE)
        .unwrap();
}

#[test]
fn a_server_stops_without_a_guest() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("s");
    let options = super::ServeOptions {
        name: "idle".to_owned(),
        process: super::GuestProcess::default(),
        on_failure: None,
    };
    let server = super::DeviceServer::start(&socket, Box::new(Echo::default()), options).unwrap();
    assert!(socket.exists());
    server.stop(Duration::from_secs(5)).unwrap();
    assert!(!socket.exists());
}

/// A server without a guest, and its socket.
fn server() -> (tempfile::TempDir, super::DeviceServer) {
    let folder = tempfile::tempdir().unwrap();
    let options = super::ServeOptions {
        name: "hostile".to_owned(),
        process: super::GuestProcess::default(),
        on_failure: None,
    };
    let socket = folder.path().join("s");
    let server = super::DeviceServer::start(&socket, Box::new(Echo::default()), options).unwrap();
    (folder, server)
}

/// A control message: request, flags, size and body.
fn message(request: u32, body: &[u8]) -> Vec<u8> {
    let size = u32::try_from(body.len()).unwrap();
    [
        &request.to_le_bytes(),
        &1u32.to_le_bytes(),
        &size.to_le_bytes(),
        body,
    ]
    .concat()
}

#[test]
fn senseless_control_messages_do_no_harm() {
    use std::io::Write;
    let mut messages: Vec<Vec<u8>> = vec![
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        vec![0xff; 4096],
        vec![0; 12],
        message(1, &[])[..5].to_vec(),
    ];
    // Every request with no body, with zeroes, and with ones.
    for request in 0..50 {
        for body in [
            vec![],
            vec![0; 8],
            vec![0xff; 8],
            vec![0; 40],
            vec![0xff; 40],
            vec![1; 300],
        ] {
            messages.push(message(request, &body));
        }
    }
    for chunk in messages.chunks(16) {
        let (_folder, server) = server();
        let mut stream = std::os::unix::net::UnixStream::connect(server.socket()).unwrap();
        for bytes in chunk {
            // The server may have given the connection up.
            let _ = stream.write_all(bytes);
        }
        server.stop(super::mock::PATIENCE).unwrap();
    }
}

#[test]
fn memory_that_is_not_there_is_refused() {
    use std::os::fd::AsRawFd;
    use vhost::vhost_user::{Frontend, VhostUserFrontend};
    use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
    let (_folder, server) = server();
    let mut frontend = Frontend::connect(server.socket(), 2).unwrap();
    let features = frontend.get_features().unwrap();
    frontend.set_owner().unwrap();
    frontend.set_features(features).unwrap();
    let protocol = frontend.get_protocol_features().unwrap();
    frontend.set_protocol_features(protocol).unwrap();
    frontend.set_hdr_flags(vhost::vhost_user::message::VhostUserHeaderFlag::NEED_REPLY);
    let file = tempfile::tempfile().unwrap();
    file.set_len(1 << 20).unwrap();
    let region = |start: u64, size: u64, offset: u64| VhostUserMemoryRegionInfo {
        guest_phys_addr: start,
        memory_size: size,
        userspace_addr: start,
        mmap_offset: offset,
        mmap_handle: file.as_raw_fd(),
    };
    let (page, all) = (4096, 1 << 20);
    for regions in [vec![region(0, all + page, 0)], vec![region(0, all, page)]] {
        assert!(frontend.set_mem_table(&regions).is_err());
    }
    frontend.set_mem_table(&[region(all, all, 0)]).unwrap();
    let rings = |descriptors, available, used| VringConfigData {
        queue_max_size: 256,
        queue_size: 256,
        flags: 0,
        desc_table_addr: descriptors,
        avail_ring_addr: available,
        used_ring_addr: used,
        log_addr: None,
    };
    assert!(frontend.set_vring_addr(0, &rings(0, all, all)).is_err());
    assert!(
        frontend
            .set_vring_addr(0, &rings(all, 3 * all, all))
            .is_err()
    );
    for size in [0, 3, 512, u16::MAX] {
        assert!(frontend.set_vring_num(0, size).is_err(), "{size}");
    }
    // Rings that begin inside and end outside are never served.
    let kick = vmm_sys_util::eventfd::EventFd::new(0).unwrap();
    let last = 2 * all - 16;
    frontend
        .set_vring_addr(0, &rings(last, last, last))
        .unwrap();
    // It is refused here, or when the ring is looked at.
    let _ = frontend.set_vring_kick(0, &kick);
    let _ = frontend.set_vring_enable(0, true);
    kick.write(1).unwrap();
    frontend.set_vring_enable(0, false).unwrap();
    assert!(frontend.get_features().is_ok());
    // What is no message at all ends the connection instead of leaving the guest waiting.
    let unaligned = rings(all + 1, all + 1, all + 1);
    assert!(frontend.set_vring_addr(0, &unaligned).is_err());
    assert!(frontend.get_features().is_err());
    assert_eq!(server.stop(super::mock::PATIENCE).unwrap().requests, 0);
}
