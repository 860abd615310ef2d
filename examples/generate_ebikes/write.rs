//! Each table in the format that such data comes in.

use std::error::Error;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Decimal128Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use chrono::{DateTime, Utc};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

use crate::shop::Shop;

pub fn all(shop: &Shop, out: &Path) -> Result<(), Box<dyn Error>> {
    parquet(&out.join("customers.parquet"), &customers(shop)?)?;
    parquet(&out.join("products.parquet"), &products(shop)?)?;
    parquet(&out.join("sessions.parquet"), &sessions(shop)?)?;
    accounts(shop, &out.join("accounts.ndjson"))?;
    purchases(shop, &out.join("purchases.csv"))
}

fn parquet(path: &Path, batch: &RecordBatch) -> Result<(), Box<dyn Error>> {
    let properties = WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::try_new(9)?)).build();
    let mut writer = ArrowWriter::try_new(File::create(path)?, batch.schema(), Some(properties))?;
    writer.write(batch)?;
    writer.close()?;
    Ok(())
}

fn ints(values: impl Iterator<Item = i64>) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(values))
}

fn strings<'a>(values: impl Iterator<Item = &'a str>) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(values))
}

fn times(values: impl Iterator<Item = Option<DateTime<Utc>>>) -> ArrayRef {
    let micros = values.map(|at| at.map(|at| at.timestamp_micros()));
    Arc::new(TimestampMicrosecondArray::from_iter(micros).with_timezone("UTC"))
}

fn customers(shop: &Shop) -> Result<RecordBatch, Box<dyn Error>> {
    let all = || shop.customers.iter();
    Ok(RecordBatch::try_from_iter_with_nullable([
        ("customer_id", ints(all().map(|c| c.customer_id)), false),
        ("email", Arc::new(StringArray::from_iter(all().map(|c| c.email.as_deref()))) as ArrayRef, true),
        ("first_name", strings(all().map(|c| c.first_name)), false),
        ("last_name", strings(all().map(|c| c.last_name)), false),
        ("country", strings(all().map(|c| c.country)), false),
        ("city", strings(all().map(|c| c.city)), false),
        ("account_id", Arc::new(Int64Array::from_iter(all().map(|c| c.account_id))), true),
        ("marketing_opt_in", Arc::new(all().map(|c| Some(c.marketing_opt_in)).collect::<BooleanArray>()), false),
        ("created_at", times(all().map(|c| Some(c.created_at))), false),
        ("last_login_at", times(all().map(|c| c.last_login_at)), true),
    ])?)
}

fn products(shop: &Shop) -> Result<RecordBatch, Box<dyn Error>> {
    let all = || shop.products.iter();
    let prices = Decimal128Array::from_iter_values(all().map(|p| i128::from(p.price_cents)));
    Ok(RecordBatch::try_from_iter_with_nullable([
        ("product_id", ints(all().map(|p| p.product_id)), false),
        ("brand", strings(all().map(|p| p.brand)), false),
        ("model", strings(all().map(|p| p.model.as_str())), false),
        ("category", strings(all().map(|p| p.category)), false),
        ("price", Arc::new(prices.with_precision_and_scale(10, 2)?) as ArrayRef, false),
    ])?)
}

fn sessions(shop: &Shop) -> Result<RecordBatch, Box<dyn Error>> {
    let all = || shop.sessions.iter();
    Ok(RecordBatch::try_from_iter_with_nullable([
        ("session_id", ints(all().map(|s| s.session_id)), false),
        ("customer_id", ints(all().map(|s| s.customer_id)), false),
        ("started_at", times(all().map(|s| Some(s.started_at))), false),
        ("device", strings(all().map(|s| s.device)), false),
        ("pages", ints(all().map(|s| s.pages)), false),
    ])?)
}

fn accounts(shop: &Shop, path: &Path) -> Result<(), Box<dyn Error>> {
    let mut out = BufWriter::new(File::create(path)?);
    for account in &shop.accounts {
        writeln!(out, "{}", serde_json::to_string(account)?)?;
    }
    Ok(out.flush()?)
}

/// No value needs quotes.
fn purchases(shop: &Shop, path: &Path) -> Result<(), Box<dyn Error>> {
    let mut out = BufWriter::new(File::create(path)?);
    writeln!(out, "purchase_id,customer_id,product_id,quantity,amount,purchased_at,channel")?;
    for p in &shop.purchases {
        writeln!(
            out,
            "{},{},{},{},{},{},{}",
            p.purchase_id, p.customer_id, p.product_id, p.quantity, p.amount, p.purchased_at, p.channel
        )?;
    }
    Ok(out.flush()?)
}
