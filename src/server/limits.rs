//! How often a caller may ask.

use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

use super::answer::ApiError;

/// Lookups have a limit of their own: products ask for a profile with every page view.
const LOOKUP: &str = "/v2/entity/";

/// Requests a second by caller. Bursts of two seconds' worth pass.
#[derive(Debug)]
pub struct Limits {
    general: Option<DefaultKeyedRateLimiter<String>>,
    lookups: Option<DefaultKeyedRateLimiter<String>>,
}

impl Limits {
    /// 0: no limit.
    pub fn new(general: u32, lookups: u32) -> Self {
        let limiter = |per_second: u32| {
            let per_second = NonZeroU32::new(per_second)?;
            let burst = per_second.saturating_mul(NonZeroU32::MIN.saturating_add(1));
            Some(RateLimiter::keyed(Quota::per_second(per_second).allow_burst(burst)))
        };
        Self { general: limiter(general), lookups: limiter(lookups) }
    }

    /// Counts one request of a caller to that path.
    pub fn check(&self, caller: &str, path: &str) -> Result<(), ApiError> {
        let limiter = if path.starts_with(LOOKUP) { &self.lookups } else { &self.general };
        let Some(limiter) = limiter else { return Ok(()) };
        limiter.check_key(&caller.to_string()).map_err(|until| {
            let wait = until.wait_time_from(DefaultClock::default().now());
            ApiError::too_many("too many requests", wait.max(Duration::from_millis(1)))
                .with_hint("wait as long as Retry-After says; `serve --rate-limit` sets the limit")
        })
    }

    /// Forgets callers that have not asked for a while.
    pub fn forget_idle(&self) {
        for limiter in [&self.general, &self.lookups].into_iter().flatten() {
            limiter.retain_recent();
            limiter.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_is_slowed_down_and_another_is_not() {
        let limits = Limits::new(5, 0);
        let passed = (0..100).filter(|_| limits.check("a", "/v2/datamodel").is_ok()).count();
        assert!((10..=12).contains(&passed), "{passed}");
        assert!(limits.check("b", "/v2/datamodel").is_ok());
        assert!((0..1000).all(|_| limits.check("a", "/v2/entity/user/{field}/{value}").is_ok()));
    }
}
