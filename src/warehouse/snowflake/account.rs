//! Where an account lives: from what people have at hand (an identifier, a locator, a pasted URL) to an address.
//! Pure: no name is resolved here.

use url::Url;

use crate::warehouse::WarehouseError;
use crate::warehouse::http::is_loopback;

const DOMAINS: [&str; 2] = [".snowflakecomputing.com", ".snowflakecomputing.cn"];

/// An account and its address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Account {
    /// As the login names it: without region, cloud and domain.
    pub name: String,
    /// Scheme, host and port.
    pub endpoint: Url,
}

impl Account {
    /// `account` in any form; `host` overrides the address (PrivateLink, a stand-in).
    pub(super) fn new(account: Option<&str>, host: Option<&str>) -> Result<Self, WarehouseError> {
        let account = account.map(str::trim).filter(|a| !a.is_empty());
        let host = host.map(str::trim).filter(|h| !h.is_empty());
        let (located, override_) = (account.map(locate).transpose()?, host.map(endpoint).transpose()?);
        match (located, override_) {
            (Some(located), None) => Ok(located),
            (Some(located), Some(endpoint)) => Ok(Self { endpoint, ..located }),
            (None, Some(endpoint)) => {
                let host = endpoint.host_str().unwrap_or_default().to_string();
                match identifier_of(&host) {
                    Some(identifier) => Ok(Self { name: name_of(identifier), endpoint }),
                    None => Err(WarehouseError::configuration(format!("`{host}` does not tell the account"))
                        .with_hint("add `account:` to the connection")),
                }
            }
            (None, None) => Err(WarehouseError::configuration("the connection has neither `account` nor `host`")
                .with_hint(
                    "add `account: orgname-accountname`; Snowsight shows it under Account > View account details",
                )),
        }
    }

    /// As the issuer of a key pair's token: upper case.
    pub(super) fn issuer(&self) -> String {
        self.name.to_uppercase()
    }
}

/// `orgname-accountname`, `xy12345.eu-central-1`, `….snowflakecomputing.com`, `https://….snowflakecomputing.com/…`.
fn locate(account: &str) -> Result<Account, WarehouseError> {
    let invalid = || {
        WarehouseError::configuration(format!("`{account}` is not an account"))
            .with_hint("`account` is for example `myorg-shop`, `xy12345.eu-central-1` or the host that you log in at")
    };
    if account.contains("://") {
        let pasted = Url::parse(account).map_err(|_| invalid())?;
        let host = pasted.host_str().ok_or_else(invalid)?;
        let identifier = identifier_of(host).ok_or_else(invalid)?;
        return Ok(Account { name: name_of(identifier), endpoint: endpoint(host)? });
    }
    let bare = account.trim_end_matches('/');
    if let Some(identifier) = identifier_of(bare) {
        return Ok(Account { name: name_of(identifier), endpoint: endpoint(bare)? });
    }
    let is_label = |l: &str| !l.is_empty() && l.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
    if !bare.split('.').all(is_label) {
        return Err(invalid());
    }
    // the region that needs no name in a host
    let located = bare.strip_suffix(".us-west-2").unwrap_or(bare);
    let china = located.split('.').nth(1).is_some_and(|region| region.to_lowercase().starts_with("cn-"));
    let host = format!("{located}{}", DOMAINS[usize::from(china)]);
    Ok(Account { name: name_of(located), endpoint: endpoint(&host)? })
}

/// What stands before Snowflake's domain, if the host is Snowflake's.
fn identifier_of(host: &str) -> Option<&str> {
    let domain = DOMAINS.iter().find(|d| host.len() > d.len() && host.to_lowercase().ends_with(*d))?;
    let identifier = &host[..host.len() - domain.len()];
    Some(identifier.strip_suffix(".privatelink").unwrap_or(identifier))
}

/// Without region and cloud. The name of an account that is failed over (`….global`) ends at its dash.
fn name_of(identifier: &str) -> String {
    let end = if identifier.contains(".global") { '-' } else { '.' };
    identifier.split(end).next().unwrap_or(identifier).to_string()
}

