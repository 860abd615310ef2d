//! Users, tokens and sessions, as admins, programs and browsers meet them.

use std::io::Write;
use std::process::Stdio;

use reqwest::header::{COOKIE, SET_COOKIE};
use serde_json::{Value, json};

use super::{Reply, Service, secret_of, token};
use crate::project::{Project, Ran};

pub const PASSWORD: &str = "correct horse battery";

/// The cookie that an answer sets, as a browser sends it back.
pub fn cookie(reply: &Reply, name: &str) -> String {
    let set: Vec<&str> = reply.headers.get_all(SET_COOKIE).iter().map(|value| value.to_str().unwrap()).collect();
    let cookie = set.iter().find(|set| set.starts_with(&format!("{name}="))).unwrap_or_else(|| panic!("{reply:?}"));
    cookie.split(';').next().unwrap().to_string()
}

impl Service {
    pub fn form(&self, path: &str, cookie: &str, fields: &[(&str, &str)]) -> Reply {
        self.send("POST", path, |request| request.header(COOKIE, cookie).form(fields))
    }

    pub fn get_with(&self, path: &str, cookie: &str) -> Reply {
        self.send("GET", path, |request| request.header(COOKIE, cookie))
    }

    /// Signs in; the session's cookie.
    pub fn signed_in(&self, email: &str, password: &str) -> String {
        let reply = self.form("/login", "", &[("email", email), ("password", password)]);
        assert_eq!((reply.status, reply.header("location")), (303, "/account"), "{reply:?}");
        cookie(&reply, "cc_session")
    }

    pub fn csrf_token(&self, cookie: &str) -> String {
        self.get_with("/v2/me", cookie).data()["csrf_token"].as_str().unwrap().to_string()
    }

    /// A change with a session, and further headers.
    pub fn change(&self, method: &str, path: &str, cookie: &str, headers: &[(&str, &str)], body: &Value) -> Reply {
        self.send(method, path, |request| {
            let request = request.header(COOKIE, cookie).json(body);
            headers.iter().fold(request, |request, (name, value)| request.header(*name, *value))
        })
    }

    /// Makes a user by the API, who sets the password by the invitation. Returns their id.
    pub fn with_user(&self, email: &str, role: &str) -> String {
        let made = self.post("/v2/user", &json!({ "email": email, "role": role })).data();
        let path = made["invitation"]["path"].as_str().unwrap();
        let token = path.strip_prefix("/invitation/").unwrap();
        let page = self.ask_as(None, "GET", path, None);
        assert!(page.status == 200 && page.text.contains(email), "{page:?}");
        let set = self.form("/invitation", "", &[("token", token), ("password", PASSWORD), ("again", PASSWORD)]);
        assert_eq!(set.status, 303, "{set:?}");
        assert_eq!(self.ask_as(None, "GET", path, None).status, 410, "a link works once");
        made["id"].as_str().unwrap().to_string()
    }

    /// The first admin's link as the start printed it.
    fn first_admin_link(&self) -> Option<String> {
        std::thread::sleep(std::time::Duration::from_millis(200));
        let logged = self.logged();
        let line = logged.lines().find(|line| line.starts_with("first admin"))?;
        Some(line[line.find(&self.url)? + self.url.len()..].trim().to_string())
    }
}

fn with_input(project: &Project, arguments: &[&str], input: &str) -> Ran {
    let mut command = project.command(arguments);
    let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    process.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    process.wait_with_output().unwrap().into()
}

