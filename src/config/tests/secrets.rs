use super::*;
use crate::secrets::{OpenError, ResolveError, resolve, unresolved_with};

const SECRET: &str = "hunter2";

fn postgres(rest: &str) -> String {
    format!(
        "profile: {{ identities: [email] }}\nconnections:\n  db:\n    type: postgres\n    host: h\n    database: d\n    user: u\n{rest}"
    )
}

/// Everything that a person may be shown of the faults.
fn shown(errors: &ConfigErrors) -> String {
    format!("{}{}{errors:?}{}", errors.render(false), errors.render(true), serde_json::to_string(errors).unwrap())
}

#[test]
fn no_fault_beside_or_on_a_secret_shows_it() {
    for text in [
        // a fault on the line before, after, on the same line, and in the secret itself
        postgres(&format!("    prot: 1\n    password: {SECRET}\n    sslmod: x\n")),
        postgres(&format!("    password: \"{SECRET}\"\n    password: {SECRET}\n")),
        postgres(&format!("    password: [{SECRET}]\n")),
        postgres(&format!("    password: {{ a: {SECRET} }}\n")),
        postgres(&format!("    password: \"{SECRET} ${{oops}}\"\n")),
        postgres(&format!("    password: |\n      {SECRET}\n      {SECRET}\n    prot: 1\n")),
        postgres(&format!("    password: >-\n      {SECRET}\n    prot: 1\n")),
        // the key is misspelt, or the provider unknown, so nobody knows that it is a secret
        postgres(&format!("    pasword: {SECRET}\n")),
        postgres(&format!("    pw: {SECRET}\n")),
        postgres(&format!("    password: {SECRET}\n")).replace("type: postgres", "type: oracle"),
        postgres(&format!("    password: {SECRET}\n")).replace("    type: postgres\n", ""),
        format!("connections: {{ db: postgres://u:{SECRET}@host/d }}\n"),
        format!("connections: postgres://u:{SECRET}@host/d\n"),
        format!("password: {SECRET}\nconnections: {{}}\n"),
        format!("stoer: s3://key:{SECRET}@bucket\nconnections: {{}}\n"),
        // one line
        format!("connections:\n  db: {{ type: postgres, password: {SECRET}, prot: 5, host: h }}\n"),
        // no YAML at all
        postgres(&format!("    password: \"{SECRET}\n")),
        postgres(&format!("    password: \"{SECRET}\n    more: {SECRET}\n")),
        postgres(&format!("    pw: {SECRET}\n    user: \"x\n")),
        postgres(&format!("    password: |\n      {SECRET}\n   bad: [\n")),
        format!("connections:\n  db: {{ type: postgres, \"password\": '{SECRET}', prot: [5, host: h }}\n"),
        format!("connections:\n  db: {{ type: postgres, pw: {SECRET}\n"),
    ] {
        let errors = Case::project(&text).load().unwrap_err();
        assert!(!shown(&errors).contains(SECRET), "{text}\n{}", errors.render(false));
    }
}

#[test]
fn a_hidden_secret_moves_no_place() {
    let text = format!(
        "profile: {{ identities: [email] }}\nconnections:\n  db: {{ type: postgres, password: {SECRET}{SECRET}{SECRET}, prot: 5, host: h, database: d, user: u }}\n"
    );
    let errors = Case::project(&text).load().unwrap_err();
    let column = text.lines().nth(2).unwrap().find("prot").unwrap() + 1;
    assert_eq!((errors.errors[0].line, errors.errors[0].column), (3, column));
    let rendered = errors.render(false);
    assert!(rendered.contains(&format!("cloud-connect.yml:3:{column}]")), "{rendered}");
    let lines: Vec<&str> = rendered.lines().collect();
    let shown = lines.iter().position(|l| l.contains("prot: ******")).unwrap();
    let at = |line: &str, what: &str| line[..line.find(what).unwrap()].chars().count();
    assert!(lines[shown + 1].contains('─'), "{rendered}");
    assert_eq!(at(lines[shown], "prot"), at(lines[shown + 1], "─"), "{rendered}");
}

#[test]
fn a_block_secret_keeps_the_lines_after_it() {
    let text = postgres(&format!("    password: |\n      {SECRET}\n      {SECRET}\n    prot: 1\n"));
    let errors = Case::project(&text).load().unwrap_err();
    assert!(errors.render(false).contains("cloud-connect.yml:11:5]"), "{}", errors.render(false));
}

#[test]
fn references_are_shown_and_resolved_late() {
    let case = Case::project(&postgres("    password: ${env:DB_PASSWORD}\n    prot: 1\n"));
    assert!(case.load().unwrap_err().render(false).contains("${env:DB_PASSWORD}"));
}

#[test]
fn references_resolve_to_variables_and_files() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("pw"), "from file\n").unwrap();
    let env = |name: &str| (name == "A").then(|| "from env".to_string());
    let resolve = |text: &str| resolve(text, dir.path(), &env, &crate::vault::Vault::default());
    assert_eq!(resolve("x ${env:A}, ${file:pw}.").unwrap(), "x from env, from file.");
    assert_eq!(resolve("$${env:A} $5").unwrap(), "${env:A} $5");
    assert_eq!(resolve("${env:B}"), Err(ResolveError::Unset { name: "B".into() }));
    assert!(resolve("${file:none}").unwrap_err().to_string().starts_with("the file `none` cannot be read"));
    for bad in ["${A}", "${env:}", "${env:A", "${env:A B}", "${vault:x}", "${}"] {
        assert_eq!(resolve(bad), Err(ResolveError::Malformed), "{bad}");
    }
}

#[test]
fn a_connection_opens_with_its_defaults_and_secrets() {
    let project = Case::project(&postgres("    password: ${env:PW}\n    sslmode: disable\n")).load().unwrap();
    let env = |name: &str| (name == "PW").then(|| SECRET.to_string());
    let Err(OpenError::Warehouse { error, .. }) = project.open_connection_with("db", 1 << 20, &env) else {
        panic!("the test's provider always fails")
    };
    assert_eq!(error.message, "host=h port=5432 password=hunter2 sslmode=disable statement_timeout=30m");
    let error = project.open_connection_with("bd", 1 << 20, &env).err().unwrap();
    assert_eq!(error.hint().unwrap(), "did you mean `db`?");
    let error = project.open_connection_with("db", 1 << 20, &|_| None).err().unwrap();
    assert_eq!(error.to_string(), "connection `db`, `password`: the environment variable `PW` is not set");
}

#[test]
fn unresolved_references_are_found_at_their_lines() {
    let project =
        Case::project(&postgres("    password: ${env:PW}\n    port: ${env:PORT}\n    sslmode: ${file:mode}\n"))
            .load()
            .unwrap();
    let errors = unresolved_with(&project, &|name| (name == "PORT").then(|| SECRET.to_string()));
    let found: Vec<_> = errors.iter().map(|e| (e.code, e.line, e.column)).collect();
    assert_eq!(found, [("unset-variable", 8, 15), ("invalid-parameter", 9, 11), ("unreadable-secret-file", 10, 14)]);
    let errors = ConfigErrors::new(errors);
    assert!(!shown(&errors).contains(SECRET), "a value from the environment is never shown");
}

#[test]
fn debug_of_a_project_shows_no_value() {
    let project = Case::project(&postgres(&format!("    password: {SECRET}\n"))).load().unwrap();
    assert!(!format!("{project:?}").contains(SECRET));
}
