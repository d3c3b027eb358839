//! Starting a confined child.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

/// One instruction of a seccomp filter: `struct sock_filter`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FilterInstruction {
    /// What to do.
    pub code: u16,
    /// Instructions skipped where a test holds.
    pub jump_true: u8,
    /// Instructions skipped where it does not.
    pub jump_false: u8,
    /// The operand.
    pub operand: u32,
}

/// Upper bounds of what the child may use; `None` leaves a bound as it is inherited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Size of a core dump in bytes.
    pub core_bytes: Option<u64>,
    /// Size of a file in bytes that the child makes longer.
    pub file_bytes: Option<u64>,
    /// Open descriptors.
    pub descriptors: Option<u64>,
    /// Processes and threads of the user, all together; it does not bind the superuser.
    pub processes: Option<u64>,
}

/// What is done to a child between its birth and its program.
#[derive(Debug, Default)]
pub struct Confinement {
    /// The one processor that it runs on.
    pub processor: Option<usize>,
    /// Its limits.
    pub limits: Limits,
    /// A Landlock ruleset that it is put under.
    pub landlock: Option<OwnedFd>,
    /// A seccomp filter that it is put under; empty for none.
    pub filter: Vec<FilterInstruction>,
}

/// The same as plain data, made before the fork: the child must not allocate.
struct Prepared {
    parent: libc::pid_t,
    processors: Option<libc::cpu_set_t>,
    limits: [(libc::__rlimit_resource_t, Option<u64>); 4],
    landlock: Option<OwnedFd>,
    filter: Vec<libc::sock_filter>,
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

fn check_long(result: libc::c_long) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

fn processor_set(processor: usize) -> io::Result<libc::cpu_set_t> {
    let bits = usize::try_from(libc::CPU_SETSIZE).unwrap_or(0);
    if processor >= bits {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: a `cpu_set_t` is an array of integers, for which all zeroes is a value.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the number was checked to be one of the set's bits.
    unsafe { libc::CPU_SET(processor, &mut set) };
    Ok(set)
}

/// Has `command`'s child confine itself before it becomes the program, in this order: a session
/// and process group of its own, death with the thread that starts it, one processor, no
/// randomised addresses (so that a User-Mode-Linux kernel need not start itself again), limits,
/// private files, no descriptors but the standard three, no new privileges, Landlock, seccomp.
///
/// The thread that spawns the command must live as long as the child: the kernel kills the child
/// when that thread ends.
///
/// # Errors
/// The processor's number or the filter's length is out of range.
pub fn confine(command: &mut Command, confinement: Confinement) -> io::Result<()> {
    let invalid = |_| io::Error::from(io::ErrorKind::InvalidInput);
    u16::try_from(confinement.filter.len()).map_err(invalid)?;
    let limits = confinement.limits;
    let prepared = Prepared {
        parent: libc::pid_t::try_from(std::process::id()).map_err(invalid)?,
        processors: confinement.processor.map(processor_set).transpose()?,
        limits: [
            (libc::RLIMIT_CORE, limits.core_bytes),
            (libc::RLIMIT_FSIZE, limits.file_bytes),
            (libc::RLIMIT_NOFILE, limits.descriptors),
            (libc::RLIMIT_NPROC, limits.processes),
        ],
        landlock: confinement.landlock,
        filter: confinement
            .filter
            .iter()
            .map(|instruction| libc::sock_filter {
                code: instruction.code,
                jt: instruction.jump_true,
                jf: instruction.jump_false,
                k: instruction.operand,
            })
            .collect(),
    };
    // SAFETY: the closure only makes system calls and reads memory that was prepared before the
    // fork; it takes no lock and allocates nothing (errors are made from a number).
    unsafe { command.pre_exec(move || apply(&prepared)) };
    Ok(())
}

/// Runs in the child, between fork and exec: system calls only.
fn apply(prepared: &Prepared) -> io::Result<()> {
    // SAFETY: no arguments.
    check(unsafe { libc::setsid() })?;
    die_with_parent(prepared.parent)?;
    if let Some(set) = &prepared.processors {
        // SAFETY: the set is valid and of the size given.
        check(unsafe { libc::sched_setaffinity(0, size_of_val(set), set) })?;
    }
    let are_fixed = no_randomised_addresses()?;
    for (resource, limit) in prepared.limits {
        if let Some(limit) = limit {
            let is_larger = resource == libc::RLIMIT_FSIZE && !are_fixed;
            let gap = if is_larger { RANDOM_GAP_BYTES_MAX } else { 0 };
            lower_limit(resource, limit.saturating_add(gap))?;
        }
    }
    // SAFETY: takes any number and cannot fail.
    unsafe { libc::umask(0o077) };
    close_on_exec()?;
    // SAFETY: this operation takes plain numbers.
    check(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) })?;
    if let Some(ruleset) = &prepared.landlock {
        landlock(ruleset.as_raw_fd())?;
    }
    seccomp(&prepared.filter)
}

