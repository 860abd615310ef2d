//! Who may do what at once, across processes: file locks, which end with their process.

use std::fs::{File, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::Path;
use std::time::Duration;

use super::{Engine, SyncError};

/// Held by the one run of a model.
#[derive(Debug)]
pub struct ModelLock(#[expect(dead_code, reason = "held, not read")] File);

/// Held while a run looks profiles up, commits, and rolls forward: one at a time in a project.
#[derive(Debug)]
pub struct PublishLock(#[expect(dead_code, reason = "held, not read")] File);

/// Held by the one upload of a stream.
#[derive(Debug)]
pub struct StreamLock(#[expect(dead_code, reason = "held, not read")] File);

/// How long an upload waits for the one before it, and how often it looks.
const STREAM_PATIENCE: Duration = Duration::from_secs(10 * 60);
const STREAM_LOOKS: Duration = Duration::from_millis(50);

/// Held by the one service of a project.
#[derive(Debug)]
pub struct ServiceLock(#[expect(dead_code, reason = "held, not read")] File);

fn open(folder: &Path, name: &str) -> Result<File, std::io::Error> {
    std::fs::create_dir_all(folder)?;
    File::options().read(true).write(true).create(true).truncate(false).open(folder.join(name))
}

impl Engine {
    /// The lock of the one service of this project; none while another has it.
    pub fn service_lock(&self) -> Result<Option<ServiceLock>, SyncError> {
        let file = open(&self.lock_folder(), "service.lock")?;
        match file.try_lock() {
            Ok(()) => Ok(Some(ServiceLock(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(e)) => Err(e.into()),
        }
    }

    /// The model's lock, or [`SyncError::AlreadyRunning`].
    pub(crate) fn model_lock(&self, model: &str) -> Result<ModelLock, SyncError> {
        let mut file = open(&self.lock_folder(), &format!("model-{model}.lock"))?;
        match file.try_lock() {
            Ok(()) => {
                // who holds it, for the message of whoever comes second
                file.set_len(0)?;
                file.write_all(std::process::id().to_string().as_bytes())?;
                Ok(ModelLock(file))
            }
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                file.rewind()?;
                file.read_to_string(&mut holder)?;
                Err(SyncError::AlreadyRunning { model: model.to_string(), process: holder.trim().to_string() })
            }
            Err(TryLockError::Error(e)) => Err(e.into()),
        }
    }

    /// Waits for the stream's lock; none when it is not to be had for long. A thread that waited would be one less for
    /// everybody: it looks now and then instead.
    pub(super) async fn stream_lock(&self, stream: &str) -> Result<Option<StreamLock>, SyncError> {
        let waiting = async {
            loop {
                if let Some(lock) = self.try_stream_lock(stream)? {
                    return Ok(lock);
                }
                tokio::time::sleep(STREAM_LOOKS).await;
            }
        };
        tokio::time::timeout(STREAM_PATIENCE, waiting).await.ok().transpose()
    }

    /// The stream's lock, if nobody holds it.
    pub(super) fn try_stream_lock(&self, stream: &str) -> Result<Option<StreamLock>, SyncError> {
        let file = open(&self.lock_folder(), &format!("stream-{stream}.lock"))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(StreamLock(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(e)) => Err(e.into()),
        }
    }

    /// Waits for the publish lock.
    pub(super) async fn publish_lock(&self) -> Result<PublishLock, SyncError> {
        let file = open(&self.lock_folder(), "publish.lock")?;
        let waiting = tokio::task::spawn_blocking(move || file.lock().map(|()| file));
        Ok(PublishLock(waiting.await.map_err(|e| SyncError::Bug(e.to_string()))??))
    }

    /// The publish lock, if nobody holds it.
    pub(super) fn try_publish_lock(&self) -> Result<Option<PublishLock>, SyncError> {
        let file = open(&self.lock_folder(), "publish.lock")?;
        match file.try_lock() {
            Ok(()) => Ok(Some(PublishLock(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(e)) => Err(e.into()),
        }
    }
}
