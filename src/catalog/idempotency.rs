//! Requests that carried an `Idempotency-Key`, and their answers.

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::Row;

use super::{Catalog, CatalogError};

/// A request that got no answer after this long died with its process.
const ABANDONED: TimeDelta = TimeDelta::minutes(10);

/// What a key stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// Nobody used it: go on.
    Mine,
    /// It was used for another request.
    Another,
    /// The first request has no answer yet.
    UnderWay,
    /// The first request will have no answer: its process ended. Whether it was done is not known.
    Lost,
    /// The first request's answer; none when it held a secret.
    Answered { status: u16, answer: Option<Answer> },
}

/// What is kept of an answer, beside its status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub body: String,
    pub etag: Option<String>,
}

impl Catalog {
    /// Takes a caller's key for a request, or says what it stands for already.
    pub async fn claim_request(
        &self,
        actor: &str,
        key: &str,
        request: &str,
        now: DateTime<Utc>,
    ) -> Result<Claim, CatalogError> {
        let mut tx = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        let done = sqlx::query(
            "INSERT INTO idempotency (actor, key, request, created_at) VALUES (?1, ?2, ?3, ?4) ON CONFLICT (actor, key) DO NOTHING",
        )
        .bind(actor)
        .bind(key)
        .bind(request)
        .bind(now.timestamp_micros())
        .execute(&mut *tx)
        .await?;
        if done.rows_affected() == 1 {
            tx.commit().await?;
            return Ok(Claim::Mine);
        }
        let row = sqlx::query(
            "SELECT request, status, answer, etag, created_at FROM idempotency WHERE actor = ?1 AND key = ?2",
        )
        .bind(actor)
        .bind(key)
        .fetch_one(&mut *tx)
        .await?;
        if row.try_get::<&str, _>("request")? != request {
            return Ok(Claim::Another);
        }
        Ok(match row.try_get::<Option<i64>, _>("status")? {
            None if super::time(row.try_get("created_at")?) < now - ABANDONED => Claim::Lost,
            None => Claim::UnderWay,
            Some(status) => {
                let (body, etag) = (row.try_get::<Option<String>, _>("answer")?, row.try_get("etag")?);
                let answer = body.map(|body| Answer { body, etag });
                Claim::Answered { status: u16::try_from(status).unwrap_or(200), answer }
            }
        })
    }

    /// Keeps the answer.
    pub async fn answer_request(
        &self,
        actor: &str,
        key: &str,
        status: u16,
        answer: Option<&Answer>,
    ) -> Result<(), CatalogError> {
        sqlx::query("UPDATE idempotency SET status = ?3, answer = ?4, etag = ?5 WHERE actor = ?1 AND key = ?2")
            .bind(actor)
            .bind(key)
            .bind(i64::from(status))
            .bind(answer.map(|answer| &answer.body))
            .bind(answer.and_then(|answer| answer.etag.as_ref()))
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Gives the key back: the request failed, and may be tried again.
    pub async fn release_request(&self, actor: &str, key: &str) -> Result<(), CatalogError> {
        sqlx::query("DELETE FROM idempotency WHERE actor = ?1 AND key = ?2")
            .bind(actor)
            .bind(key)
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Forgets answers older than `before`. Returns how many.
    pub async fn trim_requests(&self, before: DateTime<Utc>) -> Result<u64, CatalogError> {
        let done = sqlx::query("DELETE FROM idempotency WHERE created_at < ?1")
            .bind(before.timestamp_micros())
            .execute(&self.pool)
            .await?;
        Ok(done.rows_affected())
    }
}
