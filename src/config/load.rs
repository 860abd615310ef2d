//! Reading the files of a project, and what can be judged only over all of them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use super::decode::File;
use super::error::slashed;
use super::project::{self, Top};
use super::source::{Source, Span};
use super::yaml::{self, Node};
use super::{ConfigError, ConfigErrors, MODELS_DIR, Model, PROJECT_FILE, Project, alerts, mask, models, names, sql};
use crate::secrets::{Environment, process_environment};
use crate::warehouse::Provider;

/// Reads and validates the project in `root`, whose connections are of these kinds. On failure: every fault of every
/// file.
pub fn load(root: &Path, providers: &[Provider]) -> Result<Project, ConfigErrors> {
    load_with(root, providers, &process_environment)
}

/// [`load`] with this environment (which only `store:` is resolved from).
pub fn load_with(root: &Path, providers: &[Provider], env: Environment<'_>) -> Result<Project, ConfigErrors> {
    let root = std::path::absolute(root).unwrap_or_else(|_| root.to_path_buf());
    let mut faults = Vec::new();
    let top = load_top(&root, providers, env, &mut faults);
    let models = load_models(&root, providers, &top, &mut faults);
    check_external_keys(&models, &mut faults);
    check_field_names(&models, &mut faults);
    alerts::check_models(&top.alerts, &root, &models, &mut faults);
    match top {
        Top {
            store: Some(store), memory_limit, identities: Some(identities), connections, alerts, service, ..
        } if faults.is_empty() => {
            let models = models.into_iter().map(|m| (m.slug.clone(), m)).collect();
            Ok(Project {
                root,
                store,
                memory_limit,
                identities,
                service,
                connections,
                models,
                alerts,
                providers: providers.into(),
                vault: Arc::default(),
            })
        }
        _ => Err(ConfigErrors::new(faults)),
    }
}

/// A file under decoding and its tree. Faults of the text itself are reported, and then there is no tree.
struct Parsed {
    file: File,
    node: Option<Rc<Node>>,
}

fn parse(file: PathBuf, text: &str, providers: &[Provider], faults: &mut Vec<ConfigError>) -> Option<Parsed> {
    match yaml::parse(text) {
        Ok(node) => {
            let hidden = node.as_deref().map(|n| mask::in_tree(n, providers)).unwrap_or_default();
            Some(Parsed { file: File::new(Source::new(file, text, hidden)), node })
        }
        Err(error) => {
            let source = Source::new(file, text, mask::in_text(text, providers));
            faults.push(
                source
                    .error("yaml-syntax", error.span, error.message)
                    .with_hint("check the indentation, the quotes and the brackets here and just above"),
            );
            None
        }
    }
}

/// The text of a file, without the mark that some editors put first.
fn read(root: &Path, file: &Path, faults: &mut Vec<ConfigError>) -> Option<String> {
    match std::fs::read(root.join(file)).map(String::from_utf8) {
        Ok(Ok(text)) => Some(text.strip_prefix('\u{feff}').map(String::from).unwrap_or(text)),
        Ok(Err(_)) => {
            faults.push(
                ConfigError::of_file("not-utf8", file, "the file is not UTF-8 text").with_hint("save it as UTF-8"),
            );
            None
        }
        Err(error) => {
            faults.push(
                ConfigError::of_file("unreadable", file, format!("the file cannot be read: {error}"))
                    .with_hint("check that it is a file and that you may read it"),
            );
            None
        }
    }
}

fn load_top(root: &Path, providers: &[Provider], env: Environment<'_>, faults: &mut Vec<ConfigError>) -> Top {
    let file = PathBuf::from(PROJECT_FILE);
    if !root.join(&file).exists() {
        let message = format!("there is no such file in {}", root.display());
        let hint = "go to the project's directory, name it with `--project DIR`, or make one with `cloud-connect init`";
        faults.push(ConfigError::of_file("no-project", file, message).with_hint(hint));
        return Top::default();
    }
    let parsed = read(root, &file, faults).and_then(|text| parse(file, &text, providers, faults));
    let Some(Parsed { file, node }) = parsed else { return Top::default() };
    let top = project::decode(&file, node.as_deref(), root, providers, env);
    faults.extend(file.into_faults());
    top
}

/// The files of one model, relative to the project.
#[derive(Default)]
struct Pair {
    config: Vec<PathBuf>,
    sql: Vec<PathBuf>,
}

fn load_models(root: &Path, providers: &[Provider], top: &Top, faults: &mut Vec<ConfigError>) -> Vec<Model> {
    let mut models = Vec::new();
    for (slug, pair) in list(root, faults) {
        for (kind, files) in [("a model's file", &pair.config), ("a model's SQL", &pair.sql)] {
            for second in files.iter().skip(1) {
                let message = format!("the slug `{slug}` is used twice, for {} too", slashed(&files[0]));
                let hint = format!("keep one file as {kind} for `{slug}`, and rename or remove the other");
                faults.push(ConfigError::of_file("slug-used-twice", second, message).with_hint(hint));
            }
        }
        if pair.config.is_empty() {
            for file in &pair.sql {
                let config = file.with_extension("yml");
                let hint = format!(
                    "create {} with `connection`, `primary_key`, `external_key` and `activated_fields`",
                    slashed(&config)
                );
                let message = format!("the model has SQL, and no {}", slashed(&config));
                faults.push(ConfigError::of_file("no-model-file", file, message).with_hint(hint));
            }
        }
        let mut statement = None;
        for (index, file) in pair.config.iter().enumerate() {
            let parsed = read(root, file, faults).and_then(|text| parse(file.clone(), &text, providers, faults));
            let Some(Parsed { file: decoding, node }) = parsed else { continue };
            let model = models::decode(&decoding, node.as_deref(), &slug, top);
            if pair.sql.is_empty() {
                let sql = file.with_extension("sql");
                let message = format!("the model has no SQL: there is no {}", slashed(&sql));
                decoding.fault(
                    "no-sql-file",
                    Span::START,
                    message,
                    format!("create {} with one SELECT", slashed(&sql)),
                );
            }
            faults.extend(decoding.into_faults());
            let provider = model.as_ref().and_then(|m| top.connections.get(&m.connection)).map(|c| c.provider.as_str());
            if index == 0 {
                statement = load_sql(root, &pair, provider, faults);
            }
            if let (Some(mut model), Some((sql_file, sql))) = (model, statement.clone()) {
                model.sql_file = sql_file;
                model.sql = sql;
                models.push(model);
            }
        }
    }
    models
}

