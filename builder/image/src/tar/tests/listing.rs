//! Archives of many programs, listed by coop and by its peers.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use super::{CAPABILITY, read};
use crate::tar::{Entries, Entry, EntryKind, Limits, write};
use crate::testing::{have, is_root, make_source, set_xattr, sh};

/// Makes the archives whose makers are there; names that a format has no room for are left out.
const MAKE: &str = r#"
    gnu() { tar -C src -cf "$@" . 2>/dev/null || true; }
    for format in v7 oldgnu gnu ustar posix; do gnu tar-$format.tar --format=$format; done
    gnu tar-gnu-sparse.tar --format=gnu -S
    for v in 0.0 0.1 1.0; do gnu tar-posix-sparse-$v.tar --format=posix -S --sparse-version=$v; done
    gnu tar-posix-xattrs.tar --format=posix --xattrs --xattrs-include='*'
    gnu tar-posix-global.tar --format=posix --pax-option='comment=hello,gname=nobody'
    gnu tar-posix-times.tar --format=posix --pax-option='delete=atime,delete=ctime,mtime:=7.25'
    gnu tar-incremental.tar --format=gnu -g snapshot
    gnu tar-posix-incremental.tar --format=posix -g snapshot-posix
    gnu tar-gnu-label.tar --format=gnu -V label
    gnu tar-posix-label.tar --format=posix -V label
    gnu tar-sorted.tar --format=gnu --sort=name --mtime=@0 --owner=root:0 --group=root:0
    gnu tar-absolute.tar -P --transform=s,^,/top/,
    cp tar-posix.tar tar-updated.tar; tar -C src -rf tar-updated.tar ./usr ./pipe
    if type bsdtar; then
        for format in pax gnutar ustar v7tar paxr; do
            bsdtar -C src --format=$format -cf bsd-$format.tar . || true
        done
    fi
    for format in PAX GNU USTAR; do
        python3 -c "import tarfile
t = tarfile.open('python-$format.tar', 'w', format=tarfile.${format}_FORMAT)
try: t.add('src', '.')
except ValueError: pass
t.close()"
    done
    if type cpio; then
        (cd src; find . | cpio -o -H ustar > ../cpio-ustar.tar || true)
        (cd src; find . -maxdepth 1 -type f | cpio -o -H tar > ../cpio-tar.tar || true)
    fi
    if type busybox; then busybox tar -C src -cf busybox.tar . || true; fi
    if type git; then
        mkdir repo; cp -a src/usr src/bin src/abs repo
        git -c init.defaultBranch=main init -q repo; git -C repo add -A
        git -C repo -c user.name=n -c user.email=e commit -q -m m
        git -C repo archive -o ../git.tar --prefix=top/ HEAD
    fi
    if type dpkg-deb; then
        mkdir -p deb/DEBIAN; cp -a src/usr src/deep deb
        printf 'Package: p\nVersion: 1\nArchitecture: all\nMaintainer: m\nDescription: d\n' > deb/DEBIAN/control
        dpkg-deb -b deb p.deb; dpkg-deb --fsys-tarfile p.deb > deb.tar
    fi
"#;

/// As the peers' names are shown.
fn text(name: &[u8]) -> String {
    let show = |byte: &u8| match byte {
        33..127 if *byte != b'\\' => char::from(*byte).to_string(),
        other => format!("\\x{other:02x}"),
    };
    name.iter().map(show).collect()
}

fn line(entry: &Entry, with_xattrs: bool) -> String {
    let mut target = &b""[..];
    let mut size = "0".to_string();
    let kind = match &entry.kind {
        EntryKind::Directory => 'd',
        EntryKind::File(layout) => {
            size = layout.size.to_string();
            'f'
        }
        EntryKind::HardLink(to) => {
            target = to;
            'h'
        }
        EntryKind::Symlink(to) => {
            target = to;
            'l'
        }
        EntryKind::CharDevice { major, minor } | EntryKind::BlockDevice { major, minor } => {
            size = format!("{major},{minor}");
            let is_char = matches!(entry.kind, EntryKind::CharDevice { .. });
            if is_char { 'c' } else { 'b' }
        }
        EntryKind::Fifo => 'p',
    };
    let metadata = &entry.metadata;
    let modified = metadata.times.modified;
    let xattrs = metadata.xattrs.iter().filter(|_| with_xattrs);
    let hex = |value: &[u8]| value.iter().map(|b| format!("{b:02x}")).collect::<String>();
    let xattrs: Vec<String> = xattrs
        .map(|(name, value)| format!("{}={}", text(name), hex(value)))
        .collect();
    let line = format!(
        "{kind} {:o} {}:{} {size} {}.{:09} {} {} {}",
        metadata.mode,
        metadata.uid,
        metadata.gid,
        modified.seconds,
        modified.nanoseconds,
        text(entry.path.strip_prefix(b"./").unwrap_or(&entry.path)),
        text(target),
        xattrs.join(" ")
    );
    line.trim_end().to_string()
}

