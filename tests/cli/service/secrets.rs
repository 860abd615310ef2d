//! What is secret is looked for wherever something can be read: every answer, message, line and file.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use reqwest::header::COOKIE;
use serde_json::{Value, json};

use super::people::PASSWORD;
use super::receiver::Receiver;
use super::{Reply, Service, secret_of};
use crate::postgres_server::{DATABASE, PostgresServer};
use crate::project::{Project, Ran, person};

/// Quoted, escaped or cut at any of its special characters, a piece of it remains.
const RIGHT: &str = "Rq8kZt5n@C4vMh7p/J2wBx9d%25'\"ü ?F6sKg1q&";
const WRONG: &str = "Wq7vXw2m@L9rTb4c/H3nYd8f%25'\"ü ?P5jDz0e&";
const HOOK_PATH: &str = "/hooks/V3rYs3cr3tP4th";
const HOOK_SECRET: &str = "S1gn1ngK3yOfTheHook";

/// Every file under the folder that holds the text.
pub fn holding(folder: &Path, text: &str) -> Vec<PathBuf> {
    let files = files(folder).into_iter();
    files.filter(|(_, bytes)| bytes.windows(text.len()).any(|w| w == text.as_bytes())).map(|(path, _)| path).collect()
}

fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        match entry.path() {
            path if path.is_dir() => found.extend(files(&path)),
            // one that is gone by now holds nothing
            path => found.extend(std::fs::read(&path).map(|bytes| (path, bytes))),
        }
    }
    found
}

/// Secrets, in every form that would give them away.
struct Secrets(BTreeMap<&'static str, Vec<String>>);

impl Secrets {
    fn add(&mut self, what: &'static str, secret: &str) {
        let forms: Vec<String> = secret
            .split(|c: char| !c.is_ascii_alphanumeric())
            .filter(|piece| piece.len() >= 8)
            .flat_map(|piece| {
                let hex: String = piece.bytes().map(|byte| format!("{byte:02x}")).collect();
                [piece.to_string(), hex].into_iter().chain((0..3).map(|start| base64_of(piece, start)))
            })
            .collect();
        assert!(!forms.is_empty(), "{what} cannot be told from chance");
        self.0.insert(what, forms);
    }

    /// Which of them are in it?
    fn in_bytes(&self, bytes: &[u8]) -> Vec<&'static str> {
        let text = String::from_utf8_lossy(bytes);
        self.0.iter().filter(|(_, forms)| forms.iter().any(|form| text.contains(form))).map(|(what, _)| *what).collect()
    }

    fn are_not_in(&self, place: &str, shown: impl Debug, bytes: &[u8]) {
        let found = self.in_bytes(bytes);
        assert!(found.is_empty(), "{place} holds {found:?}: {shown:?}");
    }

    fn are_in_no_reply(&self, replies: &[(String, Reply)]) {
        for (asked, reply) in replies {
            self.are_not_in(asked, reply, format!("{:?}{}", reply.headers, reply.text).as_bytes());
        }
    }

    /// In no line of the log; of what is found the line is told.
    fn are_not_logged(&self, service: &Service) {
        let logged = service.logged();
        assert!(logged.contains("TRACE") && logged.contains("app_db"), "it logs all that it can");
        if !self.in_bytes(logged.as_bytes()).is_empty() {
            for line in logged.lines() {
                self.are_not_in("a line of the log", line, line.as_bytes());
            }
        }
    }

    fn are_in_no_file(&self, folder: &Path) {
        for (path, bytes) in files(folder) {
            let ours = path.ends_with("sealing.keys") || path.ends_with("idempotency.key");
            let found: Vec<_> = self.in_bytes(&bytes).into_iter().filter(|what| !(ours && *what == "a key")).collect();
            assert!(found.is_empty(), "{} holds {found:?}", path.display());
        }
    }
}

/// What of its base64 depends on nothing else, when so many bytes were before it.
fn base64_of(piece: &str, start: usize) -> String {
    let encoded = STANDARD_NO_PAD.encode([&b"\0\0"[..start], piece.as_bytes()].concat());
    encoded[(start * 8).div_ceil(6)..(start + piece.len()) * 8 / 6].to_string()
}