#[test]
fn the_first_start_prints_a_link_that_founds_one_admin() {
    let project = Project::new();
    let service = Service::start(&project);
    let link = service.first_admin_link().unwrap();
    let secret = link.strip_prefix("/first-admin?token=").unwrap().to_string();
    let page = service.ask_as(None, "GET", &link, None);
    assert_eq!((page.status, page.header("referrer-policy")), (200, "same-origin"));
    let policy = page.header("content-security-policy");
    assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    assert!(!page.text.contains("<script") && page.text.contains("<html lang=\"en\">"), "{}", page.text);
    let found = |email: &str, password: &str, again: &str| {
        let fields =
            [("token", secret.as_str()), ("email", email), ("name", "Ada"), ("password", password), ("again", again)];
        service.form("/first-admin", "", &fields)
    };
    assert!(found("ada@example.com", PASSWORD, "another").text.contains("not alike"));
    assert!(found("ada@example.com", "short", "short").text.contains("at least 12 characters"));
    let founded = found("Ada@example.com", PASSWORD, PASSWORD);
    assert_eq!(founded.status, 303, "{founded:?}");
    let me = service.get_with("/v2/me", &cookie(&founded, "cc_session")).data();
    assert_eq!((&me["actor"], &me["role"]), (&json!("user:ada@example.com"), &json!("admin")));
    assert_eq!(found("eve@example.com", PASSWORD, PASSWORD).status, 410);
    assert_eq!(service.ask_as(None, "GET", &link, None).status, 410);
    assert_eq!(service.stop(), 0);
    assert_eq!(Service::start(&project).first_admin_link(), None);
}

#[test]
fn a_wrong_password_and_an_unknown_user_are_answered_alike_and_slowed_down() {
    let project = Project::new();
    project.cc(&["user", "add", "ada@example.com", "--role", "viewer"]).ok();
    with_input(&project, &["user", "set-password", "ada@example.com"], &format!("{PASSWORD}\n")).ok();
    let service = Service::start(&project);
    let log_in = |email: &str, password: &str| service.form("/login", "", &[("email", email), ("password", password)]);
    let (wrong, unknown) = (log_in("ada@example.com", "wrong"), log_in("nobody@example.com", "wrong"));
    assert_eq!((wrong.status, unknown.status), (401, 401));
    assert_eq!(wrong.text, unknown.text.replace("nobody@example.com", "ada@example.com"));
    assert!(wrong.headers.get(SET_COOKIE).is_none());
    let failures: Vec<Reply> = (0..12).map(|_| log_in("ada@example.com", "wrong")).collect();
    assert!(failures[..4].iter().all(|reply| reply.status == 401), "people mistype");
    let slowed = failures.last().unwrap();
    assert_eq!(slowed.status, 429, "{slowed:?}");
    assert!(slowed.header("retry-after").parse::<u64>().unwrap() >= 1);
    assert!(!service.logged().contains("ada@example.com"), "what was typed is not logged");
}

#[test]
fn a_session_may_read_and_changes_need_its_token_and_its_own_page() {
    let project = Project::new();
    let service = Service::start(&project);
    service.with_user("ada@example.com", "admin");
    let cookie = service.signed_in("Ada@Example.com", PASSWORD);
    assert_eq!(service.get_with("/v2/user", &cookie).data()[0]["email"], "ada@example.com");
    let csrf = service.csrf_token(&cookie);
    let new = json!({ "email": "bob@example.com", "role": "viewer" });
    let make = |headers: &[(&str, &str)]| service.change("POST", "/v2/user", &cookie, headers, &new);
    let (right, csrf_of_other) =
        (("x-csrf-token", csrf.as_str()), service.csrf_token(&service.signed_in("ada@example.com", PASSWORD)));
    assert_eq!(make(&[]).error(403), "forbidden");
    assert_eq!(make(&[("x-csrf-token", &csrf_of_other)]).error(403), "forbidden");
    assert_eq!(make(&[right, ("sec-fetch-site", "cross-site")]).error(403), "forbidden");
    assert_eq!(make(&[right, ("origin", "https://evil.example")]).error(403), "forbidden");
    assert_eq!(make(&[right, ("origin", &service.url)]).status, 201);
    // signing in from another site's page, as somebody of its choice
    let foreign = service.send("POST", "/login", |request| {
        request.header("sec-fetch-site", "cross-site").form(&[("email", "ada@example.com"), ("password", PASSWORD)])
    });
    assert_eq!(foreign.status, 403);
    assert_eq!(service.form("/logout", &cookie, &[]).status, 403, "another site cannot sign anybody out");
    let out = service.form("/logout", &cookie, &[("csrf_token", &csrf)]);
    assert_eq!((out.status, out.header("location")), (303, "/login"));
    assert_eq!(service.get_with("/v2/me", &cookie).error(401), "unauthorized");
    let account = service.get_with("/account", &cookie);
    assert_eq!((account.status, account.header("location")), (303, "/login?next=/account"));
}

