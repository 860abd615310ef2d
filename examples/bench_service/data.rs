//! The project that is measured: a table of people as Parquet, and four models over it.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Decimal128Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use parquet::arrow::ArrowWriter;
use xxhash_rust::xxh3::xxh3_64;

use super::Fallible;

pub const MODELS: [&str; 4] = ["model_0", "model_1", "model_2", "model_3"];

const PROJECT: &str = "\
profile:
  identities:
    - user_id
    - field: email
      normalize: [trim, lowercase]
connections:
  files: { type: local, path: data }
";
const BATCH: u64 = 65_536;
/// Microseconds.
const BEGIN: i64 = 1_750_000_000_000_000;

/// Writes the project, and beside its table the one that comes next (`next.parquet`).
pub fn make(project: &Path, profiles: u64) -> Fallible<()> {
    for folder in ["data", "models"] {
        std::fs::create_dir_all(project.join(folder))?;
    }
    std::fs::write(project.join("cloud-connect.yml"), PROJECT)?;
    for (number, slug) in MODELS.iter().enumerate() {
        let key = if number % 2 == 0 { "email" } else { "user_id" };
        // the first founds all profiles, each with both identities
        let further = if number == 0 { "identities: [user_id]\n" } else { "create_profiles: false\n" };
        let columns = "brand, value, last_seen, orders, active";
        let yml = format!(
            "name: Model {number}\nconnection: files\nprimary_key: {key}\nexternal_key: {key}\n\
             activated_fields: [{columns}]\nguard: {{ max_removed: 1000000000 }}\n{further}"
        );
        let of = if number == 0 { String::new() } else { format!(" WHERE (n + {number}) % 10 <> 0") };
        let sql = format!("SELECT user_id, email, {columns} FROM people{of}");
        std::fs::write(project.join(format!("models/{slug}.yml")), yml)?;
        std::fs::write(project.join(format!("models/{slug}.sql")), sql)?;
    }
    people(&project.join("data/people.parquet"), profiles, 0)?;
    people(&project.join("next.parquet"), profiles, 1)
}

/// The value of an identity field.
pub fn identity(field: &str, profile: u64) -> String {
    if field == "email" { format!("p{profile}@example.com") } else { format!("u-{profile:010}") }
}

/// The table; between two editions, one row in fifty differs.
fn people(file: &Path, profiles: u64, edition: u64) -> Fallible<()> {
    let mut writer: Option<ArrowWriter<File>> = None;
    for from in (0..profiles).step_by(BATCH as usize) {
        let batch = batch(from..(from + BATCH).min(profiles), edition)?;
        let writer = match &mut writer {
            Some(writer) => writer,
            None => writer.insert(ArrowWriter::try_new(File::create(file)?, batch.schema(), None)?),
        };
        writer.write(&batch)?;
    }
    if let Some(writer) = writer {
        writer.close()?;
    }
    Ok(())
}

fn batch(rows: std::ops::Range<u64>, edition: u64) -> Fallible<RecordBatch> {
    const BRANDS: [&str; 5] = ["Gazelle", "Cube", "Riese & Müller", "Tern", "Urban Arrow"];
    let each = || rows.clone().map(|n| (n, xxh3_64(&n.to_be_bytes())));
    let text = |of: &dyn Fn(u64, u64) -> String| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(each().map(|(n, random)| of(n, random))))
    };
    let amount =
        |random: u64| i128::from(random % 1_000_000) + i128::from(if random.is_multiple_of(50) { edition } else { 0 });
    let amounts = Decimal128Array::from_iter_values(each().map(|(_, random)| amount(random)));
    let seen = each().map(|(_, random)| BEGIN + (random % 10_000_000) as i64 * 1_000_000);
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("n", Arc::new(Int64Array::from_iter_values(rows.clone().map(|n| n as i64)))),
        ("user_id", text(&|n, _| identity("user_id", n))),
        ("email", text(&|n, _| identity("email", n))),
        ("brand", text(&|_, random| BRANDS[(random % 5) as usize].to_string())),
        ("value", Arc::new(amounts.with_precision_and_scale(12, 2)?)),
        ("last_seen", Arc::new(TimestampMicrosecondArray::from_iter_values(seen).with_timezone("UTC"))),
        ("orders", Arc::new(Int64Array::from_iter_values(each().map(|(_, random)| (random % 50) as i64)))),
        ("active", Arc::new(BooleanArray::from_iter(each().map(|(_, random)| Some(random.is_multiple_of(3)))))),
    ];
    Ok(RecordBatch::try_from_iter(columns)?)
}
