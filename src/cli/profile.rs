//! `profile`

use super::{CliError, Context, Outcome, output};
use crate::catalog::AsOf;
use crate::identity::normalize;
use crate::profiles::ProfileReader;
use crate::sync::Engine;

/// Look a profile up by any of its identities
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  cloud-connect profile email ada@example.com
  cloud-connect profile user_id 42 --as-of 2026-11-01
  cloud-connect profile email ada@example.com --as-of 019a8c5e-4d2b --output json")]
pub struct Profile {
    /// The identity field
    field: String,
    /// Its value
    value: String,
    /// As a run (its id) left things, or as of a time (RFC 3339, or a date)
    #[arg(long, value_name = "RUN|TIME")]
    as_of: Option<AsOf>,
}

impl Profile {
    pub async fn run(&self, context: &Context) -> Result<Outcome, CliError> {
        let engine = context.engine().await?;
        let identity = engine.project.identities.iter().find(|identity| identity.field == self.field);
        let Some(identity) = identity else {
            let known: Vec<_> = engine.project.identities.iter().map(|i| i.field.as_str()).collect();
            return Err(CliError::usage(
                format!("`{}` is not an identity field", self.field),
                format!("the identity fields are: {}", known.join(", ")),
            ));
        };
        let value = normalize(&self.value, &identity.normalize);
        let reader = reader(&engine, self.as_of.as_ref()).await?;
        let profile = reader.lookup(&self.field, &value).await?;
        if context.json() {
            output::json(&profile)?;
        } else if let Some(profile) = &profile {
            output::line(format!("profile   {}\ncreated   {}", profile.profile_id, output::time(profile.created_at)))?;
            let json = serde_json::to_value(profile).map_err(|e| CliError::Other(e.to_string()))?;
            for part in ["identities", "attributes", "memberships"] {
                let Some(entries) = json[part].as_object().filter(|entries| !entries.is_empty()) else { continue };
                let width = entries.keys().map(|name| name.chars().count()).max().unwrap_or(0);
                output::line(format!("\n{part}"))?;
                for (name, value) in entries {
                    let value = value.as_str().map_or_else(|| value.to_string(), str::to_string);
                    output::line(format!("  {name:<width$}  {value}"))?;
                }
            }
        } else {
            super::eprintln_line(&format!("no profile has {} `{value}`", self.field));
        }
        Ok(if profile.is_some() { Outcome::Fine } else { Outcome::Failed })
    }
}

/// Opens the profiles as they are visible now, or were.
pub async fn reader(engine: &Engine, as_of: Option<&AsOf>) -> Result<ProfileReader, CliError> {
    let cut = engine.catalog.cut(as_of).await?;
    let shapes = engine.shapes(&cut, as_of.is_some()).await?;
    let fields: Vec<String> = engine.project.identities.iter().map(|i| i.field.clone()).collect();
    Ok(ProfileReader::open(&engine.store, &cut, &shapes, &fields, engine.memory.limit / 2).await?)
}
