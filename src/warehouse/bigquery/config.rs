//! A connection's parameters, checked and typed. Pure: no file is read and no name is resolved here.

use std::collections::BTreeMap;
use std::time::Duration;

use bytesize::ByteSize;
use secrecy::SecretString;
use url::Url;

use super::parameters::PARAMETERS;
use crate::warehouse::http::is_loopback;
use crate::warehouse::params::Reading;
use crate::warehouse::{ConnectionParams, WarehouseError, stricter_timeout};

/// Google's own limits of labels.
const MOST_LABELS: usize = 64;
const LONGEST_LABEL: usize = 63;
/// Marks every job as ours, in `INFORMATION_SCHEMA.JOBS` and in the bill's export.
const OWN_LABEL: (&str, &str) = ("application", "cloud-connect");

/// Where the token comes from.
#[derive(Debug, Clone)]
pub(crate) enum Authorization {
    /// The JSON text of a service account's key.
    ServiceAccountKey(SecretString),
    /// A person's consent.
    User { client_id: String, client_secret: SecretString, refresh_token: SecretString },
    /// What the environment provides.
    ApplicationDefault,
}

/// One connection's settings.
#[derive(Debug, Clone)]
pub(crate) struct BigQueryConfig {
    /// Where jobs run, and which is billed.
    pub project: String,
    /// The project and dataset of names that have none.
    pub dataset: Option<(String, String)>,
    pub location: Option<String>,
    pub authorization: Authorization,
    pub maximum_bytes_billed: Option<u64>,
    pub labels: BTreeMap<String, String>,
    pub use_query_cache: bool,
    /// Of the REST API, with no path.
    pub endpoint: Url,
    /// Of the Storage Read API, with no path.
    pub storage_endpoint: Url,
    /// Zero: no limit.
    pub statement_timeout: Duration,
    pub connect_timeout: Duration,
    pub idle_timeout: Duration,
}

impl BigQueryConfig {
    /// Reads the parameters; the ones left out take the defaults that [`PARAMETERS`] declares.
    pub(crate) fn from_params(params: &ConnectionParams) -> Result<Self, WarehouseError> {
        let given = Reading { params, declared: PARAMETERS };
        let project = params.required("project")?.trim().to_string();
        if !is_project(&project) {
            return Err(given.invalid("project", "a project's ID, such as `my-project` (not its name or number)"));
        }
        let dataset = given.optional("dataset").map(|text| {
            let found = match text.rsplit_once('.') {
                Some((other, dataset)) => (other.to_string(), dataset.to_string()),
                None => (project.clone(), text.to_string()),
            };
            let valid = is_project(&found.0) && is_dataset(&found.1);
            valid.then_some(found).ok_or_else(|| given.invalid("dataset", "`dataset` or `project.dataset`"))
        });
        let location = given.optional("location");
        if location.is_some_and(|l| !l.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')) {
            return Err(given.invalid("location", "a region such as `europe-west1`, or `EU` or `US`"));
        }
        let maximum_bytes_billed = match given.optional("maximum_bytes_billed").map(str::parse::<ByteSize>) {
            None => None,
            Some(Ok(bytes)) if bytes.as_u64() > 0 => Some(bytes.as_u64()),
            Some(_) => return Err(given.invalid("maximum_bytes_billed", "a size such as `500 MB` or `1 TB`")),
        };
        let use_query_cache = given.text("use_query_cache").trim().parse();
        Ok(Self {
            dataset: dataset.transpose()?,
            location: location.map(str::to_string),
            authorization: given.authorization()?,
            maximum_bytes_billed,
            labels: given.labels()?,
            use_query_cache: use_query_cache
                .map_err(|_: std::str::ParseBoolError| given.invalid("use_query_cache", "true or false"))?,
            endpoint: given.endpoint("endpoint")?,
            storage_endpoint: given.endpoint("storage_endpoint")?,
            statement_timeout: given.duration("statement_timeout")?,
            connect_timeout: given.some_duration("connect_timeout")?,
            idle_timeout: given.some_duration("idle_timeout")?,
            project,
        })
    }

