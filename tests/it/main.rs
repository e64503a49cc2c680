//! Behaviour at the boundary: one binary, so that it links once.

mod kafka;
mod provider;
mod store;