#[test]
fn a_secret_is_recognized_however_it_is_written() {
    let mut secrets = Secrets(BTreeMap::new());
    secrets.add("it", WRONG);
    let url = url::form_urlencoded::byte_serialize(WRONG.as_bytes()).collect::<String>();
    let hex: String = WRONG.bytes().map(|byte| format!("{byte:02x}")).collect();
    let base64 = |before: &str| STANDARD_NO_PAD.encode(format!("{before}{WRONG}"));
    for form in [WRONG.into(), format!("{WRONG:?}"), json!(WRONG).to_string(), url, hex, WRONG[..12].into()] {
        assert_eq!(secrets.in_bytes(form.as_bytes()), ["it"], "{form}");
    }
    for before in ["", "a", "reader:", "\0reader\0"] {
        assert_eq!(secrets.in_bytes(base64(before).as_bytes()), ["it"], "{before}");
    }
    assert!(secrets.in_bytes(RIGHT.as_bytes()).is_empty());
}

/// Failures of every model are told to a webhook.
fn project() -> Project {
    let project = Project::with_people(&[person("ada", "Berlin", 1)]);
    let file = project.path().join("cloud-connect.yml");
    let text = std::fs::read_to_string(&file).unwrap();
    let more = "service: { allow_private_addresses: [127.0.0.1] }\n\
                alerts:\n  channels: { hook: { type: webhook, url: '${env:HOOK}', secret: '${env:HOOK_SECRET}' } }\n  \
                rules: { all: { channels: hook } }\n";
    project.write("cloud-connect.yml", &format!("{text}{more}"));
    project
}

fn database() -> PostgresServer {
    let server = PostgresServer::start(false);
    let quoted = RIGHT.replace('\'', "''");
    server.psql(
        DATABASE,
        &format!(
            "CREATE TABLE people (email text, spent int); GRANT SELECT ON people TO reader;
             INSERT INTO people SELECT 'p' || i || '@example.com', i FROM generate_series(1, 5) i;
             ALTER ROLE reader PASSWORD '{quoted}'"
        ),
    );
    server
}

/// A service, and everything that it answered.
struct Asked {
    service: Service,
    seen: Vec<(String, Reply)>,
}

impl Asked {
    fn start(project: &Project, receiver: &Receiver, format: &str) -> Self {
        let hook = receiver.url(HOOK_PATH);
        let variables = [("HOOK", hook.as_str()), ("HOOK_SECRET", HOOK_SECRET), ("CLOUD_CONNECT_LOG", "trace")];
        let service = Service::start_with(project, &["--log-format", format, "--rate-limit", "0"], &variables);
        Self { service, seen: Vec::new() }
    }

    fn keep(&mut self, asked: &str, status: u16, reply: Reply) -> Value {
        assert_eq!(reply.status, status, "{asked}: {reply:?}");
        let data = reply.json()["data"].clone();
        self.seen.push((asked.into(), reply));
        data
    }

    /// Asks, and keeps the answer, which has that status.
    fn ask(&mut self, method: &str, path: &str, body: &Value, status: u16) -> Value {
        let reply = self.service.ask(method, path, Some(body));
        self.keep(&format!("{method} {path}"), status, reply)
    }

    /// Starts a run and waits for its end.
    fn run(&mut self) -> Value {
        let started = self.ask("POST", "/v2/datamodel/buyers/sync/start", &json!({}), 202);
        let path = format!("/v2/run/{}", started["run_id"].as_str().unwrap());
        self.service.wait_for(&path, |run| run["status"] != "running")
    }

