//! Builds the guest's agent, a static program, so that the runtime can embed it.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Variables of the outer build that must not reach the inner one: they name its compiler wrapper,
/// its flags and its target folder, whose lock the outer build holds.
const NOT_INHERITED: [&str; 9] = [
    "RUSTC",
    "RUSTC_WRAPPER",
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTFLAGS",
    "CARGO_ENCODED_RUSTFLAGS",
    "CARGO_TARGET_DIR",
    "CARGO_BUILD_TARGET",
    "CARGO_BUILD_TARGET_DIR",
    "CARGO_MAKEFLAGS",
];

fn main() {
    let runtime = PathBuf::from(variable("CARGO_MANIFEST_DIR"));
    let guest = runtime.join("guest");
    println!("cargo::rerun-if-changed={}", guest.join("src").display());
    for file in [guest.join("Cargo.toml"), runtime.join("../Cargo.lock")] {
        println!("cargo::rerun-if-changed={}", file.display());
    }
    println!("cargo::rerun-if-changed=build.rs");
    let target = target();
    let folder = PathBuf::from(variable("OUT_DIR")).join("agent");
    build(&guest, &target, &folder);
    let agent = folder.join(&target).join("release/coop-agent");
    assert!(agent.is_file(), "cargo left no {}", agent.display());
    println!("cargo::rustc-env=COOP_AGENT={}", agent.display());
}

fn variable(name: &str) -> OsString {
    env::var_os(name).unwrap_or_else(|| panic!("cargo did not set {name}"))
}

/// The guest has the host's architecture: User-Mode Linux runs the host's instructions.
fn target() -> String {
    let architecture = env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_default();
    format!("{architecture}-unknown-linux-gnu")
}

fn build(guest: &Path, target: &str, folder: &Path) {
    let mut cargo = Command::new(variable("CARGO"));
    for name in NOT_INHERITED {
        cargo.env_remove(name);
    }
    // What the outer build set for its own crates and profile means nothing to the inner one.
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PROFILE_") || text.starts_with("CARGO_CFG_") {
            cargo.env_remove(&name);
        }
    }
    // By itself rustix wants a vDSO with getcpu, which User-Mode Linux does not have.
    let flags = ["-Ctarget-feature=+crt-static", "--cfg=rustix_use_libc"];
    let mut flags = flags.map(str::to_owned).to_vec();
    flags.extend(remappings(guest));
    let status = cargo
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"))
        .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "s")
        .env("CARGO_PROFILE_RELEASE_LTO", "fat")
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1")
        .env("CARGO_PROFILE_RELEASE_PANIC", "abort")
        .env("CARGO_PROFILE_RELEASE_DEBUG", "false")
        .env("CARGO_PROFILE_RELEASE_STRIP", "symbols")
        .args(["build", "--release", "--locked", "--bin", "coop-agent"])
        .arg("--manifest-path")
        .arg(guest.join("Cargo.toml"))
        .args(["--target", target])
        .arg("--target-dir")
        .arg(folder)
        .status();
    match status {
        Ok(status) if status.success() => {}
        Ok(status) => panic!("building the guest's agent failed: {status}"),
        Err(error) => panic!("cannot run cargo for the guest's agent: {error}"),
    }
}

/// Keeps this machine's paths out of the agent, so that it is the same wherever it is built.
fn remappings(guest: &Path) -> Vec<String> {
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(Path::new(&env::var_os("HOME")?).join(".cargo")));
    let source = guest.ancestors().nth(2).map(Path::to_path_buf);
    [(home, "/cargo"), (source, "/coop")]
        .into_iter()
        .filter_map(|(from, to)| Some(format!("--remap-path-prefix={}={to}", from?.display())))
        .collect()
}
