//! The profiles of an upload's rows, found or founded.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use uuid::Uuid;

use super::stage::PARTS;
use crate::diff::compare::BuildKeyHasher;
use crate::diff::spill::Spill;
use crate::identity::founded_profile;
use crate::identity::resolve::{MAX_ASKED, Owners};
use crate::store::data_file::RollingWriter;
use crate::store::schema::join_hash;
use crate::sync::SyncError;
use crate::sync::additions::{identities_writer, identity_rows};
use crate::sync::links::Links;
use crate::sync::publishing::Publishing;

/// Finds or founds the profile of each row, and notes what else identifies it.
pub(super) async fn find_or_found(cx: &Arc<Publishing>, links: &Links, rows: &Spill) -> Result<(), SyncError> {
    let width = cx.identity_fields.len();
    for (number, field) in cx.identity_fields.iter().enumerate() {
        let mut staged = Vec::new();
        cx.add(|totals| staged.clone_from(&totals.identities));
        let resolver = cx.resolver.with_staged(&staged);
        let mut writer = identities_writer(cx, &field.field);
        for part in number * PARTS..(number + 1) * PARTS {
            // hashes alone first: asking for all at once passes the table once
            let Some(reader) = rows.read(part, Some(vec![width + 1, width + 2]))? else { continue };
            let mut asked: HashMap<u128, (), BuildKeyHasher> = HashMap::default();
            for batch in reader {
                asked.extend(hashes(&batch?, 0).map(|hash| (hash, ())));
            }
            let asked: Vec<u128> = asked.into_keys().collect();
            let mut owners = Owners::default();
            for some in asked.chunks(MAX_ASKED) {
                owners.extend(resolver.owners(&field.field, some.iter().copied()).await?);
            }
            let (matched, created) = (owners.len() as u64, (asked.len() - owners.len()) as u64);
            let Some(reader) = rows.read(part, None)? else { continue };
            for batch in reader {
                found_batch(cx, links, &field.field, &batch?, &mut owners, &mut writer).await?;
            }
            rows.drop_part(part);
            cx.add(|totals| {
                totals.matched += matched;
                totals.created += created;
            });
        }
        let files = writer.finish().await?;
        cx.add(|totals| totals.identities.extend(files));
        // the next field's rows may be known by what this one's rows brought
        links.publish().await?;
    }
    Ok(())
}

async fn found_batch(
    cx: &Arc<Publishing>,
    links: &Links,
    field: &str,
    batch: &RecordBatch,
    owners: &mut Owners,
    writer: &mut RollingWriter,
) -> Result<(), SyncError> {
    let width = cx.identity_fields.len();
    let texts = batch.column(width).as_string::<i32>();
    let mut founded: Vec<(&str, Uuid, u128)> = Vec::new();
    let mut profiles: Vec<Option<Uuid>> = Vec::with_capacity(batch.num_rows());
    for (row, hash) in hashes(batch, width + 1).enumerate() {
        let profile = owners.entry(hash).or_insert_with(|| {
            let profile = founded_profile(field, texts.value(row));
            founded.push((texts.value(row), profile, hash));
            profile
        });
        profiles.push(Some(*profile));
    }
    if !founded.is_empty() {
        writer.write(&identity_rows(cx, &founded, true)?).await?;
    }
    let fields: Vec<usize> = (0..width).collect();
    links.claim(&batch.project(&fields)?, &profiles)
}

/// The hashes in two columns of the batch.
fn hashes(batch: &RecordBatch, first: usize) -> impl Iterator<Item = u128> + '_ {
    let column = |i: usize| batch.column(i).as_primitive::<Int64Type>().values().iter();
    column(first).zip(column(first + 1)).map(|(hi, lo)| join_hash(*hi, *lo))
}
