//! Kernels with real guests: one from its source under systemd, and those of x86-64 under QEMU.

use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use fs_err as fs;

use super::support::{self, Process, coop, oracle, run, temp_folder};
use super::terminal::Terminal;

/// A kernel from its source, on a busy machine with two processors.
const KERNEL_BUILD: Duration = Duration::from_mins(60);
/// A kernel of a package, its download included.
const PACKAGE_BUILD: Duration = Duration::from_mins(10);
/// A boot under QEMU's own translator, on a busy machine.
const TRANSLATED_BOOT: Duration = Duration::from_mins(5);
/// A boot of systemd, on a busy machine.
const BOOT: Duration = Duration::from_mins(3);
/// Set where tests may take the minutes that a kernel's build takes.
const BUILDS: &str = "COOP_TEST_KERNEL_BUILDS";

/// Whether kernels may be built; a test that is not run says so.
fn builds() -> bool {
    let set = std::env::var_os(BUILDS).is_some();
    if !set {
        eprintln!("skipped: it builds a kernel, and {BUILDS} is not set");
    }
    set
}

/// Builds a recipe whose text is given, and gives the appliance's folder.
#[track_caller]
fn build(folder: &Path, text: &str, deadline: Duration) -> PathBuf {
    let recipe = folder.join("recipe.yaml");
    fs::write(&recipe, text).unwrap();
    let out = folder.join("out");
    let mut command = coop();
    command.args(["build", "--progress", "plain"]).arg(&recipe);
    run(command.arg("-o").arg(&out), deadline).expect(0);
    out
}

fn x86_64_recipe(kernel: &str) -> String {
    let archive = support::small_archive().display();
    format!(
        "name: serial\n\
         rootfs: {{source: {{tarball: {{path: {archive}}}}}}}\n\
         kernel:\n{kernel}"
    )
}

/// The program that boots an appliance by hand, with nothing of coop on the host.
fn qemu(appliance: &Path, kernel: &str) -> Command {
    let mut command = support::unprivileged("qemu-system-x86_64");
    let disk = format!(
        "file={},if=virtio,format=raw,snapshot=on",
        appliance.join("root.cobd").display()
    );
    command
        .args(["-accel", "tcg", "-M", "q35", "-m", "256", "-nodefaults"])
        .args(["-display", "none", "-serial", "stdio", "-no-reboot"])
        .args(["-append", "console=ttyS0 panic=-1 no_timer_check"])
        .args(["-cpu", "max,-cx16", "-drive", &disk])
        .args(["-kernel".as_ref(), appliance.join(kernel).as_os_str()])
        .args([
            "-initrd".as_ref(),
            appliance.join("initramfs.cpio").as_os_str(),
        ]);
    command
}

/// Boots to the agent's first line, into the root, and off again when its shell ends.
#[track_caller]
fn boots_under_qemu(appliance: &Path, kernel: &str) {
    let mut person = Terminal::run(&qemu(appliance, kernel), TRANSLATED_BOOT);
    person.expect("coop: agent ");
    person.expect("# ");
    person.send("echo root has $((6 * 7)); exit\r");
    person.expect("root has 42");
    assert_eq!(person.end(), Some(0));
}

#[test]
fn debians_cloud_kernel_boots_an_appliance_under_qemu() {
    if !oracle("qemu-system-x86_64") || !oracle("setsid") {
        return;
    }
    let folder = temp_folder();
    let recipe = x86_64_recipe("  package: {name: linux-image-cloud-amd64, suite: trixie}\n");
    let out = build(folder.path(), &recipe, PACKAGE_BUILD);
    boots_under_qemu(&out, "bzImage");
    // It is not coop that starts it, and coop says who does.
    let mut command = coop();
    command.arg("run").arg(&out).args(["--", "true"]);
    let refused = run(&mut command, support::RUN_DEADLINE);
    assert_ne!(refused.code(), Some(0));
    assert!(
        refused.stderr.contains("qemu-system-x86_64"),
        "{}",
        refused.stderr
    );
}

#[test]
fn a_kernel_from_source_boots_both_ways_under_qemu() {
    if !builds() || !oracle("qemu-system-x86_64") || !oracle("setsid") {
        return;
    }
    let folder = temp_folder();
    let recipe = x86_64_recipe(
        "  source:\n    \
             debian: {package: linux-source-7.2, suite: sid}\n    \
             target: x86_64\n  \
           config: [base, engine, virtio, tiny]\n",
    );
    let out = build(folder.path(), &recipe, KERNEL_BUILD);
    for kernel in ["bzImage", "vmlinux"] {
        boots_under_qemu(&out, kernel);
    }
}

