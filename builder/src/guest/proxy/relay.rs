//! What a step with a network asks of an archive beyond the recipe's suites: passed on as it is.
//!
//! The guest's own apt verifies it, as it would without a proxy; nothing of it is kept.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use coop_runtime::event::Observer;

use super::request::Request;
use super::{IDLE_TICKS_MAX, TICK, is_timeout};
use crate::fetch::DOWNLOAD_BYTES_MAX;
use crate::percent;

const HTTP_PORT: u16 = 80;
/// What stands for itself in a path, RFC 3986 section 3.3.
const PATH_BYTES: &[u8] = b"-._~!$&'()*+,;=:@/";
/// How long an archive may take to answer a call.
const CONNECT_PATIENCE: Duration = Duration::from_secs(30);

/// Asks the archive, and passes its answer on; the connection cannot be used again.
///
/// # Errors
/// The archive did not answer; nothing was passed on.
pub(super) fn relay(
    mut guest: &UnixStream,
    request: &Request,
    observer: &dyn Observer,
) -> io::Result<()> {
    let (host, path) = request.address.split_once('/').unwrap_or_default();
    let mut archive = connect(host)?;
    archive.set_read_timeout(Some(TICK))?;
    archive.set_write_timeout(Some(CONNECT_PATIENCE))?;
    let method = if request.is_head { "HEAD" } else { "GET" };
    let head = format!(
        "{method} /{} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n",
        percent::encode(path.as_bytes(), PATH_BYTES)
    );
    archive.write_all(head.as_bytes())?;
    let mut buffer = vec![0; 64 << 10];
    let (mut passed, mut idle) = (0_u64, 0);
    while passed < DOWNLOAD_BYTES_MAX {
        match archive.read(&mut buffer) {
            Ok(0) if passed == 0 => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(0) => return Ok(()),
            Ok(count) => {
                idle = 0;
                passed = passed.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
                if guest
                    .write_all(buffer.get(..count).unwrap_or_default())
                    .is_err()
                {
                    return Ok(());
                }
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if is_timeout(&error) => {
                idle += 1;
                if idle > IDLE_TICKS_MAX || observer.is_cancelled() {
                    return Ok(());
                }
            }
            Err(error) if passed == 0 => return Err(error),
            Err(_) => return Ok(()),
        }
    }
    Ok(())
}

fn connect(host: &str) -> io::Result<TcpStream> {
    let has_port = host
        .rsplit_once(':')
        .is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let addresses = match has_port {
        true => host.to_socket_addrs()?,
        false => (host.trim_matches(['[', ']']), HTTP_PORT).to_socket_addrs()?,
    };
    let mut failure = io::Error::from(ErrorKind::AddrNotAvailable);
    for address in addresses {
        match TcpStream::connect_timeout(&address, CONNECT_PATIENCE) {
            Ok(stream) => return Ok(stream),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}
