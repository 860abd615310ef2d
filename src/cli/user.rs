//! `user add|list|invite|set-password|disable|enable|remove`

use std::io::{IsTerminal, Read};
use std::process::Stdio;

use clap::Subcommand;
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;

use super::token::parse_role;
use super::{CliError, Context, Outcome, eprintln_line, output};
use crate::people::links::Link;
use crate::people::passwords::LONGEST;
use crate::people::users::{NewUser, User as Person, UserChange};
use crate::people::{Identity, People, Role};

/// Make, list and change the users of the service
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  cloud-connect user add ada@example.com --role editor     # prints a link that sets her password
  cloud-connect user list
  cloud-connect user set-password ada@example.com < password.txt
  cloud-connect user disable ada@example.com")]
pub struct User {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a user; prints the path of a link to set a password with, which works once, for a day
    Add {
        email: String,
        /// admin, editor, data_manager, audience_manager or viewer
        #[arg(long, value_parser = parse_role)]
        role: Role,
        #[arg(long, default_value = "", hide_default_value = true)]
        name: String,
    },
    /// Every user, by e-mail
    List,
    /// Print a new link to set a password with; earlier ones work no longer
    Invite { user: String },
    /// Set a password, from a prompt or standard input; the user's sessions end
    SetPassword { user: String },
    /// Keep a user, and their tokens, out
    Disable { user: String },
    /// Let a disabled user in again
    Enable { user: String },
    /// Change a user's role
    SetRole {
        user: String,
        #[arg(value_parser = parse_role)]
        role: Role,
    },
    /// Remove a user, with their tokens
    Remove { user: String },
}

impl User {
    pub async fn run(&self, context: &Context) -> Result<Outcome, CliError> {
        let people = context.people().await?;
        let shell = Identity::shell();
        match &self.command {
            Command::Add { email, role, name } => {
                let new = NewUser { email: email.clone(), name: name.clone(), role: *role };
                let (user, link) = people.create_user(&shell, new).await?;
                print_link(context, &user, &link)?;
            }
            Command::List => list(context, &people).await?,
            Command::Invite { user } => {
                let user = people.find_user(user).await?;
                let link = people.invite(&shell, &user.id).await?;
                print_link(context, &user, &link)?;
            }
            Command::SetPassword { user } => {
                let user = people.find_user(user).await?;
                let password = password(context, &user.email).await?;
                people.set_password(&shell, &user.id, password).await?;
                eprintln_line(&format!("the password of {} is set; their sessions have ended", user.email));
            }
            Command::Disable { user } => {
                let change = UserChange { disabled: Some(true), ..UserChange::default() };
                change_user(&people, user, change, "is disabled").await?;
            }
            Command::Enable { user } => {
                let change = UserChange { disabled: Some(false), ..UserChange::default() };
                change_user(&people, user, change, "is enabled").await?;
            }
            Command::SetRole { user, role } => {
                let change = UserChange { role: Some(*role), ..UserChange::default() };
                change_user(&people, user, change, &format!("has the role {role}")).await?;
            }
            Command::Remove { user } => {
                let user = people.find_user(user).await?;
                people.remove_user(&shell, &user.id).await?;
                eprintln_line(&format!("{} is removed", user.email));
            }
        }
        Ok(Outcome::Fine)
    }
}

async fn change_user(people: &People, name: &str, change: UserChange, done: &str) -> Result<(), CliError> {
    let user = people.find_user(name).await?;
    let user = people.change_user(&Identity::shell(), &user.id, change, None).await?;
    eprintln_line(&format!("{} {done}; a running service heeds it within 5 seconds", user.email));
    Ok(())
}

fn print_link(context: &Context, user: &Person, link: &Link) -> Result<(), CliError> {
    let path = format!("/invitation/{}", link.secret.expose_secret());
    if context.json() {
        let mut shown = shown(user);
        shown["invitation"] = json!({ "path": path, "expires_at": link.expires_at });
        output::json(&shown)?;
    } else {
        output::line(path)?;
    }
    let until = output::time(link.expires_at);
    eprintln_line(&format!(
        "hand {} the service's address followed by this path: it works once, until {until}",
        user.email
    ));
    Ok(())
}

async fn list(context: &Context, people: &People) -> Result<(), CliError> {
    let users = people.list_users(None, u32::MAX).await?;
    if context.json() {
        output::json(&users.iter().map(shown).collect::<Vec<_>>())?;
        return Ok(());
    }
    let mut table = output::table(&["e-mail", "name", "role", "status", "signs in with", "last sign-in"]);
    for user in users {
        let means = match (user.has_password, user.subject.is_some()) {
            (true, true) => "password, provider",
            (true, false) => "password",
            (false, true) => "provider",
            (false, false) => "nothing yet",
        };
        table.add_row(vec![
            user.email.clone(),
            user.name.clone(),
            user.role.to_string(),
            if user.disabled { "disabled" } else { "enabled" }.to_string(),
            means.to_string(),
            user.last_login_at.map_or("never".into(), output::time),
        ]);
    }
    Ok(output::line(table.to_string())?)
}

fn shown(user: &Person) -> serde_json::Value {
    json!({
        "id": user.id,
        "email": user.email,
        "name": user.name,
        "role": user.role,
        "disabled": user.disabled,
        "has_password": user.has_password,
        "has_provider": user.subject.is_some(),
        "created_at": user.created_at,
        "created_by": user.created_by,
        "last_login_at": user.last_login_at,
    })
}

/// A password: typed twice without being shown, or the first line of standard input.
async fn password(context: &Context, email: &str) -> Result<SecretString, CliError> {
    if !std::io::stdin().is_terminal() {
        let mut text = String::new();
        std::io::stdin().take(LONGEST as u64 + 2).read_to_string(&mut text)?;
        return Ok(text.lines().next().unwrap_or_default().into());
    }
    let _hidden = Hidden::new()?;
    let first = prompted(context, &format!("new password for {email}: ")).await?;
    let second = prompted(context, "again: ").await?;
    if first.expose_secret() != second.expose_secret() {
        return Err(CliError::usage("the two passwords are not alike", "try again"));
    }
    Ok(first)
}

async fn prompted(context: &Context, prompt: &str) -> Result<SecretString, CliError> {
    use std::io::Write;
    write!(std::io::stderr().lock(), "{prompt}")?;
    let typed = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        std::io::stdin().read_line(&mut line).map(|_| line)
    });
    tokio::select! {
        typed = typed => {
            eprintln_line("");
            let line = typed.map_err(|e| CliError::Other(e.to_string()))??;
            Ok(line.trim_end_matches(['\n', '\r']).into())
        }
        () = context.cancel.cancelled() => {
            // the thread that reads cannot be stopped: leave as Ctrl-C would, but with a terminal that shows again
            Hidden::show();
            std::process::exit(130);
        }
    }
}

/// A terminal that does not show what is typed, until this is dropped.
struct Hidden;

impl Hidden {
    fn new() -> Result<Self, CliError> {
        if Self::stty("-echo") {
            return Ok(Self);
        }
        let hint = "give the password on standard input: `cloud-connect user set-password EMAIL < file`";
        Err(CliError::usage("the terminal cannot be kept from showing what is typed", hint))
    }

    fn show() {
        Self::stty("echo");
    }

    fn stty(mode: &str) -> bool {
        let mut stty = std::process::Command::new("stty");
        let stty = stty.arg(mode).stdin(Stdio::inherit()).stdout(Stdio::null()).stderr(Stdio::null());
        stty.status().is_ok_and(|status| status.success())
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        Self::show();
    }
}
