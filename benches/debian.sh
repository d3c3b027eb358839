#!/usr/bin/env bash
# A minimal trixie from packages to an ext4 image: coop without privileges beside mmdebstrap as root.
# Prints medians by hyperfine, and the peak memory of one warm build.
set -euo pipefail
cd "$(dirname "$0")/.."

mirror=${COOP_DEBIAN_MIRROR:?name a Debian mirror for both tools}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"
cp target/release/coop recipes/debian.yaml "$work/"
mkdir "$work/cache" "$work/out"
chown -R 65534:65534 "$work/cache" "$work/out"
user=(setpriv --reuid 65534 --regid 65534 --clear-groups --inh-caps=-all --bounding-set=-all --no-new-privs
    env -i "PATH=$PATH" HOME=/nonexistent "COOP_DEBIAN_MIRROR=$mirror" "COOP_CACHE=$work/cache")
build="${user[*]} $work/coop build $work/debian.yaml -o $work/out/debian --progress none"
keyring=$work/keys.asc
cp builder/src/debian/archive-keys.asc "$keyring"
peer="mmdebstrap --variant=minbase --keyring=$keyring --format=tar trixie $work/peer.tar $mirror"

hyperfine --runs "${RUNS:-5}" \
    --prepare "rm -rf $work/out/debian $work/cache/*" --command-name 'coop build, cold cache' "$build" \
    --prepare "rm -rf $work/out/debian" --command-name 'coop build, warm cache' "$build" \
    --prepare "rm -f $work/peer.tar" --command-name 'mmdebstrap to tar, as root' "$peer"

rm -rf "$work/out/debian"
/usr/bin/time -f 'peak memory of a warm build: %M KiB' $build
