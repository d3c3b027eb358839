//! Read-only roots with writable parts, and nodes that stay who they are and reach each other.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use fs_err as fs;
use rustix::process::Signal;

use crate::support::{self, Done, Process, RUN_DEADLINE};

/// The shared Debian with a read-only root, as from the same packages.
const RECIPE: &str = r##"
name: web
rootfs:
  source:
    debian: {suite: trixie}
  files:
    - {path: /etc/ssh/sshd_config, content: "# nothing\n", mode: 0o640, group: 7}
    - {path: /etc/fstab.local, content: "# ours\n"}
    - {path: /var/lib/thing/set, content: "kept\n", mode: 0o4711, owner: 3}
    - {path: /home/me/file, content: "not seen\n"}
  readonly: {writable: {/var: copy, /tmp: empty, /root: copy, /home: empty}, etc: [resolv.conf, fstab, motd]}
devices:
  memory: 128MiB
  cobd:
    - root: {}
    - data: {filesystem: ext4, size: 8MiB, mount: /srv/data}
"##;

/// The appliance, built once.
fn web() -> &'static Path {
    static WEB: OnceLock<PathBuf> = OnceLock::new();
    WEB.get_or_init(|| {
        support::debian();
        let folder = support::home().join("work/nodes");
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        support::give(&folder);
        fs::write(folder.join("web.yaml"), RECIPE).unwrap();
        let mut command = support::coop();
        command.args(["build", "--progress", "none", "web.yaml"]);
        support::run(command.current_dir(&folder), RUN_DEADLINE * 2).expect(0);
        folder.join("out/web")
    })
}

fn run(state: &Path, words: &[&str], script: &str) -> Command {
    let mut command = support::coop();
    command
        .args(["run", "--progress", "none"])
        .arg(web())
        .args(words)
        .env("XDG_STATE_HOME", state)
        .stdin(Stdio::null());
    if !script.is_empty() {
        command.args(["--", "sh", "-c", script]);
    }
    command
}

#[track_caller]
fn done(state: &Path, words: &[&str], script: &str) -> Done {
    support::run(&mut run(state, words, script), RUN_DEADLINE)
}

#[test]
fn a_readonly_root_has_writable_parts() {
    let state = support::temp_folder();
    let script = "touch /x; echo $?; touch /tmp/x /var/x && echo w; readlink /etc/resolv.conf";
    let text = done(state.path(), &[], script).expect(0).text();
    assert_eq!(text, "1\nw\n/tmp/coop/etc/resolv.conf\n");
    let script = "cat /etc/resolv.conf /etc/fstab; stat -c '%a %u' /var/lib/thing/set /tmp; \
                  cat /var/lib/thing/set; ls /home; cmp /etc/motd /usr/share/coop/etc/motd && \
                  echo same; touch /srv/data/x && echo data; stat -c '%a %g' /etc/ssh/sshd_config; \
                  touch /etc/ssh/x && echo ssh; touch /root/x /usr/x; \
                  grep -c ' / ext4 ro' /proc/mounts";
    let text = done(state.path(), &[], script).expect(0).text();
    let expected = "nameserver 10.0.2.3\n# ours\n4711 3\n1777 0\nkept\nsame\ndata\n640 7\nssh\n1\n";
    assert_eq!(text, expected);
    // A run that is no node keeps nothing.
    assert_eq!(fs::read_dir(state.path()).unwrap().count(), 0);
}

