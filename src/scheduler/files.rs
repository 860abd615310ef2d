//! The project's files, looked at again and again: what changed is read without a restart.
//!
//! Looking is asking each file for its length and times, which works on network file systems and container mounts alike.
//! A change is acted on once the files stand still, so that a checkout in the middle of its work is not taken for the
//! project.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::config::{MODELS_DIR, PROJECT_FILE};

/// How long the files have to stand still.
const STILL: Duration = Duration::from_millis(300);
/// Files that never stand still are read nevertheless.
const MOST_LOOKS: usize = 20;

/// Length, and when content and entry last changed, in nanoseconds. The latter also tells a file that was put in the
/// place of another with the same length and time.
type Stamp = (u64, i128, i128);

/// The project's files as they stood at one moment; by path, relative to the project.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Fingerprint(BTreeMap<PathBuf, Stamp>);

impl Fingerprint {
    /// Looks at the files. One that cannot be looked at counts as absent: reading it says what is wrong.
    pub fn of(root: &Path) -> Self {
        let mut files = vec![PathBuf::from(PROJECT_FILE)];
        let entries = std::fs::read_dir(root.join(MODELS_DIR)).into_iter().flatten().flatten();
        files.extend(entries.map(|entry| Path::new(MODELS_DIR).join(entry.file_name())).filter(|file| is_read(file)));
        let stamp = |file: PathBuf| {
            // follows links: a mounted configuration is replaced by turning one
            let data = std::fs::metadata(root.join(&file)).ok()?;
            let nanoseconds = |seconds: i64, rest: i64| i128::from(seconds) * 1_000_000_000 + i128::from(rest);
            let modified = nanoseconds(data.mtime(), data.mtime_nsec());
            Some((file, (data.len(), modified, nanoseconds(data.ctime(), data.ctime_nsec()))))
        };
        Self(files.into_iter().filter_map(stamp).collect())
    }

    /// The files that differ.
    pub fn differences(&self, other: &Self) -> Vec<PathBuf> {
        let mut all: Vec<&PathBuf> = self.0.keys().chain(other.0.keys()).collect();
        all.sort();
        all.dedup();
        all.into_iter().filter(|file| self.0.get(*file) != other.0.get(*file)).cloned().collect()
    }
}

/// The files that [`crate::config::load`] reads.
fn is_read(file: &Path) -> bool {
    let extension = file.extension().map(|e| e.to_string_lossy().to_ascii_lowercase());
    let hidden = file.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
    !hidden && matches!(extension.as_deref(), Some("yml" | "yaml" | "sql"))
}

/// The files cannot be used as they are: the service goes on with the project as it was before.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct ProjectFault {
    pub since: DateTime<Utc>,
    /// Every fault, as `cloud-connect check` prints them.
    pub message: String,
}

/// What [`Watch::changed`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// Nobody had looked before.
    pub first: bool,
    /// Relative to the project.
    pub files: Vec<PathBuf>,
}

/// What the watch remembers.
#[derive(Debug, Default)]
pub struct Watch {
    /// As the files stood when they were last acted on.
    seen: Mutex<Option<Fingerprint>>,
    fault: Mutex<Option<ProjectFault>>,
}

impl Watch {
    /// The files that changed since they were last acted on, once they stand still. None: nothing did. The first look
    /// finds that all changed, whenever they did.
    pub async fn changed(&self, root: &Path) -> Option<Changed> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut now = look(root).await;
        if seen.as_ref() == Some(&now) {
            return None;
        }
        if seen.is_some() {
            for _ in 0..MOST_LOOKS {
                tokio::time::sleep(STILL).await;
                let later = look(root).await;
                if later == now {
                    break;
                }
                now = later;
            }
        }
        let (first, files) = (seen.is_none(), now.differences(&seen.unwrap_or_default()));
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(now);
        (first || !files.is_empty()).then_some(Changed { first, files })
    }

    /// What is wrong with the files as they are.
    pub fn fault(&self) -> Option<ProjectFault> {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns what was wrong before.
    pub fn set_fault(&self, fault: Option<ProjectFault>) -> Option<ProjectFault> {
        std::mem::replace(&mut *self.fault.lock().unwrap_or_else(PoisonError::into_inner), fault)
    }
}

async fn look(root: &Path) -> Fingerprint {
    let root = root.to_path_buf();
    // a network file system may take its time
    tokio::task::spawn_blocking(move || Fingerprint::of(&root)).await.unwrap_or_default()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn later(files: &[&str]) -> Changed {
        Changed { first: false, files: files.iter().map(PathBuf::from).collect() }
    }

    #[tokio::test]
    async fn each_change_is_seen_once_and_other_files_do_not_matter() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let write = |file: &str, text: &str| std::fs::write(root.join(file), text).unwrap();
        std::fs::create_dir(root.join("models")).unwrap();
        write("cloud-connect.yml", "a");
        write("models/people.sql", "SELECT 1");
        let watch = Watch::default();
        let first = watch.changed(root).await.unwrap();
        assert!(first.first && first.files.len() == 2, "{first:?}");
        assert_eq!(watch.changed(root).await, None);
        for other in ["models/.people.sql.swp", "models/notes.txt", "models/.#people.sql", "README.md"] {
            write(other, "x");
        }
        assert_eq!(watch.changed(root).await, None);

        // the same length, and the time set back: what some tools leave
        let file = root.join("models/people.sql");
        let modified = std::fs::metadata(&file).unwrap().modified().unwrap();
        write("models/people.sql", "SELECT 2");
        std::fs::File::options().write(true).open(&file).unwrap().set_modified(modified).unwrap();
        assert_eq!(watch.changed(root).await, Some(later(&["models/people.sql"])));

        write("models/new.yml", "x");
        std::fs::remove_file(&file).unwrap();
        assert_eq!(watch.changed(root).await, Some(later(&["models/new.yml", "models/people.sql"])));
        assert_eq!(watch.changed(root).await, None);
    }

    #[tokio::test]
    async fn files_that_are_being_written_are_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().to_path_buf();
        std::fs::create_dir(root.join("models")).unwrap();
        let watch = Watch::default();
        assert!(watch.changed(&root).await.is_some());
        std::fs::write(root.join("models/m0.sql"), "x").unwrap();
        let writer = {
            let root = root.clone();
            tokio::spawn(async move {
                for n in 1..5 {
                    tokio::time::sleep(STILL / 3).await;
                    std::fs::write(root.join(format!("models/m{n}.sql")), "x").unwrap();
                }
            })
        };
        assert_eq!(watch.changed(&root).await.map(|changed| changed.files.len()), Some(5));
        writer.await.unwrap();
    }
}
