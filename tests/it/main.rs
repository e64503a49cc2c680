//! Behaviour at the boundary: one binary, so that it links once.

#![cfg(test)]
#![allow(
    clippy::indexing_slicing,
    clippy::pedantic,
    clippy::unwrap_used,
    reason = "a test fails by panicking, and its counts are small"
)]

mod cli;
mod config;
mod docs;
mod harness;
mod kafka;
mod line;
mod metrics;
mod pace;
mod provider;
mod reconcile;
mod store;
