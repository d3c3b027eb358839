//! `coop inspect`: what is this appliance or image made of?

mod bundle;
mod image;

use std::fmt::Write as _;
use std::io::{BufWriter, ErrorKind, IsTerminal, Write as _};
use std::os::unix::ffi::OsStrExt;

use coop_appliance::{
    Appliance, ApplianceError, Conet, Filesystem, Forward, Manifest, Protocol, Root,
};
use coop_builder::recipe::ByteCount;
use coop_builder::staged_file::StagedFile;
use coop_image::tar::{self, WriteError};

use super::subject::{self, Kind};
use super::{Ended, registry};
use crate::arguments::InspectOptions;
use crate::environment::Environment;
use crate::failure::Failure;
use crate::render::{Output, bytes, data, error, plain};

/// Opens the appliance or the image and prints what it says about itself.
pub(crate) fn run(options: &InspectOptions, environment: &Environment, output: &Output) -> Ended {
    let reference = registry::asked(&options.appliance, &options.registry)?;
    if let Some(path) = &options.extract {
        return extract(path.as_bytes(), options, environment);
    }
    if let Some(reference) = reference {
        return bundle::in_registry(&reference, options, environment);
    }
    let takes = [Kind::Appliance, Kind::Bundle, Kind::Image];
    let kind = subject::expect(&options.appliance, &takes)?;
    if kind == Kind::Bundle {
        return bundle::run(&options.appliance, options.verify, options.json);
    }
    if kind != Kind::Appliance {
        if options.verify {
            let message = "an image alone has no digest to compare with; name the appliance";
            return Err(Failure::usage(message));
        }
        return image::run(&options.appliance, options.json);
    }
    let appliance = Appliance::open(&options.appliance).map_err(|error| Failure::work(&error))?;
    if options.verify {
        appliance
            .verify()
            .map_err(|error| explain(&appliance, &error))?;
    }
    if options.json {
        data(&appliance.manifest.to_json());
        return Ok(0);
    }
    let mut text = describe(&appliance.manifest, options.verify).text();
    for (index, cobd) in appliance.manifest.cobd.iter().enumerate() {
        if cobd.filesystem == Filesystem::Ext4 {
            let path = appliance.path(&cobd.image);
            let path = path.map_err(|error| Failure::work(&error))?;
            match image::describe(&path) {
                Ok(lines) => {
                    text.push_str(&format!("\ncobd{index} {}\n{lines}", plain(&cobd.name)))
                }
                // What the manifest says is still worth something.
                Err(failure) => error::failure(output, &failure),
            }
        }
    }
    data(&text);
    Ok(0)
}

/// Writes a part of a file system as an archive.
fn extract(path: &[u8], options: &InspectOptions, environment: &Environment) -> Ended {
    if options.output.is_none() && std::io::stdout().is_terminal() {
        let failure = Failure::usage("an archive is nothing for a terminal");
        return Err(failure.with_hint("lead it into tar -x, or name a file with -o"));
    }
    if path.split(|byte| *byte == b'/').any(|part| part == b"..") {
        return Err(Failure::usage("a path inside an image has no '..'"));
    }
    let failed = |error: &dyn std::error::Error| {
        let failure = Failure::work(error);
        failure.about(&options.appliance)
    };
    let operand = super::diff::open(&options.appliance, environment)?;
    let tree = operand
        .into_tree(options.cobd.as_deref())
        .map_err(|error| Failure::work(&error))?;
    let top = tree.lookup(path).map_err(|error| failed(&error))?;
    let mut parts = path.rsplit(|byte| *byte == b'/');
    let name = parts.find(|part| !part.is_empty() && *part != b".");
    let name = name.unwrap_or_default();
    match &options.output {
        None => {
            let mut stdout = BufWriter::with_capacity(1 << 20, std::io::stdout().lock());
            let written = tar::write_subtree(&tree, top, name, &mut stdout);
            // A reader that has what it wanted leaves, as with all that is printed.
            let flushed = written.and_then(|()| Ok(stdout.flush()?));
            match flushed {
                Err(WriteError::Output(error)) if error.kind() == ErrorKind::BrokenPipe => {}
                flushed => flushed.map_err(|error| failed(&error))?,
            }
        }
        Some(output) => {
            let staged = StagedFile::new(output).map_err(|error| Failure::work(&error))?;
            let mut file = BufWriter::with_capacity(1 << 20, &**staged.file());
            tar::write_subtree(&tree, top, name, &mut file).map_err(|error| failed(&error))?;
            file.flush().map_err(|error| Failure::work(&error))?;
            drop(file);
            staged
                .publish(true)
                .map_err(|error| Failure::work(&error))?;
        }
    }
    Ok(0)
}

/// Says why an image is not what was built, where the image itself tells.
pub(super) fn explain(appliance: &Appliance, error: &ApplianceError) -> Failure {
    let failure = Failure::work(error);
    let ApplianceError::Member { path, .. } = error else {
        return failure;
    };
    let mut devices = appliance.manifest.cobd.iter();
    let cobd = devices.find(|cobd| {
        appliance
            .path(&cobd.image)
            .is_ok_and(|image| image == *path)
    });
    match cobd.map(|cobd| (cobd.filesystem, image::mounts(path))) {
        Some((Filesystem::Ext4, Some(mounts @ 1..))) => {
            let times = if mounts == 1 { "once" } else { "several times" };
            failure.with_hint(format!(
                "it was mounted for writing {times} since it was built, as coop run --persist does"
            ))
        }
        Some(_) => {
            failure.with_hint("coop run --persist changes images; coop build makes new ones")
        }
        None => failure,
    }
}

/// Lines of a name and its value.
#[derive(Default)]
struct Table(Vec<(String, String)>);

impl Table {
    fn row(&mut self, name: &str, value: &str) {
        self.0.push((plain(name), plain(value)));
    }

    fn text(&self) -> String {
        let width = self.0.iter().map(|(name, _)| name.len()).max();
        let width = width.unwrap_or_default();
        let rows = self.0.iter();
        rows.map(|(name, value)| format!("{name:<width$}  {value}\n"))
            .collect()
    }
}

fn describe(manifest: &Manifest, verified: bool) -> Table {
    let mut table = Table::default();
    table.row("name", &manifest.name);
    if !manifest.description.is_empty() {
        table.row("description", &manifest.description);
    }
    table.row("architecture", &manifest.architecture);
    table.row("inputs", &manifest.inputs);
    let kernel = &manifest.kernel;
    table.row("kernel", &format!("{} {}", kernel.target, kernel.release));
    for source in &kernel.sources {
        table.row("kernel from", source);
    }
    if !manifest.kernel.cmdline.is_empty() {
        table.row("cmdline", &manifest.kernel.cmdline.join(" "));
    }
    let machine = &manifest.machine;
    let memory = ByteCount(machine.memory_bytes);
    table.row("memory", &memory.to_string());
    table.row("cpus", &machine.cpus.to_string());
    if let Root::Nfs(nfs) = &manifest.root {
        let text = match &nfs.server {
            Some(server) => format!("nfs from {server}:{}, read-only", nfs.path),
            None => "nfs from coop itself, read-only: the image of cobd0".to_owned(),
        };
        table.row("root", &text);
    }
    for (index, cobd) in manifest.cobd.iter().enumerate() {
        let mut text = format!("{} {}", cobd.name, bytes(cobd.image.size_bytes));
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
        let size = bytes(member.size_bytes);
        table.row(&member.path, &format!("{} {size}", member.sha256));
    }
    if verified {
        table.row("verified", "every file has its digest");
    }
    table
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
