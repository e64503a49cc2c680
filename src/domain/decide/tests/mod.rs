//! The tests of `decide`. Every step of every one of them runs through [`story::Story`], which
//! checks what must hold of each transition, whatever the story is about.

mod hearsay;
mod lanes;
mod laws;
mod questions;
mod repeats;
mod rows_claim;
mod rows_late;
mod rows_refund;
mod rows_reply;
mod search;
mod shop;
mod story;
mod world;
