//! `recharged` keeps the three-minute promise of prepaid phone recharges.

pub mod domain;
pub mod faults;
pub mod metrics;
pub mod ports;
pub mod roles;
pub mod store;
