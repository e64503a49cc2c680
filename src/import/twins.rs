//! Orders that stand in a file more than once. Of each, so many bytes are kept that a million fit anywhere.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::BuildHasher as _;

use foldhash::quality::RandomState;

use super::{Candidate, Problem};

/// The most orders of one file.
pub const ORDERS_MAX: usize = 5_000_000;

/// What was met so far: by the hash of an order's id, a hash of what it says, and its line. Two ids of the same hash are
/// as likely in a file of a million as one in thirty million; then an order would be told to stand there twice.
#[derive(Debug, Default)]
pub struct Twins {
    met: HashMap<u64, (u32, u32)>,
    random: RandomState,
}

impl Twins {
    /// Whether this is the first time that the order is met; wrong is one that says something else under the same id.
    pub fn is_new(&mut self, candidate: &Candidate) -> Result<bool, Problem> {
        let (new, line) = (&candidate.new, candidate.line);
        if self.met.len() >= ORDERS_MAX {
            return Err(Problem::new(line, None, format!("more than {ORDERS_MAX} orders: split the file")));
        }
        let what =
            (new.recipient.expose(), new.amount.minor, new.amount.currency.as_str(), new.paid_at, &new.payment_id);
        #[expect(clippy::cast_possible_truncation, reason = "half of a hash is one, too")]
        let what = self.random.hash_one(what) as u32;
        match self.met.entry(self.random.hash_one(new.order_id.as_str())) {
            Entry::Vacant(place) => {
                place.insert((what, u32::try_from(line).unwrap_or(u32::MAX)));
                Ok(true)
            }
            Entry::Occupied(met) if met.get().0 == what => Ok(false),
            Entry::Occupied(met) => {
                let rule = format!("stands in line {} already, with another phone, amount or payment", met.get().1);
                Err(Problem::new(line, Some("order_id"), rule))
            }
        }
    }
}
