//! Warehouse-native Cloud Connect: SQL models become profile attributes and memberships.
//!
//! A row's journey, which is the order of the modules:
//!
//! ```text
//! warehouse ─► sync::extract ─► diff ─► identity ─► profiles
//!  (query)     (Arrow stream)  (compare)  (match)   (read back)
//! ```
//!
//! [`config`] and [`model`] hold what people wrote, [`secrets`] what they did not; [`warehouse`] runs the model's SQL and
//! streams its result; [`sync`] drives one run; [`diff`] compares the result with the record store; [`identity`] finds or
//! founds the profiles; [`store`] keeps the state as Delta tables, [`catalog`] says which version of them is visible;
//! [`profiles`] answers questions. [`uploads`] takes profiles that no model knows of yet.
#![forbid(unsafe_code)]

pub mod alerts;
pub mod catalog;
pub mod cli;
pub mod clock;
pub mod config;
pub mod diff;
pub mod events;
pub mod identity;
pub mod memory;
pub mod model;
pub mod outgoing;
pub mod people;
pub mod profiles;
pub mod scheduler;
pub mod secrets;
pub mod server;
pub mod service;
pub mod store;
pub mod sync;
pub mod telemetry;
pub mod uploads;
pub mod values;
pub mod vault;
pub mod warehouse;
pub mod workers;
pub mod yielding;
