//! The sample project's models, run over its data.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use arrow::array::{Array, RecordBatch};
use arrow::compute::concat_batches;
use arrow::util::display::array_value_to_string;
use futures::TryStreamExt;

use super::*;

/// A result: rows of column -> text (none for null).
async fn model(slug: &str) -> Vec<BTreeMap<String, Option<String>>> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let sql = std::fs::read_to_string(root.join(format!("models/{slug}.sql"))).unwrap();
    let shop = LocalWarehouse::new(Location::Directory(root.join("examples/ebikes")), DEFAULT_MEMORY_LIMIT);
    let described = shop.describe(&sql).await.unwrap();
    let query = shop.query(&sql, &QueryOptions::default()).await.unwrap();
    let batches: Vec<RecordBatch> = query.stream.try_collect().await.unwrap();
    let all = concat_batches(&described, &batches).unwrap();
    let mut rows: Vec<BTreeMap<String, Option<String>>> = (0..all.num_rows())
        .map(|row| {
            let columns = described.fields().iter().zip(all.columns());
            columns
                .map(|(field, column)| {
                    assert!(ValueType::of(field).is_some(), "{slug}.{} cannot be held", field.name());
                    let value = (!column.is_null(row)).then(|| array_value_to_string(column, row).unwrap());
                    (field.name().clone(), value)
                })
                .collect()
        })
        .collect();
    rows.sort();
    rows
}

fn value<'a>(row: &'a BTreeMap<String, Option<String>>, column: &str) -> Option<&'a str> {
    row[column].as_deref()
}

/// Rows by normalized e-mail; null e-mails are left out.
fn by_email(rows: &[BTreeMap<String, Option<String>>]) -> HashMap<String, usize> {
    let mut counts = HashMap::new();
    for email in rows.iter().filter_map(|row| value(row, "email")) {
        *counts.entry(email.trim().to_lowercase()).or_default() += 1;
    }
    counts
}

#[tokio::test]
async fn every_model_of_the_sample_returns_rows_and_the_same_ones_again() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("models");
    let mut slugs = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "sql") {
            assert!(path.with_extension("yml").exists(), "{} has no yml", path.display());
            slugs.push(path.file_stem().unwrap().to_str().unwrap().to_owned());
        }
    }
    slugs.sort();
    // the model that ties user_id to email runs before those that find people by email
    assert_eq!(slugs[0], "customer_lifetime_value");
    assert!(slugs.len() >= 5);
    for slug in slugs {
        let rows = model(&slug).await;
        assert!((20..=3000).contains(&rows.len()), "{slug}: {} rows", rows.len());
        assert_eq!(rows, model(&slug).await, "{slug}");
    }
}

#[tokio::test]
async fn the_samples_story_holds() {
    let everyone = model("customer_lifetime_value").await;
    assert_eq!(everyone.len(), 3000);
    let buyers = everyone.iter().filter(|row| value(row, "orders") != Some("0")).count();
    let returning = everyone.iter().filter(|row| value(row, "orders").unwrap().parse::<u32>().unwrap() > 1).count();
    assert!(buyers > 1200 && returning > 500, "{buyers} buyers, {returning} of them more than once");
    let spent = |row: &BTreeMap<String, Option<String>>| value(row, "lifetime_value").unwrap().parse::<f64>().unwrap();
    let mut spending: Vec<f64> = everyone.iter().map(spent).collect();
    spending.sort_by(|a, b| b.total_cmp(a));
    assert!(spending[..300].iter().sum::<f64>() > spending.iter().sum::<f64>() / 2.0, "a tenth spends the half");

    let holiday = model("holiday_buyers").await;
    assert!(holiday.iter().all(|row| value(row, "brand").is_some() && value(row, "lifetime_value").is_some()));
    let dormant = model("dormant_customers").await;
    let days = dormant.iter().map(|row| value(row, "days_since_login").unwrap().parse::<i64>().unwrap());
    assert!(days.min().unwrap() >= 30);
    assert_eq!(model("vip_service").await.len(), 100);
}

#[tokio::test]
async fn the_samples_dirty_rows_give_quarantine_something_to_show() {
    let everyone = model("customer_lifetime_value").await;
    assert_eq!(everyone.iter().filter(|row| value(row, "email").is_none()).count(), 7);
    let dormant = model("dormant_customers").await;
    let twice: Vec<_> = by_email(&dormant).into_iter().filter(|(_, count)| *count > 1).collect();
    assert_eq!(twice, [("robin.winter@example.com".to_owned(), 2)]);
    let vips = model("vip_service").await;
    let bad_amounts = vips.iter().filter(|row| value(row, "last_amount").unwrap().parse::<f64>().is_err());
    assert_eq!(bad_amounts.count(), 1);
    let bad_times = vips
        .iter()
        .filter(|row| chrono::DateTime::parse_from_rfc3339(value(row, "last_purchase_at").unwrap()).is_err());
    assert_eq!(bad_times.count(), 1);
    for (slug, rows) in [("vip_service", vips), ("holiday_buyers", model("holiday_buyers").await)] {
        assert!(by_email(&rows).values().all(|count| *count == 1), "{slug} has one row a person");
    }
}
