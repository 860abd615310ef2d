//! People and programs that use the service, and what each may do.

pub mod role;

pub use role::{Permission, Permissions, Role};