    /// Does the connection lead to a stand-in on this machine?
    pub(crate) fn is_stand_in(&self) -> bool {
        self.endpoint.scheme() == "http"
    }

    /// How long a query may run in BigQuery: the shorter of the connection's and the model's limit.
    pub(crate) fn limit(&self, of_model: Option<Duration>) -> Option<Duration> {
        stricter_timeout(self.statement_timeout, of_model)
    }
}

/// The parameters that only BigQuery has.
impl Reading<'_> {
    fn authorization(&self) -> Result<Authorization, WarehouseError> {
        let secret = |name: &str| self.optional(name).and_then(|_| self.params.secret(name));
        let user = ["oauth_refresh_token", "oauth_client_id", "oauth_client_secret"];
        let missing: Vec<_> = user.iter().filter(|name| self.optional(name).is_none()).collect();
        let one = "give either `service_account_key`, or `oauth_refresh_token` with `oauth_client_id` and \
                   `oauth_client_secret`, or none of them to use the application default credentials";
        match (secret("service_account_key"), missing.len()) {
            (Some(key), 3) => Ok(Authorization::ServiceAccountKey(key)),
            (None, 3) => Ok(Authorization::ApplicationDefault),
            (None, 0) => match (self.optional(user[1]), secret(user[2]), secret(user[0])) {
                (Some(client_id), Some(client_secret), Some(refresh_token)) => {
                    Ok(Authorization::User { client_id: client_id.to_string(), client_secret, refresh_token })
                }
                _ => Err(self.invalid(user[0], "a refresh token")),
            },
            (None, _) => Err(WarehouseError::configuration(format!(
                "connection `{}` has no `{}`",
                self.params.connection, missing[0]
            ))
            .with_hint(one)),
            (Some(_), _) => Err(WarehouseError::configuration(format!(
                "connection `{}` has two ways to log in",
                self.params.connection
            ))
            .with_hint(one)),
        }
    }

    fn endpoint(&self, name: &str) -> Result<Url, WarehouseError> {
        let url = Url::parse(self.text(name)).ok().filter(|url| {
            let bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
            bare && url.username().is_empty() && url.password().is_none() && url.host().is_some()
        });
        let Some(url) = url else {
            return Err(self.invalid(name, "an address such as `https://bigquery.googleapis.com`"));
        };
        match url.scheme() {
            "https" => Ok(url),
            "http" if is_loopback(&url) => Ok(url),
            _ => Err(WarehouseError::configuration(format!(
                "connection `{}`: `{name}` is not encrypted",
                self.params.connection
            ))
            .with_hint("write https://…; http:// is only for a stand-in on this machine (127.0.0.1, ::1, localhost)")),
        }
    }

    fn labels(&self) -> Result<BTreeMap<String, String>, WarehouseError> {
        let want = "`key=value,key=value`: at most 64; keys start with a lower-case letter; keys and values have at most \
                    63 lower-case letters, digits, `_` and `-`";
        let mut labels = BTreeMap::from([(OWN_LABEL.0.to_string(), OWN_LABEL.1.to_string())]);
        for pair in self.text("labels").split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (key, value) = (key.trim(), value.trim());
            let starts = key.chars().next().is_some_and(|c| c.is_alphabetic() && !c.is_uppercase());
            let valid = starts && is_label(key) && is_label(value);
            if !valid || labels.insert(key.to_string(), value.to_string()).is_some() && key != OWN_LABEL.0 {
                return Err(self.invalid("labels", want));
            }
        }
        if labels.len() > MOST_LABELS { Err(self.invalid("labels", want)) } else { Ok(labels) }
    }
}

fn is_label(text: &str) -> bool {
    let allowed = |c: char| c == '_' || c == '-' || c.is_numeric() || (c.is_alphabetic() && !c.is_uppercase());
    text.chars().count() <= LONGEST_LABEL && text.chars().all(allowed)
}

/// A project's ID; old ones begin with a domain (`example.com:project`).
fn is_project(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':'))
}

