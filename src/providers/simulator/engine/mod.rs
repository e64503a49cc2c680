//! The provider behind the simulator's HTTP: references, their lives, and what is delivered.

mod books;
mod by_hand;
mod list;
mod query;
mod reference;
mod settle;
mod tell;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

pub use self::books::{ReferenceView, Resolution, ResolveError};
pub(super) use self::by_hand::{ByHand, ByHandError};
pub(super) use self::list::{ListedRecharge, Span};
pub(super) use self::reference::{Life, Order, Remembered};
use self::reference::{REFERENCES_MAX_PER_SHARD, Reference, Rest, lock_shard};
use super::arrivals::{Arrivals, RequestKind};
use super::callbacks::Outbox;
use super::class::{FaultClass, Moment};
use super::dialect::dtone::Created;
use super::dialect::mf178::Filed;
use super::dialect::reloadly::Tokens;
use super::dialect::{Dialect, Login, small_number};
use super::fate::{Fate, Opening, Refusal};
use super::ledger::Ledger;
use super::profile::{FaultKind, Profile};
use super::reply::{Reply, Word};
use super::script::Then;
use super::scripted::Scripted;
use super::setup::{Pacing, Setup};
use super::stats::{Counts, count};
use super::strikes::Strikes;
use super::windows::Windows;
use crate::domain::{ClientRef, Currency, DuplicateSemantics, Msisdn, Timestamp};
use crate::ports::Clock;

/// What a submit meets.
enum Met {
    /// A new recharge: do it.
    Fresh,
    /// The reference is known.
    Known(Life),
    /// The request fails before anything is done.
    Undone,
    /// There is no room for another reference.
    Full,
}

/// What is said of a request at the door.
#[derive(Debug)]
pub(super) struct Admission {
    pub(super) pacing: Option<Pacing>,
    /// It ends here.
    pub(super) reply: Option<Reply>,
}

/// The provider.
#[derive(Debug)]
pub(super) struct Engine {
    seed: u64,
    pub(super) dialect: Dialect,
    pub(super) login: Login,
    /// Of amounts that a dialect sends without one.
    pub(super) currency: Currency,
    clock: Arc<dyn Clock>,
    setup: RwLock<Arc<Setup>>,
    shards: Vec<Mutex<HashMap<Box<str>, Reference>>>,
    /// When each number may be recharged again.
    cooling: Mutex<HashMap<Msisdn, Instant>>,
    ledger: Ledger,
    arrivals: Arrivals,
    pub(super) counts: Counts,
    pub(super) strikes: Strikes,
    pub(super) scripted: Scripted,
    pub(super) windows: Windows,
    pub(super) outbox: Outbox,
    /// References by the provider's own numbers, where a dialect is asked by these.
    numbers: Mutex<HashMap<u64, Box<str>>>,
    /// What the dialects keep besides.
    pub(super) created: Created,
    pub(super) filed: Filed,
    pub(super) tokens: Tokens,
    pub(super) stop: CancellationToken,
}

impl Engine {
    pub(super) fn new(
        (seed, profile, dialect, login, currency): (u64, Profile, Dialect, Login, Currency),
        (ledger, known, arrivals): (Ledger, Remembered, Arrivals),
        balance: Option<i64>,
        outbox: Outbox,
        clock: Arc<dyn Clock>,
    ) -> Arc<Self> {
        let engine = Self {
            seed,
            dialect,
            login,
            currency,
            clock,
            setup: RwLock::new(Setup::new(profile)),
            shards: known.0,
            cooling: Mutex::default(),
            ledger,
            arrivals,
            counts: Counts::default(),
            strikes: Strikes::default(),
            scripted: Scripted::default(),
            windows: Windows::new(balance),
            outbox,
            numbers: Mutex::default(),
            created: Created::default(),
            filed: Filed::default(),
            tokens: Tokens::default(),
            stop: CancellationToken::new(),
        };
        // Those that a ledger remembers are asked about by number too.
        if dialect != Dialect::Own {
            for shard in &engine.shards {
                let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
                shard.keys().for_each(|name| engine.note_number(&ClientRef::from_stored(name)));
            }
        }
        Arc::new(engine)
    }

    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// From now on the reference is found by its number.
    pub(super) fn note_number(&self, client_ref: &ClientRef) {
        if self.dialect != Dialect::Own {
            let mut numbers = self.numbers.lock().unwrap_or_else(PoisonError::into_inner);
            numbers.insert(small_number(client_ref), client_ref.as_str().into());
        }
    }

    /// The reference of a number.
    pub(super) fn by_number(&self, number: u64) -> Option<String> {
        let numbers = self.numbers.lock().unwrap_or_else(PoisonError::into_inner);
        numbers.get(&number).map(|name| name.clone().into())
    }