/// An address: `host`, `host:port`, or a URL. Underscores become dashes: certificates cover no host with an underscore,
/// and Snowflake answers at both.
fn endpoint(host: &str) -> Result<Url, WarehouseError> {
    let text = if host.contains("://") { host.to_string() } else { format!("https://{host}") };
    let invalid =
        |hint: &str| WarehouseError::configuration(format!("`{host}` is not a host")).with_hint(hint.to_string());
    let parsed = Url::parse(&text)
        .map_err(|_| invalid("`host` is for example `myorg-shop.privatelink.snowflakecomputing.com`"))?;
    let mut endpoint = parsed.clone();
    endpoint.set_path("/");
    endpoint.set_query(None);
    endpoint.set_fragment(None);
    if !parsed.username().is_empty() || parsed.password().is_some() {
        return Err(WarehouseError::configuration("`host` holds a user or password").with_hint("name the host only"));
    }
    match endpoint.scheme() {
        "https" => {}
        "http" if is_loopback(&endpoint) => {}
        "http" => {
            return Err(WarehouseError::configuration(format!("`{host}` would send credentials unencrypted"))
                .with_hint("use https; plain http is for stand-ins on this machine (127.0.0.1, localhost)"));
        }
        _ => return Err(invalid("`host` takes a host name or an https URL")),
    }
    if let Some(name) = endpoint.host_str().filter(|h| h.contains('_')).map(|h| h.replace('_', "-")) {
        endpoint.set_host(Some(&name)).map_err(|_| invalid("`host` takes a host name"))?;
    }
    if endpoint.host_str().is_none_or(str::is_empty) {
        return Err(invalid("`host` takes a host name"));
    }
    Ok(endpoint)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_found_in_whatever_form_people_have_it() {
        for (given, name, host) in [
            ("myorg-shop", "myorg-shop", "myorg-shop.snowflakecomputing.com"),
            ("MyOrg-My_Shop", "MyOrg-My_Shop", "myorg-my-shop.snowflakecomputing.com"),
            ("xy12345", "xy12345", "xy12345.snowflakecomputing.com"),
            ("xy12345.us-west-2", "xy12345", "xy12345.snowflakecomputing.com"),
            ("xy12345.eu-central-1", "xy12345", "xy12345.eu-central-1.snowflakecomputing.com"),
            ("xy12345.us-east-2.aws", "xy12345", "xy12345.us-east-2.aws.snowflakecomputing.com"),
            ("xy12345.cn-northwest-1.aws", "xy12345", "xy12345.cn-northwest-1.aws.snowflakecomputing.cn"),
            ("myorg-shop.snowflakecomputing.com", "myorg-shop", "myorg-shop.snowflakecomputing.com"),
            (
                "myorg-shop.privatelink.snowflakecomputing.com",
                "myorg-shop",
                "myorg-shop.privatelink.snowflakecomputing.com",
            ),
            (
                "xy1.eu-west-1.privatelink.snowflakecomputing.com",
                "xy1",
                "xy1.eu-west-1.privatelink.snowflakecomputing.com",
            ),
            (
                "https://xy12345.eu-central-1.snowflakecomputing.com/console/login#/",
                "xy12345",
                "xy12345.eu-central-1.snowflakecomputing.com",
            ),
            ("acme-k3j4.global", "acme", "acme-k3j4.global.snowflakecomputing.com"),
        ] {
            let account = Account::new(Some(given), None).unwrap();
            assert_eq!((account.name.as_str(), account.endpoint.host_str().unwrap()), (name, host), "{given}");
        }
    }

    #[test]
    fn a_host_overrides_the_address_and_plain_http_is_for_loopback() {
        let at = |host: &str| Account::new(Some("myorg-shop"), Some(host)).map(|a| a.endpoint.to_string());
        assert_eq!(at("http://127.0.0.1:8080").unwrap(), "http://127.0.0.1:8080/");
        assert_eq!(at("http://[::1]:8080").unwrap(), "http://[::1]:8080/");
        assert_eq!(at("vpce.example.com:8443").unwrap(), "https://vpce.example.com:8443/");
        assert!(at("http://vpce.example.com").unwrap_err().message.contains("unencrypted"));
        assert!(at("https://me:secret@vpce.example.com").unwrap_err().message.contains("user or password"));
        assert_eq!(Account::new(None, Some("shop.snowflakecomputing.com")).unwrap().name, "shop");
        assert!(Account::new(None, Some("vpce.example.com")).unwrap_err().hint.unwrap().contains("account"));
        assert!(Account::new(None, None).is_err());
        for bad in ["my org", "a/b", "https://example.com", "a..b"] {
            assert!(Account::new(Some(bad), None).is_err(), "{bad}");
        }
    }
}
