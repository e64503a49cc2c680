//! `recharged` keeps the three-minute promise of prepaid phone recharges.

pub mod audit;
pub mod clock;
pub mod domain;
pub mod faults;
pub mod lifecycle;
pub mod metrics;
pub mod ports;
pub mod probes;
pub mod roles;
pub mod shop;
pub mod store;
pub mod telemetry;
