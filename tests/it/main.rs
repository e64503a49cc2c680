//! Behaviour at the boundary: one binary, so that it links once.

#[cfg(test)]
mod kafka;
