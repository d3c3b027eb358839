//! A Debian on a partitioned qcow2 that other tools made: it boots to a login and has its network.

use std::net::UdpSocket;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use fs_err as fs;

use super::{MIB, json, place, tool, tools};
use crate::support::{self, RUN_DEADLINE, coop, coop_in, in_namespace, temp_folder};
use crate::terminal::Terminal;

/// A Debian as people install it, as far as that matters here, with two init systems.
const DEBIAN: &str = "\
name: debian
rootfs:
  source:
    debian:
      suite: trixie
      packages: [systemd, sysvinit-core, udev, ifupdown, iproute2]
  users:
    - {name: root, password: {plain: correct horse}}
";

const FSTAB: &str = "\
UUID=0b1ff3a4-0000-4000-8000-000000000001 / ext4 errors=remount-ro 0 1
UUID=ABCD-1234 /boot/efi vfat umask=0077 0 1
/dev/sda3 none swap sw 0 0
";

const INTERFACES: &str = "\
auto lo
iface lo inet loopback

auto ens3
iface ens3 inet static
    address 192.0.2.7/24
    gateway 192.0.2.1
";

/// What would take any interface for the old machine's.
const NETWORK: &str = "\
[Match]
Name=*

[Network]
Address=192.0.2.7/24
Gateway=192.0.2.1
";

/// The name of a host that a name server of the test knows, and the address that it gives.
const PRINTER: (&str, [u8; 4]) = ("printer.example", [192, 0, 2, 80]);

#[test]
fn a_debian_on_a_disk_boots_to_a_login() {
    let names = ["sfdisk", "mke2fs", "mkfs.vfat", "qemu-img", "tar", "setsid"];
    if !tools(&names) || !support::root_oracle() {
        return;
    }
    let home = temp_folder();
    let folder = home.path();
    debian_disk(folder);
    let resolv = name_server(folder);
    let serial = "/etc/systemd/system/getty.target.wants/serial-getty@";
    for (label, paths, commands, shown) in [
        (
            "system",
            &[
                "/etc/network/interfaces",
                "/etc/systemd/network/05-coop.network",
                "/etc/netplan/01-netcfg.yaml",
                "/etc/cloud/cloud-init.disabled",
                &format!("{serial}hvc0.service"),
                &format!("{serial}ttyS0.service"),
            ][..],
            &[
                "systemctl is-system-running --wait | tr a-z A-Z",
                "networkctl --no-pager --no-legend list | grep eth0 | tr a-z A-Z",
                "cat /etc/machine-id",
            ][..],
            &["RUNNING", "ROUTABLE CONFIGURED", MACHINE_ID][..],
        ),
        (
            "sysv",
            &["/etc/network/interfaces", "/etc/inittab"],
            &["readlink /proc/1/exe", "ifquery --state eth0 | tr a-z A-Z"],
            &["/usr/sbin/init", "ETH0=ETH0"],
        ),
    ] {
        let out = format!("out/{label}");
        let words = [
            "convert",
            "disk.qcow2",
            "--appliance",
            &out,
            "--partition",
            label,
        ];
        let words = [&words[..], &["--json", "--progress", "none"]].concat();
        let done = json(&coop_in(folder, &words).expect(0));
        assert_eq!(done["partition"]["label"], label);
        let changed = done["fix_ups"].as_array().unwrap().iter();
        let changed: Vec<&str> = changed.map(|one| one["path"].as_str().unwrap()).collect();
        for path in paths.iter().chain(&["/etc/fstab"]) {
            assert!(changed.contains(path), "{path}: {changed:?}");
        }
        let left = done["left_behind"].to_string();
        assert!(
            left.contains("boot_loader") && left.contains("partition 1: "),
            "{left}"
        );
        coop_in(folder, &["verify", &out]).expect(0);
        let mut command = coop();
        command.arg("run").arg(folder.join(&out));
        let resolver = format!("mount --bind {} /etc/resolv.conf", resolv.display());
        let mut person = Terminal::run(&in_namespace(&resolver, &command, ""), 2 * RUN_DEADLINE);
        person.expect("oldbox login: ");
        person.send("root\r");
        person.expect("Password: ");
        person.send("correct horse\r");
        person.expect("root@oldbox:~#");
        person.send("ip -color=never -4 -brief address show dev eth0\r");
        person.expect("10.0.2.15/24");
        person.send(&format!("getent ahostsv4 {}\r", PRINTER.0));
        person.expect(&PRINTER.1.map(|part| part.to_string()).join("."));
        // What is expected is not what was typed.
        for (command, shown) in commands.iter().zip(shown) {
            person.send(&format!("{command}\r"));
            person.expect(shown);
        }
        person.send("poweroff\r");
        assert_eq!(person.end(), Some(0), "{label}");
    }
}

