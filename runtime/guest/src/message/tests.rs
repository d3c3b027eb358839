use super::*;
use crate::frame::{Decoder, HEADER_SIZE, REPLY_MAX, REQUEST_MAX};

fn requests() -> Vec<Request<'static>> {
    let id = ExecId(0x0102_0304);
    let size = Size {
        columns: 80,
        rows: 25,
    };
    vec![
        Request::Exec {
            id,
            exec: Exec {
                argv: vec![
                    b"sh".to_vec(),
                    b"-c".to_vec(),
                    b"exit \xff".to_vec(),
                    vec![],
                ],
                environment: vec![(b"A".to_vec(), b"b=c".to_vec())],
                folder: Some(b"/srv".to_vec()),
                user: Some(User {
                    uid: 65534,
                    gid: 65535,
                    groups: vec![1, 2],
                }),
                input: Input::Terminal(size),
                files: vec![TransientFile {
                    path: b"/run/a".to_vec(),
                    mode: 0o400,
                    content: b"secret\0".to_vec(),
                }],
            },
        },
        Request::Exec {
            id,
            exec: Exec {
                argv: vec![b"true".to_vec()],
                environment: vec![],
                folder: None,
                user: None,
                input: Input::Pipe,
                files: vec![],
            },
        },
        Request::Stdin { id, data: b"data" },
        Request::StdinEnd { id },
        Request::Credit {
            id,
            output: Output::Stderr,
            bytes: 4096,
        },
        Request::CloseOutput {
            id,
            output: Output::Stdout,
        },
        Request::Signal { id, signal: 15 },
        Request::Resize { id, size },
        Request::Shutdown,
        Request::Bye,
    ]
}

fn replies() -> Vec<Reply<'static>> {
    let id = ExecId(7);
    let boot_us = 123_456;
    vec![
        Reply::Hello {
            version: VERSION,
            boot_us,
        },
        Reply::Phase {
            phase: Phase::Root,
            boot_us,
        },
        Reply::Failed { text: "no root" },
        Reply::Warning { text: "größe" },
        Reply::Started { id },
        Reply::Refused { id, text: "busy" },
        Reply::Output {
            id,
            output: Output::Stdout,
            data: b"\0\xff",
        },
        Reply::Credit { id, bytes: 9 },
        Reply::StdinClosed { id },
        Reply::Exited {
            id,
            exit: Exit::Code(7),
        },
        Reply::Exited {
            id,
            exit: Exit::Signal(9),
        },
        Reply::Stopped {
            clean: false,
            text: "busy: /srv",
        },
    ]
}

fn request_bytes(request: &Request<'_>) -> Vec<u8> {
    let mut buffer = Vec::new();
    request.append_to(&mut buffer);
    buffer
}

fn reply_bytes(reply: &Reply<'_>) -> Vec<u8> {
    let mut buffer = Vec::new();
    reply.append_to(&mut buffer);
    buffer
}

#[test]
fn every_message_reads_back() {
    for request in requests() {
        let bytes = request_bytes(&request);
        assert_eq!(Request::decode(&bytes[HEADER_SIZE..]).unwrap(), request);
    }
    for reply in replies() {
        let bytes = reply_bytes(&reply);
        assert_eq!(Reply::decode(&bytes[HEADER_SIZE..]).unwrap(), reply);
    }
}

#[test]
fn the_encoding_is_pinned() {
    let exited = Reply::Exited {
        id: ExecId(7),
        exit: Exit::Code(3),
    };
    assert_eq!(reply_bytes(&exited), [7, 0, 0, 0, 0x8a, 7, 0, 0, 0, 0, 3]);
    let signal = Request::Signal {
        id: ExecId(1),
        signal: 2,
    };
    assert_eq!(request_bytes(&signal), [6, 0, 0, 0, 5, 1, 0, 0, 0, 2]);
}

#[test]
fn cut_and_changed_messages_never_panic() {
    let bodies = requests()
        .iter()
        .map(request_bytes)
        .chain(replies().iter().map(reply_bytes))
        .collect::<Vec<_>>();
    for bytes in bodies {
        let body = &bytes[HEADER_SIZE..];
        for end in 0..body.len() {
            let _ = Request::decode(&body[..end]);
            let _ = Reply::decode(&body[..end]);
        }
        let mut changed = body.to_vec();
        for at in 0..changed.len() {
            for value in 0..=u8::MAX {
                changed[at] = value;
                // What is understood must be said in the same bytes again: one encoding each.
                if let Ok(request) = Request::decode(&changed) {
                    assert_eq!(request_bytes(&request)[HEADER_SIZE..], changed);
                }
                if let Ok(reply) = Reply::decode(&changed) {
                    assert_eq!(reply_bytes(&reply)[HEADER_SIZE..], changed);
                }
            }
            changed[at] = body[at];
        }
    }
}

#[test]
fn noise_never_panics() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for round in 0..2_000 {
        let mut noise = Vec::new();
        for _ in 0..round % 97 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            noise.push(state.to_le_bytes()[0]);
        }
        let _ = Request::decode(&noise);
        let _ = Reply::decode(&noise);
        for limit in [REPLY_MAX, REQUEST_MAX] {
            let mut decoder = Decoder::new(limit);
            decoder.push(&noise);
            while let Ok(Some(body)) = decoder.take() {
                let _ = Reply::decode(body);
            }
        }
    }
}

#[test]
fn a_long_sentence_is_cut_at_a_character() {
    let long = "ä".repeat(TEXT_MAX);
    let bytes = reply_bytes(&Reply::Warning { text: &long });
    let Reply::Warning { text } = Reply::decode(&bytes[HEADER_SIZE..]).unwrap() else {
        panic!("not a warning");
    };
    assert_eq!(text.len(), TEXT_MAX);
}

#[test]
fn codes_are_a_shells() {
    assert_eq!(Exit::Code(7).shell_code(), 7);
    assert_eq!(Exit::Signal(9).shell_code(), 137);
}

#[test]
fn a_files_content_is_not_shown() {
    let file = TransientFile {
        path: b"/run/a".to_vec(),
        mode: 0o400,
        content: b"secret".to_vec(),
    };
    let shown = format!("{file:?}");
    assert_eq!(shown, "TransientFile(\"/run/a\", 400, 6 bytes)");
}
