//! `coop serve`: an appliance's root for others, by NFS.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use coop_appliance::{Appliance, Filesystem};
use coop_runtime::nfs::{Export, NfsServer, Squash};

use super::Ended;
use super::subject::{self, Kind};
use crate::arguments::ServeOptions;
use crate::failure::Failure;
use crate::render::{data, line, plain};
use crate::signals::Interruption;

/// Serves until a signal ends it.
pub(crate) fn run(options: &ServeOptions) -> Ended {
    let image = image(options)?;
    let squash = match options.no_root_squash {
        true => Squash::No,
        false => Squash::Root,
    };
    let export = Export::open(&image, squash).map_err(|error| Failure::work(&error))?;
    let interruption = Interruption::start(|| {}).map_err(|error| Failure::work(&error))?;
    let address = options.listen;
    let listener = TcpListener::bind(address).map_err(|error| unbound(address, &error))?;
    let address = listener
        .local_addr()
        .map_err(|error| Failure::work(&error))?;
    if let Some(attributed) = export.attributed() {
        line(&format!("warning: {}", plain(&attributed.to_string())));
    }
    data(&how_to_mount(&image, address, squash));
    let served = NfsServer::new(export).serve(&listener, &|| interruption.signal().is_some());
    served.map_err(|error| Failure::work(&error))?;
    // This is how a server is meant to end.
    Ok(0)
}

fn unbound(address: SocketAddr, error: &std::io::Error) -> Failure {
    let failure = Failure::usage(format!("cannot listen on {address}: {error}"));
    match error.kind() {
        std::io::ErrorKind::AddrInUse => failure.with_hint("--listen names another port"),
        std::io::ErrorKind::AddrNotAvailable => {
            failure.with_hint("--listen names an address of this host, or 0.0.0.0 for all")
        }
        _ => failure,
    }
}

/// The image that is served.
fn image(options: &ServeOptions) -> Result<PathBuf, Failure> {
    let target: &Path = &options.target;
    if subject::expect(target, &[Kind::Appliance, Kind::Image])? != Kind::Appliance {
        return match &options.cobd {
            None => Ok(target.to_owned()),
            Some(_) => Err(Failure::usage("--cobd goes with an appliance's folder")),
        };
    }
    let appliance = Appliance::open(target).map_err(|error| Failure::work(&error))?;
    let cobds = &appliance.manifest.cobd;
    let cobd = match &options.cobd {
        None => cobds.first(),
        Some(name) => cobds.iter().find(|cobd| cobd.name == *name),
    };
    let shown = target.display();
    match cobd {
        Some(cobd) if cobd.filesystem == Filesystem::Ext4 => appliance
            .path(&cobd.image)
            .map_err(|error| Failure::work(&error)),
        Some(cobd) => Err(Failure::usage(format!(
            "{shown}: the cobd {} holds no file system that can be served",
            cobd.name
        ))),
        None => {
            let names: Vec<&str> = cobds.iter().map(|cobd| &*cobd.name).collect();
            let failure = Failure::usage(format!("{shown} has no such cobd"));
            Err(failure.with_hint(format!("it has {}", names.join(", "))))
        }
    }
}

fn how_to_mount(image: &Path, address: SocketAddr, squash: Squash) -> String {
    let port = address.port();
    let host = match address {
        _ if address.ip().is_unspecified() => "HOST".to_owned(),
        SocketAddr::V4(address) => address.ip().to_string(),
        SocketAddr::V6(address) => format!("[{}]", address.ip()),
    };
    let proto = if address.is_ipv4() { "tcp" } else { "tcp6" };
    let root = match squash {
        Squash::No => "clients' root reads everything",
        Squash::Root => "clients' root is nobody",
    };
    format!(
        "serving {} on {address}, read-only; {root}\n\
         mount -t nfs -o ro,vers=3,proto={proto},mountproto={proto},port={port},mountport={port},\
         nolock {host}:/ /mnt\n\
         devices: {{root: {{nfs: {{server: {host}, path: /, options: [port={port}, \
         mountport={port}]}}}}}}\n",
        image.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_the_mount_fit_the_address() {
        let text = |address: &str| {
            let address = address.parse().unwrap();
            how_to_mount(Path::new("a"), address, Squash::Root)
        };
        let named = text("192.0.2.1:2049");
        assert!(named.contains("proto=tcp,"), "{named}");
        assert!(
            named.contains("mountport=2049,nolock 192.0.2.1:/ /mnt\n"),
            "{named}"
        );
        assert!(text("0.0.0.0:1").contains("nolock HOST:/ /mnt"));
        let six = text("[2001:db8::1]:7");
        assert!(
            six.contains("proto=tcp6,") && six.contains("[2001:db8::1]:/"),
            "{six}"
        );
    }
}
