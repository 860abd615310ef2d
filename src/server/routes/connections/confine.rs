//! What a parameter may hold that comes over the network.
//!
//! | Parameter | Rule |
//! |---|---|
//! | any | no `${env:…}`, `${file:…}` or `${auth:…}`: only the project's files refer to the server's environment and files |
//! | a directory or file | relative, inside the project (links resolved), and apart from the state: who may query a warehouse need not be allowed to query profiles |
//! | a location of an object store | `s3://`, `gs://`, `az://`, `abfss://` …, and not the project's own `store:` |
//! | the address of an HTTP service | https only; no address or name of this machine or of a private network, but for those that `allow_private_addresses` names |
//! | the host of a database | as given: databases live in private networks |
//!
//! A name that resolves to a private address passes: private links of the clouds work so. Nothing but a server with a
//! valid certificate for that very name is talked to then, since the providers speak https to everything but loopback,
//! which is refused here.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Component, Path, PathBuf};

use object_store::ObjectStoreScheme;
use url::{Host, Url};

use crate::config::{Project, StoreLocation};
use crate::outgoing::AddressPolicy;
use crate::secrets;
use crate::server::answer::ApiError;
use crate::sync::Engine;
use crate::warehouse::{Parameter, ParameterKind};

/// What object stores are called by.
const STORES: [&str; 8] = ["s3", "s3a", "gs", "az", "adl", "azure", "abfs", "abfss"];

/// Parameters that are a host (or a URL) of a service that speaks HTTP.
const OVER_HTTP: [(&str, &str); 6] = [
    ("bigquery", "endpoint"),
    ("bigquery", "storage_endpoint"),
    ("databricks", "host"),
    ("redshift", "s3_endpoint"),
    ("snowflake", "account"),
    ("snowflake", "host"),
];

/// Names that mean this machine or its network, wherever they are resolved.
const LOCAL_NAMES: [&str; 5] = ["local", "internal", "localdomain", "home.arpa", "lan"];

/// Why a value is refused: code, what is wrong with the parameter, what to do.
type Refusal = (&'static str, String, String);

/// The places that values are held to.
#[derive(Debug)]
pub struct Confines<'a> {
    project: &'a Project,
    state: &'a Path,
}

impl<'a> Confines<'a> {
    pub fn of(engine: &'a Engine) -> Self {
        Self { project: &engine.project, state: engine.state_folder() }
    }

    /// Refuses a value that a parameter of that provider may not have when it comes through the API.
    pub fn check(&self, provider: &str, parameter: &Parameter, value: &str) -> Result<(), ApiError> {
        self.judge(provider, parameter, value).map_err(|(code, why, hint)| {
            let message = format!("`{}` {why}", parameter.name);
            ApiError::bad_request(code, message).with_hint(hint).with_field(format!("config.{}", parameter.name))
        })
    }

    fn judge(&self, provider: &str, parameter: &Parameter, value: &str) -> Result<(), Refusal> {
        // what an authorization holds is taken as it is: a reference in it is never followed
        if parameter.kind == ParameterKind::Secret {
            return Ok(());
        }
        if secrets::has_reference(value) {
            let why = "holds a reference `${…}`, which only the project's files may".to_string();
            let hint = "put secrets into an authorization (POST /v2/auth) and name it in auth_ids; a plain `${` is written `$${`";
            return Err(("reference", why, hint.into()));
        }
        let login = Url::parse(value).is_ok_and(|url| url.password().is_some());
        if login {
            let hint = "put the password into an authorization (POST /v2/auth)".to_string();
            return Err(("secret-in-url", "holds a password".into(), hint));
        }
        match parameter.kind {
            ParameterKind::Location if value.contains("://") => self.store(value),
            ParameterKind::Location => self.path(value, true),
            ParameterKind::File => self.path(value, false),
            _ if is_http(provider, parameter.name, value) => {
                let allowed = self.project.service.allow_private_addresses.iter().copied();
                address(&AddressPolicy::allowing(allowed), value)
            }
            _ => Ok(()),
        }
    }

    fn store(&self, value: &str) -> Result<(), Refusal> {
        let hint = || "give a directory inside the project, or a URL such as s3://bucket/folder".to_string();
        let url = Url::parse(value).map_err(|_| ("outside-project", "is not a URL".to_string(), hint()))?;
        if !STORES.contains(&url.scheme()) {
            return Err(("outside-project", format!("cannot be a `{}://` URL", url.scheme()), hint()));
        }
        if let StoreLocation::ObjectStore(own) = &self.project.store
            && same_store(own, &url)
        {
            let why = "leads to this project's own state".to_string();
            return Err(("own-state", why, "profiles are queried through /v2/sql, with its own permission".into()));
        }
        Ok(())
    }

