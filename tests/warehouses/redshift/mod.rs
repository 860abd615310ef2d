//! `redshift`, before a real PostgreSQL that refuses what Redshift refuses, and a local S3 server.

mod program;
mod s3;
mod specific;

use std::sync::atomic::Ordering;

use arrow::datatypes::{DataType, TimeUnit};
use async_trait::async_trait;
use cloud_connect::warehouse::ConnectionParams;

use self::s3::BreakingWay;
use crate::fakes::redshift::{FakeRedshift, S3, refusal};
use crate::postgres_server::{DATABASE, PostgresServer, READER_PASSWORD};
use crate::process::ServerProcess;
use crate::suite::{self, Ask, Fault, NON_ASCII, Subject, TypeCase, WRONG_SECRET, case};

const ACCESS_KEY: &str = "AKIDOFTHETEST";
const SECRET_KEY: &str = "s3cret/of+the=test";

/// The servers, and what stands between.
pub struct World {
    server: Option<PostgresServer>,
    fake: FakeRedshift,
    unload: Option<Unload>,
}

struct Unload {
    process: Option<ServerProcess>,
    s3: S3,
    way: BreakingWay,
}

/// What Redshift has and PostgreSQL has not.
const REDSHIFTS_OWN: &str = "
    SET allow_system_table_mods = on;
    CREATE VIEW pg_catalog.svv_tables AS
        SELECT table_catalog, table_schema, table_name, table_type, NULL::text AS remarks FROM information_schema.tables;
    CREATE VIEW pg_catalog.svv_columns AS
        SELECT table_catalog, table_schema, table_name, column_name, ordinal_position, column_default, is_nullable, data_type,
               character_maximum_length, numeric_precision, numeric_scale FROM information_schema.columns;
    GRANT SELECT ON pg_catalog.svv_tables, pg_catalog.svv_columns TO PUBLIC;
    CREATE FUNCTION pg_catalog.json_serialize(jsonb) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT $1::text';
    CREATE FUNCTION pg_catalog.from_varbyte(bytea, text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT encode($1, $2)';
    CREATE FUNCTION pg_catalog.st_asewkt(point) RETURNS text LANGUAGE sql IMMUTABLE
        AS $$ SELECT 'POINT(' || $1[0] || ' ' || $1[1] || ')' $$;
";

impl World {
    pub async fn start(unload: bool) -> Self {
        let started = tokio::task::spawn_blocking(move || {
            let server = PostgresServer::start(false);
            server.psql("postgres", "ALTER SYSTEM SET log_line_prefix = '%a|'");
            server.psql("postgres", "ALTER SYSTEM SET log_statement = 'all'");
            server.psql("postgres", "SELECT pg_reload_conf()");
            server.psql(DATABASE, REDSHIFTS_OWN);
            // backslashes escape in Redshift's strings
            server.psql(DATABASE, &format!("ALTER DATABASE {DATABASE} SET standard_conforming_strings = off"));
            server.psql(DATABASE, &format!("ALTER DATABASE {DATABASE} SET escape_string_warning = off"));
            server.psql(
                DATABASE,
                "CREATE TABLE people (id bigint, name text, balance numeric(20,4)); GRANT SELECT ON people TO reader;
                 CREATE TABLE hidden (id int);
                 CREATE SCHEMA spectrum; GRANT USAGE ON SCHEMA spectrum TO reader;
                 CREATE TABLE spectrum.sales (id int); INSERT INTO spectrum.sales VALUES (1), (2); GRANT SELECT ON spectrum.sales TO reader;",
            );
            (server, unload.then(s3::start))
        });
        let (server, s3) = started.await.unwrap();
        let target = s3.as_ref().map(|(_, s3)| s3.clone());
        let fake = FakeRedshift::start(server.port, READER_PASSWORD, target).await;
        let unload = match s3 {
            Some((process, s3)) => {
                s3::create_bucket(&s3).await;
                let way = BreakingWay::to(process.port).await;
                Some(Unload { process: Some(process), s3, way })
            }
            None => None,
        };
        Self { server: Some(server), fake, unload }
    }

    fn server(&self) -> &PostgresServer {
        self.server.as_ref().unwrap()
    }

    fn s3(&self) -> &S3 {
        &self.unload.as_ref().unwrap().s3
    }

    fn params_with(&self, values: &[(&str, &str)]) -> ConnectionParams {
        let mut params = ConnectionParams::new("dwh", "/");
        for (name, value) in [
            ("endpoint", format!("127.0.0.1:{}/{DATABASE}", self.fake.port)),
            ("user", "reader".into()),
            ("password", READER_PASSWORD.into()),
            ("sslmode", "disable".into()),
        ] {
            params.set(name, value);
        }
        if let Some(unload) = &self.unload {
            for (name, value) in [
                ("unload_bucket", format!("s3://{}/results/of-queries", s3::BUCKET)),
                ("unload_role", s3::ROLE.into()),
                ("s3_endpoint", format!("http://127.0.0.1:{}", unload.way.port)),
                ("s3_region", "us-east-1".into()),
                ("s3_access_key_id", ACCESS_KEY.into()),
                ("s3_secret_access_key", SECRET_KEY.into()),
            ] {
                params.set(name, value);
            }
        }
        for (name, value) in values {
            params.set(*name, *value);
        }
        params
    }

    /// Nothing that Redshift refuses was sent: not by the proxy's account, and not by the real server's log.
    fn sent_nothing_that_redshift_refuses(&self) {
        let refused = self.fake.state.refused.lock().unwrap().clone();
        assert!(refused.is_empty(), "Redshift refuses what was sent: {refused:#?}");
        let log = self.server().log();
        let mut statements: Vec<String> = Vec::new();
        let mut ours = false;
        for line in log.lines() {
            if let Some(rest) = line.strip_prefix('\t') {
                if ours && let Some(last) = statements.last_mut() {
                    last.push('\n');
                    last.push_str(rest);
                }
                continue;
            }
            let said = line.strip_prefix("cloud-connect|LOG:  ").unwrap_or_default();
            let sql = said.strip_prefix("statement: ").or_else(|| {
                let executed = said.strip_prefix("execute ")?;
                executed.split_once(": ").map(|(_, sql)| sql)
            });
            ours = sql.is_some();
            statements.extend(sql.map(str::to_string));
        }
        assert!(statements.len() > 20, "the log holds only {} statements of ours:\n{log}", statements.len());
        let refused: Vec<_> = statements.iter().filter(|sql| refusal(sql).is_some()).collect();
        assert!(refused.is_empty(), "Redshift refuses what the server logged: {refused:#?}");
    }

    /// Stops processes where waiting is allowed.
    async fn stop(mut self) {
        let process = self.unload.as_mut().and_then(|u| u.process.take());
        let server = self.server.take();
        tokio::task::spawn_blocking(move || drop((server, process))).await.unwrap();
    }
}

#[async_trait]
impl Subject for World {
    fn provider(&self) -> &'static str {
        "redshift"
    }

    fn params(&self) -> ConnectionParams {
        self.params_with(&[])
    }

    fn wrong_login(&self) -> Option<ConnectionParams> {
        Some(self.params_with(&[("password", WRONG_SECRET)]))
    }

    fn secrets(&self) -> Vec<String> {
        vec![READER_PASSWORD.into(), ACCESS_KEY.into(), SECRET_KEY.into()]
    }

    fn sql(&self, ask: Ask) -> Option<String> {
        Some(match ask {
            Ask::Types => "SELECT 9223372036854775807::bigint AS bigint, 7::smallint AS smallint, 8 AS integer,
                '12345678901234567890.123456789'::numeric(38,9) AS numeric, '-0.05'::numeric(10,2) AS small,
                0.1::float8 AS float8, 0.5::float4 AS real, true AS boolean, 'a'::varchar(10) AS varchar, 'DE'::char(5) AS char,
                DATE '2026-02-28' AS date, TIMESTAMP '2026-02-28 16:30:15.123456' AS timestamp,
                TIMESTAMPTZ '2026-02-28T16:30:15.123456+01' AS timestamptz, TIME '16:30:15' AS time,
                INTERVAL '1 day 2 hours' AS interval, '{\"a\": [1]}'::jsonb AS super, '\\\\x00ff'::bytea AS varbyte,
                point(1, 2) AS geometry
                UNION ALL SELECT NULL::bigint, NULL::smallint, NULL::int, NULL::numeric(38,9), NULL::numeric(10,2), NULL::float8,
                NULL::float4, NULL::boolean, NULL::varchar(10), NULL::char(5), NULL::date, NULL::timestamp, NULL::timestamptz,
                NULL::time, NULL::interval, NULL::jsonb, NULL::bytea, NULL::point -- all of them"
                .into(),
            Ask::AllNull => "SELECT NULL::varchar AS nothing FROM generate_series(1, 3)".into(),
            Ask::Empty => "SELECT id, name FROM people WHERE false".into(),
            Ask::NonAscii => format!("SELECT '{NON_ASCII}'::varchar AS name"),
            Ask::LongText => "SELECT repeat('x', 1000000) AS long".into(),
            Ask::Rows(n) => format!("SELECT i AS id, 'name ' || i AS name FROM generate_series(1, {n}) i ORDER BY 1"),
            Ask::Slow => "SELECT 1 AS slow FROM pg_sleep(60)".into(),
            Ask::UnknownTable => "SELECT * FROM no_such_table".into(),
            Ask::SyntaxError => "SELECT FROM WHERE".into(),
            Ask::Forbidden => "SELECT * FROM hidden".into(),
            Ask::Write => "DELETE FROM people".into(),
        })
    }

    fn types(&self) -> Vec<TypeCase> {
        let utc = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        vec![
            case("bigint", DataType::Int64, "9223372036854775807"),
            case("smallint", DataType::Int16, "7"),
            case("integer", DataType::Int32, "8"),
            case("numeric", DataType::Decimal128(38, 9), "12345678901234567890.123456789"),
            case("small", DataType::Decimal128(10, 2), "-0.05"),
            case("float8", DataType::Float64, "0.1"),
            case("real", DataType::Float32, "0.5"),
            case("boolean", DataType::Boolean, "true"),
            case("varchar", DataType::Utf8, "a"),
            case("char", DataType::Utf8, "DE"),
            case("date", DataType::Date32, "2026-02-28"),
            case("timestamp", utc.clone(), "2026-02-28T16:30:15.123456Z"),
            case("timestamptz", utc, "2026-02-28T15:30:15.123456Z"),
            case("time", DataType::Utf8, "16:30:15"),
            case("interval", DataType::Utf8, "1 day 02:00:00"),
            case("super", DataType::Utf8, "{\"a\": [1]}"),
            case("varbyte", DataType::Utf8, "00ff"),
            case("geometry", DataType::Utf8, "POINT(1 2)"),
        ]
    }

    fn known_table(&self) -> (String, Vec<(&'static str, Option<&'static str>)>) {
        (
            "public.people".into(),
            vec![("id", Some("int")), ("name", Some("string")), ("balance", Some("decimal(20,4)"))],
        )
    }

    fn inject(&self, fault: Fault) -> bool {
        match (fault, &self.unload) {
            (Fault::BreakAlways, None) => self.fake.state.cut_after_rows.store(5000, Ordering::SeqCst),
            (Fault::BreakAlways, Some(unload)) => unload.way.cut_always(),
            (Fault::BreakOnce, Some(unload)) => unload.way.cut_once(),
            _ => return false,
        }
        true
    }

    fn heal(&self) {
        self.fake.state.cut_after_rows.store(0, Ordering::SeqCst);
        if let Some(unload) = &self.unload {
            unload.way.heal();
        }
    }

    fn queries_run(&self) -> Option<usize> {
        Some(self.fake.state.queries.load(Ordering::SeqCst))
    }

    async fn slow_was_stopped(&self) -> Option<bool> {
        let running = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND usename = 'reader'";
        Some(tokio::task::block_in_place(|| self.server().psql(DATABASE, running)) == "0")
    }

    fn cannot(&self) -> Vec<(&'static str, &'static str)> {
        let mut cannot = vec![
            ("survives_throttling", "neither the protocol nor S3 names a time to wait"),
            ("passes_on_the_servers_patience", "neither the protocol nor S3 names a time to wait"),
            (
                "renews_its_login",
                "a session lasts as long as its socket, and temporary credentials are for its login only",
            ),
        ];
        if self.unload.is_none() {
            cannot.push((
                "survives_a_broken_stream",
                "a cursor ends with its connection: the run fails cleanly and tries again",
            ));
        }
        cannot
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn redshift_conforms_through_a_cursor() {
    let world = World::start(false).await;
    suite::run(&world).await;
    world.sent_nothing_that_redshift_refuses();
    assert_eq!(world.fake.state.unloads.load(Ordering::SeqCst), 0);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn redshift_conforms_through_unload() {
    let world = World::start(true).await;
    suite::run(&world).await;
    world.sent_nothing_that_redshift_refuses();
    assert!(world.fake.state.unloads.load(Ordering::SeqCst) > 10);
    // what the cancelled and broken runs wrote was removed too
    let end = std::time::Instant::now() + std::time::Duration::from_secs(10);
    loop {
        let left = s3::objects(world.s3()).await;
        if left.is_empty() {
            break;
        }
        assert!(std::time::Instant::now() < end, "left in the bucket: {left:?}");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    world.stop().await;
}
