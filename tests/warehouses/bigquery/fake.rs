//! The conformance suite over the scripted fake.

use arrow::datatypes::{DataType, Field, Fields, TimeUnit};
use async_trait::async_trait;
use cloud_connect::warehouse::ConnectionParams;

use crate::fakes::bigquery::script::{self, EVERY_TYPE, SLOW};
use crate::fakes::bigquery::{CLIENT_ID, CLIENT_SECRET, FakeBigQuery, Faults, PROJECT};
use crate::suite::{self, Ask, Fault, Subject, TypeCase, WRONG_SECRET, case};

pub struct Fake {
    pub server: FakeBigQuery,
}

impl Fake {
    pub async fn start() -> Self {
        Self { server: FakeBigQuery::start(script::script()).await }
    }

    pub fn without_login(&self) -> ConnectionParams {
        let mut params = ConnectionParams::new("shop", "/");
        params.set("project", PROJECT);
        params.set("endpoint", self.server.endpoint());
        params.set("storage_endpoint", self.server.storage_endpoint());
        params
    }
}

#[async_trait]
impl Subject for Fake {
    fn provider(&self) -> &'static str {
        "bigquery"
    }

    fn params(&self) -> ConnectionParams {
        let mut params = self.without_login();
        params.set("service_account_key", self.server.service_account_key());
        params
    }

    fn wrong_login(&self) -> Option<ConnectionParams> {
        let mut params = self.without_login();
        params.set("oauth_refresh_token", WRONG_SECRET);
        params.set("oauth_client_id", CLIENT_ID);
        params.set("oauth_client_secret", CLIENT_SECRET);
        Some(params)
    }

    fn secrets(&self) -> Vec<String> {
        let mut secrets = self.server.tokens();
        secrets.extend([self.server.key_line(), CLIENT_SECRET.into()]);
        secrets
    }

    fn sql(&self, ask: Ask) -> Option<String> {
        Some(match ask {
            Ask::Types => EVERY_TYPE.into(),
            Ask::AllNull => "SELECT * FROM shop.nothing".into(),
            Ask::Empty => script::numbers(0),
            Ask::NonAscii => "SELECT name FROM shop.names".into(),
            Ask::LongText => "SELECT long FROM shop.long".into(),
            Ask::Rows(n) => script::numbers(n),
            Ask::Slow => SLOW.into(),
            Ask::UnknownTable => "SELECT * FROM shop.no_such_table".into(),
            Ask::SyntaxError => "SELECT FROM WHERE".into(),
            Ask::Forbidden => "SELECT * FROM shop.hidden".into(),
            Ask::Write => "DELETE FROM shop.people WHERE true".into(),
        })
    }

    fn types(&self) -> Vec<TypeCase> {
        let utc = || DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        let structure = |fields: [(&str, DataType); 2]| {
            DataType::Struct(Fields::from_iter(fields.map(|(name, data_type)| Field::new(name, data_type, true))))
        };
        let big = "57896044618658097711785492504343953926.11111111111111111111111111111111111111";
        vec![
            case("int64", DataType::Int64, "9223372036854775807"),
            case("float64", DataType::Float64, "0.1"),
            case("numeric", DataType::Decimal128(38, 9), "12345678901234567890.123456789"),
            case("numeric_p", DataType::Decimal128(12, 2), "12.50"),
            case("bignumeric", DataType::Utf8, big),
            case("bignumeric_p", DataType::Utf8, "123456789012345678901234567890123456.789"),
            case("string", DataType::Utf8, "a"),
            case("bytes", DataType::Binary, "00ff"),
            case("bool", DataType::Boolean, "true"),
            case("date", DataType::Date32, "2026-02-28"),
            case("datetime", utc(), "2026-02-28T16:30:15.123456Z"),
            case("timestamp", utc(), "2026-02-28T16:30:15.123456Z"),
            case("time", DataType::Utf8, "12:34:56.789"),
            case("interval", DataType::Utf8, "1-2 3 4:5:6.789"),
            case("geography", DataType::Utf8, "POINT(8.5417 47.3769)"),
            case("json", DataType::Utf8, r#"{"a":[1,2]}"#),
            case(
                "range",
                structure([("start", DataType::Date32), ("end", DataType::Date32)]),
                "{start: 2026-02-28, end: }",
            ),
            case(
                "struct",
                structure([("city", DataType::Utf8), ("opens", DataType::Utf8)]),
                "{city: Zürich, opens: 08:00:00}",
            ),
        ]
    }

    fn known_table(&self) -> (String, Vec<(&'static str, Option<&'static str>)>) {
        let columns = vec![
            ("id", Some("int")),
            ("name", Some("string")),
            ("balance", Some("decimal(20,4)")),
            ("photo", None),
            ("stay", Some("json")),
            ("tags", Some("list")),
            ("odd", None),
        ];
        ("shop.people".into(), columns)
    }

    fn inject(&self, fault: Fault) -> bool {
        let faults = Faults::default();
        self.server.set_faults(match fault {
            Fault::BreakOnce => Faults { breaks: 1, ..faults },
            Fault::BreakAlways => Faults { breaks: usize::MAX, ..faults },
            Fault::ThrottleOnce => Faults { throttle: Some((1, 1)), ..faults },
            Fault::ThrottleAlways => Faults { throttle: Some((usize::MAX, 90)), ..faults },
            Fault::ExpireLogin => Faults { expire_tokens: 1, ..faults },
        });
        true
    }

    fn heal(&self) {
        self.server.set_faults(Faults::default());
    }

    fn queries_run(&self) -> Option<usize> {
        Some(self.server.queries_run())
    }

    async fn slow_was_stopped(&self) -> Option<bool> {
        Some(!self.server.runs(SLOW))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_fake_conforms() {
    suite::run(&Fake::start().await).await;
}
