//! `coop sign`: keys and signatures.

use std::fs::Permissions;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use coop_appliance::bundle::{
    AttachedSignature, BlobDigest, SIGNATURE_BYTES_MAX, SIGNATURES_MAX, SignatureForm,
};
use coop_appliance::trust::{
    self, KEY_BYTES_MAX, MinisignSignature, SEED_BYTES, SecretKey, SecretKeyFile,
};
use coop_builder::registry::{Access, Reference};
use coop_builder::staged_file::StagedFile;
use fs_err as fs;
use rustix::rand::{GetRandomFlags, getrandom};
use serde_json::json;

use super::means::open_store;
use super::subject::{self, Kind};
use super::{Ended, bundle, pack, registry, trust as trusted};
use crate::arguments::SignOptions;
use crate::environment::Environment;
use crate::failure::{FAILED, Failure};
use crate::render::{data, json as render_json, line};
use crate::terminal;

/// The variable with the password of a secret key.
const PASSWORD: &str = "COOP_KEY_PASSWORD";
/// A raw Ed25519 signature's length.
const RAW_BYTES: usize = 64;

/// Signs, attaches, or makes a key.
pub(crate) fn run(options: &SignOptions, environment: &Environment) -> Ended {
    if let Some(file) = &options.generate {
        return generate(file, options.json);
    }
    // The grammar has one of them.
    let Some(path) = &options.bundle else {
        return Err(Failure::usage("name a bundle to sign"));
    };
    if let Some(reference) = registry::asked(path, &options.registry)? {
        return in_registry(&reference, options, environment);
    }
    subject::expect(path, &[Kind::Bundle])?;
    let layout = bundle::open(path)?;
    let digest = layout.package().digest();
    if options.message {
        data(&trust::message(digest));
        return Ok(0);
    }
    let (new, key) = signature(options, digest, environment)?;
    let mut signatures = layout.signatures().to_vec();
    if !signatures.contains(&new) {
        signatures.push(new);
        pack::write(layout.package(), &signatures, &layout, path)?;
    }
    if options.json {
        render_json::value(&json!({
            "bundle": render_json::path(path),
            "digest": digest.to_string(),
            "signed_by": key,
            "signatures": signatures.len(),
        }));
    } else {
        data(&format!("{} signed by {key}\n", path.display()));
    }
    Ok(0)
}

/// Signs what a registry has, there. A tag is only asked for what it names.
fn in_registry(reference: &Reference, options: &SignOptions, environment: &Environment) -> Ended {
    let store = open_store(environment)?;
    let access = if options.message {
        Access::Pull
    } else {
        Access::Push
    };
    let failed = |error| registry::explain(&error, reference, environment);
    let (connected, offered) =
        registry::offered(reference, access, &options.registry, &store, environment)
            .map_err(failed)?;
    let digest = offered.package.digest();
    if options.message {
        data(&trust::message(digest));
        return Ok(0);
    }
    let (new, key) = signature(options, digest, environment)?;
    let mut count = offered.signatures.len();
    if !offered.signatures.contains(&new) {
        if count >= SIGNATURES_MAX {
            let message = format!("{reference} has {count} signatures, and more are not read");
            return Err(Failure::sentence(FAILED, message));
        }
        let subject = offered.package.descriptor();
        connected.attach(&new, &subject, &store).map_err(failed)?;
        count = count.saturating_add(1);
    }
    let pinned = registry::pinned(reference, &offered);
    if options.json {
        render_json::value(&json!({
            "reference": reference.to_string(),
            "pinned": pinned.to_string(),
            "digest": digest.to_string(),
            "signed_by": key,
            "signatures": count,
        }));
    } else {
        line("what the files hold was not looked at; coop verify --download compares them");
        data(&format!("{pinned} signed by {key}\n"));
    }
    Ok(0)
}

/// Makes or reads the signature that is asked for; says whose it is.
fn signature(
    options: &SignOptions,
    digest: BlobDigest,
    environment: &Environment,
) -> Result<(AttachedSignature, String), Failure> {
    match (&options.key, &options.signature) {
        (Some(file), _) => sign(file, digest, environment),
        (None, Some(file)) => made_elsewhere(file),
        (None, None) => {
            let failure = Failure::usage("nothing says what to sign with");
            Err(failure.with_hint("--key names a secret key; --generate makes one"))
        }
    }
}

