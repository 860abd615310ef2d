#![expect(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;

use chrono::TimeDelta;
use secrecy::ExposeSecret;
use tempfile::TempDir;

use super::sessions::{IDLE, LONGEST_SESSION};
use super::tokens::NewToken;
use super::users::{NewUser, UserChange};
use super::*;
use crate::catalog::events::EventFilter;
use crate::clock::ManualClock;
use crate::events::SubjectKind;

const PASSWORD: &str = "correct horse battery";

pub(super) struct World {
    _directory: TempDir,
    pub clock: ManualClock,
    pub people: People,
    pub shell: Identity,
}

impl World {
    pub async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let clock = ManualClock::new("2026-11-22T10:00:00Z".parse().unwrap());
        let catalog = Catalog::open(&directory.path().join("catalog.db")).await.unwrap();
        let people = People::new(catalog, Arc::new(clock.clone()));
        Self { _directory: directory, clock, people, shell: Identity::shell() }
    }

    async fn user(&self, email: &str, role: Role) -> users::User {
        let new = NewUser { email: email.into(), name: String::new(), role };
        self.people.add_user(&self.shell, new, None).await.unwrap()
    }

    async fn with_password(&self, email: &str, role: Role) -> users::User {
        let new = NewUser { email: email.into(), name: String::new(), role };
        self.people.add_user(&self.shell, new, Some(PASSWORD.into())).await.unwrap()
    }

    async fn session(&self, user: &users::User) -> String {
        self.people.begin_session(user.clone(), "in a test").await.unwrap().secret.expose_secret().into()
    }

    async fn verbs(&self, id: &str) -> Vec<String> {
        let filter = EventFilter {
            kind: Some(SubjectKind::User),
            subject: Some(id.into()),
            limit: 100,
            ..EventFilter::default()
        };
        self.people.catalog.events(&filter).await.unwrap().into_iter().rev().map(|event| event.verb).collect()
    }
}

fn disable() -> UserChange {
    UserChange { disabled: Some(true), ..UserChange::default() }
}

#[tokio::test]
async fn an_address_is_one_user_however_it_is_cased() {
    let world = World::new().await;
    let ada = world.user(" Ada@Example.com", Role::Editor).await;
    assert_eq!((ada.email.as_str(), ada.name.as_str()), ("ada@example.com", "ada@example.com"));
    let again = NewUser { email: "ADA@example.com".into(), name: "Ada".into(), role: Role::Viewer };
    let taken = world.people.add_user(&world.shell, again, None).await;
    assert!(matches!(taken, Err(PeopleError::EmailTaken(_))));
    for wrong in ["ada", "@example.com", "ada@", "a b@example.com", "a@b@example.com", ""] {
        let new = NewUser { email: wrong.into(), name: String::new(), role: Role::Viewer };
        let refused = world.people.add_user(&world.shell, new, None).await;
        assert!(matches!(refused, Err(PeopleError::Invalid { .. })), "{wrong}");
    }
    assert_eq!(world.people.find_user("ADA@EXAMPLE.COM").await.unwrap().id, ada.id);
}

#[tokio::test]
async fn the_first_admin_is_founded_once_by_the_newest_link_within_a_day() {
    let world = World::new().await;
    let (people, link) = (&world.people, async || world.people.first_admin_link().await.unwrap().unwrap());
    let old = link().await;
    let late = link().await;
    assert!(!people.first_admin_offered(old.secret.expose_secret()).await.unwrap());
    world.clock.advance(links::LIFETIME);
    assert!(!people.first_admin_offered(late.secret.expose_secret()).await.unwrap());
    let good = link().await;
    let secret = good.secret.expose_secret();
    let found = async |email: &str, password: &str| people.found_first_admin(secret, email, "", password.into()).await;
    assert!(matches!(found("ada@example.com", "short").await, Err(PeopleError::Invalid { .. })));
    let ada = found("ada@example.com", PASSWORD).await.unwrap();
    assert_eq!(ada.role, Role::Admin);
    assert!(matches!(found("eve@example.com", PASSWORD).await, Err(PeopleError::DeadLink)));
    assert!(people.first_admin_link().await.unwrap().is_none());
    people.log_in("Ada@example.com", PASSWORD.into(), None).await.unwrap();
    assert_eq!(world.verbs(&ada.id).await, ["created", "signed_in"]);
}

