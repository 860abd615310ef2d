//! One table: which format it is, which files it has, how DataFusion reads it.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::compute::kernels::cast_utils::Parser;
use arrow::datatypes::{DataType, Date32Type, SchemaRef};
use datafusion::catalog::{Session, TableProvider};
use datafusion::datasource::file_format::FileFormat;
use datafusion::datasource::file_format::csv::CsvFormat;
use datafusion::datasource::file_format::file_compression_type::FileCompressionType;
use datafusion::datasource::file_format::json::JsonFormat;
use datafusion::datasource::file_format::parquet::ParquetFormat;
use datafusion::datasource::listing::{ListingOptions, ListingTable, ListingTableConfig, ListingTableUrl};
use deltalake::DeltaTableBuilder;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore};
use url::Url;

use super::catalog::{Catalog, Entry};
use super::json_source::TolerantJson;
use super::{csv, errors, json};
use crate::warehouse::{WarehouseError, WarehouseErrorKind};

/// How the files are compressed as a whole (Parquet compresses inside).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Compression {
    None,
    Gzip,
    Zstd,
}

impl Compression {
    pub(super) fn codec(self) -> FileCompressionType {
        match self {
            Self::None => FileCompressionType::UNCOMPRESSED,
            Self::Gzip => FileCompressionType::GZIP,
            Self::Zstd => FileCompressionType::ZSTD,
        }
    }
}

/// What a table is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Format {
    Parquet,
    /// With a header.
    Csv {
        delimiter: u8,
        compression: Compression,
    },
    /// One object a line.
    Ndjson {
        compression: Compression,
    },
    /// Objects one after another, or one array of them, over any number of lines.
    Json {
        compression: Compression,
    },
    Delta,
}

impl Format {
    /// The table's name and format that a file's name stands for.
    pub(super) fn of(file: &str) -> Option<(&str, Self)> {
        let (inner, compression) = match file.rsplit_once('.') {
            Some((inner, "gz")) => (inner, Compression::Gzip),
            Some((inner, "zst")) => (inner, Compression::Zstd),
            _ => (file, Compression::None),
        };
        let (stem, extension) = inner.rsplit_once('.')?;
        let format = match extension.to_ascii_lowercase().as_str() {
            "parquet" if compression == Compression::None => Self::Parquet,
            "csv" => Self::Csv { delimiter: b',', compression },
            "tsv" => Self::Csv { delimiter: b'\t', compression },
            "ndjson" | "jsonl" => Self::Ndjson { compression },
            "json" => Self::Json { compression },
            _ => return None,
        };
        (!stem.is_empty()).then_some((stem, format))
    }

    /// For people.
    pub(super) fn kind(self) -> &'static str {
        match self {
            Self::Parquet => "parquet",
            Self::Csv { delimiter: b'\t', .. } => "tsv",
            Self::Csv { .. } => "csv",
            Self::Ndjson { .. } => "ndjson",
            Self::Json { .. } => "json",
            Self::Delta => "delta",
        }
    }
}

/// What reading all of a table's text told about it.
#[derive(Debug)]
pub(super) struct Inferred {
    pub schema: SchemaRef,
    pub traits: Traits,
}

/// What the reader of a text format has to know besides the schema.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Traits {
    /// CSV: a quoted value spans lines, so a file cannot be split at line ends.
    pub lines_in_values: bool,
    /// JSON: numbers and booleans stand where text does.
    pub mixed_scalars: bool,
    /// JSON: columns whose values have no one shape; they are read as JSON text.
    pub as_text: BTreeSet<String>,
}

/// The root of the store that a session reads, as a URL. The scheme says nothing of where the files are: it is one that
/// Delta Lake knows and that nothing else is registered under.
pub(super) fn root_url() -> Url {
    #[expect(clippy::unwrap_used, reason = "a constant")]
    Url::parse("memory:///").unwrap()
}

/// Names that tools use for what is no data (`_SUCCESS`, `.part.crc`, `_delta_log`).
pub(super) fn is_hidden(name: &str) -> bool {
    name.starts_with(['_', '.'])
}

