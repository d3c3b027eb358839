//! What an image says about itself.

use std::path::Path;
use std::sync::Arc;

use coop_builder::cobd;
use coop_image::ext4::{self, Info};
use coop_image::tree::display;
use fs_err as fs;
use serde_json::json;

use super::Table;
use crate::command::Ended;
use crate::command::image::uuid_text;
use crate::failure::Failure;
use crate::render::{bytes, data, json as render_json};

/// Prints what an image says about itself.
pub(super) fn run(path: &Path, as_json: bool) -> Ended {
    if !as_json {
        data(&describe(path)?);
        return Ok(0);
    }
    let (info, file_bytes) = info(path)?;
    let least = cobd::minimum_bytes(path);
    render_json::value(&json!({
        "image": render_json::path(path),
        "file_bytes": file_bytes,
        "label": display(&info.label),
        "uuid": uuid_text(&info.uuid),
        "size_bytes": info.size_bytes(),
        "block_size_bytes": info.block_size_bytes,
        "blocks": info.blocks,
        "blocks_free": info.blocks_free,
        "blocks_reserved": info.blocks_reserved,
        "blocks_journal": info.blocks_journal,
        "inodes": info.inodes,
        "inodes_free": info.inodes_free,
        "minimum_bytes": least.as_ref().ok(),
        "minimum_unknown": least.as_ref().err().map(ToString::to_string),
        "features": info.features,
        "created": info.created.seconds,
        "mounts": info.mounts,
        "needs_recovery": info.needs_recovery,
        "has_errors": info.has_errors,
    }));
    Ok(0)
}

/// The lines about an image.
pub(super) fn describe(path: &Path) -> Result<String, Failure> {
    let (info, file_bytes) = info(path)?;
    let block = u64::from(info.block_size_bytes);
    let amount = |blocks: u64| bytes(blocks.saturating_mul(block));
    let mut table = Table::default();
    table.row("label", &display(&info.label));
    table.row("uuid", &uuid_text(&info.uuid));
    let mut size = format!("{} in blocks of {block}", bytes(info.size_bytes()));
    if file_bytes != info.size_bytes() {
        size.push_str(&format!("; the file has {}", bytes(file_bytes)));
    }
    table.row("size", &size);
    table.row("used", &amount(info.blocks_used()));
    let mut free = amount(info.blocks_free);
    if info.blocks_reserved > 0 {
        free.push_str(&format!(
            ", {} of it only for root",
            amount(info.blocks_reserved)
        ));
    }
    table.row("free", &free);
    table.row(
        "minimum",
        &match cobd::minimum_bytes(path) {
            Ok(least) => format!("{} ({least} bytes)", bytes(least)),
            Err(error) => format!("unknown: {error}"),
        },
    );
    let journal = match info.blocks_journal {
        0 => "none".to_owned(),
        blocks => amount(blocks),
    };
    table.row("journal", &journal);
    let (all, used) = (info.inodes, info.inodes_used());
    table.row("inodes", &format!("{all}, {used} used"));
    table.row("features", &info.features.join(" "));
    if info.mounts > 0 {
        table.row(
            "mounted",
            &format!("{} times since it was made", info.mounts),
        );
    }
    if info.needs_recovery {
        table.row(
            "state",
            "not unmounted; its journal is replayed when it is read",
        );
    }
    if info.has_errors {
        table.row("state", "its kernel found errors; e2fsck repairs them");
    }
    Ok(table.text())
}

/// How often an image was mounted for writing; `None` where it does not say.
pub(super) fn mounts(path: &Path) -> Option<u16> {
    info(path).ok().map(|(info, _)| info.mounts)
}

fn info(path: &Path) -> Result<(Info, u64), Failure> {
    let file = fs::File::open(path).map_err(|error| Failure::work(&error))?;
    let (file, _) = file.into_parts();
    let length = file
        .metadata()
        .map_err(|error| Failure::work(&error))?
        .len();
    let info = ext4::read_info(Arc::new(file));
    let info = info.map_err(|error| Failure::work(&error).about(path))?;
    Ok((info, length))
}
