//! The few pages that people need to get in: plain HTML that works without a script, with a policy that allows none.

use askama::Template;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};

use super::answer::ApiError;

/// Nothing but our own style sheet, and forms to ourselves.
const POLICY: &str =
    "default-src 'none'; style-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

/// The style sheet's text.
pub const STYLE: &str = include_str!("templates/style.css");

/// Sign in with a password or at the identity provider.
#[derive(Template)]
#[template(path = "login.html")]
pub struct Login<'a> {
    pub error: Option<&'a str>,
    pub email: &'a str,
    pub next: &'a str,
    /// Is there an identity provider?
    pub provider: bool,
}

/// Found the first admin, or set the password of the invited.
#[derive(Template)]
#[template(path = "password.html")]
pub struct ChoosePassword<'a> {
    pub title: &'a str,
    pub action: &'a str,
    pub error: Option<&'a str>,
    /// The secret of the link.
    pub token: &'a str,
    pub email: &'a str,
    /// Is the e-mail to be given, or known?
    pub asks_email: bool,
    pub shortest: usize,
}

/// Who one is, another password, and the way out.
#[derive(Template)]
#[template(path = "account.html")]
pub struct Account<'a> {
    pub email: &'a str,
    pub name: &'a str,
    pub role: &'a str,
    pub csrf_token: &'a str,
    pub has_password: bool,
    pub error: Option<&'a str>,
    pub done: Option<&'a str>,
    pub shortest: usize,
}

/// Something to say, and where to go on.
#[derive(Template)]
#[template(path = "message.html")]
pub struct Message<'a> {
    pub title: &'a str,
    pub message: &'a str,
    pub hint: &'a str,
}

/// A page as an answer.
pub fn page(status: StatusCode, template: &impl Template) -> Response {
    let html = match template.render() {
        Ok(html) => html,
        Err(error) => return ApiError::internal(error).into_response(),
    };
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        // with `no-referrer` a browser would not tell us which page a form was on
        (header::REFERRER_POLICY, "same-origin"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    (status, headers, html).into_response()
}

/// Goes on to a page of this service, with a cookie set.
pub fn go(to: &str, cookies: impl IntoIterator<Item = HeaderValue>) -> Response {
    let cookies: HeaderMap = cookies.into_iter().map(|cookie| (header::SET_COOKIE, cookie)).collect();
    (cookies, Redirect::to(to)).into_response()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn what_people_typed_is_text_and_never_markup() {
        let login = Login { error: Some("<b>"), email: "\"><script>", next: "'\"", provider: false };
        let html = login.render().unwrap();
        assert!(!html.contains("<script") && !html.contains("<b>"), "{html}");
        assert!(html.contains("&#60;script&#62;"), "{html}");
    }
}