fn list(bytes: &[u8], with_xattrs: bool) -> Vec<String> {
    let mut entries = Entries::in_place(Arc::new(bytes.to_vec()), Limits::default());
    let mut lines = Vec::new();
    while let Some(entry) = entries.next_entry().unwrap() {
        lines.push(line(&entry, with_xattrs));
    }
    lines
}

/// Whether a peer sees this archive at all as it is.
fn can_list(peer: &str, archive: &str) -> bool {
    match (peer, archive) {
        // Python takes the times that GNU tar writes there for a path.
        ("python", "tar-incremental.tar") => false,
        // mtree has no absolute paths.
        ("bsd", "tar-absolute.tar") => false,
        _ => true,
    }
}

/// Whether a peer sees this entry as it is.
fn can_show(peer: &str, line: &str) -> bool {
    // GNU tar shows times before 1970 wrongly, libarchive and Python compute them wrongly.
    let is_early = line.contains("before-epoch");
    // mtree has no hard links, and may show either name.
    let has_two_names = line.contains("bin/hallo") || line.contains("bin/hello");
    !(is_early || peer == "bsd" && has_two_names)
}

#[test]
fn archives_of_many_programs_are_listed_as_by_their_peers() {
    if !have("tar") || !have("python3") {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    make_source(temp.path());
    let src = temp.path().join("src");
    // Names that are not UTF-8 are the nasty archives' business.
    sh(&src, "rm latin-*");
    set_xattr(&src.join("usr/bin/hello"), "user.a=b%", b"\0value\n");
    set_xattr(&src.join("usr"), "user.empty", b"");
    if is_root() {
        set_xattr(&src.join("owned"), "security.capability", CAPABILITY);
    }
    sh(temp.path(), MAKE);
    let (tree, _) = read(&fs::read(temp.path().join("tar-posix-xattrs.tar")).unwrap()).unwrap();
    let own = fs::File::create(temp.path().join("coop.tar")).unwrap();
    write(&tree, own).unwrap();
    compare(temp.path());
}

fn compare(folder: &Path) {
    let mut peers = vec!["python", "gnu"];
    if have("bsdtar") {
        peers.push("bsd");
    }
    fs::write(folder.join("peers.py"), include_str!("peers.py")).unwrap();
    sh(
        folder,
        &format!("python3 peers.py {} *.tar", peers.join(",")),
    );
    let mut archives = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_string();
        if !name.ends_with(".tar") {
            continue;
        }
        archives += 1;
        let bytes = fs::read(&path).unwrap();
        for peer in peers.iter().filter(|peer| can_list(peer, &name)) {
            let theirs = fs::read_to_string(folder.join(format!("{name}.{peer}"))).unwrap();
            let theirs = theirs.lines().map(str::to_owned);
            let ours = list(&bytes, *peer == "python").into_iter();
            let mut theirs: Vec<String> = theirs.filter(|line| can_show(peer, line)).collect();
            let mut ours: Vec<String> = ours.filter(|line| can_show(peer, line)).collect();
            if *peer == "bsd" {
                // mtree is sorted, and has a name once.
                theirs.sort();
                ours.sort();
                ours.dedup();
            }
            let differ = |(ours, theirs): &(&String, &String)| ours != theirs;
            let first = ours.iter().zip(&theirs).find(differ);
            assert!(first.is_none(), "{name}, {peer}: {first:#?}");
            assert_eq!(ours.len(), theirs.len(), "{name}, {peer}");
            assert!(!ours.is_empty(), "{name}, {peer}");
        }
    }
    assert!(archives >= 20, "{archives} archives");
}
