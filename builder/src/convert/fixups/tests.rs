use super::*;
use coop_image::tree::Content;

fn root(files: &[(&str, &str)]) -> Tree {
    let mut tree = Tree::new(Metadata::default());
    for (path, text) in files {
        let content = tree.add_bytes(text.as_bytes().to_vec()).unwrap();
        put_file(&mut tree, path.as_bytes(), content, Metadata::default()).unwrap();
    }
    tree
}

fn link(tree: &mut Tree, path: &str, target: &str) {
    let put = put_file(
        tree,
        path.as_bytes(),
        Content::default(),
        Metadata::default(),
    );
    tree.inode_mut(put.unwrap()).kind = Kind::Symlink(target.as_bytes().into());
}

fn text(tree: &Tree, path: &str) -> String {
    let id = tree.resolve(path.as_bytes()).unwrap();
    String::from_utf8(tree.read_file(id, FILE_BYTES_MAX).unwrap()).unwrap()
}

fn fixed(tree: &mut Tree) -> FixUps {
    let done = apply(tree, Timestamp::from_seconds(7)).unwrap();
    // What was done needs not be done again.
    let mut again = tree.clone();
    let more = apply(&mut again, Timestamp::from_seconds(7)).unwrap();
    let is_new = |one: &&FixUp| !one.what.starts_with("made");
    assert_eq!(more.changes.iter().find(is_new), None);
    done
}

fn told(done: &FixUps, path: &str) -> Vec<String> {
    let of_path = done.changes.iter().filter(|one| one.path == path);
    of_path.map(|one| one.what.clone()).collect()
}

#[test]
fn only_the_root_and_what_needs_no_disk_is_mounted() {
    let fstab = "# a comment\n\
        UUID=0b1f /  ext4 errors=remount-ro 0 1\n\
        UUID=77 /boot/efi vfat umask=0077 0 1\n\
        /dev/sda5 none swap sw 0 0\n\
        /swapfile none swap sw 0 0\n\
        /swap.img none swap sw 0 0\n\
        tmpfs /tmp tmpfs nosuid 0 0\n\
        server:/x /mnt/x nfs ro 0 0\n\
        LABEL=home /home ext4\n";
    let mut tree = root(&[
        ("/etc/fstab", fstab),
        ("/swapfile", "x"),
        ("/etc/crypttab", "# c\nhome_crypt UUID=5 none luks\n"),
    ]);
    let reserved = Content {
        size: 1 << 20,
        ..tree.add_bytes(b"header".to_vec()).unwrap()
    };
    put_file(&mut tree, b"/swap.img", reserved, Metadata::default()).unwrap();
    let done = fixed(&mut tree);
    assert_eq!(
        text(&tree, "/etc/fstab"),
        "# a comment\n\
         #coop# UUID=0b1f /  ext4 errors=remount-ro 0 1\n\
         /dev/cobd0 / ext4 errors=remount-ro 0 0\n\
         #coop# UUID=77 /boot/efi vfat umask=0077 0 1\n\
         #coop# /dev/sda5 none swap sw 0 0\n\
         /swapfile none swap sw 0 0\n\
         #coop# /swap.img none swap sw 0 0\n\
         tmpfs /tmp tmpfs nosuid 0 0\n\
         server:/x /mnt/x nfs ro 0 0\n\
         #coop# LABEL=home /home ext4\n"
    );
    assert_eq!(
        text(&tree, "/etc/crypttab"),
        "# c\n#coop# home_crypt UUID=5 none luks\n"
    );
    let told = told(&done, "/etc/fstab");
    assert_eq!(told.len(), 5, "{told:?}");
    assert_eq!(told[0], "the root is /dev/cobd0 now, and was UUID=0b1f");
    assert!(
        told[2].starts_with("the swap area on /dev/sda5"),
        "{told:?}"
    );
    assert!(
        told[3].starts_with("the swap file /swap.img was never filled"),
        "{told:?}"
    );
}

#[test]
fn systemd_logs_in_on_the_console() {
    let mut tree = root(&[
        ("/usr/lib/systemd/systemd", ""),
        ("/usr/lib/systemd/system/serial-getty@.service", ""),
        ("/etc/securetty", "tty1"),
    ]);
    link(&mut tree, "/sbin/init", "/usr/lib/systemd/systemd");
    let wants = "/etc/systemd/system/getty.target.wants";
    let template = "/usr/lib/systemd/system/serial-getty@.service";
    link(
        &mut tree,
        &format!("{wants}/serial-getty@ttyS0.service"),
        template,
    );
    link(&mut tree, &format!("{wants}/getty@tty1.service"), "x");
    let done = fixed(&mut tree);
    let id = tree.lookup(format!("{wants}/serial-getty@hvc0.service").as_bytes());
    assert_eq!(
        tree.inode(id.unwrap()).kind,
        Kind::Symlink(template.as_bytes().into())
    );
    assert!(
        tree.lookup(format!("{wants}/serial-getty@ttyS0.service").as_bytes())
            .is_err()
    );
    assert!(
        tree.lookup(format!("{wants}/getty@tty1.service").as_bytes())
            .is_ok()
    );
    assert_eq!(text(&tree, "/etc/securetty"), "tty1\nhvc0\n");
    assert_eq!(done.changes.len(), 3, "{done:?}");
}