#[tokio::test]
async fn the_last_admin_stays() {
    let world = World::new().await;
    let (ada, bob) =
        (world.user("ada@example.com", Role::Admin).await, world.user("bob@example.com", Role::Admin).await);
    world.people.change_user(&world.shell, &bob.id, disable(), None).await.unwrap();
    let demote = UserChange { role: Some(Role::Viewer), ..UserChange::default() };
    for change in [demote, disable()] {
        let kept = world.people.change_user(&world.shell, &ada.id, change, None).await;
        assert!(matches!(kept, Err(PeopleError::LastAdmin)));
    }
    assert!(matches!(world.people.remove_user(&world.shell, &ada.id).await, Err(PeopleError::LastAdmin)));
    let ada = world.people.user(&ada.id).await.unwrap();
    assert_eq!((ada.role, ada.disabled), (Role::Admin, false));
    assert_eq!(world.verbs(&ada.id).await, ["created"], "what did not happen is not told");
}

#[tokio::test]
async fn who_may_less_cannot_change_who_may_more() {
    let world = World::new().await;
    let (ada, vic) =
        (world.user("ada@example.com", Role::Admin).await, world.user("vic@example.com", Role::Viewer).await);
    let clerk = Identity {
        permissions: [Permission::PeopleWrite].into_iter().chain(Role::Viewer.permissions().iter()).collect(),
        ..Identity::shell()
    };
    let promote = UserChange { role: Some(Role::Editor), ..UserChange::default() };
    let too_much = |result: Result<(), PeopleError>| assert!(matches!(result, Err(PeopleError::TooMuch { .. })));
    too_much(world.people.change_user(&clerk, &ada.id, disable(), None).await.map(drop));
    too_much(world.people.invite(&clerk, &ada.id).await.map(drop));
    too_much(world.people.set_password(&clerk, &ada.id, PASSWORD.into()).await);
    too_much(world.people.remove_user(&clerk, &ada.id).await);
    too_much(world.people.change_user(&clerk, &vic.id, promote, None).await.map(drop));
    let new = NewUser { email: "eve@example.com".into(), name: String::new(), role: Role::Editor };
    too_much(world.people.create_user(&clerk, new).await.map(drop));
    world.people.change_user(&clerk, &vic.id, disable(), None).await.unwrap();
}

#[tokio::test]
async fn a_change_of_what_somebody_else_changed_is_refused() {
    let world = World::new().await;
    let ada = world.user("ada@example.com", Role::Viewer).await;
    let name = |name: &str| UserChange { name: Some(name.into()), ..UserChange::default() };
    let changed = world.people.change_user(&world.shell, &ada.id, name("Ada"), Some(ada.revision)).await.unwrap();
    assert_eq!((changed.name.as_str(), changed.revision), ("Ada", ada.revision + 1));
    let late = world.people.change_user(&world.shell, &ada.id, name("A."), Some(ada.revision)).await;
    assert!(matches!(late, Err(PeopleError::ChangedMeanwhile(_))));
}

