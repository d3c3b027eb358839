#!/usr/bin/env bash
# Disks of other machines to plain bytes and back: `coop convert` beside `qemu-img convert`, with peak
# memory. Prints Markdown.
#
#   benches/convert.sh FOLDER [--files DIR] [--size MIB] [--rounds N]
#
# FOLDER gets the disks: one with a GPT and an ext4 of DIR's files (default /usr/share, in 1500 MiB),
# in each format; they stay for the next run. COOP names a release build of coop, else
# target/release/coop. Wanted: qemu-img, mke2fs, sfdisk, python3. Every round runs every
# program of a case once, so what disturbs the machine disturbs all; the first round does not count.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

folder=${1:?usage: benches/convert.sh FOLDER [--files DIR] [--size MIB] [--rounds N]}
shift
files=/usr/share size=1500 rounds=7
while [ $# -gt 0 ]; do
    case $1 in
        --files) files=$2 ;;
        --size) size=$2 ;;
        --rounds) rounds=$2 ;;
        *) echo "unknown option $1" >&2; exit 2 ;;
    esac
    shift 2
done

mkdir -p "$folder"
cd "$folder"
if [ ! -e disk.raw ]; then
    mke2fs -q -F -t ext4 -d "$files" part "${size}M" >&2
    truncate -s "$((size + 2))M" disk.part
    printf 'label: gpt\nstart=2048, size=%d, type=L\n' "$((size * 2048))" | sfdisk -q disk.part
    dd if=part of=disk.part bs=1M seek=1 conv=notrunc,sparse status=none
    rm part
    mv disk.part disk.raw
fi
made() {
    [ -e "$1" ] || { qemu-img convert -f raw -O "${@:2}" disk.raw "$1.part" && mv "$1.part" "$1"; }
}
made plain.qcow2 qcow2
made zlib.qcow2 qcow2 -c
made zstd.qcow2 qcow2 -c -o compression_type=zstd
made sparse.vmdk vmdk
made stream.vmdk vmdk -o subformat=streamOptimized

COOP=${COOP:-$here/../target/release/coop} ROUNDS=$rounds exec python3 - <<'PYTHON'
import os, statistics, subprocess, time

coop, rounds = os.environ["COOP"], int(os.environ["ROUNDS"])


def measure(words, output):
    """Seconds, seconds of processor time and KiB of one run; the output is removed before it."""
    if os.path.exists(output):
        os.remove(output)
    start = time.monotonic()
    quiet = subprocess.DEVNULL
    child = subprocess.Popen(words + [output], stdout=quiet, stderr=quiet)
    _, status, used = os.wait4(child.pid, 0)
    wall = time.monotonic() - start
    if status != 0:
        raise SystemExit(f"{words} failed: {status}")
    return wall, used.ru_utime + used.ru_stime, used.ru_maxrss


def case(name, source, source_format, output_format):
    ours = [coop, "convert", "--no-sync", "--progress", "none", source]
    theirs = ["qemu-img", "convert", "-f", source_format, "-O", output_format, source]
    programs = [
        (ours, "coop." + output_format),
        (theirs, "qemu." + output_format),
        (theirs[:2] + ["-W", "-m", "16"] + theirs[2:], "qemu." + output_format),
    ]
    runs = [[] for _ in programs]
    for number in range(rounds + 1):
        for run, (words, output) in zip(runs, programs):
            found = measure(words, output)
            if number > 0:
                run.append(found)
    compare = ["qemu-img", "compare", "-q", "-f", output_format, "-F", "raw"]
    subprocess.run(compare + ["coop." + output_format, "disk.raw"], check=True)
    for _, output in programs:
        if os.path.exists(output):
            os.remove(output)
    medians = [[statistics.median(one) for one in zip(*run)] for run in runs]
    cells = []
    for wall, processor, memory in medians:
        ratio = wall / medians[0][0]
        text = f"{wall * 1000:.0f} ms, {processor * 1000:.0f} ms, {memory / 1024:.0f} MiB"
        cells.append(text if wall is medians[0][0] else f"{text} ({ratio:.1f})")
    print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


print("| case: time, processor time, memory | coop convert | qemu-img convert | -W -m 16 |")
print("|---|---|---|---|")
case("qcow2 → raw", "plain.qcow2", "qcow2", "raw")
case("qcow2, zlib → raw", "zlib.qcow2", "qcow2", "raw")
case("qcow2, zstd → raw", "zstd.qcow2", "qcow2", "raw")
case("VMDK → raw", "sparse.vmdk", "vmdk", "raw")
case("VMDK, stream → raw", "stream.vmdk", "vmdk", "raw")
case("raw → qcow2", "disk.raw", "raw", "qcow2")
PYTHON
