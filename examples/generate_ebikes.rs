//! Writes the e-bike shop's tables: the sample project's warehouse.
//!
//! ```text
//! cargo run --release --example generate_ebikes -- --out examples/ebikes
//! ```
//!
//! The same arguments give the same bytes. Every date is relative to `--as-of`, never to the day it is run.
//! A few rows are dirty on purpose ([`shop::Shop::make`] says which), so that quarantine has something to show.

#[path = "generate_ebikes/random.rs"]
mod random;
#[path = "generate_ebikes/shop.rs"]
mod shop;
#[path = "generate_ebikes/words.rs"]
mod words;
#[path = "generate_ebikes/write.rs"]
mod write;

use std::path::PathBuf;

use chrono::NaiveDate;
use clap::Parser;

/// Writes the sample warehouse: an e-bike shop's customers, accounts, products, purchases and sessions.
#[derive(Debug, Parser)]
struct Arguments {
    /// Other seeds give other people and purchases.
    #[arg(long, default_value_t = 7)]
    seed: u64,
    /// 1 is 3,000 customers, 6,000 purchases and 12,000 sessions.
    #[arg(long, default_value_t = 1.0)]
    rows_scale: f64,
    /// The day after the last one in the data.
    #[arg(long, default_value = "2026-11-01")]
    as_of: NaiveDate,
    /// The directory to write to; made when it does not exist.
    #[arg(long, default_value = "examples/ebikes")]
    out: PathBuf,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments = Arguments::parse();
    let shop = shop::Shop::make(arguments.seed, arguments.rows_scale, arguments.as_of);
    std::fs::create_dir_all(&arguments.out)?;
    write::all(&shop, &arguments.out)?;
    eprintln!(
        "{} customers, {} accounts, {} products, {} purchases, {} sessions in {}",
        shop.customers.len(),
        shop.accounts.len(),
        shop.products.len(),
        shop.purchases.len(),
        shop.sessions.len(),
        arguments.out.display()
    );
    Ok(())
}
