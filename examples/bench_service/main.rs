//! Measures the service's lookups over HTTP: `cargo run --release --example bench_service -- target/release/cloud-connect`.
//!
//! Makes a project of a million profiles (`--profiles`; a `user_id` and an `email` each) in four models of five
//! attributes, runs it, starts `cloud-connect serve` on it, and looks random profiles up by either field over
//! connections that are kept alive, one lookup in twenty for somebody unknown. Four rounds: as fast as it goes, and at
//! a fixed rate (`--rate`); each on its own, and while one sync after another runs (2 % of the rows changed each time).
//! Prints lookups a second, latencies, the CPU of the service and of this program, and the service's memory.
//!
//! At a fixed rate a lookup's time begins when it was due, also when its connection was still busy then: what waits is
//! measured, not left out. Everything shares the machine, so this program's own work is part of what is measured.

#![expect(clippy::print_stdout, reason = "a program that prints what it measured")]

mod data;
mod load;
mod process;

use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

use load::{Load, Pace};
use process::{Service, Syncs};

type Fallible<T> = Result<T, Box<dyn Error + Send + Sync>>;

#[derive(Debug, Parser)]
struct Arguments {
    /// The program to measure.
    program: PathBuf,
    #[arg(long, default_value_t = 1_000_000)]
    profiles: u64,
    /// Where the project is made; one that is there is used as it is. Default: a temporary directory.
    #[arg(long)]
    directory: Option<PathBuf>,
    /// Seconds of each round.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Lookups a second of the rounds at a fixed rate.
    #[arg(long, default_value_t = 10_000)]
    rate: u64,
    /// Connections of the rounds that go as fast as they can.
    #[arg(long, default_value_t = 16)]
    connections: usize,
    /// Where a sync runs: in the service (as its scheduler does), or as another process.
    #[arg(long, value_enum, default_value_t = process::Where::Service)]
    sync: process::Where,
}

fn main() -> Fallible<()> {
    // one thread: what sends the requests should not take more of the machine than it must
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(measure(Arguments::parse()))
}

async fn measure(arguments: Arguments) -> Fallible<()> {
    let temporary = tempfile::tempdir()?;
    let project = arguments.directory.clone().unwrap_or_else(|| temporary.path().join("project"));
    if !project.join("cloud-connect.yml").exists() {
        data::make(&project, arguments.profiles)?;
        let took = process::run(&arguments.program, &project, &[])?;
        println!("{} profiles in four models, first runs: {took:.1?}", arguments.profiles);
    }
    let service = Service::start(&arguments.program, &project)?;
    println!("idle, before the first lookup: {}", service.memory());
    let warmed = load::warm(&service, arguments.profiles).await?;
    println!("from the first lookup until all are fast: {warmed:.1?}; then {}", service.memory());
    for syncing in [false, true] {
        for pace in [Pace::AsFastAsItGoes(arguments.connections), Pace::Rate(arguments.rate)] {
            let syncs = match syncing {
                true => Some(Syncs::start(arguments.sync, &arguments.program, &project, &service)?),
                false => None,
            };
            let load = Load { pace, seconds: arguments.seconds, profiles: arguments.profiles };
            let (own, of_service) = (process::own_cpu(), service.cpu());
            let measured = load.run(&service).await?;
            let cpu = |now: Duration, before: Duration| (now - before).as_secs_f64() / arguments.seconds as f64 * 100.0;
            let (own, of_service) = (cpu(process::own_cpu(), own), cpu(service.cpu(), of_service));
            let meanwhile = syncs.map(Syncs::stop).transpose()?.unwrap_or_else(|| "nothing else runs".into());
            println!("{pace}: {measured}");
            println!("    CPU: service {of_service:.0} %, this program {own:.0} % of a core; {meanwhile}");
        }
    }
    println!("service: {}", service.memory());
    service.stop()
}
