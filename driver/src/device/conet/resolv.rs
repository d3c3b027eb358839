//! The host's name servers, from the text of its `resolv.conf`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// How many name servers count, as for the C library's resolver.
const NAME_SERVERS_MAX: usize = 3;
/// The port of name servers.
pub(super) const DNS_PORT: u16 = 53;

/// Reads the name servers out of the text of a `resolv.conf(5)`, in order: at most three; the
/// host's own loopback where none is named, as the C library has it. Addresses with a scope
/// (`fe80::1%eth0`) are passed over.
#[must_use]
pub fn parse_resolv_conf(text: &str) -> Vec<SocketAddr> {
    let mut servers: Vec<SocketAddr> = text
        .lines()
        .filter_map(|line| {
            let mut words = line.split_ascii_whitespace();
            (words.next() == Some("nameserver")).then(|| words.next())?
        })
        .filter_map(|word| word.parse::<IpAddr>().ok())
        .map(|address| SocketAddr::new(address, DNS_PORT))
        .take(NAME_SERVERS_MAX)
        .collect();
    if servers.is_empty() {
        servers.push((Ipv4Addr::LOCALHOST, DNS_PORT).into());
    }
    servers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_come_in_order() {
        let text = "# made by hand\nsearch example.org\nnameserver 192.0.2.1\n\
                    \tnameserver\t2001:db8::1 # second\nnameserver fe80::1%eth0\n\
                    nameserver nonsense\noptions edns0\n;nameserver 192.0.2.9\n\
                    nameserver 192.0.2.3\nnameserver 192.0.2.4\n";
        let servers: Vec<String> = parse_resolv_conf(text)
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            servers,
            ["192.0.2.1:53", "[2001:db8::1]:53", "192.0.2.3:53"]
        );
    }

    #[test]
    fn none_means_loopback() {
        assert_eq!(parse_resolv_conf(""), [(Ipv4Addr::LOCALHOST, 53).into()]);
    }
}
