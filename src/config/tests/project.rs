use super::*;
use crate::people::Role;

#[test]
fn a_project_without_models_loads_with_its_defaults() {
    let case = Case::project(PROJECT);
    let project = case.load().unwrap();
    assert_eq!(project.store, StoreLocation::Directory(project.root.join(".cloud-connect")));
    assert!(project.root.is_absolute());
    assert_eq!(project.memory_limit, None);
    assert_eq!(project.identities[1].normalize, [Normalization::Trim, Normalization::Lowercase]);
    assert_eq!(project.connections["ebikes"].parameters["path"], "examples/ebikes");
    assert!(project.models.is_empty());
}

#[test]
fn the_example_of_the_reference_loads() {
    let reference = include_str!("../../../docs/configuration.md");
    let blocks: Vec<&str> = reference.split("```yaml\n").skip(1).map(|b| b.split("```").next().unwrap()).collect();
    let [project, model] = blocks.as_slice() else { panic!("two examples are expected") };
    let case =
        Case::new(&[(PROJECT_FILE, project), ("models/holiday.yml", model), ("models/holiday.sql", "select 1;")]);
    let project = case.load().unwrap();
    assert_eq!(project.memory_limit, Some(512 * 1024 * 1024));
    assert_eq!(project.connections["app_db"].parameters["password"], "${env:APP_DB_PASSWORD}");
    let model = &project.models["holiday"];
    assert_eq!(model.activated_fields, ["brand", "last_purchase_at", "lifetime_value"]);
    assert_eq!(model.schedule.as_ref().unwrap().to_string(), "every 1h");
    assert_eq!(model.guard, Guard { max_removed: 1000, max_removed_percent: 10.0 });
    assert!(model.columns["email"].not_null);
    assert_eq!(model.timeout, Some(std::time::Duration::from_secs(1800)));
    assert_eq!((model.sql.as_str(), model.sql_file.to_str().unwrap()), ("select 1", "models/holiday.sql"));
}

#[test]
fn what_the_public_may_see_is_named_field_by_field() {
    let case = |text: &str| Case::project(&format!("service: {text}\n{PROJECT}"));
    assert_eq!(Case::project(PROJECT).load().unwrap().service, ServiceConfig::default());
    let service = case("{ public_identities: email, public_fields: [cc_vip_plan, user_id], serving_files: false }");
    let service = service.load().unwrap().service;
    assert_eq!((service.public_identities, service.serving_files), (vec!["email".to_string()], false));
    assert_eq!(service.public_fields, ["cc_vip_plan", "user_id"]);
    case("{ public_identities: [mail] }").expect("unknown-field", 1, 32, "`mail` is not an identity field", "`email`");
    case("{ public_fields: [plan] }").expect("unknown-field", 1, 28, "`plan` is not a field", "cc_<slug>_<column>");
    case("{ public: [email] }").expect("unknown-key", 1, 12, "`public` is not a key", "public_fields");
}

#[test]
fn an_identity_provider_is_described_and_its_faults_are_pointed_at() {
    let case = |text: &str| Case::project(&format!("service: {{ oidc: {text} }}\n{PROJECT}"));
    let whole = "{ issuer: 'https://login.example.com', client_id: cc, client_secret: '${env:X}', default_role: viewer, \
                 roles: { claim: groups, map: { data: data_manager } }, allowed_domains: Example.com }";
    let oidc = case(whole).load().unwrap().service.oidc.unwrap();
    assert_eq!((oidc.issuer.as_str(), oidc.client_id.as_str()), ("https://login.example.com", "cc"));
    assert_eq!((oidc.default_role, oidc.roles["data"]), (Some(Role::Viewer), Role::DataManager));
    assert_eq!((oidc.roles_claim.as_deref(), oidc.allowed_domains), (Some("groups"), vec!["example.com".to_string()]));
    let with = |rest: &str| case(&format!("{{ issuer: 'https://a.example', client_id: cc, {rest} }}"));
    with("default_role: edtior").expect("unknown-role", 1, 78, "`edtior` is not a role", "did you mean `editor`?");
    with("default_role: public").expect("invalid-role", 1, 78, "cannot have the role public", "viewer");
    with("client_secret: x").expect("no-role", 1, 12, "gives no role", "default_role");
    with("roles: { claim: groups }").expect("missing-key", 1, 64, "`roles` has no `map`", "data-team");
    let in_clear = case("{ issuer: 'http://a.example', client_id: cc, default_role: viewer }");
    in_clear.expect("invalid-issuer", 1, 28, "does not begin with https", "/.well-known");
    let secret =
        case("{ issuer: 'https://a.example', client_id: cc, client_secret: hunter2hunter2, default_role: boss }");
    assert!(!secret.load().unwrap_err().render(false).contains("hunter2"));
    let project = case(&whole.replace("'${env:X}'", "hunter2hunter2")).load().unwrap();
    assert!(!format!("{project:?}").contains("hunter2"));
    let url = |text: &str| Case::project(&format!("service: {{ public_url: '{text}' }}\n{PROJECT}"));
    assert_eq!(url("https://cc.example.com/").load().unwrap().service.public_url.unwrap(), "https://cc.example.com");
    url("cc.example.com").expect("invalid-url", 1, 24, "`public_url` is not the address", "scheme and host");
}

