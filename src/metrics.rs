//! stub
#![allow(missing_docs, unused_variables, missing_debug_implementations)]
use crate::domain::*;
use std::time::Duration;
#[derive(Debug)]
pub struct IntakeMetrics;
impl IntakeMetrics {
    pub fn new(s: &'static str) -> Self {
        Self
    }
    pub fn received(&self, n: u64) {}
    pub fn accepted(&self, n: u64) {}
    pub fn rejected(&self, r: &'static str, n: u64) {}
    pub fn duplicate(&self, s: &'static str, n: u64) {}
    pub fn delay(&self, d: Duration) {}
    pub fn future_paid_at(&self, n: u64) {}
}
#[derive(Debug)]
pub struct LaneMetrics;
impl LaneMetrics {
    pub fn new(p: &ProviderId) -> Self {
        Self
    }
    pub fn slack(&self, f: bool, d: Duration) {}
    pub fn request(&self, o: &'static str, r: &'static str, d: Duration) {}
    pub fn in_flight(&self, n: usize) {}
    pub fn permits(&self, r: &'static str, n: u64) {}
    pub fn permit_wait(&self, d: Duration) {}
    pub fn quota(&self, q: f64) {}
    pub fn backlog(&self, c: &'static str, n: usize) {}
}
#[derive(Debug)]
pub struct RelayMetrics;
impl RelayMetrics {
    pub fn new(t: &[&str]) -> Self {
        Self
    }
    pub fn published(&self, t: &str, ok: bool, n: u64) {}
    pub fn pending(&self, n: u64, d: Duration) {}
}
pub fn dead_letter(t: &str, r: &str, n: u64) {}
pub fn order_written(t: &Transition) {}
pub fn order_closed(t: &Order) {}