    /// A path inside the project; `folder`: everything under it can be read.
    fn path(&self, value: &str, folder: bool) -> Result<(), Refusal> {
        let outside = || {
            let why = "leads out of the project's directory".to_string();
            let hint = "give a path relative to the project, inside it; other places are for the connections in cloud-connect.yml";
            ("outside-project", why, hint.to_string())
        };
        let given = Path::new(value);
        let plain = given.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
        if !plain || value.contains('\0') {
            return Err(outside());
        }
        let (Some(root), Some(full)) = (real(&self.project.root), real(&self.project.root.join(given))) else {
            return Err(outside());
        };
        if !full.starts_with(&root) {
            return Err(outside());
        }
        let mut own = vec![self.state.to_path_buf()];
        if let StoreLocation::Directory(store) = &self.project.store {
            own.push(store.clone());
        }
        let reaches =
            |own: PathBuf| real(&own).is_none_or(|own| full.starts_with(&own) || (folder && own.starts_with(&full)));
        if own.into_iter().any(reaches) {
            let why = "leads to this project's own state, or to a directory that holds it".to_string();
            return Err(("own-state", why, "keep the data in a directory of its own".into()));
        }
        Ok(())
    }
}

/// The path with links resolved, as far as it exists.
fn real(path: &Path) -> Option<PathBuf> {
    let mut missing = Vec::new();
    let mut there = path;
    loop {
        if let Ok(found) = there.canonicalize() {
            return Some(missing.into_iter().rev().fold(found, |path, part| path.join(part)));
        }
        // a link that leads nowhere may lead anywhere tomorrow
        if there.is_symlink() {
            return None;
        }
        missing.push(there.file_name()?);
        there = there.parent()?;
    }
}

fn is_http(provider: &str, parameter: &str, value: &str) -> bool {
    OVER_HTTP.contains(&(provider, parameter)) || value.starts_with("http://") || value.starts_with("https://")
}

/// A host or URL of an HTTP service.
fn address(policy: &AddressPolicy, value: &str) -> Result<(), Refusal> {
    let refused = |why: String| {
        let hint = "the server's owner allows addresses with `allow_private_addresses`, or writes the connection into \
                    cloud-connect.yml";
        Err(("private-address", why, hint.to_string()))
    };
    let value = value.trim();
    let text = if value.contains("://") { value.to_string() } else { format!("https://{value}") };
    // what is no host at all is for the provider to say
    let Ok(url) = Url::parse(&text) else { return Ok(()) };
    let address = match url.host() {
        Some(Host::Ipv4(address)) => Some(IpAddr::from(address)),
        Some(Host::Ipv6(address)) => Some(IpAddr::from(address)),
        Some(Host::Domain(name)) => {
            let name = name.trim_end_matches('.').to_ascii_lowercase();
            let is = |own: &str| name == own || name.ends_with(&format!(".{own}"));
            if LOCAL_NAMES.iter().any(|own| is(own)) {
                return refused(format!("is `{name}`, a name of this machine or its network"));
            }
            is("localhost").then_some(Ipv4Addr::LOCALHOST.into())
        }
        None => return Ok(()),
    };
    if let Some(address) = address
        && let Some(why) = policy.refusal(address)
    {
        return refused(format!("is {address}, which is {why}"));
    }
    // in the clear to nothing but what was allowed by its address: a stand-in on this machine
    let allowed = address.is_some_and(|address| AddressPolicy::default().refusal(address).is_some());
    if url.scheme() != "https" && !allowed {
        return refused("has to be reached over https".into());
    }
    Ok(())
}

