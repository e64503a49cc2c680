//! The whole line on a real broker and a real database.

mod books;
mod crashes;
mod happy;
mod outages;
mod quota;
mod servers;
