#!/usr/bin/env bash
# From exec through init to power-off: the user engine's kernels by hand and through `coop run`, and
# x86-64 kernels under QEMU without KVM, all in one run, pinned to one processor.
#
#   benches/boot.sh [--runs 15] [--cpu N] --trimmed APPLIANCE [--prebuilt APPLIANCE] [--x86 KERNEL]…
#
# COOP names a release build of coop, else target/release/coop. Wanted: python3, cc with a static
# libc, cpio; qemu-system-x86_64 where --x86 is given (bzImage, or a vmlinux with PVH).
# Every round runs every case once, so what disturbs the machine disturbs all; the first round does
# not count.
set -euo pipefail
cd "$(dirname "$0")/.."

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat > "$work/init.c" <<'C'
#include <sys/reboot.h>
#include <unistd.h>
int main(void)
{
    write(1, "init\n", 5);
    reboot(RB_POWER_OFF);
    for (;;)
        pause();
}
C
cc -static -Os -s -o "$work/init" "$work/init.c"
(cd "$work" && echo init | cpio --quiet -o -H newc > off.cpio)

COOP=${COOP:-target/release/coop} WORK=$work exec python3 benches/boot/measure.py "$@"
