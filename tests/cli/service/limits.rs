//! Limits: how often a caller may ask, and what a query may take.

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Reply, Service, token};
use crate::project::{Project, person};

/// A service with so many people in it.
fn serve(people: i64, arguments: &[&str]) -> (Project, Service) {
    let rows: Vec<Value> = (0..people).map(|i| person(&format!("p{i}"), "Bonn", i)).collect();
    let project = Project::with_people(&rows);
    assert_eq!(project.run(&[])["status"], "published");
    let service = Service::start_with(&project, arguments, &[]);
    (project, service)
}

/// Asks until it is refused. Returns how often it was not, and the refusal.
fn exhaust(service: &Service, token: &str, path: &str) -> (u32, Reply) {
    for passed in 0..1000 {
        let reply = service.ask_as(Some(token), "GET", path, None);
        if reply.status == 429 {
            return (passed, reply);
        }
        assert_eq!(reply.status, 200, "{reply:?}");
    }
    panic!("{path} has no limit");
}

#[test]
fn who_asks_too_often_waits_and_nobody_else_does() {
    let (project, service) = serve(1, &["--rate-limit", "2", "--lookup-rate-limit", "3"]);
    let (hasty, other) = (token(&project, &["--role", "admin"]), token(&project, &["--role", "admin"]));
    let (list, lookup) = ("/v2/datamodel", "/v2/entity/user/email/p0@example.com");
    let status = |token: &str, path: &str| service.ask_as(Some(token), "GET", path, None).status;

    let begun = Instant::now();
    let (passed, refused) = exhaust(&service, &hasty, list);
    // a burst of two seconds' worth, and what came in meanwhile
    let most = 4 + (begun.elapsed().as_secs_f64() * 2.0).ceil() as u32;
    assert!((4..=most).contains(&passed), "{passed} passed, of at most {most}");
    assert_eq!(refused.error(429), "too-many-requests");
    let answer = refused.json();
    assert_eq!((&answer["status"], &answer["request_id"]), (&json!(429), &json!(refused.header("x-request-id"))));
    let error = &answer["errors"][0];
    assert!(error["hint"].as_str().unwrap().contains("Retry-After"), "{error}");
    assert_eq!((&error["level"], error["timestamp"].is_string()), (&json!("error"), true));
    let wait: u64 = refused.header("retry-after").parse().unwrap();
    assert!((1..=2).contains(&wait), "{refused:?}");
    // what is refused is not done
    let make = json!({ "label": "More", "provider_slug": "local", "config": { "path": "data" } });
    assert_eq!(service.ask_as(Some(&hasty), "POST", "/v2/connection", Some(&make)).status, 429);
    assert_eq!(status(&other, "/v2/connection/more"), 404);

    // lookups, other callers and probes are counted apart
    assert_eq!(status(&hasty, lookup), 200);
    assert_eq!(service.ask_as(None, "GET", "/healthz", None).status, 200);
    let begun = Instant::now();
    let (passed, refused) = exhaust(&service, &hasty, lookup);
    let most = 6 + (begun.elapsed().as_secs_f64() * 3.0).ceil() as u32;
    assert!((5..=most).contains(&passed), "{passed} passed, of at most {most}");
    assert_eq!(refused.error(429), "too-many-requests");
    assert_eq!((status(&other, lookup), status(&other, list)), (200, 200));

    std::thread::sleep(Duration::from_secs(wait));
    assert_eq!((status(&hasty, list), status(&hasty, lookup)), (200, 200));
}

/// Works for days, and holds little meanwhile.
fn endless() -> Value {
    let tables = ["a", "b", "c", "d"];
    let from: Vec<String> = tables.iter().map(|name| format!("changes AS {name}")).collect();
    let text: Vec<String> = tables.iter().map(|name| format!("{name}.identity")).collect();
    json!(format!("SELECT max({}) AS last FROM {}", text.join(" || "), from.join(" CROSS JOIN ")))
}

impl Service {
    fn sql_as(&self, token: &str, body: &Value) -> Reply {
        self.ask_as(Some(token), "POST", "/v2/sql", Some(body))
    }

