//! The forms that channels take, against what their makers document, and a mail server of our own.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::Path;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;

use super::*;
use crate::alerts::definition::{Condition, Email, Security};
use crate::alerts::notice::{Finding, NoticeKind, RunFacts};

fn at(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

fn notice() -> Notice {
    let run = RunFacts {
        run_id: "0199".into(),
        status: "failed".into(),
        started_at: at("2026-03-02T08:59:00Z"),
        finished_at: Some(at("2026-03-02T09:00:00Z")),
        rows: 0,
        added: 0,
        changed: 0,
        removed: 0,
        quarantined: 0,
    };
    Notice {
        id: "0199-msg".into(),
        kind: NoticeKind::Alert,
        condition: Some(Condition::Failed),
        incident: "0199-inc".into(),
        rule: "all".into(),
        model: "cc_big_buyers".into(),
        model_name: "Big <b>buyers</b> & co".into(),
        connection: "shop".into(),
        since: at("2026-03-02T09:00:00Z"),
        at: at("2026-03-02T09:00:05Z"),
        finding: Finding {
            at: at("2026-03-02T09:00:00Z"),
            summary: "the run failed; nothing was changed".into(),
            run: Some(run),
            error: Some("no table <!channel> & ```orders```".into()),
            hint: Some("create it".into()),
            breach: None,
        },
        url: Some("https://connect.example.com/v2/run/0199".into()),
    }
}

#[test]
fn the_signature_is_that_of_the_standard_webhooks_specification() {
    // the example of the specification's reference libraries
    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let headers = webhook::headers(
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        DateTime::from_timestamp(1_614_265_330, 0).unwrap(),
        r#"{"test": 2432232314}"#,
        Some(secret),
    )
    .unwrap();
    assert_eq!(headers["webhook-id"], "msg_p5jXN8AQM9LWM0D4loKWxJek");
    assert_eq!(headers["webhook-timestamp"], "1614265330");
    assert_eq!(headers["webhook-signature"], "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    let unsigned = webhook::headers("id", DateTime::UNIX_EPOCH, "", None).unwrap();
    assert!(!unsigned.contains_key("webhook-signature"));
    assert!(webhook::headers("id", DateTime::UNIX_EPOCH, "", Some("whsec_?")).is_err());
}

#[test]
fn a_webhook_gets_what_the_documentation_promises() {
    let body: serde_json::Value = serde_json::from_str(&webhook::body(&notice()).unwrap()).unwrap();
    assert_eq!(body["type"], "alert.alert");
    assert_eq!(body["timestamp"], "2026-03-02T09:00:05Z");
    let data = &body["data"];
    assert_eq!(data["title"], "cc_big_buyers: failed");
    for (key, value) in [
        ("id", "0199-msg"),
        ("kind", "alert"),
        ("condition", "failed"),
        ("incident", "0199-inc"),
        ("rule", "all"),
        ("model", "cc_big_buyers"),
        ("connection", "shop"),
        ("since", "2026-03-02T09:00:00Z"),
        ("summary", "the run failed; nothing was changed"),
        ("hint", "create it"),
        ("url", "https://connect.example.com/v2/run/0199"),
    ] {
        assert_eq!(data[key], value, "{key}");
    }
    assert_eq!(data["run"]["run_id"], "0199");
    assert_eq!(data["run"]["rows"], 0);
}

#[test]
fn a_message_is_read_from_the_outbox_as_it_was_written() {
    let written = serde_json::to_string(&notice()).unwrap();
    assert_eq!(serde_json::from_str::<Notice>(&written).unwrap(), notice());
}

#[test]
fn slack_gets_blocks_within_its_limits_and_no_mention() {
    let mut long = notice();
    long.finding.error = Some("x".repeat(10_000));
    long.model = "m".repeat(64);
    long.finding.summary = "&".repeat(5_000);
    for notice in [notice(), long] {
        let body = slack::body(&notice);
        assert!(!body.to_string().contains("<!channel>"));
        let blocks = body["blocks"].as_array().unwrap();
        assert_eq!(blocks[0]["type"], "header");
        assert!(blocks[0]["text"]["text"].as_str().unwrap().chars().count() <= 150);
        for block in &blocks[1..] {
            assert_eq!(block["type"], "section");
            let length = block["text"]["text"].as_str().map_or(1, |text| text.chars().count());
            assert!((1..=3000).contains(&length), "{length}");
            assert!(block["fields"].as_array().is_none_or(|fields| fields.len() <= 10));
        }
    }
    let error = slack::body(&notice())["blocks"][2]["text"]["text"].clone();
    assert_eq!(error, "```no table &lt;!channel&gt; &amp; '''orders'''```");
}

#[test]
fn teams_gets_a_message_with_one_adaptive_card() {
    let body = teams::body(&notice());
    assert_eq!(body["type"], "message");
    let attachment = &body["attachments"][0];
    assert_eq!(attachment["contentType"], "application/vnd.microsoft.card.adaptive");
    let card = &attachment["content"];
    assert_eq!((&card["type"], &card["version"]), (&"AdaptiveCard".into(), &"1.4".into()));
    assert_eq!(card["body"][0]["inlines"][0]["text"], "cc_big_buyers: failed");
    assert!(card["body"].as_array().unwrap().iter().all(|block| block["type"] == "RichTextBlock"));
    assert_eq!(card["actions"][0]["url"], "https://connect.example.com/v2/run/0199");
}

/// Takes one letter as a mail server does, and keeps the conversation.
async fn mail_server(refuse: bool) -> (u16, Arc<Mutex<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let said = Arc::new(Mutex::new(String::new()));
    let kept = Arc::clone(&said);
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let (read, mut write) = stream.into_split();
        let mut lines = BufReader::new(read).lines();
        write.write_all(b"220 mail.example.com ESMTP\r\n").await.unwrap();
        let mut in_letter = false;
        while let Ok(Some(line)) = lines.next_line().await {
            kept.lock().unwrap().push_str(&format!("{line}\n"));
            let answer = match line.split_whitespace().next().unwrap_or_default().to_ascii_uppercase().as_str() {
                "." if in_letter => {
                    in_letter = false;
                    "250 taken\r\n"
                }
                _ if in_letter => continue,
                "EHLO" => "250-mail.example.com\r\n250-AUTH PLAIN\r\n250 SIZE 10000000\r\n",
                "AUTH" => "235 welcome\r\n",
                "RCPT" if refuse => "550 nobody of that name\r\n",
                "DATA" => {
                    in_letter = true;
                    "354 go on\r\n"
                }
                "QUIT" => "221 bye\r\n",
                _ => "250 ok\r\n",
            };
            write.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    (port, said)
}

fn email_to(port: u16) -> Email {
    Email {
        host: "127.0.0.1".into(),
        port: Some(port),
        security: Security::None,
        ssl_root_cert: None,
        user: Some("alerts".into()),
        password: Some("${env:SMTP_PASSWORD}".into()),
        from: "Cloud Connect <alerts@example.com>".into(),
        to: vec!["Ada <ada@example.com>".into(), "bob@example.com".into()],
    }
}

fn value(text: &str) -> Result<String, ResolveError> {
    let env = |name: &str| (name == "SMTP_PASSWORD").then(|| "hunter2".to_string());
    resolve(text, Path::new("."), &env, &crate::vault::Vault::default())
}

#[tokio::test]
async fn a_letter_arrives_as_text_and_as_html_with_an_id_that_stays() {
    let (port, said) = mail_server(false).await;
    email::send(&email_to(port), &notice(), Path::new("."), value).await.unwrap();
    let said = said.lock().unwrap().clone();
    assert!(said.contains("EHLO example.com\n"), "{said}");
    // base64 of "\0alerts\0hunter2"
    assert!(said.contains("AUTH PLAIN AGFsZXJ0cwBodW50ZXIy\n"), "{said}");
    assert!(said.contains("RCPT TO:<ada@example.com>\n") && said.contains("RCPT TO:<bob@example.com>\n"));
    assert!(said.contains("Message-ID: <0199-msg@example.com>\n"));
    assert!(said.contains("References: <0199-inc.incident@example.com>\n"));
    assert!(said.contains("Subject: [cloud-connect] cc_big_buyers: failed\n"));
    assert!(said.contains("Date: Mon, 02 Mar 2026 09:00:05"));
    assert!(said.contains("text/plain") && said.contains("text/html"));
    // escaped in the HTML, as it is in the text
    assert!(said.contains("no table <!channel> & ```orders```"), "{said}");
    assert!(said.contains("&lt;!channel&gt;") || said.contains("&#60;!channel&#62;"), "{said}");
    assert!(!said.contains("<b>buyers</b> &amp;"));
}

#[tokio::test]
async fn a_refused_letter_says_what_the_server_said_and_no_password() {
    let (port, _said) = mail_server(true).await;
    let error = email::send(&email_to(port), &notice(), Path::new("."), value).await.unwrap_err();
    assert!(error.to_string().contains("nobody of that name"), "{error}");
    assert!(!error.to_string().contains("hunter2"));
    let missing = Email { password: Some("${env:NOT_THERE}".into()), ..email_to(port) };
    let error = email::send(&missing, &notice(), Path::new("."), value).await.unwrap_err();
    assert!(error.to_string().contains("`NOT_THERE` is not set"), "{error}");
}

#[tokio::test]
async fn an_unencrypted_mail_server_elsewhere_is_refused() {
    let elsewhere = Email { host: "192.0.2.1".into(), ..email_to(25) };
    let error = email::send(&elsewhere, &notice(), Path::new("."), value).await.unwrap_err();
    assert!(error.to_string().contains("only be on this machine"), "{error}");
    assert_eq!(email::usual_port(Security::StartTls), 587);
}
