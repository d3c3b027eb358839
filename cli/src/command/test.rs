//! `coop test`: boots an appliance as a whole and runs the steps of its `test:` in there.

use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use coop_appliance::{Appliance, TestStep};
use coop_runtime::{
    ExecError, ExecRequest, ExecStreams, Exit, Machine, MachineSpec, Running, Watch, Workload,
};
use serde_json::{Value, json};

use super::run::{not_up, refuse_for_built};
use super::subject::{self, Kind};
use super::watched::Watched;
use super::{Ended, build};
use crate::arguments::TestOptions;
use crate::environment::Environment;
use crate::failure::{FAILED, Failure};
use crate::host;
use crate::render::{Output, data, json as render_json, line, plain};

/// How long a system may take until all of it has started.
const START_TIMEOUT: Duration = Duration::from_secs(120);
/// How long a killed step may take to end.
const KILL_PATIENCE: Duration = Duration::from_secs(5);
/// How long the guest may take to power off.
const SHUT_DOWN_PATIENCE: Duration = Duration::from_secs(20);
/// So much of a step's output is kept.
const OUTPUT_BYTES_MAX: usize = 1 << 20;
/// So many lines of a failed step's output are shown.
const LINES_SHOWN: usize = 20;
/// The signal that nothing withstands.
const SIGKILL: u8 = 9;
/// Waits until systemd has started all that it is to start. Other inits do not tell.
const WAIT_FOR_SYSTEM: &str = "\
    [ \"$(cat /proc/1/comm)\" = systemd ] || exit 0
    until [ -S /run/systemd/private ]; do sleep 0.1; done
    exec systemctl is-system-running --wait";

/// Runs the steps, and exits with 1 where one does not hold.
pub(crate) fn run(options: &TestOptions, environment: &Environment, output: &Output) -> Ended {
    let (folder, _held) = folder(options, environment, output)?;
    let folder = std::path::absolute(&folder).map_err(|error| Failure::work(&error))?;
    let appliance = Appliance::open(&folder).map_err(|error| Failure::work(&error))?;
    let steps = &appliance.manifest.test;
    if steps.is_empty() {
        let message = format!("{} has no steps under test:", appliance.manifest.name);
        return Err(Failure::usage(message));
    }
    let mut spec = MachineSpec::of_appliance(&appliance, host::host(environment))
        .map_err(|error| Failure::work(&error))?;
    spec.workload = Workload::Init;
    let watched = Watched::start_quietly(options.recipe_options.progress)?;
    let watch = Watch {
        observer: Arc::clone(&watched.observer),
        kernel_log: None,
    };
    let machine = Machine::check(spec).map_err(|error| Failure::work(&error))?;
    let running = machine
        .start(watch)
        .map_err(|error| Failure::work(&error))?;
    let outcomes = attend(&Arc::new(running), steps, options.json)?;
    if let Some(failure) = watched.stopped("the test was stopped by a signal") {
        return Err(failure);
    }
    let passed = outcomes.iter().filter(|one| one.verdict.is_good()).count();
    if options.json {
        let each: Vec<Value> = outcomes.iter().map(describe).collect();
        render_json::value(&json!({
            "appliance": render_json::path(&folder),
            "passed": passed == steps.len(),
            "steps": each,
        }));
    } else {
        line(&format!("{passed} of {} steps passed", steps.len()));
    }
    Ok(if passed == steps.len() { 0 } else { FAILED })
}

/// The appliance's folder, built if need be, and what keeps it in the cache.
fn folder(
    options: &TestOptions,
    environment: &Environment,
    output: &Output,
) -> Result<(PathBuf, Option<build::Held>), Failure> {
    let file = &options.target;
    let recipe_options = options.recipe_options.with(&options.secrets);
    if subject::expect(file, &[Kind::Recipe, Kind::Appliance])? == Kind::Appliance {
        refuse_for_built(&recipe_options)?;
        return Ok((file.clone(), None));
    }
    let held = build::for_run(file, &recipe_options, environment, output)?;
    Ok((held.folder.clone(), Some(held)))
}

fn attend(
    running: &Arc<Running>,
    steps: &[TestStep],
    quiet: bool,
) -> Result<Vec<Outcome>, Failure> {
    if running.wait_ready().is_err() {
        return Err(not_up(running));
    }
    // Whether all of it could be started is for the steps to ask.
    let _ = run_line(running, WAIT_FOR_SYSTEM, START_TIMEOUT);
    let mut outcomes = Vec::new();
    for step in steps {
        let outcome = run_step(running, step);
        if !quiet {
            tell(&outcome);
        }
        outcomes.push(outcome);
    }
    running.shut_down(SHUT_DOWN_PATIENCE);
    Ok(outcomes)
}

/// How a step ended.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Passed,
    /// It exited with another code than 0.
    Exited(u8),
    /// Its output does not have the text.
    Unexpected,
    TimedOut,
    /// It could not be run to its end.
    Lost(String),
}

