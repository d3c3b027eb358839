//! A login on the console.
//!
//! The console of an appliance is `hvc0`. systemd starts a login there by itself where udev tells
//! it of the device; the link here does not depend on that. Logins on serial ports that are not
//! there would be waited for.

use coop_image::tree::InodeId;

use super::{Bench, lines, push_comment, push_line, words};
use crate::rootfs::RootfsError;

const CONSOLE: &str = "hvc0";
const INITTAB: &str = "/etc/inittab";
const SECURETTY: &str = "/etc/securetty";
/// Where systemd's own units lie, and its program.
const SYSTEMD: [&str; 2] = ["/usr/lib/systemd", "/lib/systemd"];
/// Where units are switched on.
const UNITS: &str = "/etc/systemd/system";

pub(super) fn fix(bench: &mut Bench<'_>) -> Result<(), RootfsError> {
    match init(bench) {
        Init::Systemd(folder) => systemd(bench, folder)?,
        Init::Table { is_busybox } => inittab(bench, is_busybox)?,
        Init::Unknown => bench.stays(
            "the init system is neither systemd nor one with /etc/inittab: a login on the console \
             is its own matter",
        ),
        Init::None => bench
            .stays("there is no init: the agent stays process 1 and starts a shell on the console"),
    }
    securetty(bench)
}

/// Who is process 1.
enum Init {
    Systemd(&'static str),
    Table { is_busybox: bool },
    Unknown,
    None,
}

fn init(bench: &Bench<'_>) -> Init {
    let find = |path: &str| bench.tree.resolve(path.as_bytes()).ok();
    let Some(init) = find("/sbin/init") else {
        let systemd = SYSTEMD.iter().find(|folder| is_systemd(bench, folder));
        return systemd.map_or(Init::None, |folder| Init::Systemd(folder));
    };
    for folder in SYSTEMD {
        if find(&format!("{folder}/systemd")) == Some(init) {
            return Init::Systemd(folder);
        }
    }
    if !bench.has(INITTAB) {
        return Init::Unknown;
    }
    let busybox: Option<InodeId> = find("/bin/busybox");
    Init::Table {
        is_busybox: busybox == Some(init),
    }
}

fn is_systemd(bench: &Bench<'_>, folder: &str) -> bool {
    bench.has(&format!("{folder}/systemd"))
}

fn systemd(bench: &mut Bench<'_>, folder: &str) -> Result<(), RootfsError> {
    let wants: Vec<String> = bench
        .names(UNITS)
        .into_iter()
        .filter(|name| name.ends_with(".wants") || name.ends_with(".requires"))
        .collect();
    for folder in wants {
        let folder = format!("{UNITS}/{folder}");
        for name in bench.names(&folder) {
            let is_other = name
                .strip_prefix("serial-getty@")
                .is_some_and(|port| port != "hvc0.service");
            if is_other {
                let parent = bench.folder(&folder)?;
                bench.tree.unlink(parent, name.as_bytes())?;
                bench.tell(
                    format!("{folder}/{name}"),
                    "removed, as there is no such serial port to wait for",
                );
            }
        }
    }
    let unit = format!("{folder}/system/serial-getty@.service");
    if !bench.has(&unit) {
        bench.stays("systemd has no serial-getty@.service here, so the console has no login");
        return Ok(());
    }
    let link = format!("{UNITS}/getty.target.wants/serial-getty@{CONSOLE}.service");
    if bench.link(&link, &unit)? {
        bench.tell(link, "a login on the console");
    }
    Ok(())
}

fn inittab(bench: &mut Bench<'_>, is_busybox: bool) -> Result<(), RootfsError> {
    let Some(before) = bench.read(INITTAB)? else {
        return Ok(());
    };
    let mut after = Vec::with_capacity(before.len());
    let (mut there, mut others) = (false, 0_usize);
    for line in lines(&before) {
        let fields = words(line);
        // The terminal is a word of its own, or, with busybox, the first field.
        let names = |name: &str| {
            fields
                .iter()
                .flat_map(|word| word.split(':'))
                .any(|part| part.trim_start_matches("/dev/") == name)
        };
        let is_getty = fields.iter().any(|word| {
            let program = word.rsplit([':', '/']).next().unwrap_or_default();
            matches!(program, "getty" | "agetty" | "mingetty" | "fgetty")
        });
        if is_getty && names(CONSOLE) {
            there = true;
            push_line(&mut after, line);
        } else if is_getty {
            others += 1;
            push_comment(&mut after, line);
        } else {
            push_line(&mut after, line);
        }
    }
    if others > 0 {
        let what = match others {
            1 => "a line for logins on a terminal that is not there is a comment now".to_owned(),
            _ => format!(
                "{others} lines for logins on terminals that are not there are comments now"
            ),
        };
        bench.tell(INITTAB, what);
    }
    if !there {
        let line = match is_busybox {
            true => format!("{CONSOLE}::respawn:/sbin/getty -L 115200 {CONSOLE} linux"),
            false => format!("co:2345:respawn:/sbin/getty -L 115200 {CONSOLE} linux"),
        };
        push_line(&mut after, line.as_bytes());
        bench.tell(INITTAB, "a login on the console");
    }
    if others > 0 || !there {
        bench.rewrite(INITTAB, after)?;
    }
    Ok(())
}

/// Where the table is there, root may log in only on what it names.
fn securetty(bench: &mut Bench<'_>) -> Result<(), RootfsError> {
    let Some(mut text) = bench.read(SECURETTY)? else {
        return Ok(());
    };
    if lines(&text).any(|line| line.trim_ascii() == CONSOLE.as_bytes()) {
        return Ok(());
    }
    if !text.is_empty() && !text.ends_with(b"\n") {
        text.push(b'\n');
    }
    push_line(&mut text, CONSOLE.as_bytes());
    bench.rewrite(SECURETTY, text)?;
    bench.tell(SECURETTY, "root may log in on the console");
    Ok(())
}
