//! Progress: bars on a terminal, lines or JSON lines elsewhere. All of it goes to stderr.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use coop_builder::recipe::Warning;
use coop_runtime::event::{Event, Observer, Unit};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde_json::json;

use super::{Output, error, line, plain};
use crate::arguments::Progress;

/// How often a bar that waits moves.
const TICK: Duration = Duration::from_millis(120);
/// A log has a line of a task's progress no more often than this.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// The observer that the options ask for.
pub(crate) fn observer(how: Progress, output: &Output) -> Box<dyn Observer> {
    match how {
        Progress::Auto if output.redraw => Box::new(Bars::default()),
        Progress::Auto | Progress::Plain => Box::new(Lines::default()),
        Progress::Json => Box::new(JsonLines),
        Progress::None => Box::new(Warnings),
    }
}

/// The observer of a run: what is automatic is quiet, for the streams are the guest's.
pub(crate) fn quiet_observer(how: Progress) -> Box<dyn Observer> {
    match how {
        Progress::Auto | Progress::None => Box::new(Warnings),
        Progress::Plain => Box::new(Lines::default()),
        Progress::Json => Box::new(JsonLines),
    }
}

/// Shows a recipe's warnings; with JSON lines they are some, too.
pub(crate) fn recipe_warnings(how: Progress, output: &Output, warnings: &[Warning]) {
    if how != Progress::Json {
        return error::warnings(output, warnings);
    }
    for warning in warnings {
        let mut value = super::json::warning(warning);
        value["event"] = "warning".into();
        line(&value.to_string());
    }
}

/// Another observer, and whether a signal has called the work off.
pub(crate) struct Interruptible {
    /// Who sees the events.
    pub(crate) inner: Box<dyn Observer>,
    /// Not 0 once a signal was heard.
    pub(crate) heard: Arc<AtomicU8>,
}

impl Observer for Interruptible {
    fn event(&self, event: &Event<'_>) {
        self.inner.event(event);
    }

    fn is_cancelled(&self) -> bool {
        self.heard.load(Ordering::SeqCst) != 0
    }
}

/// Bars that are redrawn; finished tasks leave a line.
#[derive(Default)]
struct Bars {
    all: MultiProgress,
    running: Mutex<BTreeMap<String, ProgressBar>>,
}

