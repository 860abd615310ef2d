//! A receiver of HTTP posts: webhooks, chats and collectors of traces send to it.

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::PATIENCE;
use super::tls::Tls;

/// What somebody sent.
#[derive(Debug, Clone)]
pub struct Post {
    /// `POST /path HTTP/1.1`
    pub line: String,
    /// By name, in small letters.
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
    pub at: Instant,
}

impl Post {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    fn read(reader: &mut impl BufRead) -> Option<Self> {
        let mut line = || {
            let mut line = String::new();
            reader.read_line(&mut line).is_ok_and(|read| read > 0).then(|| line.trim_end().to_string())
        };
        let first = line()?;
        let mut headers = BTreeMap::new();
        while let Some((name, value)) = line()?.split_once(':') {
            headers.insert(name.to_ascii_lowercase(), value.trim().to_string());
        }
        let mut body = vec![0; headers.get("content-length").map_or(0, |length| length.parse().unwrap())];
        reader.read_exact(&mut body).ok()?;
        Some(Self { line: first, headers, body, at: Instant::now() })
    }
}

trait ReadWrite: Read + Write {}
impl<S: Read + Write> ReadWrite for S {}

/// Answers 200, but for the answers that it was started with.
#[derive(Clone)]
pub struct Receiver {
    pub port: u16,
    posts: Arc<Mutex<Vec<Post>>>,
}

impl Receiver {
    pub fn start() -> Self {
        Self::answering(&[])
    }

    /// To be asked over https, as `localhost`.
    pub fn encrypted(tls: &Tls) -> Self {
        Self::serve(Some(tls.clone()), &[])
    }

    /// Its first answers are these, each a status and further header lines: `"429 Slow\r\nretry-after: 3"`.
    pub fn answering(answers: &[&str]) -> Self {
        Self::serve(None, answers)
    }

    fn serve(tls: Option<Tls>, answers: &[&str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let receiver = Self { port: listener.local_addr().unwrap().port(), posts: Arc::default() };
        let posts = Arc::clone(&receiver.posts);
        let mut answers: VecDeque<String> = answers.iter().map(|answer| answer.to_string()).collect();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let stream: Box<dyn ReadWrite> = match &tls {
                    Some(tls) => Box::new(tls.of(stream)),
                    None => Box::new(stream),
                };
                let mut reader = BufReader::new(stream);
                let Some(post) = Post::read(&mut reader) else { continue };
                posts.lock().unwrap().push(post);
                let answer = answers.pop_front().unwrap_or_else(|| "200 OK".into());
                let answer = format!("HTTP/1.1 {answer}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
                // who asks may have gone
                reader.get_mut().write_all(answer.as_bytes()).ok();
            }
        });
        receiver
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    pub fn posts(&self) -> Vec<Post> {
        self.posts.lock().unwrap().clone()
    }

    /// Waits until so many have come, and no more.
    pub fn wait_for(&self, count: usize) -> Vec<Post> {
        let until = Instant::now() + PATIENCE;
        loop {
            let posts = self.posts();
            if posts.len() >= count || Instant::now() > until {
                assert_eq!(posts.len(), count, "{posts:#?}");
                return posts;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}