    /// Asks until there is a place for the query.
    fn sql_soon(&self, token: &str, body: &Value) -> Value {
        let until = Instant::now() + Duration::from_secs(10);
        loop {
            let reply = self.sql_as(token, body);
            if reply.status != 429 {
                return reply.data();
            }
            assert!(Instant::now() < until, "a query that was given up still has its place");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Seconds of processor time that the process has taken.
    fn worked(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        // in ticks, a hundred a second on every Linux
        fields[11..13].iter().map(|ticks| ticks.parse::<f64>().unwrap() / 100.0).sum()
    }

    /// Nothing goes on behind the scenes.
    pub fn comes_to_rest(&self) {
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            let before = self.worked();
            std::thread::sleep(Duration::from_secs(1));
            let worked = self.worked() - before;
            if worked < 0.4 {
                return;
            }
            assert!(Instant::now() < until, "it still works {worked} s in each second");
        }
    }
}

#[test]
fn a_query_that_does_not_end_is_ended_and_stands_in_nobodys_way() {
    let (project, service) = serve(2000, &[]);
    let (second, third) = (token(&project, &["--role", "admin"]), token(&project, &["--role", "admin"]));
    let one = json!({ "query": "SELECT 1 AS one" });
    // lookups have their files, which takes a moment
    service.get("/v2/entity/user/email/p7@example.com").data();
    std::thread::sleep(Duration::from_secs(2));
    std::thread::scope(|threads| {
        let begun = Instant::now();
        let whole = threads.spawn(|| service.sql_as(&second, &json!({ "query": endless() })));
        let streamed = threads.spawn(|| {
            let body = json!({ "query": endless(), "format": "ndjson" }).to_string();
            service.try_send("/v2/sql", "application/json", None, body)
        });
        // a caller has one at a time, and all together two
        std::thread::sleep(Duration::from_secs(2));
        for token in [&second, &third] {
            let refused = service.sql_as(token, &one);
            assert_eq!(refused.error(429), "too-many-requests");
            assert_eq!(refused.json()["errors"][0]["message"], "too many queries are under way");
            assert!(refused.header("retry-after").parse::<u64>().unwrap() >= 1);
        }
        // others are answered meanwhile
        let asked = Instant::now();
        assert_eq!(service.get("/v2/entity/user/email/p7@example.com").status, 200);
        assert_eq!(service.get("/v2/datamodel").status, 200);
        assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());

        let whole = whole.join().unwrap();
        assert_eq!(whole.error(504), "query-timeout");
        assert!(whole.json()["errors"][0]["hint"].is_string(), "{whole:?}");
        assert!(streamed.join().unwrap().is_none(), "a stream that was cut short is taken for whole");
        let took = begun.elapsed();
        assert!((20..50).contains(&took.as_secs()), "{took:?}");
    });
    assert_eq!(service.sql_soon(&second, &one)["rows"], json!([[1]]));
    assert_eq!(service.sql_soon(&service.token, &one)["rows"], json!([[1]]));
    service.comes_to_rest();
    assert_eq!(service.run("people")["status"], "unchanged");
}

#[test]
fn a_query_whose_client_is_gone_is_given_up() {
    let (_project, service) = serve(2000, &[]);
    let one = json!({ "query": "SELECT 1 AS one" });
    for format in ["json", "csv"] {
        let body = json!({ "query": endless(), "format": format }).to_string();
        let mut client = TcpStream::connect(service.url.strip_prefix("http://").unwrap()).unwrap();
        let head = "POST /v2/sql HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n";
        let (length, token) = (body.len(), &service.token);
        write!(client, "{head}content-length: {length}\r\nauthorization: Bearer {token}\r\n\r\n{body}").unwrap();
        let until = Instant::now() + Duration::from_secs(10);
        loop {
            // not so soon that this one takes its place
            std::thread::sleep(Duration::from_secs(1));
            let second = service.sql_as(&service.token, &one);
            if second.status == 429 {
                assert_eq!(second.json()["errors"][0]["message"], "a query of yours is under way");
                break;
            }
            assert!(Instant::now() < until, "the query never began");
        }
        drop(client);
        let freed = service.sql_soon(&service.token, &one);
        assert_eq!(freed["rows"], json!([[1]]), "{format}");
        service.comes_to_rest();
    }
}

#[test]
fn an_answer_is_cut_at_its_limits_and_says_so() {
    let (_project, service) = serve(12_000, &[]);
    let sql = |query: &str, limit: Option<u64>, format: &str| {
        service.post("/v2/sql", &json!({ "query": query, "limit": limit, "format": format }))
    };
    let all = "SELECT email FROM profiles";
    for (limit, rows) in [(None, 1000), (Some(0), 0), (Some(20_000), 10_000), (Some(9), 9)] {
        let answer = sql(all, limit, "json").data();
        assert_eq!((&answer["row_count"], &answer["truncated"]), (&json!(rows), &json!(true)), "{limit:?}");
        assert_eq!(answer["rows"].as_array().unwrap().len(), rows);
    }
    let exactly = sql("SELECT email FROM profiles LIMIT 10000", Some(10_000), "json").data();
    assert_eq!((&exactly["row_count"], &exactly["truncated"]), (&json!(10_000), &json!(false)));
    for (format, header) in [("ndjson", 0), ("csv", 1)] {
        assert_eq!(sql(all, Some(20_000), format).text.lines().count(), 12_000 + header, "{format}");
        assert_eq!(sql(all, None, format).text.lines().count(), 1000 + header, "{format}");
    }
    // sixteen MiB of values
    let large = sql("SELECT repeat('x', 10000) AS x FROM profiles", Some(5000), "json");
    let answer = large.data();
    assert_eq!(answer["truncated"], true);
    let rows = answer["row_count"].as_u64().unwrap();
    assert!((1670..1690).contains(&rows) && large.text.len() < 17 << 20, "{rows} rows, {} bytes", large.text.len());
}

#[test]
fn a_query_that_takes_too_much_memory_is_refused_and_the_service_goes_on() {
    let (_project, service) = serve(12_000, &["--memory-limit", "256MiB"]);
    let hungry = json!({ "query": "SELECT length(string_agg(repeat(identity, 1000), ',')) AS n FROM changes" });
    for _ in 0..3 {
        let refused = service.post("/v2/sql", &hungry);
        assert_eq!(refused.error(422), "query");
        let error = refused.json()["errors"][0].clone();
        assert!(error["message"].as_str().unwrap().contains("exhausted"), "{error}");
        assert!(error["hint"].as_str().unwrap().contains("--memory-limit"), "{error}");
    }
    let counted = service.post("/v2/sql", &json!({ "query": "SELECT count(*) FROM profiles" })).data();
    assert_eq!(counted["rows"], json!([[12_000]]));
    assert_eq!(service.get("/v2/entity/user/email/p7@example.com").status, 200);
    assert_eq!(service.run("people")["status"], "unchanged");
}
