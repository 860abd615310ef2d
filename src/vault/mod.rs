//! Credentials at rest: sealed with AES-256-GCM under a key that is not in the catalog.
//!
//! Keys come from `CLOUD_CONNECT_KEYS` or from a file ([`Keyring`]); the first one seals, all of them open, so that a
//! key can be replaced without a pause. Each value is bound to its authorization and provider: a sealed blob that is
//! copied to another row does not open.
//!
//! Invariants: no secret and no key is in an error, in `Debug` or in a log line; a nonce is never used twice (96 random
//! bits for each sealing, and far fewer than 2^32 sealings a key).

mod custody;
mod keyring;
pub mod rotation;

use std::collections::BTreeMap;

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};
use secrecy::{ExposeSecret, SecretString};

pub use custody::Custody;
pub use keyring::{KeyError, Keyring, SealingKey};

use crate::catalog::authorizations::SealedAuthorization;

/// The length of a nonce.
const NONCE: usize = 12;

/// Why something could not be sealed or opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VaultError {
    #[error("the authorization `{id}` was sealed with the key `{key_id}`, which is not there")]
    NoKey { id: String, key_id: String },
    #[error("the authorization `{id}` cannot be opened: it was changed, or its key is another one")]
    Broken { id: String },
    #[error("there is no authorization `{id}`")]
    Unknown { id: String },
    #[error("the authorization `{id}` holds no `{name}`")]
    NoSuchSecret { id: String, name: String },
    #[error("the system gave no random bytes")]
    Random,
}

impl VaultError {
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NoKey { .. } => "give the old key too, after the new one, in CLOUD_CONNECT_KEYS or the key file",
            Self::Broken { .. } => "restore catalog and key from the same backup, or enter the credentials anew",
            Self::Unknown { .. } => "make it with POST /v2/auth, or name another one",
            Self::NoSuchSecret { .. } => "PUT /v2/auth/{type}/{id} with that value",
            Self::Random => "try again",
        }
    }
}

/// The sealed authorizations of a project, and the keys that open them.
#[derive(Clone, Default)]
pub struct Vault {
    keyring: Keyring,
    sealed: BTreeMap<String, SealedAuthorization>,
}

impl std::fmt::Debug for Vault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vault").field("authorizations", &self.sealed.keys().collect::<Vec<_>>()).finish_non_exhaustive()
    }
}

impl Vault {
    pub fn new(keyring: Keyring, sealed: Vec<SealedAuthorization>) -> Self {
        Self { keyring, sealed: sealed.into_iter().map(|one| (one.id.clone(), one)).collect() }
    }

    pub fn keyring(&self) -> &Keyring {
        &self.keyring
    }

    /// The authorizations, by id.
    pub fn authorizations(&self) -> impl Iterator<Item = &SealedAuthorization> {
        self.sealed.values()
    }

    pub fn authorization(&self, id: &str) -> Option<&SealedAuthorization> {
        self.sealed.get(id)
    }

    /// One secret of an authorization.
    pub fn secret(&self, id: &str, name: &str) -> Result<SecretString, VaultError> {
        let sealed = self.sealed.get(id).ok_or_else(|| VaultError::Unknown { id: id.into() })?;
        let mut values = open(&self.keyring, sealed)?;
        values.remove(name).ok_or_else(|| VaultError::NoSuchSecret { id: id.into(), name: name.into() })
    }
}

/// Seals the values for that authorization with the keyring's first key, and notes the key.
pub fn seal(
    keyring: &Keyring,
    target: &mut SealedAuthorization,
    values: &BTreeMap<String, SecretString>,
) -> Result<(), VaultError> {
    let key = keyring.first().ok_or_else(|| VaultError::NoKey { id: target.id.clone(), key_id: "first".into() })?;
    let plain: BTreeMap<&str, &str> =
        values.iter().map(|(name, value)| (name.as_str(), value.expose_secret())).collect();
    let mut nonce = [0; NONCE];
    SystemRandom::new().fill(&mut nonce).map_err(|_| VaultError::Random)?;
    let broken = || VaultError::Broken { id: target.id.clone() };
    let mut sealed = serde_json::to_vec(&plain).map_err(|_| broken())?;
    let aead = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key.bytes()).map_err(|_| broken())?);
    aead.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(bound_to(target)), &mut sealed)
        .map_err(|_| broken())?;
    target.sealed = [nonce.as_slice(), &sealed].concat();
    target.key_id = key.id().to_string();
    target.parameters = values.keys().cloned().collect();
    Ok(())
}

