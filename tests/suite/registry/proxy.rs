//! A proxy in front of a registry that tests can make lie, stall and cut.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
    /// How many requests of this method there were before it.
    pub number: usize,
}

impl Request {
    /// A header's value or nothing.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

/// What becomes of a request.
pub enum Verdict {
    /// The registry answers.
    Forward,
    /// The registry answers, and this many bytes of the body go on; then nothing happens any more.
    Stall(usize),
    /// The registry answers, and this is made of its head and its body.
    Change(fn(&str, Vec<u8>) -> (String, Vec<u8>)),
    /// The registry answers, with this line in the head.
    Header(String),
    /// A whole answer that is not the registry's.
    Answer(Vec<u8>),
}

type Judge = dyn Fn(&Request) -> Verdict + Send + Sync;

/// Runs until it is dropped.
pub struct Proxy {
    pub authority: String,
    seen: Arc<Mutex<Vec<Request>>>,
    address: SocketAddr,
    stop: Arc<AtomicBool>,
}

impl Proxy {
    pub fn start(
        upstream: &str,
        judge: impl Fn(&Request) -> Verdict + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let judge: Arc<Judge> = Arc::new(judge);
        let (shared, stopped, upstream) = (seen.clone(), stop.clone(), upstream.to_owned());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::SeqCst) {
                    break;
                }
                let stream = stream.unwrap();
                let (shared, judge) = (shared.clone(), judge.clone());
                let (upstream, stopped) = (upstream.clone(), stopped.clone());
                std::thread::spawn(move || serve(&stream, &shared, &*judge, &upstream, &stopped));
            }
        });
        Self {
            authority: address.to_string(),
            seen,
            address,
            stop,
        }
    }

    /// The requests so far.
    pub fn seen(&self) -> Vec<Request> {
        self.seen.lock().unwrap().clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
    }
}

fn serve(
    mut stream: &TcpStream,
    seen: &Mutex<Vec<Request>>,
    judge: &Judge,
    upstream: &str,
    stop: &AtomicBool,
) -> Option<()> {
    let (head, mut request) = read(stream)?;
    {
        let mut seen = seen.lock().unwrap();
        let before = seen.iter().filter(|one| one.method == request.method);
        request.number = before.count();
        seen.push(request.clone());
    }
    let forward = || ask(upstream, &head, &request.body);
    match judge(&request) {
        Verdict::Answer(answer) => stream.write_all(&answer).ok()?,
        Verdict::Forward => {
            let (head, body) = forward()?;
            stream.write_all(head.as_bytes()).ok()?;
            stream.write_all(&body).ok()?;
        }
        Verdict::Header(line) => {
            let (head, body) = forward()?;
            let (status, rest) = head.split_once("\r\n")?;
            let head = format!("{status}\r\n{line}{rest}");
            stream.write_all(head.as_bytes()).ok()?;
            stream.write_all(&body).ok()?;
        }
        Verdict::Change(change) => {
            let (head, body) = forward()?;
            let (head, body) = change(&head, body);
            stream.write_all(head.as_bytes()).ok()?;
            stream.write_all(&body).ok()?;
        }
        Verdict::Stall(length) => {
            // What stalls at once never comes to the registry.
            if length > 0 {
                let (head, body) = forward()?;
                stream.write_all(head.as_bytes()).ok()?;
                stream.write_all(&body[..length.min(body.len())]).ok()?;
            }
            while !stop.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
    Some(())
}

/// The request's head as it goes on, and the request.
fn read(stream: &TcpStream) -> Option<(String, Request)> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut head = line.clone();
    let mut words = line.split(' ');
    let mut request = Request {
        method: words.next()?.to_owned(),
        path: words.next()?.to_owned(),
        headers: BTreeMap::new(),
        body: Vec::new(),
        number: 0,
    };
    loop {
        line.clear();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        let name = name.to_ascii_lowercase();
        if name != "connection" {
            head.push_str(&line);
        }
        request.headers.insert(name, value.trim().to_owned());
    }
    head.push_str("Connection: close\r\n\r\n");
    let length = request.header("content-length").parse().unwrap_or(0);
    reader.take(length).read_to_end(&mut request.body).ok()?;
    Some((head, request))
}

fn ask(upstream: &str, head: &str, body: &[u8]) -> Option<(String, Vec<u8>)> {
    let mut stream = TcpStream::connect(upstream).ok()?;
    stream.write_all(head.as_bytes()).ok()?;
    stream.write_all(body).ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let body = answer.split_off(end);
    Some((String::from_utf8(answer).ok()?, body))
}

/// A whole answer.
pub fn answer(status: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut head = format!(
        "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n",
        body.len()
    );
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    [head.as_bytes(), b"\r\n", body].concat()
}
