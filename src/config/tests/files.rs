use super::*;

fn files(names: &[&str]) -> Case {
    let case = Case::new(&[(PROJECT_FILE, PROJECT)]);
    for name in names {
        case.write(&format!("models/{name}"), if name.ends_with("sql") { "select 1" } else { MODEL });
    }
    case
}

#[test]
fn a_model_needs_both_files() {
    files(&["a.sql"]).expect("no-model-file", 1, 1, "no models/a.yml", "create models/a.yml");
    files(&["a.yml"]).expect("no-sql-file", 1, 1, "no models/a.sql", "create models/a.sql");
}

#[test]
fn a_slug_is_used_once_and_well_formed() {
    files(&["a.yml", "a.yaml", "a.sql"]).expect("slug-used-twice", 1, 1, "models/a.yaml", "rename or remove");
    let errors = files(&["Holiday-Buyers.yml", "Holiday-Buyers.sql"]).errors();
    assert_eq!(errors.iter().map(|e| e.code).collect::<Vec<_>>(), ["invalid-slug", "invalid-slug"]);
    assert!(errors[1].hint.as_deref().unwrap().starts_with("rename the file to models/holiday_buyers.yml"));
    let codes: Vec<_> =
        files(&["x_y.yml", "x_y.sql", "x-y.yml"]).errors().into_iter().map(|e| (e.code, e.file)).collect();
    assert_eq!(
        codes,
        [("invalid-slug", "models/x-y.yml".into()), ("slug-used-twice", PathBuf::from("models/x_y.yml"))]
    );
}

#[test]
fn other_files_are_left_alone() {
    let case = files(&["a.yml", "a.sql", "README.md", ".a.yml.swp", ".b.yml"]);
    assert_eq!(case.load().unwrap().models.len(), 1);
}

#[test]
fn sql_is_one_statement() {
    let sql = |sql: &str| Case::new(&[(PROJECT_FILE, PROJECT), ("models/m.yml", MODEL), ("models/m.sql", sql)]);
    sql("-- later\n").expect("empty-sql", 1, 1, "no SQL", "SELECT");
    sql("select 1;\ndelete from t").expect("several-statements", 2, 1, "second", "one SELECT");
    assert_eq!(sql("select ';' ; \n").load().unwrap().models["m"].sql, "select ';'");
}

#[test]
fn a_file_that_is_not_text_is_named() {
    let case = files(&["a.yml", "a.sql"]);
    std::fs::write(case.root().join("models/a.sql"), [0xff, 0xfe, 0x00]).unwrap();
    case.expect("not-utf8", 1, 1, "UTF-8", "save");
}

#[test]
fn yaml_faults_of_every_file_are_found_in_one_pass() {
    let case = Case::new(&[
        (PROJECT_FILE, "profile: { identities: [email\n"),
        ("models/a.yml", "name: \"open\nconnection: x\n"),
        ("models/a.sql", "select 1"),
        ("models/b.yml", "nmae: b\nconnection: x\nprimary_key: k\nexternal_key: e\n"),
        ("models/b.sql", ""),
    ]);
    let found: Vec<_> = case.errors().into_iter().map(|e| (e.code, e.file.display().to_string())).collect();
    // with cloud-connect.yml unread, nothing is said of connections and identities
    let expected = [
        ("yaml-syntax", PROJECT_FILE),
        ("yaml-syntax", "models/a.yml"),
        ("empty-sql", "models/b.sql"),
        ("unknown-key", "models/b.yml"),
    ];
    assert_eq!(found, expected.map(|(code, file)| (code, file.to_string())));
}

#[test]
fn anchors_second_documents_and_a_byte_order_mark() {
    let yml = "connection: &c ebikes\nprimary_key: email\nexternal_key: email\nname: *c\n";
    assert_eq!(Case::model(&format!("\u{feff}{yml}")).load().unwrap().models["m"].name, "ebikes");
    Case::model(&format!("{MODEL}---\nname: x\n")).expect("yaml-syntax", 5, 1, "second one", "check");
}
