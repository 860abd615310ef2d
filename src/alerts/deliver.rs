//! From what is owed to what arrived: one attempt after another, farther and farther apart, until it works or is given up.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use chrono::{DateTime, TimeDelta, Utc};
use futures::StreamExt;

use super::send::{self, SendError};
use crate::catalog::alerts::Delivery;
use crate::catalog::{Catalog, CatalogError};
use crate::clock::Clock;
use crate::config::Project;
use crate::events::{Event, Subject, SubjectKind};
use crate::outgoing::Outgoing;

/// Attempts of one delivery, over about four hours.
pub const MAX_ATTEMPTS: u32 = 10;
const FIRST_WAIT: Duration = Duration::from_secs(10);
const LONGEST_WAIT: Duration = Duration::from_secs(3600);
/// Deliveries taken up at once, and attempts under way at once.
const BATCH: u32 = 32;
const AT_ONCE: usize = 4;

/// Makes every attempt that is due.
pub async fn deliver(
    catalog: &Catalog,
    project: &Project,
    outgoing: &Outgoing,
    clock: &dyn Clock,
) -> Result<(), CatalogError> {
    loop {
        let due = catalog.due_deliveries(clock.now(), BATCH).await?;
        if due.is_empty() {
            return Ok(());
        }
        let mut attempts = futures::stream::iter(due)
            .map(|delivery| attempt(catalog, project, outgoing, clock, delivery))
            .buffer_unordered(AT_ONCE);
        while let Some(attempted) = attempts.next().await {
            attempted?;
        }
    }
}

async fn attempt(
    catalog: &Catalog,
    project: &Project,
    outgoing: &Outgoing,
    clock: &dyn Clock,
    delivery: Delivery,
) -> Result<(), CatalogError> {
    let sent = match project.alerts.channels.get(&delivery.channel) {
        Some(channel) => send::send(channel, &delivery.notice, project, outgoing, clock.now()).await,
        None => Err(SendError::for_good("the channel is not defined any more")),
    };
    let now = clock.now();
    let error = match sent {
        Ok(()) => {
            count("delivered");
            tracing::info!(channel = delivery.channel, delivery = delivery.id, "an alert was delivered");
            return catalog.delivered(&delivery.id, now).await;
        }
        Err(error) => error,
    };
    let again = if error.is_for_good() { None } else { again_at(now, delivery.attempts, error.retry_after) };
    catalog.delivery_failed(&delivery.id, &error.to_string(), again, now).await?;
    if again.is_some() {
        count("failed");
        tracing::warn!(channel = delivery.channel, delivery = delivery.id, %error, "an alert could not be delivered yet");
        return Ok(());
    }
    count("given_up");
    tracing::error!(channel = delivery.channel, delivery = delivery.id, %error, "an alert was given up");
    let subject = Subject::new(SubjectKind::Alert, &delivery.channel);
    let message = format!("`{}` could not be delivered and was given up: {error}", delivery.notice.title());
    let event = Event::new(now, subject, "delivery_given_up", message)
        .with(serde_json::json!({ "delivery_id": delivery.id, "attempts": delivery.attempts + 1 }));
    catalog.record_event(&event).await?;
    Ok(())
}

fn count(outcome: &'static str) {
    metrics::counter!(crate::telemetry::names::ALERT_DELIVERIES, "outcome" => outcome).increment(1);
}

/// When to try again after `attempts` earlier failures and this one.
fn again_at(now: DateTime<Utc>, attempts: u32, asked_for: Option<Duration>) -> Option<DateTime<Utc>> {
    let mut waits = ExponentialBuilder::default()
        .with_min_delay(FIRST_WAIT)
        .with_factor(3.0)
        .with_max_delay(LONGEST_WAIT)
        .with_max_times(MAX_ATTEMPTS as usize - 1)
        .build();
    let wait = waits.nth(attempts as usize)?.max(asked_for.unwrap_or_default().min(LONGEST_WAIT));
    now.checked_add_signed(TimeDelta::from_std(wait).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_grow_apart_and_end() {
        let now = DateTime::UNIX_EPOCH;
        let waits: Vec<i64> = (0..).map_while(|n| again_at(now, n, None)).map(|at| (at - now).num_seconds()).collect();
        assert_eq!(waits, [10, 30, 90, 270, 810, 2430, 3600, 3600, 3600]);
    }

    #[test]
    fn a_receiver_that_asks_for_patience_gets_it_up_to_an_hour() {
        let now = DateTime::UNIX_EPOCH;
        let wait = |asked| again_at(now, 0, Some(Duration::from_secs(asked))).map(|at| (at - now).num_seconds());
        assert_eq!(wait(1), Some(10));
        assert_eq!(wait(120), Some(120));
        assert_eq!(wait(1_000_000), Some(3600));
    }
}
