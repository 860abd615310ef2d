//! What is packaged starts what there is: the systemd unit and the image call the program as it is now.

use std::process::Command;

use crate::project::Project;

const UNIT: &str = include_str!("../../packaging/cloud-connect.service");
const DOCKERFILE: &str = include_str!("../../Dockerfile");
const MANIFEST: &str = include_str!("../../Cargo.toml");

/// The values of a directive, in order.
fn values<'a>(text: &'a str, directive: &str) -> Vec<&'a str> {
    text.lines().filter_map(|line| line.strip_prefix(directive)).map(str::trim).collect()
}

/// The words of an instruction in its JSON form, wherever that begins.
fn words(instruction: &str) -> Vec<String> {
    serde_json::from_str(&instruction[instruction.find('[').unwrap()..]).unwrap()
}

/// Does the program know this command and its options? It is not run.
fn is_known(arguments: &[&str]) -> bool {
    let asked = [arguments, &["--help"]].concat();
    Project::new().cc(&asked).code == Some(0)
}

#[test]
fn the_commands_of_the_unit_and_of_the_image_are_known() {
    let mut commands: Vec<Vec<String>> = values(UNIT, "ExecStart=")
        .iter()
        .map(|line| line.split_whitespace().skip(1).map(String::from).collect())
        .collect();
    commands.extend(values(DOCKERFILE, "CMD ").iter().map(|line| words(line)));
    let health = values(DOCKERFILE, "HEALTHCHECK ").iter().map(|line| words(line)[1..].to_vec()).collect::<Vec<_>>();
    commands.extend(health);
    assert_eq!(commands.len(), 3, "{commands:?}");
    for command in &commands {
        let command: Vec<&str> = command.iter().map(String::as_str).collect();
        assert!(is_known(&command), "{command:?}");
    }
    assert!(!is_known(&["serve", "--nothing-of-that-name"]));
}

#[test]
fn the_image_is_built_of_what_is_there() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let rust = values(MANIFEST, "rust-version = ")[0].trim_matches('"');
    let stages = values(DOCKERFILE, "FROM ");
    assert!(stages[0].starts_with(&format!("rust:{rust}-")), "{stages:?}");
    assert!(root.join("Cargo.lock").exists(), "--locked");
    for copied in values(DOCKERFILE, "COPY ") {
        let paths: Vec<&str> = copied.split_whitespace().filter(|word| !word.starts_with("--")).collect();
        let (_, sources) = paths.split_last().unwrap();
        for source in sources {
            match source.strip_prefix("/src/target/release/") {
                Some(program) => assert_eq!(program, env!("CARGO_PKG_NAME")),
                None => assert!(root.join(source).exists(), "{source}"),
            }
        }
    }
    // nothing that the build reads may be left out of what is sent to it
    let ignored = std::fs::read_to_string(root.join(".dockerignore")).unwrap();
    for needed in ["Cargo.toml", "Cargo.lock", ".cargo", "src", "sql", "docs", "askama.toml", "examples", "models"] {
        assert!(!ignored.lines().any(|line| line.trim_matches('/') == needed), "{needed} is ignored");
    }
}

#[test]
fn systemd_understands_the_unit() {
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        eprintln!("skipped: systemd-analyze is not installed here");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let verify = |text: &str| {
        let file = folder.path().join("cloud-connect.service");
        std::fs::write(&file, text.replace("/usr/bin/cloud-connect", env!("CARGO_BIN_EXE_cloud-connect"))).unwrap();
        let output = Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(file).output().unwrap();
        // what it does not know it ignores, and only says so
        (output.status.success(), String::from_utf8_lossy(&output.stderr).to_string())
    };
    assert_eq!(verify(UNIT), (true, String::new()));
    let (_, said) = verify(&UNIT.replace("RestrictNamespaces", "RestrictNameSpaces"));
    assert!(said.contains("Unknown key"), "{said}");
}
