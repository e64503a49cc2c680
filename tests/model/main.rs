//! The exhaustive model: every interleaving of claims, sends, questions, adoption, settlement and
//! the watchdog, around the very `decide` that the service runs. `docs/MODEL.md` tells what is
//! modelled, what each rule is good for, and which code each step mirrors.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    reason = "a test fails by panicking, prints what it counted, and has ticks and claims that fit a byte"
)]

mod actions;
mod checks;
mod judge;
mod mirrors;
mod row;
mod rules;
mod switches;
mod transitions;
mod words;
mod world;
