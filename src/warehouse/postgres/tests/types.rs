//! Every type, with nulls and extremes, held against the server's own rendering of the same values.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, TimeUnit};
use arrow::util::display::{ArrayFormatter, FormatOptions};

use super::*;
use crate::values::{VALUE_TYPE_KEY, ValueType};
use crate::warehouse::UNCONVERTIBLE_COLUMN;

/// A value as the server would write it.
fn render(array: &ArrayRef, row: usize) -> Option<String> {
    let options = FormatOptions::new()
        .with_timestamp_tz_format(Some("%Y-%m-%d %H:%M:%S%.6f+00"))
        .with_date_format(Some("%Y-%m-%d"));
    if array.is_null(row) {
        return None;
    }
    Some(match array.data_type() {
        DataType::Boolean => array.as_boolean().value(row).to_string(),
        DataType::Binary => {
            let hex: String = array.as_binary::<i32>().value(row).iter().map(|b| format!("{b:02x}")).collect();
            format!("\\x{hex}")
        }
        DataType::List(_) => {
            let list = array.as_list::<i32>().value(row);
            let texts: Vec<Option<&str>> = list.as_string::<i32>().iter().collect();
            serde_json::to_string(&texts).unwrap()
        }
        _ => ArrayFormatter::try_new(array.as_ref(), &options).unwrap().value(row).to_string(),
    })
}

/// Reads `expressions` (as one column) through the connector, and through `psql` as the server writes them.
async fn same_as_the_server(expressions: &[&str], oracle: &str, data_type: &DataType) {
    let (server, warehouse) = shop();
    let rows: Vec<_> = expressions.iter().enumerate().map(|(i, e)| format!("SELECT {i} AS n, {e} AS v")).collect();
    let sql = format!("SELECT n, v FROM ({}) AS t ORDER BY n", rows.join(" UNION ALL "));
    let batch = read(warehouse.as_ref(), &sql).await.unwrap();
    let schema = warehouse.describe(&sql).await.unwrap();
    assert_eq!(batch.schema(), schema, "the description is what the query returns");
    assert_eq!(schema.field(1).data_type(), data_type, "{expressions:?}");

    let style = "SET timezone = 'UTC'; SET intervalstyle = iso_8601; SET datestyle = ISO; ";
    let expected = server.psql(DATABASE, &format!("{style} SELECT coalesce({oracle}, '<null>') FROM ({sql}) AS o"));
    let expected: Vec<_> = expected.lines().map(str::to_string).collect();
    let found: Vec<_> =
        (0..batch.num_rows()).map(|row| render(batch.column(1), row).unwrap_or_else(|| "<null>".to_string())).collect();
    assert_eq!(found, expected, "{expressions:?}");
    if let Some(reasons) = batch.column_by_name(UNCONVERTIBLE_COLUMN) {
        assert_eq!(reasons.null_count(), batch.num_rows(), "nothing was lost");
    }
}

#[tokio::test]
async fn numbers_and_booleans_are_exact() {
    same_as_the_server(&["true", "false", "NULL"], "v::text", &DataType::Boolean).await;
    same_as_the_server(&["32767::int2", "(-32768)::int2", "NULL"], "v::text", &DataType::Int16).await;
    same_as_the_server(&["2147483647", "(-2147483647 - 1)", "0", "NULL"], "v::text", &DataType::Int32).await;
    let int8 = ["9223372036854775807", "(-9223372036854775807 - 1)", "NULL"];
    same_as_the_server(&int8, "v::text", &DataType::Int64).await;
    same_as_the_server(&["4294967295::oid", "0::oid", "NULL"], "v::text", &DataType::Int64).await;
}

#[tokio::test]
async fn floats_are_exact_to_the_bit() {
    let (server, warehouse) = shop();
    let values = ["1e308", "-5e-324", "0.1", "-0", "NaN", "Infinity", "-Infinity", "3.141592653589793"];
    let columns: Vec<_> = values.iter().map(|v| format!("'{v}'::float8")).collect();
    let batch = read(warehouse.as_ref(), &format!("SELECT {}, 0.1::float4", columns.join(", "))).await.unwrap();
    for (i, text) in values.iter().enumerate() {
        let expected = server.psql(DATABASE, &format!("SELECT '{text}'::float8"));
        let found = batch.column(i).as_primitive::<arrow::datatypes::Float64Type>().value(0);
        assert_eq!(found.to_bits() << 1, expected.parse::<f64>().unwrap().to_bits() << 1, "{text}");
    }
    assert_eq!(batch.column(values.len()).as_primitive::<arrow::datatypes::Float32Type>().value(0), 0.1_f32);
}

