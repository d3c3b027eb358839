//! TCP both ways.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp::State;

use super::super::{
    Accept, GATEWAY, MTU_MAX, NAME_SERVER, NetBackend, Offloads, Service, TCP_BUFFER_BYTES,
    Transport, UserOptions,
};
use super::{Bench, PATIENCE, allowed, forward, options, pattern};

/// A listener on loopback that serves each connection in turn.
fn serve(
    connections: usize,
    mut each: impl FnMut(TcpStream) + Send + 'static,
) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let thread = thread::spawn(move || {
        for _ in 0..connections {
            let (stream, _) = listener.accept().unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            each(stream);
        }
    });
    (address, thread)
}

fn echo(mut stream: TcpStream) {
    let mut reader = stream.try_clone().unwrap();
    std::io::copy(&mut reader, &mut stream).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
}

/// Sends and receives in the guest until its peer has finished; returns what came.
fn exchange(bench: &mut Bench, handle: SocketHandle, payload: &[u8]) -> Vec<u8> {
    let (mut sent, mut received, mut closed) = (0, Vec::new(), false);
    bench.until("exchange", |bench| {
        let socket = bench.tcp(handle);
        if sent < payload.len() && socket.can_send() {
            sent += socket.send_slice(&payload[sent..]).unwrap();
        }
        if sent == payload.len() && !closed {
            socket.close();
            closed = true;
        }
        while socket.can_recv() {
            socket
                .recv(|bytes| (bytes.len(), received.extend_from_slice(bytes)))
                .unwrap();
        }
        closed && !socket.may_recv()
    });
    received
}

/// Lets the guest close in peace, then takes its socket away.
fn forget(bench: &mut Bench, handle: SocketHandle) {
    bench.until("the guest's end", |bench| {
        matches!(bench.tcp(handle).state(), State::Closed | State::TimeWait)
    });
    bench.sockets.remove(handle);
}

#[test]
fn echo_through_the_allowed_host() {
    let mut bench = Bench::new(allowed());
    let (address, thread) = serve(1, echo);
    let handle = bench.connect_host(address);
    assert_eq!(exchange(&mut bench, handle, b"hello"), b"hello");
    bench.until("end", |bench| bench.net.counters().tcp_flows == 0);
    thread.join().unwrap();
}

fn is_refused(options: UserOptions, address: Ipv4Addr, port: u16) -> bool {
    let mut bench = Bench::new(options);
    let handle = bench.dial(address, port);
    bench.until("answer", |bench| {
        !matches!(bench.tcp(handle).state(), State::SynSent)
    });
    let refused = bench.tcp(handle).state() == State::Closed;
    assert!(!refused || bench.net.counters().tcp_flows == 0);
    refused
}

#[test]
fn the_host_is_closed_unless_allowed() {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    assert!(is_refused(options(), GATEWAY, port));
    assert!(!is_refused(allowed(), GATEWAY, port));
    if let Some(own) = super::super::route::some_own_address() {
        assert!(is_refused(options(), own, port), "{own}");
        assert!(!is_refused(allowed(), own, port), "{own}");
    }
    listener.set_nonblocking(true).unwrap();
    let mut seen = 0;
    while listener.accept().is_ok() {
        seen += 1;
    }
    assert!(seen <= 2, "{seen} connections, of which two were allowed");
}

#[test]
fn closed_addresses_are_refused_even_when_the_host_is_allowed() {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    for address in [
        Ipv4Addr::LOCALHOST,
        Ipv4Addr::new(127, 1, 2, 3),
        Ipv4Addr::new(169, 254, 169, 254),
        Ipv4Addr::new(0, 1, 2, 3),
        Ipv4Addr::new(240, 0, 0, 1),
        Ipv4Addr::new(10, 0, 2, 99),
        NAME_SERVER,
    ] {
        // The guest's own stack would ask for the neighbour first; the default route is what a
        // hostile guest would use.
        let mut bench = Bench::new(allowed());
        bench.raw(&super::small::arp(GATEWAY));
        let frame = super::hostile::syn(address, port);
        let answers = bench.raw(&frame);
        assert_eq!(answers.len(), 1, "{address}");
        assert_eq!(answers[0][14 + 20 + 13] & 0x04, 0x04, "a reset: {address}");
        assert_eq!(bench.net.counters().tcp_flows, 0);
    }
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_err());
}

