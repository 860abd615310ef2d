//! The keys that seal credentials: where they come from, and how they are replaced.
//!
//! One key a line (or separated by commas, in the environment): `ID:BASE64` with 32 bytes. The first seals.

use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::rand::{SecureRandom, SystemRandom};
use secrecy::{ExposeSecret, SecretSlice, SecretString};

/// The variable that holds the keys.
pub const KEYS_VARIABLE: &str = "CLOUD_CONNECT_KEYS";
/// The variable that names the file that holds the keys.
pub const KEY_FILE_VARIABLE: &str = "CLOUD_CONNECT_KEY_FILE";
/// The file in the project's local state that is made when neither variable is set.
const KEY_FILE: &str = "sealing.keys";
const KEY_BYTES: usize = 32;

/// What is wrong with the keys. Never holds one.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("the keys in {source_name} cannot be used: {reason}")]
    Malformed { source_name: String, reason: &'static str },
    #[error("the key file `{path}` cannot be used: {error}")]
    File { path: String, error: std::io::Error },
    #[error("the key file `{path}` can be read by others than its owner")]
    Readable { path: String },
    #[error("the system gave no random bytes")]
    Random,
}

impl KeyError {
    pub fn hint(&self) -> String {
        match self {
            Self::Malformed { .. } => "one key a line: `name:` and 32 bytes in base64, for example `k1:$(openssl rand -base64 32)`; the first one seals".into(),
            Self::File { .. } => "check that it is a file and that you may read it".into(),
            Self::Readable { path } => format!("`chmod 600 {path}`"),
            Self::Random => "try again".into(),
        }
    }
}

/// One key.
#[derive(Clone)]
pub struct SealingKey {
    id: String,
    bytes: Arc<SecretSlice<u8>>,
}

impl SealingKey {
    fn generate() -> Result<Self, KeyError> {
        let (mut id, mut bytes) = ([0; 4], vec![0; KEY_BYTES]);
        let random = SystemRandom::new();
        random.fill(&mut id).and_then(|()| random.fill(&mut bytes)).map_err(|_| KeyError::Random)?;
        let id = format!("k{:08x}", u32::from_be_bytes(id));
        Ok(Self { id, bytes: Arc::new(SecretSlice::from(bytes)) })
    }

    pub fn id(&self) -> &str {
        &self.id
    }

    pub(super) fn bytes(&self) -> &[u8] {
        (*self.bytes).expose_secret()
    }

    fn line(&self) -> String {
        format!("{}:{}\n", self.id, STANDARD.encode(self.bytes()))
    }
}

/// The keys in order; the first seals.
#[derive(Clone, Default)]
pub struct Keyring {
    keys: Vec<SealingKey>,
}

impl std::fmt::Debug for Keyring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.keys.iter().map(SealingKey::id)).finish()
    }
}

impl Keyring {
    /// The keys of the environment or of the file that it names, else those of the project's own key file, which is
    /// made when it is missing (and only when `create` is set).
    pub fn load(state: &Path, create: bool) -> Result<Self, KeyError> {
        if let Some(text) = crate::secrets::process_environment(KEYS_VARIABLE) {
            return Self::parse(&text, KEYS_VARIABLE);
        }
        if let Some(path) = crate::secrets::process_environment(KEY_FILE_VARIABLE) {
            return Self::read(Path::new(&path));
        }
        let path = state.join(KEY_FILE);
        match path.try_exists() {
            Ok(true) => Self::read(&path),
            Ok(false) if create => {
                let keyring = Self::generate()?;
                keyring.write_new(&path).map_err(|error| KeyError::File { path: path.display().to_string(), error })?;
                tracing::warn!(path = %path.display(), "made a key for stored credentials beside the catalog; keep it elsewhere (CLOUD_CONNECT_KEY_FILE) so that one stolen folder does not hold both");
                Ok(keyring)
            }
            Ok(false) => Ok(Self::default()),
            Err(error) => Err(KeyError::File { path: path.display().to_string(), error }),
        }
    }

    /// One fresh key.
    pub fn generate() -> Result<Self, KeyError> {
        Ok(Self { keys: vec![SealingKey::generate()?] })
    }

    /// A fresh key before these.
    pub fn with_new_key(&self) -> Result<Self, KeyError> {
        let mut keys = vec![SealingKey::generate()?];
        keys.extend(self.keys.iter().cloned());
        Ok(Self { keys })
    }

    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    pub fn first(&self) -> Option<&SealingKey> {
        self.keys.first()
    }

    pub fn key(&self, id: &str) -> Option<&SealingKey> {
        self.keys.iter().find(|key| key.id == id)
    }

