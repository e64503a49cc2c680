//! The whole line on a real broker and a real database.

mod books;
mod callbacks;
mod cases;
mod crashes;
mod delays;
mod demo;
mod early;
mod ending;
mod happy;
mod input;
mod lanes;
mod lies;
mod names;
mod notifications;
mod outages;
mod outcomes;
mod quota;
mod reconcile;
mod refusals;
mod reports;
mod rows;
mod servers;
mod sharing;
mod shop;
mod storm;
pub(crate) mod support;
mod watchdog;
