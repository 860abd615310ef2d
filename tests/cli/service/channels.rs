//! Channels on the wire: what chats and mail servers are sent, when they refuse it, and who else could read it.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::mail::{Line, MailServer, Speaks};
use super::receiver::{Post, Receiver};
use super::tls::Tls;
use super::{Reply, Service};
use crate::project::{Project, person};

/// A project whose failures are told to these channels.
fn project(channels: &str, told: &str) -> Project {
    let project = Project::with_people(&[person("ada", "Berlin", 1)]);
    let file = std::fs::read_to_string(project.path().join("cloud-connect.yml")).unwrap();
    let service = "service: { public_url: 'https://connect.example.com', allow_private_addresses: [127.0.0.1] }";
    let alerts = format!("alerts:\n  channels:\n{channels}  rules: {{ all: {{ channels: {told} }} }}\n");
    project.write("cloud-connect.yml", &format!("{file}{service}\n{alerts}"));
    project
}

/// Runs the model and waits for the end: its status.
fn run(service: &Service) -> String {
    let id = service.post("/v2/datamodel/people/sync/start", &json!({})).data()["run_id"].clone();
    let path = format!("/v2/run/{}", id.as_str().unwrap());
    service.wait_for(&path, |run| run["status"] != "running")["status"].as_str().unwrap().to_string()
}

/// The model's query from now on, once the service has read it.
fn query(project: &Project, service: &Service, sql: &str) {
    project.write("models/people.sql", sql);
    service.wait_for("/v2/datamodel/people", |model| model["sql"] == sql);
}

/// What Slack documents of incoming webhooks and of Block Kit.
fn slack(post: &Post) -> Value {
    let body = post.json();
    assert!(!body["text"].as_str().unwrap().is_empty(), "what a notification shows");
    let blocks = body["blocks"].as_array().unwrap();
    assert!((1..=50).contains(&blocks.len()));
    let length = |text: &Value| text["text"].as_str().unwrap().chars().count();
    for block in blocks {
        match block["type"].as_str().unwrap() {
            "header" => assert!(block["text"]["type"] == "plain_text" && length(&block["text"]) <= 150, "{block}"),
            "section" => {
                let fields = block["fields"].as_array().cloned().unwrap_or_default();
                assert!(fields.len() <= 10 && fields.iter().all(|field| length(field) <= 2000), "{block}");
                let texts = fields.iter().chain(block.get("text"));
                let fits = |text: &Value| text["type"] == "mrkdwn" && (1..=3000).contains(&length(text));
                assert!(texts.clone().count() > 0 && texts.clone().all(fits), "{block}");
            }
            other => panic!("{other} was not expected"),
        }
    }
    body
}

/// What Microsoft documents of "When a Teams webhook request is received".
fn teams(post: &Post) -> Value {
    let body = post.json();
    assert_eq!((&body["type"], body["attachments"].as_array().unwrap().len()), (&json!("message"), 1));
    let attachment = &body["attachments"][0];
    assert_eq!(attachment["contentType"], "application/vnd.microsoft.card.adaptive");
    let card = &attachment["content"];
    assert_eq!(
        (&card["$schema"], &card["type"], &card["version"]),
        (&json!("http://adaptivecards.io/schemas/adaptive-card.json"), &json!("AdaptiveCard"), &json!("1.4"))
    );
    assert_eq!(card["actions"][0]["type"], "Action.OpenUrl");
    // Teams refuses cards of more than 28 KB
    assert!(post.body.len() < 28_000);
    body
}

