//! `coop ps`: the machines that are left running, and what became of those that were.

use serde_json::{Value, json};

use super::{machines, now, recorded};
use crate::arguments::PsOptions;
use crate::command::Ended;
use crate::environment::Environment;
use crate::failure::Failure;
use crate::render::{data, json as render_json, plain};

/// Lists them; the newest last among those that have ended.
pub(crate) fn list(options: &PsOptions, environment: &Environment) -> Ended {
    let living = machines(environment)?.into_iter();
    let mut listed: Vec<Value> = living
        .map(|one| of_state(one.description, &one.id, "running"))
        .collect();
    if options.all {
        let others = others(&listed, environment)?;
        listed.extend(others);
    }
    if options.json {
        render_json::value(&json!({ "machines": listed }));
        return Ok(0);
    }
    for one in &listed {
        let text = |key: &str| one[key].as_str().unwrap_or_default();
        let pid = one["pid"]
            .as_u64()
            .map_or("-".to_owned(), |pid| pid.to_string());
        let mut line = format!(
            "{}\t{}\t{pid}\t{}",
            text("id"),
            text("name"),
            text("target")
        );
        if options.all {
            line = format!("{line}\t{}", fate(one, now()));
        }
        data(&format!("{}\n", plain(&line)));
    }
    Ok(0)
}

/// The machines that have records and are not listed.
fn others(listed: &[Value], environment: &Environment) -> Result<Vec<Value>, Failure> {
    let recorded = recorded(environment)?.into_iter();
    let others = recorded.filter(|(one, _)| listed.iter().all(|other| other["id"] != one.machine));
    let each = others.map(|(one, mut description)| {
        let state = match (one.lives, description["ended"].is_u64()) {
            (true, _) => "running",
            (false, true) => "ended",
            (false, false) => "lost",
        };
        if !one.lives
            && let Some(map) = description.as_object_mut()
        {
            // Another process may have it by now.
            map.remove("pid");
        }
        of_state(description, &one.machine, state)
    });
    Ok(each.collect())
}

fn of_state(mut description: Value, id: &str, state: &str) -> Value {
    description["id"] = id.into();
    description["state"] = state.into();
    description
}

/// What has become of it.
fn fate(one: &Value, now: u64) -> String {
    match (one["exit_code"].as_u64(), one["ended"].as_u64()) {
        (Some(code), Some(ended)) => format!("exit {code}, {}", ago(now.saturating_sub(ended))),
        _ => one["state"].as_str().unwrap_or_default().to_owned(),
    }
}

/// How long ago something was, for people.
pub(super) fn ago(seconds: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(86_400, "day"), (3600, "hour"), (60, "minute")];
    let unit = UNITS.iter().find(|(length, _)| seconds >= *length);
    let (length, name) = unit.copied().unwrap_or((1, "second"));
    match seconds / length {
        1 => format!("1 {name} ago"),
        count => format!("{count} {name}s ago"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_became_of_machines_is_told_shortly() {
        let ended = json!({ "state": "ended", "exit_code": 7, "ended": 1000 });
        assert_eq!(fate(&ended, 1001), "exit 7, 1 second ago");
        assert_eq!(fate(&ended, 1119), "exit 7, 1 minute ago");
        assert_eq!(fate(&ended, 8300), "exit 7, 2 hours ago");
        assert_eq!(fate(&ended, 999), "exit 7, 0 seconds ago");
        assert_eq!(ago(200_000), "2 days ago");
        assert_eq!(fate(&json!({ "state": "lost" }), 1), "lost");
    }
}