    /// Writes the keys over those of a file, all or nothing.
    pub fn replace_file(&self, path: &Path) -> Result<(), KeyError> {
        let fault = |error| KeyError::File { path: path.display().to_string(), error };
        let fresh = path.with_extension(format!("new-{}", std::process::id()));
        // of a process of the same number that died here
        std::fs::remove_file(&fresh).ok();
        let written = self.write_new(&fresh).and_then(|()| {
            if let Ok(old) = std::fs::metadata(path) {
                // whoever runs the service has to read it, also when root replaces it
                std::os::unix::fs::chown(&fresh, Some(old.uid()), Some(old.gid())).ok();
                std::fs::set_permissions(&fresh, old.permissions())?;
            }
            std::fs::rename(&fresh, path)
        });
        // a rename that a power cut undoes would take the new key with it, and all that it sealed
        written.and_then(|()| sync_folder(path)).map_err(fault)
    }

    /// The names of the keys, the one that seals first.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.keys.iter().map(SealingKey::id)
    }

    /// Only the keys with these names, and the one that seals.
    #[must_use]
    pub fn only(&self, used: &std::collections::BTreeSet<String>) -> Self {
        let kept = self.keys.iter().enumerate().filter(|(at, key)| *at == 0 || used.contains(&key.id));
        Self { keys: kept.map(|(_, key)| key.clone()).collect() }
    }

    /// The keys as they stand in a file or in the environment.
    pub fn lines(&self) -> SecretString {
        SecretString::from(self.keys.iter().map(SealingKey::line).collect::<String>())
    }

    /// The file that [`Self::load`] would read; none when the keys come from the environment.
    pub fn file(state: &Path) -> Option<std::path::PathBuf> {
        if crate::secrets::process_environment(KEYS_VARIABLE).is_some() {
            return None;
        }
        let named = crate::secrets::process_environment(KEY_FILE_VARIABLE);
        Some(named.map_or_else(|| state.join(KEY_FILE), std::path::PathBuf::from))
    }

    fn write_new(&self, path: &Path) -> std::io::Result<()> {
        let mut file = std::fs::File::options().write(true).create_new(true).mode(0o600).open(path)?;
        for key in &self.keys {
            file.write_all(key.line().as_bytes())?;
        }
        // a key that is lost in a power cut takes what it sealed with it
        file.sync_all()?;
        sync_folder(path)
    }

    fn read(path: &Path) -> Result<Self, KeyError> {
        let fault = |error| KeyError::File { path: path.display().to_string(), error };
        let mode = std::fs::metadata(path).map_err(fault)?.permissions().mode();
        // a mounted secret often belongs to a group of its own; strangers are another matter
        if mode & 0o007 != 0 {
            return Err(KeyError::Readable { path: path.display().to_string() });
        }
        Self::parse(&std::fs::read_to_string(path).map_err(fault)?, &format!("`{}`", path.display()))
    }

    fn parse(text: &str, source_name: &str) -> Result<Self, KeyError> {
        let malformed = |reason| KeyError::Malformed { source_name: source_name.into(), reason };
        let mut keys: Vec<SealingKey> = Vec::new();
        for line in text.split(['\n', ',']).map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let (id, encoded) = line.split_once(':').ok_or_else(|| malformed("a key has no name before a `:`"))?;
            if id.is_empty() || !id.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_')) {
                return Err(malformed("a key's name holds other characters than letters, digits, `-` and `_`"));
            }
            let bytes = STANDARD.decode(encoded.trim()).map_err(|_| malformed("a key is not base64"))?;
            if bytes.len() != KEY_BYTES {
                return Err(malformed("a key is not 32 bytes long"));
            }
            if keys.iter().any(|key| key.id == id) {
                return Err(malformed("two keys have the same name"));
            }
            keys.push(SealingKey { id: id.into(), bytes: Arc::new(SecretSlice::from(bytes)) });
        }
        if keys.is_empty() { Err(malformed("there is none")) } else { Ok(Self { keys }) }
    }
}

/// Makes a file's name in its folder last.
fn sync_folder(file: &Path) -> std::io::Result<()> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::File::open(folder)?.sync_all()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_key_file_is_made_once_for_its_owner_only_and_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sealing.keys");
        let made = Keyring::generate().unwrap();
        made.write_new(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(made.write_new(&path).is_err());
        let read = Keyring::read(&path).unwrap();
        assert_eq!(read.first().unwrap().bytes(), made.first().unwrap().bytes());
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(Keyring::read(&path), Err(KeyError::Readable { .. })));
    }

    #[test]
    fn faulty_keys_are_refused_without_being_shown() {
        let short = STANDARD.encode([7; 16]);
        for bad in ["", "nokey", "k1:###", &format!("k1:{short}"), "k 1:AAAA"] {
            let error = Keyring::parse(bad, "test").err().unwrap();
            assert!(!error.to_string().contains(&short), "{error}");
        }
        let key = STANDARD.encode([7; 32]);
        assert!(Keyring::parse(&format!("a:{key}\na:{key}"), "test").is_err());
        assert_eq!(Keyring::parse(&format!("# first\nb:{key}\n\na:{key}"), "test").unwrap().first().unwrap().id(), "b");
        assert!(!format!("{:?}", Keyring::parse(&format!("b:{key}"), "test").unwrap()).contains(&key));
    }
}
