//! What must hold of every reader of bytes from outside, whatever the bytes: a function each. A fuzzer runs them
//! (`scripts/campaign fuzz`, `tests/fuzz`), and a test runs them over the inputs that are kept (`tests`). What does not
//! hold is a panic. `docs/PROOF.md` lists them.
//!
//! Most inputs are a [`message`](message::Message): a first line, headers, an empty line and a body, so that people can write
//! them. Each run is alone and always the same: fixed clocks, no sockets, no files.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a target fails by panicking, and reads on past what it does not look for"
)]

mod callbacks;
mod config;
mod day_file;
mod delayed;
mod document;
mod evidence;
mod inbound;
mod list;
mod listener;
mod message;
mod replies;
mod token;
mod world;

#[cfg(test)]
mod tests;

pub use callbacks::{callback_door, dtone_callback, mf178_callback, reloadly_callback, simulator_callback};
pub use config::config;
pub use day_file::day_file;
pub use delayed::{command, delayed};
pub use inbound::inbound;
pub use list::list;
pub use listener::listener;
pub use replies::{dtone_reply, http_reply, mf178_reply, reloadly_reply, simulator_reply};
pub use token::reloadly_token;

/// One of them by its name, which is also its program's and its corpus's in `tests/fuzz`.
pub type Target = (&'static str, fn(&[u8]));

/// Each of them.
pub const TARGETS: [Target; 18] = [
    ("inbound", inbound),
    ("delayed", delayed),
    ("command", command),
    ("config", config),
    ("http_reply", http_reply),
    ("simulator_reply", simulator_reply),
    ("dtone_reply", dtone_reply),
    ("mf178_reply", mf178_reply),
    ("reloadly_reply", reloadly_reply),
    ("reloadly_token", reloadly_token),
    ("simulator_callback", simulator_callback),
    ("dtone_callback", dtone_callback),
    ("mf178_callback", mf178_callback),
    ("reloadly_callback", reloadly_callback),
    ("callback_door", callback_door),
    ("listener", listener),
    ("list", list),
    ("day_file", day_file),
];
