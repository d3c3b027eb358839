use std::io::{Read, Write};
use std::thread;
use std::time::Duration;

use super::control::{Event, Message};
use super::*;
use crate::transport::mock::{Bench, bench};

const SHORT: Duration = Duration::from_millis(50);

fn start() -> (Bench, CoconStreams) {
    let (device, streams) = Cocon::new(CoconOptions {
        columns: 80,
        rows: 25,
        port_name: "the.agent".to_owned(),
    });
    (bench(device), streams)
}

fn say(bench: &mut Bench, port: u32, event: Event, value: u16) {
    let bytes = Message { port, event, value }.to_bytes();
    assert_eq!(bench.guest.call(CONTROL_TRANSMIT, &[&bytes], &[]).0, 0);
}

/// Gives room for one control message and waits for it.
fn hear(bench: &mut Bench) -> (Message, Vec<u8>) {
    let (used, answers) = bench.guest.call(CONTROL_RECEIVE, &[], &[64]);
    let bytes = &answers[0][..usize::try_from(used).unwrap()];
    let (head, more) = bytes.split_first_chunk().unwrap();
    (Message::parse(head).unwrap(), more.to_vec())
}

/// What Linux does when it finds the device.
fn set_up(bench: &mut Bench) {
    say(bench, 0, Event::DeviceReady, 1);
    for port in [0, 1] {
        let (message, _) = hear(bench);
        assert_eq!((message.port, message.event), (port, Event::PortAdd));
    }
    say(bench, 0, Event::PortReady, 1);
    assert_eq!(hear(bench).0.event, Event::ConsolePort);
    assert_eq!(hear(bench).0.event, Event::PortOpen);
    let (message, size) = hear(bench);
    assert_eq!((message.event, size), (Event::Resize, vec![80, 0, 25, 0]));
    say(bench, 1, Event::PortReady, 1);
    let (message, name) = hear(bench);
    assert_eq!(
        (message.event, name),
        (Event::PortName, b"the.agent".to_vec())
    );
    let (message, _) = hear(bench);
    assert_eq!((message.event, message.value), (Event::PortOpen, 1));
    say(bench, 0, Event::PortOpen, 1);
    say(bench, 1, Event::PortOpen, 1);
}

fn read_exactly(reader: &mut PortReader, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    reader.read_exact(&mut bytes).unwrap();
    bytes
}

#[test]
fn a_driver_finds_a_console_and_a_named_port() {
    let (mut bench, streams) = start();
    assert_eq!(
        bench.guest.config(12),
        [80, 0, 25, 0, 2, 0, 0, 0, 0, 0, 0, 0]
    );
    set_up(&mut bench);
    streams.resizer.resize(132, 50);
    let (message, size) = hear(&mut bench);
    assert_eq!((message.event, size), (Event::Resize, vec![132, 0, 50, 0]));
    assert_eq!(bench.stop().malformed, 0);
}

#[test]
fn bytes_go_both_ways_on_both_ports() {
    let (mut bench, mut streams) = start();
    set_up(&mut bench);
    for (index, (receive, transmit)) in PORT_QUEUES.into_iter().enumerate() {
        let (reader, writer) = match index {
            0 => (&mut streams.console_output, &mut streams.console_input),
            _ => (&mut streams.port_output, &mut streams.port_input),
        };
        assert_eq!(bench.guest.call(transmit, &[b"hel", b"lo"], &[]).0, 0);
        assert_eq!(read_exactly(reader, 5), b"hello");
        // Input before room, and room before input.
        writer.write_all(b"abc").unwrap();
        let (used, answers) = bench.guest.call(receive, &[], &[2]);
        assert_eq!((used, &answers[0][..]), (2, &b"ab"[..]));
        let (used, answers) = bench.guest.call(receive, &[], &[2]);
        assert_eq!((used, answers[0][0]), (1, b'c'));
        let room = bench.guest.allocate(8);
        bench.guest.offer_chain(receive, &[(room, 8, true)]);
        assert_eq!(bench.guest.wait_for(receive, SHORT), None);
        writer.write_all(b"late").unwrap();
        assert_eq!(bench.guest.wait(receive).1, 4);
        assert_eq!(bench.guest.read(room, 4), b"late");
    }
    bench.stop();
}

