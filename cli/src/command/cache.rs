//! `coop cache`: what is kept between builds.

use std::collections::BTreeMap;

use coop_builder::store::{Entry, GcOptions, Part};
use serde_json::{Value, json};

use super::Ended;
use super::kernel::list::date;
use super::means;
use crate::arguments::{CacheCommand, CacheGcOptions, CacheListOptions, CacheVerifyOptions};
use crate::environment::Environment;
use crate::failure::{FAILED, Failure};
use crate::render::{bytes, data, json as render_json, line, plain};

/// Lists, removes or checks.
pub(crate) fn run(command: &CacheCommand, environment: &Environment) -> Ended {
    match command {
        CacheCommand::Ls(options) => list(options, environment),
        CacheCommand::Gc(options) => collect(options, environment),
        CacheCommand::Verify(options) => verify(options, environment),
    }
}

/// Whether one JSON value is asked for.
pub(crate) fn is_json(command: &CacheCommand) -> bool {
    match command {
        CacheCommand::Ls(options) => options.json,
        CacheCommand::Gc(options) => options.json,
        CacheCommand::Verify(options) => options.json,
    }
}

/// Files of one kind, together.
struct Group {
    files: usize,
    size_bytes: u64,
    oldest_seconds: i64,
    newest_seconds: i64,
}

/// By part, and by kind where the part has several.
fn groups(entries: &[Entry]) -> BTreeMap<(Part, &str), Group> {
    let mut groups: BTreeMap<(Part, &str), Group> = BTreeMap::new();
    for entry in entries {
        let used = entry.used_seconds;
        let kind = match entry.part {
            Part::Step | Part::Derived => entry.kind.as_str(),
            _ => "",
        };
        let group = groups.entry((entry.part, kind)).or_insert(Group {
            files: 0,
            size_bytes: 0,
            oldest_seconds: used,
            newest_seconds: used,
        });
        group.files += 1;
        group.size_bytes = group.size_bytes.saturating_add(entry.size_bytes);
        group.oldest_seconds = group.oldest_seconds.min(used);
        group.newest_seconds = group.newest_seconds.max(used);
    }
    groups
}

fn part_name(part: Part) -> &'static str {
    match part {
        Part::Download => "downloads",
        Part::Step => "steps",
        Part::Derived => "derived",
        Part::Appliance => "appliances",
        Part::Note => "notes",
        Part::Log => "logs",
        Part::Temporary => "temporary",
        Part::Bad => "set aside",
    }
}

fn list(options: &CacheListOptions, environment: &Environment) -> Ended {
    let store = means::open_store(environment)?;
    let entries = store.entries().map_err(|error| Failure::work(&error))?;
    let groups = groups(&entries);
    let total: u64 = entries.iter().map(|entry| entry.size_bytes).sum();
    if options.json {
        let kinds = groups.iter().map(|((part, kind), group)| {
            json!({
                "part": part,
                "kind": kind,
                "files": group.files,
                "size_bytes": group.size_bytes,
                "oldest_use_seconds": group.oldest_seconds,
                "newest_use_seconds": group.newest_seconds,
            })
        });
        let mut value = json!({
            "folder": render_json::path(store.root()),
            "size_bytes": total,
            "kinds": kinds.collect::<Vec<Value>>(),
        });
        if options.objects {
            value["objects"] = json!(entries);
        }
        render_json::value(&value);
        return Ok(0);
    }
    if options.objects {
        for entry in &entries {
            data(&row(entry));
        }
        return Ok(0);
    }
    for ((part, kind), group) in &groups {
        data(&format!(
            "{:28} {:>7}  {:>10}  last used {}\n",
            format!("{} {}", part_name(*part), plain(kind)).trim_end(),
            group.files,
            bytes(group.size_bytes),
            date(group.newest_seconds),
        ));
    }
    data(&format!(
        "{:28} {:>7}  {:>10}\n",
        "all",
        entries.len(),
        bytes(total)
    ));
    Ok(0)
}

fn row(entry: &Entry) -> String {
    format!(
        "{:>10}  {}  {}  {}\n",
        bytes(entry.size_bytes),
        date(entry.used_seconds),
        plain(&entry.kind),
        plain(&entry.path.to_string_lossy()),
    )
}

fn collect(options: &CacheGcOptions, environment: &Environment) -> Ended {
    let store = means::open_store(environment)?;
    let report = store
        .collect_garbage(GcOptions {
            size_bytes_max: options.max_size.map(|size| size.0),
            steps: options.steps,
            bad: options.bad,
            dry_run: options.dry_run,
        })
        .map_err(|error| Failure::work(&error))?;
    if options.json {
        render_json::value(&json!({ "dry_run": options.dry_run, "report": report }));
        return Ok(0);
    }
    for path in &report.in_use {
        line(&format!(
            "{} runs and stays",
            plain(&path.to_string_lossy())
        ));
    }
    for ((part, kind), group) in groups(&report.removed) {
        data(&format!(
            "{:28} {:>7}  {:>10}\n",
            format!("{} {}", part_name(part), plain(kind)).trim_end(),
            group.files,
            bytes(group.size_bytes),
        ));
    }
    let verb = if options.dry_run {
        "would go"
    } else {
        "removed"
    };
    let (gone, left) = (bytes(report.removed_bytes), bytes(report.left_bytes));
    data(&format!("{gone} {verb}, {left} left\n"));
    let asked = options.max_size.is_some() || options.steps || options.bad;
    if !asked {
        line("hint: --max-size SIZE, --steps and --bad say what else may go");
    }
    Ok(0)
}

fn verify(options: &CacheVerifyOptions, environment: &Environment) -> Ended {
    let store = means::open_store(environment)?;
    let report = store
        .verify(&|_| {})
        .map_err(|error| Failure::work(&error))?;
    if options.json {
        render_json::value(&json!(report));
    } else {
        for wrong in &report.bad {
            let path = wrong.path.to_string_lossy();
            data(&format!("{}: {}\n", plain(&path), plain(&wrong.problem)));
        }
        let (files, size) = (report.checked, bytes(report.checked_bytes));
        data(&format!(
            "{files} files with {size} checked, {} set aside\n",
            report.bad.len()
        ));
        if !report.bad.is_empty() {
            let bad = store.root().join("bad");
            line(&format!("what was set aside lies in {}", bad.display()));
        }
    }
    Ok(if report.bad.is_empty() { 0 } else { FAILED })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_counted_by_kind() {
        let folder = tempfile::tempdir().unwrap();
        let store = coop_builder::store::Store::open(folder.path()).unwrap();
        store.put(b"a").unwrap();
        store.put(b"b").unwrap();
        store.put_note("date", "a", b"1").unwrap();
        let entries = store.entries().unwrap();
        let groups = groups(&entries);
        let downloads = &groups[&(Part::Download, "")];
        assert_eq!(downloads.files, 2);
        assert!(downloads.size_bytes > 0);
        assert!(downloads.oldest_seconds <= downloads.newest_seconds);
        assert!(groups.contains_key(&(Part::Note, "")));
    }
}