    /// Whether a reference was ever submitted.
    pub(super) fn knows(&self, client_ref: &str) -> bool {
        lock_shard(&self.shards, client_ref).contains_key(client_ref)
    }

    pub(super) fn is_malformed(&self) -> Reply {
        count(&self.counts.malformed);
        Reply::Say(Word::Malformed)
    }

    /// What was refused, or could not be read, before it became an order.
    pub(super) fn refuses(&self, reply: Reply) -> Reply {
        count(if reply == Reply::Say(Word::Malformed) { &self.counts.malformed } else { &self.counts.refused });
        reply
    }

    pub(super) fn set_profile(&self, profile: Profile) {
        *self.setup.write().unwrap_or_else(PoisonError::into_inner) = Setup::new(profile);
    }

    pub(super) fn profile(&self) -> Profile {
        self.setup().profile.clone()
    }

    pub(super) fn arrival_times(&self) -> Vec<(u64, RequestKind)> {
        self.arrivals.times()
    }

    fn setup(&self) -> Arc<Setup> {
        Arc::clone(&self.setup.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// What every submit goes through first; `is_known` says that the caller has shown its login.
    pub(super) async fn admit_submit(&self, client_ref: &str, is_known: bool) -> Admission {
        count(&self.counts.submits);
        self.admit(client_ref, RequestKind::Submit, is_known).await
    }

    /// What every question goes through first.
    pub(super) async fn admit_query(&self, client_ref: &str, is_known: bool) -> Admission {
        count(&self.counts.queries);
        self.admit(client_ref, RequestKind::Query, is_known).await
    }

    /// Waits while the provider is frozen.
    async fn admit(&self, client_ref: &str, kind: RequestKind, is_known: bool) -> Admission {
        self.arrivals.record(client_ref, kind);
        self.windows.thawed().await;
        if !is_known {
            count(&self.counts.unauthorized);
            return Admission { pacing: None, reply: Some(Reply::Say(Word::Unauthorized)) };
        }
        let setup = self.setup();
        // Before the rate limit: who is banned uses up no permits, and commits no further abuse.
        if let Some(left) = self.windows.banned_for() {
            return Admission { pacing: None, reply: Some(self.banned(client_ref, &setup, left)) };
        }
        let Some((pacing, refused)) = setup.pace(kind) else { return Admission { pacing: None, reply: None } };
        let reply = refused.map(|(class, reply)| {
            count(&self.counts.throttled);
            self.strike(class, client_ref, &setup);
            reply
        });
        Admission { pacing: Some(pacing), reply }
    }

    /// Counts what strikes; an abuse too many begins a ban, with the request after it.
    fn strike(&self, class: FaultClass, client_ref: &str, setup: &Setup) {
        self.strikes.count(class, client_ref);
        if class.is_abuse()
            && let Some(lasts) = setup.abused(Instant::now())
        {
            self.windows.ban(lasts);
        }
    }

    fn banned(&self, client_ref: &str, setup: &Setup, left: Duration) -> Reply {
        count(&self.counts.banned);
        self.strikes.count(FaultClass::Ban, client_ref);
        setup.banned(left)
    }

    pub(super) async fn submit(self: &Arc<Self>, mut order: Order) -> Reply {
        let arrived = Instant::now();
        let setup = self.setup();
        let client_ref = order.client_ref.clone();
        let name = client_ref.as_str();
        let script = self.scripted.take(name);
        if script.is_some() {
            self.strikes.is_scripted(name);
        }
        let (mut fate, met) = self.meet(&order, &setup.profile, script.as_ref());
        if let Some(Opening::Outage(lasts)) = fate.opening {
            self.strikes.count(FaultClass::Outage, name);
            count(&self.counts.resets);
            self.windows.open_outage(lasts);
            return Reply::Reset;
        }
        if let Some(Opening::Ban(lasts)) = fate.opening {
            self.windows.ban(lasts);
            return self.banned(name, &setup, lasts);
        }
        let life = match met {
            Met::Full => return Reply::error(500),
            Met::Undone => Life::InProgress,
            Met::Known(life) => {
                count(&self.counts.duplicates);
                life
            }
            Met::Fresh => {
                let goes_out = self.listens(&mut order, &mut fate, &setup.profile, arrived);
                let Ok(life) = self.execute(&order, &fate, &setup.profile).await else { return Reply::error(500) };
                if let Some(goes_out) = goes_out {
                    self.went_out(goes_out).await;
                }
                life
            }
        };
        sleep_until(arrived + fate.reply_after).await;
        if let Some(pace) = fate.throttled {
            self.strikes.count(FaultClass::Throttled, name);
            count(&self.counts.throttled);
            return Reply::slow_down(pace);
        }
        let says_duplicate =
            matches!(met, Met::Known(_)) && setup.profile.duplicates != DuplicateSemantics::ReplaysResult;
        let reply = if says_duplicate { Reply::Say(Word::Duplicate) } else { Reply::sent(&order.client_ref, life) };
        if let Some((kind, moment)) = fate.fault {
            // A request that was refused, or whose reference was known, executes nothing whenever it fails.
            let is_executed = matches!(met, Met::Fresh) && !matches!(life, Life::Refused(_) | Life::Nothing);
            let moment = if is_executed { moment } else { Moment::BeforeExecution };
            return self.failed(kind, moment, &order.client_ref, reply);
        }
        if let Some((_, answer)) = fate.answer {
            return answer;
        }
        if let Life::Refused(Refusal { status: 200 | 500, .. }) = life
            && !says_duplicate
        {
            self.strikes.count(FaultClass::OddStatus, name);
        }
        reply
    }

    /// Decides under the reference's lock, so that of any number of concurrent submits of one
    /// reference exactly one finds it fresh.
    fn meet(&self, order: &Order, profile: &Profile, script: Option<&Then>) -> (Fate, Met) {
        let name = order.client_ref.as_str();
        let mut shard = lock_shard(&self.shards, name);
        let fate = |nth| Fate::of(profile, self.seed, (name, nth), &order.phone.expose(), script);
        if shard.len() >= REFERENCES_MAX_PER_SHARD && !shard.contains_key(name) {
            return (fate(0), Met::Full);
        }
        let reference = shard.entry(name.into()).or_insert(Reference::new(0, Life::Nothing));
        let fate = fate(reference.submits);
        reference.submits = reference.submits.saturating_add(1);
        let is_before = |moment| moment == Moment::BeforeExecution;
        let is_undone = matches!(fate.opening, Some(Opening::Outage(_) | Opening::Ban(_)))
            || fate.throttled.is_some()
            || fate.fault.is_some_and(|(_, moment)| is_before(moment))
            || fate.answer.as_ref().is_some_and(|(moment, _)| is_before(*moment));
        let is_fresh = match (reference.life, profile.duplicates) {
            (Life::Nothing, _)
            | (_, DuplicateSemantics::NotDeduplicated)
            | (Life::Refused(_) | Life::Reversed { .. }, DuplicateSemantics::RejectsUnlessFailed) => true,
            (
                Life::InProgress | Life::Delivered { .. } | Life::Reversed { .. } | Life::Refused(_),
                DuplicateSemantics::RejectsAlways
                | DuplicateSemantics::RejectsUnlessFailed
                | DuplicateSemantics::ReplaysResult,
            ) => false,
        };
        let met = match (is_undone, is_fresh) {
            (true, _) => Met::Undone,
            (false, true) => {
                reference.life = Life::InProgress;
                reference.submitted_at = Some(Instant::now());
                reference.ended_at = None;
                Met::Fresh
            }
            (false, false) => Met::Known(reference.life),
        };
        (fate, met)
    }

    /// The reply as a fault leaves it.
    fn failed(&self, kind: FaultKind, moment: Moment, client_ref: &ClientRef, reply: Reply) -> Reply {
        let (before, after) = kind.classes();
        self.strikes.count(if moment == Moment::BeforeExecution { before } else { after }, client_ref.as_str());
        let counts = &self.counts;
        let (counter, reply) = match kind {
            FaultKind::Reset => (&counts.resets, Reply::Reset),
            FaultKind::Hang => (&counts.hangs, Reply::Hang),
            FaultKind::SlowDrip => (&counts.slow_drips, Reply::Drip(Box::new(reply))),
            FaultKind::Error500 => (&counts.errors_500, Reply::error(500)),
            FaultKind::Error502 => (&counts.errors_50x, Reply::error(502)),
            FaultKind::Error503 => (&counts.errors_50x, Reply::error(503)),
            FaultKind::Error504 => (&counts.errors_50x, Reply::error(504)),
            FaultKind::Truncated => (&counts.truncated, Reply::Half(Box::new(reply))),
            FaultKind::UnknownCode => (&counts.unknown_codes, Reply::Say(Word::UnknownCode)),
            FaultKind::HtmlPage => (&counts.pages, Reply::page()),
            FaultKind::HtmlError => (&counts.pages, Reply::bad_gateway()),
            FaultKind::Error200 => (&counts.system_errors, Reply::Say(Word::SystemError)),
        };
        count(counter);
        reply
    }
}
