//! Authorizations over HTTP, the keys that seal them, and the audit trail.

use serde_json::{Value, json};

use super::Service;
use crate::project::{Project, Ran};

fn make(service: &Service, id: &str) -> Value {
    let body = json!({ "label": format!("Authorization {id}"), "config": { "password": format!("sesame of {id}"), "user": "reader" } });
    service.post(&format!("/v2/auth/postgres/{id}"), &body).data()
}

#[test]
fn values_go_in_are_replaced_one_by_one_and_never_come_out() {
    let project = Project::new();
    let service = Service::start(&project);
    let made = service.post(
        "/v2/auth",
        &json!({ "type": "redshift", "label": "Ware House", "config": { "password": "sesame", "user": "u" } }),
    );
    assert_eq!((made.status, made.header("etag")), (201, "\"1\""));
    let data = made.data();
    assert_eq!(
        (&data["id"], &data["parameters"], &data["status"]),
        (&json!("ware_house"), &json!(["password", "user"]), &json!("healthy"))
    );
    let path = "/v2/auth/redshift/ware_house";
    let changed = service.put(path, &json!({ "config": { "s3_session_token": "sesame 2", "user": null } })).data();
    assert_eq!((&changed["parameters"], &changed["revision"]), (&json!(["password", "s3_session_token"]), &json!(2)));
    let same = service.put(path, &json!({ "label": "Ware House" })).data();
    assert_eq!(same["revision"], 2);
    let stale = service.send("DELETE", path, |r| r.bearer_auth(&service.token).header("if-match", "\"1\""));
    assert_eq!(stale.error(412), "changed-meanwhile");
    assert_eq!(
        service.put(path, &json!({ "config": { "password": null, "s3_session_token": null } })).error(400),
        "empty"
    );
    assert_eq!(service.get("/v2/auth/postgres/ware_house").error(404), "not-found");

    for (body, code) in [
        (json!({ "type": "redshift", "label": "x", "config": { "passwort": "sesame" } }), "unknown-parameter"),
        (json!({ "type": "redshift", "label": "x", "config": { "port": "sesame" } }), "invalid-parameter"),
        (json!({ "type": "redshift", "label": "x", "config": { "password": ["sesame"] } }), "invalid-parameter"),
        (json!({ "type": "redshift", "label": "x", "config": { "password": "" } }), "invalid-parameter"),
        (json!({ "type": "redshift", "label": "x", "config": { "ssl_root_cert": "../sesame" } }), "outside-project"),
        (json!({ "type": "redshift", "label": "x", "config": {} }), "empty"),
        (json!({ "type": "redshift", "label": " ", "config": { "password": "sesame" } }), "invalid-label"),
        (json!({ "type": "oracle", "label": "x", "config": { "password": "sesame" } }), "unknown-type"),
        (json!({ "label": "x", "config": { "password": "sesame" } }), "no-type"),
        (json!({ "type": "redshift", "label": "x", "config": "sesame" }), "invalid"),
        (
            json!({ "type": "redshift", "label": "x", "config": { "password": "sesame" }, "secret": "sesame" }),
            "invalid",
        ),
    ] {
        let refused = service.post("/v2/auth", &body);
        assert_eq!(refused.error(400), code, "{body}");
        assert!(!refused.text.contains("sesame"), "{refused:?}");
    }
    make(&service, "x");
    assert_eq!(
        service.post("/v2/auth/postgres/x", &json!({ "label": "x", "config": { "password": "p" } })).error(409),
        "id-taken"
    );
    assert_eq!(
        service.post("/v2/auth/postgres/a%2Fb", &json!({ "label": "x", "config": { "password": "p" } })).error(400),
        "invalid-id"
    );
    for path in ["/v2/auth", path, "/v2/event?kind=authorization"] {
        let shown = service.get(path);
        assert!(shown.status == 200 && !shown.text.contains("sesame"), "{shown:?}");
    }
    assert!(!service.logged().contains("sesame"));
    assert_eq!(service.delete(path).data(), json!({ "id": "ware_house", "deleted": true }));
}

#[test]
fn a_connection_follows_what_its_authorization_holds() {
    let project = Project::new();
    let service = Service::start(&project);
    let auth = json!({ "label": "a", "config": { "password": "p" } });
    service.post("/v2/auth/postgres/a", &auth).data();
    let config = json!({ "host": "db", "database": "d", "user": "u" });
    let body = json!({ "label": "c", "provider_slug": "postgres", "auth_ids": ["a"], "config": config });
    service.post("/v2/connection", &body).data();
    assert_eq!(service.put("/v2/auth/postgres/a", &json!({ "config": { "user": "v" } })).error(400), "given-twice");
    service
        .put("/v2/connection/c", &json!({ "config": { "host": "db", "database": "d", "user": "u", "port": 5433 } }))
        .data();
    service.put("/v2/auth/postgres/a", &json!({ "config": { "sslmode": "disable" } })).data();
    let names = |connection: &Value| -> Vec<String> {
        let secrets = connection["secrets"].as_array().unwrap();
        secrets.iter().map(|secret| secret["name"].as_str().unwrap().to_string()).collect()
    };
    let followed = service.get("/v2/connection/c").data();
    assert_eq!((names(&followed), &followed["revision"]), (vec!["password".into(), "sslmode".into()], &json!(3)));
    assert_eq!(service.get("/v2/auth/postgres/a").data()["connections"], json!(["c"]));
    for (auth_ids, code) in [(json!(["a", "a"]), "named-twice"), (json!(["b"]), "unknown-authorization")] {
        assert_eq!(service.put("/v2/connection/c", &json!({ "auth_ids": auth_ids })).error(400), code);
    }
    service.post("/v2/auth/redshift/r", &auth).data();
    assert_eq!(service.put("/v2/connection/c", &json!({ "auth_ids": ["r"] })).error(400), "other-provider");
}

