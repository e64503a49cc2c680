//! The `recharged` command.

fn main() {}
