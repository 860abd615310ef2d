//! Who may seal, and who may replace keys: a file lock, across processes, that ends with its process.
//!
//! Without it a key could be dropped between being read by one process and sealing something there: nothing would open
//! that again.

use std::fs::File;
use std::io;
use std::path::Path;

/// Held while keys and what they sealed have to stay what they are. Not to be held across a reload of the definitions,
/// which asks for it too.
#[derive(Debug)]
pub struct Custody(#[expect(dead_code, reason = "held, not read")] File);

impl Custody {
    /// To read keys and what they sealed: many may at once.
    pub async fn share(state: &Path) -> io::Result<Self> {
        Self::wait(state, File::lock_shared).await
    }

    /// To seal, or to replace keys: alone.
    pub async fn take(state: &Path) -> io::Result<Self> {
        Self::wait(state, File::lock).await
    }

    async fn wait(state: &Path, lock: fn(&File) -> io::Result<()>) -> io::Result<Self> {
        let folder = state.join("locks");
        let waiting = tokio::task::spawn_blocking(move || {
            std::fs::create_dir_all(&folder)?;
            let file = File::options()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(folder.join("sealing.lock"))?;
            lock(&file).map(|()| Self(file))
        });
        waiting.await.map_err(io::Error::other)?
    }
}
