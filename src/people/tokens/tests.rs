#![expect(clippy::unwrap_used, reason = "tests")]

use secrecy::ExposeSecret;

use super::*;
use crate::catalog::Catalog;
use crate::clock::{Clock, ManualClock};

async fn people(directory: &tempfile::TempDir, clock: &ManualClock) -> People {
    let catalog = Catalog::open(&directory.path().join("catalog.db")).await.unwrap();
    People::new(catalog, Arc::new(clock.clone()))
}

fn held() -> ManualClock {
    ManualClock::new("2026-11-22T10:00:00Z".parse().unwrap())
}

fn new(role: Role) -> NewToken {
    NewToken { label: "ci".into(), role, scopes: None, life: Some(Duration::from_secs(3600)) }
}

#[tokio::test]
async fn a_token_is_accepted_with_and_without_bearer_and_nothing_like_it_is() {
    let (directory, clock) = (tempfile::tempdir().unwrap(), held());
    let people = people(&directory, &clock).await;
    let made = people.create_token(&Identity::shell(), new(Role::Editor)).await.unwrap();
    let text = made.secret.expose_secret();
    for header in [text.to_string(), format!("Bearer {text}"), format!("bearer  {text} ")] {
        let caller = people.authenticate_token(&header).await.unwrap();
        assert_eq!(caller.role, Role::Editor);
        assert_eq!(caller.actor, format!("token:ci#{}", made.token.id));
        assert_eq!(caller.permissions, Role::Editor.permissions());
    }
    let mut other = text.to_string();
    let last = if other.pop() == Some('A') { 'B' } else { 'A' };
    other.push(last);
    for wrong in [other.as_str(), &text[..text.len() - 1], &format!("cc_{}", made.token.id), "cc_0000000000_x"] {
        assert!(matches!(people.authenticate_token(wrong).await, Err(AuthError::Unknown)), "{wrong}");
    }
    for wrong in ["cc_", "Basic YTpi", "cc_ä€äää_", "Bearer", "x"] {
        assert!(matches!(people.authenticate_token(wrong).await, Err(AuthError::Malformed)), "{wrong}");
    }
    assert!(matches!(people.authenticate_token(" ").await, Err(AuthError::Missing)));
    assert!(!format!("{made:?}").contains(text));
}

#[tokio::test]
async fn a_token_ends_when_it_expires_also_while_it_is_remembered() {
    let (directory, clock) = (tempfile::tempdir().unwrap(), held());
    let people = people(&directory, &clock).await;
    let life = Some(Duration::from_secs(3));
    let made = people.create_token(&Identity::shell(), NewToken { life, ..new(Role::Viewer) }).await.unwrap();
    let text = made.secret.expose_secret();
    people.authenticate_token(text).await.unwrap();
    clock.advance(TimeDelta::seconds(3));
    assert!(matches!(people.authenticate_token(text).await, Err(AuthError::Expired)));
}

#[tokio::test]
async fn a_revoked_token_ends_at_once_here_and_soon_elsewhere() {
    let (directory, clock) = (tempfile::tempdir().unwrap(), held());
    let here = people(&directory, &clock).await;
    let elsewhere = people(&directory, &clock).await;
    let made = here.create_token(&Identity::shell(), new(Role::Admin)).await.unwrap();
    let text = made.secret.expose_secret();
    here.authenticate_token(text).await.unwrap();
    elsewhere.authenticate_token(text).await.unwrap();
    here.revoke_token(&Identity::shell(), &made.token.id).await.unwrap();
    assert!(matches!(here.authenticate_token(text).await, Err(AuthError::Revoked)));
    clock.advance(TimeDelta::seconds(cache::LIFETIME.num_seconds()));
    assert!(matches!(elsewhere.authenticate_token(text).await, Err(AuthError::Revoked)));
    let again = here.revoke_token(&Identity::shell(), &made.token.id).await;
    assert!(matches!(again, Err(PeopleError::AlreadyRevoked(_))));
}

#[test]
fn a_check_that_began_before_a_revocation_is_not_remembered() {
    let (cache, now) = (Cache::default(), held().now());
    let asked = cache.ask();
    cache.forget();
    cache.put(asked, Digest::of("x"), Arc::new(Identity::shell()), None, now);
    assert!(cache.get(&Digest::of("x"), now).is_none());
    cache.put(cache.ask(), Digest::of("x"), Arc::new(Identity::shell()), None, now);
    assert!(cache.get(&Digest::of("x"), now).is_some());
}

#[tokio::test]
async fn scopes_narrow_a_role_and_never_widen_it() {
    let (directory, clock) = (tempfile::tempdir().unwrap(), held());
    let people = people(&directory, &clock).await;
    let narrow = NewToken { scopes: Some(Permissions::of(&[super::super::Permission::RunsRead])), ..new(Role::Editor) };
    let made = people.create_token(&Identity::shell(), narrow).await.unwrap();
    let caller = people.authenticate_token(made.secret.expose_secret()).await.unwrap();
    assert_eq!(format!("{:?}", caller.permissions), r#"{"runs:read"}"#);
    let wide =
        NewToken { scopes: Some(Permissions::of(&[super::super::Permission::PeopleWrite])), ..new(Role::Editor) };
    assert!(matches!(people.create_token(&Identity::shell(), wide).await, Err(PeopleError::Invalid { .. })));
    // who has less cannot make more
    let more = people.create_token(&caller, new(Role::Viewer)).await.unwrap_err();
    assert!(more.to_string().contains("`models:read`"), "{more}");
}

#[tokio::test]
async fn the_use_of_a_token_is_noted_once_a_minute() {
    let (directory, clock) = (tempfile::tempdir().unwrap(), held());
    let people = people(&directory, &clock).await;
    let made = people.create_token(&Identity::shell(), new(Role::Viewer)).await.unwrap();
    let started = clock.now();
    let noted = async || people.catalog.token(&made.token.id).await.unwrap().unwrap().token.last_used_at;
    people.authenticate_token(made.secret.expose_secret()).await.unwrap();
    for _ in 0..200 {
        if noted().await.is_some() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(noted().await, Some(started));
    clock.advance(TimeDelta::seconds(30));
    people.authenticate_token(made.secret.expose_secret()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(noted().await, Some(started));
}
