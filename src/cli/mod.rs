//! The command line: one file a subcommand.
//!
//! Invariants: what a command found goes to standard output (people's tables, or JSON with `--output json`), what it
//! has to say about itself (progress, warnings, errors) to standard error; the exit code is 0 when all is well, 1 when
//! something failed, 2 when the command or the project is wrong, 3 when removals wait for approval.

mod approve;
mod check;
mod connection;
mod health;
mod init;
mod key;
mod models;
mod output;
mod plan;
mod profile;
mod pull;
mod run;
mod runs;
mod serve;
mod sql;
mod token;
mod user;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};
use tokio_util::sync::CancellationToken;

use crate::catalog::CatalogError;
use crate::clock;
use crate::config::{self, ConfigErrors, Project};
use crate::memory::{DEFAULT_MEMORY_LIMIT, MIN_MEMORY_LIMIT};
use crate::people::{People, PeopleError};
use crate::profiles::ProfilesError;
use crate::secrets;
use crate::sync::{Engine, SyncError, vault_of};
use crate::telemetry::{LogFormat, logs};
use crate::vault::rotation::RotationError;
use crate::warehouse::{Provider, WarehouseError, registry};

/// Warehouse-native Cloud Connect: SQL models become profile attributes and memberships.
#[derive(Debug, Parser)]
#[command(name = "cloud-connect", version, propagate_version = true, max_term_width = 100)]
#[command(after_help = "Examples:
  cloud-connect init shop            # a small project that runs at once
  cloud-connect check                # is everything right?
  cloud-connect plan                 # what would a run do?
  cloud-connect run                  # do it
  cloud-connect profile email ada@example.com

Exit codes: 0 fine, 1 failed, 2 usage or configuration, 3 removals wait for approval.")]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// What every command understands.
#[derive(Debug, Args)]
struct Global {
    /// The project's directory
    #[arg(long, global = true, value_name = "DIR", default_value = ".")]
    project: PathBuf,
    /// How results are printed
    #[arg(long, global = true, value_enum, default_value_t = Output::Table)]
    output: Output,
    /// Memory that a command may use, for example 512MiB (least: 256MiB)
    #[arg(long, global = true, value_name = "SIZE", value_parser = memory_size, env = "CLOUD_CONNECT_MEMORY_LIMIT")]
    memory_limit: Option<u64>,
}

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Json,
    /// Only for queries
    Csv,
}

#[derive(Debug, Subcommand)]
enum Command {
    Init(init::Init),
    Check(check::Check),
    Connection(connection::Connection),
    Models(models::Models),
    Plan(plan::Plan),
    Run(run::Run),
    Runs(runs::Runs),
    RunReport(runs::Report),
    Approve(approve::Approve),
    Reject(approve::Reject),
    Profile(profile::Profile),
    Pull(pull::Pull),
    Sql(sql::Sql),
    Serve(serve::Serve),
    Health(health::Health),
    Token(token::Token),
    User(user::User),
    Key(key::Key),
}

fn memory_size(text: &str) -> Result<u64, String> {
    let size: bytesize::ByteSize = text.parse()?;
    if size.as_u64() < MIN_MEMORY_LIMIT {
        return Err("at least 256MiB are needed".into());
    }
    Ok(size.as_u64())
}

/// How a command ended, when all is well or as good as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    Fine,
    /// It answered, and the answer is "no".
    Failed,
    Held,
}