/// A name server on the host's loopback that knows one name. Gives the file that leads to it.
fn name_server(folder: &Path) -> PathBuf {
    const ADDRESS: &str = "127.53.53.53";
    let socket = UdpSocket::bind((ADDRESS, 53)).unwrap();
    std::thread::spawn(move || {
        let mut question = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut question) {
            let (name, kind) = question[12..length].split_at(length.saturating_sub(16));
            let is_known = kind == [0, 1, 0, 1] && name.ends_with(b"\x07example\0");
            let mut answer = question[..length].to_vec();
            answer[2..8].copy_from_slice(&[0x81, 0x80, 0, 1, 0, u8::from(is_known)]);
            if is_known {
                answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
                answer.extend(PRINTER.1);
            }
            let _ = socket.send_to(&answer, from);
        }
    });
    let file = folder.join("resolv.conf");
    fs::write(&file, format!("nameserver {ADDRESS}\n")).unwrap();
    file
}

const MACHINE_ID: &str = "0123456789abcdef0123456789abcdef";

/// The Debian as a directory of the host, changed as an installer would leave it, and from there on
/// a disk by e2fsprogs, sfdisk and qemu-img: once for each init system.
fn debian_disk(folder: &Path) {
    fs::write(folder.join("debian.yaml"), DEBIAN).unwrap();
    coop_in(
        folder,
        &["build", "debian.yaml", "-o", "debian", "--progress", "none"],
    )
    .expect(0);
    let words = ["inspect", "--extract", "/", "-o", "root.tar", "debian"];
    coop_in(folder, &words).expect(0);
    fs::remove_dir_all(folder.join("debian")).unwrap();
    let root = folder.join("root");
    fs::create_dir(&root).unwrap();
    tool(
        folder,
        "tar -x -p --xattrs --numeric-owner -C root -f root.tar",
        "",
    );
    fs::remove_file(folder.join("root.tar")).unwrap();
    let wants = root.join("etc/systemd/system/getty.target.wants");
    for folder in ["etc/netplan", "etc/cloud", "etc/systemd/network"] {
        fs::create_dir_all(root.join(folder)).unwrap();
    }
    fs::create_dir_all(&wants).unwrap();
    for (path, text) in [
        ("etc/fstab", FSTAB),
        ("etc/network/interfaces", INTERFACES),
        ("etc/netplan/01-netcfg.yaml", "network: {version: 2}\n"),
        ("etc/cloud/cloud.cfg", "users: [default]\n"),
        ("etc/systemd/network/10-static.network", NETWORK),
        ("etc/hostname", "oldbox\n"),
        ("etc/machine-id", &format!("{MACHINE_ID}\n")),
        // The first boot is long ago.
        ("etc/.updated", ""),
        ("var/.updated", ""),
    ] {
        fs::write(root.join(path), text).unwrap();
    }
    symlink(
        "/usr/lib/systemd/system/serial-getty@.service",
        wants.join("serial-getty@ttyS0.service"),
    )
    .unwrap();
    let table = "label: gpt\nstart=2048, size=81920, type=U\n\
                 start=83968, size=819200, type=L\nstart=903168, size=819200, type=L\n";
    for (name, size) in [("disk.raw", 850), ("efi", 40)] {
        fs::File::create(folder.join(name))
            .unwrap()
            .set_len(size * MIB)
            .unwrap();
    }
    tool(folder, "sfdisk -q disk.raw", table);
    tool(folder, "mkfs.vfat -n EFI efi", "");
    place(folder, "efi", "disk.raw", 1);
    let ext4 = "mke2fs -q -t ext4 -d root -E nodiscard,offset";
    tool(
        folder,
        &format!("{ext4}={} -L sysv disk.raw 400M", 41 * MIB),
        "",
    );
    fs::remove_file(root.join("usr/sbin/init")).unwrap();
    symlink("/usr/lib/systemd/systemd", root.join("usr/sbin/init")).unwrap();
    fs::remove_file(root.join("usr/sbin/poweroff")).unwrap();
    symlink("/usr/bin/systemctl", root.join("usr/sbin/poweroff")).unwrap();
    let networkd = root.join("etc/systemd/system/multi-user.target.wants");
    fs::create_dir_all(&networkd).unwrap();
    let unit = "systemd-networkd.service";
    symlink(
        format!("/usr/lib/systemd/system/{unit}"),
        networkd.join(unit),
    )
    .unwrap();
    tool(
        folder,
        &format!("{ext4}={} -L system disk.raw 400M", 441 * MIB),
        "",
    );
    fs::remove_dir_all(&root).unwrap();
    tool(
        folder,
        "qemu-img convert -f raw -O qcow2 disk.raw disk.qcow2",
        "",
    );
    fs::remove_file(folder.join("disk.raw")).unwrap();
}
