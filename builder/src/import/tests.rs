//! What the three grammars give: whole files in `golden/`, malformed ones in `wrong.txt`.

use std::fmt::Write as _;

use super::*;

/// Each configuration of `golden/` beside the recipe that it gives.
const GOLDEN: [&str; 8] = [
    "full.conf",
    "small.conf",
    "nfs.conf",
    "moved.conf",
    "full.xml",
    "full.ini",
    "small.ini",
    "cobd.ini",
];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/import")
}

/// With COOP_UPDATE_GOLDEN=1 at compile time the recipes are written anew.
#[test]
fn recipes_are_as_recorded() {
    let more = fs::read_to_string(folder().join("golden/full.more.conf")).unwrap();
    for name in GOLDEN {
        let text = fs::read_to_string(folder().join("golden").join(name)).unwrap();
        let imported = import_texts(&[(name, &text), ("more.conf", &more)]);
        let recipe = imported.map_err(|error| error.to_string()).unwrap().recipe;
        let golden = folder().join("golden").join(format!("{name}.yaml"));
        if option_env!("COOP_UPDATE_GOLDEN").is_some() {
            fs::write(golden, recipe).unwrap();
        } else {
            assert_eq!(recipe, fs::read_to_string(golden).unwrap(), "{name}");
        }
    }
}

/// `wrong.txt` holds cases: a line `=== file: name`, the configuration, a line `-->`, the errors.
#[test]
fn errors_are_as_recorded() {
    let golden = fs::read_to_string(folder().join("wrong.txt")).unwrap();
    let mut fresh = String::new();
    for case in golden.split("=== ").skip(1) {
        let (title, rest) = case.split_once('\n').unwrap();
        let text = rest.split("-->\n").next().unwrap();
        let file = title.split(':').next().unwrap();
        let error = match import_texts(&[(file, text)]) {
            Ok(imported) => format!("taken:\n{}", imported.recipe),
            Err(error) => error.to_string(),
        };
        writeln!(fresh, "=== {title}\n{text}-->\n{error}").unwrap();
    }
    if option_env!("COOP_UPDATE_GOLDEN").is_some() {
        fs::write(folder().join("wrong.txt"), fresh).unwrap();
        return;
    }
    for (have, want) in fresh.split("=== ").zip(golden.split("=== ")) {
        assert_eq!(have, want);
    }
}

#[test]
fn grammars_are_told_apart() {
    for (text, expected) in [
        ("\u{feff} \n<?xml version=\"1.0\"?><colinux/>", Dialect::Xml),
        ("; c\n\n[comosix]\n", Dialect::Ini),
        ("# c\nkernel=vmlinux\n", Dialect::Text),
        ("", Dialect::Text),
    ] {
        assert_eq!(dialect(text), expected, "{text}");
    }
}

#[test]
fn files_that_include_each_other_come_to_an_end() {
    let texts = [("a.conf", "@b.conf @b.conf"), ("b.conf", "@a.conf")];
    let error = import_texts(&texts).unwrap_err().to_string();
    assert_eq!(error, "b.conf:1: @a.conf: the file includes itself");
    let many = "@b.conf ".repeat(40);
    let error = import_texts(&[("a.conf", &many), ("b.conf", "")]).unwrap_err();
    assert!(error.to_string().contains("files in files deeper than"));
}

#[test]
fn what_is_no_text_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("x.conf");
    for (bytes, part) in [
        (&b"mem=\xff"[..], "not UTF-8 at byte 4"),
        (b"mem=\0", "NUL"),
    ] {
        fs::write(&file, bytes).unwrap();
        let error = import(&file, None).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
    fs::write(&file, vec![b'#'; FILE_SIZE_MAX + 1]).unwrap();
    assert!(
        import(&file, None)
            .unwrap_err()
            .to_string()
            .contains("limit")
    );
    assert!(import(folder.path(), None).is_err());
}

#[test]
fn small_files_make_little_work() {
    let attributes = |count: usize| -> String { (0..count).map(|n| format!(" a{n}=''")).collect() };
    let xml = |rest: &str| format!("<colinux><memory size='64'{rest}/></colinux>");
    let error = |text: &str| import_texts(&[("a.xml", text)]).unwrap_err().to_string();
    assert!(error(&xml(&attributes(7000))).contains("no block device"));
    assert!(error(&xml(&attributes(70_000))).contains("at most 65536 bytes"));
    assert!(error(&xml(" xmlns:a='b'")).contains("no namespaces"));
    let forwards: String = (1..4096).map(|n| format!("tcp:{n}:1/")).collect();
    let conf = format!("eth0=slirp,,{forwards}{}", "tcp:1:1/".repeat(100_000));
    let twice = error(&conf);
    assert!(twice.contains("forwarded twice"), "{twice}");
    let many = error("eth0=slirp,,tcp:1:1:4096/udp:1:1\n");
    assert!(many.contains("udp:1:1: coop forwards 4096 ports"), "{many}");
}
