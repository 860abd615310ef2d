//! The change log's rows of one task of one run.

use arrow::array::{ArrayRef, RecordBatch, StringBuilder};
use arrow::datatypes::FieldRef;
use chrono::{DateTime, Utc};
use std::sync::Arc;
use uuid::Uuid;

use crate::store::data_file::RollingWriter;
use crate::store::schema::changes_schema;
use crate::store::{StagedFile, Store, StoreError, TableId};

const FLUSH_ROWS: usize = 16_384;

/// What happened to a profile by a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProfileChange {
    Entered,
    Exited,
    Changed,
}

impl ProfileChange {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Entered => "entered",
            Self::Exited => "exited",
            Self::Changed => "changed",
        }
    }
}

/// Gathers changes and writes them into files of one model's partition.
pub struct ChangeLog {
    writer: Option<RollingWriter>,
    run_id: String,
    now: DateTime<Utc>,
    change: StringBuilder,
    profile: StringBuilder,
    identity: StringBuilder,
    before: StringBuilder,
    after: StringBuilder,
    rows: usize,
    pub entered: u64,
    pub exited: u64,
}

impl ChangeLog {
    /// `write` false: counts only.
    pub fn new(store: &Store, model: &str, run_id: &str, now: DateTime<Utc>, write: bool) -> Self {
        let partition = [("model", model)];
        let writer =
            write.then(|| RollingWriter::new(store, &TableId::Changes, run_id, changes_schema(), &partition, now));
        Self {
            writer,
            run_id: run_id.to_string(),
            now,
            change: StringBuilder::new(),
            profile: StringBuilder::new(),
            identity: StringBuilder::new(),
            before: StringBuilder::new(),
            after: StringBuilder::new(),
            rows: 0,
            entered: 0,
            exited: 0,
        }
    }

    /// Is a row's text wanted, or only its count?
    pub fn writes(&self) -> bool {
        self.writer.is_some()
    }

    /// Notes one change. Follow a batch of them with [`ChangeLog::flush_full`].
    pub fn push(
        &mut self,
        change: ProfileChange,
        profile: Uuid,
        identity: &str,
        before: Option<&str>,
        after: Option<&str>,
    ) {
        match change {
            ProfileChange::Entered => self.entered += 1,
            ProfileChange::Exited => self.exited += 1,
            ProfileChange::Changed => {}
        }
        if self.writer.is_none() {
            return;
        }
        self.change.append_value(change.as_str());
        self.profile.append_value(profile.hyphenated().encode_lower(&mut Uuid::encode_buffer()));
        self.identity.append_value(identity);
        self.before.append_option(before);
        self.after.append_option(after);
        self.rows += 1;
    }

    /// Writes what was noted, once it is enough for a write.
    pub async fn flush_full(&mut self) -> Result<(), StoreError> {
        if self.rows >= FLUSH_ROWS { self.flush().await } else { Ok(()) }
    }

    async fn flush(&mut self) -> Result<(), StoreError> {
        let Some(writer) = &mut self.writer else { return Ok(()) };
        if self.rows == 0 {
            return Ok(());
        }
        let rows = std::mem::take(&mut self.rows);
        let run_ids: ArrayRef =
            Arc::new(arrow::array::StringArray::from_iter_values(std::iter::repeat_n(&self.run_id, rows)));
        let columns: Vec<ArrayRef> = vec![
            run_ids,
            super::timestamps(self.now, rows),
            Arc::new(self.change.finish()),
            Arc::new(self.profile.finish()),
            Arc::new(self.identity.finish()),
            Arc::new(self.before.finish()),
            Arc::new(self.after.finish()),
        ];
        writer.write(&RecordBatch::try_new(changes_schema(), columns)?).await
    }

    /// Completes the files.
    pub async fn finish(mut self) -> Result<Vec<StagedFile>, StoreError> {
        self.flush().await?;
        match self.writer {
            Some(writer) => writer.finish().await,
            None => Ok(Vec::new()),
        }
    }
}

/// The attributes among a record's columns: everything but the key (first) and what follows the activated fields.
pub fn attributes<'a>(
    fields: &'a [FieldRef],
    columns: &'a [ArrayRef],
    activated: usize,
) -> (&'a [FieldRef], &'a [ArrayRef]) {
    (&fields[1..=activated], &columns[1..=activated])
}
