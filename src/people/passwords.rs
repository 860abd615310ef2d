//! Passwords: the rule, and argon2id.
//!
//! Invariants: a password is hashed away from the threads that answer requests, by no more than [`AT_ONCE`] at a time,
//! so that logins cannot eat the machine; checking one of nobody takes as long as checking one of somebody.

use std::sync::Arc;
use std::time::Duration;

use argon2::password_hash::{PasswordHash, PasswordHasher, PasswordVerifier, SaltString};
use argon2::{Algorithm, Argon2, Params, Version};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::{OnceCell, Semaphore};

use super::PeopleError;
use super::secret::random;

/// Characters. Length is what makes a password hard to guess; rules of composition only make it hard to remember.
pub const SHORTEST: usize = 12;
/// Bytes: more is no password, but work for this machine.
pub const LONGEST: usize = 1024;

/// OWASP's first choice for argon2id: 19 MiB, two passes, one lane.
const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;

/// Hashes at once.
const AT_ONCE: usize = 2;
/// Who waits longer than this for a turn is told to come back.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// Why nothing was hashed.
#[derive(Debug, thiserror::Error)]
pub enum HashError {
    #[error("too many logins are under way")]
    Busy,
    #[error("passwords cannot be hashed: {0}")]
    Broken(String),
}

/// Hashes and checks passwords. One a process.
#[derive(Debug)]
pub struct Passwords {
    turns: Arc<Semaphore>,
    /// The hash of a password that nobody has, to check against when there is no user.
    nobody: OnceCell<String>,
}

impl Default for Passwords {
    fn default() -> Self {
        Self { turns: Arc::new(Semaphore::new(AT_ONCE)), nobody: OnceCell::new() }
    }
}

/// Does the password keep the rule?
pub fn check_rule(password: &SecretString, email: &str) -> Result<(), PeopleError> {
    const HINT: &str = "three or four words that you do not use elsewhere are easy to remember and hard to guess";
    let password = password.expose_secret();
    if password.chars().count() < SHORTEST {
        return Err(PeopleError::invalid(format!("a password has at least {SHORTEST} characters"), HINT));
    }
    if password.len() > LONGEST {
        return Err(PeopleError::invalid(format!("a password has at most {LONGEST} bytes"), HINT));
    }
    let folded = password.trim().to_lowercase();
    let mut characters = folded.chars();
    let first = characters.next();
    if folded == email || characters.all(|c| Some(c) == first) {
        return Err(PeopleError::invalid("the password is too easy to guess", HINT));
    }
    Ok(())
}

impl Passwords {
    pub async fn hash(&self, password: SecretString) -> Result<String, HashError> {
        self.in_turn(move || hash(&password)).await
    }

    /// Is it the password with that hash? Without a hash it never is, after as much work.
    pub async fn verify(&self, password: SecretString, known: Option<String>) -> Result<bool, HashError> {
        let nobody = self.nobody.get_or_try_init(|| async {
            let password = random::<32>().map_err(|e| HashError::Broken(e.to_string()))?;
            let password = SecretString::from(password.iter().map(|b| format!("{b:02x}")).collect::<String>());
            self.in_turn(move || hash(&password)).await
        });
        let nobody = nobody.await?.clone();
        self.in_turn(move || {
            let of_somebody = known.is_some();
            let known = known.unwrap_or(nobody);
            let known = PasswordHash::new(&known).map_err(broken)?;
            let matches = argon2()?.verify_password(password.expose_secret().as_bytes(), &known).is_ok();
            Ok(matches && of_somebody)
        })
        .await
    }

    async fn in_turn<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, HashError> + Send + 'static,
    ) -> Result<T, HashError> {
        let turn = tokio::time::timeout(LONGEST_WAIT, Arc::clone(&self.turns).acquire_owned());
        let turn = turn.await.map_err(|_| HashError::Busy)?.map_err(broken)?;
        let done = tokio::task::spawn_blocking(move || {
            // kept to the end of the work, also when nobody waits for it any more
            let _turn = turn;
            work()
        });
        done.await.map_err(broken)?
    }
}

fn broken(error: impl std::fmt::Display) -> HashError {
    HashError::Broken(error.to_string())
}

fn argon2() -> Result<Argon2<'static>, HashError> {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None).map_err(broken)?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

fn hash(password: &SecretString) -> Result<String, HashError> {
    let salt = SaltString::encode_b64(&random::<16>().map_err(broken)?).map_err(broken)?;
    Ok(argon2()?.hash_password(password.expose_secret().as_bytes(), &salt).map_err(broken)?.to_string())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn length_is_asked_for_and_no_composition() {
        let rule = |password: &str| check_rule(&password.into(), "ada.lovelace@example.com");
        for good in ["correct horse battery", "überlangeswort", "1234 5678 9012"] {
            rule(good).unwrap();
        }
        for bad in ["elevenchars", "aaaaaaaaaaaaaaaa", "Ada.Lovelace@example.com", "", &"x1".repeat(LONGEST)] {
            rule(bad).unwrap_err();
        }
    }

    #[tokio::test]
    async fn a_password_is_known_again_and_nobody_has_one() {
        let passwords = Passwords::default();
        let known = passwords.hash("correct horse battery".into()).await.unwrap();
        assert!(known.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{known}");
        assert!(passwords.verify("correct horse battery".into(), Some(known.clone())).await.unwrap());
        assert!(!passwords.verify("correct horse batterz".into(), Some(known.clone())).await.unwrap());
        assert!(!passwords.verify("correct horse battery".into(), None).await.unwrap());
        assert_ne!(passwords.hash("correct horse battery".into()).await.unwrap(), known, "salted");
    }
}
