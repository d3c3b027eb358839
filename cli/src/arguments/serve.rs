//! `coop serve`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

/// What the long help ends with.
pub(super) const EXAMPLES: &str = "Examples:
  coop serve out/web --listen 127.0.0.1:2049
  coop serve out/web --listen 192.0.2.1:2049 --no-root-squash    to boot from it

It says how to mount it. NFS version 3 over TCP knows no passwords: whoever reaches the address
reads as whichever user they say they are. Only root is not believed, and reads what everybody may,
unless --no-root-squash says otherwise. Nothing can be written, and nothing but the image is read.
Ctrl-C or SIGTERM ends it; clients wait until it is there again, and have to mount it anew then.";

/// `coop serve`.
#[derive(Args, Debug)]
pub(crate) struct ServeOptions {
    /// An appliance's folder, or an ext4 image
    pub(crate) target: PathBuf,
    /// The address and port to listen on, as 192.0.2.1:2049; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) listen: SocketAddr,
    /// Which cobd of an appliance is served [default: the root]
    #[arg(long, value_name = "NAME")]
    pub(crate) cobd: Option<String>,
    /// Believe clients that are root, and give them every file
    #[arg(long)]
    pub(crate) no_root_squash: bool,
}
