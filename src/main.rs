//! `cloud-connect`: parse arguments, run, exit code.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::EnvFilter;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    #[cfg(feature = "failpoints")]
    let _failpoints = fail::FailScenario::setup();
    let cli = cloud_connect::cli::Cli::parse();
    let filter = EnvFilter::try_from_env("CLOUD_CONNECT_LOG").unwrap_or_else(|_| EnvFilter::new("error,cloud_connect=warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false).init();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    match runtime {
        // the future is large: it belongs on the heap, not on the main thread's stack
        Ok(runtime) => runtime.block_on(Box::pin(cloud_connect::cli::main(cli))),
        Err(error) => {
            tracing::error!(%error, "the asynchronous runtime could not be started");
            ExitCode::FAILURE
        }
    }
}
