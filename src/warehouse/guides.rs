//! The table of parameters in each provider's guide (`docs/warehouses/<name>.md`) is written from its declaration, and
//! this test says when it no longer is. `UPDATE_DOCS=1 cargo test guides` writes it anew.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::path::Path;

use super::{Parameter, ParameterKind, Provider, registry};

const BEGIN: &str = "<!-- parameters: written from the declaration, see src/warehouse/guides.rs -->\n";
const END: &str = "<!-- end of parameters -->";

fn kind(parameter: &Parameter) -> String {
    match parameter.kind {
        ParameterKind::Text => "text".into(),
        ParameterKind::Integer { min, max } => format!("{min} to {max}"),
        ParameterKind::Bool => "true or false".into(),
        ParameterKind::Choice(words) => words.iter().map(|w| format!("`{w}`")).collect::<Vec<_>>().join(", "),
        ParameterKind::Location => "directory or URL".into(),
        ParameterKind::File => "file".into(),
        ParameterKind::Secret => "secret".into(),
        ParameterKind::Duration => "duration".into(),
        ParameterKind::Bytes => "size".into(),
    }
}

fn table(provider: &Provider) -> String {
    let mut text = String::from("\n| Parameter | Kind | Default | What it is |\n|---|---|---|---|\n");
    for parameter in provider.parameters {
        let default = match parameter.default {
            Some(default) => format!("`{default}`"),
            None if parameter.required => "required".into(),
            None => String::new(),
        };
        let help = parameter.help.replace('|', "\\|");
        text.push_str(&format!("| `{}` | {} | {default} | {help} |\n", parameter.name, kind(parameter)));
    }
    text.push('\n');
    text
}

#[test]
fn every_guide_has_its_parameters() {
    let mut stale = Vec::new();
    for provider in registry() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("docs/warehouses/{}.md", provider.name));
        let text = std::fs::read_to_string(&file).expect("a guide for each provider");
        let (before, rest) = text.split_once(BEGIN).expect("the mark before the parameters");
        let (now, after) = rest.split_once(END).expect("the mark after the parameters");
        let wanted = table(provider);
        if now == wanted {
            continue;
        }
        stale.push(provider.name);
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(&file, format!("{before}{BEGIN}{wanted}{END}{after}")).unwrap();
        }
    }
    assert!(
        stale.is_empty(),
        "the parameters in the guides of {stale:?} are not as declared: UPDATE_DOCS=1 writes them"
    );
}