#[test]
fn a_new_password_ends_the_sessions_elsewhere() {
    let project = Project::new();
    let service = Service::start(&project);
    service.with_user("ada@example.com", "viewer");
    let (here, elsewhere) =
        (service.signed_in("ada@example.com", PASSWORD), service.signed_in("ada@example.com", PASSWORD));
    let csrf = service.csrf_token(&here);
    let fields = [
        ("csrf_token", csrf.as_str()),
        ("old_password", PASSWORD),
        ("password", "quite another one"),
        ("again", "quite another one"),
    ];
    let changed = service.form("/account/password", &here, &fields);
    assert!(changed.status == 200 && changed.text.contains("was changed"), "{changed:?}");
    assert_eq!(service.get_with("/v2/me", &here).status, 200);
    assert_eq!(service.get_with("/v2/me", &elsewhere).status, 401);
    let back = json!({ "old_password": "quite another one", "new_password": PASSWORD });
    let api = service.change("PUT", "/v2/me/password", &here, &[("x-csrf-token", &csrf)], &back);
    assert_eq!(api.status, 200, "{api:?}");
    assert_eq!(service.put("/v2/me/password", &back).error(403), "forbidden");
    service.signed_in("ada@example.com", PASSWORD);
}

#[test]
fn users_are_made_changed_and_removed_and_the_last_admin_stays() {
    let project = Project::new();
    let service = Service::start(&project);
    let ada = service.with_user("ada@example.com", "admin");
    assert_eq!(
        service.post("/v2/user", &json!({ "email": "ADA@example.com", "role": "viewer" })).error(409),
        "email-taken"
    );
    assert_eq!(service.post("/v2/user", &json!({ "email": "x", "role": "viewer" })).error(400), "invalid");
    assert_eq!(service.post("/v2/user", &json!({ "email": "x@example.com", "role": "public" })).error(400), "invalid");
    assert_eq!(service.post("/v2/user", &json!({ "email": "x@example.com", "role": "boss" })).error(400), "invalid");
    let path = format!("/v2/user/{ada}");
    assert_eq!(service.put(&path, &json!({ "role": "viewer" })).error(409), "last-admin");
    assert_eq!(service.delete(&path).error(409), "last-admin");
    let bob = service.with_user("bob@example.com", "viewer");
    let bob = format!("/v2/user/{bob}");
    let read = service.get(&bob);
    let etag = read.header("etag").to_string();
    let change = |role: &str| {
        service.send("PUT", &bob, |request| {
            request.bearer_auth(&service.token).header("if-match", &etag).json(&json!({ "role": role }))
        })
    };
    assert_eq!(change("editor").data()["role"], "editor");
    assert_eq!(change("viewer").error(412), "changed-meanwhile");
    let cookie = service.signed_in("bob@example.com", PASSWORD);
    assert_eq!(service.put(&bob, &json!({ "disabled": true })).data()["disabled"], true);
    assert_eq!(service.get_with("/v2/me", &cookie).status, 401);
    assert_eq!(service.delete(&bob).status, 200);
    assert_eq!(service.get(&bob).error(404), "not-found");
    let emails: Vec<Value> =
        service.get("/v2/user?limit=1").data().as_array().unwrap().iter().map(|user| user["email"].clone()).collect();
    assert_eq!(emails, ["ada@example.com"]);
}

