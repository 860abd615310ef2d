//! Rows set aside on local disk, split into parts, while the rest of the result still comes in.
//!
//! A spill's folder is locked (`flock` on the folder itself) for as long as its process lives, so that what a crash left
//! behind, even in the middle of creating or removing it, is told from what is in use, and removed by [`clean`].

use std::fs::File;
use std::io::{BufReader, BufWriter};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;

/// A folder for spills that is removed when it is dropped, or by [`clean`] after a crash.
#[derive(Debug)]
pub struct SpillFolder {
    path: PathBuf,
    _lock: File,
}

impl SpillFolder {
    /// Creates `parent/name`, a name that nobody else uses.
    pub fn create(parent: &Path, name: &str) -> std::io::Result<Self> {
        let path = parent.join(name);
        loop {
            std::fs::create_dir_all(&path)?;
            let lock = match File::open(&path) {
                Ok(folder) => folder,
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
                Err(e) => return Err(e),
            };
            lock.lock()?;
            // a clean of another process may have removed it between its creation and its lock
            if is_at(&lock, &path)? {
                return Ok(Self { path, _lock: lock });
            }
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SpillFolder {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.path) {
            tracing::warn!(%error, "a spill folder could not be removed");
        }
    }
}

/// Is the opened folder the one that the path names?
fn is_at(opened: &File, path: &Path) -> std::io::Result<bool> {
    let named = match std::fs::metadata(path) {
        Ok(named) => named,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(e) => return Err(e),
    };
    let opened = opened.metadata()?;
    Ok((opened.dev(), opened.ino()) == (named.dev(), named.ino()))
}

/// Removes the folders under `parent` whose owner is gone. Returns how many.
pub fn clean(parent: &Path) -> std::io::Result<usize> {
    let mut removed = 0;
    let entries = match std::fs::read_dir(parent) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(0),
        Err(e) => return Err(e),
    };
    for entry in entries {
        let entry = entry?;
        if !entry.file_type()?.is_dir() {
            continue;
        }
        let folder = entry.path();
        // gone meanwhile: its owner, or another clean, removed it
        let Ok(lock) = File::open(&folder) else { continue };
        // what is locked has to be what the path names now: it may have been removed and created anew since it was opened
        if lock.try_lock().is_err() || !is_at(&lock, &folder)? {
            continue;
        }
        match std::fs::remove_dir_all(&folder) {
            Ok(()) => removed += 1,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
    }
    Ok(removed)
}

/// Rows in parts, each an Arrow IPC stream in one file.
pub struct Spill {
    schema: SchemaRef,
    folder: PathBuf,
    name: &'static str,
    parts: Vec<Mutex<Part>>,
}

#[derive(Default)]
struct Part {
    writer: Option<StreamWriter<BufWriter<File>>>,
    rows: u64,
}

impl Spill {
    pub fn new(folder: &SpillFolder, name: &'static str, parts: usize, schema: SchemaRef) -> Self {
        let parts = std::iter::repeat_with(Mutex::default).take(parts).collect();
        Self { schema, folder: folder.path.clone(), name, parts }
    }

    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Rows in a part.
    pub fn rows(&self, part: usize) -> u64 {
        self.parts[part].lock().unwrap_or_else(PoisonError::into_inner).rows
    }

    /// Number of parts.
    pub fn parts(&self) -> usize {
        self.parts.len()
    }

    fn file(&self, part: usize) -> PathBuf {
        self.folder.join(format!("{}-{part}.arrow", self.name))
    }

    /// Appends rows to a part. Threads may append at once.
    pub fn append(&self, part: usize, batch: &RecordBatch) -> Result<(), ArrowError> {
        let mut guard = self.parts[part].lock().unwrap_or_else(PoisonError::into_inner);
        let writer = match &mut guard.writer {
            Some(writer) => writer,
            None => {
                let file = BufWriter::with_capacity(64 << 10, File::create(self.file(part))?);
                guard.writer.insert(StreamWriter::try_new(file, &self.schema)?)
            }
        };
        writer.write(batch)?;
        guard.rows += batch.num_rows() as u64;
        Ok(())
    }

    /// Completes a part and reads it from its beginning, only these columns of it. May be called again.
    pub fn read(
        &self,
        part: usize,
        projection: Option<Vec<usize>>,
    ) -> Result<Option<StreamReader<BufReader<File>>>, ArrowError> {
        let mut guard = self.parts[part].lock().unwrap_or_else(PoisonError::into_inner);
        if guard.rows == 0 {
            return Ok(None);
        }
        if let Some(mut writer) = guard.writer.take() {
            writer.finish()?;
            std::io::Write::flush(writer.get_mut())?;
        }
        let file = BufReader::with_capacity(256 << 10, File::open(self.file(part))?);
        StreamReader::try_new(file, projection).map(Some)
    }

    /// Deletes a part that is not needed any more.
    pub fn drop_part(&self, part: usize) {
        let mut guard = self.parts[part].lock().unwrap_or_else(PoisonError::into_inner);
        *guard = Part::default();
        // the folder is removed in the end anyway
        std::fs::remove_file(self.file(part)).ok();
    }
}

impl std::fmt::Debug for Spill {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Spill").field("name", &self.name).field("parts", &self.parts.len()).finish_non_exhaustive()
    }
}

/// One thread's way into a [`Spill`]: gathers small slices until they make a batch worth writing.
#[derive(Debug)]
pub struct SpillBuffer {
    spill: Arc<Spill>,
    parts: Vec<(Vec<RecordBatch>, usize)>,
    bytes: usize,
    max_bytes: usize,
}

/// A part's buffer is written at this many rows.
const FLUSH_ROWS: usize = 2048;

impl SpillBuffer {
    /// `max_bytes` bounds what is gathered over all parts.
    pub fn new(spill: Arc<Spill>, max_bytes: usize) -> Self {
        let parts = vec![(Vec::new(), 0); spill.parts()];
        Self { spill, parts, bytes: 0, max_bytes }
    }

    /// Appends `batch`, whose rows are ordered by part; `lengths` says how many rows each part has.
    pub fn push(&mut self, batch: &RecordBatch, lengths: &[usize]) -> Result<(), ArrowError> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        self.bytes += batch.get_array_memory_size();
        let mut offset = 0;
        for (part, length) in lengths.iter().enumerate().filter(|(_, length)| **length > 0) {
            let (slices, rows) = &mut self.parts[part];
            slices.push(batch.slice(offset, *length));
            *rows += length;
            offset += length;
            if *rows >= FLUSH_ROWS {
                self.flush_part(part)?;
            }
        }
        if self.bytes > self.max_bytes {
            self.flush()?;
        }
        Ok(())
    }

    fn flush_part(&mut self, part: usize) -> Result<(), ArrowError> {
        let (slices, rows) = std::mem::take(&mut self.parts[part]);
        if rows == 0 {
            return Ok(());
        }
        // a slice keeps its whole batch alive, so only a full flush gives the bytes back
        self.spill.append(part, &concat_batches(self.spill.schema(), &slices)?)
    }

    /// Writes everything that was gathered.
    pub fn flush(&mut self) -> Result<(), ArrowError> {
        for part in 0..self.parts.len() {
            self.flush_part(part)?;
        }
        self.bytes = 0;
        Ok(())
    }
}