#[test]
fn chats_are_told_once_while_it_lasts_and_again_until_they_take_it() {
    let channels = "    chat: { type: slack, url: '${env:SLACK}' }\n    room: { type: teams, url: '${env:TEAMS}' }\n";
    let project = project(channels, "[chat, room]");
    let (chat, room) =
        (Receiver::answering(&["500 Oh"]), Receiver::answering(&["429 Too Many Requests\r\nretry-after: 14"]));
    let (slack_url, teams_url) = (chat.url("/services/T0/B0/s3cr3t"), room.url("/workflows/s3cr3t?sig=s3cr3t"));
    let service = Service::start_with(&project, &[], &[("SLACK", &slack_url), ("TEAMS", &teams_url)]);
    project.write("models/people.sql", "SELECT * FROM \"<!channel>\"");
    project.cc(&["run"]);
    let (chat_first, room_first) = (chat.wait_for(2), room.wait_for(2));

    for (posts, path, wait) in
        [(&chat_first, "/services/T0/B0/s3cr3t", 10), (&room_first, "/workflows/s3cr3t?sig=s3cr3t", 14)]
    {
        assert_eq!(posts[0].line, format!("POST {path} HTTP/1.1"));
        assert_eq!(posts[0].headers["content-type"], "application/json");
        assert_eq!(posts[0].body, posts[1].body, "the same message");
        let waited = posts[1].at - posts[0].at;
        assert!(waited > Duration::from_secs(wait - 1) && waited < Duration::from_secs(wait + 12), "{waited:?}");
    }
    let said = slack(&chat_first[0]);
    assert!(said["text"].as_str().unwrap().contains("people: failed"), "{said}");
    assert!(said.to_string().contains("&lt;!channel&gt;") && !said.to_string().contains("<!channel>"), "{said}");
    assert!(said.to_string().contains("<https://connect.example.com/v2/run/"), "{said}");
    let card = &teams(&room_first[0])["attachments"][0]["content"];
    assert_eq!(card["body"][0]["inlines"][0]["text"], "people: failed");
    assert!(card["actions"][0]["url"].as_str().unwrap().starts_with("https://connect.example.com/v2/run/"), "{card}");

    // it fails twice more, and nobody hears of it; then of its end
    assert_eq!([run(&service), run(&service)], ["failed", "failed"]);
    query(&project, &service, "SELECT * FROM people");
    assert_eq!(run(&service), "published");
    let end = slack(&chat.wait_for(3)[2]);
    assert!(end["text"].as_str().unwrap().contains("recovered"), "{end}");
    let end = teams(&room.wait_for(3)[2]);
    assert!(end.to_string().contains("recovered"), "{end}");

    let sent = service.wait_for("/v2/alert/delivery", |all| {
        all.as_array().unwrap().iter().all(|delivery| delivery["status"] == "delivered")
    });
    let attempts: Vec<_> =
        sent.as_array().unwrap().iter().map(|one| (one["kind"].clone(), one["attempts"].clone())).collect();
    assert_eq!(attempts.len(), 4, "{sent}");
    for (kind, tried) in attempts {
        assert_eq!(tried, if kind == "alert" { 2 } else { 1 }, "{sent}");
    }
    assert!(!sent.to_string().contains("s3cr3t") && !service.logged().contains("s3cr3t"));
}

#[test]
fn a_webhook_of_ones_own_authority_is_reached_where_the_machine_knows_it() {
    let tls = Tls::new();
    let receiver = Receiver::encrypted(&tls);
    let url = format!("https://localhost:{}/hook", receiver.port);
    let project = project(&format!("    hook: {{ type: webhook, url: '{url}' }}\n"), "hook");
    project.write("certs/own.pem", &tls.certificate);
    let file = project.path().join("certs/own.pem");
    let stranger = Service::start(&project);
    let refused = test(&stranger, "hook");
    assert_eq!(refused.error(422), "not-delivered");
    assert!(refused.text.contains("certificate"), "{refused:?}");
    assert_eq!(stranger.stop(), 0);
    let service = Service::start_with(&project, &[], &[("SSL_CERT_FILE", file.to_str().unwrap())]);
    assert_eq!(test(&service, "hook").status, 200, "{}", service.logged());
    assert_eq!(receiver.wait_for(1)[0].json()["type"], "alert.test");
}

fn mail_channel(name: &str, server: &MailServer, security: &str, more: &str) -> String {
    format!(
        "    {name}: {{ type: email, host: localhost, port: {}, security: {security}, user: alerts, \
         password: '${{env:SMTP_PASSWORD}}', from: alerts@example.com, to: ada@example.com{more} }}\n",
        server.port
    )
}

/// Everything that only sender and receiver may know.
fn is_secret(line: &Line) -> bool {
    let login = STANDARD.encode("\0alerts\0hunter2");
    ["AUTH", "MAIL", "RCPT", "DATA", "Subject:"].iter().any(|word| line.text.starts_with(word))
        || [login.as_str(), "hunter2"].iter().any(|secret| line.text.contains(secret))
}

fn test(service: &Service, channel: &str) -> Reply {
    service.post(&format!("/v2/alertchannel/{channel}/test"), &json!({}))
}

