//! How fast each warehouse's result comes out as Arrow, from the scripted servers of the tests: no account is needed, and
//! no warehouse's own speed is in the figures.
//!
//! ```text
//! cargo bench --features failpoints --bench extraction                         # every path, 1M and 10M rows
//! cargo bench --features failpoints --bench extraction -- --rows 1000000 --rounds 3 snowflake bigquery
//! ```
//!
//! The server runs in this process, the reader (this program again, as `read`) in one of its own, whose time, processor
//! time and peak memory are printed. Rows are `id` (an integer) and `name` (a text of some ten characters).

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a benchmark")]
#![allow(dead_code, unused_imports, reason = "the servers' modules serve the tests as well")]

use std::io::Write;
use std::process::{Command, Stdio};

use cloud_connect::warehouse::ConnectionParams;

use suite::{Ask, Subject};

#[path = "../../tests/warehouses/bigquery/mod.rs"]
mod bigquery;
#[path = "../../tests/warehouses/databricks/mod.rs"]
mod databricks;
#[path = "../../tests/warehouses/embedded.rs"]
mod embedded;
#[path = "../../examples/extract.rs"]
mod extract;
#[path = "../../tests/warehouses/fakes/mod.rs"]
mod fakes;
#[path = "../../tests/support/postgres.rs"]
mod postgres_server;
#[path = "../../tests/warehouses/process.rs"]
mod process;
#[path = "../../tests/cli/project.rs"]
mod project;
#[path = "../../tests/warehouses/redshift/mod.rs"]
mod redshift;
#[path = "../../tests/warehouses/snowflake/mod.rs"]
mod snowflake;
#[path = "../../tests/warehouses/suite.rs"]
mod suite;

const PATHS: &[&str] = &["local", "postgres", "redshift", "redshift-unload", "snowflake", "bigquery", "databricks"];

async fn start(path: &str) -> Box<dyn Subject> {
    match path {
        "local" => Box::new(embedded::Local::new()),
        "postgres" => Box::new(tokio::task::spawn_blocking(embedded::Postgres::start).await.unwrap()),
        "redshift" => Box::new(redshift::World::start(false).await),
        "redshift-unload" => Box::new(redshift::World::start(true).await),
        "snowflake" => Box::new(snowflake::Scripted::start()),
        "bigquery" => Box::new(bigquery::fake::Fake::start().await),
        "databricks" => Box::new(databricks::Scripted::start().await),
        other => panic!("{other} is not one of {PATHS:?}"),
    }
}

/// What a reader said: seconds, seconds of processor time, MiB of Arrow, peak MiB.
struct Measured {
    seconds: f64,
    cpu: f64,
    arrow_mib: f64,
    peak_mib: f64,
}

fn measure(subject: &dyn Subject, rows: u64) -> Measured {
    let params = subject.params();
    let declared = subject.declaration().parameters;
    let given = declared.iter().filter_map(|p| Some(format!("{}={}", p.name, params.text(p.name)?)));
    let sql = subject.sql(Ask::Rows(rows)).expect("a way to ask for rows");
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.arg("read").arg(subject.provider()).args(given).arg(sql).envs(subject.environment());
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "the reader failed");
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.starts_with(&format!("{rows} rows")), "{said}");
    let number = |after: &str| -> f64 {
        let before = said.split(after).next().unwrap();
        before
            .rsplit([' ', ','])
            .next()
            .unwrap()
            .parse()
            .unwrap_or_else(|_| panic!("no number before `{after}`: {said}"))
    };
    let peak = said.rsplit("peak ").next().unwrap().trim().trim_end_matches(" MiB").parse().unwrap();
    Measured { seconds: number(" s, "), cpu: number(" s of CPU"), arrow_mib: number(" MiB of Arrow"), peak_mib: peak }
}

fn main() {
    let mut arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    if arguments.first().is_some_and(|a| a == "read") {
        arguments.remove(0);
        return extract::run(arguments).unwrap();
    }
    let mut option = |name: &str, default: &str| {
        let at = arguments.iter().position(|a| a == name);
        at.map_or(default.to_string(), |at| arguments.drain(at..at + 2).nth(1).unwrap())
    };
    let rows = option("--rows", "1000000,10000000");
    let rounds: usize = option("--rounds", "3").parse().unwrap();
    let paths: Vec<&str> = match arguments.is_empty() {
        true => PATHS.to_vec(),
        false => arguments.iter().map(String::as_str).collect(),
    };
    let mut out = std::io::stdout();
    writeln!(out, "| Path | Rows | Seconds | Rows/s | MiB/s of Arrow | Own CPU, s | Share of the time | Peak MiB |")
        .unwrap();
    writeln!(out, "|---|---|---|---|---|---|---|---|").unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    for path in paths {
        let subject = runtime.block_on(start(path));
        for rows in rows.split(',').map(|n| n.parse::<u64>().unwrap()) {
            let mut all: Vec<Measured> = (0..rounds).map(|_| measure(&*subject, rows)).collect();
            all.sort_by(|a, b| a.seconds.total_cmp(&b.seconds));
            let Measured { seconds, cpu, arrow_mib, peak_mib } = &all[all.len() / 2];
            writeln!(
                out,
                "| {path} | {rows} | {seconds:.2} | {:.0} | {:.0} | {cpu:.2} | {:.0} % | {peak_mib:.0} |",
                rows as f64 / seconds,
                arrow_mib / seconds,
                100.0 * cpu / seconds
            )
            .unwrap();
        }
        drop(subject);
    }
}
