//! `recharged` keeps the three-minute promise of prepaid phone recharges.

pub mod config;
pub mod domain;
pub mod ports;