fn load_sql(
    root: &Path,
    pair: &Pair,
    provider: Option<&str>,
    faults: &mut Vec<ConfigError>,
) -> Option<(PathBuf, String)> {
    let file = pair.sql.first()?;
    let text = read(root, file, faults)?;
    let source = Source::new(file.clone(), &text, Vec::new());
    match sql::statement(&source, &text, provider) {
        Ok(sql) => Some((file.clone(), sql)),
        Err(fault) => {
            faults.push(*fault);
            None
        }
    }
}

/// The models' files by slug. Names that differ only by case, `-` and `_` share one. Faulty names are reported.
fn list(root: &Path, faults: &mut Vec<ConfigError>) -> BTreeMap<String, Pair> {
    let mut pairs: BTreeMap<String, Pair> = BTreeMap::new();
    let entries = match std::fs::read_dir(root.join(MODELS_DIR)) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return pairs,
        Err(e) => {
            faults.push(
                ConfigError::of_file("unreadable", MODELS_DIR, format!("the directory cannot be read: {e}"))
                    .with_hint("check that it is a directory and that you may read it"),
            );
            return pairs;
        }
    };
    let mut files: Vec<PathBuf> = entries.flatten().map(|e| Path::new(MODELS_DIR).join(e.file_name())).collect();
    files.sort();
    for file in files {
        let extension = file.extension().map(|e| e.to_string_lossy().to_ascii_lowercase()).unwrap_or_default();
        let stem = file.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
        // editors leave hidden files behind
        if !matches!(extension.as_str(), "yml" | "yaml" | "sql") || stem.starts_with('.') {
            continue;
        }
        let slug = names::slug_of(&stem);
        if !names::is_slug(&stem) {
            let suggestion = if names::is_slug(&slug) {
                let renamed = file.with_file_name(format!("{slug}.{extension}"));
                format!("rename the file to {}", slashed(&renamed))
            } else {
                "rename the file, for example to holiday_buyers".into()
            };
            let hint = format!("{suggestion}: a slug starts with a-z and holds a-z, 0-9 and `_`, at most 64 of them");
            let message = format!("`{stem}` is not a slug");
            faults.push(ConfigError::of_file("invalid-slug", &file, message).with_hint(hint));
        }
        let pair = pairs.entry(slug).or_default();
        if extension == "sql" { pair.sql.push(file) } else { pair.config.push(file) }
    }
    pairs
}

/// Models that share connection and primary key describe the same rows, so they have to mean the same people.
pub(super) fn check_external_keys(models: &[Model], faults: &mut Vec<ConfigError>) {
    for model in models {
        let other = models.iter().find(|m| {
            m.connection == model.connection
                && m.primary_key == model.primary_key
                && m.external_key != model.external_key
        });
        if let Some(other) = other {
            let line = other.spans.get("external_key").map_or(1, |s| s.line);
            let message = format!(
                "`{}` is matched with `{}` here, and with `{}` in {} (line {line})",
                model.primary_key,
                model.external_key,
                other.external_key,
                slashed(&other.config_file),
            );
            faults.push(
                model.spans.error("external_key", "external-key-conflict", &model.config_file, message).with_hint(
                    "models that share a connection and a primary key need the same external key; \
                     give one of the columns another name in its SQL if they are different keys",
                ),
            );
        }
    }
}

/// `cc_<slug>_<column>` can be met in two ways: slug `a` with column `b_c`, and slug `a_b` with column `c`.
pub(super) fn check_field_names(models: &[Model], faults: &mut Vec<ConfigError>) {
    let own = ["membership", "membership_since"];
    let mut seen: BTreeMap<String, (&Model, &str)> = BTreeMap::new();
    for model in models {
        for column in own.into_iter().chain(model.activated_fields.iter().map(String::as_str)) {
            let field = format!("cc_{}_{column}", model.slug).to_lowercase();
            match seen.get(&field) {
                Some((other, _)) if other.slug != model.slug => {
                    let path = format!("activated_fields.{column}");
                    let message = format!(
                        "`{column}` becomes the profile field `{field}`, and so does a field of {}",
                        slashed(&other.config_file)
                    );
                    faults.push(
                        model
                            .spans
                            .error(&path, "field-name-conflict", &model.config_file, message)
                            .with_hint("give the column another name in the SQL, or the model another slug"),
                    );
                }
                Some(_) => {}
                None => {
                    seen.insert(field, (model, column));
                }
            }
        }
    }
}
