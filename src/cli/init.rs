//! `init`

use std::path::PathBuf;

use super::{CliError, Context, Outcome, output};

/// Begin a project: a model over a few rows of data, ready to run
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  cloud-connect init            # in this directory
  cloud-connect init shop       # in a new one")]
pub struct Init {
    /// Where; made if it is not there
    dir: Option<PathBuf>,
}

impl Init {
    pub fn run(&self, context: &Context) -> Result<Outcome, CliError> {
        let dir = self.dir.clone().unwrap_or_else(|| context.global.project.clone());
        let made = crate::config::write::init(&dir).map_err(|e| CliError::usage(e.to_string(), e.hint()))?;
        if context.json() {
            output::json(&serde_json::json!({ "directory": dir, "created": made }))?;
            return Ok(Outcome::Fine);
        }
        for file in made {
            output::line(format!("created {}", dir.join(file).display()))?;
        }
        let project = if dir.as_os_str() == "." { String::new() } else { format!(" --project {}", dir.display()) };
        output::line(format!(
            "\nnext: cloud-connect{project} plan     # what a run would do\n      cloud-connect{project} run      # do it"
        ))?;
        Ok(Outcome::Fine)
    }
}
