//! Warehouse-native Cloud Connect: SQL models become profile attributes and memberships.
#![forbid(unsafe_code)]

pub mod clock;
pub mod config;
pub mod model;
pub mod profiles;
pub mod store;
pub mod values;
pub mod warehouse;