/// systemd, ssh, and modprobe, on two processors and a kernel that has one driver as a module.
fn server_recipe(key: &str, port: u16) -> String {
    format!(
        "name: server\n\
         rootfs:\n  \
           source:\n    \
             debian:\n      \
               suite: trixie\n      \
               packages: [systemd-sysv, dbus, libpam-systemd, openssh-server, kmod]\n  \
           users:\n    - {{name: root, password: locked, ssh_keys: [\"{key}\"]}}\n  \
           services: {{enable: [ssh, serial-getty@hvc0]}}\n\
         kernel:\n  \
           source: {{debian: {{package: linux-source-7.2, suite: sid}}}}\n  \
           config:\n    \
             - base\n    - engine\n    - virtio\n    - overlay\n    - smp\n    \
             - {{MODULES: y, MODULE_UNLOAD: y, NET_CORE: y, DUMMY: m}}\n  \
           modules: true\n\
         devices:\n  \
           memory: 512MiB\n  \
           cpus: 2\n  \
           conet: [{{user: {{forward: [\"tcp:{port}:22\"]}}}}]\n"
    )
}

#[test]
fn systemd_runs_on_a_kernel_from_source_and_loads_a_module() {
    if !builds() || !oracle("ssh") || !oracle("ssh-keygen") {
        return;
    }
    let folder = temp_folder();
    // The private key must be the caller's own, so it lies where the program does not look.
    let secret = tempfile::tempdir().unwrap();
    let key = secret.path().join("key");
    let mut keygen = Command::new("ssh-keygen");
    keygen.args(["-q", "-t", "ed25519", "-N", "", "-C", "test", "-f"]);
    run(keygen.arg(&key), Duration::from_secs(20)).expect(0);
    let public = fs::read_to_string(secret.path().join("key.pub")).unwrap();
    let any = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0);
    let port = TcpListener::bind(any).unwrap().local_addr().unwrap().port();
    let out = build(
        folder.path(),
        &server_recipe(public.trim(), port),
        KERNEL_BUILD,
    );
    let mut command = coop();
    command.arg("run").arg(&out).stdin(Stdio::null());
    let machine = Process::start(&mut command, KERNEL_BUILD);
    let ssh = |words: &str| {
        let mut command = Command::new("ssh");
        for option in [
            "BatchMode=yes",
            "ConnectTimeout=20",
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
            "LogLevel=ERROR",
        ] {
            command.args(["-o", option]);
        }
        command.args(["-F", "none", "-p", &port.to_string(), "-i"]);
        run(command.arg(&key).args(["root@127.0.0.1", words]), BOOT)
    };
    let started = Instant::now();
    let state = loop {
        let done = ssh("systemctl is-system-running --wait; systemctl --failed --no-legend");
        if done.code() == Some(0) || started.elapsed() > BOOT {
            break done.text();
        }
        std::thread::sleep(Duration::from_millis(200));
    };
    assert_eq!(state, "running\n");
    let module = ssh("modprobe dummy numdummies=1 && ls -d /sys/class/net/dummy0 && lsmod");
    let module = module.expect(0).text();
    assert!(module.starts_with("/sys/class/net/dummy0\n"), "{module}");
    assert!(module.contains("\ndummy "), "{module}");
    assert_eq!(ssh("nproc").expect(0).text(), "2\n");
    // The connection may break before the command has ended.
    let _ = ssh("systemctl poweroff");
    machine.end().expect(0);
}

/// The shipped recipe with a kernel of its own, from the source to a module in the guest.
#[test]
fn the_recipe_with_a_kernel_of_its_own_boots() {
    if !builds() {
        return;
    }
    let place = temp_folder();
    let mut command = coop();
    command.arg("build").arg(support::recipe("kernel.yaml"));
    command.arg("-o").arg(place.path().join("kernel"));
    run(&mut command, KERNEL_BUILD).expect(0);
    let mut command = coop();
    command.arg("run").arg(place.path().join("kernel"));
    let script = "modprobe dummy && grep -q dummy /proc/modules && uname -r";
    command.args(["--", "sh", "-c", script]);
    let done = run(&mut command, support::RUN_DEADLINE).expect(0);
    assert!(done.text().ends_with("-own\n"), "{}", done.text());
}