/// The data files of a folder, in order of their path.
async fn folder_files(store: &dyn ObjectStore, folder: &Path) -> Result<Vec<(ObjectMeta, Format)>, WarehouseError> {
    let mut files: Vec<(ObjectMeta, Format)> = store
        .list(Some(folder))
        .try_filter_map(|meta| {
            let hidden =
                meta.location.prefix_match(folder).is_none_or(|mut parts| parts.any(|p| is_hidden(p.as_ref())));
            let format = meta.location.filename().and_then(Format::of).filter(|_| !hidden).map(|(_, format)| format);
            futures::future::ready(Ok(format.map(|format| (meta, format))))
        })
        .try_collect()
        .await
        .map_err(|e| errors::from_object_store(&e))?;
    files.sort_by(|(a, _), (b, _)| a.location.cmp(&b.location));
    Ok(files)
}

/// What a folder holds: the format of its first data file, or none when there is no data in it.
pub(super) async fn folder_format(store: &dyn ObjectStore, folder: &Path) -> Result<Option<Format>, WarehouseError> {
    let log = folder.clone().join("_delta_log");
    let mut commits = store.list(Some(&log));
    if commits.try_next().await.map_err(|e| errors::from_object_store(&e))?.is_some() {
        return Ok(Some(Format::Delta));
    }
    Ok(folder_files(store, folder).await?.first().map(|(_, format)| *format))
}

/// The number of columns where it costs no scan: from footers, logs and headers. None: it would cost one.
pub(super) async fn column_count(
    catalog: &Catalog,
    session: &dyn Session,
    name: &str,
    entry: &Entry,
    format: Format,
) -> Result<Option<u64>, WarehouseError> {
    let count = match format {
        Format::Parquet | Format::Delta => open(catalog, session, name, entry, format).await?.schema().fields().len(),
        Format::Csv { delimiter, compression } => {
            let (files, partitions) = files(catalog, name, entry, format).await?;
            let first = files.iter().find(|f| f.size > 0).ok_or_else(|| no_columns(name))?;
            csv::header(&catalog.store(), first, delimiter, compression).await?.len() + partitions.len()
        }
        Format::Ndjson { .. } | Format::Json { .. } => return Ok(None),
    };
    Ok(u64::try_from(count).ok())
}

fn no_columns(name: &str) -> WarehouseError {
    WarehouseError::configuration(format!("table `{name}` has no columns: its files are empty"))
        .with_hint("give it a header (CSV) or a row, or take it away")
}