    /// Every GET of the description, with what there is in this project: its path, and the status to expect. What was
    /// not found would hide no secret either.
    fn every_get(&mut self, run: &str, user: &str, upload: &str) {
        let api = self.service.get("/openapi.json").json();
        let templates = api["paths"].as_object().unwrap().iter().filter(|(_, item)| item["get"].is_object());
        for (template, item) in templates {
            let (path, expected): (String, &[u16]) = match template.as_str() {
                // the warehouse refuses the wrong password
                "/v2/connection/{id}/schema" => (format!("{template}?refresh=true"), &[200, 422, 502]),
                "/v2/connection/{id}/schema/{table}" => (format!("{template}?refresh=true"), &[200, 422, 502]),
                "/v2/datamodel/{id}/sync/{state}" => (template.clone(), &[202]),
                "/v2/data/datamodel/size" => (format!("{template}?ids=buyers"), &[200]),
                "/v2/run/{id}/hold" | "/oidc/start" | "/oidc/callback" => (template.clone(), &[404]),
                "/docs" | "/account" => (template.clone(), &[303]),
                // the page of a link that still works has to hold its secret
                "/first-admin" | "/invitation/{token}" => (template.clone(), &[410]),
                _ => (template.clone(), &[200]),
            };
            let id = match template.split('/').nth(2) {
                Some("connection") => "app_db",
                Some("auth") => "reader",
                Some("run") => run,
                Some("user") => user,
                Some("upload") => upload,
                _ => "buyers",
            };
            let names = [
                ("{id}", id),
                ("{table}", "public.people"),
                ("{slug}", "postgres"),
                ("{type}", "postgres"),
                ("{field}", "email"),
                ("{value}", "p1@example.com"),
                ("{state}", "start"),
                ("{*file}", "swagger-initializer.js"),
                ("{token}", "used"),
            ];
            let path = names.iter().fold(path, |path, (name, value)| path.replace(name, value));
            assert!(!path.contains('{'), "nothing to put into {path}");
            let reply = self.service.get(&path);
            assert!(expected.contains(&reply.status), "{path}: {reply:?}");
            let described = item["get"]["responses"][reply.status.to_string()].is_object();
            assert!(described, "{path} is not described to answer {}", reply.status);
            self.seen.push((path, reply));
        }
        assert!(self.seen.len() > 45, "{}", self.seen.len());
    }
}

