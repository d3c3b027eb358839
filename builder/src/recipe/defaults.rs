//! What a recipe has where its writer says nothing.

use std::time::Duration;

use super::model::{Cobd, CobdContent, Conet, Owner, RootSize};
use super::units::{ByteCount, Percent};

/// The name of the block device with the root.
pub(super) const ROOT_NAME: &str = "root";

/// Fills in what is absent: the one place that knows the defaults. What the recipe's writer gave
/// stays.
pub(super) struct Defaults;

impl Defaults {
    pub(super) const MEMORY: ByteCount = ByteCount(256 << 20);
    pub(super) const CPUS: u32 = 1;
    pub(super) const FILE_MODE: u16 = 0o644;
    pub(super) const FREE: Percent = Percent(20);
    pub(super) const FREE_MIN: ByteCount = ByteCount(256 << 20);
    pub(super) const COLUMNS: u16 = 80;
    pub(super) const ROWS: u16 = 25;
    pub(super) const TEST_TIMEOUT: Duration = Duration::from_secs(60);
    pub(super) const SHELL: &'static str = "/bin/bash";
    pub(super) const PARTITION: &'static str = "root";

    pub(super) fn owner() -> Owner {
        Owner::Id(0)
    }

    pub(super) fn home(user: &str) -> String {
        match user {
            "root" => "/root".to_owned(),
            other => format!("/home/{other}"),
        }
    }

    /// Nobody can use what is free in a root that is read-only.
    pub(super) fn root_size(is_readonly: bool) -> RootSize {
        match is_readonly {
            true => RootSize::Auto {
                free: Percent(0),
                free_min: ByteCount(0),
            },
            false => RootSize::Auto {
                free: Self::FREE,
                free_min: Self::FREE_MIN,
            },
        }
    }

    pub(super) fn root_cobd(is_readonly: bool) -> Cobd {
        Cobd {
            name: ROOT_NAME.to_owned(),
            content: CobdContent::Root {
                size: Self::root_size(is_readonly),
            },
        }
    }

    pub(super) fn conet() -> Conet {
        Conet::User {
            forward: Vec::new(),
            allow_host: false,
        }
    }
}
