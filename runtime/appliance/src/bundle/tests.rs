//! Bundles made, opened, installed; and those that somebody has meddled with.

use std::fs::File;
use std::io::{Seek as _, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use super::*;
use crate::manifest::{Appliance, EVIDENCE_FOLDER, FORMAT, MANIFEST_NAME, Manifest, Member};

/// An appliance in a folder: a kernel, a sparse image, evidence.
fn appliance(folder: &Path) -> Appliance {
    let write = |path: &str, bytes: &[u8]| {
        let full = folder.join(path);
        std::fs::create_dir_all(full.parent().unwrap()).unwrap();
        std::fs::write(full, bytes).unwrap();
        Member::of(folder, path).unwrap()
    };
    let image = File::create(folder.join("root.cobd")).unwrap();
    image.write_all_at(&[7; 9000], 5 << 20).unwrap();
    image.set_len((9 << 20) + 512).unwrap();
    let manifest = serde_json::json!({
        "format": FORMAT,
        "name": "web",
        "description": "A test",
        "architecture": "amd64",
        "inputs": "",
        "kernel": {
            "release": "7.2",
            "vmlinux": write("vmlinux", b"\x7fELF kernel"),
            "config": write("config", b"CONFIG_UML=y\n"),
            "modules": null,
            "libraries": [write("lib/ld.so", b"loader"), write("lib/libc.so.6", b"loader")],
            "cmdline": [],
        },
        "machine": { "memory_bytes": 64 << 20, "cpus": 1 },
        "cobd": [{
            "name": "root",
            "image": Member::of(folder, "root.cobd").unwrap(),
            "filesystem": "unknown",
            "mount": null,
            "readonly": false,
        }],
        "conet": [],
        "cocon": { "columns": 80, "rows": 25 },
        "test": [],
        "evidence": [write(&format!("{EVIDENCE_FOLDER}/notes"), b"notes")],
    });
    let manifest: Manifest = serde_json::from_value(manifest).unwrap();
    std::fs::write(folder.join(MANIFEST_NAME), manifest.to_json()).unwrap();
    Appliance::open(folder).unwrap()
}

fn layout_of(appliance: &Appliance) -> Layout {
    Layout::of_appliance(appliance, tempfile::tempfile().unwrap()).unwrap()
}

fn bundle(layout: &Layout, signatures: &[AttachedSignature]) -> Vec<u8> {
    let mut bytes = Vec::new();
    write_bundle(layout.package(), signatures, layout, &mut bytes).unwrap();
    bytes
}

fn opened(bytes: &[u8]) -> Result<Layout, BundleError> {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file.rewind().unwrap();
    Layout::open(file)
}

fn signature(text: &str) -> AttachedSignature {
    AttachedSignature {
        form: SignatureForm::Minisign,
        bytes: text.into(),
    }
}

#[test]
fn an_appliance_comes_back_whole() {
    let (home, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let appliance = appliance(home.path());
    let layout = layout_of(&appliance);
    let bytes = bundle(&layout, &[]);
    assert!(is_bundle(&bytes[..512]));
    assert!(
        bytes == bundle(&layout_of(&appliance), &[]),
        "the same bytes each time"
    );
    let found = opened(&bytes).unwrap();
    assert_eq!(found.package().digest(), layout.package().digest());
    assert_eq!(found.package().appliance(), &appliance.manifest);
    verify(found.package(), &found).unwrap();
    install(found.package(), &found, other.path()).unwrap();
    let copy = Appliance::open(other.path()).unwrap();
    assert_eq!(copy.manifest, appliance.manifest);
    copy.verify().unwrap();
    let metadata = |path: &str| std::fs::metadata(other.path().join(path)).unwrap();
    assert_eq!(metadata("vmlinux").permissions().mode() & 0o777, 0o755);
    assert_eq!(metadata("lib/ld.so").permissions().mode() & 0o777, 0o755);
    assert_eq!(metadata("config").permissions().mode() & 0o111, 0);
    assert!(metadata("root.cobd").blocks() < 64, "holes are kept");
    // The appliance of a bundle is packed to the bundle it came from.
    assert!(bytes == bundle(&layout_of(&copy), &[]));
}

#[test]
fn signatures_go_along() {
    let home = tempfile::tempdir().unwrap();
    let layout = layout_of(&appliance(home.path()));
    let both = [signature("b"), signature("a")];
    let bytes = bundle(&layout, &both);
    let found = opened(&bytes).unwrap();
    assert_eq!(found.signatures(), [signature("a"), signature("b")]);
    assert_eq!(found.package().digest(), layout.package().digest());
    assert!(bytes == bundle(&found, found.signatures()));
    // What could not be read again is not written.
    let write = |signatures: &[AttachedSignature]| {
        write_bundle(layout.package(), signatures, &layout, std::io::sink())
    };
    let many: Vec<_> = (0..=64).map(|i| signature(&i.to_string())).collect();
    assert!(write(&many[..64]).is_ok());
    for (bad, says) in [
        (&many[..], "number of signatures is 65"),
        (&[signature(&"x".repeat(20_000))], "size of a signature"),
    ] {
        let error = write(bad).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
    // Those of another appliance say nothing.
    let artifact = both[0].to_artifact(&Descriptor::of(media::OCI_MANIFEST, b"other"));
    let digest = layout.package().digest();
    let read = AttachedSignature::of_artifact(&artifact.manifest, digest, &found);
    assert_eq!(read.unwrap(), []);
}

#[test]
fn an_image_that_changed_is_not_packed() {
    let home = tempfile::tempdir().unwrap();
    let appliance = appliance(home.path());
    let image = File::options()
        .write(true)
        .open(home.path().join("root.cobd"))
        .unwrap();
    image.write_all_at(b"x", 9).unwrap();
    let scratch = tempfile::tempfile().unwrap();
    let error = Layout::of_appliance(&appliance, scratch).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("root.cobd has sha256"), "{text}");
}

/// Every byte that is changed is noticed: by opening or by reading, or it meant nothing.
#[test]
fn what_was_swapped_is_noticed() {
    let home = tempfile::tempdir().unwrap();
    let layout = layout_of(&appliance(home.path()));
    let good = bundle(&layout, &[signature("s")]);
    let digest = layout.package().digest();
    for at in (0..good.len()).step_by(173) {
        let mut bad = good.clone();
        bad[at] ^= 0x11;
        let Ok(found) = opened(&bad) else { continue };
        let is_whole = verify(found.package(), &found).is_ok();
        assert!(
            !is_whole || found.package().digest() == digest,
            "a change at {at} goes unnoticed"
        );
    }
    // The last block of two is nothing but a habit.
    for length in (0..good.len() - 512).step_by(97) {
        let cut = opened(&good[..length]);
        assert!(cut.is_err(), "a cut at {length} goes unnoticed");
    }
}

/// A tar archive with one more entry in front.
fn with_entry(good: &[u8], name: &str, kind: ::tar::EntryType, content: &[u8]) -> Vec<u8> {
    let mut header = ::tar::Header::new_ustar();
    header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
    header.set_entry_type(kind);
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend_from_slice(content);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes.extend_from_slice(good);
    bytes
}

#[test]
fn hostile_archives_are_refused() {
    use ::tar::EntryType;
    let home = tempfile::tempdir().unwrap();
    let layout = layout_of(&appliance(home.path()));
    let good = bundle(&layout, &[]);
    let blob = format!("blobs/sha256/{}", layout.package().digest().hex());
    let file = EntryType::Regular;
    for (name, kind, content, says) in [
        ("../x", file, &b"x"[..], "'../x' has no place"),
        ("/etc/passwd", file, b"x", "has no place"),
        ("blobs/sha256/../../x", file, b"x", "has no place"),
        ("blobs/sha256/ABC", file, b"", "has no place"),
        ("oci-layout", file, b"{}", "is there twice"),
        ("index.json", file, b"{}", "is there twice"),
        (&blob, file, b"x", "is there twice"),
        ("index.json", EntryType::Symlink, b"", "has no place"),
        ("index.json", EntryType::Link, b"", "has no place"),
        ("index.json", EntryType::Char, b"", "has no place"),
        ("index.json", EntryType::GNUSparse, b"", "has no place"),
        ("x", EntryType::GNULongName, b"y", "has no place"),
        ("etc", EntryType::Directory, b"", "has no place"),
        ("x", EntryType::XHeader, b"10 path=x\n", "more than times"),
        ("x", EntryType::XHeader, b"9 size=1\n", "more than times"),
        ("x", EntryType::XHeader, b"99 mtime=1\n", "damaged"),
        ("x", EntryType::XHeader, &[b'a'; 70_000], "too long"),
    ] {
        let error = opened(&with_entry(&good, name, kind, content));
        let error = error.unwrap_err().to_string();
        assert!(error.contains(says), "{name}: {error}");
    }
    let harmless = with_entry(&good, "x", EntryType::XHeader, b"11 mtime=1\n");
    assert!(opened(&harmless).is_ok());
    assert!(opened(&with_entry(&good, "./blobs/", EntryType::Directory, b"")).is_ok());
    let mut huge = good.clone();
    huge[124..136].copy_from_slice(b"77777777777\0");
    let mut header = ::tar::Header::from_byte_slice(&huge[..512]).clone();
    header.set_cksum();
    huge[..512].copy_from_slice(header.as_bytes());
    let mut more = good.clone();
    more.push(1);
    let end = vec![0; 1024];
    for (bad, says) in [
        (huge, "cut off inside"),
        (more, "more after its end"),
        (end, "has no oci-layout"),
        (b"name: web\n".repeat(100), "no tar header"),
        (Vec::new(), "cut off"),
    ] {
        let error = opened(&bad).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
}

/// Gives one blob in place of whatever was asked for.
struct Instead<'a>(&'a [u8]);

impl Blobs for Instead<'_> {
    fn open(&self, _: &Descriptor) -> Result<Box<dyn std::io::Read + Send + '_>, BundleError> {
        Ok(Box::new(self.0))
    }
}

