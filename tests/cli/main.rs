//! The program as people run it: processes, files, real servers, and other readers of its tables.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod commands;
mod crash;
mod guard;
mod object_store;
mod packaging;
mod postgres;
mod project;
mod readers;
mod service;
mod sync;

#[path = "../support/postgres.rs"]
mod postgres_server;
