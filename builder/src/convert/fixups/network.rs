//! One interface, `eth0`.
//!
//! The agent gives it its address before the root's init starts, and conet's DHCP would give the
//! same. What the old machine's interfaces were called and which addresses they had is of no use
//! here; a fixed address of theirs would cut the guest off.

use super::{ASIDE, Bench, lines, push_comment, push_line, words};
use crate::rootfs::RootfsError;

/// The interface.
const INTERFACE: &str = "eth0";
const IFUPDOWN: &str = "/etc/network/interfaces";
const IFUPDOWN_MORE: &str = "/etc/network/interfaces.d";
const NETPLAN: &str = "/etc/netplan";
const NETPLAN_FILE: &str = "50-coop.yaml";
const NETWORKD: &str = "/etc/systemd/network";
const NETWORK_MANAGER: &str = "/etc/NetworkManager";
const UDEV_RULES: &str = "/etc/udev/rules.d";
const CLOUD: &str = "/etc/cloud";

/// Begins what is ours in a file of others.
const WRITTEN: &str = "# Written by coop convert";
/// The form of a netplan file of our own.
const NETPLAN_TEXT: &str = "\
# Written by coop convert: the appliance has one interface.
network:
  version: 2
  ethernets:
    eth0:
      dhcp4: true
";
/// Of systemd-networkd's files, the first that matches an interface counts.
const NETWORKD_TEXT: &str = "\
# Written by coop convert: the appliance has one interface.
[Match]
Name=eth0

[Network]
DHCP=ipv4
";
const NETWORK_MANAGER_TEXT: &str = "\
# Written by coop convert: the interface has its address before this starts.
[keyfile]
unmanaged-devices=interface-name:eth0
";

pub(super) fn fix(bench: &mut Bench<'_>) -> Result<(), RootfsError> {
    udev(bench)?;
    cloud_init(bench)?;
    ifupdown(bench)?;
    netplan(bench)?;
    networkd(bench)?;
    network_manager(bench)
}

/// Old rules keep `eth0` for the old machine's address.
fn udev(bench: &mut Bench<'_>) -> Result<(), RootfsError> {
    for name in bench.names(UDEV_RULES) {
        if name.ends_with("-persistent-net.rules") {
            let aside = bench.set_aside(UDEV_RULES, &name)?;
            bench.tell(
                format!("{UDEV_RULES}/{name}"),
                format!("set aside as {aside}: it names interfaces of the old machine"),
            );
        }
    }
    Ok(())
}

/// It would wait for a cloud and then write the network's configuration anew.
fn cloud_init(bench: &mut Bench<'_>) -> Result<(), RootfsError> {
    let off = format!("{CLOUD}/cloud-init.disabled");
    if bench.has(&format!("{CLOUD}/cloud.cfg")) && !bench.has(&off) {
        bench.put(&off, 0o644, "")?;
        bench.tell(off, "made: there is no cloud whose data it could wait for");
    }
    Ok(())
}

fn ifupdown(bench: &mut Bench<'_>) -> Result<(), RootfsError> {
    let mut files = vec![IFUPDOWN.to_owned()];
    let more = bench.names(IFUPDOWN_MORE);
    files.extend(
        more.iter()
            .filter(|name| !name.ends_with(ASIDE))
            .map(|name| format!("{IFUPDOWN_MORE}/{name}")),
    );
    let mut old = false;
    for path in &files {
        let Some(before) = bench.read(path)? else {
            continue;
        };
        // What was fitted once is fit.
        if before
            .windows(WRITTEN.len())
            .any(|some| some == WRITTEN.as_bytes())
        {
            return Ok(());
        }
        let (after, count) = without_interfaces(&before);
        if count > 0 {
            old = true;
            bench.rewrite(path, after)?;
            let what = match count {
                1 => "a stanza of the old machine's interfaces is a comment now".to_owned(),
                _ => format!("{count} stanzas of the old machine's interfaces are comments now"),
            };
            bench.tell(path, what);
        }
    }
    if let Some(mut text) = bench.read(IFUPDOWN)?.filter(|_| old) {
        let stanza = format!(
            "\n{WRITTEN}: the interface has its address before this is read.\n\
             auto {INTERFACE}\niface {INTERFACE} inet manual\n"
        );
        text.extend_from_slice(stanza.as_bytes());
        bench.rewrite(IFUPDOWN, text)?;
        let what = format!("{INTERFACE} is as the agent or DHCP sets it up: 10.0.2.15");
        bench.tell(IFUPDOWN, what);
    }
    Ok(())
}

