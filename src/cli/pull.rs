//! `pull`

use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::{CliError, Context, Outcome, eprintln_line, output};
use crate::catalog::definitions::{DefinitionKind, StoredDefinition, StoredDefinitions};
use crate::config::{MODELS_DIR, PROJECT_FILE, Project, Schedule, emit};
use crate::events::{Event, Subject, SubjectKind};
use crate::secrets;
use crate::sync::{Engine, SyncError};
use crate::warehouse::ParameterKind;

/// Write models that were made through the API to files
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Connections are printed, to be pasted under `connections:` in cloud-connect.yml: models that use one \
are written once it is there. Secrets are never printed.

Examples:
  cloud-connect pull                       # all of them
  cloud-connect pull holiday_buyers
  cloud-connect pull --remove              # from now on the files alone define them"
)]
pub struct Pull {
    /// These models; without any, all that were made through the API
    models: Vec<String>,
    /// Overwrite files that are there already
    #[arg(long)]
    force: bool,
    /// Remove from the catalog what the files define by then
    #[arg(long)]
    remove: bool,
}

/// A file to write.
struct Target {
    path: PathBuf,
    text: String,
}

/// A model on its way into files.
struct Pulled {
    slug: String,
    targets: Vec<Target>,
    /// Why it stays in the catalog only.
    left: Option<String>,
}

impl Pull {
    pub async fn run(&self, context: &Context) -> Result<Outcome, CliError> {
        let engine = context.open().await?;
        let stored = engine.catalog.definitions().await?;
        let models = self.chosen(&engine, &stored)?;
        let connections = connections(&engine, &stored, &models, self.models.is_empty());
        let pulled: Vec<Pulled> = models.iter().map(|model| pulled(&engine, model)).collect();
        let root = &engine.project.root;
        let written = self.write(root, &pulled)?;
        // from here on it is told what was written, whatever comes
        let removed = match (self.remove, context.load()) {
            (true, Ok(project)) => remove(&engine, &project, &stored, &models, &pulled).await?,
            (false, Ok(_)) => Vec::new(),
            (_, Err(error)) => {
                eprintln_line(&format!("written: {}; nothing was removed from the catalog", shown(&written)));
                return Err(error);
            }
        };
        let left: Vec<&Pulled> = pulled.iter().filter(|model| model.left.is_some()).collect();
        if context.json() {
            output::json(&json!({
                "written": written,
                "left": left.iter().map(|m| json!({ "model": m.slug, "reason": m.left })).collect::<Vec<_>>(),
                "connections": connections,
                "removed": removed,
            }))?;
        } else {
            if !connections.is_empty() {
                output::line(format!("connections:\n{}", emit::mapping(&connections, 2).trim_end()))?;
                eprintln_line(&format!("these belong into {PROJECT_FILE}"));
            }
            for path in &written {
                eprintln_line(&format!("wrote {path}"));
            }
            for model in &left {
                eprintln_line(&format!("left {}: {}", model.slug, model.left.as_deref().unwrap_or_default()));
            }
            for what in &removed {
                eprintln_line(&format!("removed from the catalog: {what}"));
            }
            if models.is_empty() {
                eprintln_line("no model was made through the API");
            }
        }
        Ok(if left.is_empty() { Outcome::Fine } else { Outcome::Failed })
    }

    fn chosen<'a>(
        &self,
        engine: &Engine,
        stored: &'a StoredDefinitions,
    ) -> Result<Vec<&'a StoredDefinition>, CliError> {
        for name in &self.models {
            if stored.models.iter().any(|model| model.id == *name) {
                continue;
            }
            return Err(match engine.project.models.get(name) {
                Some(model) => CliError::usage(
                    format!("`{name}` was not made through the API: it is in {}", model.config_file.display()),
                    "there is nothing to pull",
                ),
                None => SyncError::NoSuchModel(name.clone()).into(),
            });
        }
        let wanted = |model: &&StoredDefinition| self.models.is_empty() || self.models.contains(&model.id);
        Ok(stored.models.iter().filter(wanted).collect())
    }

    /// Writes what differs; nothing when something would be overwritten that may not be.
    fn write(&self, root: &Path, pulled: &[Pulled]) -> Result<Vec<String>, CliError> {
        let all = pulled.iter().filter(|model| model.left.is_none()).flat_map(|model| &model.targets);
        let differing: Vec<&Target> =
            all.filter(|t| std::fs::read_to_string(root.join(&t.path)).ok().as_deref() != Some(&t.text)).collect();
        let in_the_way: Vec<String> = differing
            .iter()
            .filter(|target| root.join(&target.path).symlink_metadata().is_ok())
            .map(|target| target.path.display().to_string())
            .collect();
        if !in_the_way.is_empty() && !self.force {
            return Err(CliError::usage(
                format!("{} would be overwritten", in_the_way.join(", ")),
                "nothing was written; `--force` overwrites them",
            ));
        }
        for target in &differing {
            write_whole(&root.join(&target.path), &target.text)?;
        }
        Ok(differing.iter().map(|target| target.path.display().to_string()).collect())
    }
}

fn shown(written: &[String]) -> String {
    if written.is_empty() { "nothing".into() } else { written.join(", ") }
}