impl Bars {
    fn started(&self, task: &str, total: Option<u64>, unit: Unit) {
        let bar = match total {
            Some(total) => ProgressBar::new(total),
            None => ProgressBar::new_spinner(),
        };
        let template = match (total, unit) {
            (None, _) => "{spinner} {elapsed} {wide_msg}",
            (Some(_), Unit::Bytes) => {
                "{spinner} {msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec}"
            }
            (Some(_), Unit::Items) => "{spinner} {elapsed} {msg} [{bar:30}] {pos}/{len}",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        let bar = self.all.add(bar);
        bar.set_message(plain(task));
        bar.enable_steady_tick(TICK);
        self.lock().insert(task.to_owned(), bar);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, ProgressBar>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows a line above the bars that there are.
    fn say(&self, text: &str) {
        // Either fails only if stderr is gone.
        if self.lock().is_empty() {
            let _ = self.all.clear();
            line(text);
        } else {
            let _ = self.all.println(text);
        }
    }
}

impl Observer for Bars {
    fn event(&self, event: &Event<'_>) {
        match event {
            Event::TaskStarted { task, total, unit } => self.started(task, *total, *unit),
            Event::TaskProgress { task, done } => {
                if let Some(bar) = self.lock().get(*task) {
                    bar.set_position(*done);
                    if bar.length().is_none() {
                        bar.set_message(format!("{}: {done}", plain(task)));
                    }
                }
            }
            Event::TaskFinished { task, .. } => {
                if let Some(bar) = self.lock().remove(*task) {
                    bar.finish_and_clear();
                    self.all.remove(&bar);
                }
                if let Some(text) = sentence(event) {
                    self.say(&text);
                }
            }
            // A step that fails says its last lines again; until then one is enough.
            Event::GuestLine { line } => {
                if let Some((task, bar)) = self.lock().last_key_value() {
                    bar.set_message(format!("{}: {}", plain(task), plain(line)));
                }
            }
            Event::Warning { .. } | Event::Note { .. } => {
                if let Some(text) = sentence(event) {
                    self.say(&text);
                }
            }
        }
    }
}

/// One line for each event that a log should have, and one now and then for a task that takes long.
#[derive(Default)]
struct Lines(Mutex<BTreeMap<String, Course>>);

/// How a task goes on.
struct Course {
    total: Option<u64>,
    /// When the last line about it was written, or when it began.
    said: Instant,
}

impl Lines {
    /// What is worth a line at this time.
    fn line(&self, event: &Event<'_>, now: Instant) -> Option<String> {
        let mut running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::TaskStarted { task, total, .. } => {
                let (total, said) = (*total, now);
                running.insert((*task).to_owned(), Course { total, said });
            }
            Event::TaskProgress { task, done } => {
                let course = running.get_mut(*task)?;
                if now.saturating_duration_since(course.said) < LINE_INTERVAL {
                    return None;
                }
                course.said = now;
                return Some(progress(task, *done, course.total));
            }
            Event::TaskFinished { task, .. } => drop(running.remove(*task)),
            _ => {}
        }
        sentence(event)
    }
}

impl Observer for Lines {
    fn event(&self, event: &Event<'_>) {
        if let Some(text) = self.line(event, Instant::now()) {
            line(&text);
        }
    }
}

fn progress(task: &str, done: u64, total: Option<u64>) -> String {
    let task = plain(task);
    match total.filter(|total| *total > 0) {
        Some(total) => {
            let percent = u128::from(done) * 100 / u128::from(total);
            format!("{task}: {percent} %")
        }
        None => format!("{task}: {done}"),
    }
}

/// Warnings and nothing else.
struct Warnings;

impl Observer for Warnings {
    fn event(&self, event: &Event<'_>) {
        if let (Event::Warning { .. }, Some(text)) = (event, sentence(event)) {
            line(&text);
        }
    }
}

/// What a person reads about an event; progress within a task and its start are not worth a line.
fn sentence(event: &Event<'_>) -> Option<String> {
    match event {
        Event::TaskStarted { .. } | Event::TaskProgress { .. } => None,
        Event::TaskFinished { task, elapsed } => {
            Some(format!("{} ({:.1} s)", plain(task), elapsed.as_secs_f64()))
        }
        Event::GuestLine { line } => Some(format!("  | {}", plain(line))),
        Event::Warning { message } => Some(format!("warning: {}", plain(message))),
        Event::Note { message } => Some(plain(message)),
    }
}

/// One JSON value a line.
struct JsonLines;

impl Observer for JsonLines {
    fn event(&self, event: &Event<'_>) {
        line(&json_line(event));
    }
}

fn json_line(event: &Event<'_>) -> String {
    let value = match event {
        Event::TaskStarted { task, total, unit } => {
            let unit = match unit {
                Unit::Bytes => "bytes",
                Unit::Items => "items",
            };
            json!({"event": "task_started", "task": task, "total": total, "unit": unit})
        }
        Event::TaskProgress { task, done } => {
            json!({"event": "task_progress", "task": task, "done": done})
        }
        Event::TaskFinished { task, elapsed } => {
            let elapsed_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
            json!({"event": "task_finished", "task": task, "elapsed_ms": elapsed_ms})
        }
        Event::GuestLine { line } => json!({"event": "guest_line", "line": line}),
        Event::Warning { message } => json!({"event": "warning", "message": message}),
        Event::Note { message } => json!({"event": "note", "message": message}),
    };
    value.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_become_lines() {
        let finished = Event::TaskFinished {
            task: "download packages",
            elapsed: Duration::from_millis(1250),
        };
        assert_eq!(
            sentence(&finished).as_deref(),
            Some("download packages (1.2 s)")
        );
        assert_eq!(
            json_line(&finished),
            r#"{"elapsed_ms":1250,"event":"task_finished","task":"download packages"}"#
        );
        let progress = Event::TaskProgress { task: "x", done: 1 };
        assert_eq!(sentence(&progress), None);
    }

    #[test]
    fn a_log_hears_of_long_work_now_and_then() {
        let lines = Lines::default();
        let begin = Instant::now();
        let said = |event: &Event<'_>, seconds| {
            let now = begin + Duration::from_secs(seconds);
            lines.line(event, now)
        };
        let task = "compile the kernel";
        let started = Event::TaskStarted {
            task,
            total: Some(2000),
            unit: Unit::Items,
        };
        let progress = |done| Event::TaskProgress { task, done };
        assert_eq!(said(&started, 0), None);
        assert_eq!(said(&progress(100), 9), None);
        let line = said(&progress(210), 10);
        assert_eq!(line.as_deref(), Some("compile the kernel: 10 %"));
        assert_eq!(said(&progress(300), 15), None);
        assert!(said(&progress(1999), 20).unwrap().ends_with(": 99 %"));
        let finished = Event::TaskFinished {
            task,
            elapsed: Duration::from_secs(21),
        };
        assert!(said(&finished, 21).is_some());
        assert_eq!(said(&progress(1), 60), None);
    }
}
