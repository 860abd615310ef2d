//! Who does something, and what they may.

use super::{Permission, Permissions, Role};

/// How somebody proved who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Means {
    /// A token in the `Authorization` header.
    Token,
    /// A browser's cookie: what it sends may have been made up by another site, so changes need more proof.
    Session,
    /// The machine's own user, at the command line.
    Shell,
}

/// Somebody whose credentials were checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// How the audit trail names them: `user:ada@example.com`, `token:ci#…`, `cli`.
    pub actor: String,
    pub role: Role,
    /// What they may; never more than the role.
    pub permissions: Permissions,
    /// The user that they are, or in whose name their token was made.
    pub user_id: Option<String>,
    pub token_id: Option<String>,
    pub means: Means,
}

impl Identity {
    /// Who runs a command in the project's directory: they can read and write its files, so everything is theirs.
    pub fn shell() -> Self {
        Self {
            actor: "cli".into(),
            role: Role::Admin,
            permissions: Role::Admin.permissions(),
            user_id: None,
            token_id: None,
            means: Means::Shell,
        }
    }

    pub fn may(&self, permission: Permission) -> bool {
        self.permissions.contains(permission)
    }
}
