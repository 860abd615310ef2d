//! `cloud-connect`: hands over to the library, where everything is compiled once for this program and the tests.
#![forbid(unsafe_code)]

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    #[cfg(feature = "failpoints")]
    let _failpoints = arm();
    cloud_connect::cli::main()
}

/// For the crash tests: `CLOUD_CONNECT_ABORT_AT=after-commit` ends the process there, at once and without clean-up;
/// `extract-batch:3` at the third time.
#[cfg(feature = "failpoints")]
fn arm() -> fail::FailScenario<'static> {
    use std::sync::atomic::{AtomicU32, Ordering};
    let scenario = fail::FailScenario::setup();
    if let Ok(place) = std::env::var("CLOUD_CONNECT_ABORT_AT") {
        let (name, nth) = place.split_once(':').unwrap_or((&place, "1"));
        let left = AtomicU32::new(nth.parse().unwrap_or(1));
        let armed = fail::cfg_callback(name, move || {
            if left.fetch_sub(1, Ordering::Relaxed) == 1 {
                std::process::abort();
            }
        });
        assert!(armed.is_ok(), "the failpoint {name} could not be armed");
    }
    scenario
}