#[test]
fn the_store_may_be_a_directory_or_an_object_store() {
    let store = |text: &str| Case::project(&format!("store: {text}\n{PROJECT}")).load().map(|p| p.store);
    assert_eq!(store("file:///var/state").unwrap(), StoreLocation::Directory("/var/state".into()));
    assert_eq!(store("/var/state").unwrap(), StoreLocation::Directory("/var/state".into()));
    for url in ["s3://bucket/x", "gs://bucket", "abfss://container@account.dfs.core.windows.net/x", "az://container/x"]
    {
        assert_eq!(store(url).unwrap(), StoreLocation::ObjectStore(url.parse().unwrap()));
    }
    assert_eq!(store("${env:SET}").unwrap(), StoreLocation::ObjectStore("s3://bucket/state".parse().unwrap()));
}

#[test]
fn a_faulty_store_is_pointed_at() {
    let case = |text: &str| Case::project(&format!("store: {text}\n{PROJECT}"));
    case("ftp://host/x").expect("invalid-store", 1, 8, "cannot be on `ftp://`", "s3://");
    case("s3://").expect("invalid-store", 1, 8, "no bucket", "s3://");
    case("${env:MISSING}").expect("unset-variable", 1, 8, "`MISSING` is not set", "export MISSING");
    let login = case("s3://key:hunter2@bucket/x");
    login.expect("secret-in-url", 1, 8, "holds credentials", "through the environment");
    assert!(!login.load().unwrap_err().render(false).contains("hunter2"));
}

#[test]
fn a_missing_file_says_where_it_was_looked_for() {
    Case::new(&[]).expect("no-project", 1, 1, "there is no such file in", "cloud-connect init");
}

#[test]
fn an_empty_file_lacks_what_is_required() {
    let codes: Vec<_> = Case::project("# nothing\n").errors().into_iter().map(|e| e.message).collect();
    assert_eq!(codes, ["cloud-connect.yml has no `profile`", "cloud-connect.yml has no `connections`"]);
}

#[test]
fn unknown_and_repeated_keys_are_all_found() {
    let case = Case::project(&format!("stoer: x\n{PROJECT}schedule: every 1h\nzzz: 1\nstoer: y\n"));
    let errors = case.errors();
    let found: Vec<_> = errors.iter().map(|e| (e.code, e.line, e.hint.clone().unwrap())).collect();
    assert_eq!(found[0], ("unknown-key", 1, "did you mean `store`?".into()));
    assert_eq!(found[1], ("unknown-key", 9, "`schedule` belongs in the top level of a model's file".into()));
    let keys = "`store`, `memory_limit`, `profile`, `connections`, `alerts`, `service`";
    assert_eq!(found[2].2, format!("the keys of cloud-connect.yml are {keys}"));
    assert_eq!(found[3], ("duplicate-key", 11, "it is first given in line 1; keep one of them".into()));
    assert_eq!(found.len(), 4);
}

#[test]
fn wrong_types_say_what_is_wanted() {
    let case = Case::project("store: 5\nmemory_limit: lots\nprofile: email\nconnections: [a]\n");
    let found: Vec<_> = case.errors().into_iter().map(|e| (e.code, e.line, e.column, e.message)).collect();
    let expected = [
        ("wrong-type", 1, 8, "`store` has to be text, not a number"),
        ("invalid-size", 2, 15, "`memory_limit` has to be a size in bytes"),
        ("wrong-type", 3, 10, "`profile` has to be a mapping (`key: value`), not text"),
        ("wrong-type", 4, 14, "`connections` has to be a mapping (`key: value`), not a list"),
    ];
    assert_eq!(found, expected.map(|(code, line, column, message)| (code, line, column, message.to_string())));
}

