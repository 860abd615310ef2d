//! Who may do what: permissions, and the roles that bundle them.
//!
//! Invariants: an endpoint asks for permissions and never for a role; what a token holds is never more than its role
//! gives; the table in `docs/security.md` is written from [`table`].

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What an endpoint may ask for. Its name is what OpenAPI's `security` and a token's scopes say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
pub enum Permission {
    #[serde(rename = "connections:read")]
    ConnectionsRead,
    #[serde(rename = "connections:write")]
    ConnectionsWrite,
    /// Run a reading query in a warehouse.
    #[serde(rename = "connections:query")]
    ConnectionsQuery,
    #[serde(rename = "models:read")]
    ModelsRead,
    #[serde(rename = "models:write")]
    ModelsWrite,
    #[serde(rename = "models:run")]
    ModelsRun,
    #[serde(rename = "runs:read")]
    RunsRead,
    /// Approve or reject the removals that a run holds back.
    #[serde(rename = "runs:approve")]
    RunsApprove,
    #[serde(rename = "authorizations:read")]
    AuthorizationsRead,
    #[serde(rename = "authorizations:write")]
    AuthorizationsWrite,
    #[serde(rename = "profiles:lookup")]
    ProfilesLookup,
    #[serde(rename = "profiles:write")]
    ProfilesWrite,
    /// SQL over all profiles, and the log of their changes.
    #[serde(rename = "profiles:query")]
    ProfilesQuery,
    /// Users and tokens.
    #[serde(rename = "people:read")]
    PeopleRead,
    #[serde(rename = "people:write")]
    PeopleWrite,
    #[serde(rename = "events:read")]
    EventsRead,
    #[serde(rename = "alerts:read")]
    AlertsRead,
    #[serde(rename = "alerts:write")]
    AlertsWrite,
    /// Metrics and the service's own state.
    #[serde(rename = "operations:read")]
    OperationsRead,
}

use Permission as P;

