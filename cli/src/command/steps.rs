//! What the steps of a recipe get from whoever builds it: secrets, and a place for their log.

use std::io::Read;
use std::path::{Path, PathBuf};

use coop_builder::digest::Digest;
use coop_builder::guest::{SECRET_BYTES_MAX, Secrets};
use fs_err as fs;

use crate::arguments::SecretSource;
use crate::environment::Environment;
use crate::failure::Failure;

/// Reads the secrets that the command line names.
pub(super) fn secrets(
    sources: &[(String, SecretSource)],
    environment: &Environment,
) -> Result<Secrets, Failure> {
    let mut secrets = Secrets::default();
    for (name, source) in sources {
        let value = match source {
            SecretSource::File(path) => read(path).map_err(|error| Failure::work(&error))?,
            SecretSource::Variable(variable) => environment.secret(variable).ok_or_else(|| {
                let message = format!("secret '{name}': the environment has no {variable}");
                Failure::usage(message)
            })?,
        };
        if value.len() > SECRET_BYTES_MAX {
            let message = format!("secret '{name}' has more than {SECRET_BYTES_MAX} bytes");
            return Err(Failure::usage(message));
        }
        secrets.insert(name, value);
    }
    Ok(secrets)
}

fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let limit = u64::try_from(SECRET_BYTES_MAX).unwrap_or(u64::MAX);
    let file = fs::File::open(path)?;
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Where the log of what a recipe's steps write is kept: one for each output.
pub(super) fn log_path(cache: &Path, name: &str, output: &Path) -> PathBuf {
    let digest = Digest::of(output.as_os_str().as_encoded_bytes()).to_string();
    let short = digest.get(..8).unwrap_or_default();
    cache.join("log").join(format!("{name}-{short}.log"))
}
