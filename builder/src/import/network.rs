//! Network devices: which of coLinux's became what.

use coop_appliance::Forward;

use super::At;
use super::settings::{Placed, Settings, shorten};
use crate::recipe::{FORWARDED_PORTS_MAX, forwards_overlap, parse_forward};

/// A network device as both grammars of coLinux describe it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Network<'a> {
    /// `slirp`, `tuntap`, `tap`, `pcap-bridge`, `ndis-bridge` or `bridged`.
    pub(super) kind: &'a str,
    /// The address of the device.
    pub(super) mac: &'a str,
    /// slirp's forwards.
    pub(super) redir: &'a str,
}

/// Takes a device over as far as coop can have it.
pub(super) fn add(settings: &mut Settings, index: u32, network: Network<'_>, what: &str, at: &At) {
    if !network.mac.is_empty() {
        add_mac(settings, network.mac, what, at);
    }
    let is_bridged = match network.kind {
        "slirp" => false,
        "tuntap" | "tap" | "pcap-bridge" | "ndis-bridge" | "bridged" => true,
        other => {
            let other = shorten(other);
            let known = "slirp, tuntap, pcap-bridge and ndis-bridge, or in XML bridged and tap";
            settings.wrong(
                at,
                format!("{what}: unknown network '{other}'; known are {known}"),
            );
            return;
        }
    };
    if let Some(first) = settings.networks.values().next().cloned() {
        let why = format!(
            "coop's guests have one network device so far, that of line {}; forwards lead there",
            first.line
        );
        settings.left_out(at, what, why);
    } else if is_bridged {
        settings.changed(
            at,
            what,
            "coop's guests reach the network through address translation so far: the guest is \
             10.0.2.15 behind 10.0.2.2, and forwards lead into it",
        );
    }
    settings.networks.insert(index, at.clone());
    for part in network.redir.split('/').filter(|part| !part.is_empty()) {
        // A file has room for millions of them.
        if settings.has_enough_wrong() {
            return;
        }
        let forward = parse_forward(part).map_err(|reason| format!("{what}: {reason}"));
        let added = forward.and_then(|value| add_forward(settings, value, at, part));
        if let Err(reason) = added {
            settings.wrong(at, reason);
        }
    }
}

fn add_forward(settings: &mut Settings, value: Forward, at: &At, what: &str) -> Result<(), String> {
    let taken = settings
        .forwards
        .iter()
        .any(|other| forwards_overlap(&other.value, &value));
    if taken {
        return Err(format!("{what}: a port of the host is forwarded twice"));
    }
    let forwards = settings.forwards.iter().map(|other| &other.value);
    let ports: u32 = forwards.map(|other| u32::from(other.count)).sum();
    if ports + u32::from(value.count) > FORWARDED_PORTS_MAX {
        let most = format!("coop forwards {FORWARDED_PORTS_MAX} ports of the host at most");
        return Err(format!("{what}: {most}"));
    }
    let at = at.clone();
    settings.forwards.push(Placed { value, at });
    Ok(())
}

fn add_mac(settings: &mut Settings, mac: &str, what: &str, at: &At) {
    let bytes: Vec<&str> = mac.split([':', '-']).collect();
    let good = bytes.len() == 6
        && bytes
            .iter()
            .all(|byte| byte.len() == 2 && byte.bytes().all(|digit| digit.is_ascii_hexdigit()));
    if !good {
        let mac = shorten(mac);
        settings.wrong(
            at,
            format!("{what}: '{mac}' is not a MAC address, as 00:ff:6b:4c:01:02"),
        );
        return;
    }
    settings.changed(
        at,
        mac,
        "coop gives the device an address of its own, the same at every boot; rules in the guest \
         that name this one, as 70-persistent-net.rules, have to go",
    );
}
