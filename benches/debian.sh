#!/usr/bin/env bash
# From packages to an image: coop without privileges beside mmdebstrap as root, for the smallest
# Debian and for a server with systemd and some three hundred packages. Prints what hyperfine measured
# and the peak memory of one build each. The first build of a new machine also builds the kernel.
#
#   COOP_DEBIAN_MIRROR=… benches/debian.sh [minimal] [server]
set -euo pipefail
cd "$(dirname "$0")/.."

mirror=${COOP_DEBIAN_MIRROR:?name a Debian mirror for both tools}
read -ra sets <<< "${*:-minimal server}"
server=systemd-sysv,dbus,libpam-systemd,openssh-server,iproute2,netbase,nginx,postgresql,python3,git,curl,rsync,vim
server+=,sudo,cron,logrotate,man-db,locales,ca-certificates,unattended-upgrades,build-essential,php-fpm,redis-server
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"
cp target/release/coop builder/src/debian/archive-keys.asc "$work/"
mkdir "$work/cache" "$work/out" "$work/debs"
chown -R 65534:65534 "$work/cache" "$work/out"
user=(setpriv --reuid 65534 --regid 65534 --clear-groups --inh-caps=-all --bounding-set=-all --no-new-privs
    env -i "PATH=$PATH" HOME=/nonexistent "COOP_DEBIAN_MIRROR=$mirror" "COOP_CACHE=$work/cache")

for set in "${sets[@]}"; do
    case $set in
        minimal) packages= ;;
        server) packages=$server ;;
        *) echo "there is no set '$set'" >&2; exit 2 ;;
    esac
    printf 'name: %s\nrootfs: {source: {debian: {suite: trixie, packages: [%s]}}}\n' \
        "$set" "$packages" > "$work/$set.yaml"
    build="${user[*]} $work/coop build $work/$set.yaml -o $work/out/$set --progress none"
    # What mmdebstrap(1) says on keeping packages between runs.
    peer="mmdebstrap --quiet --variant=minbase --keyring=$work/archive-keys.asc --format=tar \
        ${packages:+--include=$packages} --skip=download/empty --skip=essential/unlink --skip=cleanup/apt/cache \
        --setup-hook='mkdir -p \"\$1\"/var/cache/apt/archives' \
        --setup-hook='sync-in $work/debs /var/cache/apt/archives' \
        --customize-hook='sync-out /var/cache/apt/archives $work/debs' \
        --customize-hook='rm -rf \"\$1\"/var/cache/apt/archives' trixie $work/peer.tar $mirror"
    # Both have the packages, and coop also the kernel, before the clock starts; of what a build
    # made nothing is left but that.
    $build > /dev/null
    rm -f "$work/peer.tar"
    bash -c "$peer"
    forget="rm -rf $work/out/$set; ${user[*]} $work/coop cache gc --steps"
    hyperfine --runs "${RUNS:-5}" \
        --prepare "$forget" --command-name "coop build, $set" "$build" \
        --prepare "rm -f $work/peer.tar" --command-name "mmdebstrap to tar as root, $set" "$peer"
    eval "$forget"
    /usr/bin/time -f "peak memory of coop build, $set: %M KiB" $build
    rm -f "$work/peer.tar"
    /usr/bin/time -f "peak memory of mmdebstrap, $set: %M KiB" bash -c "$peer"
done
