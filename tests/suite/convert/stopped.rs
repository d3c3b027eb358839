//! Conversions that do not come to their end.

use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Stdio;

use fs_err as fs;
use rustix::process::Signal;

use super::{MIB, tool, tools};
use crate::support::{self, RUN_DEADLINE, coop, in_namespace, run, temp_folder};

/// A file system with much data, so that a copy has a middle, and an output that is there already.
fn much(folder: &Path) {
    let big = fs::File::create(folder.join("big.raw")).unwrap();
    big.set_len(300 * MIB).unwrap();
    tool(folder, "mke2fs -q -t ext4 big.raw", "");
    let noise: Vec<u8> = (0..MIB).map(|at| (at % 251) as u8 | 1).collect();
    for at in 40..290 {
        big.file().write_all_at(&noise, at * MIB).unwrap();
    }
    fs::write(folder.join("big.cobd"), "old").unwrap();
    support::give(&folder.join("big.cobd"));
}

/// A conversion that is called off, or killed, leaves what was there, and nothing else.
#[test]
fn a_stopped_conversion_leaves_nothing() {
    if !tools(&["mke2fs"]) {
        return;
    }
    let home = temp_folder();
    let folder = home.path();
    much(folder);
    for (signal, code) in [(Signal::INT, Some(130)), (Signal::KILL, None)] {
        let mut command = coop();
        command
            .current_dir(folder)
            .args(["convert", "big.raw", "big.cobd", "--progress", "json"])
            .stdin(Stdio::null());
        let process = support::Process::start(&mut command, RUN_DEADLINE);
        process.expect_on_stderr("copy the disk");
        process.signal(signal);
        let done = process.end();
        // It may have been done already.
        if done.code() == Some(0) {
            fs::write(folder.join("big.cobd"), "old").unwrap();
            continue;
        }
        assert_eq!(done.code(), code, "{}", done.stderr);
        assert_eq!(fs::read(folder.join("big.cobd")).unwrap(), b"old");
        let names = fs::read_dir(folder).unwrap().count();
        assert_eq!(names, 2);
    }
}

#[test]
fn a_full_disk_leaves_the_old_output() {
    if !tools(&["mke2fs"]) || !support::root_oracle() {
        return;
    }
    let home = temp_folder();
    let folder = home.path();
    much(folder);
    fs::create_dir(folder.join("full")).unwrap();
    let full = folder.join("full").display().to_string();
    for name in ["x.cobd", "x.qcow2"] {
        let before = format!(
            "mount -t tmpfs -o size=4m,mode=777 none {full}; echo old > {full}/{name}; \
             chmod a+w {full}/{name}"
        );
        let mut command = coop();
        command.arg("convert").arg(folder.join("big.raw"));
        command.arg(folder.join("full").join(name));
        let after = format!("cat {full}/{name}; ls -A {full}");
        let done = run(&mut in_namespace(&before, &command, &after), RUN_DEADLINE).expect(1);
        assert_eq!(done.text(), format!("old\n{name}\n"));
        let said = format!("full/{name}: cannot write the disk");
        assert!(done.stderr.contains(&said), "{}", done.stderr);
        assert!(done.stderr.contains("No space left"), "{}", done.stderr);
    }
}
