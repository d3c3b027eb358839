//! Amounts with units, and the grammars that the recipe and the command line share.

use std::fmt;
use std::time::Duration;

use coop_appliance::{Forward, Protocol};
use serde::Serialize;

const UNITS: [(&str, u64); 5] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("B", 1),
];
/// The largest amount that is accepted: 1 PiB. No file system of ours can be larger.
const BYTES_MAX: u64 = 1 << 50;
/// The longest time that is accepted: 30 days.
const DURATION_MAX: Duration = Duration::from_hours(30 * 24);

/// An amount of bytes, written as `256MiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct ByteCount(pub u64);

impl ByteCount {
    /// Reads a whole number with one of the units B, KiB, MiB, GiB, TiB.
    ///
    /// # Errors
    /// A lowercase sentence that says what is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (digits, unit) = split_number(text);
        if digits.is_empty() {
            return Err(format!(
                "'{}' is not a size; write it as 256MiB or 1GiB",
                shorten(text)
            ));
        }
        let Some((_, factor)) = UNITS.into_iter().find(|(name, _)| *name == unit) else {
            return Err(match meant(unit) {
                Some(name) => format!("unknown unit '{unit}'; write {digits}{name}"),
                None if unit.is_empty() => {
                    format!("size '{digits}' has no unit; write {digits}MiB or {digits}B")
                }
                None => format!(
                    "unknown unit '{}'; known are B, KiB, MiB, GiB and TiB",
                    shorten(unit)
                ),
            });
        };
        digits
            .parse::<u64>()
            .ok()
            .and_then(|number| number.checked_mul(factor))
            .filter(|bytes| *bytes <= BYTES_MAX)
            .map(Self)
            .ok_or_else(|| format!("size {} is beyond 1024TiB", shorten(text)))
    }
}

/// The binary unit behind `MB`, `M`, `mib` and the like.
fn meant(unit: &str) -> Option<&'static str> {
    let letter = unit.chars().next()?.to_ascii_uppercase();
    let rest = unit.get(1..)?.to_ascii_lowercase();
    if !matches!(&*rest, "" | "b" | "ib") {
        return None;
    }
    UNITS
        .into_iter()
        .map(|(name, _)| name)
        .find(|name| name.starts_with(letter))
}

impl fmt::Display for ByteCount {
    /// Writes the largest unit that divides the amount.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, factor) in UNITS {
            if self.0 != 0 && self.0.is_multiple_of(factor) {
                return write!(f, "{}{name}", self.0 / factor);
            }
        }
        write!(f, "0B")
    }
}

/// A share of a whole, 0 to 90 per cent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Percent(pub u8);

impl Percent {
    /// The largest free share of an image.
    pub const MAX: u8 = 90;

    /// Reads `20%`.
    ///
    /// # Errors
    /// A lowercase sentence that says what is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        text.strip_suffix('%')
            .and_then(|digits| digits.parse::<u8>().ok())
            .filter(|number| *number <= Self::MAX)
            .map(Self)
            .ok_or_else(|| {
                let text = shorten(text);
                format!("'{text}' is not a share from 0% to {}%", Self::MAX)
            })
    }
}

/// Reads a time: a whole number with `ms`, `s`, `m` or `h`; at most 30 days.
///
/// # Errors
/// A lowercase sentence that says what is wrong with the text.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let (digits, unit) = split_number(text);
    let factor_ms: u64 = match unit {
        _ if digits.is_empty() => 0,
        "ms" => 1,
        "s" => 1000,
        "m" => 60 * 1000,
        "h" => 60 * 60 * 1000,
        _ => 0,
    };
    if factor_ms == 0 {
        let text = shorten(text);
        return Err(format!(
            "'{text}' is not a time; write it as 500ms, 30s, 5m or 1h"
        ));
    }
    digits
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(factor_ms))
        .map(Duration::from_millis)
        .filter(|duration| !duration.is_zero() && *duration <= DURATION_MAX)
        .ok_or_else(|| format!("time {} is not between 1ms and 720h", shorten(text)))
}

