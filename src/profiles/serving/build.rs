//! From data files to serving files: which belong together, and writing those that are not there yet.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, FieldRef, TimestampMicrosecondType};
use futures::TryStreamExt;
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::{ParquetRecordBatchStreamBuilder, ProjectionMask};
use parquet::file::metadata::PageIndexPolicy;
use xxhash_rust::xxh3::xxh3_64;

use super::rows::{ENCODING, IdentityRow, RecordRow, push_value, write_cell};
use super::segment::{About, Segment, SegmentWriter};
use crate::profiles::ProfilesError;
use crate::profiles::files::{TableFile, TableFiles};
use crate::profiles::tables::value_type;
use crate::store::schema::{KEY_HI, KEY_LO, SINCE};

/// Fewer rows than this are folded together with others, so that many small runs do not make every lookup slow …
const SMALL_ROWS: u64 = 32_768;
/// … unless they come from so many data files that reading these again would be the greater cost.
const SMALL_FILES: usize = 256;
/// So many small serving files a table are left as they are.
const MAX_SMALL: usize = 8;
/// Rows decoded at a time.
const BATCH_ROWS: usize = 1024;

/// The index of identities by the value's hash, or of records by their key's.
pub const BY_KEY: usize = 0;
/// The index of identities by the hash of the profile's id.
pub const BY_PROFILE: usize = 1;

/// Data files that make one serving file.
type Group = Vec<Arc<TableFile>>;

/// A table that is to be served.
pub struct Source {
    pub files: Arc<TableFiles>,
    /// Of a record store; none: identities.
    pub attributes: Option<Vec<FieldRef>>,
}

impl Source {
    /// What a serving file of these data files is made of.
    fn about(&self, group: &[Arc<TableFile>]) -> About {
        let names = match &self.attributes {
            Some(attributes) => {
                attributes.iter().map(|field| format!("{}:{}", field.name(), value_type(field))).collect()
            }
            None => self.fields(group),
        };
        let files = group.iter().map(|file| file.known.path.clone()).collect();
        About { encoding: ENCODING, table: self.files.id.folder(), names, files }
    }

    /// The identity fields that the files hold.
    fn fields(&self, group: &[Arc<TableFile>]) -> Vec<String> {
        let mut fields: Vec<String> =
            group.iter().filter_map(|file| self.files.partition_value(file)).map(str::to_string).collect();
        fields.sort();
        fields.dedup();
        fields
    }

    /// The serving files that the table needs: those that are there already, as far as they go.
    pub fn plan<'a>(&self, known: impl Iterator<Item = &'a About>) -> Vec<(About, Group)> {
        let files = self.files.files.iter();
        let mut rest: BTreeMap<&str, &Arc<TableFile>> =
            files.filter(|file| file.rows > 0).map(|file| (file.known.path.as_str(), file)).collect();
        let table = self.files.id.folder();
        let mut known: Vec<&About> = known.filter(|about| about.table == table).collect();
        known.sort_by_key(|about| (std::cmp::Reverse(about.files.len()), &about.files));
        let mut groups: Vec<Group> = Vec::new();
        for about in known {
            let group: Option<Group> =
                about.files.iter().map(|path| rest.get(path.as_str()).copied().cloned()).collect();
            if let Some(group) = group.filter(|group| self.about(group) == *about) {
                for path in &about.files {
                    rest.remove(path.as_str());
                }
                groups.push(group);
            }
        }
        let (small, large): (Vec<_>, Vec<_>) = rest.into_values().cloned().partition(|file| file.rows < SMALL_ROWS);
        groups.extend(large.into_iter().map(|file| vec![file]));
        groups.extend(folded(small));
        if groups.iter().filter(|group| is_small(group)).count() > MAX_SMALL {
            let (small, large): (Vec<Group>, Vec<Group>) = groups.into_iter().partition(is_small);
            groups = large;
            groups.extend(folded(small.into_iter().flatten().collect()));
        }
        groups.into_iter().map(|group| (self.about(&group), group)).collect()
    }

    /// Writes one serving file. Reads and encodes on the calling thread: for one that may be kept busy.
    pub async fn build(&self, folder: &Path, about: About, group: &[Arc<TableFile>]) -> Result<Segment, ProfilesError> {
        let name = about.file_name();
        let failed = |source| ProfilesError::ServingFile { file: name.clone(), source };
        match &self.attributes {
            Some(attributes) => {
                let mut writer = SegmentWriter::<1>::new(folder, about).map_err(failed)?;
                let mut columns = vec![SINCE, KEY_HI, KEY_LO];
                columns.extend(attributes.iter().map(|field| field.name().as_str()));
                for file in group {
                    let push = |batch: &RecordBatch| push_records(&mut writer, attributes, batch);
                    self.each_batch(file, &columns, push).await?;
                }
                writer.finish().map_err(failed)
            }
            None => {
                let fields = about.names.clone();
                let mut writer = SegmentWriter::<2>::new(folder, about).map_err(failed)?;
                let columns = ["profile_id", "value", "founder", "created_at", KEY_HI, KEY_LO];
                for file in group {
                    let field = self.files.partition_value(file);
                    let number = fields.iter().position(|name| Some(name.as_str()) == field);
                    let number = number.and_then(|number| u16::try_from(number).ok());
                    let number = number.ok_or_else(|| self.corrupt("a file without its `field`".into()))?;
                    let push = |batch: &RecordBatch| push_identities(&mut writer, number, batch);
                    self.each_batch(file, &columns, push).await?;
                }
                writer.finish().map_err(failed)
            }
        }
    }

    async fn each_batch(
        &self,
        file: &TableFile,
        columns: &[&str],
        mut push: impl FnMut(&RecordBatch) -> io::Result<()>,
    ) -> Result<(), ProfilesError> {
        let options = ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Skip);
        let builder = ParquetRecordBatchStreamBuilder::new_with_options(self.files.reader(file), options);
        let builder = builder.await.map_err(|e| file.error(e))?;
        let roots = builder.schema().fields().iter().enumerate();
        let roots = roots.filter(|(_, field)| columns.contains(&field.name().as_str())).map(|(root, _)| root);
        let mask = ProjectionMask::roots(builder.parquet_schema(), roots);
        let builder = builder.with_projection(mask).with_batch_size(BATCH_ROWS);
        let mut batches = builder.build().map_err(|e| file.error(e))?;
        let mut rows = 0;
        while let Some(batch) = batches.try_next().await.map_err(|e| file.error(e))? {
            rows += batch.num_rows() as u64;
            push(&batch).map_err(|source| ProfilesError::ServingFile { file: file.known.path.clone(), source })?;
        }
        if rows != file.rows {
            let (path, expected) = (&file.known.path, file.rows);
            return Err(self.corrupt(format!("{path} has {rows} rows, its log entry says {expected}")));
        }
        Ok(())
    }

    fn corrupt(&self, message: String) -> ProfilesError {
        ProfilesError::Corrupt { table: self.files.id.clone(), message }
    }
}

