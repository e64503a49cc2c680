//! The whole line on a real broker and a real database.

mod happy;
mod input;
mod outcomes;
mod shop;
mod support;
