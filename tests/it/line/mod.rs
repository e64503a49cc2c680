//! The whole line on a real broker and a real database.

mod books;
mod crashes;
mod demo;
mod happy;
mod input;
mod outcomes;
mod quota;
mod refusals;
mod reports;
mod shop;
mod support;
