//! Signing in at an identity provider, and what becomes of made-up identities.

mod provider;

use reqwest::header::COOKIE;
use serde_json::{Value, json};

use super::people::cookie;
use super::{Reply, Service};
use crate::project::Project;
use provider::{CLIENT, Provider, SECRET, Signing};

fn service(provider: &Provider) -> (Project, Service) {
    let project = Project::new();
    let config = std::fs::read_to_string(project.path().join("cloud-connect.yml")).unwrap();
    let oidc = format!(
        "service:\n  oidc:\n    issuer: {}\n    client_id: {CLIENT}\n    client_secret: ${{env:OIDC_SECRET}}\n    \
         roles: {{ claim: groups, map: {{ data: editor }} }}\n    default_role: viewer\n    allowed_domains: [example.com]\n",
        provider.issuer
    );
    project.write("cloud-connect.yml", &(config + &oidc));
    let service = Service::start_with(&project, &[], &[("OIDC_SECRET", SECRET)]);
    (project, service)
}

/// Follows a browser to the provider and back: the path and the cookie that it comes back with.
fn at_provider(service: &Service) -> (String, String) {
    let start = service.ask_as(None, "GET", "/oidc/start?next=/docs/", None);
    assert_eq!(start.status, 303, "{start:?}");
    let asked = service.runtime.block_on(async { service.client.get(start.header("location")).send().await }).unwrap();
    assert_eq!(asked.status(), 302, "the provider takes the request");
    let back = asked.headers()["location"].to_str().unwrap();
    (back.strip_prefix(&service.url).unwrap().to_string(), cookie(&start, "cc_oidc"))
}

fn sign_in(service: &Service) -> Reply {
    let (back, cookie) = at_provider(service);
    service.send("GET", &back, |request| request.header(COOKIE, cookie))
}

#[test]
fn somebody_signs_in_at_the_provider_and_gets_the_role_of_their_groups() {
    let provider = Provider::start();
    let (_project, service) = service(&provider);
    assert!(service.ask_as(None, "GET", "/login", None).text.contains("/oidc/start"));
    for signing in [Signing::Rs256, Signing::Es256] {
        provider.answer(signing, json!({ "groups": ["data", "other"] }));
        let done = sign_in(&service);
        assert_eq!((done.status, done.header("location")), (303, "/docs/"), "{done:?}");
        let me = service.send("GET", "/v2/me", |request| request.header(COOKIE, cookie(&done, "cc_session"))).data();
        assert_eq!((&me["actor"], &me["role"]), (&json!("user:ada@example.com"), &json!("editor")));
    }
    provider.answer(Signing::Rs256, json!({}));
    let done = sign_in(&service);
    let me = service.send("GET", "/v2/me", |request| request.header(COOKIE, cookie(&done, "cc_session"))).data();
    assert_eq!(me["role"], "viewer", "out of the group, out of the role");
    assert_eq!(service.get("/v2/user").data().as_array().unwrap().len(), 1);
    assert!(!service.logged().contains(SECRET));
}

#[test]
fn an_identity_that_does_not_hold_signs_nobody_in() {
    let provider = Provider::start();
    let (_project, service) = service(&provider);
    let now = provider::now();
    let made_up: &[(&str, Signing, Value)] = &[
        ("no signature", Signing::None, json!({})),
        ("the public key as a shared secret", Signing::Hs256WithThePublicKey, json!({})),
        ("another key under a known name", Signing::AnotherKey, json!({})),
        ("of another sign-in", Signing::Rs256, json!({ "nonce": "made-up" })),
        ("of no sign-in", Signing::Rs256, json!({ "nonce": null })),
        ("for another client", Signing::Rs256, json!({ "aud": "another" })),
        (
            "for two clients, made for the other",
            Signing::Rs256,
            json!({ "aud": [CLIENT, "another"], "azp": "another" }),
        ),
        ("for two clients, made for who knows", Signing::Rs256, json!({ "aud": [CLIENT, "another"] })),
        ("of another issuer", Signing::Rs256, json!({ "iss": "https://evil.example" })),
        ("expired", Signing::Rs256, json!({ "exp": now - 120 })),
        ("without an end", Signing::Rs256, json!({ "exp": null })),
        ("of the future", Signing::Rs256, json!({ "iat": now + 3600 })),
        ("not yet", Signing::Rs256, json!({ "nbf": now + 3600 })),
    ];
    for (what, signing, claims) in made_up {
        provider.answer(*signing, claims.clone());
        let refused = sign_in(&service);
        assert_eq!(refused.status, 502, "{what}: {refused:?}");
        assert!(!format!("{:?}", refused.headers).contains("cc_session"), "{what}");
    }
    for (what, claims) in [
        ("an address nobody vouches for", json!({ "email_verified": false })),
        ("of another domain", json!({ "email": "ada@evil.example" })),
    ] {
        provider.answer(Signing::Rs256, claims);
        assert_eq!(sign_in(&service).status, 403, "{what}");
    }
    assert_eq!(service.get("/v2/user").data(), json!([]));
    provider.answer(Signing::Rs256, json!({}));
    assert_eq!(sign_in(&service).status, 303, "and the true one does");
}

#[test]
fn an_answer_counts_once_and_in_the_browser_that_asked() {
    let provider = Provider::start();
    let (_project, service) = service(&provider);
    let come_back =
        |path: &str, cookie: &str| service.send("GET", path, |request| request.header(COOKIE, cookie)).status;
    // the link of an attacker's own sign-in, opened by somebody else
    let (attackers, _) = at_provider(&service);
    let (_, mine) = at_provider(&service);
    assert_eq!(come_back(&attackers, &mine), 400);
    let (attackers, _) = at_provider(&service);
    assert_eq!(come_back(&attackers, "x=y"), 400);
    let (back, cookie) = at_provider(&service);
    let other_state = back.replace("state=", "state=x");
    assert_eq!(come_back(&other_state, &cookie), 400);
    assert_eq!(come_back(&back, &cookie), 303);
    assert_eq!(come_back(&back, &cookie), 400, "once");
    // the answer of another provider, mixed up with this one
    let (back, cookie) = at_provider(&service);
    assert_eq!(come_back(&format!("{back}&iss=https://evil.example"), &cookie), 502);
    let (back, cookie) = at_provider(&service);
    let denied = back.replace("code=", "error=access_denied&was=");
    assert_eq!(come_back(&denied, &cookie), 403);
}

#[test]
fn after_signing_in_nobody_is_sent_to_another_site() {
    let provider = Provider::start();
    let (_project, service) = service(&provider);
    let start = service.ask_as(None, "GET", "/oidc/start?next=//evil.example", None);
    let asked = service.runtime.block_on(async { service.client.get(start.header("location")).send().await }).unwrap();
    let back = asked.headers()["location"].to_str().unwrap().strip_prefix(&service.url).unwrap().to_string();
    let done = service.send("GET", &back, |request| request.header(COOKIE, cookie(&start, "cc_oidc")));
    assert_eq!(done.header("location"), "/account");
}

#[test]
fn without_a_provider_there_is_no_way_to_one() {
    let project = Project::new();
    let service = Service::start(&project);
    assert_eq!(service.ask_as(None, "GET", "/oidc/start", None).error(404), "not-found");
    assert_eq!(service.ask_as(None, "GET", "/oidc/callback?state=a&code=b", None).error(404), "not-found");
    assert!(!service.ask_as(None, "GET", "/login", None).text.contains("/oidc/start"));
}