fn is_dataset(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '-')
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn config(values: &[(&str, &str)]) -> Result<BigQueryConfig, WarehouseError> {
        let mut params = ConnectionParams::new("shop", "/project");
        params.set("project", "my-project");
        for (name, value) in values {
            params.set(*name, *value);
        }
        BigQueryConfig::from_params(&params)
    }

    #[test]
    fn left_out_parameters_take_their_declared_defaults() {
        let config = config(&[]).unwrap();
        assert_eq!(config.endpoint.as_str(), "https://bigquery.googleapis.com/");
        assert_eq!(config.storage_endpoint.as_str(), "https://bigquerystorage.googleapis.com/");
        assert_eq!(config.statement_timeout, Duration::from_secs(1800));
        assert!(config.use_query_cache && !config.is_stand_in());
        assert!(matches!(config.authorization, Authorization::ApplicationDefault));
        assert_eq!(config.labels.into_iter().collect::<Vec<_>>(), [("application".into(), "cloud-connect".into())]);
    }

    #[test]
    fn a_faulty_parameter_is_named_with_what_it_takes() {
        for (name, value) in [
            ("project", "My Project"),
            ("dataset", "a b"),
            ("location", "eu west"),
            ("maximum_bytes_billed", "0"),
            ("maximum_bytes_billed", "much"),
            ("labels", "Team=crm"),
            ("labels", "1team=crm"),
            ("labels", "team=CRM"),
            ("labels", "=crm"),
            ("labels", "team=crm,team=x"),
            ("use_query_cache", "maybe"),
            ("endpoint", "https://host/with/path"),
            ("endpoint", "bigquery.googleapis.com"),
            ("storage_endpoint", "https://user:word@host"),
            ("statement_timeout", "ten"),
            ("connect_timeout", "0s"),
            ("idle_timeout", "0s"),
        ] {
            let error = config(&[(name, value)]).unwrap_err();
            assert!(error.message.contains(name), "{error}");
            assert!(error.hint.unwrap().contains(name));
        }
    }

    #[test]
    fn plain_http_is_for_this_machine_only() {
        for host in ["127.0.0.1:9050", "localhost:1", "[::1]:2"] {
            assert!(config(&[("endpoint", &format!("http://{host}"))]).unwrap().is_stand_in());
        }
        let error = config(&[("endpoint", "http://bigquery.example.com")]).unwrap_err();
        assert!(error.hint.unwrap().contains("https://"));
    }

    #[test]
    fn there_is_exactly_one_way_to_log_in() {
        let user = [("oauth_refresh_token", "r"), ("oauth_client_id", "i"), ("oauth_client_secret", "s")];
        assert!(matches!(config(&user).unwrap().authorization, Authorization::User { .. }));
        assert_eq!(config(&user[..2]).unwrap_err().message, "connection `shop` has no `oauth_client_secret`");
        let mut both = vec![("service_account_key", "{}")];
        assert!(matches!(config(&both).unwrap().authorization, Authorization::ServiceAccountKey(_)));
        both.push(user[0]);
        assert!(config(&both).unwrap_err().message.contains("two ways"));
    }

    #[test]
    fn the_default_dataset_may_lie_in_another_project() {
        let pair = |a: &str, b: &str| Some((a.to_string(), b.to_string()));
        assert_eq!(config(&[("dataset", "shop")]).unwrap().dataset, pair("my-project", "shop"));
        assert_eq!(config(&[("dataset", "other.shop")]).unwrap().dataset, pair("other", "shop"));
        assert_eq!(config(&[("dataset", "example.com:old.shop")]).unwrap().dataset, pair("example.com:old", "shop"));
    }

    #[test]
    fn debug_shows_no_secret() {
        let user = [("oauth_refresh_token", "hunter2"), ("oauth_client_id", "i"), ("oauth_client_secret", "hunter3")];
        assert!(!format!("{:?}", config(&user).unwrap()).contains("hunter"));
        assert!(!format!("{:?}", config(&[("service_account_key", "hunter2")]).unwrap()).contains("hunter"));
    }
}
