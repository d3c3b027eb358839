//! `coop sign`: keys and signatures.

use std::fs::OpenOptions;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use coop_appliance::bundle::{AttachedSignature, BlobDigest, SIGNATURE_BYTES_MAX, SignatureForm};
use coop_appliance::trust::{
    self, KEY_BYTES_MAX, MinisignSignature, SEED_BYTES, SecretKey, SecretKeyFile,
};
use coop_builder::staged_file::StagedFile;
use fs_err as fs;
use rustix::rand::{GetRandomFlags, getrandom};
use serde_json::json;

use super::{Ended, bundle, pack, trust as trusted};
use crate::arguments::SignOptions;
use crate::environment::Environment;
use crate::failure::Failure;
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
    if path.is_dir() {
        let failure = Failure::usage(format!("{} is a folder", path.display()));
        return Err(failure.with_hint("coop pack makes a bundle of it, which can be signed"));
    }
    let layout = bundle::open(path)?;
    let digest = layout.package().digest();
    if options.message {
        data(&trust::message(digest));
        return Ok(0);
    }
    let (new, key) = match (&options.key, &options.signature) {
        (Some(file), _) => sign(file, digest, environment)?,
        (None, Some(file)) => made_elsewhere(file)?,
        (None, None) => {
            let failure = Failure::usage("nothing says what to sign with");
            return Err(failure.with_hint("--key names a secret key; --generate makes one"));
        }
    };
    let mut signatures = layout.signatures().to_vec();
    if !signatures.contains(&new) {
        signatures.push(new);
        pack::write(layout.package(), &signatures, &layout, path)?;
    }
    if options.json {
        render_json::value(&json!({
            "bundle": path,
            "digest": digest.to_string(),
            "signed_by": key,
            "signatures": signatures.len(),
        }));
    } else {
        data(&format!("{} signed by {key}\n", path.display()));
    }
    Ok(0)
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
    let mut bytes = Vec::new();
    fs::File::open(file)
        .and_then(|input| {
            input
                .take(SIGNATURE_BYTES_MAX.saturating_add(1))
                .read_to_end(&mut bytes)
        })
        .map_err(|error| Failure::work(&error))?;
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
    if public_file.exists() {
        let message = format!("{} exists; it is not overwritten", public_file.display());
        return Err(Failure::usage(message));
    }
    let mut options = OpenOptions::new();
    let mut output = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(file)
        .map_err(|error| failed(&error))?;
    let write = || -> std::io::Result<()> {
        output.write_all(secret.as_bytes())?;
        output.sync_all()?;
        let staged = StagedFile::new(&public_file)?;
        (&**staged.file()).write_all(text.as_bytes())?;
        staged.publish(true)
    };
    if let Err(error) = { write }() {
        // A secret without its public key is of no use to anybody.
        let _ = fs::remove_file(file);
        return Err(failed(&error));
    }
    line("the secret key has no password; minisign -C gives it one");
    if json {
        render_json::value(&json!({
            "secret": file,
            "public": public_file,
            "key": public.to_string(),
        }));
    } else {
        data(&format!("{} {public}\n", public_file.display()));
    }
    Ok(0)
}
