//! What each machine must have of its own and an image must not: ssh host keys.
//!
//! Packages make host keys when they are configured; [`super::normalise`] takes them out, because
//! every machine of one image would share them. Debian's own unit makes new ones on a first boot
//! only, and an appliance boots for the first time every time.

use coop_image::tree::{Metadata, Times, Timestamp, Tree};

use super::RootfsError;
use super::files::put;

const UNIT: &[u8] = b"/usr/lib/systemd/system/ssh.service";
const KEYGEN: &[u8] = b"/usr/bin/ssh-keygen";
const DROP_IN: &[u8] = b"/etc/systemd/system/ssh.service.d/coop-host-keys.conf";

/// The empty assignment takes the unit's own check out, which fails where there are no keys yet;
/// it comes back behind the making of keys. A machine that was given one keeps to that: others would
/// be new ones at each boot.
const TEXT: &str = "\
# Written by coop: the image has no host keys, each machine has or makes its own.
[Service]
ExecStartPre=
ExecStartPre=/bin/sh -c 'test -e /etc/ssh/ssh_host_ed25519_key || exec /usr/bin/ssh-keygen -A'
ExecStartPre=/usr/sbin/sshd -t
";

/// Lets an ssh server make its host keys before it starts.
///
/// # Errors
/// A folder stands where the unit's drop-in goes.
pub(super) fn make_host_keys_at_boot(tree: &mut Tree, epoch: Timestamp) -> Result<(), RootfsError> {
    if tree.resolve(UNIT).is_err() || tree.resolve(KEYGEN).is_err() {
        return Ok(());
    }
    let content = tree.add_bytes(TEXT.into())?;
    let metadata = Metadata {
        mode: 0o644,
        times: Times::all(epoch),
        ..Metadata::default()
    };
    put(tree, DROP_IN, content, metadata).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_ssh_server_gets_it() {
        let mut tree = Tree::new(Metadata::default());
        make_host_keys_at_boot(&mut tree, Timestamp::default()).unwrap();
        assert!(tree.resolve(DROP_IN).is_err());
        for path in [UNIT, KEYGEN] {
            let content = tree.add_bytes(Vec::new()).unwrap();
            put(&mut tree, path, content, Metadata::default()).unwrap();
        }
        make_host_keys_at_boot(&mut tree, Timestamp::default()).unwrap();
        let id = tree.resolve(DROP_IN).unwrap();
        assert_eq!(tree.read_file(id, 1000).unwrap(), TEXT.as_bytes());
    }
}
