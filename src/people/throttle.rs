//! Slows down those who guess passwords: by account, and by where they come from.
//!
//! After some free failures each further one doubles the wait, to a quarter of an hour. An attempt counts as a failure
//! while it is under way, so that a thousand at once are no way around. Kept in memory: a restart forgets it, which
//! who guesses cannot bring about.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use chrono::{DateTime, TimeDelta, Utc};

use super::secret::Digest;

const LONGEST_WAIT: TimeDelta = TimeDelta::minutes(15);
/// After so long without a failure everything is forgotten.
const MEMORY: TimeDelta = TimeDelta::hours(1);
/// Who is remembered at most; those whose wait is over are forgotten first.
const CAPACITY: usize = 50_000;

/// Who tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Key {
    /// The SHA-256 of what was given as an e-mail (which may be a password, typed into the wrong field).
    Account([u8; 32]),
    /// An address; of IPv6 the /64, which is what one customer gets.
    Address(IpAddr),
}

impl Key {
    pub fn account(email: &str) -> Self {
        Self::Account(*Digest::of(email).bytes())
    }

    pub fn address(address: IpAddr) -> Self {
        Self::Address(match address.to_canonical() {
            IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() >> 64 << 64).into()),
            v4 => v4,
        })
    }

    /// Failures that cost nothing: people mistype, and an office shares an address.
    fn free_failures(self) -> u32 {
        match self {
            Self::Account(_) => 5,
            Self::Address(_) => 20,
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Failures {
    count: u32,
    last: DateTime<Utc>,
}

impl Failures {
    fn wait(self, key: Key) -> TimeDelta {
        match self.count.checked_sub(key.free_failures()) {
            None => TimeDelta::zero(),
            Some(beyond) => TimeDelta::seconds(1 << beyond.min(10)).min(LONGEST_WAIT),
        }
    }
}

#[derive(Debug, Default)]
pub struct Throttle {
    failures: Mutex<HashMap<Key, Failures>>,
}

impl Throttle {
    /// An attempt, which counts as a failure until it succeeds. Refused: how long to wait.
    pub fn attempt(&self, keys: &[Key], now: DateTime<Utc>) -> Result<(), TimeDelta> {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let left = |key: &Key| failures.get(key).map(|f| f.last + f.wait(*key) - now).unwrap_or_default();
        let wait = keys.iter().map(left).max().unwrap_or_default();
        if wait > TimeDelta::zero() {
            return Err(wait);
        }
        if failures.len() + keys.len() > CAPACITY {
            failures.retain(|key, f| f.last + f.wait(*key) > now);
        }
        for key in keys {
            let known = failures.entry(*key).or_insert(Failures { count: 0, last: now });
            if known.last + MEMORY <= now {
                known.count = 0;
            }
            *known = Failures { count: known.count.saturating_add(1), last: now };
        }
        Ok(())
    }

    /// The attempt was no failure. An account starts afresh; an address only takes the one back, for somebody with an
    /// account of their own may guess at others'.
    pub fn success(&self, keys: &[Key]) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        for key in keys {
            match (key, failures.get_mut(key)) {
                (Key::Address(_), Some(known)) if known.count > 1 => known.count -= 1,
                _ => drop(failures.remove(key)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn now() -> DateTime<Utc> {
        "2026-11-22T10:00:00Z".parse().unwrap()
    }

    #[test]
    fn failures_beyond_the_free_ones_double_the_wait_up_to_a_quarter_of_an_hour() {
        let throttle = Throttle::default();
        let keys = [Key::account("ada@example.com")];
        let mut now = now();
        for _ in 0..5 {
            throttle.attempt(&keys, now).unwrap();
        }
        let mut waits = Vec::new();
        for _ in 0..12 {
            let wait = throttle.attempt(&keys, now).unwrap_err();
            waits.push(wait.num_seconds());
            now += wait;
            throttle.attempt(&keys, now).unwrap();
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900]);
        throttle.attempt(&[Key::account("bob@example.com")], now).unwrap();
    }

    #[test]
    fn attempts_at_once_count_before_they_end() {
        let throttle = Throttle::default();
        let keys = [Key::account("ada@example.com")];
        assert_eq!((0..1000).filter(|_| throttle.attempt(&keys, now()).is_ok()).count(), 5);
    }

    #[test]
    fn an_account_of_ones_own_does_not_free_an_address() {
        let throttle = Throttle::default();
        let address = Key::address("192.0.2.7".parse().unwrap());
        let own = [Key::account("mallory@example.com"), address];
        let mut guesses = 0;
        for nth in 0..1000 {
            if throttle.attempt(&[Key::account(&format!("victim{nth}@example.com")), address], now()).is_ok() {
                guesses += 1;
            }
            if throttle.attempt(&own, now()).is_ok() {
                throttle.success(&own);
            }
        }
        assert_eq!(guesses, 20);
    }

    #[test]
    fn one_customer_of_ipv6_is_one_address() {
        let key = |text: &str| Key::address(text.parse().unwrap());
        assert_eq!(key("2001:db8::1"), key("2001:db8:0:0:ffff::2"));
        assert_ne!(key("2001:db8::1"), key("2001:db8:0:1::1"));
        assert_eq!(key("::ffff:192.0.2.7"), key("192.0.2.7"));
    }
}
