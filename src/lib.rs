//! `recharged` keeps the three-minute promise of prepaid phone recharges.

pub mod domain;
pub mod kafka;
pub mod ports;