/// Reads coLinux's grammar of a forward: `tcp|udp:host:guest[:count]`, the ports as numbers.
///
/// # Errors
/// A lowercase sentence that says what is wrong with the text.
pub fn parse_forward(text: &str) -> Result<Forward, String> {
    let parts: Vec<&str> = text.split(':').collect();
    let (protocol, host, guest, count) = match parts[..] {
        [protocol, host, guest] => (protocol, host, guest, "1"),
        [protocol, host, guest, count] => (protocol, host, guest, count),
        _ => {
            let text = shorten(text);
            return Err(format!(
                "'{text}' is not a forward; write tcp|udp:host:guest[:count], as tcp:2222:22"
            ));
        }
    };
    let protocol = match protocol {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        other => {
            let other = shorten(other);
            return Err(format!("unknown protocol '{other}'; known are tcp and udp"));
        }
    };
    let forward = Forward {
        protocol,
        host_port: parse_port(host)?,
        guest_port: parse_port(guest)?,
        count: parse_port(count)
            .map_err(|_| format!("'{}' is not a count of ports", shorten(count)))?,
    };
    let last = forward.count.saturating_sub(1);
    let fits = |first: u16| first.checked_add(last).is_some();
    if !fits(forward.host_port) || !fits(forward.guest_port) {
        return Err(format!("forward '{text}' goes beyond port 65535"));
    }
    Ok(forward)
}

fn parse_port(text: &str) -> Result<u16, String> {
    Some(text)
        .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))
        .and_then(|text| text.parse().ok())
        .filter(|port| *port != 0)
        .ok_or_else(|| format!("'{}' is not a port from 1 to 65535", shorten(text)))
}

/// Whether two forwards want the same port of the host.
#[must_use]
pub fn forwards_overlap(a: &Forward, b: &Forward) -> bool {
    let range = |forward: &Forward| {
        let first = u32::from(forward.host_port);
        first..first + u32::from(forward.count)
    };
    let (x, y) = (range(a), range(b));
    a.protocol == b.protocol && x.start < y.end && y.start < x.end
}

fn split_number(text: &str) -> (&str, &str) {
    let end = text
        .find(|character: char| !character.is_ascii_digit())
        .unwrap_or(text.len());
    text.split_at(end)
}

/// The first characters of a text for a sentence about it.
pub(super) fn shorten(text: &str) -> String {
    const SHOWN_MAX: usize = 60;
    let mut short: String = text
        .chars()
        .take(SHOWN_MAX)
        .flat_map(char::escape_debug)
        .collect();
    if text.chars().count() > SHOWN_MAX {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(ByteCount::parse("256MiB"), Ok(ByteCount(256 << 20)));
        assert_eq!(ByteCount::parse("1024TiB"), Ok(ByteCount(1 << 50)));
        assert_eq!(ByteCount(256 << 20).to_string(), "256MiB");
        assert_eq!(ByteCount(1025).to_string(), "1025B");
        assert_eq!(ByteCount(0).to_string(), "0B");
        for (text, part) in [
            ("256MB", "write 256MiB"),
            ("256", "no unit"),
            ("1025TiB", "beyond"),
            ("99999999999999999999999MiB", "beyond"),
            ("-1MiB", "not a size"),
            ("", "not a size"),
            ("5parsec", "unknown unit 'parsec'"),
            ("5ärger", "unknown unit"),
        ] {
            let error = ByteCount::parse(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn shares_and_times() {
        assert_eq!(Percent::parse("20%"), Ok(Percent(20)));
        for text in ["20", "91%", "-1%", "%", "1.5%"] {
            assert!(Percent::parse(text).is_err(), "{text}");
        }
        assert_eq!(parse_duration("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        for text in [
            "30",
            "s",
            "0s",
            "721h",
            "18446744073709551616ms",
            "1 s",
            "1d",
        ] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn forwards() {
        let forward = parse_forward("udp:5000:6000:10").unwrap();
        assert_eq!(forward.protocol, Protocol::Udp);
        assert_eq!(
            (forward.host_port, forward.guest_port, forward.count),
            (5000, 6000, 10)
        );
        for text in [
            "tcp",
            "tcp:1",
            "tcp:0:1",
            "tcp:1:65536",
            "sctp:1:1",
            "tcp:65535:1:2",
            "tcp:1:1:0",
            "tcp:+1:1",
            "tcp:1:1:1:1",
        ] {
            assert!(parse_forward(text).is_err(), "{text}");
        }
        let a = parse_forward("tcp:80:1:10").unwrap();
        assert!(forwards_overlap(&a, &parse_forward("tcp:89:5").unwrap()));
        assert!(!forwards_overlap(&a, &parse_forward("tcp:90:5").unwrap()));
        assert!(!forwards_overlap(&a, &parse_forward("udp:80:5").unwrap()));
    }
}