fn sign(
    file: &Path,
    digest: BlobDigest,
    environment: &Environment,
) -> Result<(AttachedSignature, String), Failure> {
    let failed = |error: &dyn std::error::Error| Failure::work(error).about(file);
    let key = SecretKeyFile::parse(&trusted::text(file, KEY_BYTES_MAX)?);
    let key = match key.map_err(|error| failed(&error))? {
        SecretKeyFile::Plain(key) => key,
        SecretKeyFile::Encrypted(key) => {
            let password = password(file, environment)?;
            key.open(&password).map_err(|error| failed(&error))?
        }
    };
    let public = key.public().map_err(|error| failed(&error))?;
    Ok((key.sign(digest), public.to_string()))
}

/// The password of the environment, else the one that a person types.
fn password(file: &Path, environment: &Environment) -> Result<Vec<u8>, Failure> {
    if let Some(password) = environment.secret(PASSWORD) {
        return Ok(password);
    }
    let prompt = format!("password of {}: ", file.display());
    terminal::ask_secret(&prompt).map_err(|error| {
        let failure = Failure::work(&error).about(file);
        failure.with_hint(format!("{PASSWORD} has the password where no terminal is"))
    })
}

/// A signature of another program. Whose it is shows where it is verified.
fn made_elsewhere(file: &Path) -> Result<(AttachedSignature, String), Failure> {
    let bytes = trusted::bytes(file, SIGNATURE_BYTES_MAX)?;
    if bytes.len() == RAW_BYTES {
        let form = SignatureForm::Ed25519;
        let key = "an Ed25519 key".to_owned();
        return Ok((AttachedSignature { form, bytes }, key));
    }
    let signature = MinisignSignature::parse(&String::from_utf8_lossy(&bytes));
    let signature = signature.map_err(|error| Failure::work(&error).about(file))?;
    let form = SignatureForm::Minisign;
    Ok((AttachedSignature { form, bytes }, signature.key()))
}

/// Makes a key; nothing that is there is overwritten.
fn generate(file: &Path, json: bool) -> Ended {
    let failed = |error: &dyn std::error::Error| Failure::work(error).about(file);
    let mut seed = [0; SEED_BYTES];
    let count = getrandom(&mut seed, GetRandomFlags::empty());
    if count.map_err(|error| failed(&std::io::Error::from(error)))? != SEED_BYTES {
        return Err(Failure::usage("the host has no random bytes"));
    }
    let key = SecretKey::of_seed(&seed);
    let public = key.public().map_err(|error| failed(&error))?;
    let (Some(secret), Some(text)) = (key.to_text(), public.to_text()) else {
        return Err(Failure::usage("the key has no text"));
    };
    let mut name = file.as_os_str().to_owned();
    name.push(".pub");
    let public_file = PathBuf::from(name);
    // Both are whole before either has its name; the secret one is nobody else's before it is one.
    let staged = |path: &Path, text: &str, mode: u32| -> std::io::Result<StagedFile> {
        let staged = StagedFile::new(path)?;
        let mut file = &**staged.file();
        file.set_permissions(Permissions::from_mode(mode))?;
        file.write_all(text.as_bytes())?;
        Ok(staged)
    };
    let write = || {
        let secret = staged(file, &secret, 0o600)?;
        staged(&public_file, &text, 0o644)?.publish_new()?;
        secret.publish_new().inspect_err(|_| {
            // Without its secret it is of no use to anybody.
            let _ = fs::remove_file(&public_file);
        })
    };
    write().map_err(|error: std::io::Error| failed(&error))?;
    line("the secret key has no password; minisign -C gives it one");
    if json {
        render_json::value(&json!({
            "secret": render_json::path(file),
            "public": render_json::path(&public_file),
            "key": public.to_string(),
        }));
    } else {
        data(&format!("{} {public}\n", public_file.display()));
    }
    Ok(0)
}
