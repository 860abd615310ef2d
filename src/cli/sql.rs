//! `sql`

use std::io::Write;

use arrow::csv::WriterBuilder as CsvWriter;
use arrow::json::writer::{JsonArray, WriterBuilder as JsonWriter};
use arrow::util::pretty::pretty_format_batches;
use futures::TryStreamExt;

use super::{CliError, Context, Outcome, Output, output};
use crate::catalog::AsOf;
use crate::profiles::ProfilesError;
use crate::values::csv::flattened;

/// Query profiles, memberships, identities, changes and record stores (read-only SQL)
#[derive(Debug, clap::Args)]
#[command(after_help = "Tables: profiles, memberships, identities, changes, records_<model>.

Examples:
  cloud-connect sql \"SELECT email, cc_holiday_buyers_brand FROM profiles WHERE cc_holiday_buyers_membership\"
  cloud-connect sql \"SELECT model, count(*) FROM memberships GROUP BY model\"
  cloud-connect sql \"SELECT * FROM changes ORDER BY at DESC LIMIT 10\" --output csv
  cloud-connect sql \"SELECT count(*) FROM profiles\" --as-of 2026-11-01")]
pub struct Sql {
    /// The query
    query: String,
    /// As a run (its id) left things, or as of a time (RFC 3339, or a date)
    #[arg(long, value_name = "RUN|TIME")]
    as_of: Option<AsOf>,
}

/// Rows of a table on a terminal; more belong into JSON or CSV, which stream.
const MAX_TABLE_ROWS: usize = 1000;

impl Sql {
    pub async fn run(&self, context: &Context) -> Result<Outcome, CliError> {
        let engine = context.engine().await?;
        let reader = super::profile::reader(&engine, self.as_of.as_ref()).await?;
        let stream = reader.sql(&self.query).await?;
        write_batches(context.global.output, stream).await?;
        Ok(Outcome::Fine)
    }
}

/// Prints a stream of batches.
pub async fn write_batches(
    form: Output,
    mut stream: datafusion::execution::SendableRecordBatchStream,
) -> Result<(), CliError> {
    let schema = stream.schema();
    let failed = |e: datafusion::error::DataFusionError| CliError::from(ProfilesError::from(e));
    let broken = |e: arrow::error::ArrowError| match e {
        arrow::error::ArrowError::IoError(_, e) => CliError::Io(e),
        // the CSV writer keeps only the text of what the system said
        arrow::error::ArrowError::CsvError(text) if text.contains("Broken pipe") => {
            CliError::Io(std::io::ErrorKind::BrokenPipe.into())
        }
        other => CliError::Other(other.to_string()),
    };
    let stdout = std::io::BufWriter::new(std::io::stdout());
    match form {
        Output::Json => {
            let mut writer = JsonWriter::new().with_explicit_nulls(true).build::<_, JsonArray>(stdout);
            while let Some(batch) = stream.try_next().await.map_err(failed)? {
                writer.write(&batch).map_err(broken)?;
            }
            writer.finish().map_err(broken)?;
            let mut stdout = writer.into_inner();
            writeln!(stdout)?;
            stdout.flush()?;
        }
        Output::Csv => {
            let mut stdout = stdout;
            let mut header = true;
            while let Some(batch) = stream.try_next().await.map_err(failed)? {
                let batch = flattened(&batch).map_err(broken)?;
                CsvWriter::new().with_header(header).build(&mut stdout).write(&batch).map_err(broken)?;
                header = false;
            }
            if header {
                let empty = flattened(&arrow::array::RecordBatch::new_empty(schema)).map_err(broken)?;
                CsvWriter::new().with_header(true).build(&mut stdout).write(&empty).map_err(broken)?;
            }
            stdout.flush()?;
        }
        Output::Table => {
            let (mut rows, mut batches) = (0, Vec::new());
            let mut cut = false;
            while let Some(batch) = stream.try_next().await.map_err(failed)? {
                let keep = batch.num_rows().min(MAX_TABLE_ROWS - rows);
                cut = keep < batch.num_rows();
                rows += keep;
                batches.push(batch.slice(0, keep));
                if cut || rows == MAX_TABLE_ROWS {
                    cut = cut || stream.try_next().await.map_err(failed)?.is_some_and(|more| more.num_rows() > 0);
                    break;
                }
            }
            if batches.is_empty() {
                batches.push(arrow::array::RecordBatch::new_empty(schema));
            }
            output::line(pretty_format_batches(&batches).map_err(broken)?.to_string())?;
            let more = if cut { " shown, there are more: use --output json or csv" } else { "" };
            output::line(format!("{} rows{more}", output::number(rows as u64)))?;
        }
    }
    Ok(())
}
