//! From the kernel's hand-over to the workload.

use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use coop_guest::boot::{self, BootConfig, CONFIG_PATH, CONFIG_SIZE_MAX, Workload};
use coop_guest::message::{Phase, Reply, VERSION};
use rustix::process::Pid;
use rustix::time::{ClockId, clock_gettime};

use crate::channel::Channel;
use crate::control::Control;
use crate::failure::{Doing, Failure};
use crate::network::{self, Resolver};
use crate::server::{self, Role, Server};
use crate::{devices, identity, log, mounts, overlay, stop, units};

/// Where a root's own init may lie.
const INITS: [&str; 3] = ["/sbin/init", "/usr/lib/systemd/systemd", "/etc/init"];

/// Boots. Process 1 must never return: the kernel would panic.
pub(crate) fn run() -> ! {
    let started = boot_us();
    log::hello();
    match reach_host(started) {
        Err(failure) => {
            log::line(&failure.to_string());
            stop::power_off()
        }
        Ok((mut channel, config)) => match prepare(&mut channel, &config) {
            Err(failure) => server::fail(channel, &failure),
            Ok(resolver) => match start(&mut channel, &config, resolver) {
                Err(failure) => server::fail(channel, &failure),
                Ok(role) => serve(channel, &config, role),
            },
        },
    }
}

fn serve(channel: Channel, config: &BootConfig, role: Role) -> ! {
    match Server::new(channel, config, role) {
        Ok(server) => drop(server.run()),
        Err(failure) => log::line(&failure.to_string()),
    }
    stop::power_off()
}

/// Microseconds since the kernel's start.
pub(crate) fn boot_us() -> u64 {
    let time = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    let nanoseconds = u64::try_from(time.tv_nsec).unwrap_or_default();
    seconds * 1_000_000 + nanoseconds / 1_000
}

/// All that must work before the host can be told what does not.
fn reach_host(started: u64) -> Result<(Channel, BootConfig), Failure> {
    mounts::early()?;
    let what = || format!("read {CONFIG_PATH}");
    let mut text = Vec::new();
    File::open(CONFIG_PATH)
        .and_then(|file| file.take(CONFIG_SIZE_MAX).read_to_end(&mut text))
        .doing(what)?;
    let config = BootConfig::from_json(&text).doing(what)?;
    // The channel's own driver may be among the modules, so a failure waits until it is open.
    let loaded = devices::load_modules();
    let modules_us = boot_us();
    let mut channel = Channel::open(&config.channel)?;
    channel.send(&Reply::Hello {
        version: VERSION,
        boot_us: started,
    });
    if let Err(failure) = loaded {
        server::fail(channel, &failure);
    }
    channel.send(&Reply::Phase {
        phase: Phase::Modules,
        boot_us: modules_us,
    });
    channel.flush();
    Ok((channel, config))
}

fn announce(channel: &mut Channel, phase: Phase) {
    let boot_us = boot_us();
    channel.send(&Reply::Phase { phase, boot_us });
    channel.flush();
}

fn warn(channel: &mut Channel, failure: &Failure) {
    let text = &failure.to_string();
    log::line(text);
    channel.send(&Reply::Warning { text });
}

/// Makes the guest a place to work in.
fn prepare(channel: &mut Channel, config: &BootConfig) -> Result<Option<Resolver>, Failure> {
    devices::name_cobds(&config.cobd, is_alone(config))?;
    // The root may be on a server.
    let network = connect(channel, config)?;
    if let Some(root) = &config.root {
        mounts::enter(root)?;
    }
    announce(channel, Phase::Root);
    mounts::run_folder()?;
    let mut warnings = Vec::new();
    match &config.readonly {
        Some(readonly) => warnings.extend(overlay::apply(readonly)?),
        None if config.workload == Workload::Commands => mounts::tmp_folder()?,
        None => {}
    }
    warnings.extend(identity::install(
        &config.identity,
        config.readonly.is_some(),
    )?);
    for sentence in warnings {
        warn(channel, &Failure::new(sentence));
    }
    mounts::further(&config.cobd)?;
    if let Err(failure) = devices::swap_on(&config.cobd) {
        warn(channel, &failure);
    }
    if let Some(name) = config.hostname.clone().or_else(own_hostname) {
        rustix::system::sethostname(name.as_bytes()).doing(|| format!("set the name {name}"))?;
    }
    let Some(network) = network else {
        return Ok(None);
    };
    let readonly = config.readonly.as_ref();
    let is_in_memory =
        readonly.is_some_and(|readonly| readonly.etc.iter().any(|name| name == overlay::RESOLVER));
    match Resolver::install(&network.dns, is_in_memory) {
        Ok(resolver) => Ok(Some(resolver)),
        Err(failure) => {
            warn(channel, &failure);
            Ok(None)
        }
    }
}

