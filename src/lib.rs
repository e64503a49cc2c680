//! `recharged` keeps the three-minute promise of prepaid phone recharges.
//!
//! An order's way: [`kafka`] → [`roles::intake`] → [`store`] → [`roles::dispatch`] →
//! [`providers`] → [`store`] → [`roles::relay`] → [`kafka`].

pub mod app;
pub mod audit;
pub mod callbacks;
pub mod cli;
pub mod clock;
pub mod config;
mod csv;
pub mod domain;
pub mod faults;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod import;
pub mod kafka;
pub mod lifecycle;
pub mod metrics;
pub mod ports;
pub mod probes;
pub mod providers;
pub mod reconcile;
pub mod roles;
pub mod shop;
pub mod store;
pub mod telemetry;

/// Batches are made on one thread and freed on another, which is what other allocators do worst:
/// about a sixth of the service's time (`docs/PERFORMANCE.md`). Under a fuzzer the sanitizer has an allocator of its own.
#[cfg(not(fuzzing))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;
