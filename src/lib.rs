//! `recharged` keeps the three-minute promise of prepaid phone recharges.

pub mod cli;
pub mod clock;
pub mod config;
pub mod domain;
pub mod lifecycle;
pub mod metrics;
pub mod ports;
pub mod probes;
pub mod telemetry;
