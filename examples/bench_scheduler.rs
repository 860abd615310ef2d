//! Measures the scheduler: `cargo run --release --example bench_scheduler [MODELS]`.
//!
//! Makes a project of that many hourly models (default 1,000) on ten connections, each over a table of one row, and
//! drives the real scheduler, engine and catalog with a held clock. Prints what a due check costs when nothing is due,
//! when an hour begins, and when everything was missed; how the starts spread over the minute; how soon a run begins
//! that somebody asks for; and the memory.

#![expect(clippy::print_stdout, reason = "a program that prints what it measured")]

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use cloud_connect::clock::ManualClock;
use cloud_connect::scheduler::{Engines, Limits, Scheduler, SchedulerOptions, Started};
use cloud_connect::sync::Engine;
use cloud_connect::warehouse::registry;

type Fallible<T> = Result<T, Box<dyn Error>>;

// as the program has it
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const CONNECTIONS: usize = 10;
const MEMORY_LIMIT: u64 = 512 << 20;
const IDLE_TICKS: usize = 2000;
const STARTS: usize = 100;

/// One engine that never changes.
struct Fixed(Arc<Engine>);

#[async_trait]
impl Engines for Fixed {
    fn engine(&self) -> Arc<Engine> {
        Arc::clone(&self.0)
    }

    async fn reload(&self) -> Result<(), String> {
        Ok(())
    }
}

fn main() -> Fallible<()> {
    let models: usize = std::env::args().nth(1).map_or(Ok(1000), |n| n.parse())?;
    let directory = tempfile::tempdir()?;
    write_project(directory.path(), models)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(Box::pin(measure(directory.path(), models)))
}

async fn measure(root: &Path, models: usize) -> Fallible<()> {
    let begin = Instant::now();
    let project = cloud_connect::config::load(root, registry())?;
    println!("{models} models on {CONNECTIONS} connections, read in {:.1?}", begin.elapsed());
    let clock = ManualClock::new("2026-03-01T09:30:00Z".parse::<DateTime<Utc>>()?);
    let limits = Limits { max_runs: 2, ..Limits::default() };
    let engine = Engine::open_for_runs(project, MEMORY_LIMIT, limits.max_runs, Arc::new(clock.clone())).await?;
    let engines: Arc<dyn Engines> = Arc::new(Fixed(Arc::new(engine)));
    let before = resident();
    let scheduler = Scheduler::open(Arc::clone(&engines), SchedulerOptions { limits }).await?;
    let begin = Instant::now();
    scheduler.tick().await?;
    println!("first due check, which records every schedule: {:.1?}", begin.elapsed());

    let mut idle = Vec::new();
    for _ in 0..IDLE_TICKS {
        idle.push(tick(&scheduler).await?);
        clock.advance(TimeDelta::milliseconds(1));
    }
    report("due check, nothing due", idle);
    println!("memory: {} before the scheduler, {} with it", before, resident());

    hour(&scheduler, &engines, &clock, models).await?;
    missed(&scheduler, &clock, models).await?;
    scheduler.shutdown(Duration::ZERO).await;

    // what was missed waits in the catalog, and is taken up by the next process
    for model in engines.engine().project.models.keys() {
        let removed = cloud_connect::catalog::schedule::ScheduleChange::Done(model.clone());
        engines.engine().catalog.change_schedule(&[removed], &[]).await?;
    }
    let scheduler = Scheduler::start(engines, SchedulerOptions { limits }).await?;
    starts(&scheduler).await?;
    scheduler.shutdown(Duration::from_secs(10)).await;
    println!("memory: {} at the end, {} at its peak", resident(), status("VmHWM:"));
    Ok(())
}

