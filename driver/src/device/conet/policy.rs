//! Where the guest may go.
//!
//! The rest of the world is open, as it is to any program of the user. The host itself is closed
//! unless allowed: its loopback, and every address that its kernel delivers to itself. Link-local
//! addresses (where clouds answer with credentials), the unspecified, multicast, broadcast and
//! reserved ones are closed always.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use super::options::{GATEWAY, NAME_SERVER, NETMASK, NETWORK, UserOptions};
use super::resolv::DNS_PORT;
use super::route::{RouteKind, Routes};
use super::service::Service;

/// What becomes of traffic for an address.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It goes to this address of the host's world.
    Open(SocketAddr),
    /// It goes to this service of coop.
    Service(Service),
    /// It goes to the host's name servers.
    NameServer,
    /// It is refused and the guest is told.
    Refused,
    /// It is refused without an answer, as no answer may be given to a group.
    Silent,
}

/// The rules of one user network.
#[derive(Debug)]
pub(super) struct Policy {
    allow_host: bool,
    restricted: bool,
    services: Vec<Service>,
    routes: Routes,
    /// The guest's address.
    pub(super) guest: Ipv4Addr,
    /// Names that need no name server of the host.
    pub(super) hosts: BTreeMap<String, Ipv4Addr>,
}

impl Policy {
    pub(super) fn new(options: &UserOptions) -> Self {
        Self {
            allow_host: options.allow_host,
            restricted: options.restricted,
            services: options.services.clone(),
            routes: Routes::new(),
            guest: options.address,
            hosts: options.hosts.clone(),
        }
    }

    /// Judges a TCP connection to `remote`: the only traffic that services have.
    pub(super) fn judge_tcp(&mut self, remote: SocketAddrV4) -> Verdict {
        let mut services = self.services.iter();
        let service = services.find(|service| service.port == remote.port());
        match service {
            Some(service) if *remote.ip() == GATEWAY => Verdict::Service(service.clone()),
            _ => self.judge(remote),
        }
    }

    /// Judges traffic for `remote`. The host's addresses are asked for each time, for they change.
    pub(super) fn judge(&mut self, remote: SocketAddrV4) -> Verdict {
        let address = *remote.ip();
        if address.is_multicast() || address.is_broadcast() {
            return Verdict::Silent;
        }
        if address == NAME_SERVER {
            let dns = remote.port() == DNS_PORT;
            return if dns {
                Verdict::NameServer
            } else {
                Verdict::Refused
            };
        }
        if address == GATEWAY {
            return if self.allow_host && !self.restricted {
                Verdict::Open(SocketAddrV4::new(Ipv4Addr::LOCALHOST, remote.port()).into())
            } else {
                Verdict::Refused
            };
        }
        if self.restricted || is_inside(address) || is_closed(address) {
            return Verdict::Refused;
        }
        match self.routes.kind(address) {
            RouteKind::Elsewhere => Verdict::Open(remote.into()),
            RouteKind::Host if self.allow_host => Verdict::Open(remote.into()),
            RouteKind::Host | RouteKind::Group => Verdict::Refused,
        }
    }
}

/// Whether an address lies in the guest's own network.
pub(super) fn is_inside(address: Ipv4Addr) -> bool {
    address & NETMASK == NETWORK
}

/// Whether an address can be a guest's.
pub(super) fn is_node(address: Ipv4Addr) -> bool {
    let [.., last] = address.octets();
    is_inside(address) && !matches!(last, 0 | 255) && address != GATEWAY && address != NAME_SERVER
}

/// Addresses that no allowance opens.
fn is_closed(address: Ipv4Addr) -> bool {
    let [first, ..] = address.octets();
    first == 0 || address.is_loopback() || address.is_link_local() || first >= 224
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn judge(allow_host: bool, address: &str, port: u16) -> Verdict {
        let options = UserOptions {
            allow_host,
            ..UserOptions::new([0x52; 6])
        };
        Policy::new(&options).judge(SocketAddrV4::new(address.parse().unwrap(), port))
    }

    #[test]
    fn a_restricted_guest_reaches_services_only() {
        let options = UserOptions {
            allow_host: true,
            restricted: true,
            services: vec![Service {
                port: 80,
                accept: Arc::new(drop),
            }],
            ..UserOptions::new([0x52; 6])
        };
        let mut policy = Policy::new(&options);
        let at = |text: &str| text.parse::<SocketAddrV4>().unwrap();
        for address in [
            "198.51.100.7:80",
            "10.0.2.2:81",
            "10.0.2.2:80",
            "10.0.2.3:80",
        ] {
            assert_eq!(policy.judge(at(address)), Verdict::Refused, "{address}");
        }
        for address in ["198.51.100.7:80", "10.0.2.2:81"] {
            assert_eq!(policy.judge_tcp(at(address)), Verdict::Refused, "{address}");
        }
        let served = policy.judge_tcp(at("10.0.2.2:80"));
        assert!(matches!(served, Verdict::Service(_)));
    }

    #[test]
    fn closed_addresses_stay_closed() {
        for allow_host in [false, true] {
            for address in [
                "0.0.0.0",
                "0.1.2.3",
                "127.0.0.1",
                "127.255.0.3",
                "169.254.169.254",
                "240.0.0.1",
                "10.0.2.0",
                "10.0.2.15",
                "10.0.2.77",
                "10.0.2.255",
            ] {
                assert_eq!(
                    judge(allow_host, address, 80),
                    Verdict::Refused,
                    "{address}"
                );
            }
            for address in ["224.0.0.251", "239.255.255.250", "255.255.255.255"] {
                assert_eq!(judge(allow_host, address, 80), Verdict::Silent, "{address}");
            }
        }
    }

    #[test]
    fn the_gateway_is_the_host_when_allowed() {
        assert_eq!(judge(false, "10.0.2.2", 8080), Verdict::Refused);
        assert_eq!(
            judge(true, "10.0.2.2", 8080),
            Verdict::Open("127.0.0.1:8080".parse().unwrap())
        );
    }

    #[test]
    fn the_name_server_serves_names_only() {
        assert_eq!(judge(false, "10.0.2.3", 53), Verdict::NameServer);
        assert_eq!(judge(true, "10.0.2.3", 80), Verdict::Refused);
    }

    #[test]
    fn the_rest_of_the_world_is_open() {
        assert_eq!(
            judge(false, "198.51.100.7", 443),
            Verdict::Open("198.51.100.7:443".parse().unwrap())
        );
    }

    #[test]
    fn own_addresses_follow_the_allowance() {
        let Some(own) = crate::device::conet::route::some_own_address() else {
            return; // A host without a network has no own address but loopback.
        };
        assert_eq!(judge(false, &own.to_string(), 80), Verdict::Refused);
        assert_eq!(
            judge(true, &own.to_string(), 80),
            Verdict::Open((own, 80).into())
        );
    }
}
