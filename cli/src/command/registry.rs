//! What all verbs that speak with registries have in common.

use std::path::Path;

use coop_builder::registry::{
    Access, Credentials, Offered, Options, Reference, Registry, RegistryError, Version,
};
use coop_builder::store::Store;

use crate::arguments::RegistryOptions;
use crate::environment::Environment;
use crate::failure::Failure;

/// Looks up who somebody is to the registry.
pub(super) fn connect(
    reference: &Reference,
    access: Access,
    options: &RegistryOptions,
    environment: &Environment,
) -> Result<Registry, RegistryError> {
    let credentials = Credentials {
        files: environment.credentials.clone(),
        programs: environment.programs.clone(),
    };
    let options = Options {
        plain_http: options.plain_http,
        ..Options::default()
    };
    Registry::new(reference, access, &credentials, options)
}

/// What `oci://…` names, where a verb takes other things, too.
pub(super) fn asked(
    target: &Path,
    options: &RegistryOptions,
) -> Result<Option<Reference>, Failure> {
    let reference = reference(target)?;
    if options.plain_http && reference.is_none() {
        let message = "--plain-http is for registries, and none is asked here";
        return Err(Failure::usage(message));
    }
    Ok(reference)
}

fn reference(target: &Path) -> Result<Option<Reference>, Failure> {
    match target.to_str().filter(|text| Reference::is_meant(text)) {
        Some(text) => Reference::parse(text)
            .map(Some)
            .map_err(|error| Failure::usage(error.to_string())),
        None => Ok(None),
    }
}

/// Asks what is offered under a name.
pub(super) fn offered(
    reference: &Reference,
    access: Access,
    options: &RegistryOptions,
    store: &Store,
    environment: &Environment,
) -> Result<(Registry, Offered), RegistryError> {
    let connected = connect(reference, access, options, environment)?;
    let offered = connected.offered(store)?;
    Ok((connected, offered))
}

/// The reference by the digest of what it named.
pub(super) fn pinned(reference: &Reference, offered: &Offered) -> Reference {
    reference.with_version(Version::Digest(offered.package.digest()))
}

/// A failure with how to go on.
pub(super) fn explain(
    error: &RegistryError,
    reference: &Reference,
    environment: &Environment,
) -> Failure {
    let failure = Failure::work(error);
    match error {
        RegistryError::Denied { authority, .. } => {
            let files = environment.credentials.iter();
            let files: Vec<String> = files.map(|path| path.display().to_string()).collect();
            failure.with_hint(format!(
                "docker login {authority} or podman login {authority} says who you are; read are {}",
                files.join(", ")
            ))
        }
        // The TLS library's word for an answer that is none of TLS.
        RegistryError::Network { reason, .. } if reason.contains("corrupt message") => {
            failure.with_hint("a registry without TLS is spoken to with --plain-http")
        }
        RegistryError::Missing(_) if reference.to_string().contains('@') => failure,
        RegistryError::Missing(_) => {
            failure.with_hint("names and tags are told apart by case and by every character")
        }
        _ => failure,
    }
}