/// Each says who it is, then serves its name and some megabytes to all, and asks all for theirs.
const MEET: &str = r#"
key=/etc/ssh/ssh_host_ed25519_key
echo "id $(cat /etc/machine-id) $(cut -d' ' -f2 $key.pub) $(sha256sum < $key | cut -d' ' -f1)"
echo "name $(cat /proc/sys/kernel/hostname) $(cat /etc/hostname)"
echo "key $(stat -c %a /etc/ssh/ssh_host_ed25519_key) $(stat -f -c %T /etc/ssh)"
exec perl -e '
use IO::Socket::INET;
my $big = join("", map { chr($_ % 251) } 1 .. 300_000) x 10;
my $server = IO::Socket::INET->new(LocalPort => 7000, Listen => 16, ReuseAddr => 1) or die "listen: $!";
my $child = fork();
if (!$child) {
    for (1 .. 4) { my $peer = $server->accept(); print $peer $peer->peerhost . "\n$big"; close $peer; }
    exit 0;
}
for my $name (@ARGV) {
    my $peer;
    # It may not listen yet.
    for (1 .. 150) {
        $peer = IO::Socket::INET->new(PeerAddr => $name, PeerPort => 7000) and last;
        select(undef, undef, undef, 0.2);
    }
    die "$name: $!" if !$peer;
    my $seen = <$peer>; local $/; my $got = <$peer>;
    die "$name sent something else" if $got ne $big;
    chomp $seen;
    print "reached $name as $seen\n";
}
waitpid($child, 0);
' web1 web2 web3 web4
"#;

/// What a node has said, without its name in front.
fn said<'t>(text: &'t str, name: &str, word: &str) -> Vec<&'t str> {
    let prefix = format!("{name}: ");
    let lines = text.lines().filter_map(|line| line.strip_prefix(&*prefix));
    lines.filter_map(|line| line.strip_prefix(word)).collect()
}

#[test]
fn four_nodes_reach_each_other_and_stay_who_they_are() {
    let state = support::temp_folder();
    support::give(state.path());
    let boots = [(), ()].map(|()| done(state.path(), &["--nodes", "4"], MEET).expect(0).text());
    let names = ["web1", "web2", "web3", "web4"];
    let mut ids = BTreeSet::new();
    for (number, name) in (15..).zip(names) {
        let [first, second] = &boots;
        let id = said(first, name, "id ");
        assert_eq!(id.len(), 1, "{first}");
        assert_eq!(
            id,
            said(second, name, "id "),
            "the second boot is another node"
        );
        ids.extend(id[0].split(' '));
        assert_eq!(said(first, name, "name "), [format!("{name} {name}")]);
        assert_eq!(said(first, name, "key "), ["600 tmpfs"]);
        // To itself it is whom it calls.
        let reached = said(first, name, "reached ");
        let expected = names.map(|other| format!("{other} as 10.0.2.{number}"));
        assert_eq!(reached, expected, "{first}");
    }
    assert_eq!(ids.len(), 12, "each has a number and a key of its own");
    let folder = state.path().join("coop/nodes/web");
    for folder in [&folder, &folder.join("web3")] {
        let mode = fs::metadata(folder).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "{}", folder.display());
    }
    // A node alone is the same one.
    let alone = done(
        state.path(),
        &["--node", "web2"],
        "cat /etc/machine-id; hostname",
    )
    .expect(0);
    let id = said(&boots[0], "web2", "id ")[0];
    let number = id.split(' ').next().unwrap();
    assert_eq!(alone.text(), format!("{number}\nweb2\n"));
}

/// A node under systemd, with services that have a `/tmp` of their own.
fn systemd_recipe() -> String {
    let mut recipe = String::from(
        "name: own\n\
         rootfs:\n  \
           source: {debian: {suite: trixie, packages: [systemd-sysv, openssh-server]}}\n  \
           readonly: {}\n  \
           services: {enable: [ssh, probe-private, probe-disconnected, probe-dynamic]}\n  \
           files:\n",
    );
    for (name, setting) in [
        ("private", "PrivateTmp=yes"),
        ("disconnected", "PrivateTmp=disconnected"),
        ("dynamic", "DynamicUser=yes"),
    ] {
        let script = "cat /etc/resolv.conf && touch /tmp/own && ! test -e /tmp/mark";
        let unit = format!(
            "[Service]\\nType=oneshot\\n{setting}\\nExecStart=/bin/sh -c '{script} && \
             echo probe {name} is fine'\\nStandardOutput=tty\\nStandardError=tty\\n\
             TTYPath=/dev/hvc0\\n[Install]\\nWantedBy=multi-user.target\\n"
        );
        let path = format!("/etc/systemd/system/probe-{name}.service");
        recipe.push_str(&format!("    - {{path: {path}, content: \"{unit}\"}}\n"));
    }
    recipe.push_str("    - {path: /etc/tmpfiles.d/mark.conf, content: \"f /tmp/mark\\n\"}\n");
    recipe.push_str("devices: {memory: 512MiB}\n");
    recipe
}