#[test]
fn no_secret_is_in_any_answer_message_line_or_file() {
    let (server, receiver, project) = (database(), Receiver::start(), project());
    let mut asked = Asked::start(&project, &receiver, "json");
    let mut secrets = Secrets(BTreeMap::new());
    secrets.add("the right password", RIGHT);
    secrets.add("the wrong password", WRONG);
    secrets.add("the hook's address", HOOK_PATH);
    secrets.add("the hook's secret", HOOK_SECRET);
    secrets.add("the token", secret_of(&asked.service.token));

    // people, and what opens doors to them
    let ada = asked.service.with_user("ada@example.com", "admin");
    let cookie = asked.service.signed_in("ada@example.com", PASSWORD);
    secrets.add("a session", cookie.split_once('=').unwrap().1);
    let bob = asked.service.post("/v2/user", &json!({ "email": "bob@example.com", "role": "viewer" })).data();
    secrets.add("an invitation", bob["invitation"]["path"].as_str().unwrap().rsplit_once('/').unwrap().1);
    let made = asked.service.post("/v2/token", &json!({ "role": "viewer" })).data();
    secrets.add("another token", secret_of(made["token"].as_str().unwrap()));

    // right at first, or there would be no model
    let auth = |password: &str| json!({ "label": "Reader", "config": { "password": password } });
    asked.ask("POST", "/v2/auth/postgres/reader", &auth(RIGHT), 201);
    let key = std::fs::read_to_string(project.store().join("sealing.keys")).unwrap();
    secrets.add("a key", key.trim().rsplit_once(':').unwrap().1);
    assert_eq!(secrets.in_bytes(key.as_bytes()), ["a key"], "it is where it belongs");
    let config = json!({ "host": "127.0.0.1", "port": server.port, "database": DATABASE, "user": "reader", "sslmode": "disable" });
    let connection =
        json!({ "label": "App DB", "provider_slug": "postgres", "auth_ids": ["reader"], "config": config });
    asked.ask("POST", "/v2/connection", &connection, 201);
    let model = |slug: &str| {
        json!({
            "slug": slug, "connection_id": "app_db", "sql": "SELECT * FROM people", "primary_keys": ["email"],
            "joined_to": { "foreign_key": "email" }, "activated_fields": ["spent"],
        })
    };
    asked.ask("POST", "/v2/datamodel", &model("buyers"), 201);
    asked.ask("PUT", "/v2/datamodel/buyers", &json!({ "status": "active" }), 200);
    assert_eq!(asked.run()["status"], "published");
    let uploaded = asked.service.upload("crm", "application/x-ndjson", "{\"email\":\"p1@example.com\"}\n");
    let upload = asked.keep("an upload", 200, uploaded)["id"].as_str().unwrap().to_string();

    asked.ask("PUT", "/v2/auth/postgres/reader", &auth(WRONG), 200);
    let failed = asked.run();
    assert!(failed["error"].as_str().unwrap().contains("password authentication failed"), "{failed}");
    let told = receiver.wait_for(1).remove(0);
    assert_eq!(secrets.in_bytes(told.line.as_bytes()), ["the hook's address"], "it is where it belongs");
    let (query, sql) = (json!({ "query": "SELECT * FROM people" }), json!({ "query": "SELECT * FROM profiles" }));
    let id = failed["run_id"].as_str().unwrap().to_string();
    asked.ask("POST", "/v2/connection/app_db/test", &json!({}), 200);
    asked.ask("POST", "/v2/connection/app_db/scan", &query, 422);
    asked.ask("POST", "/v2/datamodel/validate", &model("more"), 200);
    asked.ask("POST", "/v2/datamodel/plan", &model("more"), 422);
    asked.ask("POST", "/v2/datamodel/buyers/plan", &json!({}), 422);
    asked.ask("POST", "/v2/datamodel", &model("more"), 422);
    asked.ask("POST", "/v2/sql", &sql, 200);
    asked.ask("POST", "/v2/auth/postgres/reader", &auth(WRONG), 409);
    asked.ask("PUT", "/v2/auth/postgres/reader", &json!({ "config": { "pasword": WRONG } }), 400);
    asked.ask("PUT", "/v2/connection/app_db", &json!({ "config": { "password": WRONG } }), 400);
    asked.every_get(&id, &ada, &upload);

    // and where the command line opens what is sealed
    let file = project.path().join("cloud-connect.yml");
    let reading = format!(
        "connections:\n  app: {{ type: postgres, host: 127.0.0.1, port: {}, database: {DATABASE}, user: reader, \
         sslmode: disable, password: '${{auth:reader/password}}' }}\n",
        server.port
    );
    let text = std::fs::read_to_string(&file).unwrap().replace("connections:\n", &reading);
    project.write("cloud-connect.yml", &text);
    for (code, arguments) in [
        (1, &["connection", "test", "app"] as &[&str]),
        (1, &["connection", "query", "app", "SELECT 1"]),
        (0, &["check"]),
        (0, &["runs"]),
        (0, &["runs", "--output", "json"]),
        (0, &["run-report", &id]),
        (0, &["run-report", &id, "--output", "json"]),
        (0, &["models"]),
        (0, &["key", "list"]),
        (0, &["token", "list", "--output", "json"]),
        (0, &["user", "list", "--output", "json"]),
        // the connection is not in the files
        (1, &["pull", "--output", "json"]),
    ] {
        let ran: Ran = project.command(arguments).env("CLOUD_CONNECT_LOG", "trace").output().unwrap().into();
        assert_eq!(ran.code, Some(code), "{arguments:?}: {ran:?}");
        secrets.are_not_in(&arguments.join(" "), &ran, format!("{}{}", ran.stdout, ran.stderr).as_bytes());
    }

    asked.service.wait_for("/v2/alert/delivery", |all| all[0]["status"] == "delivered");
    secrets.are_in_no_reply(&asked.seen);
    secrets.are_not_logged(&asked.service);
    secrets.are_in_no_file(project.path());
    let Asked { service, .. } = asked;
    assert_eq!(service.stop(), 0);

    // once more with lines for people, and with a password that is accepted
    let mut asked = Asked::start(&project, &receiver, "text");
    secrets.add("the second start's token", secret_of(&asked.service.token));
    asked.ask("PUT", "/v2/auth/postgres/reader", &auth(RIGHT), 200);
    assert_eq!(asked.run()["error"], Value::Null);
    asked.ask("POST", "/v2/connection/app_db/scan", &query, 200);
    asked.ask("POST", "/v2/alertchannel/hook/test", &json!({}), 200);
    let shown = asked.service.send("GET", "/v2/me", |request| request.header(COOKIE, &cookie));
    asked.keep("GET /v2/me", 200, shown);
    asked.every_get(&id, &ada, &upload);
    for post in receiver.wait_for(3) {
        secrets.are_not_in("a message", &post, format!("{:?}", post.headers).as_bytes());
        secrets.are_not_in("a message", &post, &post.body);
    }
    secrets.are_in_no_reply(&asked.seen);
    secrets.are_not_logged(&asked.service);
    secrets.are_in_no_file(project.path());
    let Asked { service, .. } = asked;
    assert_eq!(service.stop(), 0);
    secrets.are_in_no_file(project.path());
}