#[test]
fn memory_has_a_lower_bound() {
    let case = |text: &str| Case::project(&format!("memory_limit: {text}\n{PROJECT}"));
    assert_eq!(case("1GiB").load().unwrap().memory_limit, Some(1 << 30));
    assert_eq!(case("268435456").load().unwrap().memory_limit, Some(1 << 28));
    case("1MiB").expect("out-of-range", 1, 15, "256MiB or more", "512MiB");
}

#[test]
fn identities_are_needed_known_and_distinct() {
    let case = |identities: &str| {
        Case::project(&format!(
            "profile:\n  identities: {identities}\nconnections: {{ c: {{ type: local, path: x }} }}\n"
        ))
    };
    case("[]").expect("no-identity", 2, 3, "names no field", "email");
    case("email").expect("wrong-type", 2, 3, "has to be a list", "email");
    case("[email, user_id, Email]").expect("duplicate-identity", 2, 32, "`Email` is given twice", "line 2");
    case("[_cc_x]").expect("invalid-name", 2, 16, "reserved", "letters");
    case("[cc_x_y]").expect("invalid-name", 2, 16, "come from models", "letters");
    case("[{ field: email, normalize: [lowercas] }]").expect(
        "unknown-normalization",
        2,
        44,
        "lowercas",
        "did you mean `lowercase`?",
    );
    case("[{ normalize: trim }]").expect("missing-key", 2, 16, "an identity has no `field`", "field: email");
    assert_eq!(case("[email, user_id]").load().unwrap().identities.len(), 2);
}

#[test]
fn connections_are_checked_against_their_provider() {
    let case = |connection: &str| {
        Case::project(&format!("profile: {{ identities: [email] }}\nconnections:\n  db: {connection}\n"))
    };
    let postgres = "{ type: postgres, host: h, database: d, user: u";
    case("{ type: postgresql, host: h }").expect("unknown-type", 3, 15, "`postgresql`", "did you mean `postgres`?");
    case("{ type: oracle }").expect("unknown-type", 3, 15, "`oracle`", "the types are `local`, `postgres`");
    case("{ path: x }").expect("missing-key", 3, 3, "connection `db` has no `type`", "`local`, `postgres`");
    case("{ type: local }").expect("missing-parameter", 3, 3, "has no `path`", "`path`: ask whoever");
    case("x").expect("wrong-type", 3, 7, "connection `db` has to be a mapping", "key: value");
    case(&format!("{postgres}, prot: 1 }}")).expect("unknown-parameter", 3, 56, "`prot`", "did you mean `port`?");
    case(&format!("{postgres}, port: 70000 }}")).expect("invalid-parameter", 3, 62, "from 1 to 65535", "`5432`");
    case(&format!("{postgres}, port: [1] }}")).expect("invalid-parameter", 3, 62, "not a list", "`5432`");
    case(&format!("{postgres}, sslmode: prefer }}")).expect("invalid-parameter", 3, 65, "`verify-full`", "`require`");
    case(&format!("{postgres}, statement_timeout: soon }}")).expect("invalid-parameter", 3, 75, "`30s`", "`30m`");
    case(&format!("{postgres}, password: \"${{ENV}}\" }}")).expect(
        "malformed-reference",
        3,
        66,
        "not well formed",
        "${env:NAME}",
    );
    assert!(case(&format!("{postgres}, port: ${{env:PORT}} }}")).load().is_ok());
    Case::project("profile: { identities: [email] }\nconnections:\n  \"a b\": { type: local, path: x }\n").expect(
        "invalid-name",
        3,
        3,
        "`a b`",
        "letters",
    );
}

#[test]
fn a_password_that_looks_like_a_number_is_kept_as_written() {
    let text = "profile: { identities: [email] }\nconnections:\n  db: { type: postgres, host: h, database: 1e3, user: true, password: 0x10 }\n";
    let project = Case::project(text).load().unwrap();
    let parameters = &project.connections["db"].parameters;
    assert_eq!((parameters["password"].as_str(), parameters["database"].as_str()), ("0x10", "1e3"));
}
