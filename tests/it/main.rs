//! Behaviour at the boundary: one binary, so that it links once.

mod cli;
mod config;
mod docs;
mod metrics;