#[test]
fn input_waits_until_the_guest_has_opened_the_port() {
    let (mut bench, mut streams) = start();
    let room = bench.guest.allocate(8);
    bench.guest.offer_chain(4, &[(room, 8, true)]);
    streams.port_input.write_all(b"early").unwrap();
    assert_eq!(bench.guest.wait_for(4, SHORT), None);
    set_up(&mut bench);
    assert_eq!(bench.guest.wait(4).1, 5);
    bench.stop();
}

#[test]
fn output_that_nobody_reads_stays_with_the_guest() {
    let (mut bench, mut streams) = start();
    set_up(&mut bench);
    let size = 60_000_u32;
    let length = usize::try_from(size).unwrap();
    let address = bench.guest.store(&vec![7; length]);
    for _ in 0..10 {
        bench.guest.offer_chain(5, &[(address, size, false)]);
    }
    let mut done = 0;
    while bench.guest.wait_for(5, SHORT).is_some() {
        done += 1;
    }
    // 256 KiB hold four of them, and a part of the fifth.
    assert_eq!(done, 4);
    assert_eq!(
        read_exactly(&mut streams.port_output, 10 * length),
        vec![7; 10 * length]
    );
    for _ in done..10 {
        bench.guest.wait(5);
    }
    bench.stop();
}

#[test]
fn output_without_a_reader_is_thrown_away() {
    let (mut bench, streams) = start();
    set_up(&mut bench);
    let address = bench.guest.store(&[1; 4096]);
    drop(streams.console_output);
    for _ in 0..400 {
        bench.guest.offer_chain(1, &[(address, 4096, false)]);
        bench.guest.wait(1);
    }
    bench.stop();
}

#[test]
fn a_writer_waits_for_room_and_ends_with_the_guest() {
    let (bench, mut streams) = start();
    let writer = thread::spawn(move || streams.port_input.write_all(&vec![0; 1 << 20]));
    thread::sleep(SHORT);
    assert!(!writer.is_finished());
    let mut output = streams.port_output;
    let reader = thread::spawn(move || output.read(&mut [0; 16]));
    bench.stop();
    let error = writer.join().unwrap().unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe);
    assert_eq!(reader.join().unwrap().unwrap(), 0);
}

#[test]
fn a_port_that_the_guest_closes_ends_the_streams() {
    let (mut bench, mut streams) = start();
    set_up(&mut bench);
    bench.guest.call(5, &[b"last words"], &[]);
    say(&mut bench, 1, Event::PortOpen, 0);
    let mut all = Vec::new();
    streams.port_output.read_to_end(&mut all).unwrap();
    assert_eq!(all, b"last words");
    assert!(streams.port_input.write(b"x").is_err());
    bench.stop();
}

#[test]
fn nonsense_neither_kills_nor_fills_the_device() {
    let (mut bench, mut streams) = start();
    assert_eq!(bench.guest.call(CONTROL_TRANSMIT, &[b"short"], &[]).0, 0);
    assert_eq!(bench.guest.call(CONTROL_TRANSMIT, &[&[0xff; 8]], &[]).0, 0);
    assert_eq!(bench.guest.call(CONTROL_TRANSMIT, &[], &[8]).0, 0);
    say(&mut bench, 77, Event::PortReady, 1);
    say(&mut bench, 1, Event::PortReady, 0);
    for _ in 0..200 {
        say(&mut bench, 0, Event::DeviceReady, 1);
    }
    // Room that is too small for a message, wrong directions, empty chains.
    assert_eq!(bench.guest.call(CONTROL_RECEIVE, &[], &[4]).0, 0);
    assert_eq!(bench.guest.call(1, &[], &[16]).0, 0);
    say(&mut bench, 1, Event::PortOpen, 1);
    streams.port_input.write_all(b"x").unwrap();
    assert_eq!(bench.guest.call(4, &[b"y"], &[]).0, 0);
    assert_eq!(bench.guest.call(4, &[], &[16]).0, 1);
    let report = bench.stop();
    assert_eq!(report.malformed, 5);
    assert!(report.failed >= 100);
}
