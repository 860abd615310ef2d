//! The life of a connection over HTTP: on files, and on a real PostgreSQL with sealed credentials.

use std::io::Write;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::secrets::holding;
use super::{Service, token};
use crate::postgres_server::{DATABASE, PostgresServer, READER_PASSWORD};
use crate::project::{Project, person};

/// What of the password would be found wherever it were written, quoted or not.
const TRACE: &str = "r3ader";

fn people(project: &Project) {
    let rows: Vec<Value> = (0..150).map(|i| person(&format!("p{i}"), "Bergen", i)).collect();
    project.rows("people", &rows);
}

#[test]
fn a_connection_is_made_looked_into_changed_and_removed() {
    let project = Project::new();
    people(&project);
    let service = Service::start(&project);
    let body = json!({ "label": "Shop files", "description": "what the shop writes", "provider_slug": "local", "config": { "path": "data" } });
    let made = service.post("/v2/connection", &body);
    assert_eq!((made.status, made.header("etag")), (201, "\"1\""), "{made:?}");
    let made = made.data();
    assert_eq!(made["id"], "shop_files");
    assert_eq!((&made["origin"], &made["revision"], &made["faults"]), (&json!("api"), &json!(1), &json!([])));
    assert!(made["author_id"].as_str().unwrap().starts_with("token:"), "{made}");
    assert_eq!(service.post("/v2/connection", &body).data()["id"], "shop_files_2");
    let ids = |list: &Value| -> Vec<String> {
        list.as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap().to_string()).collect()
    };
    assert_eq!(ids(&service.get("/v2/connection").data()), ["files", "shop_files", "shop_files_2"]);
    let page = service.get("/v2/connection?limit=2").json();
    let next = page["_meta"]["next_cursor"].as_str().unwrap();
    assert_eq!(ids(&service.get(&format!("/v2/connection?limit=2&cursor={next}")).data()), ["shop_files_2"]);

    let tested = service.ask("POST", "/v2/connection/shop_files/test", None).data();
    assert_eq!(tested["ok"], true, "{tested}");
    let columns = service.get("/v2/connection/shop_files/schema/people").data();
    let names: Vec<&str> = columns.as_array().unwrap().iter().map(|c| c["column_name"].as_str().unwrap()).collect();
    assert_eq!(names, ["email", "city", "spent"]);

    let stale = service.send("PUT", "/v2/connection/shop_files", |r| {
        r.bearer_auth(&service.token).header("if-match", "\"7\"").json(&json!({ "label": "x" }))
    });
    assert_eq!(stale.error(412), "changed-meanwhile");
    let changed = service
        .put("/v2/connection/shop_files", &json!({ "label": "Files of the shop", "config": { "path": "data/." } }));
    assert_eq!(changed.header("etag"), "\"2\"");
    assert_eq!(changed.data()["description"], "what the shop writes");
    assert_eq!(
        service.put("/v2/connection/shop_files", &json!({ "provider_slug": "postgres" })).error(400),
        "unchangeable"
    );

    // a model that reads through it keeps it
    let insert = "INSERT INTO definitions (kind, id, definition, created_by, created_at, updated_by, updated_at) \
                  VALUES ('model', 'm', '{\"connection\": \"shop_files\"}', 'cli', 0, 'cli', 0)";
    let catalog = project.store().join("catalog.db");
    let run = |sql: &'static str| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut db =
                <sqlx::SqliteConnection as sqlx::Connection>::connect(&catalog.display().to_string()).await.unwrap();
            sqlx::query(sql).execute(&mut db).await.unwrap();
        });
    };
    run(insert);
    assert_eq!(service.delete("/v2/connection/shop_files").error(409), "in-use");
    run("DELETE FROM definitions WHERE kind = 'model'");
    assert_eq!(service.delete("/v2/connection/shop_files").data(), json!({ "id": "shop_files", "deleted": true }));
    assert_eq!(service.get("/v2/connection/shop_files").error(404), "not-found");

    let logs = service.get("/v2/connection/shop_files/logs").data();
    let verbs: Vec<&str> = logs.as_array().unwrap().iter().map(|event| event["verb"].as_str().unwrap()).collect();
    assert_eq!(verbs, ["deleted", "updated", "tested", "created"]);
    assert_eq!(logs[1]["details"]["config.path"], json!({ "from": "data", "to": "data/." }));
    assert_eq!(service.get("/v2/connection/nothing/logs").error(404), "not-found");
}