fn is_small(group: &Group) -> bool {
    group.len() < SMALL_FILES && group.iter().map(|file| file.rows).sum::<u64>() < SMALL_ROWS
}

/// Groups that are just not small any more, and the rest.
fn folded(mut files: Group) -> Vec<Group> {
    files.sort_by(|a, b| a.known.path.cmp(&b.known.path));
    let mut groups: Vec<Group> = Vec::new();
    for file in files {
        match groups.last_mut().filter(|group| is_small(group)) {
            Some(group) => group.push(file),
            None => groups.push(vec![file]),
        }
    }
    groups
}

fn push_records(writer: &mut SegmentWriter<1>, attributes: &[FieldRef], batch: &RecordBatch) -> io::Result<()> {
    let (hi, lo) = (longs(batch, KEY_HI)?, longs(batch, KEY_LO)?);
    let since = times(batch, SINCE)?;
    let columns: Vec<(Option<&ArrayRef>, _)> =
        attributes.iter().map(|field| (batch.column_by_name(field.name()), value_type(field))).collect();
    let (mut encoded, mut cell) = (Vec::new(), Vec::new());
    for (row, since) in since.iter().enumerate() {
        RecordRow::begin(*since, (hi.value(row), lo.value(row)), &mut encoded);
        for (column, value_type) in &columns {
            cell.clear();
            match column {
                Some(column) => write_cell(column, row, *value_type, &mut cell)?,
                // a file from before the column was activated lacks it
                None => cell.extend_from_slice(b"null"),
            }
            push_value(&cell, &mut encoded);
        }
        writer.push([lo.value(row) as u64], &encoded)?;
    }
    Ok(())
}

fn push_identities(writer: &mut SegmentWriter<2>, field: u16, batch: &RecordBatch) -> io::Result<()> {
    let (hi, lo) = (longs(batch, KEY_HI)?, longs(batch, KEY_LO)?);
    let (ids, texts) = (strings(batch, "profile_id")?, strings(batch, "value")?);
    let created = times(batch, "created_at")?;
    let founder = batch.column_by_name("founder").and_then(|column| column.as_boolean_opt());
    let founder = founder.ok_or_else(|| missing("founder"))?;
    let mut encoded = Vec::new();
    for (row, created_at) in created.iter().copied().enumerate() {
        let (profile_id, value) = (ids.value(row), texts.value(row));
        let key = (hi.value(row), lo.value(row));
        let founder = founder.value(row);
        IdentityRow { field, founder, created_at, key, profile_id, value }.encode(&mut encoded)?;
        writer.push([key.1 as u64, xxh3_64(profile_id.as_bytes())], &encoded)?;
    }
    Ok(())
}

fn longs<'a>(batch: &'a RecordBatch, name: &str) -> io::Result<&'a Int64Array> {
    batch.column_by_name(name).and_then(|column| column.as_primitive_opt()).ok_or_else(|| missing(name))
}

fn times<'a>(batch: &'a RecordBatch, name: &str) -> io::Result<&'a [i64]> {
    let column = batch.column_by_name(name).and_then(|column| column.as_primitive_opt::<TimestampMicrosecondType>());
    let column = column.filter(|column| column.null_count() == 0).ok_or_else(|| missing(name))?;
    Ok(column.values())
}

fn strings(batch: &RecordBatch, name: &str) -> io::Result<StringArray> {
    let column = batch.column_by_name(name).ok_or_else(|| missing(name))?;
    let column = arrow::compute::cast(column, &DataType::Utf8).map_err(io::Error::other)?;
    Ok(column.as_string::<i32>().clone())
}

fn missing(column: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("a data file lacks `{column}`, or it is something else"))
}
