//! System calls: a seccomp filter for a guest's process.
//!
//! What is not listed fails with `ENOSYS`, as if the host's kernel had never heard of it. Nothing
//! kills: a User-Mode-Linux kernel has its guest's programs trapped by filters of its own, and a
//! kill would outrank those traps, so that any program could take its whole guest down.

use std::collections::BTreeMap;

use coop_driver_sys::spawn::FilterInstruction;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

use super::SandboxError;

/// Calls that are allowed with any arguments.
const ALLOWED: &[libc::c_long] = &[
    // Files. What may be opened is Landlock's matter.
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_preadv,
    libc::SYS_pwritev,
    libc::SYS_close,
    libc::SYS_close_range,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_statfs,
    libc::SYS_fstatfs,
    libc::SYS_lseek,
    libc::SYS_access,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_readlink,
    libc::SYS_readlinkat,
    libc::SYS_getdents64,
    libc::SYS_getcwd,
    libc::SYS_chdir,
    libc::SYS_mkdir,
    libc::SYS_rmdir,
    libc::SYS_unlink,
    libc::SYS_unlinkat,
    libc::SYS_umask,
    libc::SYS_dup,
    libc::SYS_dup2,
    libc::SYS_dup3,
    libc::SYS_fcntl,
    libc::SYS_ioctl,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_pipe,
    libc::SYS_pipe2,
    // Waiting.
    libc::SYS_poll,
    libc::SYS_ppoll,
    libc::SYS_select,
    libc::SYS_pselect6,
    libc::SYS_epoll_create,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_wait,
    libc::SYS_epoll_pwait,
    libc::SYS_eventfd2,
    libc::SYS_signalfd4,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_futex,
    libc::SYS_sched_yield,
    // Sockets, once there are any: see `socket` below.
    libc::SYS_connect,
    libc::SYS_bind,
    libc::SYS_sendmsg,
    libc::SYS_recvmsg,
    libc::SYS_sendto,
    libc::SYS_recvfrom,
    libc::SYS_shutdown,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    // Memory.
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_membarrier,
    // Processes and threads: the guest's address spaces are processes of their own.
    libc::SYS_fork,
    libc::SYS_vfork,
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_wait4,
    libc::SYS_waitid,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_gettid,
    libc::SYS_set_tid_address,
    libc::SYS_set_robust_list,
    libc::SYS_get_robust_list,
    libc::SYS_rseq,
    libc::SYS_arch_prctl,
    libc::SYS_personality,
    libc::SYS_seccomp,
    libc::SYS_sched_getaffinity,
    // Signals. Whom they may reach is Landlock's matter.
    libc::SYS_kill,
    libc::SYS_tgkill,
    // Between the threads of more than one processor.
    libc::SYS_rt_tgsigqueueinfo,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigsuspend,
    libc::SYS_rt_sigpending,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    // Time.
    libc::SYS_time,
    libc::SYS_gettimeofday,
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_timer_create,
    libc::SYS_timer_settime,
    libc::SYS_timer_gettime,
    libc::SYS_timer_getoverrun,
    libc::SYS_timer_delete,
    libc::SYS_setitimer,
    libc::SYS_getitimer,
    // Asking.
    libc::SYS_uname,
    libc::SYS_sysinfo,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_getrlimit,
    libc::SYS_prlimit64,
    libc::SYS_getrusage,
    libc::SYS_times,
    libc::SYS_getrandom,
];

/// Bits of `clone`'s flags that make namespaces.
pub(super) const NEW_NAMESPACES: u64 = 0x7e02_0080;
/// `PR_SET_VMA`, with which a C library names its memory.
const PR_SET_VMA: u64 = 0x5356_4d41;
/// Bits of `open`'s flags that are looked at: a file must not be cut short, for the guest's
/// memory is mapped by its devices, and to read beyond a file's end is a fatal signal there.
const OPEN_TRUNCATE: u64 = 0o1000;
/// The bit of `memfd_create`'s flags for huge pages: where none is left, touching such memory is
/// a fatal signal too.
const HUGE_PAGES: u64 = 4;
/// `fallocate` without a change of size: the guest gives memory back.
const PUNCH_HOLE_KEEP_SIZE: u64 = 3;
/// A filter's answer: fail with `ENOSYS`.
pub(super) const ENOSYS: u32 = 38;
/// The code of a return instruction, with a constant answer.
pub(super) const RETURN: u16 = 0x06;
/// The bit of an answer that kills.
const KILL: u32 = 0x8000_0000;
/// An answer that fails the call, without the number of the error.
pub(super) const ERRNO: u32 = 0x0005_0000;