/// Opens a table; text formats are read in full once to infer their schema.
pub(super) async fn open(
    catalog: &Catalog,
    session: &dyn Session,
    name: &str,
    entry: &Entry,
    format: Format,
) -> Result<Arc<dyn TableProvider>, WarehouseError> {
    if format == Format::Delta {
        let Entry::Folder(folder) = entry else { return Err(WarehouseError::bug("a Delta table is a folder")) };
        return open_delta(catalog, folder).await;
    }
    let (files, partitions) = files(catalog, name, entry, format).await?;
    if files.iter().all(|file| file.size == 0) {
        return Err(no_columns(name));
    }
    let in_table = |mut e: WarehouseError| {
        e.message = format!("table `{name}`: {}", e.message);
        e
    };
    let (schema, reader): (SchemaRef, Arc<dyn FileFormat>) = match format {
        Format::Parquet => {
            let parquet = ParquetFormat::default().with_options(session.default_table_options().parquet);
            let store = catalog.store();
            let schema = parquet.infer_schema(session, &store, &files).await;
            let schema = schema.map_err(|e| in_table(parquet_fault(&errors::from_datafusion(&e))))?;
            (schema, Arc::new(parquet))
        }
        Format::Csv { delimiter, compression } => {
            let inferred = inferred(catalog, name, &files, async {
                csv::infer(&catalog.store(), &files, delimiter, compression).await
            });
            let inferred = inferred.await.map_err(in_table)?;
            let csv = CsvFormat::default()
                .with_has_header(true)
                .with_delimiter(delimiter)
                .with_newlines_in_values(inferred.traits.lines_in_values)
                .with_file_compression_type(compression.codec());
            (Arc::clone(&inferred.schema), Arc::new(csv))
        }
        Format::Ndjson { compression } | Format::Json { compression } => {
            let by_line = matches!(format, Format::Ndjson { .. });
            let inferred = inferred(catalog, name, &files, async {
                json::infer(&catalog.store(), &files, by_line, compression).await
            });
            let inferred = inferred.await.map_err(in_table)?;
            // DataFusion's own reader splits one file over all cores, but takes only what has one shape
            let plain = by_line && inferred.traits == Traits::default();
            let reader: Arc<dyn FileFormat> = if plain {
                Arc::new(JsonFormat::default().with_file_compression_type(compression.codec()))
            } else {
                Arc::new(TolerantJson::new(compression, by_line, inferred.traits.clone()))
            };
            (Arc::clone(&inferred.schema), reader)
        }
        Format::Delta => return Err(WarehouseError::bug("a Delta table has no file format")),
    };
    if let Some((column, _)) = partitions.iter().find(|(column, _)| schema.column_with_name(column).is_some()) {
        return Err(in_table(WarehouseError::configuration(format!(
            "`{column}` is both a partition folder and a column of the files"
        ))));
    }

    let (urls, extension) = urls(entry, &files, !partitions.is_empty()).map_err(in_table)?;
    let options = ListingOptions::new(reader).with_file_extension(extension).with_table_partition_cols(partitions);
    let config = ListingTableConfig::new_with_multi_paths(urls).with_listing_options(options).with_schema(schema);
    let table = ListingTable::try_new(config).map_err(|e| in_table(errors::from_datafusion(&e)))?;
    Ok(Arc::new(table))
}

/// A schema that a text format's files tell when they are read in full; kept while the files stay the same.
async fn inferred(
    catalog: &Catalog,
    name: &str,
    files: &[ObjectMeta],
    infer: impl Future<Output = Result<Inferred, WarehouseError>>,
) -> Result<Arc<Inferred>, WarehouseError> {
    if let Some(known) = catalog.schemas().get(name, files) {
        return Ok(known);
    }
    let inferred = Arc::new(infer.await?);
    catalog.schemas().put(name, files, Arc::clone(&inferred));
    Ok(inferred)
}

/// Files that disagree about a column's type are the usual reason.
fn parquet_fault(error: &WarehouseError) -> WarehouseError {
    let mut fault = error.clone();
    if fault.kind == WarehouseErrorKind::Sql {
        fault.kind = WarehouseErrorKind::Configuration;
        fault.hint = fault.hint.or(Some("all files of a folder need columns of the same types".into()));
    }
    fault
}

/// A table's files and its partition columns.
async fn files(
    catalog: &Catalog,
    name: &str,
    entry: &Entry,
    format: Format,
) -> Result<(Vec<ObjectMeta>, Vec<(String, DataType)>), WarehouseError> {
    let folder = match entry {
        Entry::File(meta, _) => return Ok((vec![meta.clone()], Vec::new())),
        Entry::Folder(folder) => folder,
    };
    let found = folder_files(catalog.store().as_ref(), folder).await?;
    if let Some((stranger, other)) = found.iter().find(|(_, f)| *f != format) {
        let fault =
            format!("table `{name}` holds files of different formats: {} is {}", stranger.location, other.kind());
        return Err(WarehouseError::configuration(fault)
            .with_hint("keep files of one format (and one compression) in a folder"));
    }
    let files: Vec<ObjectMeta> = found.into_iter().map(|(meta, _)| meta).collect();
    let partitions = partitions(name, folder, &files)?;
    Ok((files, partitions))
}

