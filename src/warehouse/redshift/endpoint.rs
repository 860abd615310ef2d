//! Where a cluster or workgroup is: as the console shows it (`host:port/database`), or pasted as a JDBC URL. Pure.

/// The parts of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Endpoint {
    pub host: String,
    pub port: Option<u16>,
    pub database: Option<String>,
}

impl Endpoint {
    /// Errors say what is wrong and never repeat the text: a pasted URL may hold a password.
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        let text = text.trim();
        let lower = text.to_ascii_lowercase();
        if lower.starts_with("jdbc:redshift:iam:") {
            return Err(
                "an IAM URL, for which a driver gets temporary credentials: give the host, and `user` and `password` from \
                        GetClusterCredentials or GetCredentials",
            );
        }
        let scheme = ["jdbc:redshift://", "jdbc:postgresql://", "redshift://", "postgresql://", "postgres://"]
            .into_iter()
            .find(|scheme| lower.starts_with(scheme));
        let rest = &text[scheme.map_or(0, str::len)..];
        if rest.contains("://") {
            return Err("not the URL of a Redshift endpoint");
        }
        if rest.contains('@') {
            return Err("with a user or password in it: give those as `user` and `password`");
        }
        if rest.contains(['?', ';', '&']) {
            return Err("with options in it: give those as parameters of the connection");
        }
        let (address, database) = match rest.split_once('/') {
            Some((address, database)) => (address, Some(database.trim_end_matches('/'))),
            None => (rest, None),
        };
        let (host, port) = match address.strip_prefix('[') {
            // an IPv6 address
            Some(v6) => {
                let (host, after) = v6.split_once(']').ok_or("without the end of its address")?;
                (host, after.strip_prefix(':'))
            }
            None => match address.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (address, None),
            },
        };
        let port = match port {
            Some(port) => {
                Some(port.parse().ok().filter(|p| *p > 0).ok_or("with a port that is not a number from 1 to 65535")?)
            }
            None => None,
        };
        if host.is_empty() || host.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err("without a host name");
        }
        let database = database.filter(|d| !d.is_empty()).map(str::to_string);
        Ok(Self { host: host.to_string(), port, database })
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_read_in_every_form_that_people_paste() {
        let host = "shop.abc123.eu-central-1.redshift.amazonaws.com";
        for (text, port, database) in [
            (host.to_string(), None, None),
            (format!("{host}:5439"), Some(5439), None),
            (format!("{host}:5439/dev"), Some(5439), Some("dev")),
            (format!("jdbc:redshift://{host}:5439/dev"), Some(5439), Some("dev")),
            (format!(" Redshift://{host}/dev/ "), None, Some("dev")),
        ] {
            let endpoint = Endpoint::parse(&text).unwrap();
            assert_eq!(endpoint, Endpoint { host: host.into(), port, database: database.map(Into::into) }, "{text}");
        }
        assert_eq!(Endpoint::parse("[::1]:5439/dev").unwrap().host, "::1");
    }

    #[test]
    fn what_it_cannot_hold_is_told_without_repeating_it() {
        for (text, why) in [
            ("jdbc:redshift:iam://shop:eu/dev", "IAM"),
            ("jdbc:redshift://h:5439/dev?user=a&password=s3cret", "options"),
            ("redshift://me:s3cret@h/dev", "`password`"),
            ("https://h/dev", "not the URL"),
            ("h:port/dev", "port"),
            (":5439/dev", "host"),
        ] {
            let error = Endpoint::parse(text).unwrap_err();
            assert!(error.contains(why) && !error.contains("s3cret"), "{text}: {error}");
        }
    }
}