impl Permission {
    pub const ALL: [Self; 19] = [
        P::ConnectionsRead,
        P::ConnectionsWrite,
        P::ConnectionsQuery,
        P::ModelsRead,
        P::ModelsWrite,
        P::ModelsRun,
        P::RunsRead,
        P::RunsApprove,
        P::AuthorizationsRead,
        P::AuthorizationsWrite,
        P::ProfilesLookup,
        P::ProfilesWrite,
        P::ProfilesQuery,
        P::PeopleRead,
        P::PeopleWrite,
        P::EventsRead,
        P::AlertsRead,
        P::AlertsWrite,
        P::OperationsRead,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            P::ConnectionsRead => "connections:read",
            P::ConnectionsWrite => "connections:write",
            P::ConnectionsQuery => "connections:query",
            P::ModelsRead => "models:read",
            P::ModelsWrite => "models:write",
            P::ModelsRun => "models:run",
            P::RunsRead => "runs:read",
            P::RunsApprove => "runs:approve",
            P::AuthorizationsRead => "authorizations:read",
            P::AuthorizationsWrite => "authorizations:write",
            P::ProfilesLookup => "profiles:lookup",
            P::ProfilesWrite => "profiles:write",
            P::ProfilesQuery => "profiles:query",
            P::PeopleRead => "people:read",
            P::PeopleWrite => "people:write",
            P::EventsRead => "events:read",
            P::AlertsRead => "alerts:read",
            P::AlertsWrite => "alerts:write",
            P::OperationsRead => "operations:read",
        }
    }
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A name that is not one of a role or a permission.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{name}` is not a {what}")]
pub struct UnknownName {
    pub what: &'static str,
    pub name: String,
    /// What to write instead.
    pub hint: String,
}

impl FromStr for Permission {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<Self, UnknownName> {
        Self::ALL.into_iter().find(|p| p.as_str() == name).ok_or_else(|| UnknownName {
            what: "permission",
            name: name.into(),
            hint: crate::config::hint(name, &Self::ALL.map(Self::as_str), "the permissions are"),
        })
    }
}

/// A set of permissions.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Permissions(u32);

impl Permissions {
    pub const NONE: Self = Self(0);

    pub const fn of(permissions: &[Permission]) -> Self {
        let mut bits = 0;
        let mut at = 0;
        while at < permissions.len() {
            bits |= 1 << permissions[at] as u32;
            at += 1;
        }
        Self(bits)
    }

    pub const fn contains(self, permission: Permission) -> bool {
        self.0 & (1 << permission as u32) != 0
    }

    pub const fn is_subset(self, of: Self) -> bool {
        self.0 & !of.0 == 0
    }

    #[must_use]
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// What is in this set and not in the other.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub fn iter(self) -> impl Iterator<Item = Permission> {
        Permission::ALL.into_iter().filter(move |p| self.contains(*p))
    }
}

impl FromIterator<Permission> for Permissions {
    fn from_iter<I: IntoIterator<Item = Permission>>(permissions: I) -> Self {
        permissions.into_iter().fold(Self::NONE, |set, p| Self(set.0 | Self::of(&[p]).0))
    }
}

impl fmt::Debug for Permissions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter().map(Permission::as_str)).finish()
    }
}

/// What a user or a token is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    Admin,
    Editor,
    DataManager,
    AudienceManager,
    Viewer,
    /// A token that may be seen by everyone, in a web page for example: single lookups, allow-listed fields only.
    Public,
}

impl Role {
    pub const ALL: [Self; 6] =
        [Self::Admin, Self::Editor, Self::DataManager, Self::AudienceManager, Self::Viewer, Self::Public];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Editor => "editor",
            Self::DataManager => "data_manager",
            Self::AudienceManager => "audience_manager",
            Self::Viewer => "viewer",
            Self::Public => "public",
        }
    }

    /// What people read.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Admin => "Admin",
            Self::Editor => "Editor",
            Self::DataManager => "Data manager",
            Self::AudienceManager => "Audience manager",
            Self::Viewer => "Viewer",
            Self::Public => "Public",
        }
    }

    pub const fn permissions(self) -> Permissions {
        match self {
            Self::Admin => Permissions::of(&Permission::ALL),
            Self::Editor => Permissions::of(&[
                P::ConnectionsRead,
                P::ConnectionsQuery,
                P::ModelsRead,
                P::ModelsWrite,
                P::ModelsRun,
                P::RunsRead,
                P::RunsApprove,
                P::AuthorizationsRead,
                P::ProfilesLookup,
                P::ProfilesQuery,
                P::EventsRead,
                P::AlertsRead,
                P::OperationsRead,
            ]),
            Self::DataManager => Permissions::of(&[
                P::ConnectionsRead,
                P::ConnectionsWrite,
                P::ConnectionsQuery,
                P::ModelsRead,
                P::ModelsWrite,
                P::ModelsRun,
                P::RunsRead,
                P::RunsApprove,
                P::AuthorizationsRead,
                P::AuthorizationsWrite,
                P::ProfilesLookup,
                P::ProfilesWrite,
                P::ProfilesQuery,
                P::EventsRead,
                P::AlertsRead,
                P::AlertsWrite,
                P::OperationsRead,
            ]),
            Self::AudienceManager => Permissions::of(&[
                P::ConnectionsRead,
                P::ModelsRead,
                P::RunsRead,
                P::ProfilesLookup,
                P::ProfilesQuery,
                P::EventsRead,
                P::AlertsRead,
            ]),
            // metadata only: nothing that shows a person's data
            Self::Viewer => {
                Permissions::of(&[P::ConnectionsRead, P::ModelsRead, P::RunsRead, P::EventsRead, P::AlertsRead])
            }
            Self::Public => Permissions::of(&[P::ProfilesLookup]),
        }
    }

    pub const fn may(self, permission: Permission) -> bool {
        self.permissions().contains(permission)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = UnknownName;

    /// As [`Role::as_str`] writes it; `Data manager` and `data-manager` are understood too.
    fn from_str(name: &str) -> Result<Self, UnknownName> {
        let plain = name.trim().to_ascii_lowercase().replace(['-', ' '], "_");
        Self::ALL.into_iter().find(|role| role.as_str() == plain).ok_or_else(|| UnknownName {
            what: "role",
            name: name.into(),
            hint: crate::config::hint(&plain, &Self::ALL.map(Self::as_str), "the roles are"),
        })
    }
}

/// Who may do what, as a table in Markdown: a row a permission, a column a role.
pub fn table() -> String {
    let titles = Role::ALL.map(Role::title).join(" | ");
    let mut text = format!("| Permission | {titles} |\n|---|{}\n", ":-:|".repeat(Role::ALL.len()));
    for permission in Permission::ALL {
        let cells = Role::ALL.map(|role| if role.may(permission) { "yes" } else { "" }).join(" | ");
        text.push_str(&format!("| `{permission}` | {cells} |\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn names_are_the_ones_of_the_wire_and_are_read_back() {
        for permission in Permission::ALL {
            assert_eq!(permission.as_str().parse(), Ok(permission));
            assert_eq!(serde_json::to_value(permission).unwrap(), permission.as_str());
        }
        for role in Role::ALL {
            assert_eq!(role.as_str().parse(), Ok(role));
            assert_eq!(role.title().parse(), Ok(role));
            assert_eq!(serde_json::to_value(role).unwrap(), role.as_str());
        }
    }

    #[test]
    fn a_mistyped_role_is_answered_with_the_near_one() {
        let error = "edtior".parse::<Role>().unwrap_err();
        assert_eq!(error.to_string(), "`edtior` is not a role");
        assert!(error.hint.contains("editor"), "{}", error.hint);
    }

    #[test]
    fn nobody_may_do_more_than_an_admin_and_only_an_admin_manages_people() {
        for role in Role::ALL {
            assert!(role.permissions().is_subset(Role::Admin.permissions()));
            assert_eq!(role.may(Permission::PeopleWrite), role == Role::Admin);
        }
    }

    #[test]
    fn neither_a_viewer_nor_the_public_reads_profiles_at_large() {
        for role in [Role::Viewer, Role::Public] {
            assert!(!role.may(Permission::ProfilesQuery) && !role.may(Permission::ConnectionsQuery));
        }
        assert!(!Role::Viewer.may(Permission::ProfilesLookup));
        assert_eq!(Role::Public.permissions(), Permissions::of(&[Permission::ProfilesLookup]));
    }

    #[test]
    fn sets_hold_what_was_put_in() {
        let set: Permissions = [Permission::RunsRead, Permission::OperationsRead].into_iter().collect();
        assert_eq!(set.iter().collect::<Vec<_>>(), [Permission::RunsRead, Permission::OperationsRead]);
        assert_eq!(set.without(Permissions::of(&[Permission::RunsRead])).iter().count(), 1);
        assert_eq!(format!("{set:?}"), r#"{"runs:read", "operations:read"}"#);
    }
}