pub(super) fn failed(error: impl std::fmt::Display) -> SandboxError {
    SandboxError::Filter(error.to_string())
}

/// A rule that holds where one argument compares so.
fn argument(index: u8, operator: SeccompCmpOp, value: u64) -> Result<SeccompRule, SandboxError> {
    let condition = SeccompCondition::new(index, SeccompCmpArgLen::Dword, operator, value);
    SeccompRule::new(vec![condition.map_err(failed)?]).map_err(failed)
}

pub(super) fn any(index: u8, values: &[u64]) -> Result<Vec<SeccompRule>, SandboxError> {
    values
        .iter()
        .map(|&value| argument(index, SeccompCmpOp::Eq, value))
        .collect()
}

pub(super) fn number(value: libc::c_int) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}

/// Calls that are allowed with some arguments only.
fn restricted() -> Result<Vec<(libc::c_long, Vec<SeccompRule>)>, SandboxError> {
    let without = |index, bits| Ok(vec![argument(index, SeccompCmpOp::MaskedEq(bits), 0)?]);
    let unix = [number(libc::AF_UNIX)];
    let mut prctl = any(
        0,
        &[
            number(libc::PR_SET_NAME),
            number(libc::PR_GET_NAME),
            number(libc::PR_SET_NO_NEW_PRIVS),
            PR_SET_VMA,
        ],
    )?;
    // To die with the parent may be asked for, and not be taken back.
    let dword = SeccompCmpArgLen::Dword;
    let die = [
        (0, number(libc::PR_SET_PDEATHSIG)),
        (1, number(libc::SIGKILL)),
    ];
    let die = die
        .map(|(index, value)| SeccompCondition::new(index, dword.clone(), SeccompCmpOp::Eq, value));
    let die = die
        .into_iter()
        .collect::<Result<Vec<_>, _>>()
        .map_err(failed)?;
    prctl.push(SeccompRule::new(die).map_err(failed)?);
    Ok(vec![
        (libc::SYS_open, without(1, OPEN_TRUNCATE)?),
        (libc::SYS_openat, without(2, OPEN_TRUNCATE)?),
        (libc::SYS_memfd_create, without(1, HUGE_PAGES)?),
        (libc::SYS_clone, without(0, NEW_NAMESPACES)?),
        (libc::SYS_fallocate, any(1, &[PUNCH_HOLE_KEEP_SIZE])?),
        (libc::SYS_socket, any(0, &unix)?),
        (libc::SYS_socketpair, any(0, &unix)?),
        (libc::SYS_prctl, prctl),
    ])
}

/// The filter's instructions.
pub(crate) fn filter() -> Result<Vec<FilterInstruction>, SandboxError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        ALLOWED.iter().map(|&call| (call, Vec::new())).collect();
    rules.extend(restricted()?);
    let refuse = SeccompAction::Errno(ENOSYS);
    let filter = SeccompFilter::new(rules, refuse, SeccompAction::Allow, TargetArch::x86_64);
    instructions(filter)
}

/// A filter as the instructions that a child is put under; none of them kills.
pub(super) fn instructions(
    filter: Result<SeccompFilter, seccompiler::BackendError>,
) -> Result<Vec<FilterInstruction>, SandboxError> {
    let program: BpfProgram = filter.and_then(TryInto::try_into).map_err(failed)?;
    let instructions = program.into_iter().map(|instruction| FilterInstruction {
        code: instruction.code,
        jump_true: instruction.jt,
        jump_false: instruction.jf,
        operand: instruction.k,
    });
    Ok(instructions.map(spare).collect())
}

/// The compiler kills on a foreign architecture's call; a guest's 32-bit program makes such.
fn spare(instruction: FilterInstruction) -> FilterInstruction {
    if instruction.code == RETURN && instruction.operand & KILL != 0 {
        return FilterInstruction {
            operand: ERRNO | ENOSYS,
            ..instruction
        };
    }
    instruction
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_kills() {
        let filter = filter().unwrap();
        let kills = |one: &&FilterInstruction| one.code == RETURN && one.operand < ERRNO;
        assert_eq!(filter.iter().filter(kills).count(), 0);
        assert!(filter.iter().any(|one| one.operand == ERRNO | ENOSYS));
        let above = |one: &&FilterInstruction| one.code == RETURN && one.operand & KILL != 0;
        assert_eq!(filter.iter().filter(above).count(), 0);
    }
}