/// Brings the network up; gives it if it is there.
fn connect<'c>(
    channel: &mut Channel,
    config: &'c BootConfig,
) -> Result<Option<&'c boot::Network>, Failure> {
    if let Err(failure) = network::loopback() {
        warn(channel, &failure);
    }
    let Some(network) = &config.network else {
        return Ok(None);
    };
    if let Err(failure) = network::configure(network) {
        if !is_alone(config) {
            return Err(failure);
        }
        // A machine that was put together by hand need not have one.
        warn(channel, &failure);
        return Ok(None);
    }
    Ok(Some(network))
}

/// Whether the guest boots without a host that listens.
fn is_alone(config: &BootConfig) -> bool {
    config.channel == boot::Channel::Nobody
}

/// The name that the root gives itself.
fn own_hostname() -> Option<String> {
    let text = fs::read_to_string("/etc/hostname").ok()?;
    let name = text
        .lines()
        .map(str::trim)
        .find(|line| !line.is_empty() && !line.starts_with('#'));
    name.map(str::to_owned)
}

/// Finds out who is process 1 from now on: the agent, or the root's init, which then replaces it.
fn start(
    channel: &mut Channel,
    config: &BootConfig,
    resolver: Option<Resolver>,
) -> Result<Role, Failure> {
    let mut role = Role::Init {
        swap: devices::has_swap(&config.cobd),
        resolver,
        console: None,
    };
    if let Workload::Init { console } = &config.workload {
        let console = &devices::real_console(console);
        if let Some(init) = INITS.map(Path::new).into_iter().find(|path| path.exists()) {
            if server::is_systemd(init)
                && let Err(failure) = units::install(console, !config.identity.is_empty())
            {
                warn(channel, &failure);
                channel.flush();
            }
            if !is_alone(config) {
                server::leave_beside(channel, config, init)?;
            }
            return Err(become_init(init));
        }
        let shell = start_console(channel, console)?;
        if let Role::Init { console, .. } = &mut role {
            *console = Some(shell);
        }
    }
    announce(channel, Phase::Ready);
    Ok(role)
}

fn start_console(channel: &mut Channel, device: &str) -> Result<(Pid, Option<Control>), Failure> {
    let control = match Control::open() {
        Ok(control) => Some(control),
        Err(failure) => {
            warn(channel, &failure);
            None
        }
    };
    let device = if Path::new(device).exists() {
        device
    } else {
        "/dev/console"
    };
    let child = Command::new("/proc/self/exe")
        .args(["--console", device])
        .env_clear()
        .envs([
            ("HOME", "/root"),
            ("TERM", "linux"),
            ("USER", "root"),
            ("LOGNAME", "root"),
        ])
        .env(
            "PATH",
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        )
        .spawn()
        .doing(|| "start the console's shell".into())?;
    Ok((Pid::from_child(&child), control))
}

/// Replaces this process; gives why it could not.
fn become_init(init: &Path) -> Failure {
    let mut command = Command::new(init);
    command.env_clear().env("TERM", "linux");
    // Where the kernel's console is now need not be where it was when the kernel started us.
    if let Ok(console) = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/console")
    {
        let ends = (console.try_clone(), console.try_clone());
        if let (Ok(output), Ok(error)) = ends {
            command
                .stdin(Stdio::from(console))
                .stdout(Stdio::from(output))
                .stderr(Stdio::from(error));
        }
    }
    let _ = fs::remove_file("/run/coop/control");
    let error = command.exec();
    Failure::new(format!("cannot start {}: {error}", init.display()))
}
