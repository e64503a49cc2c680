//! Behaviour at the boundary: one binary, so that it links once.

#![cfg(test)]

mod cli;
mod config;
mod docs;
mod kafka;
mod metrics;
mod provider;
mod store;