#[test]
fn a_connection_of_the_files_is_shown_and_not_changed() {
    let project = Project::with_people(&[person("ada", "Oslo", 1), person("ben", "Oslo", 2)]);
    project.run(&[]);
    let service = Service::start(&project);
    let shown = service.get("/v2/connection/files").data();
    assert_eq!((&shown["origin"], &shown["config"]), (&json!("files"), &json!({ "path": "data" })));
    for (method, body) in [("PUT", Some(json!({ "label": "x" }))), ("DELETE", None)] {
        let refused = service.ask(method, "/v2/connection/files", body.as_ref());
        assert_eq!(refused.error(409), "defined-in-files");
        assert!(refused.text.contains("cloud-connect.yml"), "{refused:?}");
    }
    let summary = service.get("/v2/connection/files/summary").data();
    assert_eq!((&summary["active_models"], &summary["inactive_models"]), (&json!(["people"]), &json!([])));
    assert_eq!((&summary["tables"], &summary["provider_slug"]), (&json!(1), &json!("local")), "{summary}");
    let usage = summary["usage"].as_array().unwrap();
    assert_eq!(usage.len(), 30);
    let total: u64 = usage.iter().map(|day| day["rows"].as_u64().unwrap()).sum();
    assert_eq!(total, 2);
}

#[test]
fn a_scan_reads_so_many_rows_so_often() {
    let project = Project::new();
    people(&project);
    let service = Service::start(&project);
    let scan = |limit: &str, query: &str, keys: &[&str]| {
        service.post(&format!("/v2/connection/files/scan{limit}"), &json!({ "query": query, "primary_keys": keys }))
    };
    let sample = scan("", "SELECT email, spent, spent / 3.0 AS share FROM people;", &["email"]).data();
    assert_eq!((&sample["row_count"], sample["rows"].as_array().unwrap().len()), (&json!(20), 20));
    assert_eq!(sample["columns"][1], json!({ "column_name": "spent", "column_datatype": "int" }));
    assert_eq!(sample["primary_keys"], json!({ "nulls": 0, "duplicates": 0 }));
    assert!(sample["rows"][0][1].is_number(), "{sample}");
    assert_eq!(scan("?limit=1000", "SELECT * FROM people", &[]).data()["row_count"], 100);
    assert_eq!(scan("?limit=3", "SELECT city FROM people", &["city"]).data()["primary_keys"]["duplicates"], 2);
    assert_eq!(scan("", "SELECT email FROM people", &["mail"]).error(400), "unknown-column");
    for refused in
        ["DROP TABLE people", "INSERT INTO people SELECT * FROM people", "SELECT 1; SELECT 2", "COPY people TO 'x.csv'"]
    {
        assert_eq!(scan("", refused, &[]).error(422), "warehouse", "{refused}");
    }
    assert_eq!(scan("", " ; ", &[]).error(400), "no-query");
    assert_eq!(scan("", "SELECT 1", &[]).status, 200);
    assert_eq!(scan("", "SELECT 1", &[]).status, 200);
    let slowed = scan("", "SELECT 1", &[]);
    assert_eq!(slowed.error(429), "too-many-requests");
    assert!((1..=10).contains(&slowed.header("retry-after").parse::<u64>().unwrap()));
    let viewer = token(&project, &["--role", "viewer"]);
    let body = json!({ "query": "SELECT 1" });
    assert_eq!(service.ask_as(Some(&viewer), "POST", "/v2/connection/files/scan", Some(&body)).error(403), "forbidden");
}