#[test]
fn manifests_of_other_things_are_refused() {
    let home = tempfile::tempdir().unwrap();
    let layout = layout_of(&appliance(home.path()));
    let package = layout.package();
    let with = |change: &dyn Fn(&mut OciManifest, &mut Manifest)| {
        let (mut oci, mut own) = (package.manifest().clone(), package.appliance().clone());
        change(&mut oci, &mut own);
        let config = own.to_json().into_bytes();
        let described = Descriptor::of(&oci.config.media_type, &config);
        oci.config = described;
        Package::open(oci.to_bytes(), &Instead(&config))
    };
    assert!(with(&|_, _| {}).is_ok());
    type Change<'c> = &'c dyn Fn(&mut OciManifest, &mut Manifest);
    let cases: [(Change<'_>, &str); 16] = [
        (&|_, own| own.name = "../x".into(), "its name is '../x'"),
        (&|_, own| own.name = String::new(), "its name is ''"),
        (&|oci, _| oci.artifact_type = None, "artifact type"),
        (
            &|oci, _| oci.config.media_type = media::EMPTY.into(),
            "config's media type",
        ),
        (
            &|oci, _| oci.layers[0].media_type = media::OCI_INDEX.into(),
            "a layer's media type",
        ),
        (
            &|oci, _| oci.layers[0].annotations.clear(),
            "does not name this layer",
        ),
        (&|oci, _| oci.layers.truncate(1), "no layer holds it"),
        (
            &|oci, _| oci.layers.push(oci.layers[0].clone()),
            "there twice",
        ),
        (
            &|oci, _| oci.layers = vec![oci.layers[0].clone(); 2000],
            "the limit is 1024",
        ),
        (&|oci, _| oci.layers[1].size += 1, "size or digest differs"),
        (
            &|oci, _| oci.layers[0].size = 5 << 20,
            "size or digest differs",
        ),
        (
            &|_, own| own.kernel.vmlinux.path = "../x".into(),
            "not a plain path",
        ),
        (
            &|_, own| own.kernel.vmlinux.path = "/x".into(),
            "not a plain path",
        ),
        (
            &|_, own| own.kernel.vmlinux.path = "config".into(),
            "names it twice",
        ),
        (
            &|_, own| own.cobd[0].image.size_bytes = 1 << 60,
            "the limit is",
        ),
        (&|_, own| own.format = 9, "has format 9"),
    ];
    for (change, says) in cases {
        let error = with(change).unwrap_err().to_string();
        assert!(error.contains(says), "{says}: {error}");
    }
    let huge = Descriptor {
        size: 1 << 40,
        ..package.manifest().config.clone()
    };
    let mut oci = package.manifest().clone();
    oci.config = huge;
    let error = Package::open(oci.to_bytes(), &Instead(b"")).unwrap_err();
    assert!(
        error.to_string().contains("the size of the config"),
        "{error}"
    );
}

#[test]
fn a_layer_that_lies_about_its_file_is_refused() {
    let (home, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let appliance = appliance(home.path());
    let layout = layout_of(&appliance);
    let mut own = appliance.manifest.clone();
    own.cobd[0].image.sha256 = own.kernel.vmlinux.sha256.clone();
    let layers = layout.package().manifest().layers.clone();
    let package = Package::new(own.to_json().into_bytes(), layers).unwrap();
    let error = install(&package, &layout, out.path()).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("'root.cobd'") && text.contains("another digest"),
        "{text}"
    );
}
