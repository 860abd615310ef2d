//! Random secrets, and what is kept of them.
//!
//! A token, a session or a link is 32 random bytes: nobody guesses 2^256, so a fast hash keeps it as safe as a slow one
//! would, and a request is checked in microseconds. Only passwords, which people choose, need argon2.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::{SecureRandom, SystemRandom};
use sha2::Digest as _;
use subtle::ConstantTimeEq;

/// The characters of an id that people read out: none is taken for another.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
/// Of an id: 50 random bits.
pub(super) const ID_LENGTH: usize = 10;

/// The system gave no randomness; nothing secret can be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the system's source of randomness failed")]
pub struct NoRandomness;

pub(super) fn random<const N: usize>() -> Result<[u8; N], NoRandomness> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| NoRandomness)?;
    Ok(bytes)
}

/// 32 random bytes as text.
pub(super) fn random_text() -> Result<String, NoRandomness> {
    Ok(URL_SAFE_NO_PAD.encode(random::<32>()?))
}

/// A short random name.
pub(super) fn random_id() -> Result<String, NoRandomness> {
    Ok(random::<ID_LENGTH>()?.iter().map(|byte| char::from(ALPHABET[usize::from(byte % 32)])).collect())
}

/// The SHA-256 of a secret. Compared in constant time.
#[derive(Clone, Copy)]
pub struct Digest([u8; 32]);

impl Digest {
    pub(crate) fn of(secret: &str) -> Self {
        Self(sha2::Sha256::digest(secret.as_bytes()).into())
    }

    /// From a column of the catalog; none when it is no digest.
    pub(crate) fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// For a column of the catalog.
    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.0
    }

    pub(super) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl PartialEq for Digest {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for Digest {}

impl std::hash::Hash for Digest {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl std::fmt::Debug for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Digest(…)")
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn secrets_differ_and_are_safe_in_urls() {
        let (one, other) = (random_text().unwrap(), random_text().unwrap());
        assert_ne!(one, other);
        assert_eq!(one.len(), 43);
        assert!(one.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'));
        assert_eq!(random_id().unwrap().len(), ID_LENGTH);
    }

    #[test]
    fn a_digest_is_not_shown() {
        assert_eq!(format!("{:?}", Digest::of("secret")), "Digest(…)");
        assert_eq!(Digest::of("secret"), Digest::of("secret"));
        assert_ne!(Digest::of("secret"), Digest::of("Secret"));
    }
}
