//! Keys, signatures and policies; the suite has minisign and openssl agree.

use std::io;

use blake2::{Blake2b, Digest as _, digest::consts::U32};

use super::text::encode;
use super::*;
use crate::bundle::{AttachedSignature, BlobDigest, SignatureForm};

fn key(seed: u8) -> SecretKey {
    SecretKey::of_seed(&[seed; SEED_BYTES])
}

/// A raw key as openssl writes it.
fn raw(seed: u8) -> (SecretKey, PublicKey) {
    let der = [
        &[
            0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20,
        ][..],
        &[seed; 32],
    ];
    let pem = |label: &str, der: &[u8]| {
        let body = encode(der);
        format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n")
    };
    let Ok(SecretKeyFile::Plain(secret)) = SecretKeyFile::parse(&pem("PRIVATE KEY", &der.concat()))
    else {
        panic!("not read");
    };
    let public = secret.public().unwrap();
    (secret, public)
}

fn digest() -> BlobDigest {
    BlobDigest::of(b"manifest")
}

fn no_files(_: &str) -> io::Result<String> {
    Err(io::ErrorKind::NotFound.into())
}

fn checked(
    signatures: &[AttachedSignature],
    policy: &Policy,
    appliance: &str,
    reference: Option<&str>,
) -> Result<Signer, TrustError> {
    let manifest = digest();
    let subject = Subject {
        manifest,
        appliance,
        reference,
    };
    check(&subject, signatures, policy)
}

#[test]
fn keys_read_as_written() {
    let secret = key(1);
    let public = secret.public().unwrap();
    let text = public.to_text().unwrap();
    assert_eq!(PublicKey::parse(&text).unwrap(), public);
    let line = text.lines().nth(1).unwrap();
    assert_eq!(PublicKey::parse(line).unwrap(), public);
    assert_eq!(public.to_string(), "minisign key 0101010101010101");
    let SecretKeyFile::Plain(again) = SecretKeyFile::parse(&secret.to_text().unwrap()).unwrap()
    else {
        panic!("it has no password");
    };
    assert_eq!(again.public().unwrap(), public);
    assert_eq!(again.sign(digest()), secret.sign(digest()));
    // What openssl made.
    let pem = "-----BEGIN PUBLIC KEY-----\n\
               MCowBQYDK2VwAyEA4/voUvEgdBB0ArYsgEcd9K2zloefi3A1+vbU2X7ceZE=\n\
               -----END PUBLIC KEY-----\n";
    let shown = PublicKey::parse(pem).unwrap().to_string();
    assert!(shown.starts_with("Ed25519 key "), "{shown}");
}

#[test]
fn a_password_opens_its_key_alone() {
    // As minisign -G, but with less work: 2^10 rounds.
    let (secret, limits) = (key(1), [32768_u64, 1 << 20].map(u64::to_le_bytes).concat());
    let text = secret.to_text().unwrap();
    let plain = super::text::decode(text.lines().nth(1).unwrap(), "key").unwrap();
    let mut covered = plain[54..126].to_vec();
    let summed = [&b"Ed"[..], &covered].concat();
    covered.extend_from_slice(&Blake2b::<U32>::digest(summed));
    let mut stream = [0; 104];
    let parameters = scrypt::Params::new(10, 8, 1, 32).unwrap();
    scrypt::scrypt(b"word", &[5; 32], &parameters, &mut stream).unwrap();
    covered
        .iter_mut()
        .zip(stream)
        .for_each(|(byte, other)| *byte ^= other);
    let bytes = [&b"EdScB2"[..], &[5; 32], &limits, &covered].concat();
    let text = format!("untrusted comment: x\n{}\n", encode(&bytes));
    let Ok(SecretKeyFile::Encrypted(encrypted)) = SecretKeyFile::parse(&text) else {
        panic!("it has a password");
    };
    let opened = encrypted.open(b"word").unwrap();
    assert_eq!(opened.sign(digest()), secret.sign(digest()));
    assert_eq!(encrypted.open(b"work").err(), Some(KeyError::Password));
}