fn die_with_parent(parent: libc::pid_t) -> io::Result<()> {
    // SAFETY: this operation takes plain numbers.
    check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0) })?;
    // SAFETY: no arguments.
    if unsafe { libc::getppid() } != parent {
        // The parent died before the line above.
        return Err(io::Error::from_raw_os_error(libc::ESRCH));
    }
    Ok(())
}

/// How far the kernel moves a program's heap from its end, at most, in bytes (x86-64's
/// `arch_randomize_brk`). A User-Mode-Linux kernel has its memory file begin at its own end, and so
/// makes it longer by a hole of this size.
const RANDOM_GAP_BYTES_MAX: u64 = 1 << 30;

/// Says whether addresses are fixed. Container engines forbid that by their usual filters; a kernel
/// then goes on with the addresses that it got.
fn no_randomised_addresses() -> io::Result<bool> {
    /// Asks for the present value only.
    const QUERY: libc::c_ulong = 0xffff_ffff;
    // SAFETY: takes a plain number.
    let now = unsafe { libc::personality(QUERY) };
    check(now)?;
    let wanted = libc::c_ulong::try_from(now | libc::ADDR_NO_RANDOMIZE)
        .map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    // SAFETY: takes a plain number.
    match check(unsafe { libc::personality(wanted) }) {
        Ok(()) => Ok(true),
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => Ok(false),
        Err(error) => Err(error),
    }
}

fn lower_limit(resource: libc::__rlimit_resource_t, limit: u64) -> io::Result<()> {
    let mut now = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `now` is a valid structure for the kernel to fill.
    check(unsafe { libc::getrlimit(resource, &raw mut now) })?;
    let limit = limit.min(now.rlim_max);
    let wanted = libc::rlimit {
        rlim_cur: limit,
        rlim_max: limit,
    };
    // SAFETY: `wanted` is a valid structure.
    check(unsafe { libc::setrlimit(resource, &raw const wanted) })
}

fn close_on_exec() -> io::Result<()> {
    const FIRST: libc::c_uint = 3;
    // SAFETY: marks descriptors of the child only; nothing is closed before the program starts.
    let done = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            FIRST,
            libc::c_uint::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
    check_long(done)
}

fn landlock(ruleset: RawFd) -> io::Result<()> {
    // SAFETY: takes a descriptor and flags.
    check_long(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset, 0) })
}

fn seccomp(filter: &[libc::sock_filter]) -> io::Result<()> {
    let Ok(length @ 1..) = u16::try_from(filter.len()) else {
        return Ok(());
    };
    let program = libc::sock_fprog {
        len: length,
        filter: filter.as_ptr().cast_mut(),
    };
    // SAFETY: the program points to `length` instructions, which the kernel copies and checks.
    let done = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            0,
            &raw const program,
        )
    };
    check_long(done)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(script: &str, confinement: Confinement) -> (i32, String) {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        confine(&mut command, confinement).unwrap();
        let output = command.output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        (output.status.code().unwrap_or(-1), text.trim().to_owned())
    }

    #[test]
    fn a_child_is_what_it_was_told_to_be() {
        let limits = Limits {
            core_bytes: Some(0),
            file_bytes: Some(1 << 20),
            descriptors: Some(100),
            processes: None,
        };
        let script = "ulimit -c; ulimit -n; umask; cut -f 6 -d ' ' /proc/$$/stat; echo $$; \
                      cat /proc/$$/personality; grep -c 'NoNewPrivs:.1' /proc/$$/status";
        let (code, text) = run(
            script,
            Confinement {
                limits,
                ..Confinement::default()
            },
        );
        assert_eq!(code, 0);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[..3], ["0", "100", "0077"]);
        assert_eq!(lines[3], lines[4]);
        if lines.len() == 7 {
            assert_eq!(lines[5..], ["00040000", "1"]);
        }
    }

    #[test]
    fn a_filter_is_obeyed() {
        // Load the call's number; refuse `uname` with EPERM, allow the rest.
        let number = u32::try_from(libc::SYS_uname).unwrap();
        let one = |code, jump_true, operand| FilterInstruction {
            code,
            jump_true,
            jump_false: 0,
            operand,
        };
        let filter = vec![
            one(0x20, 0, 0),
            FilterInstruction {
                jump_false: 1,
                ..one(0x15, 0, number)
            },
            one(0x06, 0, 0x0005_0001),
            one(0x06, 0, 0x7fff_0000),
        ];
        let (code, _) = run(
            "uname 2>/dev/null",
            Confinement {
                filter,
                ..Confinement::default()
            },
        );
        assert_ne!(code, 0);
    }
}
