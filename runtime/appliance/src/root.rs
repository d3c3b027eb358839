//! Where a guest's root file system comes from.

use serde::{Deserialize, Serialize};

/// Where a guest's root file system comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Root {
    /// The first cobd.
    #[default]
    Cobd,
    /// An NFS server, read-only. The first cobd is then no device of the guest; the others keep
    /// their numbers.
    Nfs(NfsRoot),
}

/// A root file system on an NFS server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NfsRoot {
    /// The server's address or name; without one coop itself serves the image of the first cobd.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// What the server exports, an absolute path.
    pub path: String,
    /// Words for the guest's NFS client, as `rsize=32768`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
}

impl Root {
    /// Whether the root is the first cobd, as in manifests that do not say.
    #[must_use]
    pub fn is_cobd(&self) -> bool {
        *self == Self::Cobd
    }
}