#[test]
fn a_node_under_systemd_answers_with_its_key_and_shows_services_its_etc() {
    if !support::oracle("ssh-keyscan") {
        return;
    }
    let folder = support::temp_folder();
    fs::write(folder.path().join("own.yaml"), systemd_recipe()).unwrap();
    support::coop_in(folder.path(), &["build", "own.yaml"]).expect(0);
    let mut command = support::coop();
    command
        .current_dir(folder.path())
        .args(["run", "out/own", "--node", "one", "-p", "tcp:27122:22"])
        .env("XDG_STATE_HOME", folder.path())
        .stdin(Stdio::null());
    let machine = Process::start(&mut command, RUN_DEADLINE);
    for name in ["private", "disconnected", "dynamic"] {
        machine.expect(&format!("probe {name} is fine"));
    }
    let kept = folder
        .path()
        .join("coop/nodes/own/one/ssh_host_ed25519_key.pub");
    let kept = fs::read_to_string(kept).unwrap();
    let key = kept.split(' ').nth(1).unwrap();
    let answers = || {
        let mut scan = Command::new("ssh-keyscan");
        scan.args(["-T", "20", "-t", "ed25519", "-p", "27122", "127.0.0.1"]);
        let scanned = support::run(&mut scan, RUN_DEADLINE).text();
        assert!(scanned.is_empty() || scanned.contains(key), "{scanned}");
        !scanned.is_empty()
    };
    assert!(support::eventually(RUN_DEADLINE, answers), "no ssh server");
}

#[test]
fn the_first_that_fails_gives_its_code() {
    let state = support::temp_folder();
    support::give(state.path());
    let script =
        "echo 'out and'; printf 'no end' >&2; case $(hostname) in n2) exit 7;; n3) exit 8;; esac";
    let ended = done(state.path(), &["--node", "n", "--nodes", "3"], script).expect(7);
    let mut lines: Vec<&str> = ended.stderr.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["n1: no end", "n2: no end", "n3: no end"]);
    assert_eq!(ended.text().lines().count(), 3);
    for (words, says) in [
        (&["--nodes", "2", "--persist"][..], "--persist"),
        (&["--node", "a.b"], "not a node's name"),
        (&["--nodes", "33"], "33"),
    ] {
        let refused = done(state.path(), words, "true").expect(2);
        assert!(refused.stderr.contains(says), "{}", refused.stderr);
    }
}

#[test]
fn nodes_without_a_command_run_until_they_are_told() {
    let state = support::temp_folder();
    support::give(state.path());
    let words = ["--nodes", "2", "-p", "tcp:27100:80"];
    let running = Process::start(&mut run(state.path(), &words, ""), RUN_DEADLINE);
    running.expect_on_stderr("Ctrl-C ends the nodes");
    let log = state.path().join("coop/nodes/web/web2/console.log");
    let is_up = || fs::read_to_string(&log).is_ok_and(|text| text.contains('#'));
    assert!(
        support::eventually(RUN_DEADLINE, is_up),
        "no prompt in {}",
        log.display()
    );
    let again = done(state.path(), &["--node", "web2"], "true");
    assert_eq!(again.code(), Some(125));
    assert!(
        again.stderr.contains("node web2 of web runs already"),
        "{}",
        again.stderr
    );
    running.signal(Signal::INT);
    let ended = running.end();
    for says in [
        "web1: tcp port 27100",
        "web2: tcp port 27101",
        "console.log",
    ] {
        assert!(ended.stderr.contains(says), "{}", ended.stderr);
    }
    assert!(
        matches!(ended.code(), Some(0 | 130)),
        "{:?} {}",
        ended.code(),
        ended.stderr
    );
}
