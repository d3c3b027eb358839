#!/usr/bin/env bash
# Trixie from packages to an ext4 image: coop without privileges beside mmdebstrap as root, for a minimal
# system and for a server. Prints medians by hyperfine, the peak memory of one warm build, and what
# the trees differ in beside times: tests/suite/debian.rs has the reason of each.
#
#   COOP_DEBIAN_MIRROR=http://… benches/debian.sh [minimal|server]…
set -euo pipefail
cd "$(dirname "$0")/.."

mirror=${COOP_DEBIAN_MIRROR:?name a Debian mirror for both tools}
# About 300 packages with what they depend on.
server=systemd-sysv,dbus,libpam-systemd,openssh-server,iproute2,netbase,nginx,python3,vim,curl,\
ca-certificates,git,rsyslog,cron,sudo,man-db,locales,tmux,less,wget,molly-guard,rsync,nftables,chrony,\
python3-requests,logrotate,procps,iputils-ping,bind9-dnsutils,tzdata,lsof,strace,htop,ifupdown,\
isc-dhcp-client,apparmor,unattended-upgrades,bash-completion,file,xz-utils,zip,unzip,screen,acl,attr,\
lvm2,cryptsetup,parted,zutils,moreutils,parallel,gawk,console-setup
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"
cp target/release/coop "$work/"
mkdir "$work/cache" "$work/out"
chown -R 65534:65534 "$work/cache" "$work/out"
user=(setpriv --reuid 65534 --regid 65534 --clear-groups --inh-caps=-all --bounding-set=-all --no-new-privs
    env -i "PATH=$PATH" HOME=/nonexistent "COOP_DEBIAN_MIRROR=$mirror" "COOP_CACHE=$work/cache")
keyring=$work/keys.asc
cp builder/src/debian/archive-keys.asc "$keyring"

compare() {
    local name=$1 include=$2 out=$work/out/$1
    local build="${user[*]} $work/coop build $work/$name.yaml -o $out --progress none"
    local forget="${user[*]} $work/coop cache gc --steps"
    local peer="mmdebstrap --variant=minbase ${include:+--include=$include} --keyring=$keyring --format=tar"
    peer+=" trixie $work/$name.tar $mirror"
    cat > "$work/$name.yaml" <<RECIPE
name: $name
rootfs: {source: {debian: {suite: trixie, packages: [${include//,/, }]}}}
RECIPE
    echo "## $name"
    hyperfine --runs "${RUNS:-5}" \
        --prepare "rm -rf $out $work/cache/*" --command-name 'coop build, cold cache' "$build" \
        --prepare "rm -rf $out; $forget" --command-name 'coop build, packages in the cache' "$build" \
        --prepare "rm -rf $out" --command-name 'coop build, steps in the cache' "$build" \
        --prepare "rm -f $work/$name.tar" --command-name 'mmdebstrap to tar, as root' "$peer"
    rm -rf "$out"
    $forget
    /usr/bin/time -f 'peak memory of a warm build: %M KiB' $build
    echo 'what the trees differ in:'
    "$work/coop" diff --all --ignore mtime --ignore mtime-ns "$out/root.cobd" "$work/$name.tar" || true
}

[ $# -gt 0 ] || set -- minimal server
for name in "$@"; do
    case $name in
    minimal) compare minimal '' ;;
    server) compare server "$server" ;;
    *) echo "known are minimal and server, not '$name'" >&2; exit 2 ;;
    esac
done