#[test]
fn letters_are_encrypted_before_anything_is_said_and_only_to_whom_it_may_concern() {
    let (starting, encrypted) = (MailServer::start(Speaks::StartTls), MailServer::start(Speaks::Tls));
    let channels = [
        mail_channel("starting", &starting, "starttls", ", ssl_root_cert: certs/mail.pem"),
        mail_channel("encrypted", &encrypted, "tls", ""),
        mail_channel("encrypted_too", &encrypted, "tls", ", ssl_root_cert: certs/encrypted.pem"),
    ];
    let project = project(&channels.concat(), "starting");
    project.write("certs/mail.pem", &starting.certificate);
    project.write("certs/encrypted.pem", &encrypted.certificate);
    // an authority of the whole machine
    let file = project.path().join("certs/encrypted.pem");
    let variables = [("SMTP_PASSWORD", "hunter2"), ("SSL_CERT_FILE", file.to_str().unwrap())];
    let service = Service::start_with(&project, &[], &variables);
    for (channel, server) in [("starting", &starting), ("encrypted", &encrypted), ("encrypted_too", &encrypted)] {
        let before = server.heard().len();
        assert_eq!(test(&service, channel).status, 200, "{channel}: {}", service.logged());
        let heard = server.heard().split_off(before);
        let secret: Vec<&Line> = heard.iter().filter(|line| is_secret(line)).collect();
        assert_eq!(secret.len(), 5, "login, sender, receiver, letter, subject: {heard:#?}");
        assert!(secret.iter().all(|line| line.encrypted), "{heard:#?}");
    }
    let clear: Vec<String> =
        starting.heard().into_iter().filter(|line| !line.encrypted).map(|line| line.text).collect();
    assert_eq!(clear, ["EHLO example.com", "STARTTLS"]);

    // and so is what nobody asked for
    query(&project, &service, "SELECT * FROM not_there");
    assert_eq!(run(&service), "failed");
    service.wait_for("/v2/alert/delivery", |all| all[0]["status"] == "delivered");
    let heard = starting.heard();
    assert!(
        heard.iter().any(|line| line.encrypted && line.text == "Subject: [cloud-connect] people: failed"),
        "{heard:#?}"
    );
    assert!(!heard.iter().any(|line| !line.encrypted && is_secret(line)), "{heard:#?}");
    assert!(!service.logged().contains("hunter2"));
}

#[test]
fn a_mail_server_that_cannot_encrypt_or_is_another_one_hears_nothing() {
    let clear = MailServer::start(Speaks::Clear);
    let (other, other_encrypted) = (MailServer::start(Speaks::StartTls), MailServer::start(Speaks::Tls));
    let known = ", ssl_root_cert: certs/mail.pem";
    let channels = [
        mail_channel("clear", &clear, "starttls", ""),
        mail_channel("clear_tls", &clear, "tls", ""),
        mail_channel("unknown", &other, "starttls", ""),
        mail_channel("another", &other, "starttls", known),
        mail_channel("another_tls", &other_encrypted, "tls", known),
        mail_channel("lost", &other, "starttls", ", ssl_root_cert: certs/lost.pem"),
        mail_channel("none", &other, "starttls", ", ssl_root_cert: certs/none.pem"),
    ];
    let project = project(&channels.concat(), "clear");
    project.write("certs/mail.pem", &MailServer::start(Speaks::Clear).certificate);
    project.write("certs/none.pem", "no certificate\n");
    let service = Service::start_with(&project, &[], &[("SMTP_PASSWORD", "hunter2")]);
    for (channel, why) in [
        ("clear", "STARTTLS"),
        ("clear_tls", "mail server localhost"),
        ("unknown", "UnknownIssuer"),
        ("another", "certificate"),
        ("another_tls", "certificate"),
        ("lost", "certs/lost.pem cannot be read"),
        ("none", "certs/none.pem holds no certificate"),
    ] {
        let refused = test(&service, channel);
        assert_eq!(refused.error(422), "not-delivered", "{channel}");
        assert!(refused.text.contains(why), "{channel}: {refused:?}");
        assert!(!refused.text.contains("hunter2"), "{refused:?}");
    }
    for server in [&clear, &other, &other_encrypted] {
        let heard = server.heard();
        assert!(!heard.iter().any(is_secret), "{heard:#?}");
    }
    assert!(clear.heard().iter().any(|line| line.text.starts_with("EHLO")), "it was asked");
}
