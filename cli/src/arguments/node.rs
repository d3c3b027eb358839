//! Which node a run is, and how many there are.

use clap::Args;
use coop_runtime::NODES_MAX;

/// Who the guests are.
#[derive(Args, Debug, Default)]
pub(crate) struct NodeOptions {
    /// Be this node of the appliance: its host name, machine-id and ssh host key are its own, are
    /// kept on the host, and stay the same from boot to boot [default: nothing is kept]
    #[arg(long, value_name = "NAME")]
    pub(crate) node: Option<String>,
    /// Start so many nodes, NAME1 to NAMEN, which reach each other by name; each runs the command,
    /// with its name before each line that it prints. Port HOST of a forward leads to the first,
    /// the next ports to the others [default of NAME: the appliance's]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=i64::from(NODES_MAX)), conflicts_with = "tty")]
    pub(crate) nodes: Option<u8>,
}

impl NodeOptions {
    /// Whether the run is of nodes at all.
    pub(crate) fn is_given(&self) -> bool {
        self.node.is_some() || self.nodes.is_some()
    }
}
