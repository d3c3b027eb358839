//! `devices.root`: where the guest's root file system comes from.

use coop_appliance::{NfsRoot, Root, Target};

use super::decode::At;
use super::names;
use super::resolve::Resolver;
use super::units::shorten;
use super::written;

const PATH: &str = "devices.root";
/// What coop itself says to the guest's NFS client.
const SAID_BY_COOP: &[&str] = &[
    "addr",
    "mountaddr",
    "mounthost",
    "mountproto",
    "proto",
    "tcp",
    "udp",
    "rdma",
    "vers",
    "nfsvers",
    "minorversion",
    "v2",
    "v3",
    "v4",
    "ro",
    "rw",
    "lock",
    "nolock",
    "clientaddr",
];
/// The most options, and the longest one in bytes: the kernel takes a page of them in all.
pub(crate) const NFS_OPTIONS_MAX: usize = 32;
const OPTION_LENGTH_MAX: usize = 64;

impl Resolver<'_, '_> {
    /// What `devices.root` means; the default is the first cobd.
    pub(super) fn device_root(
        &mut self,
        written: Option<At<written::Root>>,
        has_network: bool,
        target: Target,
    ) -> Root {
        let Some(At { value, at }) = written else {
            return Root::Cobd;
        };
        let nfs = match value {
            written::Root::Name(name) => match &*name {
                "cobd0" => return Root::Cobd,
                "nfs" => written::NfsRoot::default(),
                _ => {
                    self.d
                        .reject(at, PATH, "the root is cobd0, nfs, or nfs: {server, path}");
                    return Root::Cobd;
                }
            },
            written::Root::Nfs(nfs) => nfs,
        };
        if !has_network {
            self.d
                .reject(at, PATH, "a root on NFS needs a network in devices.conet");
        }
        if target != Target::Um {
            let reason = format!("a root on NFS needs a kernel that coop runs, not {target}");
            self.d.reject(at, PATH, reason);
        }
        Root::Nfs(self.nfs_root(nfs))
    }

    fn nfs_root(&mut self, written: written::NfsRoot) -> NfsRoot {
        let key = |key: &str| format!("{PATH}.nfs.{key}");
        if let (None, Some(path)) = (&written.server, &written.path) {
            let reason = "goes with a server; coop itself serves the root as /";
            self.d.reject(path.at, &key("path"), reason);
        }
        if let (Some(server), None) = (&written.server, &written.path) {
            let reason = "needs the path that the server exports";
            self.d.reject(server.at, &key("path"), reason);
        }
        let path = written.path.map_or_else(
            || "/".to_owned(),
            |path| self.checked(path, &key("path"), names::guest_folder),
        );
        NfsRoot {
            server: written
                .server
                .map(|server| self.checked(server, &key("server"), server_name)),
            path,
            options: self.nfs_options(written.options, &key("options")),
        }
    }

    fn nfs_options(&mut self, written: Vec<At<String>>, path: &str) -> Vec<String> {
        if let Some(first) = written.get(NFS_OPTIONS_MAX) {
            let reason = format!("more than {NFS_OPTIONS_MAX} options");
            self.d.reject(first.at, path, reason);
        }
        let options = written.into_iter().take(NFS_OPTIONS_MAX);
        options
            .map(|option| self.checked(option, path, nfs_option))
            .collect()
    }
}

/// An address or a name of a host.
pub(crate) fn server_name(text: &str) -> Result<(), String> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"-.".contains(&byte);
    if !text.is_empty() && text.len() <= 253 && text.bytes().all(good) {
        return Ok(());
    }
    let shown = shorten(text);
    Err(format!("'{shown}' is no IPv4 address or name of a host"))
}

/// A word for mount(8)'s `-o`, of those that are left to the recipe.
pub(crate) fn nfs_option(text: &str) -> Result<(), String> {
    let shown = shorten(text);
    let name = text.split('=').next().unwrap_or_default();
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.=:".contains(&byte);
    if name.is_empty() || text.len() > OPTION_LENGTH_MAX || !text.bytes().all(good) {
        return Err(format!(
            "'{shown}' is no option; write one word, as soft or rsize=32768"
        ));
    }
    if SAID_BY_COOP.contains(&name) || name.starts_with("v4.") {
        return Err(format!(
            "'{shown}' is not the recipe's to say: coop mounts NFS version 3 over TCP, read-only, without locks"
        ));
    }
    Ok(())
}
