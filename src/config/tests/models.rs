use super::*;

fn with(line: &str) -> Case {
    Case::model(&format!("{MODEL}{line}\n"))
}

#[test]
fn a_model_has_defaults() {
    let project = Case::model("connection: ebikes\nprimary_key: [email]\nexternal_key: email\n").load().unwrap();
    let model = &project.models["m"];
    assert_eq!((model.name.as_str(), model.primary_key.as_str()), ("m", "email"));
    assert!(model.active && model.create_profiles && model.schedule.is_none() && model.activated_fields.is_empty());
    assert_eq!(model.guard, Guard::default());
}

#[test]
fn what_is_required_is_asked_for() {
    let errors = Case::model("name: x\nprimary_key:\n").errors();
    let found: Vec<_> = errors.iter().map(|e| (e.code, e.line, e.message.as_str())).collect();
    assert_eq!(
        found,
        [
            ("missing-key", 1, "a model has no `connection`"),
            ("missing-key", 1, "a model has no `external_key`"),
            ("missing-key", 2, "`primary_key` is empty"),
        ]
    );
    assert!(errors[1].hint.as_deref().unwrap().contains("`user_id`, `email`"));
}

#[test]
fn names_are_checked_against_the_project() {
    Case::model("connection: ebike\nprimary_key: a\nexternal_key: email\n").expect(
        "unknown-connection",
        1,
        13,
        "`ebike`",
        "did you mean `ebikes`?",
    );
    Case::model("connection: ebikes\nprimary_key: a\nexternal_key: mail\n").expect(
        "unknown-identity",
        3,
        15,
        "`mail`",
        "did you mean `email`?",
    );
    with("identities: [user_id, phone]").expect("unknown-identity", 5, 23, "`phone`", "`user_id`, `email`");
    with("identities: [email]").expect("identity-is-external-key", 5, 14, "`email`", "remove it");
    with("identities: [user_id, user_id]").expect("duplicate-identity", 5, 23, "given twice", "remove");
    with("store: x").expect("unknown-key", 5, 1, "`store`", "belongs in the top level of cloud-connect.yml");
    with("activ: true").expect("unknown-key", 5, 1, "`activ`", "did you mean `active`?");
    with("connection: ebikes").expect("duplicate-key", 5, 1, "given twice", "line 1");
}

#[test]
fn a_key_is_one_column() {
    Case::model("connection: ebikes\nprimary_key: [a, b]\nexternal_key: email\n").expect(
        "several-key-columns",
        2,
        18,
        "one column",
        "a || '|' || b",
    );
    Case::model("connection: ebikes\nprimary_key: []\nexternal_key: email\n").expect(
        "missing-key",
        2,
        1,
        "empty",
        "identifies a row",
    );
    Case::model("connection: ebikes\nprimary_key: _cc_key\nexternal_key: email\n").expect(
        "reserved-name",
        2,
        14,
        "reserved",
        "AS",
    );
}

#[test]
fn activated_fields_are_few_distinct_and_not_reserved() {
    let fields = |fields: &str| {
        Case::model(&format!(
            "connection: ebikes\nprimary_key: email\nexternal_key: email\nactivated_fields:{fields}\n"
        ))
    };
    let many: String = (0..26).map(|i| format!("\n  - c{i}")).collect();
    fields(&many).expect("too-many-fields", 30, 5, "26 fields", "split the model");
    assert!(fields(&many.replace("\n  - c25", "")).load().is_ok());
    fields(" [a, b, a]").expect("duplicate-field", 4, 26, "activated twice", "remove");
    fields(" [a, A]").expect("duplicate-field", 4, 23, "only by case", "AS");
    fields(" [email]").expect("key-activated", 4, 20, "is the primary key", "already kept");
    fields(" [_cc_x]").expect("reserved-name", 4, 20, "reserved", "AS");
    fields(" [membership]").expect("reserved-name", 4, 20, "every model has", "AS");
    fields(" [\"a b\"]").expect("invalid-name", 4, 20, "no space", "AS");
    fields(" { a: b }").expect("wrong-type", 4, 1, "has to be a list", "[first, second]");
    fields(" [1]").expect("wrong-type", 4, 20, "has to be text", "quotes");
}

