//! System calls: a seccomp filter for tools of the host that work on a stranger's files.
//!
//! Compilers and shells need nearly everything that a program of its own user may ask for, so
//! this filter is a list of what is refused: sockets of every kind (a network, but also whatever
//! listens on this machine and does as it is told), other processes, namespaces and mounts, and
//! those parts of the kernel that no compiler needs. Everything newer than the list fails too.
//! What is refused fails with `ENOSYS`, as in the guest's filter.

use std::collections::BTreeMap;

use coop_driver_sys::spawn::FilterInstruction;
use seccompiler::{
    SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};

use super::SandboxError;
use super::seccomp::{ENOSYS, ERRNO, NEW_NAMESPACES, RETURN, failed, instructions, number};

/// The highest number that this list was made for (`mseal`). Calls of the x32 ABI lie far above.
const LAST_KNOWN: u32 = 462;
/// The instruction that loads the call's number.
const LOAD_NUMBER: FilterInstruction = FilterInstruction {
    code: 0x20,
    jump_true: 0,
    jump_false: 0,
    operand: 0,
};
/// The code of a jump that compares with a constant: greater.
const JUMP_GREATER: u16 = 0x25;

/// Calls without which the C library has another way (`clone3`), or that only numbers name.
const CLONE3: libc::c_long = 435;

/// Calls that are refused whatever their arguments are.
const REFUSED: &[libc::c_long] = &[
    // Sockets: `socketpair` has its own rule.
    libc::SYS_socket,
    libc::SYS_connect,
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    // Out of the process group that the end of the work kills.
    libc::SYS_setsid,
    libc::SYS_setpgid,
    // Other processes, their memory and what they share.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_process_mrelease,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    libc::SYS_move_pages,
    libc::SYS_migrate_pages,
    libc::SYS_setpriority,
    libc::SYS_ioprio_set,
    libc::SYS_shmget,
    libc::SYS_shmat,
    libc::SYS_shmctl,
    libc::SYS_semget,
    libc::SYS_msgget,
    libc::SYS_mq_open,
    libc::SYS_mq_unlink,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    // Namespaces, mounts, and ways around the walls for files.
    CLONE3,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_mount_setattr,
    libc::SYS_open_by_handle_at,
    libc::SYS_name_to_handle_at,
    libc::SYS_fanotify_init,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    // Landlock has no rule for these. Modes and times it has none for either, but compilers and
    // make cannot do without.
    libc::SYS_chown,
    libc::SYS_fchown,
    libc::SYS_lchown,
    libc::SYS_fchownat,
    libc::SYS_setxattr,
    libc::SYS_lsetxattr,
    libc::SYS_fsetxattr,
    libc::SYS_removexattr,
    libc::SYS_lremovexattr,
    libc::SYS_fremovexattr,
    // The machine.
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_syslog,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_iopl,
    libc::SYS_ioperm,
    libc::SYS_modify_ldt,
    libc::SYS_lookup_dcookie,
    libc::SYS_vhangup,
    libc::SYS_nfsservctl,
];

fn one(index: u8, operator: SeccompCmpOp, value: u64) -> Result<SeccompRule, SandboxError> {
    let condition = SeccompCondition::new(index, SeccompCmpArgLen::Dword, operator, value);
    SeccompRule::new(vec![condition.map_err(failed)?]).map_err(failed)
}

/// Calls that are refused with some arguments only.
fn restricted() -> Result<Vec<(libc::c_long, Vec<SeccompRule>)>, SandboxError> {
    // A rule holds where all the masked bits compare equal, so each bit has a rule of its own.
    let bits = (0..u64::BITS).map(|bit| 1_u64 << bit);
    let namespaces = bits
        .filter(|bit| bit & NEW_NAMESPACES != 0)
        .map(|bit| one(0, SeccompCmpOp::MaskedEq(bit), bit))
        .collect::<Result<Vec<_>, _>>()?;
    let unix = number(libc::AF_UNIX);
    Ok(vec![
        (libc::SYS_clone, namespaces),
        (libc::SYS_socketpair, vec![one(0, SeccompCmpOp::Ne, unix)?]),
        // Limits of other processes.
        (libc::SYS_prlimit64, vec![one(0, SeccompCmpOp::Ne, 0)?]),
    ])
}

/// The filter's instructions.
pub(crate) fn tool_filter() -> Result<Vec<FilterInstruction>, SandboxError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        REFUSED.iter().map(|&call| (call, Vec::new())).collect();
    rules.extend(restricted()?);
    let refuse = SeccompAction::Errno(ENOSYS);
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refuse, TargetArch::x86_64);
    let unknown = [
        LOAD_NUMBER,
        FilterInstruction {
            code: JUMP_GREATER,
            jump_true: 0,
            jump_false: 1,
            operand: LAST_KNOWN,
        },
        FilterInstruction {
            code: RETURN,
            jump_true: 0,
            jump_false: 0,
            operand: ERRNO | ENOSYS,
        },
    ];
    Ok(unknown.into_iter().chain(instructions(filter)?).collect())
}
