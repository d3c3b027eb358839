//! Plain passwords become hashes as soon as they are read.

use sha_crypt::{PasswordHasher, ShaCrypt};

use crate::digest::Digest;

/// The length of a password's salt, in bytes before encoding; crypt(5) uses 16 characters.
const SALT_SIZE: usize = 12;

/// The salt comes from name and password, so that the same recipe gives the same image. Whoever
/// can read the image's shadow can read the recipe's password in no more time than before: a salt
/// must only differ between users, not be secret.
///
/// # Errors
/// A lowercase sentence: crypt(5) does not take such a password.
pub(super) fn hash(user: &str, plain: &str) -> Result<String, String> {
    let digest = Digest::of(format!("coop password\0{user}\0{plain}").as_bytes());
    let salt = &digest.as_bytes()[..SALT_SIZE];
    ShaCrypt::default()
        .hash_password_with_salt(plain.as_bytes(), salt)
        .map(|hash| hash.as_str().to_owned())
        .map_err(|error| format!("cannot be hashed: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The image's shadow has what is made here.
    #[test]
    fn a_password_always_has_the_same_hash() {
        let made = hash("root", "secret").unwrap();
        assert!(made.starts_with("$6$"), "{made}");
        assert_eq!(hash("root", "secret").unwrap(), made);
        assert_ne!(hash("ann", "secret").unwrap(), made);
        assert_ne!(hash("root", "other").unwrap(), made);
    }
}
