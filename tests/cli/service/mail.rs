//! A mail server that keeps what it heard, and whether anybody on the way could have heard it too.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use super::tls::Tls;

/// How it is spoken to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Speaks {
    /// In the clear until STARTTLS, which it offers.
    StartTls,
    /// Encrypted from the first byte.
    Tls,
    /// In the clear only: STARTTLS is unknown to it.
    Clear,
}

#[derive(Debug, Clone)]
pub struct Line {
    pub encrypted: bool,
    pub text: String,
}

pub struct MailServer {
    pub port: u16,
    /// What it shows, as PEM.
    pub certificate: String,
    heard: Arc<Mutex<Vec<Line>>>,
}

impl MailServer {
    pub fn start(speaks: Speaks) -> Self {
        let tls = Tls::new();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = Self { port, certificate: tls.certificate.clone(), heard: Arc::default() };
        let heard = Arc::clone(&server.heard);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                match speaks {
                    Speaks::Tls => drop(converse(tls.of(stream), speaks, true, &heard)),
                    Speaks::StartTls | Speaks::Clear => {
                        // only STARTTLS leaves something to say
                        if let Some(stream) = converse(stream, speaks, false, &heard) {
                            converse(tls.of(stream), speaks, true, &heard);
                        }
                    }
                }
            }
        });
        server
    }

    pub fn heard(&self) -> Vec<Line> {
        self.heard.lock().unwrap().clone()
    }
}

/// Answers as a mail server does, until the other side has enough (None) or asks for encryption.
fn converse<S: Read + Write>(stream: S, speaks: Speaks, encrypted: bool, heard: &Mutex<Vec<Line>>) -> Option<S> {
    let mut stream = BufReader::new(stream);
    let say = |stream: &mut BufReader<S>, answer: &str| stream.get_mut().write_all(answer.as_bytes()).ok();
    if !encrypted || speaks == Speaks::Tls {
        say(&mut stream, "220 mail.example.com ESMTP\r\n")?;
    }
    let (mut line, mut in_letter) = (String::new(), false);
    while stream.read_line(&mut line).is_ok_and(|read| read > 0) {
        let text = line.trim_end().to_string();
        line.clear();
        heard.lock().unwrap().push(Line { encrypted, text: text.clone() });
        let answer = match text.split_whitespace().next().unwrap_or_default() {
            "." if in_letter => {
                in_letter = false;
                "250 taken\r\n"
            }
            _ if in_letter => continue,
            "EHLO" if speaks == Speaks::StartTls && !encrypted => "250-mail.example.com\r\n250 STARTTLS\r\n",
            "EHLO" => "250-mail.example.com\r\n250 AUTH PLAIN\r\n",
            "STARTTLS" if speaks == Speaks::StartTls => {
                say(&mut stream, "220 go ahead\r\n")?;
                return Some(stream.into_inner());
            }
            "STARTTLS" => "502 what?\r\n",
            "AUTH" => "235 welcome\r\n",
            "DATA" => {
                in_letter = true;
                "354 go on\r\n"
            }
            "QUIT" => "221 bye\r\n",
            _ => "250 ok\r\n",
        };
        say(&mut stream, answer)?;
    }
    None
}
