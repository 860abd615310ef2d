use arrow::datatypes::{DataType, Field, Schema, TimeUnit};

use super::*;
use crate::model::check_columns;
use crate::warehouse::UNCONVERTIBLE_COLUMN;

fn check(yml: &str, fields: &[(&str, DataType)]) -> Vec<ConfigError> {
    let project = Case::model(yml).load().unwrap();
    let schema = Schema::new(fields.iter().map(|(n, t)| Field::new(*n, t.clone(), true)).collect::<Vec<_>>());
    check_columns(&project.models["m"], &schema, &project)
}

fn found(errors: &[ConfigError]) -> Vec<(&str, usize, usize)> {
    errors.iter().map(|e| (e.code, e.line, e.column)).collect()
}

#[test]
fn a_result_that_fits_has_no_fault() {
    let yml = format!("{MODEL}identities: [user_id]\ncolumns: {{ email: string, total: decimal, brand: int }}\n");
    let fields = [
        ("email", DataType::Utf8View),
        ("brand", DataType::Utf8),
        ("total", DataType::Int32),
        ("user_id", DataType::Int64),
        ("more", DataType::Binary),
        (UNCONVERTIBLE_COLUMN, DataType::Utf8),
    ];
    assert_eq!(check(&yml, &fields), []);
}

#[test]
fn columns_that_are_missing_are_pointed_at_with_what_there_is() {
    let yml = format!("{MODEL}identities: [user_id]\n");
    let errors = check(&yml, &[("Email", DataType::Utf8), ("brnad", DataType::Utf8)]);
    assert_eq!(
        found(&errors),
        [("missing-column", 2, 14), ("missing-column", 4, 20), ("missing-column", 4, 27), ("missing-column", 5, 14)]
    );
    assert_eq!(errors[0].hint.as_deref(), Some("did you mean `Email`? the query returns: `Email`, `brnad`"));
    assert_eq!(errors[1].hint.as_deref(), Some("did you mean `brnad`? the query returns: `Email`, `brnad`"));
    assert_eq!(errors[2].hint.as_deref(), Some("the query returns: `Email`, `brnad`"));
    assert!(errors[0].source_text.contains("primary_key: email"));
}

#[test]
fn types_that_cannot_be_held_or_identify_nobody_are_refused() {
    let fields = |key: DataType, brand: DataType| [("email", key), ("brand", brand), ("total", DataType::Int64)];
    assert_eq!(found(&check(MODEL, &fields(DataType::Utf8, DataType::Binary))), [("unsupported-type", 4, 20)]);
    let list = DataType::new_list(DataType::Utf8, true);
    for key in [DataType::Float64, DataType::Boolean, list] {
        assert_eq!(found(&check(MODEL, &fields(key, DataType::Utf8))), [("key-type", 2, 14)]);
    }
    for key in [DataType::Int64, DataType::Date32, DataType::Decimal128(10, 0)] {
        assert_eq!(check(MODEL, &fields(key, DataType::Utf8)), []);
    }
}

#[test]
fn a_contract_that_no_value_can_meet_is_a_fault() {
    let yml = format!("{MODEL}columns: {{ total: {{ type: date }} }}\n");
    let fields = |total: DataType| [("email", DataType::Utf8), ("brand", DataType::Utf8), ("total", total)];
    assert_eq!(found(&check(&yml, &fields(DataType::Float64))), [("contract-mismatch", 5, 27)]);
    assert_eq!(
        found(&check(&yml, &fields(DataType::Timestamp(TimeUnit::Microsecond, None)))),
        [("contract-mismatch", 5, 27)]
    );
    for total in [DataType::Utf8, DataType::Date32] {
        assert_eq!(check(&yml, &fields(total)), []);
    }
}

#[test]
fn repeated_and_reserved_columns_of_the_result_are_faults() {
    let fields = [
        ("email", DataType::Utf8),
        ("brand", DataType::Utf8),
        ("total", DataType::Int64),
        ("brand", DataType::Utf8),
        ("_cc_x", DataType::Utf8),
        ("id", DataType::Utf8),
        ("id", DataType::Utf8),
    ];
    let errors = check(MODEL, &fields);
    assert_eq!(found(&errors), [("duplicate-column", 4, 20), ("reserved-name", 1, 1), ("duplicate-column", 1, 1)]);
    assert_eq!(errors[1].file, Path::new("models/m.sql"));
}
