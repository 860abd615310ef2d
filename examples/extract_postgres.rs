//! Reads a query's result from PostgreSQL as Arrow and prints how fast that went.
//!
//! ```text
//! cargo run --release --example extract_postgres -- host=127.0.0.1 user=reader database=shop sslmode=disable \
//!     "SELECT * FROM customers"
//! ```
//!
//! Arguments of the form `name=value` are parameters of the connection; the last argument is the SQL. A password is
//! taken from the environment variable `PGPASSWORD`.

use std::error::Error;
use std::io::Write;
use std::time::Instant;

use cloud_connect::warehouse::{self, ConnectionParams, QueryOptions};
use futures::TryStreamExt;

// as the program has it
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let sql = arguments.pop().ok_or("usage: extract_postgres name=value … SQL")?;
    let mut params = ConnectionParams::new("example", std::env::current_dir()?);
    for argument in &arguments {
        let (name, value) = argument.split_once('=').ok_or("parameters are written name=value")?;
        params.set(name, value);
    }
    if let Ok(password) = std::env::var("PGPASSWORD") {
        params.set("password", password);
    }

    let provider = warehouse::provider("postgres").ok_or("there is no such provider")?;
    let postgres = (provider.build)(&params)?;
    let began = Instant::now();
    let mut running = postgres.query(&sql, &QueryOptions::default()).await?;
    let (mut rows, mut batches, mut bytes) = (0, 0, 0);
    while let Some(batch) = running.stream.try_next().await? {
        rows += batch.num_rows();
        bytes += batch.get_array_memory_size();
        batches += 1;
    }
    let seconds = began.elapsed().as_secs_f64();
    let rate = rows as f64 / seconds;
    writeln!(
        std::io::stdout(),
        "{rows} rows in {batches} batches, {} MiB of Arrow, {seconds:.3} s, {rate:.0} rows/s",
        bytes >> 20
    )?;
    Ok(())
}