impl Verdict {
    fn is_good(&self) -> bool {
        *self == Self::Passed
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Exited(_) => "exited",
            Self::Unexpected => "unexpected",
            Self::TimedOut => "timed_out",
            Self::Lost(_) => "lost",
        }
    }
}

struct Outcome {
    run: String,
    verdict: Verdict,
    sentence: String,
    output: String,
    elapsed: Duration,
}

fn run_step(running: &Arc<Running>, step: &TestStep) -> Outcome {
    let timeout = Duration::from_millis(step.timeout_ms);
    let begin = Instant::now();
    let (end, output) = run_line(running, &step.run, timeout);
    let verdict = match end {
        Ok(0) => match &step.expect {
            Some(text) if !output.contains(text.as_str()) => Verdict::Unexpected,
            _ => Verdict::Passed,
        },
        Ok(code) => Verdict::Exited(code),
        Err(verdict) => verdict,
    };
    let sentence = match &verdict {
        Verdict::Passed => "passed".to_owned(),
        Verdict::Exited(code) => format!("exited with {code}"),
        Verdict::Unexpected => {
            let text = step.expect.as_deref().unwrap_or_default();
            format!("its output does not have '{text}'")
        }
        Verdict::TimedOut => format!("had not ended after {timeout:?}"),
        Verdict::Lost(why) => why.clone(),
    };
    Outcome {
        run: step.run.clone(),
        verdict,
        sentence,
        output,
        elapsed: begin.elapsed(),
    }
}

/// Runs a line for the guest's shell; gives its exit code and what it said.
fn run_line(
    running: &Arc<Running>,
    script: &str,
    timeout: Duration,
) -> (Result<u8, Verdict>, String) {
    let kept = Arc::new(Mutex::new(Vec::new()));
    let keeper = || Box::new(Keeper(Arc::clone(&kept)));
    let request = ExecRequest {
        argv: ["/bin/sh", "-c", script].map(Into::into).into(),
        ..ExecRequest::default()
    };
    let streams = ExecStreams {
        stdin: None,
        stdout: keeper(),
        stderr: keeper(),
    };
    let lost = |error: ExecError| Verdict::Lost(error.to_string());
    let end = running
        .exec(&request, streams)
        .map_err(lost)
        .and_then(|execution| {
            let late = Arc::new(AtomicBool::new(false));
            let (done, waiting) = mpsc::channel::<()>();
            let watchdog = std::thread::spawn({
                let (late, handle, running) =
                    (Arc::clone(&late), execution.handle(), Arc::clone(running));
                move || {
                    let is_over =
                        |time| waiting.recv_timeout(time) == Err(mpsc::RecvTimeoutError::Timeout);
                    if is_over(timeout) {
                        late.store(true, Ordering::SeqCst);
                        let _ = handle.signal(SIGKILL);
                        if is_over(KILL_PATIENCE) {
                            // Something of it lives on and holds its output.
                            running.kill();
                        }
                    }
                }
            });
            let exit = execution.wait();
            drop(done);
            let _ = watchdog.join();
            match late.load(Ordering::SeqCst) {
                true => Err(Verdict::TimedOut),
                false => exit.map(Exit::shell_code).map_err(lost),
            }
        });
    let output = kept.lock().unwrap_or_else(PoisonError::into_inner);
    (end, String::from_utf8_lossy(&output).into_owned())
}

/// Keeps the beginning of what a step says.
struct Keeper(Arc<Mutex<Vec<u8>>>);

impl Write for Keeper {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let room = OUTPUT_BYTES_MAX.saturating_sub(kept.len()).min(bytes.len());
        kept.extend_from_slice(&bytes[..room]);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn tell(outcome: &Outcome) {
    let name = outcome.run.lines().next().unwrap_or_default();
    let seconds = outcome.elapsed.as_secs_f64();
    if outcome.verdict.is_good() {
        data(&plain(&format!("passed: {name} ({seconds:.1} s)")));
        data("\n");
        return;
    }
    data(&plain(&format!("failed: {name}: {}", outcome.sentence)));
    data("\n");
    let lines: Vec<&str> = outcome.output.lines().collect();
    for text in lines
        .get(lines.len().saturating_sub(LINES_SHOWN)..)
        .unwrap_or_default()
    {
        line(&format!("  {}", plain(text)));
    }
}

fn describe(outcome: &Outcome) -> Value {
    let code = match outcome.verdict {
        Verdict::Passed | Verdict::Unexpected => Some(0),
        Verdict::Exited(code) => Some(code),
        Verdict::TimedOut | Verdict::Lost(_) => None,
    };
    json!({
        "run": outcome.run,
        "outcome": outcome.verdict.name(),
        "message": outcome.sentence,
        "exit_code": code,
        "elapsed_us": render_json::microseconds(outcome.elapsed),
        "output": outcome.output,
    })
}
