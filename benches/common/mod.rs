//! What the measurements share: topics and a database of their own, the subject in a process of its
//! own, and the reading of what it used.

pub(crate) mod calibration;
pub(crate) mod child;
pub(crate) mod goal;
pub(crate) mod lateness;
pub(crate) mod machine;
pub(crate) mod meter;
pub(crate) mod orders;
pub(crate) mod process;
pub(crate) mod profile;
pub(crate) mod round;
pub(crate) mod scratch;
pub(crate) mod service;
pub(crate) mod topics;