#[test]
fn a_refusal_is_passed_on() {
    // A port that was free a moment ago.
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    assert!(is_refused(allowed(), GATEWAY, port));
}

fn transfer(mut bench: Bench, bytes: usize) {
    let (address, thread) = serve(1, move |mut stream| {
        let mut writer = stream.try_clone().unwrap();
        let sender = thread::spawn(move || {
            let chunk: Vec<u8> = (0..bytes).map(pattern).collect();
            writer.write_all(&chunk).unwrap();
            writer.shutdown(Shutdown::Write).unwrap();
        });
        let mut received = Vec::new();
        stream.read_to_end(&mut received).unwrap();
        sender.join().unwrap();
        assert_eq!(received.len(), bytes);
        assert!(received.iter().enumerate().all(|(at, &b)| b == pattern(at)));
    });
    let handle = bench.connect_host(address);
    let payload: Vec<u8> = (0..bytes).map(pattern).collect();
    let received = exchange(&mut bench, handle, &payload);
    assert_eq!(received.len(), bytes);
    assert!(received == payload, "bytes differ");
    bench.until("end", |bench| bench.net.counters().tcp_flows == 0);
    thread.join().unwrap();
    assert_eq!(bench.net.counters().dropped, 0);
}

#[test]
fn fifty_megabytes_both_ways_at_once() {
    transfer(Bench::lazy(allowed()), 50 << 20);
}

#[test]
fn megabytes_through_large_frames() {
    let options = UserOptions {
        mtu: MTU_MAX,
        ..allowed()
    };
    transfer(Bench::new(options), 8 << 20);
}

#[test]
fn megabytes_through_small_frames() {
    transfer(Bench::new(allowed()), 8 << 20);
}

#[test]
fn half_close_by_the_guest_leaves_the_other_half() {
    let mut bench = Bench::new(allowed());
    let (address, thread) = serve(1, |mut stream| {
        let mut asked = Vec::new();
        stream.read_to_end(&mut asked).unwrap();
        assert_eq!(asked, b"question");
        thread::sleep(Duration::from_millis(50));
        stream.write_all(b"a late answer").unwrap();
    });
    let handle = bench.connect_host(address);
    assert_eq!(exchange(&mut bench, handle, b"question"), b"a late answer");
    thread.join().unwrap();
}

#[test]
fn half_close_by_the_host_leaves_the_other_half() {
    let mut bench = Bench::new(allowed());
    let (address, thread) = serve(1, |mut stream| {
        stream.write_all(b"greeting").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        assert_eq!(answer, b"answer");
    });
    let handle = bench.connect_host(address);
    bench.until("the host's end", |bench| {
        bench.tcp(handle).state() == State::CloseWait
    });
    bench.linger(Duration::from_millis(20));
    assert_eq!(exchange(&mut bench, handle, b"answer"), b"greeting");
    bench.until("end", |bench| bench.net.counters().tcp_flows == 0);
    thread.join().unwrap();
}

#[test]
fn a_reset_by_the_guest_reaches_the_host() {
    let mut bench = Bench::new(allowed());
    let (address, thread) = serve(1, |mut stream| {
        let error = stream.read(&mut [0; 16]).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    });
    let handle = bench.connect_host(address);
    bench.tcp(handle).abort();
    bench.until("end", |bench| bench.net.counters().tcp_flows == 0);
    thread.join().unwrap();
}

#[test]
fn a_reset_by_the_host_reaches_the_guest() {
    let mut bench = Bench::new(allowed());
    let (address, thread) = serve(1, |stream| {
        rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
    });
    let handle = bench.connect_host(address);
    bench.until("reset", |bench| bench.tcp(handle).state() == State::Closed);
    bench.until("end", |bench| bench.net.counters().tcp_flows == 0);
    thread.join().unwrap();
}

#[test]
fn a_guest_that_starts_anew_leaves_nothing() {
    let mut bench = Bench::new(allowed());
    let (address, thread) = serve(1, |mut stream| {
        assert!(stream.read(&mut [0; 16]).is_err());
    });
    bench.connect_host(address);
    assert_eq!(bench.net.counters().tcp_flows, 1);
    bench.net.reset(Offloads::default());
    assert_eq!(bench.net.counters().tcp_flows, 0);
    assert!(bench.net.frame().is_none());
    thread.join().unwrap();
}