/// The values of an authorization.
pub fn open(keyring: &Keyring, sealed: &SealedAuthorization) -> Result<BTreeMap<String, SecretString>, VaultError> {
    let no_key = || VaultError::NoKey { id: sealed.id.clone(), key_id: sealed.key_id.clone() };
    let broken = || VaultError::Broken { id: sealed.id.clone() };
    let key = keyring.key(&sealed.key_id).ok_or_else(no_key)?;
    let (nonce, body) = sealed.sealed.split_at_checked(NONCE).ok_or_else(broken)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| broken())?;
    let aead = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key.bytes()).map_err(|_| broken())?);
    let mut body = body.to_vec();
    let plain = aead.open_in_place(nonce, Aad::from(bound_to(sealed)), &mut body).map_err(|_| broken())?;
    let values: BTreeMap<String, String> = serde_json::from_slice(plain).map_err(|_| broken())?;
    Ok(values.into_iter().map(|(name, value)| (name, SecretString::from(value))).collect())
}

/// What a sealed blob is bound to: it opens for this authorization of this provider only.
fn bound_to(authorization: &SealedAuthorization) -> Vec<u8> {
    // lengths first, so that no two pairs read alike
    let (id, provider) = (authorization.id.as_bytes(), authorization.provider.as_bytes());
    [b"cloud-connect/authorization/1".as_slice(), &(id.len() as u64).to_be_bytes(), id, provider].concat()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn authorization(id: &str) -> SealedAuthorization {
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        SealedAuthorization::new(id.into(), "postgres".into(), id.into(), "cli", now)
    }

    fn secrets() -> BTreeMap<String, SecretString> {
        BTreeMap::from([("password".to_string(), SecretString::from("hunter2 — ünïcode"))])
    }

    #[test]
    fn what_is_sealed_opens_and_shows_itself_nowhere() {
        let keyring = Keyring::generate().unwrap();
        let mut sealed = authorization("prod");
        seal(&keyring, &mut sealed, &secrets()).unwrap();
        assert_eq!(sealed.parameters, ["password"]);
        assert!(!sealed.sealed.windows(7).any(|w| w == b"hunter2"));
        let vault = Vault::new(keyring, vec![sealed]);
        assert_eq!(vault.secret("prod", "password").unwrap().expose_secret(), "hunter2 — ünïcode");
        assert!(!format!("{vault:?}").contains("hunter2"));
        assert_eq!(
            vault.secret("prod", "token").unwrap_err(),
            VaultError::NoSuchSecret { id: "prod".into(), name: "token".into() }
        );
    }

    #[test]
    fn a_blob_opens_for_its_own_authorization_and_key_only() {
        let keyring = Keyring::generate().unwrap();
        let mut sealed = authorization("prod");
        seal(&keyring, &mut sealed, &secrets()).unwrap();
        let moved = SealedAuthorization { id: "other".into(), ..sealed.clone() };
        assert_eq!(open(&keyring, &moved).unwrap_err(), VaultError::Broken { id: "other".into() });
        let retyped = SealedAuthorization { provider: "redshift".into(), ..sealed.clone() };
        assert!(open(&keyring, &retyped).is_err());
        let mut flipped = sealed.clone();
        *flipped.sealed.last_mut().unwrap() ^= 1;
        assert!(open(&keyring, &flipped).is_err());
        assert!(matches!(open(&Keyring::generate().unwrap(), &sealed), Err(VaultError::NoKey { .. })));
        let cut = SealedAuthorization { sealed: vec![1, 2, 3], ..sealed };
        assert!(open(&keyring, &cut).is_err());
    }

    #[test]
    fn a_replaced_key_still_opens_what_it_sealed() {
        let old = Keyring::generate().unwrap();
        let mut sealed = authorization("prod");
        seal(&old, &mut sealed, &secrets()).unwrap();
        let both = old.with_new_key().unwrap();
        assert_eq!(open(&both, &sealed).unwrap().len(), 1);
        let before = sealed.key_id.clone();
        seal(&both, &mut sealed, &secrets()).unwrap();
        assert_ne!(sealed.key_id, before);
        assert!(matches!(open(&old, &sealed), Err(VaultError::NoKey { .. })));
    }
}
