//! Lookups over connections that are kept alive.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use xxhash_rust::xxh3::xxh3_64;

use super::Fallible;
use super::data::identity;
use super::process::Service;

/// Connections of a round at a fixed rate: enough that the rate is kept while some of them wait.
const PACED_CONNECTIONS: usize = 64;
/// Lookups faster than this come from serving files.
const FAST: Duration = Duration::from_millis(5);

/// How often lookups are sent.
#[derive(Debug, Clone, Copy)]
pub enum Pace {
    /// Over so many connections, each sending the next when it has its answer.
    AsFastAsItGoes(usize),
    /// So many a second.
    Rate(u64),
}

impl std::fmt::Display for Pace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::AsFastAsItGoes(connections) => write!(f, "as fast as {connections} connections go"),
            Self::Rate(rate) => write!(f, "at {rate}/s"),
        }
    }
}

/// A round.
pub struct Load {
    pub pace: Pace,
    pub seconds: u64,
    pub profiles: u64,
}

/// What a round came to.
pub struct Measured {
    /// Sorted.
    times: Vec<Duration>,
    took: Duration,
}

impl std::fmt::Display for Measured {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let at = |percent: f64| {
            let index = (self.times.len().saturating_sub(1)) as f64 * percent / 100.0;
            self.times.get(index as usize).copied().unwrap_or_default()
        };
        let rate = self.times.len() as f64 / self.took.as_secs_f64();
        write!(
            f,
            "{rate:.0} lookups/s, p50 {:.2?}, p99 {:.2?}, p99.9 {:.2?}, max {:.2?}",
            at(50.0),
            at(99.0),
            at(99.9),
            at(100.0)
        )
    }
}

impl Load {
    pub async fn run(&self, service: &Service) -> Fallible<Measured> {
        let connections = match self.pace {
            Pace::AsFastAsItGoes(connections) => connections,
            Pace::Rate(_) => PACED_CONNECTIONS,
        };
        let begin = Instant::now();
        let end = begin + Duration::from_secs(self.seconds);
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0..connections {
            let mut connection = Connection::open(service).await?;
            let (profiles, pace) = (self.profiles, self.pace);
            tasks.spawn(async move {
                let mut times = Vec::new();
                for turn in 0.. {
                    let mut due = Instant::now();
                    if let Pace::Rate(rate) = pace {
                        let nth = turn * connections as u64 + number as u64;
                        let planned = begin + Duration::from_nanos(nth * 1_000_000_000 / rate);
                        if planned > due {
                            tokio::time::sleep_until(planned.into()).await;
                            // timers fire up to a millisecond late, which is not the service's doing
                            due = Instant::now();
                        } else {
                            due = planned;
                        }
                    }
                    if due >= end {
                        break;
                    }
                    connection.lookup(turn * 1_000_003 + number as u64, profiles).await?;
                    times.push(due.elapsed());
                }
                Ok::<_, Box<dyn std::error::Error + Send + Sync>>(times)
            });
        }
        let mut times = Vec::new();
        while let Some(done) = tasks.join_next().await {
            times.extend(done??);
        }
        times.sort_unstable();
        Ok(Measured { times, took: begin.elapsed() })
    }
}

/// Looks up until the answers come from serving files.
pub async fn warm(service: &Service, profiles: u64) -> Fallible<Duration> {
    let mut connection = Connection::open(service).await?;
    let begin = Instant::now();
    let (mut n, mut fast) = (0, 0);
    while fast < 50 {
        let asked = Instant::now();
        connection.lookup(n, profiles).await?;
        fast = if asked.elapsed() < FAST { fast + 1 } else { 0 };
        n += 1;
        if begin.elapsed() > Duration::from_secs(600) {
            return Err("lookups do not become fast".into());
        }
    }
    Ok(begin.elapsed())
}

struct Connection {
    stream: TcpStream,
    /// What follows the path of every request.
    rest: String,
    request: String,
    answer: Vec<u8>,
}

impl Connection {
    async fn open(service: &Service) -> Fallible<Self> {
        let stream = TcpStream::connect(&service.address).await?;
        stream.set_nodelay(true)?;
        let rest = format!(" HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\n\r\n", service.address, service.token);
        Ok(Self { stream, rest, request: String::new(), answer: Vec::with_capacity(4096) })
    }

    /// The nth lookup of a round, checked.
    async fn lookup(&mut self, n: u64, profiles: u64) -> Fallible<()> {
        let random = xxh3_64(&n.to_le_bytes());
        let field = if random & 1 == 0 { "user_id" } else { "email" };
        let known = !n.is_multiple_of(20);
        let value = identity(field, random % profiles + if known { 0 } else { profiles });
        self.request.clear();
        self.request.extend(["GET /v2/entity/user/", field, "/", &value, &self.rest]);
        self.stream.write_all(self.request.as_bytes()).await?;
        let (status, body) = self.read().await?;
        if status != if known { 200 } else { 404 } {
            return Err(format!("{field} {value}: {status}").into());
        }
        let body = &self.answer[body..];
        let has = |text: &str| body.windows(text.len()).any(|window| window == text.as_bytes());
        // looking through every body would cost as much as sending the request
        if known && n.is_multiple_of(101) && !(has(&value) && has("cc_model_0_brand")) {
            return Err(format!("{field} {value}: {}", String::from_utf8_lossy(body)).into());
        }
        Ok(())
    }

    /// Reads an answer: its status, and where its body begins.
    async fn read(&mut self) -> Fallible<(u16, usize)> {
        self.answer.clear();
        let mut head = None;
        loop {
            if self.stream.read_buf(&mut self.answer).await? == 0 {
                return Err("the connection was closed".into());
            }
            if head.is_none() {
                head = read_head(&self.answer)?;
            }
            if let Some((status, begin, length)) = head
                && self.answer.len() >= begin + length
            {
                return Ok((status, begin));
            }
        }
    }
}

/// The status, where the body begins, and its length; none when the head is not whole yet.
fn read_head(answer: &[u8]) -> Fallible<Option<(u16, usize, usize)>> {
    let Some(end) = answer.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(None) };
    let head = std::str::from_utf8(&answer[..end])?;
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).ok_or("no status")?.parse()?;
    let length = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>())
    });
    Ok(Some((status, end + 4, length.ok_or("no length")??)))
}
