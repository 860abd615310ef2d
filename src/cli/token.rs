//! `token create|list|revoke`

use std::time::Duration;

use clap::Subcommand;
use secrecy::ExposeSecret;
use serde_json::json;

use super::{CliError, Context, Outcome, eprintln_line, output};
use crate::clock;
use crate::people::tokens::{NewToken, Token as ApiToken};
use crate::people::{Identity, PeopleError, Permission, Role};

/// Make, list and revoke the API tokens of the service
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  cloud-connect token create --role admin --expires 90d
  cloud-connect token create --role data_manager --label ci --scope models:run --scope runs:read
  cloud-connect token list
  cloud-connect token revoke 4k9m2x7qpa")]
pub struct Token {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a token and print it, this once
    Create(Create),
    /// Every token, newest first, without its secret
    List,
    /// End a token
    Revoke { id: String },
}

#[derive(Debug, clap::Args)]
struct Create {
    /// admin, editor, data_manager, audience_manager, viewer or public
    #[arg(long, value_parser = parse_role)]
    role: Role,
    /// How long it works, for example 90d (at most 1y)
    #[arg(long, value_name = "DURATION", default_value = "90d", value_parser = humantime::parse_duration, conflicts_with = "no_expiry")]
    expires: Duration,
    /// Make one that works until it is revoked
    #[arg(long)]
    no_expiry: bool,
    /// What it is for
    #[arg(long, default_value = "", hide_default_value = true)]
    label: String,
    /// Narrow it to this permission of its role (can be repeated)
    #[arg(long = "scope", value_name = "PERMISSION", value_parser = parse_permission)]
    scopes: Vec<Permission>,
}

pub(super) fn parse_role(name: &str) -> Result<Role, String> {
    name.parse().map_err(|e: crate::people::role::UnknownName| format!("{e}; {}", e.hint))
}

fn parse_permission(name: &str) -> Result<Permission, String> {
    name.parse().map_err(|e: crate::people::role::UnknownName| format!("{e}; {}", e.hint))
}

impl Token {
    pub async fn run(&self, context: &Context) -> Result<Outcome, CliError> {
        match &self.command {
            Command::Create(command) => command.run(context).await,
            Command::List => list(context).await,
            Command::Revoke { id } => {
                let people = context.people().await?;
                match people.revoke_token(&Identity::shell(), id).await {
                    // what was asked for is so
                    Err(PeopleError::AlreadyRevoked(_)) => eprintln_line(&format!("token {id} was revoked before")),
                    result => {
                        result?;
                        eprintln_line(&format!("token {id} is revoked; a running service heeds it within 5 seconds"));
                    }
                }
                Ok(Outcome::Fine)
            }
        }
    }
}

impl Create {
    async fn run(&self, context: &Context) -> Result<Outcome, CliError> {
        let people = context.people().await?;
        let new = NewToken {
            label: self.label.clone(),
            role: self.role,
            scopes: (!self.scopes.is_empty()).then(|| self.scopes.iter().copied().collect()),
            life: (!self.no_expiry).then_some(self.expires),
        };
        let made = people.create_token(&Identity::shell(), new).await?;
        if context.json() {
            let mut shown = shown(&made.token);
            shown["token"] = json!(made.secret.expose_secret());
            output::json(&shown)?;
        } else {
            output::line(made.secret.expose_secret())?;
        }
        let until =
            made.token.expires_at.map_or("until it is revoked".into(), |at| format!("until {}", output::time(at)));
        eprintln_line(&format!("token {} ({}) works {until}; it is not shown again", made.token.id, self.role.title()));
        Ok(Outcome::Fine)
    }
}

async fn list(context: &Context) -> Result<Outcome, CliError> {
    let people = context.people().await?;
    let tokens = people.list_tokens(None, u32::MAX).await?;
    if context.json() {
        output::json(&tokens.iter().map(shown).collect::<Vec<_>>())?;
        return Ok(Outcome::Fine);
    }
    let now = clock::of_process().now();
    let mut table = output::table(&["id", "label", "role", "scopes", "status", "created", "expires", "last used"]);
    for token in tokens {
        let time = |at: Option<_>, none: &str| at.map_or(none.to_string(), output::time);
        table.add_row(vec![
            token.id.clone(),
            token.label.clone(),
            token.role.to_string(),
            token
                .scopes
                .map_or("all of the role".into(), |s| s.iter().map(|p| p.as_str()).collect::<Vec<_>>().join(" ")),
            token.status(now).as_str().to_string(),
            output::time(token.created_at),
            time(token.expires_at, "never"),
            time(token.last_used_at, "never"),
        ]);
    }
    output::line(table.to_string())?;
    Ok(Outcome::Fine)
}

fn shown(token: &ApiToken) -> serde_json::Value {
    json!({
        "id": token.id,
        "label": token.label,
        "role": token.role,
        "scopes": token.scopes.map(|s| s.iter().collect::<Vec<_>>()),
        "status": token.status(clock::of_process().now()).as_str(),
        "created_at": token.created_at,
        "created_by": token.created_by,
        "expires_at": token.expires_at,
        "last_used_at": token.last_used_at,
        "revoked_at": token.revoked_at,
    })
}
