//! What a connection shows of its database.

use super::*;

#[tokio::test]
async fn tables_are_those_that_the_user_can_read() {
    let (_server, warehouse) = shop();
    let tables = warehouse.tables().await.unwrap();
    let found: Vec<_> = tables.iter().map(|t| (t.name.as_str(), t.kind.as_str(), t.columns.unwrap())).collect();
    let expected = [
        ("\"Odd Name\"", "table", 1),
        ("customers", "table", 11),
        ("gold", "view", 11),
        ("totals", "materialized view", 2),
        ("writable", "table", 1),
        ("sales.orders", "table", 2),
    ];
    assert_eq!(found, expected);
    for table in &tables {
        read(warehouse.as_ref(), &format!("SELECT * FROM {}", table.name)).await.unwrap();
    }
}

#[tokio::test]
async fn columns_have_their_declared_type_and_what_a_profile_makes_of_it() {
    let (_server, warehouse) = shop();
    let columns = warehouse.columns("customers").await.unwrap();
    let found: Vec<_> = columns
        .iter()
        .map(|c| (c.name.as_str(), c.warehouse_type.as_str(), c.value_type.as_deref().unwrap_or("-"), c.nullable))
        .collect();
    let expected = [
        ("id", "integer", "int", false),
        ("email", "email", "string", false),
        ("tier", "tier", "string", true),
        ("ltv", "price", "decimal(10,2)", true),
        ("tags", "text[]", "list", true),
        ("profile", "jsonb", "json", true),
        ("photo", "bytea", "-", true),
        ("born", "date", "date", true),
        ("seen", "timestamp with time zone", "timestamp", true),
        ("address", "address", "json", true),
        ("balance", "numeric", "string", true),
    ];
    assert_eq!(found, expected);
}

#[tokio::test]
async fn a_table_is_named_as_in_a_query() {
    let (_server, warehouse) = shop();
    for name in ["sales.orders", "SALES.Orders", "\"sales\".\"orders\""] {
        let columns = warehouse.columns(name).await.unwrap();
        assert_eq!(columns[1].name, "Total Sum", "{name}");
    }
    assert_eq!(warehouse.columns("\"Odd Name\"").await.unwrap().len(), 1);
    for name in ["orders", "nothing.here", "customers; DROP TABLE customers", "odd name", ""] {
        let error = warehouse.columns(name).await.unwrap_err();
        assert_eq!(error.kind, crate::warehouse::WarehouseErrorKind::Sql, "{name}: {error}");
    }
}

#[tokio::test]
async fn a_test_tells_each_step() {
    let (server, warehouse) = shop();
    let steps = warehouse.test().await;
    let names: Vec<_> = steps.iter().map(|s| s.step.as_str()).collect();
    let expected = ["resolve name", "connect", "TLS", "log in", "read-only session", "read", "tables"];
    assert_eq!(names, expected);
    assert!(steps.iter().all(|s| s.ok), "{steps:?}");
    assert_eq!(steps[2].detail, "not encrypted");
    assert!(steps[4].detail.starts_with("PostgreSQL "));
    assert_eq!(steps[6].detail, "6 can be read");

    let steps = open(&params_with(&server, &[("password", "wrong")])).test().await;
    let last = steps.last().unwrap();
    assert_eq!((last.step.as_str(), last.ok), ("log in", false));
    assert!(last.detail.contains("check `user` and `password`"), "{}", last.detail);
}