#[tokio::test]
async fn numerics_keep_every_digit() {
    let declared =
        ["12345678.90::numeric(10,2)", "(-0.01)::numeric(10,2)", "0::numeric(10,2)", "100000::numeric(10,2)"];
    same_as_the_server(&declared, "v::text", &DataType::Decimal128(10, 2)).await;
    let wide = "9999999999999999999.9999999999999999999::numeric(38,19)";
    same_as_the_server(
        &[wide, "1e-19::numeric(38,19)", "NULL::numeric(38,19)"],
        "v::text",
        &DataType::Decimal128(38, 19),
    )
    .await;
    let free =
        ["1e100::numeric", "1e-20::numeric", "-123.4500", "'NaN'::numeric", "'-Infinity'::numeric", "0.00", "NULL"];
    same_as_the_server(&free, "v::text", &DataType::Utf8).await;
    same_as_the_server(&["1e40::numeric(45,2)", "0.5::numeric(45,2)"], "v::text", &DataType::Utf8).await;
}

#[tokio::test]
async fn texts_come_as_they_are() {
    let texts = ["'grüße 👋'", "''", "'a''b\"c\\d'", "NULL"];
    same_as_the_server(&texts, "v::text", &DataType::Utf8).await;
    same_as_the_server(&["'ab'::varchar(5)", "NULL"], "v::text", &DataType::Utf8).await;
    // the blanks of char(n) do not count: the server drops them too when it makes a text of it
    same_as_the_server(&["'ab'::char(5)", "NULL"], "v::text", &DataType::Utf8).await;
    same_as_the_server(&["'Ab'::citext", "NULL"], "v::text", &DataType::Utf8).await;
    same_as_the_server(&["'gold'::tier", "NULL"], "v::text", &DataType::Utf8).await;
    same_as_the_server(&["'a@b'::email", "NULL"], "v::text", &DataType::Utf8).await;
    same_as_the_server(&["'x'::name", "NULL"], "v::text", &DataType::Utf8).await;
    same_as_the_server(&["'x'::\"char\"", "NULL"], "v::text", &DataType::Utf8).await;
    same_as_the_server(&["'c56a4180-65aa-42ec-a945-5fd21dec0538'::uuid", "NULL"], "v::text", &DataType::Utf8).await;
    same_as_the_server(&["'\\x00ff10'::bytea", "''::bytea", "NULL"], "v::text", &DataType::Binary).await;
}

#[tokio::test]
async fn times_are_utc_and_exact_to_the_microsecond() {
    let timestamp = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let zoned =
        ["'2024-02-29 12:34:56.789012+05:30'::timestamptz", "'1969-12-31 23:59:59.999999+00'::timestamptz", "NULL"];
    let style = "to_char(v, 'YYYY-MM-DD HH24:MI:SS.US+00')";
    same_as_the_server(&zoned, style, &timestamp).await;
    same_as_the_server(&["'2024-02-29 12:34:56'::timestamp", "'0001-01-01'::timestamp", "NULL"], style, &timestamp)
        .await;
    same_as_the_server(
        &["'2000-01-01'::date", "'9999-12-31'::date", "'0001-01-01'::date", "NULL"],
        "v::text",
        &DataType::Date32,
    )
    .await;
    same_as_the_server(&["'24:00:00'::time", "'01:02:03.000004'::time", "NULL"], "v::text", &DataType::Utf8).await;
    same_as_the_server(&["'01:02:03+05'::timetz", "NULL"], "v::text", &DataType::Utf8).await;
    same_as_the_server(&["'1 year 2 mons 3 days 04:05:06'::interval", "NULL"], "v::text", &DataType::Utf8).await;
}

#[tokio::test]
async fn types_without_a_binary_reader_come_as_the_server_writes_them() {
    for value in [
        "'10.0.0.1'::inet",
        "'10.1.0.0/16'::inet",
        "'::ffff:1.2.3.4'::inet",
        "'10.1.0.0/16'::cidr",
        "'08:00:2b:01:02:03'::macaddr",
        "'12.34'::money",
        "B'1010'",
        "'(1,2)'::point",
        "'a:1 b:2'::tsvector",
        "'[1,5)'::int4range",
        "'{[1,5)}'::int4multirange",
        "'customers'::regclass",
        "'<a>b</a>'::xml",
        "'1 2 3'::int2vector",
    ] {
        // format() goes through the type's output function, as psql does
        same_as_the_server(&[value, "NULL"], "CASE WHEN v IS NULL THEN NULL ELSE format('%s', v) END", &DataType::Utf8)
            .await;
    }
}

