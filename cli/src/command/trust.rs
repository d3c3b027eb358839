//! Is what comes from elsewhere trusted? The same question for bundles and pulls.

use std::io::{self, Read};
use std::path::Path;

use coop_appliance::bundle::{AttachedSignature, Package};
use coop_appliance::trust::{
    self, KEY_BYTES_MAX, POLICY_BYTES_MAX, Policy, PublicKey, Signer, Subject, TrustError,
};
use coop_builder::registry::{Offered, Reference};
use fs_err as fs;

use crate::arguments::TrustOptions;
use crate::environment::Environment;
use crate::failure::{FAILED, Failure};
use crate::render::line;

/// The policy's place in the folder of configurations.
const POLICY_PLACE: &str = "coop/policy.yaml";

/// Finds a trusted signature. `origin` is what errors call the appliance; `reference` where it is
/// pulled from. `None` where a person waived the signature.
pub(super) fn check(
    package: &Package,
    signatures: &[AttachedSignature],
    (origin, reference): (&str, Option<&str>),
    options: &TrustOptions,
    environment: &Environment,
) -> Result<Option<Signer>, Failure> {
    match signer(package, signatures, reference, options, environment)? {
        Ok(signer) => Ok(Some(signer)),
        Err(error) if options.insecure_allow_unsigned && error.may_be_waived() => {
            line(&format!("warning: {origin}: {error}"));
            Ok(None)
        }
        Err(error) => Err(explain(&error, origin, environment)),
    }
}

/// As [`check`], of an offer of a registry.
pub(super) fn check_offered(
    reference: &Reference,
    offered: &Offered,
    options: &TrustOptions,
    environment: &Environment,
) -> Result<Option<Signer>, Failure> {
    let (origin, place) = (reference.to_string(), place(reference));
    let from = (&*origin, Some(&*place));
    let Offered {
        package,
        signatures,
    } = offered;
    check(package, signatures, from, options, environment)
}

/// Whether somebody trusted has signed an offer; nobody can waive that.
pub(super) fn is_trusted(
    reference: &Reference,
    offered: &Offered,
    options: &TrustOptions,
    environment: &Environment,
) -> Result<bool, Failure> {
    let place = place(reference);
    let Offered {
        package,
        signatures,
    } = offered;
    let found = signer(package, signatures, Some(&place), options, environment)?;
    Ok(found.is_ok())
}

/// What patterns of policies are compared with.
fn place(reference: &Reference) -> String {
    format!("{}/{}", reference.authority, reference.repository)
}

fn signer(
    package: &Package,
    signatures: &[AttachedSignature],
    reference: Option<&str>,
    options: &TrustOptions,
    environment: &Environment,
) -> Result<Result<Signer, TrustError>, Failure> {
    let policy = policy(options, environment)?;
    let subject = Subject {
        manifest: package.digest(),
        appliance: &package.appliance().name,
        reference,
    };
    Ok(trust::check(&subject, signatures, &policy))
}

fn explain(error: &TrustError, origin: &str, environment: &Environment) -> Failure {
    let failure = Failure::sentence(FAILED, format!("{origin}: {error}"));
    let place = match &environment.configuration {
        Some(folder) => folder.join(POLICY_PLACE).display().to_string(),
        None => POLICY_PLACE.to_owned(),
    };
    match error {
        TrustError::Unsigned => failure
            .with_hint("coop sign signs it; --insecure-allow-unsigned goes on without a signature"),
        TrustError::NoKeys => failure.with_hint(format!(
            "--key names a public key that you trust, and {place} lists those of every day"
        )),
        TrustError::OtherKey { .. } | TrustError::NoRawKey | TrustError::OtherAppliance { .. } => {
            failure.with_hint(format!(
                "if you trust that key, name it with --key or in {place}"
            ))
        }
        TrustError::Swapped { .. } => failure.with_hint("get it again from whoever made it"),
        TrustError::Damaged(_) => failure,
    }
}

/// The keys that are trusted: a policy that is not there trusts none.
fn policy(options: &TrustOptions, environment: &Environment) -> Result<Policy, Failure> {
    if let Some(path) = &options.key {
        let key = PublicKey::parse(&text(path, KEY_BYTES_MAX)?);
        let key = key.map_err(|error| Failure::work(&error).about(path))?;
        return Ok(Policy::of_key(&path.display().to_string(), key));
    }
    let usual = environment.configuration.as_ref();
    let usual = usual.map(|folder| folder.join(POLICY_PLACE));
    let path = match (&options.policy, &usual) {
        (Some(path), _) => path,
        (None, Some(path)) if path.exists() => path,
        _ => return Ok(Policy::default()),
    };
    let folder = path.parent().unwrap_or(Path::new("."));
    let load = |file: &str| limited(&folder.join(file), KEY_BYTES_MAX);
    let policy = Policy::parse(&text(path, POLICY_BYTES_MAX)?, &load);
    policy.map_err(|error| Failure::work(&error).about(path))
}

/// A small text file, as keys and policies are.
pub(super) fn text(path: &Path, limit: u64) -> Result<String, Failure> {
    limited(path, limit).map_err(|error| Failure::work(&error))
}

/// A small file, as signatures are.
pub(super) fn bytes(path: &Path, limit: u64) -> Result<Vec<u8>, Failure> {
    limited_bytes(path, limit).map_err(|error| Failure::work(&error))
}

fn limited(path: &Path, limit: u64) -> io::Result<String> {
    let text = String::from_utf8(limited_bytes(path, limit)?);
    text.map_err(|_| io::Error::other(format!("{} is no text", path.display())))
}

fn limited_bytes(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = fs::File::open(path)?;
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    match u64::try_from(bytes.len()) {
        Ok(length) if length <= limit => Ok(bytes),
        _ => {
            let path = path.display();
            let message = format!("{path} is longer than {limit} bytes");
            Err(io::Error::other(message))
        }
    }
}
