//! A root on NFS: the server that coop is, or the address of another.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::nfs::{Export, NfsServer, PORT, Squash};
use crate::spec::{MachineSpec, RootSpec};

/// What the guest's kernel must have for it, built in or as a module.
const NEEDED: [&str; 2] = ["CONFIG_NFS_FS", "CONFIG_NFS_V3"];

/// Images that coop serves to machines as their roots. Each is read once, however many machines
/// have it.
#[derive(Default)]
pub struct Exports(BTreeMap<PathBuf, Arc<Export>>);

impl Exports {
    /// The image, and what its first user should know.
    fn open(&mut self, image: &Path) -> Result<(Arc<Export>, Option<String>), String> {
        if let Some(export) = self.0.get(image) {
            return Ok((Arc::clone(export), None));
        }
        let export = Export::open(image, Squash::No).map_err(|error| error.to_string())?;
        let warning = export.attributed().map(|attributed| attributed.to_string());
        let export = Arc::new(export);
        self.0.insert(image.to_owned(), Arc::clone(&export));
        Ok((export, warning))
    }
}

/// Makes a root on NFS ready: serves the image to the guest's network, or finds the server's
/// address. Gives what its user should know.
///
/// # Errors
/// One sentence: the image cannot be served, there is no such server, or no network.
pub(crate) fn prepare(
    spec: &mut MachineSpec,
    exports: &mut Exports,
) -> Result<Option<String>, String> {
    match &mut spec.root {
        RootSpec::Disk => Ok(None),
        RootSpec::Nfs { server, .. } => {
            *server = address(server)?.to_string();
            Ok(None)
        }
        RootSpec::Served { image, .. } => {
            let (export, warning) = exports.open(image)?;
            let network = spec.network.as_mut();
            let network = network.ok_or("it is on NFS, and the machine has no network")?;
            // A server for each machine, so that none can take the connections of another.
            network.services.push(NfsServer::new(export).service(PORT));
            Ok(warning)
        }
    }
}

/// Whether a kernel of this .config can mount the root.
pub(crate) fn check_kernel(config: &str) -> Result<(), String> {
    let has = |symbol: &str| {
        let lines = ["=y", "=m"].map(|value| format!("{symbol}{value}"));
        config
            .lines()
            .any(|line| lines.iter().any(|set| set == line))
    };
    let missing: Vec<&str> = NEEDED.into_iter().filter(|symbol| !has(symbol)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let missing = missing.join(" and ");
    Err(format!(
        "the root is on NFS, and the guest's kernel has no {missing}; kernel.config: [nfs-root] \
         makes one that has"
    ))
}

fn address(server: &str) -> Result<Ipv4Addr, String> {
    let found = (server, PORT)
        .to_socket_addrs()
        .map_err(|error| format!("cannot find the NFS server {server}: {error}"))?;
    let mut addresses = found.filter_map(|address| match address.ip() {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    });
    match addresses.next() {
        Some(address) if address.is_loopback() => Err(format!(
            "the NFS server {server} is on a loopback, which is the guest's own in the guest; with \
             allow_host the host's loopback is {}",
            crate::GATEWAY
        )),
        Some(address) => Ok(address),
        None => Err(format!("the NFS server {server} has no IPv4 address")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_needs_version_3() {
        check_kernel("CONFIG_NFS_FS=y\nCONFIG_NFS_V3=m\n").unwrap();
        let missing = check_kernel("CONFIG_NFS_FS=m\nCONFIG_NFS_V3_ACL=y\n").unwrap_err();
        assert!(missing.contains("no CONFIG_NFS_V3;"), "{missing}");
    }

    #[test]
    fn a_server_is_an_address_outside_of_the_guest() {
        assert_eq!(address("192.0.2.7"), Ok(Ipv4Addr::new(192, 0, 2, 7)));
        assert!(address("127.0.0.1").unwrap_err().contains("10.0.2.2"));
    }
}