/// Hive partitions: `key=value` folders, the same keys for every file. Values that are all whole numbers or all dates
/// make such a column, others text.
fn partitions(name: &str, folder: &Path, files: &[ObjectMeta]) -> Result<Vec<(String, DataType)>, WarehouseError> {
    let mut columns: Vec<(String, bool, bool)> = Vec::new();
    for (index, file) in files.iter().enumerate() {
        let parts: Vec<_> = file.location.prefix_match(folder).into_iter().flatten().collect();
        let folders = parts.split_last().map_or(&[][..], |(_, folders)| folders);
        let pairs: Vec<(&str, &str)> = folders.iter().map_while(|part| part.as_ref().split_once('=')).collect();
        if index == 0 {
            columns = pairs.iter().map(|(key, _)| ((*key).to_owned(), true, true)).collect();
        }
        if !pairs.iter().map(|(key, _)| *key).eq(columns.iter().map(|(key, _, _)| key.as_str())) {
            let fault =
                format!("table `{name}`: {} has other partition folders than the files before it", file.location);
            return Err(WarehouseError::configuration(fault)
                .with_hint("every file of a partitioned table lies in folders key=value with the same keys"));
        }
        for ((_, int, date), (_, value)) in columns.iter_mut().zip(&pairs) {
            *int &= value.parse::<i64>().is_ok();
            *date &= value.len() == 10 && Date32Type::parse(value).is_some();
        }
    }
    let typed = columns.into_iter().map(|(key, int, date)| match (int, date) {
        (true, _) => (key, DataType::Int64),
        (_, true) => (key, DataType::Date32),
        _ => (key, DataType::Utf8),
    });
    Ok(typed.collect())
}

/// What DataFusion lists: the folder where partitions are read off the paths below it, else exactly these files.
fn urls(
    entry: &Entry,
    files: &[ObjectMeta],
    partitioned: bool,
) -> Result<(Vec<ListingTableUrl>, String), WarehouseError> {
    let url = |path: &Path, end: &str| {
        let mut url = root_url();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.clear().extend(path.parts().map(|part| part.as_ref().to_owned()));
        }
        url.set_path(&format!("{}{end}", url.path()));
        ListingTableUrl::try_new(url, None).map_err(|e| errors::from_datafusion(&e))
    };
    let Entry::Folder(folder) = entry else { return Ok((urls_of(files, url)?, String::new())) };
    if !partitioned {
        return Ok((urls_of(files, url)?, String::new()));
    }
    let suffix = |file: &ObjectMeta| {
        let name = file.location.filename().unwrap_or_default();
        let stem = Format::of(name).map_or(0, |(stem, _)| stem.len());
        name.get(stem..).unwrap_or_default().to_owned()
    };
    let suffixes: BTreeSet<String> = files.iter().map(suffix).collect();
    match Vec::from_iter(suffixes).as_slice() {
        [one] => Ok((vec![url(folder, "/")?], one.clone())),
        several => Err(WarehouseError::configuration(format!("its files end in {}", several.join(" and in ")))
            .with_hint("give the files of a partitioned table one ending")),
    }
}

fn urls_of(
    files: &[ObjectMeta],
    url: impl Fn(&Path, &str) -> Result<ListingTableUrl, WarehouseError>,
) -> Result<Vec<ListingTableUrl>, WarehouseError> {
    files.iter().map(|file| url(&file.location, "")).collect()
}

async fn open_delta(catalog: &Catalog, folder: &Path) -> Result<Arc<dyn TableProvider>, WarehouseError> {
    let mut url = root_url();
    if let Ok(mut segments) = url.path_segments_mut() {
        segments.clear().extend(folder.parts().map(|part| part.as_ref().to_owned()));
    }
    let load = async {
        let table = DeltaTableBuilder::from_url(url.clone())?.with_storage_backend(catalog.store(), url).load().await?;
        Ok::<_, deltalake::DeltaTableError>(table)
    };
    let table = load.await.map_err(|e| errors::from_delta(&e))?;
    table.table_provider().await.map_err(|e| errors::from_datafusion(&e))
}
