//! Behaviour at the boundary: one binary, so that it links once.
mod store;