#[test]
fn tables_are_asked_for_once_in_a_while() {
    let project = Project::new();
    people(&project);
    let service = Service::start(&project);
    let tables = |path: &str| service.get(&format!("/v2/connection/{path}")).data();
    let first = tables("files/schema");
    assert_eq!(first[0]["table_name"], "people");
    assert_eq!(
        (&first[0]["fully_qualified_name"], &first[0]["num_columns"], &first[0]["error"]),
        (&json!("people"), &Value::Null, &Value::Null)
    );
    project.rows("orders", &[json!({ "id": 1 })]);
    assert_eq!(tables("files/schema").as_array().unwrap().len(), 1);
    assert_eq!(tables("files/schema?refresh=true").as_array().unwrap().len(), 2);
    // a connection that leads elsewhere is asked anew
    project.write("more/a.csv", "x\n1\n");
    service
        .post("/v2/connection", &json!({ "label": "c", "provider_slug": "local", "config": { "path": "data" } }))
        .data();
    assert_eq!(tables("c/schema").as_array().unwrap().len(), 2);
    service.put("/v2/connection/c", &json!({ "config": { "path": "more" } })).data();
    assert_eq!(tables("c/schema")[0]["table_name"], "a");
    assert_eq!(service.get("/v2/connection/files/schema/nothing").error(422), "warehouse");
}

#[test]
fn what_comes_over_the_network_reads_neither_the_servers_files_nor_its_environment() {
    let project = Project::new();
    people(&project);
    std::os::unix::fs::symlink("/etc", project.path().join("link")).unwrap();
    let service = Service::start(&project);
    let make = |slug: &str, config: Value| {
        service.post("/v2/connection", &json!({ "label": "x", "provider_slug": slug, "config": config }))
    };
    for path in ["/etc", "../..", "data/../../..", "link", "link/ssl", "file:///etc", "http://127.0.0.1/"] {
        assert_eq!(make("local", json!({ "path": path })).error(400), "outside-project", "{path}");
    }
    for path in [".", ".cloud-connect", "./.cloud-connect/records"] {
        assert_eq!(make("local", json!({ "path": path })).error(400), "own-state", "{path}");
    }
    let postgres = |more: (&str, &str)| {
        let mut config = json!({ "host": "db", "database": "d", "user": "u" });
        config[more.0] = more.1.into();
        make("postgres", config)
    };
    for value in ["${env:HOME}", "${file:/etc/passwd}", "a${file:cloud-connect.yml}", "${auth:x/password}"] {
        assert_eq!(postgres(("user", value)).error(400), "reference", "{value}");
    }
    assert_eq!(postgres(("ssl_root_cert", "/etc/passwd")).error(400), "outside-project");
    let secret = postgres(("password", "hunter2"));
    assert_eq!(secret.error(400), "secret-in-config");
    assert!(!secret.text.contains("hunter2") && secret.text.contains("/v2/auth"), "{secret:?}");
    assert_eq!(postgres(("pasword", "hunter2")).error(400), "unknown-parameter");
    assert_eq!(postgres(("port", "99999")).error(400), "invalid-parameter");
    let wrong =
        service.post("/v2/connection", &json!({ "label": "x", "provider_slug": "postgres", "config": "hunter2" }));
    assert!(wrong.status == 400 && !wrong.text.contains("hunter2"), "{wrong:?}");
    let stand_in = json!({ "host": "http://127.0.0.1:9000", "http_path": "/sql/1.0/warehouses/a" });
    assert_eq!(make("databricks", stand_in).error(400), "private-address");
    assert_eq!(make("nothing", json!({})).error(400), "unknown-type");
    assert_eq!(service.get("/v2/connection").data().as_array().unwrap().len(), 1);
    assert!(!service.logged().contains("hunter2"));
    assert_eq!(holding(&project.store(), "hunter2"), Vec::<std::path::PathBuf>::new());
}

