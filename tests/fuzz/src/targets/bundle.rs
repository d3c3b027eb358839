//! Appliances in one file, and who signed them.

use std::io::{self, Read};

use coop_appliance::bundle::{
    AttachedSignature, BlobDigest, Blobs, BundleError, Descriptor, Layout, OciIndex, Package,
    SignatureForm, is_bundle, media, verify, write_bundle,
};
use coop_appliance::trust::{
    MinisignSignature, Policy, PublicKey, SecretKeyFile, Subject, check as trust_check,
};

use super::BYTES_MAX;
use super::archives::resealed;

/// Gives the same bytes for every blob.
struct OneBlob<'b>(&'b [u8]);

impl Blobs for OneBlob<'_> {
    fn open(&self, _: &Descriptor) -> Result<Box<dyn Read + Send + '_>, BundleError> {
        Ok(Box::new(self.0))
    }
}

/// Opens a bundle, reads a manifest and unpacks chunks; all of the same bytes. What opens can be
/// written and opens again as the same.
pub fn bundle(data: &[u8]) {
    let _ = OciIndex::parse(data);
    let _ = Package::open(data.to_vec(), &OneBlob(b"{}"));
    let _ = AttachedSignature::of_artifact(data, BlobDigest::of(b""), &OneBlob(b"{}"));
    chunks(data);
    let _ = is_bundle(data);
    let mut file = tempfile::tempfile().expect("a temporary file");
    io::Write::write_all(&mut file, &resealed(data)).expect("it is written");
    let Ok(layout) = Layout::open(file) else {
        return;
    };
    let package = layout.package();
    if package
        .layers()
        .any(|(_, member)| member.size_bytes > 16 * BYTES_MAX)
    {
        return;
    }
    if verify(package, &layout).is_err() {
        return;
    }
    let mut output = tempfile::tempfile().expect("a temporary file");
    write_bundle(package, layout.signatures(), &layout, &mut output).expect("it can be written");
    let again = Layout::open(output).expect("what was written opens");
    assert_eq!(again.package().digest(), package.digest());
    assert_eq!(again.signatures(), layout.signatures());
}

/// Unpacks bytes as the chunks of a kernel, whose length they say themselves.
fn chunks(data: &[u8]) {
    let size = data.get(24..32).and_then(|field| field.try_into().ok());
    let size = size.map_or(0, u64::from_le_bytes);
    let none = "0".repeat(64);
    let member = |path: &str, size: u64| {
        format!(r#"{{"path": "{path}", "sha256": "{none}", "size_bytes": {size}}}"#)
    };
    let config = format!(
        r#"{{"format": 1, "name": "a", "description": "", "architecture": "", "inputs": "",
            "kernel": {{"release": "", "vmlinux": {}, "config": {}, "modules": null,
            "libraries": [], "cmdline": []}}, "machine": {{"memory_bytes": 0, "cpus": 1}},
            "cobd": [], "conet": [], "cocon": {{"columns": 1, "rows": 1}}, "test": []}}"#,
        member("vmlinux", size.min(32 << 20)),
        member("config", 5)
    );
    let layer = |path: &str| Descriptor::of(media::CHUNKS, data).annotated(media::TITLE, path);
    let layers = vec![layer("vmlinux"), layer("config")];
    // More than such a file's chunks can have is no package.
    let Ok(package) = Package::new(config.into_bytes(), layers) else {
        return;
    };
    // No file has a digest of zeroes.
    assert!(verify(&package, &OneBlob(data)).is_err());
}

/// Reads keys, a signature and a policy with that key's file, zero bytes between them. What reads
/// reads the same when written again.
pub fn trust(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut parts = text.splitn(4, '\0').map(str::to_owned);
    let mut next = || parts.next().unwrap_or_default();
    let (key, secret, signature, policy) = (next(), next(), next(), next());
    if let Ok(key) = PublicKey::parse(&key)
        && let Some(text) = key.to_text()
    {
        assert_eq!(PublicKey::parse(&text).as_ref(), Ok(&key));
    }
    if let Ok(SecretKeyFile::Plain(secret)) = SecretKeyFile::parse(&secret) {
        let policy = Policy::of_key("k", secret.public().expect("a key has a public key"));
        let manifest = BlobDigest::of(signature.as_bytes());
        let subject = Subject {
            manifest,
            appliance: "a",
            reference: None,
        };
        assert!(trust_check(&subject, &[secret.sign(manifest)], &policy).is_ok());
    }
    if let Ok(parsed) = MinisignSignature::parse(&signature) {
        let again = MinisignSignature::parse(&parsed.to_text());
        assert_eq!(again.as_ref(), Ok(&parsed));
    }
    let load = |_: &str| Ok(key.clone());
    let Ok(policy) = Policy::parse(&policy, &load) else {
        return;
    };
    let subject = Subject {
        manifest: BlobDigest::of(b"manifest"),
        appliance: "web",
        reference: Some("r.example/team/web"),
    };
    let attached = |form| AttachedSignature {
        form,
        bytes: signature.clone().into_bytes(),
    };
    let signatures = [SignatureForm::Minisign, SignatureForm::Ed25519].map(attached);
    if let Err(error) = trust_check(&subject, &signatures, &policy) {
        assert!(!error.to_string().contains('\n'), "{error:?}");
    }
}