/// Readers see the old file or the new one, never a part.
fn write_whole(path: &Path, text: &str) -> Result<(), CliError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(text.as_bytes())?;
    file.as_file().sync_all()?;
    readable(file.path())?;
    file.persist(path).map_err(|e| CliError::Io(e.error))?;
    Ok(())
}

/// As other files of the project are: a temporary file is its owner's alone.
fn readable(file: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o644))
}

fn pulled(engine: &Engine, model: &StoredDefinition) -> Pulled {
    let mut definition = model.definition.clone();
    // `every 3600s` is what the API stores; people write `every 1h`
    let schedule = definition.get("schedule").and_then(Value::as_str).and_then(|text| text.parse::<Schedule>().ok());
    if let Some(schedule) = schedule {
        definition.insert("schedule".into(), schedule.to_string().into());
    }
    let sql = model.sql.clone().unwrap_or_default();
    let file = |extension: &str| Path::new(MODELS_DIR).join(format!("{}.{extension}", model.id));
    let targets = vec![
        Target { path: file("sql"), text: format!("{}\n", sql.trim_end()) },
        Target { path: file("yml"), text: emit::mapping(&definition, 0) },
    ];
    Pulled { slug: model.id.clone(), targets, left: why_left(engine, model) }
}

/// The files of the project have to stay usable.
fn why_left(engine: &Engine, model: &StoredDefinition) -> Option<String> {
    let connection = model.definition.get("connection").and_then(Value::as_str).unwrap_or_default();
    if let Some(other) = engine.files().models.get(&model.id)
        && other.config_file != Path::new(MODELS_DIR).join(format!("{}.yml", model.id))
    {
        return Some(format!("{} defines it already", other.config_file.display()));
    }
    let in_files = |name: &str| engine.files().connections.contains_key(name);
    if engine.project.connections.contains_key(connection) && !in_files(connection) {
        return Some(format!("its connection `{connection}` is not in {PROJECT_FILE} yet"));
    }
    let unusable = engine.unusable.iter().find(|u| u.kind == DefinitionKind::Model.as_str() && u.id == model.id)?;
    let fault = unusable.faults.iter().find(|fault| fault.code != "slug-used-twice")?;
    Some(format!("it has faults: {}", fault.message))
}

/// The entries that `cloud-connect.yml` lacks: those that the models use, or all.
fn connections(
    engine: &Engine,
    stored: &StoredDefinitions,
    models: &[&StoredDefinition],
    all: bool,
) -> Map<String, Value> {
    let used = |name: &str| models.iter().any(|m| m.definition.get("connection").and_then(Value::as_str) == Some(name));
    let lacking = stored.connections.iter().filter(|c| !engine.files().connections.contains_key(&c.id));
    lacking
        .filter(|connection| all || used(&connection.id))
        .map(|connection| (connection.id.clone(), Value::Object(without_secrets(engine, connection))))
        .collect()
}

/// The entry, with a reference in the place of every secret that is not one already.
fn without_secrets(engine: &Engine, connection: &StoredDefinition) -> Map<String, Value> {
    let provider = connection.definition.get("type").and_then(Value::as_str).unwrap_or_default();
    let provider = engine.project.providers.iter().find(|p| p.name == provider);
    let may_be_shown = |name: &str, value: &Value| {
        let declared = provider.and_then(|p| p.parameters.iter().find(|parameter| parameter.name == name));
        let secret = name != "type" && declared.is_none_or(|parameter| parameter.kind == ParameterKind::Secret);
        !secret || value.as_str().is_some_and(secrets::is_reference)
    };
    let mut entry = connection.definition.clone();
    for (name, value) in &mut entry {
        if !may_be_shown(name, value) {
            let variable = format!("{}_{name}", connection.id).to_uppercase().replace('-', "_");
            *value = format!("${{env:{variable}}}").into();
        }
    }
    entry
}

/// Removes what the files define now.
async fn remove(
    engine: &Engine,
    project: &Project,
    stored: &StoredDefinitions,
    models: &[&StoredDefinition],
    pulled: &[Pulled],
) -> Result<Vec<String>, CliError> {
    let mut removed = Vec::new();
    for (model, pulled) in models.iter().zip(pulled) {
        let Some(now) = project.models.get(&model.id).filter(|_| pulled.left.is_none()) else { continue };
        let file = now.config_file.display().to_string();
        let gone = removal(engine, Subject::model(&model.id), &file);
        if engine.catalog.remove_definition(DefinitionKind::Model, &model.id, &gone).await? {
            removed.push(format!("model {}", model.id));
        }
    }
    for connection in stored.connections.iter().filter(|c| project.connections.contains_key(&c.id)) {
        let gone = removal(engine, Subject::new(SubjectKind::Connection, &connection.id), PROJECT_FILE);
        if engine.catalog.remove_definition(DefinitionKind::Connection, &connection.id, &gone).await? {
            removed.push(format!("connection {}", connection.id));
        }
    }
    Ok(removed)
}

fn removal(engine: &Engine, subject: Subject, file: &str) -> Event {
    let message = format!("pulled: {file} defines it from now on");
    Event::new(engine.clock.now(), subject, "deleted", message).by("cli").with(json!({ "file": file }))
}
