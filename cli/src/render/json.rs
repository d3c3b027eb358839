//! Data for programs: one JSON value on stdout.

use std::path::Path;
use std::time::Duration;

use coop_builder::recipe::{Diagnostic, Place, Warning};
use coop_runtime::{Cause, DeviceReport, Report};
use serde_json::{Map, Value, json};

use crate::failure::{Failure, Reason};

/// Writes one value, indented.
pub(crate) fn value(value: &Value) {
    super::data(&format!("{value:#}\n"));
}

/// A path as text: JSON has no other, and what of a name is no UTF-8 is replaced.
pub(crate) fn path(path: &Path) -> Value {
    path.to_string_lossy().into()
}

/// What went wrong: a list, for a recipe may have several errors.
pub(crate) fn failure(failure: &Failure) -> Value {
    let errors = match &failure.reason {
        Reason::Recipe(diagnostics) => diagnostics.iter().map(diagnostic).collect(),
        Reason::Sentence {
            message,
            causes,
            hint,
        } => vec![json!({ "message": message, "causes": causes, "hint": hint })],
    };
    json!({ "errors": errors, "exit_code": failure.code })
}

/// An error in a recipe.
fn diagnostic(diagnostic: &Diagnostic) -> Value {
    json!({
        "file": diagnostic.file.display().to_string(),
        "place": place(diagnostic.place.as_ref()),
        "message": diagnostic.problem.to_string(),
        "hint": diagnostic.hint,
    })
}

/// A warning about a recipe.
pub(crate) fn warning(warning: &Warning) -> Value {
    json!({
        "file": warning.file.display().to_string(),
        "place": place(warning.place.as_ref()),
        "message": warning.message,
    })
}

fn place(place: Option<&Place>) -> Value {
    place.map_or(Value::Null, |place| {
        json!({
            "line": place.line,
            "column": place.column,
            "width": place.width,
            "text": place.text,
        })
    })
}

/// How a run went: why it ended, and when it came to each phase, in microseconds from the start
/// of the machine. `wall_us` is coop's own time, from the command line to the machine's end.
pub(crate) fn report(report: &Report, exit_code: u8, wall: Duration) -> Value {
    let phase = |(phase, time): &(coop_runtime::Phase, Duration)| json!({ "phase": phase.name(), "at_us": microseconds(*time) });
    let phases: Vec<Value> = report.phases.iter().map(phase).collect();
    let mut devices = Map::new();
    for (name, counted) in &report.devices {
        devices.insert(name.clone(), device(counted));
    }
    json!({
        "cause": cause(&report.cause),
        "message": report.cause.to_string(),
        "exit_code": exit_code,
        "clean": report.clean,
        "wall_us": microseconds(wall),
        "phases": phases,
        "devices": devices,
        "kernel_log": report.kernel_log,
    })
}

fn device(counted: &DeviceReport) -> Value {
    json!({
        "requests": counted.requests,
        "malformed": counted.malformed,
        "failed": counted.failed,
        "interrupts": counted.interrupts,
        "broken_rings": counted.broken_rings,
        "refused_messages": counted.refused_messages,
    })
}

/// The word for why a machine ended.
pub(crate) fn cause(cause: &Cause) -> &'static str {
    match cause {
        Cause::Exited(_) => "exited",
        Cause::PoweredOff => "powered_off",
        Cause::Panic(_) => "panic",
        Cause::Stopped => "stopped",
        Cause::Killed(_) => "killed",
        Cause::TimedOut => "timed_out",
        Cause::DeviceFailed { .. } => "device_failed",
        Cause::AgentFailed(_) => "agent_failed",
        Cause::BootFailed(_) => "boot_failed",
    }
}

/// A time as a whole number of microseconds.
pub(crate) fn microseconds(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