#[test]
fn damaged_keys_are_refused() {
    let text = key(1).public().unwrap().to_text().unwrap();
    let line = text.lines().nth(1).unwrap();
    for (bad, says) in [
        (String::new(), "neither minisign's nor a PEM"),
        (text.replace("RW", "R!"), "base64 is damaged"),
        (text.replace("RW", "RX"), "neither"),
        (text.clone() + "more\n", "too many lines"),
        (line[..40].to_owned(), "neither"),
        (encode(&[&b"Ed12345678"[..], &[0; 32]].concat()), "weak"),
        ("-----BEGIN RSA KEY-----".to_owned(), "something else"),
        ("-----BEGIN PUBLIC KEY-----\nMCow".to_owned(), "no end"),
        (
            "-----BEGIN PUBLIC KEY-----\nMCow\n-----END PUBLIC KEY-----\n".to_owned(),
            "another algorithm",
        ),
    ] {
        let error = PublicKey::parse(&bad).unwrap_err().to_string();
        assert!(error.contains(says), "{bad}: {error}");
    }
    let secret = key(1).to_text().unwrap();
    let encrypted = |operations: u64, memory: u64| {
        let limits = [operations.to_le_bytes(), memory.to_le_bytes()].concat();
        let bytes = [&b"EdScB2"[..], &[0; 32], &limits, &[0; 104]].concat();
        format!("untrusted comment: x\n{}\n", encode(&bytes))
    };
    for (bad, says) in [
        (text, "its length is wrong"),
        (
            secret.replace("RWQAAEIy", "RWQAAEIz"),
            "algorithm is not known",
        ),
        (
            secret.replace("RWQAAEIy", "RWRYY0Iy"),
            "password's function is not known",
        ),
        (encrypted(u64::MAX, u64::MAX), "and the limit is 2^20"),
        (encrypted(1 << 62, 1 << 30), "limits are out of range"),
        (
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\n".to_owned(),
            "encrypted PEM keys are not supported",
        ),
        (
            "-----BEGIN OPENSSH PRIVATE KEY-----\n".to_owned(),
            "keys of OpenSSH are not supported",
        ),
    ] {
        let error = SecretKeyFile::parse(&bad).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
    assert!(matches!(
        SecretKeyFile::parse(&encrypted(33_554_432, 1 << 30)),
        Ok(SecretKeyFile::Encrypted(_))
    ));
}

#[test]
fn signatures_are_of_one_key_and_one_appliance() {
    let policy = Policy::of_key("k", key(1).public().unwrap());
    let good = key(1).sign(digest());
    let signer = checked(std::slice::from_ref(&good), &policy, "web", None).unwrap();
    assert_eq!(
        (&*signer.name, &*signer.key),
        ("k", "minisign key 0101010101010101")
    );
    let other = key(2).sign(digest());
    let swapped = key(1).sign(BlobDigest::of(b"other"));
    let garbage = AttachedSignature {
        form: SignatureForm::Minisign,
        bytes: b"x".to_vec(),
    };
    let check = |signatures: &[AttachedSignature]| checked(signatures, &policy, "web", None);
    let says = |signatures: &[AttachedSignature]| check(signatures).unwrap_err().to_string();
    assert_eq!(says(&[]), "it is not signed");
    assert_eq!(
        says(std::slice::from_ref(&other)),
        "it is signed by minisign key 0202020202020202, which is not trusted"
    );
    assert_eq!(
        says(&[other.clone(), swapped.clone()]),
        "the signature of key 'k' is not of this appliance: it was swapped or changed"
    );
    assert!(
        !check(std::slice::from_ref(&swapped))
            .unwrap_err()
            .may_be_waived()
    );
    assert!(says(std::slice::from_ref(&garbage)).contains("does not have four lines"));
    assert!(check(&[garbage, other, swapped, good.clone()]).is_ok());
    let nobody = checked(&[good], &Policy::default(), "web", None);
    assert_eq!(nobody, Err(TrustError::NoKeys));
}

/// No byte of a signature's text can be changed, but for its first line and its last line's end.
#[test]
fn every_byte_of_a_signature_counts() {
    let policy = Policy::of_key("k", key(1).public().unwrap());
    let good = key(1).sign(digest());
    let signed = good.bytes.iter().position(|byte| *byte == b'\n').unwrap();
    for at in signed + 1..good.bytes.len() - 1 {
        let mut bad = good.clone();
        bad.bytes[at] ^= 1;
        assert!(checked(&[bad], &policy, "web", None).is_err(), "byte {at}");
    }
}

#[test]
fn raw_signatures_do_as_well() {
    let (secret, public) = raw(7);
    let good = secret.sign(digest());
    assert_eq!((good.form, good.bytes.len()), (SignatureForm::Ed25519, 64));
    let policy = Policy::of_key("k", public);
    assert!(checked(std::slice::from_ref(&good), &policy, "web", None).is_ok());
    let other = Policy::of_key("k", raw(8).1);
    let error = checked(std::slice::from_ref(&good), &other, "web", None).unwrap_err();
    assert!(
        error.to_string().contains("no trusted Ed25519 key"),
        "{error}"
    );
    let short = AttachedSignature {
        bytes: vec![0; 63],
        ..good
    };
    let error = checked(&[short], &policy, "web", None).unwrap_err();
    assert!(error.to_string().contains("64 bytes"), "{error}");
}

#[test]
fn a_policy_says_what_a_key_may_sign() {
    let line = |seed| {
        let text = key(seed).public().unwrap().to_text().unwrap();
        text.lines().nth(1).unwrap().to_owned()
    };
    let text = format!(
        "keys:\n  - {{name: web, key: {}, appliances: [web, \"web-*-x\"]}}\n  \
         - {{name: far, file: far.pub, references: [\"r.example/team/*\"]}}\n",
        line(1)
    );
    let load = |file: &str| {
        assert_eq!(file, "far.pub");
        Ok(line(2))
    };
    let policy = Policy::parse(&text, &load).unwrap();
    let may = |seed, appliance, reference| {
        checked(&[key(seed).sign(digest())], &policy, appliance, reference).is_ok()
    };
    for (appliance, expected) in [
        ("web", true),
        ("web-1-x", true),
        ("web--x", true),
        ("web-x", false),
        ("web-1-xy", false),
        ("awe", false),
        ("web2", false),
        ("", false),
    ] {
        assert_eq!(may(1, appliance, None), expected, "{appliance}");
    }
    assert!(may(1, "web", Some("elsewhere/x")));
    assert!(may(2, "any", Some("r.example/team/x")));
    assert!(!may(2, "any", Some("r.example/teams/x")));
    assert!(!may(2, "any", None));
    let error = checked(&[key(1).sign(digest())], &policy, "db", None).unwrap_err();
    assert_eq!(
        error.to_string(),
        "it is signed by key 'web', which is trusted for other appliances, not for 'db' in a file"
    );
}

#[test]
fn policies_are_strict() {
    let text = key(1).public().unwrap().to_text().unwrap();
    let line = text.lines().nth(1).unwrap();
    for (bad, says) in [
        ("keys: [{name: a, key: K, appliance: [x]}]", "unknown field"),
        ("key: []", "unknown field"),
        ("", "end of input"),
        ("keys: [{name: a}]", "key 'a': it needs either key or file"),
        ("keys: [{name: a, key: K, file: x}]", "either key or file"),
        (
            "keys: [{name: a, key: K}, {name: a, key: K}]",
            "two of this name",
        ),
        (
            "keys: [{name: a, key: K, appliances: []}]",
            "list of patterns is empty",
        ),
        (
            "keys: [{name: a, key: K, references: ['']}]",
            "list of patterns is empty",
        ),
        (
            "keys: [{name: a, key: RWnonsense}]",
            "key 'a': this is no public key",
        ),
        ("keys: [{name: a, file: gone}]", "key 'a': entity not found"),
        ("keys: [{name: a, name: b, key: K}]", "duplicate"),
    ] {
        let bad = bad.replace("key: K", &format!("key: {line}"));
        let error = Policy::parse(&bad, &no_files).unwrap_err().to_string();
        assert!(error.contains(says), "{bad}: {error}");
    }
}
