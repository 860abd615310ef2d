//! Browsers: the session's cookie, and the proof that a change was meant by the person and not by another site's page.
//!
//! A browser sends cookies along with whatever any page makes it send. So a change that only a cookie authenticates
//! needs, besides `SameSite=Lax`, that it comes from a page of this service (`Sec-Fetch-Site`, else `Origin`) and that
//! it carries the session's token (`X-CSRF-Token`, or a form's `csrf_token`). A token in `Authorization` needs neither:
//! browsers do not add one by themselves.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::{ConnectInfo, FromRequestParts};
use axum::http::{HeaderMap, HeaderValue, Method, header, request};
use cookie::{Cookie, SameSite};
use secrecy::{ExposeSecret, SecretString};
use url::Url;

use super::ServeOptions;
use super::answer::ApiError;
use super::state::App;
use crate::people::sessions::{LONGEST_SESSION, is_csrf_token};
use crate::people::{AuthError, Identity};

/// The header that carries the session's token.
pub const CSRF_HEADER: &str = "x-csrf-token";

/// The name of the session's cookie. `__Host-`: a browser takes it only over https, for this host and for all paths,
/// so that no neighbouring host can plant one.
fn session_cookie_name(options: &ServeOptions) -> &'static str {
    if options.is_https() { "__Host-cc_session" } else { "cc_session" }
}

/// The value of a cookie.
pub fn cookie_value(headers: &HeaderMap, name: &str) -> Option<String> {
    let headers = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut cookies = headers.flat_map(Cookie::split_parse).filter_map(Result::ok);
    cookies.find(|cookie| cookie.name() == name).map(|cookie| cookie.value().to_string())
}

/// The session's secret, when the browser has one.
pub fn session_cookie(headers: &HeaderMap, options: &ServeOptions) -> Option<String> {
    cookie_value(headers, session_cookie_name(options))
}

/// A cookie that scripts cannot read and that other sites' requests do not carry, but for following a link here.
pub fn set_cookie(name: &str, value: &str, seconds: i64, options: &ServeOptions) -> Option<HeaderValue> {
    let cookie = Cookie::build((name, value))
        .path("/")
        .http_only(true)
        .secure(options.is_https())
        .same_site(SameSite::Lax)
        .max_age(cookie::time::Duration::seconds(seconds));
    HeaderValue::from_str(&cookie.to_string()).ok()
}

pub fn set_session_cookie(secret: &SecretString, options: &ServeOptions) -> Option<HeaderValue> {
    set_cookie(session_cookie_name(options), secret.expose_secret(), LONGEST_SESSION.num_seconds(), options)
}

pub fn remove_session_cookie(options: &ServeOptions) -> Option<HeaderValue> {
    set_cookie(session_cookie_name(options), "", 0, options)
}

/// Who sends a request that has no `Authorization`, by its cookie.
pub async fn identify(app: &App, request: &request::Parts) -> Result<Arc<Identity>, ApiError> {
    let Some(cookie) = session_cookie(&request.headers, &app.options) else { return Err(AuthError::Missing.into()) };
    let identity = app.people.authenticate_session(&cookie).await?;
    if !matches!(request.method, Method::GET | Method::HEAD | Method::OPTIONS) {
        let given = request.headers.get(CSRF_HEADER).and_then(|value| value.to_str().ok()).unwrap_or_default();
        check_meant(&request.headers, &app.options, &cookie, given)?;
    }
    Ok(identity)
}

/// Was the change meant by the person whose session it is?
pub fn check_meant(headers: &HeaderMap, options: &ServeOptions, cookie: &str, given: &str) -> Result<(), ApiError> {
    check_origin(headers, options)?;
    if is_csrf_token(cookie, given) {
        return Ok(());
    }
    Err(ApiError::forbidden("the request does not carry the session's token")
        .with_hint("send the `csrf_token` of GET /v2/me as X-CSRF-Token; or use an API token instead of the cookie"))
}

/// Does the request come from a page of this service (or from no page at all)?
pub fn check_origin(headers: &HeaderMap, options: &ServeOptions) -> Result<(), ApiError> {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    let ours = match (text("sec-fetch-site"), text("origin")) {
        (Some(site), _) => matches!(site, "same-origin" | "none"),
        (None, Some(origin)) => Url::parse(origin).is_ok_and(|origin| is_here(&origin, headers, options)),
        // no browser: those send one of the two with every change
        (None, None) => true,
    };
    if ours { Ok(()) } else { Err(ApiError::forbidden("the request comes from a page of another site")) }
}

fn is_here(origin: &Url, headers: &HeaderMap, options: &ServeOptions) -> bool {
    let here = asked_host(headers, options).and_then(|host| Url::parse(&format!("{}://{host}", origin.scheme())).ok());
    matches!(origin.scheme(), "http" | "https") && here.is_some_and(|here| here.origin() == origin.origin())
}

/// The host, with its port, that the browser asked for.
fn asked_host<'a>(headers: &'a HeaderMap, options: &ServeOptions) -> Option<&'a str> {
    let forwarded = options.behind_proxy.then(|| headers.get("x-forwarded-host")).flatten();
    forwarded.or_else(|| headers.get(header::HOST))?.to_str().ok()
}

/// Where the request comes from: the peer, or what the proxy in front says that it was.
pub fn client_address(request: &request::Parts, options: &ServeOptions) -> Option<IpAddr> {
    let peer = request.extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip());
    if !options.behind_proxy {
        return peer;
    }
    // the last entry is the proxy's own; what stands before it, anybody may have written
    let forwarded = request.headers.get_all("x-forwarded-for").iter().next_back();
    let last = forwarded.and_then(|value| value.to_str().ok()).and_then(|text| text.rsplit(',').next());
    last.and_then(|text| text.trim().parse().ok()).or(peer)
}