#[test]
fn schedules_are_checked_in_every_form() {
    let zone = "Europe/Berlin";
    for good in [
        "every 15m".to_string(),
        format!("cron 0 6 * * 1-5 {zone}"),
        "{ every: 2d }".into(),
        format!("{{ cron: \"0 6 * * 1-5\", time_zone: {zone} }}"),
    ] {
        assert!(with(&format!("schedule: {good}")).load().is_ok(), "{good}");
    }
    with("schedule: every 10s").expect("invalid-schedule", 5, 11, "once a minute", "`every 1m` to `every 3w`");
    with("schedule: every 4w").expect("invalid-schedule", 5, 11, "three weeks", "`every 3w`");
    with("schedule: hourly").expect("invalid-schedule", 5, 11, "`hourly`", "every 1h");
    with("schedule: { cron: \"0 6 * *\" }").expect("invalid-schedule", 5, 19, "five fields", "five fields");
    with("schedule: { cron: \"0 6 * * *\", time_zone: Europe/Berlim }").expect(
        "invalid-schedule",
        5,
        43,
        "time zone",
        "did you mean `Europe/Berlin`?",
    );
    with("schedule: { cron: \"0 6 * * *\", every: 1h }").expect("invalid-schedule", 5, 1, "either", "{ every: 1h }");
    with("schedule: 60").expect("wrong-type", 5, 11, "has to be text", "quotes");
}

#[test]
fn limits_are_in_range() {
    with("guard: { max_removed_percent: 101 }").expect("out-of-range", 5, 31, "from 0 to 100", "number");
    with("guard: { max_removed: -1 }").expect("out-of-range", 5, 23, "negative", "1000");
    with("guard: { max_removed: many }").expect("wrong-type", 5, 23, "whole number", "1000");
    with("guard: { max_remove: 1 }").expect("unknown-key", 5, 10, "`max_remove`", "did you mean `max_removed`?");
    with("timeout: 0s").expect("out-of-range", 5, 10, "from 1s", "30m");
    with("timeout: soon").expect("invalid-duration", 5, 10, "not a duration", "30m");
    with("active: yes").expect("wrong-type", 5, 9, "true or false", "`active: true`");
}

#[test]
fn contracts_are_of_known_types_and_used_columns() {
    with("columns: { brand: { type: text } }").expect("unknown-type", 5, 27, "`text` is not a value type", "string");
    with("columns: { brnad: string }").expect("unused-contract", 5, 12, "`brnad`", "did you mean `brand`?");
    with("columns: { total: { type: \"decimal(39,2)\" } }").expect("unknown-type", 5, 27, "decimal(39,2)", "1 to 38");
    let project = with("columns: { total: \"decimal(12,2)\", brand: { not_null: true } }").load().unwrap();
    let columns = &project.models["m"].columns;
    assert_eq!(columns["total"].value_type.unwrap().to_string(), "decimal(12,2)");
    assert_eq!(columns["brand"], ColumnContract { value_type: None, not_null: true });
}

#[test]
fn models_that_share_a_key_need_the_same_external_key_and_both_are_pointed_at() {
    let case = Case::model(MODEL);
    case.write("models/n.yml", "connection: ebikes\nprimary_key: email\nexternal_key: user_id\n");
    case.write("models/n.sql", "select 1");
    let errors = case.errors();
    let found: Vec<_> = errors.iter().map(|e| (e.code, e.file.to_str().unwrap(), e.line, e.column)).collect();
    assert_eq!(
        found,
        [("external-key-conflict", "models/m.yml", 3, 15), ("external-key-conflict", "models/n.yml", 3, 15)]
    );
    assert!(errors[0].message.contains("`user_id` in models/n.yml (line 3)"), "{}", errors[0].message);
}

#[test]
fn two_models_may_not_meet_in_one_profile_field() {
    let case = Case::new(&[(PROJECT_FILE, PROJECT)]);
    for (slug, column) in [("a", "b_c"), ("a_b", "c")] {
        let yml =
            format!("connection: ebikes\nprimary_key: email\nexternal_key: email\nactivated_fields: [{column}]\n");
        case.write(&format!("models/{slug}.yml"), &yml);
        case.write(&format!("models/{slug}.sql"), "select 1");
    }
    case.expect("field-name-conflict", 4, 20, "`cc_a_b_c`", "another");
}
