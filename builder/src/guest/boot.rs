//! The guest of a step: booted for it, and gone after it.

use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use coop_appliance::Filesystem;
use coop_runtime::{
    Cause, DiskSpec, DiskWrites, ExecRequest, ExecStreams, Exit, Machine, MachineSpec, NetworkSpec,
    Report, Running, Service, SessionEnd, TransientFile, User, Watch,
};
use tempfile::NamedTempFile;

use super::lines::{Lines, Listeners};
use super::mounts::FILE_NAME;
use super::proxy::{self, Packages};
use super::step::{Network, Step};
use super::{GuestContext, GuestError, SCRIPT, StepMeans};
use crate::rootfs::Login;

/// Guest memory while building, in bytes: enough for dpkg, apt and most maintainer scripts.
const MEMORY_BYTES: u64 = 1 << 30;
/// The best shell that the guest has.
const SHELL: &str = "exec \"$(command -v bash || echo /bin/sh)\"";
/// How long the guest may take to stop by itself.
const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(60);

/// A guest that is to be booted for a step.
pub(super) struct Guest<'a> {
    pub(super) step: &'a Step,
    /// Whoever runs the step.
    pub(super) login: &'a Login,
    /// The image of the root file system.
    pub(super) root: &'a Path,
    /// Images, where they are mounted, and whether as folders.
    pub(super) mounts: &'a [(NamedTempFile, String, bool)],
    /// What is there only while the step runs.
    pub(super) files: &'a [TransientFile],
    /// The archives that it reaches.
    pub(super) packages: Option<Packages<'a>>,
}

