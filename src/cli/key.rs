//! `key list|generate|rotate|reseal`

use std::collections::BTreeMap;

use clap::Subcommand;
use secrecy::ExposeSecret;
use serde_json::json;

use super::{CliError, Context, Outcome, eprintln_line, output};
use crate::vault::rotation::{self, Resealed};
use crate::vault::{Custody, Keyring};

/// The keys that seal stored credentials: list and replace them
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  cloud-connect key list
  cloud-connect key rotate          # a new key in the file, everything sealed anew, the old key dropped
  cloud-connect key generate        # a key for CLOUD_CONNECT_KEYS, or for a file of your own
  cloud-connect key reseal          # seal everything with the first key")]
pub struct Key {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Each key's name, and how many authorizations it sealed
    List,
    /// Print a new key, this once; nothing is changed
    Generate,
    /// Replace the key in the key file: crash-safe, and with a running service
    Rotate,
    /// Seal everything with the first key (after a new one was put before the old)
    Reseal,
}

impl Key {
    pub async fn run(&self, context: &Context) -> Result<Outcome, CliError> {
        match &self.command {
            Command::List => list(context).await?,
            Command::Generate => {
                let key = Keyring::generate().map_err(|e| CliError::usage(e.to_string(), e.hint()))?;
                output::line(key.lines().expose_secret().trim_end())?;
                eprintln_line("put it before the other keys, restart the service, then `cloud-connect key reseal`");
            }
            Command::Rotate => {
                let engine = context.open().await?;
                let done = rotation::rotate(&engine.catalog, engine.state_folder(), engine.clock.now()).await?;
                tell(context, &done)?;
            }
            Command::Reseal => {
                let engine = context.open().await?;
                let done = rotation::reseal(&engine.catalog, engine.state_folder(), engine.clock.now()).await?;
                tell(context, &done)?;
            }
        }
        Ok(Outcome::Fine)
    }
}

fn tell(context: &Context, done: &Resealed) -> Result<(), CliError> {
    if context.json() {
        output::json(&json!({ "key": done.key, "resealed": done.authorizations, "dropped": done.dropped }))?;
        return Ok(());
    }
    output::line(format!("{} authorizations sealed anew with `{}`", done.authorizations, done.key))?;
    if !done.dropped.is_empty() {
        output::line(format!("dropped {}", done.dropped.join(", ")))?;
    }
    Ok(())
}

async fn list(context: &Context) -> Result<(), CliError> {
    let engine = context.open().await?;
    let custody = Custody::share(engine.state_folder()).await?;
    let keyring = Keyring::load(engine.state_folder(), false).map_err(rotation::RotationError::from)?;
    let sealed = engine.catalog.authorizations().await?;
    drop(custody);
    let mut counts: BTreeMap<&str, usize> = keyring.ids().map(|id| (id, 0)).collect();
    for one in &sealed {
        *counts.entry(one.key_id.as_str()).or_default() += 1;
    }
    let first = keyring.first().map(crate::vault::SealingKey::id);
    let state = |id: &str| match keyring.key(id) {
        Some(_) if first == Some(id) => "seals",
        Some(_) => "opens",
        None => "lacking",
    };
    // the ones that are there in their order, then those that are not
    let order = keyring.ids().chain(counts.keys().copied().filter(|id| keyring.key(id).is_none()));
    if context.json() {
        let keys: Vec<_> =
            order.map(|id| json!({ "id": id, "state": state(id), "authorizations": counts[id] })).collect();
        output::json(&keys)?;
        return Ok(());
    }
    let mut table = output::table(&["key", "state", ">authorizations"]);
    for id in order {
        table.add_row(vec![id.to_string(), state(id).to_string(), output::number(counts[id] as u64)]);
    }
    output::line(table.to_string())?;
    Ok(())
}
