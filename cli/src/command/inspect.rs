//! `coop inspect`: what is this appliance made of?

use std::fmt::Write as _;

use coop_appliance::{Appliance, Conet, Filesystem, Forward, Manifest, Protocol};
use coop_builder::recipe::ByteCount;

use super::Ended;
use crate::arguments::InspectOptions;
use crate::failure::Failure;
use crate::render::{Output, data, plain};

/// Opens the appliance and prints its manifest.
pub(crate) fn run(options: &InspectOptions, _output: &Output) -> Ended {
    let appliance = Appliance::open(&options.appliance).map_err(|error| Failure::work(&error))?;
    if options.verify {
        appliance.verify().map_err(|error| Failure::work(&error))?;
    }
    if options.json {
        data(&appliance.manifest.to_json());
    } else {
        data(&describe(&appliance.manifest, options.verify));
    }
    Ok(0)
}

/// Lines of a name and its value.
struct Table(String);

impl Table {
    fn row(&mut self, name: &str, value: &str) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "{name:<13} {}", plain(value));
    }
}

fn describe(manifest: &Manifest, verified: bool) -> String {
    let mut table = Table(String::new());
    table.row("name", &manifest.name);
    if !manifest.description.is_empty() {
        table.row("description", &manifest.description);
    }
    table.row("architecture", &manifest.architecture);
    table.row("inputs", &manifest.inputs);
    table.row("kernel", &manifest.kernel.release);
    if !manifest.kernel.cmdline.is_empty() {
        table.row("cmdline", &manifest.kernel.cmdline.join(" "));
    }
    let machine = &manifest.machine;
    let memory = ByteCount(machine.memory_bytes);
    table.row("memory", &memory.to_string());
    table.row("cpus", &machine.cpus.to_string());
    for (index, cobd) in manifest.cobd.iter().enumerate() {
        let mut text = format!("{} {}", cobd.name, ByteCount(cobd.image.size_bytes));
        text.push_str(match cobd.filesystem {
            Filesystem::Ext4 => " ext4",
            Filesystem::Swap => " swap",
            Filesystem::Unknown => "",
        });
        if let Some(mount) = &cobd.mount {
            let _ = write!(text, " on {mount}");
        }
        if cobd.readonly {
            text.push_str(" read-only");
        }
        table.row(&format!("cobd{index}"), &text);
    }
    for (index, conet) in manifest.conet.iter().enumerate() {
        table.row(&format!("conet{index}"), &describe_conet(conet));
    }
    let cocon = &manifest.cocon;
    table.row("cocon", &format!("{}x{}", cocon.columns, cocon.rows));
    for member in manifest.members() {
        let size = ByteCount(member.size_bytes);
        table.row(&member.path, &format!("{} {size}", member.sha256));
    }
    if verified {
        table.row("verified", "every file has its digest");
    }
    table.0
}

fn describe_conet(conet: &Conet) -> String {
    let Conet::User { forward, .. } = conet;
    let mut text = "user".to_owned();
    for forward in forward {
        let _ = write!(text, " {}", describe_forward(forward));
    }
    text
}

/// A forward in the grammar that it is written in.
fn describe_forward(forward: &Forward) -> String {
    let protocol = match forward.protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    };
    let (host, guest) = (forward.host_port, forward.guest_port);
    match forward.count {
        1 => format!("{protocol}:{host}:{guest}"),
        count => format!("{protocol}:{host}:{guest}:{count}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coop_builder::recipe::parse_forward;

    #[test]
    fn forwards_read_as_written() {
        for text in ["tcp:2222:22", "udp:5000:6000:10"] {
            assert_eq!(describe_forward(&parse_forward(text).unwrap()), text);
        }
    }
}