#[tokio::test]
async fn documents_are_json_texts() {
    let (_server, warehouse) = shop();
    let sql = "SELECT '{\"b\": 1,  \"a\": [1, null]}'::json AS j, '{\"b\": 1,  \"a\": [1, null]}'::jsonb AS jb, \
               'a=>1, b=>NULL'::hstore AS h, ROW('Main', 5)::address AS c, ROW(1, 'x') AS r, \
               ARRAY['{\"a\":1}'::jsonb] AS ja, ARRAY[ROW('Main', 5)::address] AS ca, NULL::address AS n";
    let batch = read(warehouse.as_ref(), sql).await.unwrap();
    let expected = [
        "{\"b\": 1,  \"a\": [1, null]}",
        "{\"a\": [1, null], \"b\": 1}",
        "{\"a\": \"1\", \"b\": null}",
        "{\"number\": 5, \"street\": \"Main\"}",
        "{\"f1\": 1, \"f2\": \"x\"}",
        "[{\"a\": 1}]",
        "[{\"number\": 5, \"street\": \"Main\"}]",
    ];
    for (i, json) in expected.iter().enumerate() {
        let schema = batch.schema();
        assert_eq!(ValueType::of(schema.field(i)), Some(ValueType::Json), "{}", schema.field(i).name());
        assert_eq!(schema.field(i).metadata()[VALUE_TYPE_KEY], "json");
        let found: serde_json::Value = serde_json::from_str(batch.column(i).as_string::<i32>().value(0)).unwrap();
        assert_eq!(found, serde_json::from_str::<serde_json::Value>(json).unwrap());
    }
    assert!(batch.column(7).is_null(0));
}

#[tokio::test]
async fn arrays_of_scalars_are_lists_of_texts() {
    let list = ValueType::List.arrow_type();
    for value in [
        "ARRAY['a', NULL, '', 'ü,\"{}']",
        "'{}'::text[]",
        "ARRAY[1, NULL, 3]",
        "ARRAY['c56a4180-65aa-42ec-a945-5fd21dec0538'::uuid]",
        "ARRAY[true, false]",
        "ARRAY[1.50, -2]",
        "ARRAY['2024-02-29'::date, NULL]",
        "ARRAY['gold'::tier]",
        "ARRAY[0.1::float8, 'NaN']",
        "ARRAY['10.0.0.1'::inet]",
        "ARRAY['ab'::char(4)]",
        "ARRAY['2024-02-29 12:34:56.5+02'::timestamptz]",
        "'[5:6]={7,8}'::int[]",
    ] {
        // to_json keeps an array's elements apart; its texts are compared, for lists hold texts
        let oracle = if value.contains("inet") {
            "(SELECT json_agg(host(e))::text FROM unnest(v) AS e)"
        } else {
            "coalesce((SELECT json_agg(e::text)::text FROM unnest(v) AS e), '[]')"
        };
        let oracle = format!("CASE WHEN v IS NULL THEN NULL ELSE replace({oracle}, ', ', ',') END");
        same_as_the_server(&[value, "NULL"], &oracle, &list).await;
    }
}

#[tokio::test]
async fn what_arrow_cannot_hold_is_null_and_its_row_is_marked() {
    let (_server, warehouse) = shop();
    for (value, reason) in [
        ("'NaN'::numeric(10,2)", "v: the number is NaN"),
        ("'infinity'::date", "v: the date is infinity"),
        ("'-infinity'::timestamptz", "v: the timestamp is -infinity"),
        ("'infinity'::timestamp", "v: the timestamp is infinity"),
        ("ARRAY[[1,2],[3,4]]", "v: the array has more than one dimension"),
    ] {
        let sql = format!(
            "SELECT id, v FROM (VALUES (1), (2)) AS t(id) LEFT JOIN (SELECT 2 AS id, {value} AS v) AS x USING (id) ORDER BY id"
        );
        let batch = read(warehouse.as_ref(), &sql).await.unwrap();
        assert_eq!(batch.schema().fields().last().unwrap().name(), UNCONVERTIBLE_COLUMN);
        let reasons = batch.column(2).as_string::<i32>();
        assert!(reasons.is_null(0), "a null is no loss");
        assert!(batch.column(1).is_null(1));
        assert!(reasons.value(1).starts_with(reason), "{}", reasons.value(1));
    }
    let both = "SELECT 'infinity'::date AS a, 1 AS b, 'NaN'::numeric(5,1) AS c";
    let batch = read(warehouse.as_ref(), both).await.unwrap();
    assert_eq!(batch.column(3).as_string::<i32>().value(0), "a: the date is infinity; c: the number is NaN");
    let schema = warehouse.describe("SELECT 1 AS a, 'x' AS b, 1.5::float8 AS c").await.unwrap();
    assert_eq!(schema.fields().len(), 3, "no column of reasons where nothing can be lost");
}

#[tokio::test]
async fn texts_of_a_database_without_an_encoding_are_checked() {
    let (server, _) = shop();
    server.psql("postgres", "CREATE DATABASE raw TEMPLATE template0 ENCODING SQL_ASCII LOCALE 'C'");
    let warehouse = open(&params_with(&server, &[("database", "raw")]));
    let sql = "SELECT 'good' AS a, convert_from('\\xff41'::bytea, 'SQL_ASCII') AS b";
    let batch = read(warehouse.as_ref(), sql).await.unwrap();
    assert_eq!(batch.column(0).as_string::<i32>().value(0), "good");
    assert!(batch.column(1).is_null(0));
    assert!(batch.column(2).as_string::<i32>().value(0).starts_with("b: not UTF-8"));
    server.psql("postgres", "DROP DATABASE raw WITH (FORCE)");
}