/// Makes comments of the stanzas of all interfaces but the loopback; says how many there were.
fn without_interfaces(before: &[u8]) -> (Vec<u8>, usize) {
    let mut after = Vec::with_capacity(before.len());
    let (mut count, mut within) = (0, false);
    for line in lines(before) {
        let fields = words(line);
        match fields.first().map(String::as_str) {
            Some("iface" | "mapping") => {
                within = fields.get(1).is_none_or(|name| name != "lo");
                count += usize::from(within);
            }
            // `auto lo eth0` names both: the loopback's own line comes with every system.
            Some("auto") => {
                within = fields.iter().skip(1).any(|name| name != "lo");
                if within && fields.iter().any(|name| name == "lo") {
                    push_line(&mut after, b"auto lo");
                }
            }
            Some(first) if first.starts_with("allow-") => {
                within = fields.iter().skip(1).any(|name| name != "lo");
            }
            Some("source" | "source-directory" | "rename" | "no-auto-down" | "no-scripts") => {
                within = false;
            }
            // The rest of a stanza, a comment or an empty line.
            _ => {}
        }
        if within && !fields.is_empty() {
            push_comment(&mut after, line);
        } else {
            push_line(&mut after, line);
        }
    }
    (after, count)
}

fn netplan(bench: &mut Bench<'_>) -> Result<(), RootfsError> {
    let files: Vec<String> = bench
        .names(NETPLAN)
        .into_iter()
        .filter(|name| name.ends_with(".yaml") && name != NETPLAN_FILE)
        .collect();
    if files.is_empty() {
        return Ok(());
    }
    for name in files {
        let aside = bench.set_aside(NETPLAN, &name)?;
        bench.tell(
            format!("{NETPLAN}/{name}"),
            format!("set aside as {aside}: it names interfaces of the old machine"),
        );
    }
    let own = format!("{NETPLAN}/{NETPLAN_FILE}");
    bench.put(&own, 0o600, NETPLAN_TEXT)?;
    bench.tell(own, format!("made: {INTERFACE} asks DHCP"));
    Ok(())
}

fn networkd(bench: &mut Bench<'_>) -> Result<(), RootfsError> {
    let wanted = "/etc/systemd/system/multi-user.target.wants/systemd-networkd.service";
    // What is switched on is a link, which may lead to a unit that is not there.
    let is_on = bench.tree.lookup(wanted.as_bytes()).is_ok();
    let has_files = bench
        .names(NETWORKD)
        .iter()
        .any(|name| name.ends_with(".network"));
    if is_on || has_files {
        let own = format!("{NETWORKD}/05-coop.network");
        bench.put(&own, 0o644, NETWORKD_TEXT)?;
        let what = format!("made: {INTERFACE} asks DHCP, whatever files behind it say");
        bench.tell(own, what);
    }
    Ok(())
}

fn network_manager(bench: &mut Bench<'_>) -> Result<(), RootfsError> {
    if bench.has(NETWORK_MANAGER) && bench.has("/usr/sbin/NetworkManager") {
        let own = format!("{NETWORK_MANAGER}/conf.d/coop.conf");
        bench.put(&own, 0o644, NETWORK_MANAGER_TEXT)?;
        let what = format!("made: {INTERFACE} has its address already and is left alone");
        bench.tell(own, what);
    }
    Ok(())
}