/// An hour begins: all models come due within the minute, and run.
async fn hour(scheduler: &Scheduler, engines: &Arc<dyn Engines>, clock: &ManualClock, models: usize) -> Fallible<()> {
    let hour = "2026-03-01T10:00:00Z".parse::<DateTime<Utc>>()?;
    clock.set(hour);
    let (mut ticks, mut queued, mut before) = (Vec::new(), Vec::new(), 0);
    let begin = Instant::now();
    loop {
        ticks.push(tick(scheduler).await?);
        let engine = engines.engine();
        let known = engine.project.models.keys().filter_map(|slug| scheduler.status(slug));
        let passed = known.filter(|status| status.next_due.is_some_and(|due| due > hour)).count();
        queued.push(passed - before);
        before = passed;
        if passed == models {
            break;
        }
        clock.advance(TimeDelta::seconds(1));
    }
    let most = queued.iter().max().copied().unwrap_or_default();
    println!("an hour begins: queued over {} seconds, {most} in one second at most", queued.len());
    report("due check while an hour begins", ticks);
    while scheduler.queue_depth() > 0 || !scheduler.running().is_empty() {
        scheduler.tick().await?;
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let took = begin.elapsed();
    println!("{models} runs, two at once: {took:.1?}, {:.0} a second", models as f64 / took.as_secs_f64());
    Ok(())
}

/// All models come due at once, because the service was away.
async fn missed(scheduler: &Scheduler, clock: &ManualClock, models: usize) -> Fallible<()> {
    clock.advance(TimeDelta::hours(5));
    let took = tick(scheduler).await?;
    println!("due check that queues all {models}: {took:.1?}; {} wait", scheduler.queue_depth());
    Ok(())
}

/// How soon a run begins that somebody asks for, while nothing else goes on.
async fn starts(scheduler: &Scheduler) -> Fallible<()> {
    let mut latencies = Vec::new();
    while latencies.len() < STARTS {
        while scheduler.queue_depth() > 0 || !scheduler.running().is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let begin = Instant::now();
        // the run before may have ended a moment ago, and not be taken off yet
        if !matches!(scheduler.start_now("model_0", "bench").await?, Started::Queued { .. }) {
            continue;
        }
        while scheduler.running().is_empty() && scheduler.queue_depth() > 0 {
            tokio::time::sleep(Duration::from_micros(100)).await;
        }
        latencies.push(begin.elapsed());
    }
    report("from a manual start to its run", latencies);
    Ok(())
}

async fn tick(scheduler: &Scheduler) -> Fallible<Duration> {
    let begin = Instant::now();
    scheduler.tick().await?;
    Ok(begin.elapsed())
}

fn report(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |percent: f64| times.get(((times.len().max(1) - 1) as f64 * percent / 100.0) as usize).copied();
    let [p50, p99, max] = [50.0, 99.0, 100.0].map(|percent| at(percent).unwrap_or_default());
    println!("{what}: {} times, p50 {p50:.2?}, p99 {p99:.2?}, max {max:.2?}", times.len());
}

fn write_project(root: &Path, models: usize) -> Fallible<()> {
    let mut project = "profile: { identities: [email] }\nconnections:\n".to_string();
    for connection in 0..CONNECTIONS {
        project += &format!("  shop_{connection}: {{ type: local, path: data }}\n");
    }
    std::fs::write(root.join("cloud-connect.yml"), project)?;
    for folder in ["data", "models"] {
        std::fs::create_dir(root.join(folder))?;
    }
    std::fs::write(root.join("data/people.csv"), "email,city\nada@example.com,London\n")?;
    for model in 0..models {
        let connection = model % CONNECTIONS;
        let text = format!(
            "name: Model {model}\nconnection: shop_{connection}\nprimary_key: email\nexternal_key: email\n\
             activated_fields: [city]\nschedule: cron 0 * * * *\n"
        );
        std::fs::write(root.join(format!("models/model_{model}.yml")), text)?;
        std::fs::write(root.join(format!("models/model_{model}.sql")), "SELECT email, city FROM people")?;
    }
    Ok(())
}

fn resident() -> String {
    status("VmRSS:")
}

fn status(key: &str) -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let value = status.lines().find_map(|line| line.strip_prefix(key)).and_then(|kib| kib.split_whitespace().next());
    let kib = value.and_then(|kib| kib.parse::<u64>().ok());
    kib.map_or_else(|| "unknown".into(), |kib| format!("{} MiB", kib >> 10))
}
