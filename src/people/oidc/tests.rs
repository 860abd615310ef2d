#![expect(clippy::unwrap_used, reason = "tests")]
//! Which user somebody becomes. That made-up tokens are refused is tested against a provider (`tests/cli/service`).

use serde_json::{Value, json};

use super::*;
use crate::people::tests::World;
use crate::people::users::{NewUser, UserChange};

fn config() -> OidcConfig {
    OidcConfig {
        issuer: "https://login.example.com".into(),
        client_id: "cc".into(),
        client_secret: None,
        roles_claim: None,
        roles: BTreeMap::new(),
        default_role: Some(Role::Viewer),
        allowed_domains: vec!["example.com".into()],
    }
}

fn claims(sub: &str, email: &str, more: Value) -> Claims {
    let mut claims = json!({
        "iss": "https://login.example.com", "sub": sub, "aud": "cc", "exp": 1.5, "iat": 1, "email": email,
        "email_verified": true, "name": "Ada Lovelace",
    });
    claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    serde_json::from_value(claims).unwrap()
}

#[tokio::test]
async fn who_is_new_gets_the_default_role_and_is_known_again_by_the_subject() {
    let world = World::new().await;
    let (people, config) = (&world.people, config());
    let ada = people.user_of_claims(&claims("1", "Ada@Example.com", json!({})), &config).await.unwrap();
    assert_eq!((ada.email.as_str(), ada.name.as_str(), ada.role), ("ada@example.com", "Ada Lovelace", Role::Viewer));
    let renamed = people.user_of_claims(&claims("1", "ada.king@example.com", json!({})), &config).await.unwrap();
    assert_eq!(renamed.id, ada.id);
    // an address that went to another person is not that person's account
    let other = people.user_of_claims(&claims("2", "ada@example.com", json!({})), &config).await;
    assert!(matches!(other, Err(OidcError::Refused(_))), "{other:?}");
}

#[tokio::test]
async fn an_address_has_to_be_vouched_for_and_of_an_allowed_domain() {
    let world = World::new().await;
    let config = config();
    let refused = [
        claims("1", "ada@example.com", json!({ "email_verified": false })),
        claims("1", "ada@example.com", json!({ "email_verified": null })),
        claims("1", "ada@example.com", json!({ "email_verified": "false" })),
        claims("1", "ada@evil.example", json!({})),
        claims("1", "ada@example.com@evil.example", json!({})),
        claims("1", "ada@sub.example.com", json!({})),
        claims("1", "ada@example.com", json!({ "email": null })),
    ];
    for claims in refused {
        let result = world.people.user_of_claims(&claims, &config).await;
        assert!(matches!(result, Err(OidcError::Refused(_))), "{claims:?}: {result:?}");
    }
    assert!(world.people.list_users(None, 10).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_claim_decides_on_the_role_at_every_sign_in() {
    let world = World::new().await;
    let roles = [("staff", Role::Viewer), ("data", Role::DataManager), ("boss", Role::Admin)];
    let config = OidcConfig {
        roles_claim: Some("realm_access.roles".into()),
        roles: roles.into_iter().map(|(name, role)| (name.to_string(), role)).collect(),
        default_role: None,
        ..config()
    };
    let sign_in = async |names: Value| {
        let claims = claims("1", "ada@example.com", json!({ "realm_access": { "roles": names } }));
        world.people.user_of_claims(&claims, &config).await
    };
    assert!(matches!(sign_in(json!(["unknown"])).await, Err(OidcError::Refused(_))));
    assert_eq!(sign_in(json!(["staff", "data"])).await.unwrap().role, Role::DataManager);
    assert_eq!(sign_in(json!("staff")).await.unwrap().role, Role::Viewer);
    assert_eq!(sign_in(json!(["boss"])).await.unwrap().role, Role::Admin);
    assert_eq!(sign_in(json!(["staff"])).await.unwrap().role, Role::Admin, "the last admin stays one");
    // who left the groups does not get in any more
    assert!(matches!(sign_in(json!([])).await, Err(OidcError::Refused(_))));
}

#[tokio::test]
async fn who_was_invited_keeps_the_account_and_who_is_disabled_stays_out() {
    let world = World::new().await;
    let new = NewUser { email: "ada@example.com".into(), name: "Ada".into(), role: Role::Editor };
    let invited = world.people.add_user(&world.shell, new, None).await.unwrap();
    let claims = claims("1", "ada@example.com", json!({}));
    let ada = world.people.user_of_claims(&claims, &config()).await.unwrap();
    assert_eq!((&ada.id, ada.role, ada.name.as_str()), (&invited.id, Role::Editor, "Ada"));
    let disable = UserChange { disabled: Some(true), ..UserChange::default() };
    world.people.change_user(&world.shell, &ada.id, disable, None).await.unwrap();
    assert!(matches!(world.people.user_of_claims(&claims, &config()).await, Err(OidcError::Refused(_))));
}

#[test]
fn an_issuer_is_asked_over_tls_or_within_this_machine() {
    for good in
        ["https://login.example.com", "https://login.example.com/realms/a", "http://127.0.0.1:8080", "http://localhost"]
    {
        check_issuer(good).unwrap();
    }
    for bad in
        ["http://login.example.com", "ftp://login.example.com", "login.example.com", "https://u:p@login.example.com"]
    {
        check_issuer(bad).unwrap_err();
    }
}