#[test]
fn a_host_that_does_not_read_closes_the_guests_window() {
    let mut bench = Bench::new(allowed());
    let total = 16 << 20;
    let (release, wait) = std::sync::mpsc::channel::<()>();
    let (address, thread) = serve(1, move |mut stream| {
        wait.recv().unwrap();
        let mut count = 0;
        let mut buffer = vec![0; 1 << 16];
        loop {
            match stream.read(&mut buffer).unwrap() {
                0 => break,
                read => {
                    for &byte in &buffer[..read] {
                        assert_eq!(byte, pattern(count));
                        count += 1;
                    }
                }
            }
        }
        assert_eq!(count, total);
    });
    let handle = bench.connect_host(address);
    let payload: Vec<u8> = (0..total).map(pattern).collect();
    let mut sent = 0;
    let mut push = |bench: &mut Bench| {
        let socket = bench.tcp(handle);
        if sent < payload.len() && socket.can_send() {
            sent += socket.send_slice(&payload[sent..]).unwrap();
        }
        sent
    };
    for _ in 0..300 {
        push(&mut bench);
        if !bench.step() {
            thread::sleep(Duration::from_millis(1));
        }
    }
    // What the kernel's socket buffers take is the host's business; the rest waits in the guest.
    let stuck = push(&mut bench);
    assert!(stuck < total, "all {stuck} bytes were taken");
    release.send(()).unwrap();
    bench.until("transfer", |bench| push(bench) == total);
    bench.tcp(handle).close();
    bench.until("end", |bench| bench.net.counters().tcp_flows == 0);
    thread.join().unwrap();
}

#[test]
fn a_guest_that_does_not_read_closes_the_hosts_window() {
    let mut bench = Bench::new(allowed());
    let total = 8 << 20;
    let (address, thread) = serve(1, move |mut stream| {
        let payload: Vec<u8> = (0..total).map(pattern).collect();
        stream.write_all(&payload).unwrap();
    });
    let handle = bench.connect_host(address);
    bench.until("a full window", |bench| {
        bench.tcp(handle).recv_queue() == TCP_BUFFER_BYTES
    });
    bench.linger(Duration::from_millis(50));
    // One window in the guest and one here, not eight megabytes of frames.
    assert_eq!(bench.tcp(handle).recv_queue(), TCP_BUFFER_BYTES);
    assert!(bench.port.incoming.is_empty());
    bench.appetite = 3;
    let received = exchange(&mut bench, handle, b"");
    assert_eq!(received.len(), total);
    assert!(received.iter().enumerate().all(|(at, &b)| b == pattern(at)));
    thread.join().unwrap();
}

#[test]
fn thousands_of_short_connections_leave_nothing() {
    let mut bench = Bench::new(allowed());
    let (rounds, batch) = (60, 50);
    let (address, thread) = serve(rounds * batch, |mut stream| {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        stream.write_all(&byte).unwrap();
    });
    for _ in 0..rounds {
        let handles: Vec<_> = (0..batch)
            .map(|_| bench.dial(GATEWAY, address.port()))
            .collect();
        for handle in handles {
            bench.until("connect", |bench| bench.tcp(handle).may_send());
            assert_eq!(exchange(&mut bench, handle, b"x"), b"x");
            forget(&mut bench, handle);
        }
    }
    bench.until("end", |bench| bench.net.counters().tcp_flows == 0);
    assert_eq!(bench.net.timers(), 0);
    thread.join().unwrap();
}

#[test]
fn a_forward_leads_into_the_guest() {
    let mut bench = Bench::new(UserOptions {
        forwards: vec![forward(Transport::Tcp, 22)],
        ..options()
    });
    let port = bench.bound[0].host_port;
    bench.raw(&super::small::arp(GATEWAY));
    let handle = bench.listen(22);
    let client = thread::spawn(move || {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        stream.write_all(b"client").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        answer
    });
    bench.until("connection", |bench| bench.tcp(handle).may_send());
    let remote = bench.tcp(handle).remote_endpoint().unwrap();
    assert_eq!(remote.addr, GATEWAY.into());
    assert_eq!(exchange(&mut bench, handle, b"guest"), b"client");
    bench.until("end", |bench| bench.net.counters().tcp_flows == 0);
    assert_eq!(client.join().unwrap(), b"guest");
}