#[test]
fn the_command_line_opens_what_the_files_use_and_makes_no_state_for_it() {
    let project = Project::new();
    let app = "connections:\n  app: { type: postgres, host: 127.0.0.1, port: 9, database: d, user: u, sslmode: disable, \
               password: '${auth:a/password}' }\n";
    project.write("cloud-connect.yml", &format!("profile: {{ identities: [email] }}\n{app}"));
    let check = || project.cc(&["check"]);
    let lacking = check();
    assert!(lacking.code == Some(2) && lacking.stderr.contains("no authorization `a`"), "{lacking:?}");
    assert!(!project.store().exists(), "a check writes nothing");
    let service = Service::start(&project);
    make(&service, "a");
    check().ok();
    // opened, and asked: nobody listens at that port
    let asked = project.cc(&["connection", "test", "app"]);
    assert!(asked.code == Some(1) && asked.stdout.contains("127.0.0.1:9"), "{asked:?}");
}

#[test]
fn a_rotation_that_dies_at_any_step_leaves_everything_open() {
    let project = Project::new();
    let service = Service::start(&project);
    make(&service, "one");
    make(&service, "two");
    assert_eq!(service.stop(), 0);
    let healthy = || {
        let service = Service::start(&project);
        let all = service.get("/v2/auth").data();
        assert!(all.as_array().unwrap().iter().all(|one| one["status"] == "healthy"), "{all}");
        all.as_array().unwrap().len()
    };
    for place in ["key-added", "key-resealed"] {
        let died: Ran =
            project.command(&["key", "rotate"]).env("CLOUD_CONNECT_ABORT_AT", place).output().unwrap().into();
        assert_eq!(died.code, None, "{place}: {died:?}");
        assert_eq!(healthy(), 2, "{place}");
    }
    project.cc(&["key", "rotate"]).ok();
    assert_eq!(healthy(), 2);
    let keys = project.cc(&["key", "list", "--output", "json"]).ok().json();
    assert_eq!(keys.as_array().unwrap().len(), 1, "{keys}");
    assert_eq!((&keys[0]["state"], &keys[0]["authorizations"]), (&json!("seals"), &json!(2)));
}

#[test]
fn keys_of_the_environment_are_replaced_by_hand() {
    let project = Project::new();
    let key = || project.cc(&["key", "generate"]).ok().stdout.trim().to_string();
    let (old, new) = (key(), key());
    let with = |keys: &str, args: &[&str]| -> Ran {
        project.command(args).env("CLOUD_CONNECT_KEYS", keys).output().unwrap().into()
    };
    let service = Service::start_with(&project, &[], &[("CLOUD_CONNECT_KEYS", &old)]);
    make(&service, "one");
    assert_eq!(service.stop(), 0);
    assert!(!project.store().join("sealing.keys").exists());
    let refused = with(&old, &["key", "rotate"]);
    assert_eq!(refused.code, Some(2));
    assert!(refused.stderr.contains("key generate") && refused.stderr.contains("key reseal"), "{refused:?}");
    let both = format!("{new},{old}");
    with(&both, &["key", "reseal"]).ok();
    let list = with(&new, &["key", "list", "--output", "json"]).ok().json();
    assert_eq!((list.as_array().unwrap().len(), &list[0]["authorizations"]), (1, &json!(1)), "{list}");
    // without its key an authorization says so, and can be given anew
    let service = Service::start_with(&project, &[], &[("CLOUD_CONNECT_KEYS", &old)]);
    assert_eq!(service.get("/v2/auth/postgres/one").data()["status"], "unhealthy");
    assert_eq!(service.put("/v2/auth/postgres/one", &json!({ "config": { "password": "p" } })).error(409), "sealed");
    let whole = json!({ "config": { "password": "p", "user": "u" } });
    assert_eq!(service.put("/v2/auth/postgres/one", &whole).data()["status"], "healthy");
}

#[test]
fn the_audit_trail_is_read_page_by_page_newest_first() {
    let project = Project::new();
    let service = Service::start(&project);
    for id in ["a", "b", "c"] {
        make(&service, id);
    }
    let first = service.get("/v2/event?kind=authorization&verb=created&limit=2");
    let subjects = |reply: &Value| -> Vec<String> {
        reply.as_array().unwrap().iter().map(|event| event["subject"].as_str().unwrap().to_string()).collect()
    };
    assert_eq!(subjects(&first.data()), ["c", "b"]);
    let cursor = first.json()["_meta"]["next_cursor"].as_str().unwrap().to_string();
    let second = service.get(&format!("/v2/event?kind=authorization&verb=created&limit=2&cursor={cursor}"));
    assert_eq!(
        (subjects(&second.data()), &second.json()["_meta"]["next_cursor"]),
        (vec!["a".to_string()], &Value::Null)
    );
    let one = service.get("/v2/event?subject=b").data();
    assert_eq!(
        one[0]["details"],
        json!({ "type": "postgres", "label": "Authorization b", "parameters": ["password", "user"] })
    );
    assert!(one[0]["actor"].as_str().unwrap().starts_with("token:"), "{one}");
    assert_eq!(service.get("/v2/event?kind=nothing").error(400), "unknown-kind");
    assert_eq!(service.get("/v2/event?cursor=x").error(400), "invalid-cursor");
}