/// Why a command could not do what it was asked.
#[derive(Debug, thiserror::Error)]
enum CliError {
    #[error("the project has faults")]
    Config(#[from] ConfigErrors),
    #[error("{message}")]
    Usage { message: String, hint: Option<String> },
    #[error("{0}")]
    Sync(#[from] SyncError),
    #[error("{0}")]
    Profiles(#[from] ProfilesError),
    #[error("{0}")]
    People(#[from] PeopleError),
    #[error("{0}")]
    Rotation(#[from] RotationError),
    #[error("{0}")]
    Scheduler(#[from] crate::scheduler::SchedulerError),
    #[error("{0}")]
    Serve(#[from] crate::server::ServeError),
    #[error("{0}")]
    Telemetry(#[from] crate::telemetry::TelemetryError),
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("{0}")]
    Other(String),
}

impl From<CatalogError> for CliError {
    fn from(e: CatalogError) -> Self {
        match e {
            CatalogError::AmbiguousRun(_) => Self::Usage {
                message: e.to_string(),
                hint: Some("give more of its id: runs of the same minute begin alike".into()),
            },
            CatalogError::NoSuchRun(_) | CatalogError::NotAMoment(_) => Self::Usage {
                message: e.to_string(),
                hint: Some("`cloud-connect runs` lists them; a time is written like 2026-11-22T10:00:00Z".into()),
            },
            other => SyncError::from(other).into(),
        }
    }
}

impl From<crate::store::StoreError> for CliError {
    fn from(e: crate::store::StoreError) -> Self {
        SyncError::from(e).into()
    }
}

impl From<WarehouseError> for CliError {
    fn from(e: WarehouseError) -> Self {
        SyncError::from(e).into()
    }
}

impl CliError {
    fn usage(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Usage { message: message.into(), hint: Some(hint.into()) }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Usage { hint, .. } => hint.clone(),
            Self::Sync(e) => e.hint(),
            Self::Profiles(e) => e.hint(),
            Self::Scheduler(e) => e.hint(),
            Self::Serve(e) => e.hint().map(String::from),
            Self::People(e) => e.hint(),
            Self::Rotation(e) => e.hint(),
            _ => None,
        }
    }

    fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) | Self::Usage { .. } | Self::Serve(crate::server::ServeError::Unencrypted(_)) => 2,
            Self::Rotation(RotationError::Environment | RotationError::NoKey) => 2,
            Self::People(e) if !e.is_internal() => 2,
            Self::Sync(
                SyncError::NoSuchModel(_)
                | SyncError::Inactive(_)
                | SyncError::Connection(_)
                | SyncError::NothingHeld(_)
                | SyncError::Catalog(
                    CatalogError::NoSuchRun(_) | CatalogError::AmbiguousRun(_) | CatalogError::NotAMoment(_),
                ),
            ) => 2,
            _ => 1,
        }
    }
}

/// What a command works with.
struct Context {
    global: Global,
    /// Ctrl-C.
    cancel: CancellationToken,
    /// The kinds of connections that there are.
    providers: Vec<Provider>,
}

impl Context {
    fn load(&self) -> Result<Project, CliError> {
        let file = self.global.project.join(config::PROJECT_FILE);
        if !file.is_file() {
            return Err(CliError::usage(
                format!("there is no {} in `{}`", config::PROJECT_FILE, self.global.project.display()),
                "go to the project's directory, name it with --project DIR, or begin one with `cloud-connect init DIR`",
            ));
        }
        Ok(config::load(&self.global.project, &self.providers)?)
    }

    /// The project's files, and the authorizations that they name.
    async fn load_to_connect(&self) -> Result<Project, CliError> {
        let mut project = self.load()?;
        if secrets::uses_authorizations(&project) {
            project.vault = std::sync::Arc::new(vault_of(&project).await?);
        }
        Ok(project)
    }

    fn memory_limit(&self, project: &Project) -> u64 {
        self.global.memory_limit.or(project.memory_limit).unwrap_or(DEFAULT_MEMORY_LIMIT)
    }

    /// Opens the project's state as it is.
    async fn open(&self) -> Result<Engine, CliError> {
        let project = self.load()?;
        let memory_limit = self.memory_limit(&project);
        Ok(Engine::open(project, memory_limit, clock::of_process()).await?)
    }

    /// Opens the project's state, and brings it to a consistent one after whatever happened before.
    async fn engine(&self) -> Result<Engine, CliError> {
        let engine = self.open().await?;
        engine.recover().await?;
        Ok(engine)
    }

    /// The project's users and tokens.
    async fn people(&self) -> Result<People, CliError> {
        let engine = self.open().await?;
        Ok(People::new(engine.catalog, engine.clock))
    }

    fn json(&self) -> bool {
        self.global.output == Output::Json
    }

    /// The active models, or those that were named.
    fn models<'a>(&self, engine: &'a Engine, named: &'a [String]) -> Result<Vec<&'a str>, CliError> {
        for name in named {
            engine.model(name)?;
        }
        if named.is_empty() {
            return Ok(engine.project.models.values().filter(|m| m.active).map(|m| m.slug.as_str()).collect());
        }
        Ok(named.iter().map(String::as_str).collect())
    }
}

/// Runs the command line of this process with the built-in kinds of connections.
pub fn main() -> ExitCode {
    main_with(registry().to_vec())
}

/// Runs the command line of this process with these kinds of connections: for programs that add their own to
/// [`registry`] (`examples/own_connector.rs` is one).
///
/// Not `async`: the futures below it are compiled here, and not again in whatever calls it.
pub fn main_with(providers: Vec<Provider>) -> ExitCode {
    let cli = Cli::parse();
    // `serve` says more, in a form of its choice, and exports traces, which takes the runtime
    if !matches!(cli.command, Command::Serve(_)) {
        logs::install(LogFormat::Text, output::color_stderr(), "error,cloud_connect=warn", None);
    }
    match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        // the future is large: it belongs on the heap, not on the main thread's stack
        Ok(runtime) => runtime.block_on(Box::pin(run(cli, providers))),
        Err(error) => {
            tracing::error!(%error, "the asynchronous runtime could not be started");
            ExitCode::FAILURE
        }
    }
}

/// Ctrl-C, or SIGTERM as service managers send it.
async fn stop_asked() -> std::io::Result<()> {
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted,
        _ = terminate.recv() => Ok(()),
    }
}

async fn run(cli: Cli, providers: Vec<Provider>) -> ExitCode {
    let cancel = CancellationToken::new();
    let on_signal = cancel.clone();
    // what else there is can be ended at any moment, and need not be waited for
    let cancels = matches!(
        cli.command,
        Command::Run(_) | Command::Plan(_) | Command::Connection(_) | Command::Serve(_) | Command::User(_)
    );
    tokio::spawn(async move {
        if stop_asked().await.is_ok() {
            if !cancels {
                std::process::exit(130);
            }
            on_signal.cancel();
            eprintln_line("stopping (again: stop at once)");
            if stop_asked().await.is_ok() {
                std::process::exit(130);
            }
        }
    });
    let context = Context { global: cli.global, cancel, providers };
    let outcome = crate::events::acting_as("cli", async {
        match cli.command {
            Command::Init(command) => command.run(&context),
            Command::Check(command) => command.run(&context).await,
            Command::Connection(command) => command.run(&context).await,
            Command::Models(command) => command.run(&context).await,
            Command::Plan(command) => command.run(&context).await,
            Command::Run(command) => command.run(&context).await,
            Command::Runs(command) => command.run(&context).await,
            Command::RunReport(command) => command.run(&context).await,
            Command::Approve(command) => command.run(&context).await,
            Command::Reject(command) => command.run(&context).await,
            Command::Profile(command) => command.run(&context).await,
            Command::Pull(command) => command.run(&context).await,
            Command::Sql(command) => command.run(&context).await,
            Command::Health(command) => command.run(&context).await,
            Command::Serve(command) => Box::pin(command.run(&context)).await,
            Command::Token(command) => command.run(&context).await,
            Command::User(command) => command.run(&context).await,
            Command::Key(command) => command.run(&context).await,
        }
    })
    .await;
    match outcome {
        Ok(Outcome::Fine) => ExitCode::SUCCESS,
        Ok(Outcome::Failed) => ExitCode::from(1),
        Ok(Outcome::Held) => ExitCode::from(3),
        Err(CliError::Io(e)) if e.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            report(&context, &error);
            ExitCode::from(error.exit_code())
        }
    }
}

fn report(context: &Context, error: &CliError) {
    if context.json() {
        let errors = match error {
            CliError::Config(errors) => serde_json::json!(errors.errors),
            other => serde_json::json!([{ "message": other.to_string(), "hint": other.hint() }]),
        };
        eprintln_line(&serde_json::json!({ "errors": errors }).to_string());
        return;
    }
    if let CliError::Config(errors) = error {
        eprintln_line(errors.render(output::color_stderr()).trim_end());
        return;
    }
    eprintln_line(&format!("error: {error}"));
    if let Some(hint) = error.hint() {
        eprintln_line(&format!(" help: {hint}"));
    }
}

fn eprintln_line(text: &str) {
    use std::io::Write;
    // nobody is left to be told when this fails
    writeln!(std::io::stderr().lock(), "{text}").ok();
}