#[test]
fn the_types_of_connections_say_what_they_take() {
    let project = Project::new();
    let service = Service::start(&project);
    let types = service.get("/v2/connectionconfig").data();
    assert_eq!(types.as_array().unwrap().len(), 6);
    let postgres = service.get("/v2/connectionconfig/postgres").data();
    let password = postgres["parameters"].as_array().unwrap().iter().find(|p| p["name"] == "password").unwrap().clone();
    assert_eq!(
        (&password["kind"], &password["secret"], &password["required"]),
        (&json!("secret"), &json!(true), &json!(false))
    );
    assert_eq!(service.get("/v2/connectionconfig/mysql").error(404), "not-found");
}

pub fn database() -> PostgresServer {
    let server = PostgresServer::start(false);
    server.psql(
        DATABASE,
        "CREATE TABLE people (id bigint, email text, spent numeric(30,2), tags text[], extra jsonb);
         GRANT SELECT ON people TO reader;
         INSERT INTO people SELECT 9007199254740993 + i, 'p' || i || '@example.com', i + 0.25, ARRAY['a', 'b'], jsonb_build_object('n', i)
         FROM generate_series(1, 50) i;",
    );
    server
}

pub fn connect(service: &Service, server: &PostgresServer, password: &str) {
    let auth = json!({ "label": "App DB reader", "config": { "password": password } });
    assert_eq!(service.post("/v2/auth/postgres/reader", &auth).status, 201);
    let config = json!({ "host": "127.0.0.1", "port": server.port, "database": DATABASE, "user": "reader", "sslmode": "disable" });
    let connection =
        json!({ "label": "App DB", "provider_slug": "postgres", "auth_ids": ["reader"], "config": config });
    let made = service.post("/v2/connection", &connection).data();
    assert_eq!(made["secrets"], json!([{ "name": "password", "auth_id": "reader" }]));
    assert_eq!(made["config"], config);
}

#[test]
fn a_password_is_used_and_found_nowhere() {
    let server = database();
    let project = Project::new();
    let service = Service::start_with(&project, &[], &[("CLOUD_CONNECT_LOG", "debug")]);
    connect(&service, &server, "wr0ng-r3ader");
    let test = || service.ask("POST", "/v2/connection/app_db/test", None);
    let mut seen = vec![test()];
    assert_eq!(seen[0].data()["ok"], false);
    let keyed = |key: &str| {
        service.send("POST", "/v2/auth", |r| {
            let body = json!({ "type": "postgres", "label": "Other", "config": { "password": READER_PASSWORD } });
            r.bearer_auth(&service.token).header("idempotency-key", key).json(&body)
        })
    };
    seen.extend([keyed("k"), keyed("k")]);
    assert_eq!((seen[2].status, seen[2].header("idempotent-replayed")), (201, "true"));
    seen.push(service.put("/v2/auth/postgres/reader", &json!({ "config": { "password": READER_PASSWORD } })));
    assert_eq!(seen[3].data()["status"], "healthy");
    seen.push(test());
    assert_eq!(seen[4].data()["ok"], true, "{}", seen[4].text);
    let query =
        json!({ "query": "SELECT id, email, spent, tags, extra FROM people ORDER BY id", "primary_keys": ["id"] });
    seen.push(service.post("/v2/connection/app_db/scan?limit=1", &query));
    let sample = seen[5].data();
    assert_eq!(sample["rows"][0], json!([9_007_199_254_740_994_i64, "p1@example.com", "1.25", ["a", "b"], { "n": 1 }]));
    assert_eq!(sample["columns"][2]["column_datatype"], "decimal(30,2)");
    for path in [
        "/v2/auth",
        "/v2/auth/postgres/reader",
        "/v2/connection",
        "/v2/connection/app_db",
        "/v2/connection/app_db/schema",
        "/v2/connection/app_db/logs",
        "/v2/connection/app_db/summary",
        "/v2/event",
        "/openapi.json",
    ] {
        seen.push(service.get(path));
    }
    assert_eq!(service.delete("/v2/auth/postgres/reader").error(409), "in-use");

    // the key is replaced while the service runs, and again while it does not
    project.cc(&["key", "rotate"]).ok();
    assert_eq!(service.get("/v2/auth/postgres/reader").data()["status"], "healthy");
    assert_eq!(service.post("/v2/connection/app_db/scan", &query).status, 200);
    seen.push(service.put("/v2/auth/postgres/reader", &json!({ "label": "Reader" })));
    assert_eq!(service.post("/v2/connection/app_db/scan", &query).status, 200);
    for reply in &seen {
        assert!(!reply.text.contains(TRACE), "{reply:?}");
    }
    let logged = service.logged();
    assert!(!logged.contains(TRACE), "{logged}");
    assert_eq!(holding(project.path(), TRACE), Vec::<std::path::PathBuf>::new());
    assert_eq!(service.stop(), 0);
    assert_eq!(holding(project.path(), TRACE), Vec::<std::path::PathBuf>::new());

    project.cc(&["key", "rotate"]).ok();
    let service = Service::start(&project);
    assert_eq!(service.post("/v2/connection/app_db/scan", &query).status, 200);
    assert_eq!(service.delete("/v2/connection/app_db").status, 200);
    assert_eq!(service.delete("/v2/auth/postgres/reader").status, 200);
}

