//! `health`

use std::time::Duration;

use super::{CliError, Context, Outcome, output};

/// Ask a running service whether it is ready (for container health checks)
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit codes: 0 ready or degraded, 1 unavailable or not reached.")]
pub struct Health {
    /// Where the service listens
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080")]
    url: url::Url,
}

impl Health {
    pub async fn run(&self, context: &Context) -> Result<Outcome, CliError> {
        let failed = |e: reqwest::Error| CliError::Other(format!("the service was not reached: {}", e.without_url()));
        let url = self.url.join("/readyz").map_err(|e| CliError::usage(e.to_string(), "write http://ADDRESS:PORT"))?;
        let client = reqwest::Client::builder().timeout(Duration::from_secs(5)).no_proxy().build().map_err(failed)?;
        let response = client.get(url).send().await.map_err(failed)?;
        let ready = response.status().is_success();
        let answer: serde_json::Value = response.json().await.map_err(failed)?;
        if context.json() {
            output::json(&answer)?;
        } else {
            let status = answer["data"]["status"].as_str().unwrap_or("unavailable");
            output::line(status)?;
            for check in answer["data"]["checks"].as_array().into_iter().flatten().filter(|c| c["ok"] == false) {
                output::line(format!(
                    "! {}: {}",
                    check["name"].as_str().unwrap_or(""),
                    check["detail"].as_str().unwrap_or("")
                ))?;
            }
        }
        Ok(if ready { Outcome::Fine } else { Outcome::Failed })
    }
}