/// Do two URLs lead to places of one store of which one holds the other? As the store reads them: paths are decoded, and
/// Azure writes one container in several ways, so there only the paths count.
fn same_store(own: &Url, other: &Url) -> bool {
    let (Ok((scheme, path)), Ok((other_scheme, other_path))) =
        (ObjectStoreScheme::parse(own), ObjectStoreScheme::parse(other))
    else {
        // what cannot be read cannot be told apart either
        return true;
    };
    let near =
        scheme == other_scheme && (own.host_str() == other.host_str() || scheme == ObjectStoreScheme::MicrosoftAzure);
    near && (path.prefix_matches(&other_path) || other_path.prefix_matches(&path))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::warehouse::registry;

    fn project(store: StoreLocation) -> (tempfile::TempDir, Project) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(
            dir.path().join("cloud-connect.yml"),
            "profile:\n  identities: [{ field: email }]\nconnections:\n  files: { type: local, path: data }\n",
        )
        .unwrap();
        for folder in ["data", ".cloud-connect"] {
            std::fs::create_dir(dir.path().join(folder)).unwrap();
        }
        let project = Project { store, ..crate::config::load(dir.path(), registry()).unwrap() };
        (dir, project)
    }

    fn own_folder() -> (tempfile::TempDir, Project) {
        let (dir, mut project) = project(StoreLocation::Directory(PathBuf::new()));
        project.store = StoreLocation::Directory(project.root.join(".cloud-connect"));
        (dir, project)
    }

    fn code(project: &Project, provider: &str, name: &str, value: &str) -> Option<&'static str> {
        let parameters = registry().iter().find(|p| p.name == provider).unwrap().parameters;
        let parameter = parameters.iter().find(|p| p.name == name).unwrap();
        let state = project.root.join(".cloud-connect");
        Confines { project, state: &state }.judge(provider, parameter, value).err().map(|(code, ..)| code)
    }

    #[test]
    fn a_path_stays_inside_the_project_and_out_of_its_state() {
        let (dir, project) = own_folder();
        let of = |path: &str| code(&project, "local", "path", path);
        for inside in ["data", "./data", "data/2026", "not/there/yet", " data"] {
            assert_eq!(of(inside), None, "{inside}");
        }
        for outside in
            ["/etc", "..", "data/../..", "../other", "data/../../etc", "a\0b", "file:///etc", "http://host/x"]
        {
            assert_eq!(of(outside), Some("outside-project"), "{outside}");
        }
        for own in [".", "", ".cloud-connect", ".cloud-connect/records"] {
            assert_eq!(of(own), Some("own-state"), "{own}");
        }
        std::os::unix::fs::symlink("/etc", dir.path().join("elsewhere")).unwrap();
        std::os::unix::fs::symlink("/not/there", dir.path().join("nowhere")).unwrap();
        assert_eq!(of("elsewhere"), Some("outside-project"));
        assert_eq!(of("elsewhere/ssl"), Some("outside-project"));
        assert_eq!(of("nowhere"), Some("outside-project"));
        assert_eq!(code(&project, "postgres", "ssl_root_cert", "/etc/ssl/cert.pem"), Some("outside-project"));
        assert_eq!(code(&project, "postgres", "ssl_root_cert", "certificates/ca.pem"), None);
    }

    #[test]
    fn an_object_store_is_reached_but_for_the_projects_own() {
        let (_dir, project) = project(StoreLocation::ObjectStore("s3://own/state".parse().unwrap()));
        let of = |path: &str| code(&project, "local", "path", path);
        for other in ["s3://lake/shop", "gs://lake", "abfss://c@a.dfs.core.windows.net/x", "s3://own/states"] {
            assert_eq!(of(other), None, "{other}");
        }
        for own in ["s3://own", "s3://own/state", "s3://own/state/records"] {
            assert_eq!(of(own), Some("own-state"), "{own}");
        }
    }

    #[test]
    fn references_are_for_the_files_only() {
        let (_dir, project) = own_folder();
        for value in ["${env:HOME}", "x${file:/etc/passwd}", "${auth:prod/password}", "${"] {
            assert_eq!(code(&project, "postgres", "host", value), Some("reference"), "{value}");
        }
        assert_eq!(code(&project, "postgres", "host", "$${plain"), None);
    }

    #[test]
    fn services_over_http_are_public_ones_and_databases_may_be_anywhere() {
        let (_dir, project) = own_folder();
        for (provider, name) in OVER_HTTP {
            for private in [
                "127.0.0.1:9000",
                "http://127.0.0.1",
                "https://10.0.0.8",
                "169.254.169.254",
                "localhost",
                "https://[::1]:443",
                "db.internal",
                "http://example.com",
                "https://0x7f.1",
                "2130706433",
            ] {
                assert_eq!(code(&project, provider, name, private), Some("private-address"), "{name} {private}");
            }
            for public in ["https://example.com", "org-shop.snowflakecomputing.com", "https://1.1.1.1"] {
                assert_eq!(code(&project, provider, name, public), None, "{name} {public}");
            }
        }
        let mut allowing = project.clone();
        allowing.service.allow_private_addresses = vec!["127.0.0.1/32".parse().unwrap()];
        for (host, expected) in [
            ("http://127.0.0.1:9000", None),
            ("http://localhost:9000", None),
            ("127.0.0.2", Some("private-address")),
            ("http://example.com", Some("private-address")),
        ] {
            assert_eq!(code(&allowing, "databricks", "host", host), expected, "{host}");
        }
        assert_eq!(code(&project, "snowflake", "account", "myorg-shop"), None);
        assert_eq!(code(&project, "postgres", "host", "10.0.0.8"), None);
        assert_eq!(code(&project, "bigquery", "endpoint", "https://u:w0rd@example.com"), Some("secret-in-url"));
    }
}