#[test]
fn tables_of_inits_have_a_line_for_the_console() {
    let before = "id:2:initdefault:\n\
        1:2345:respawn:/sbin/getty --noclear 38400 tty1\n\
        #T0:23:respawn:/sbin/getty -L ttyS0 9600 vt100\n";
    let mut tree = root(&[("/sbin/init", "init"), ("/etc/inittab", before)]);
    fixed(&mut tree);
    assert_eq!(
        text(&tree, "/etc/inittab"),
        "id:2:initdefault:\n\
         #coop# 1:2345:respawn:/sbin/getty --noclear 38400 tty1\n\
         #T0:23:respawn:/sbin/getty -L ttyS0 9600 vt100\n\
         co:2345:respawn:/sbin/getty -L 115200 hvc0 linux\n"
    );
    let before = "::sysinit:/sbin/openrc sysinit\ntty1::respawn:/sbin/getty 38400 tty1\n";
    let mut tree = root(&[("/bin/busybox", "b"), ("/etc/inittab", before)]);
    link(&mut tree, "/sbin/init", "/bin/busybox");
    fixed(&mut tree);
    assert_eq!(
        text(&tree, "/etc/inittab"),
        "::sysinit:/sbin/openrc sysinit\n\
         #coop# tty1::respawn:/sbin/getty 38400 tty1\n\
         hvc0::respawn:/sbin/getty -L 115200 hvc0 linux\n"
    );
}

#[test]
fn the_old_machines_interfaces_are_gone() {
    let interfaces = "source /etc/network/interfaces.d/*\n\nauto lo\niface lo inet loopback\n\n\
        # the card\nallow-hotplug ens3\niface ens3 inet static\n\taddress 192.0.2.4/24\n\tgateway 192.0.2.1\n";
    let mut tree = root(&[
        ("/etc/network/interfaces", interfaces),
        (
            "/etc/network/interfaces.d/x",
            "auto lo eth1\niface eth1 inet dhcp\n",
        ),
        ("/etc/netplan/01-net.yaml", "network: {}\n"),
        (
            "/etc/systemd/network/10-static.network",
            "[Match]\nName=*\n",
        ),
        ("/etc/NetworkManager/NetworkManager.conf", ""),
        ("/usr/sbin/NetworkManager", ""),
        ("/etc/udev/rules.d/70-persistent-net.rules", "x"),
        ("/etc/cloud/cloud.cfg", ""),
    ]);
    let done = fixed(&mut tree);
    let after = text(&tree, "/etc/network/interfaces");
    assert!(
        after.starts_with(
            "source /etc/network/interfaces.d/*\n\nauto lo\niface lo inet loopback\n\n# the card\n\
             #coop# allow-hotplug ens3\n#coop# iface ens3 inet static\n#coop# \taddress 192.0.2.4/24\n"
        ),
        "{after}"
    );
    assert!(
        after.ends_with("auto eth0\niface eth0 inet manual\n"),
        "{after}"
    );
    assert_eq!(
        text(&tree, "/etc/network/interfaces.d/x"),
        "auto lo\n#coop# auto lo eth1\n#coop# iface eth1 inet dhcp\n"
    );
    assert!(text(&tree, "/etc/netplan/50-coop.yaml").contains("dhcp4: true"));
    assert_eq!(
        text(&tree, "/etc/netplan/01-net.yaml.before-coop"),
        "network: {}\n"
    );
    assert!(text(&tree, "/etc/systemd/network/05-coop.network").contains("Name=eth0"));
    assert!(text(&tree, "/etc/NetworkManager/conf.d/coop.conf").contains("eth0"));
    assert!(tree.resolve(b"/etc/cloud/cloud-init.disabled").is_ok());
    let persistent = "/etc/udev/rules.d/70-persistent-net.rules";
    assert!(tree.resolve(persistent.as_bytes()).is_err());
    assert_eq!(told(&done, persistent).len(), 1);
}

#[test]
fn what_stays_is_told() {
    let shadow = "root:*:1:0:99999:7:::\nme:!:1::::::\n";
    let mut tree = root(&[
        ("/etc/shadow", shadow),
        ("/boot/vmlinuz-6.1", "kernel"),
        ("/lib/modules/6.1/x.ko", "module"),
        (
            "/etc/selinux/config",
            "# SELINUX=disabled\nSELINUX=enforcing\n",
        ),
    ]);
    let done = fixed(&mut tree);
    assert_eq!(done.changes, []);
    let all = done.stays.join("\n");
    for word in [
        "no init",
        "/boot has",
        "modules (0 MiB) of 6.1",
        "no account has a password",
        "SELinux is switched on",
    ] {
        assert!(all.contains(word), "{word}: {all}");
    }
    assert_eq!(text(&tree, "/etc/shadow"), shadow);
}

/// Files that nobody wrote for us: nothing panics, and what is no text stays.
#[test]
fn odd_files_are_left_alone() {
    let mut tree = root(&[
        ("/etc/fstab", ""),
        ("/etc/inittab", "\n\n"),
        ("/sbin/init", ""),
    ]);
    link(&mut tree, "/etc/securetty", "/etc/securetty");
    tree.make_directories(b"/etc/crypttab", &Metadata::default())
        .unwrap();
    let id = tree.resolve(b"/etc/fstab").unwrap();
    let bytes = b"\xff\xfe / \x00\n/dev/\xe9 /\xff ext4\n".to_vec();
    tree.inode_mut(id).kind = Kind::File(tree.clone().add_bytes(Vec::new()).unwrap());
    let content = tree.add_bytes(bytes).unwrap();
    tree.inode_mut(id).kind = Kind::File(content);
    fixed(&mut tree);
}