#[test]
fn whoever_connects_before_the_guest_is_there_waits() {
    let mut bench = Bench::new(UserOptions {
        forwards: vec![forward(Transport::Tcp, 22)],
        ..options()
    });
    let port = bench.bound[0].host_port;
    let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    client.write_all(b"early").unwrap();
    bench.linger(Duration::from_millis(50));
    // The guest's driver starts, then the guest listens and is first heard of by a ping.
    bench.net.reset(Offloads::default());
    let handle = bench.listen(22);
    bench.net.transmit(&super::small::ping(GATEWAY));
    bench.until("connection", |bench| bench.tcp(handle).recv_queue() == 5);
}

#[test]
fn a_forward_to_a_closed_port_is_reset() {
    let mut bench = Bench::new(UserOptions {
        forwards: vec![forward(Transport::Tcp, 22)],
        ..options()
    });
    let port = bench.bound[0].host_port;
    bench.raw(&super::small::arp(GATEWAY));
    let client = thread::spawn(move || {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        stream.read(&mut [0; 8]).unwrap_err().kind()
    });
    bench.until("refusal", |_| client.is_finished());
    assert_eq!(client.join().unwrap(), std::io::ErrorKind::ConnectionReset);
    assert_eq!(bench.net.counters().tcp_flows, 0);
}

#[test]
fn groups_get_no_answer() {
    let mut bench = Bench::new(allowed());
    bench.raw(&super::small::arp(GATEWAY));
    for address in [Ipv4Addr::new(224, 0, 0, 1), Ipv4Addr::BROADCAST] {
        assert!(bench.raw(&super::hostile::syn(address, 80)).is_empty());
    }
}

#[test]
fn forwards_are_bound_to_loopback_only() {
    let bench = Bench::new(UserOptions {
        forwards: vec![forward(Transport::Tcp, 22)],
        ..options()
    });
    let port = bench.bound[0].host_port;
    if let Some(own) = super::super::route::some_own_address() {
        assert!(TcpStream::connect((own, port)).is_err(), "{own}");
    }
}

#[test]
fn names_travel_over_tcp_to_the_next_server_that_answers() {
    let (address, thread) = serve(1, echo);
    let dead = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .unwrap()
        .local_addr()
        .unwrap();
    let mut bench = Bench::new(UserOptions {
        resolvers: vec![dead, address],
        ..options()
    });
    let handle = bench.dial(NAME_SERVER, 53);
    bench.until("connect", |bench| bench.tcp(handle).may_send());
    assert_eq!(exchange(&mut bench, handle, b"\0\x02hi"), b"\0\x02hi");
    thread.join().unwrap();
}

#[test]
fn an_idle_connection_wakes_nobody() {
    let mut bench = Bench::new(allowed());
    let (release, wait) = std::sync::mpsc::channel::<()>();
    let (address, thread) = serve(1, move |mut stream| {
        stream.write_all(b"hello").unwrap();
        wait.recv().unwrap();
    });
    let handle = bench.connect_host(address);
    bench.until("hello", |bench| bench.tcp(handle).recv_queue() == 5);
    bench.linger(Duration::from_millis(50));
    assert_eq!(bench.net.timers(), 0, "no timer runs");
    assert!(!bench.rest(Duration::from_millis(300)), "nothing wakes it");
    release.send(()).unwrap();
    assert!(bench.rest(PATIENCE), "the host's end does");
    thread.join().unwrap();
}

#[test]
fn a_service_is_reached_without_a_port_of_the_host() {
    let accept: Accept = Arc::new(|mut stream: UnixStream| {
        std::thread::spawn(move || {
            let mut bytes = [0; 1000];
            while let Ok(count @ 1..) = stream.read(&mut bytes) {
                stream.write_all(&bytes[..count]).unwrap();
            }
        });
    });
    let mut bench = Bench::new(UserOptions {
        restricted: true,
        services: vec![Service { port: 3142, accept }],
        ..options()
    });
    let handle = bench.dial(GATEWAY, 3142);
    let payload: Vec<u8> = (0..300_000).map(pattern).collect();
    assert_eq!(exchange(&mut bench, handle, &payload), payload);
    forget(&mut bench, handle);
    for (address, port) in [(GATEWAY, 80), (Ipv4Addr::new(198, 51, 100, 7), 80)] {
        let restricted = UserOptions {
            restricted: true,
            ..allowed()
        };
        assert!(is_refused(restricted, address, port));
    }
}