#[test]
fn tokens_are_shown_once_narrowed_paged_and_revoked() {
    let project = Project::new();
    let service = Service::start(&project);
    let new = json!({ "label": "ci", "role": "editor", "scopes": ["models:read", "models:run"], "expires_in": "30d" });
    let create = |key: &str| {
        service.send("POST", "/v2/token", |request| {
            request.bearer_auth(&service.token).header("idempotency-key", key).json(&new)
        })
    };
    let made = create("once").data();
    let (id, text) = (made["id"].as_str().unwrap(), made["token"].as_str().unwrap());
    assert_eq!(create("once").error(409), "done-already");
    let me = service.ask_as(Some(text), "GET", "/v2/me", None).data();
    assert_eq!(me["permissions"], json!(["models:read", "models:run"]));
    assert_eq!(me["actor"], format!("token:ci#{id}"));
    assert!(me["csrf_token"].is_null());
    // this field's clients send it without `Bearer`
    let plain = service.send("GET", "/v2/me", |request| request.header("authorization", text));
    assert_eq!(plain.status, 200);
    let list = service.get("/v2/token?limit=1");
    assert_eq!(list.data()[0]["id"], *id, "newest first");
    let cursor = list.json()["_meta"]["next_cursor"].as_str().unwrap().to_string();
    let rest = service.get(&format!("/v2/token?cursor={cursor}"));
    assert!(rest.data().as_array().unwrap().iter().all(|token| token["id"] != *id));
    let path = format!("/v2/token/{id}");
    assert_eq!(service.delete(&path).data()["status"], "revoked");
    assert_eq!(service.ask_as(Some(text), "GET", "/v2/me", None).error(401), "unauthorized");
    assert_eq!(service.delete(&path).error(409), "already-revoked");
    for bad in [
        json!({ "role": "viewer", "scopes": ["models:write"] }),
        json!({ "role": "viewer", "expires_in": "2y" }),
        json!({ "role": "viewer", "expires_in": "soon" }),
        json!({ "role": "viewer", "expires_in": "1d", "no_expiry": true }),
        json!({ "role": "viewer", "expires": "1d" }),
    ] {
        assert_eq!(service.post("/v2/token", &bad).error(400), "invalid", "{bad}");
    }
    let clerk = token(&project, &["--role", "admin", "--scope", "people:write"]);
    let more = service.ask_as(Some(&clerk), "POST", "/v2/token", Some(&json!({ "role": "viewer" })));
    assert_eq!(more.error(403), "forbidden", "nobody gives more than they have");
    let elsewhere = project.cc(&["token", "list", "--output", "json"]).ok().json();
    assert!(elsewhere.as_array().unwrap().len() >= 3);
    // neither the catalog nor a log holds what opens the door
    let secret = secret_of(text);
    assert!(!service.logged().contains(secret) && !elsewhere.to_string().contains(secret));
    for file in std::fs::read_dir(project.store()).unwrap().flatten().filter(|file| file.path().is_file()) {
        let bytes = std::fs::read(file.path()).unwrap();
        let found = |needle: &str| bytes.windows(needle.len()).any(|window| window == needle.as_bytes());
        assert!(!found(secret) && !found(secret_of(&service.token)), "{:?}", file.path());
    }
}

#[test]
fn users_are_managed_at_the_command_line_too() {
    let project = Project::new();
    let added = project.cc(&["user", "add", "Ada@example.com", "--role", "data-manager", "--name", "Ada"]).ok();
    assert!(added.stdout.starts_with("/invitation/") && added.stdout.lines().count() == 1, "{added:?}");
    let set = |password: &str| with_input(&project, &["user", "set-password", "ada@example.com"], password);
    assert_eq!(set("short\n").code, Some(2));
    set(&format!("{PASSWORD}\n")).ok();
    let listed = project.cc(&["user", "list", "--output", "json"]).ok().json();
    assert_eq!((&listed[0]["email"], &listed[0]["role"]), (&json!("ada@example.com"), &json!("data_manager")));
    assert_eq!(listed[0]["has_password"], true);
    project.cc(&["user", "set-role", "ada@example.com", "admin"]).ok();
    let last = project.cc(&["user", "disable", "ada@example.com"]);
    assert!(last.code == Some(2) && last.stderr.contains("make somebody else an admin first"), "{last:?}");
    assert!(project.cc(&["user", "list"]).ok().stdout.contains("admin"));
    let wrong = project.cc(&["user", "add", "bob@example.com", "--role", "edtior"]);
    assert!(wrong.code == Some(2) && wrong.stderr.contains("did you mean `editor`?"), "{wrong:?}");
    assert_eq!(project.cc(&["user", "remove", "nobody@example.com"]).code, Some(2));
}