/// [`client_address`] of the request.
#[derive(Debug, Clone, Copy)]
pub struct ClientAddress(pub Option<IpAddr>);

impl FromRequestParts<App> for ClientAddress {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut request::Parts, app: &App) -> Result<Self, Infallible> {
        Ok(Self(client_address(parts, &app.options)))
    }
}

/// The address that people reach the service at, without a `/` at its end: as configured, else as this request says.
/// Who makes up a Host header only misleads themselves: an identity provider goes back to registered addresses only.
pub fn public_url(app: &App, headers: &HeaderMap) -> Option<String> {
    let configured = app.service.engine().project.service.public_url.clone();
    configured.or_else(|| {
        let scheme = if app.options.is_https() { "https" } else { "http" };
        let host = asked_host(headers, &app.options)?;
        let url = Url::parse(&format!("{scheme}://{host}")).ok()?;
        Some(url.origin().ascii_serialization())
    })
}

/// Where to go after signing in: a path of this service, or else the account's page. Never another site.
pub fn local_path(next: &str) -> &str {
    let local = next.starts_with('/')
        && !next.starts_with("//")
        && !next.contains('\\')
        && next.bytes().all(|byte| (0x21..0x7f).contains(&byte));
    if local { next } else { "/account" }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn options(https: bool) -> ServeOptions {
        ServeOptions {
            listen: "127.0.0.1:0".parse().unwrap(),
            tls: None,
            behind_proxy: https,
            rate_limit: 0,
            lookup_rate_limit: 0,
            uploads: crate::uploads::UploadOptions::default(),
            grace: std::time::Duration::ZERO,
        }
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn a_page_of_another_site_cannot_send_changes() {
        let check = |pairs: &[(&'static str, &str)]| check_origin(&headers(pairs), &options(false)).is_ok();
        assert!(check(&[]));
        assert!(check(&[("sec-fetch-site", "same-origin")]));
        assert!(check(&[("host", "cc.example:8080"), ("origin", "http://cc.example:8080")]));
        assert!(check(&[("host", "cc.example"), ("origin", "https://cc.example")]));
        assert!(!check(&[("sec-fetch-site", "cross-site")]));
        assert!(!check(&[("sec-fetch-site", "same-site")]));
        assert!(!check(&[("sec-fetch-site", "cross-site"), ("host", "cc.example"), ("origin", "https://cc.example")]));
        assert!(!check(&[("host", "cc.example"), ("origin", "https://cc.example.evil.example")]));
        assert!(!check(&[("host", "cc.example:8080"), ("origin", "http://cc.example")]));
        assert!(!check(&[("host", "cc.example"), ("origin", "null")]));
        assert!(!check(&[("origin", "https://cc.example")]));
        // only a proxy may say what host was asked for
        let forwarded = [("host", "10.0.0.1"), ("x-forwarded-host", "cc.example"), ("origin", "https://cc.example")];
        assert!(check_origin(&headers(&forwarded), &options(true)).is_ok());
        assert!(!check(&forwarded));
    }

    #[test]
    fn a_change_needs_the_token_of_its_own_session() {
        let token = crate::people::sessions::csrf_token("mine");
        let check = |cookie: &str, given: &str| check_meant(&HeaderMap::new(), &options(false), cookie, given).is_ok();
        assert!(check("mine", &token));
        assert!(!check("yours", &token));
        assert!(!check("mine", "") && !check("mine", "mine"));
    }

    #[test]
    fn cookies_are_out_of_reach_of_scripts_and_neighbours() {
        let set = set_session_cookie(&"s3cret".into(), &options(true)).unwrap();
        let set = set.to_str().unwrap();
        for part in ["__Host-cc_session=s3cret", "HttpOnly", "SameSite=Lax", "Secure", "Path=/"] {
            assert!(set.contains(part), "{set}");
        }
        assert!(!set.contains("Domain"), "{set}");
        let plain = set_session_cookie(&"s3cret".into(), &options(false)).unwrap();
        assert!(
            plain.to_str().unwrap().starts_with("cc_session=s3cret;") && !plain.to_str().unwrap().contains("Secure")
        );
        let sent = headers(&[("cookie", "other=1; cc_session=abc; x=y")]);
        assert_eq!(session_cookie(&sent, &options(false)).as_deref(), Some("abc"));
        assert_eq!(session_cookie(&sent, &options(true)), None);
    }

    #[test]
    fn after_signing_in_nobody_is_sent_elsewhere() {
        assert_eq!(local_path("/docs/?a=1#b"), "/docs/?a=1#b");
        for elsewhere in ["//evil.example", "/\\evil.example", "https://evil.example", "", "evil", "/a\nb", "/a b"] {
            assert_eq!(local_path(elsewhere), "/account", "{elsewhere:?}");
        }
    }

    #[test]
    fn of_a_proxys_list_only_the_last_address_counts() {
        let mut request =
            axum::http::Request::builder().header("x-forwarded-for", "198.51.100.1, 192.0.2.7").body(()).unwrap();
        request.extensions_mut().insert(ConnectInfo::<SocketAddr>("10.0.0.1:5".parse().unwrap()));
        let (parts, ()) = request.into_parts();
        assert_eq!(client_address(&parts, &options(true)), Some("192.0.2.7".parse().unwrap()));
        assert_eq!(client_address(&parts, &options(false)), Some("10.0.0.1".parse().unwrap()));
    }
}
