//! Reads a query's result from any warehouse as Arrow, and prints how fast that went and what it took.
//!
//! ```text
//! cargo run --release --example extract -- postgres host=127.0.0.1 user=reader database=shop sslmode=disable \
//!     "SELECT * FROM customers"
//! ```
//!
//! The first argument is the type of the connection, those of the form `name=value` are its parameters (a value may be
//! `env:NAME`, for secrets), and the last is the SQL.

use std::error::Error;
use std::io::Write;
use std::time::Instant;

use cloud_connect::warehouse::{self, ConnectionParams, QueryOptions};
use futures::TryStreamExt;

// as the program has it
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[allow(dead_code, reason = "the benchmark takes this file as a module")]
fn main() -> Result<(), Box<dyn Error>> {
    run(std::env::args().skip(1).collect())
}

#[tokio::main]
pub async fn run(mut arguments: Vec<String>) -> Result<(), Box<dyn Error>> {
    let sql = arguments.pop().ok_or("usage: extract TYPE name=value … SQL")?;
    let (kind, given) = arguments.split_first().ok_or("usage: extract TYPE name=value … SQL")?;
    let provider = warehouse::provider(kind).ok_or("there is no such type of connection")?;
    let mut params = ConnectionParams::new("example", std::env::current_dir()?);
    for parameter in provider.parameters {
        if let Some(default) = parameter.default {
            params.set(parameter.name, default);
        }
    }
    for argument in given {
        let (name, value) = argument.split_once('=').ok_or("parameters are written name=value")?;
        let value = value.strip_prefix("env:").map_or(Ok(value.to_string()), std::env::var)?;
        params.set(name, value);
    }

    let warehouse = (provider.build)(&params)?;
    let began = Instant::now();
    let mut running = warehouse.query(&sql, &QueryOptions::default()).await?;
    let (mut rows, mut batches, mut bytes) = (0, 0, 0);
    while let Some(batch) = running.stream.try_next().await? {
        rows += batch.num_rows();
        // of its own rows: slices of one buffer would each count all of it
        let columns = batch.columns().iter().map(|column| column.to_data().get_slice_memory_size());
        bytes += columns.sum::<Result<usize, _>>()?;
        batches += 1;
    }
    let seconds = began.elapsed().as_secs_f64();
    let (cpu, peak_mib) = spent()?;
    writeln!(
        std::io::stdout(),
        "{rows} rows in {batches} batches, {} MiB of Arrow, {seconds:.3} s, {:.0} rows/s, {:.0} MiB/s, \
         {cpu:.2} s of CPU, peak {peak_mib} MiB",
        bytes >> 20,
        rows as f64 / seconds,
        bytes as f64 / 1048576.0 / seconds,
    )?;
    Ok(())
}

/// Seconds of CPU and the peak of memory (MiB) of this process, as the kernel counts them.
fn spent() -> Result<(f64, u64), Box<dyn Error>> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    // after the program's name, which may hold spaces: fields 14 and 15, in hundredths of a second
    let after = stat.rsplit_once(')').ok_or("no fields")?.1;
    let ticks = after.split_whitespace().skip(11).take(2).map(str::parse::<u64>).sum::<Result<u64, _>>()?;
    let status = std::fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix("kB"));
    Ok((ticks as f64 / 100.0, peak.ok_or("no peak")?.trim().parse::<u64>()? >> 10))
}