impl Guest<'_> {
    /// Boots on the image, runs the step, and leaves the image unmounted.
    pub(super) fn boot_and_run(&self, context: &GuestContext<'_>) -> Result<(), GuestError> {
        let Some(packages) = &self.packages else {
            return self.boot(Vec::new(), context);
        };
        proxy::serve(packages, self.step.network, &*context.observer, |service| {
            self.boot(vec![service], context)
        })
    }

    fn boot(&self, services: Vec<Service>, context: &GuestContext<'_>) -> Result<(), GuestError> {
        let machine = Machine::check(self.spec(services, context))?;
        let running = machine.start(Watch {
            observer: Arc::clone(&context.observer),
            kernel_log: None,
        })?;
        if let Err(end) = running.wait_ready() {
            running.kill();
            return Err(GuestError::Boot(boot_failure(&end, &running.wait())));
        }
        if let Err(error) = self.run_step(&running, context) {
            if let (Some(debugger), GuestError::Failed { .. }) = (&context.means.debugger, &error) {
                debugger.attend(&running, self.shell(), &error);
            }
            // Nothing of the image is wanted any more.
            running.kill();
            let report = running.wait();
            return Err(match (&error, &report.cause) {
                // The guest's own end says more than the broken channel.
                (GuestError::Exec { .. }, Cause::Panic(_) | Cause::DeviceFailed { .. }) => {
                    GuestError::Unclean(report.cause.to_string())
                }
                _ => error,
            });
        }
        running.shut_down(SHUTDOWN_PATIENCE);
        let report = running.wait();
        let stopped = matches!(report.cause, Cause::PoweredOff | Cause::Exited(_));
        if !stopped || report.clean != Some(true) {
            return Err(GuestError::Unclean(report.cause.to_string()));
        }
        Ok(())
    }

    fn spec(&self, services: Vec<Service>, context: &GuestContext<'_>) -> MachineSpec {
        let root = DiskSpec {
            name: "root".to_owned(),
            path: self.root.to_owned(),
            writes: DiskWrites::Kept { ignore_flush: true },
            filesystem: Filesystem::Ext4,
            mount: Some("/".to_owned()),
            file: None,
        };
        let shown = |(image, target, is_folder): &(NamedTempFile, String, bool)| DiskSpec {
            name: target.clone(),
            path: image.path().to_owned(),
            writes: DiskWrites::Refused,
            filesystem: Filesystem::Ext4,
            mount: Some(target.clone()),
            file: (!is_folder).then(|| FILE_NAME.to_owned()),
        };
        let restricted = self.step.network == Network::Packages;
        // Without a service, nothing could be reached.
        let has_network = match self.step.network {
            Network::Off => false,
            Network::Packages => !services.is_empty(),
            Network::World => true,
        };
        let network = has_network.then(|| NetworkSpec {
            resolvers: context.host.resolvers.clone(),
            services,
            restricted,
            ..NetworkSpec::default()
        });
        MachineSpec {
            disks: std::iter::once(root)
                .chain(self.mounts.iter().map(shown))
                .collect(),
            network,
            ..MachineSpec::new(context.kernel.clone(), MEMORY_BYTES, context.host.clone())
        }
    }

    fn run_step(&self, running: &Running, context: &GuestContext<'_>) -> Result<(), GuestError> {
        let StepMeans { secrets, log, .. } = &context.means;
        let name = &self.step.name;
        if let Some(log) = log {
            log.begin(name);
        }
        let listeners = Listeners::new(
            Arc::clone(&context.observer),
            log.clone(),
            secrets.mask(self.step),
        );
        let lines = || Box::new(Lines::new(Arc::clone(&listeners)));
        let streams = ExecStreams {
            stdin: None,
            stdout: lines(),
            stderr: lines(),
        };
        let exec_error = |source| GuestError::Exec {
            step: name.clone(),
            source,
        };
        let execution = running.exec(&self.request(), streams).map_err(exec_error)?;
        let exit = execution.wait().map_err(exec_error)?;
        let how = match exit {
            Exit::Code(0) => return Ok(()),
            Exit::Code(code) => format!("exited with {code}"),
            Exit::Signal(number) => format!("was killed by signal {number}"),
        };
        let log = log.as_ref().and_then(|log| log.written());
        Err(GuestError::Failed {
            step: name.clone(),
            how,
            tail: listeners.tail(),
            log: log.map(Path::to_owned),
        })
    }

    /// A shell with what the step has, as root.
    fn shell(&self) -> ExecRequest {
        let names = ["HOME", "USER", "LOGNAME"];
        let request = self.request();
        let environment = request.environment.into_iter();
        ExecRequest {
            argv: ["/bin/sh", "-c", SHELL].map(OsString::from).to_vec(),
            environment: environment
                .filter(|(name, _)| names.iter().all(|own| name != own))
                .collect(),
            user: None,
            ..request
        }
    }

    fn request(&self) -> ExecRequest {
        let Login {
            name,
            uid,
            gid,
            groups,
            home,
        } = self.login;
        let is_root = (*uid, *gid) == (0, 0);
        let mut environment: Vec<(OsString, OsString)> = Vec::new();
        if !is_root {
            let name = name.clone().unwrap_or_else(|| uid.to_string());
            for (variable, value) in [("HOME", home), ("USER", &name), ("LOGNAME", &name)] {
                environment.push((variable.into(), value.into()));
            }
        }
        if self.packages.is_some() {
            environment.push(("APT_CONFIG".into(), proxy::CONFIGURATION.into()));
        }
        let step = self.step.environment.iter();
        environment.extend(step.map(|(name, value)| (name.into(), value.into())));
        ExecRequest {
            argv: vec![SCRIPT.into()],
            environment,
            folder: Some(self.step.workdir.clone().into()),
            user: (!is_root).then(|| User {
                uid: *uid,
                gid: *gid,
                groups: groups.clone(),
            }),
            terminal: None,
            files: self.files.to_vec(),
        }
    }
}

fn boot_failure(end: &SessionEnd, report: &Report) -> String {
    match &report.cause {
        Cause::Stopped => end.to_string(),
        cause => cause.to_string(),
    }
}