#[test]
fn a_scan_ends_in_the_warehouse_when_its_client_goes_away() {
    let server = database();
    let project = Project::new();
    let service = Service::start(&project);
    connect(&service, &server, READER_PASSWORD);
    let active = || {
        let query = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'reader' AND state = 'active'";
        server.psql(DATABASE, query).trim().to_string()
    };
    let wait_for = |wanted: &str| {
        let end = Instant::now() + Duration::from_secs(20);
        while active() != wanted {
            assert!(Instant::now() < end, "still not {wanted}: {}", service.logged());
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    let body = json!({ "query": "SELECT email FROM people, pg_sleep(120)" }).to_string();
    let mut client = std::net::TcpStream::connect(service.url.trim_start_matches("http://")).unwrap();
    write!(
        client,
        "POST /v2/connection/app_db/scan HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        service.token,
        body.len()
    )
    .unwrap();
    wait_for("1");
    drop(client);
    wait_for("0");
}

#[test]
fn whoever_may_not_manage_credentials_may_not_say_where_they_are_sent() {
    let project = Project::new();
    let service = Service::start(&project);
    let auth = json!({ "label": "a", "config": { "password": "x" } });
    service.post("/v2/auth/postgres/a", &auth).data();
    let narrow =
        token(&project, &["--role", "data_manager", "--scope", "connections:write", "--scope", "connections:read"]);
    let body = |auth_ids: Value, host: &str| json!({ "label": "c", "provider_slug": "postgres", "auth_ids": auth_ids, "config": { "host": host, "database": "d", "user": "u" } });
    let ask = |method: &str, path: &str, body: &Value| service.ask_as(Some(&narrow), method, path, Some(body));
    assert_eq!(ask("POST", "/v2/connection", &body(json!(["a"]), "evil.example.com")).error(403), "forbidden");
    assert_eq!(ask("POST", "/v2/connection", &body(json!([]), "db.example.com")).status, 201);
    assert_eq!(ask("PUT", "/v2/connection/c", &json!({ "auth_ids": ["a"] })).error(403), "forbidden");
    service.put("/v2/connection/c", &json!({ "auth_ids": ["a"] })).data();
    let config = &body(json!([]), "evil.example.com")["config"];
    assert_eq!(ask("PUT", "/v2/connection/c", &json!({ "config": config })).error(403), "forbidden");
    assert_eq!(ask("PUT", "/v2/connection/c", &json!({ "label": "Mine" })).status, 200);
    assert_eq!(service.get("/v2/connection/c").data()["config"]["host"], "db.example.com");
}