#[tokio::test]
async fn a_session_ends_when_idle_when_old_and_on_the_way_out() {
    let world = World::new().await;
    let ada = world.user("ada@example.com", Role::Editor).await;
    let who = async |cookie: &str| world.people.authenticate_session(cookie).await;
    let (idle, out) = (world.session(&ada).await, world.session(&ada).await);
    let identity = who(&idle).await.unwrap();
    assert_eq!((identity.actor.as_str(), identity.means), ("user:ada@example.com", Means::Session));
    world.people.log_out(&out).await.unwrap();
    assert!(matches!(who(&out).await, Err(AuthError::Unknown)));
    world.clock.advance(IDLE);
    assert!(matches!(who(&idle).await, Err(AuthError::Expired)));
    let busy = world.session(&ada).await;
    let (began, hours) = (world.clock.now(), TimeDelta::hours(6));
    while world.clock.now() + hours < began + LONGEST_SESSION {
        world.clock.advance(hours);
        who(&busy).await.unwrap();
        // it is noted beside the request
        while world.people.catalog.session(&secret::Digest::of(&busy)).await.unwrap().unwrap().last_seen_at
            < world.clock.now()
        {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }
    world.clock.advance(hours);
    assert!(matches!(who(&busy).await, Err(AuthError::Expired)));
    assert!(matches!(who("made up").await, Err(AuthError::Unknown)));
}

#[tokio::test]
async fn a_disabled_user_is_out_at_once_with_their_tokens() {
    let world = World::new().await;
    let ada = world.with_password("ada@example.com", Role::Editor).await;
    let cookie = world.session(&ada).await;
    let identity = world.people.authenticate_session(&cookie).await.unwrap();
    let new = NewToken { label: "hers".into(), role: Role::Editor, scopes: None, life: None };
    let made = world.people.create_token(&identity, new).await.unwrap();
    let token = made.secret.expose_secret();
    world.people.authenticate_token(token).await.unwrap();
    // a token follows its user's role down
    let demote = UserChange { role: Some(Role::Viewer), ..UserChange::default() };
    world.people.change_user(&world.shell, &ada.id, demote, None).await.unwrap();
    let lesser = world.people.authenticate_token(token).await.unwrap();
    assert_eq!(lesser.permissions, Role::Viewer.permissions().intersection(Role::Editor.permissions()));
    world.people.change_user(&world.shell, &ada.id, disable(), None).await.unwrap();
    assert!(world.people.authenticate_session(&cookie).await.is_err());
    assert!(matches!(world.people.authenticate_token(token).await, Err(AuthError::Disabled)));
    let login = world.people.log_in("ada@example.com", PASSWORD.into(), None).await;
    assert!(matches!(login, Err(LoginError::Refused)));
    world.people.remove_user(&world.shell, &ada.id).await.unwrap();
    assert!(matches!(world.people.authenticate_token(token).await, Err(AuthError::Unknown)));
    assert_eq!(world.verbs(&ada.id).await, ["created", "signed_in", "updated", "disabled", "deleted"]);
}

#[tokio::test]
async fn an_invitation_sets_a_password_once() {
    let world = World::new().await;
    let new = NewUser { email: "ada@example.com".into(), name: "Ada".into(), role: Role::Viewer };
    let (ada, lost) = world.people.create_user(&world.shell, new).await.unwrap();
    let link = world.people.invite(&world.shell, &ada.id).await.unwrap();
    let accept = async |secret: &str, password: &str| world.people.accept_invitation(secret, password.into()).await;
    assert!(matches!(accept(lost.secret.expose_secret(), PASSWORD).await, Err(PeopleError::DeadLink)));
    let secret = link.secret.expose_secret();
    assert!(matches!(accept(secret, "ada@example.com").await, Err(PeopleError::Invalid { .. })));
    let before = world.session(&ada).await;
    assert_eq!(accept(secret, PASSWORD).await.unwrap().id, ada.id);
    assert!(matches!(accept(secret, PASSWORD).await, Err(PeopleError::DeadLink)));
    assert!(world.people.authenticate_session(&before).await.is_err(), "a new password ends sessions");
    world.people.log_in("ada@example.com", PASSWORD.into(), None).await.unwrap();
    let late = world.people.invite(&world.shell, &ada.id).await.unwrap();
    world.clock.advance(links::LIFETIME);
    assert!(matches!(world.people.invited(late.secret.expose_secret()).await, Err(PeopleError::DeadLink)));
}

#[tokio::test]
async fn changing_ones_password_takes_the_old_one_and_ends_other_sessions() {
    let world = World::new().await;
    let ada = world.with_password("ada@example.com", Role::Viewer).await;
    let (here, elsewhere) = (world.session(&ada).await, world.session(&ada).await);
    let change =
        async |old: &str| world.people.change_password(&here, old.into(), "another good one".into(), None).await;
    assert!(matches!(change("wrong").await, Err(LoginError::Refused)));
    change(PASSWORD).await.unwrap();
    world.people.authenticate_session(&here).await.unwrap();
    assert!(matches!(world.people.authenticate_session(&elsewhere).await, Err(AuthError::Unknown)));
    assert!(matches!(world.people.log_in("ada@example.com", PASSWORD.into(), None).await, Err(LoginError::Refused)));
}

#[test]
fn the_guide_says_who_may_do_what() {
    const BEGIN: &str = "<!-- roles: written from the code, see src/people/role.rs -->\n";
    const END: &str = "<!-- end of roles -->";
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/security.md");
    let text = std::fs::read_to_string(&file).unwrap();
    let (before, rest) = text.split_once(BEGIN).unwrap();
    let (now, after) = rest.split_once(END).unwrap();
    let wanted = format!("\n{}\n", role::table());
    if std::env::var_os("UPDATE_DOCS").is_some() && now != wanted {
        std::fs::write(&file, format!("{before}{BEGIN}{wanted}{END}{after}")).unwrap();
    }
    assert!(now == wanted, "the roles in docs/security.md are not as in the code: UPDATE_DOCS=1 writes them");
}
