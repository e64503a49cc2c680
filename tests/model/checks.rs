//! What must hold in every world, and the runs that look at all of them.

use std::collections::BTreeSet;
use std::time::Instant;

use recharged::domain::{OnUnknown, State};
use stateright::{Checker, Model, Property};

use crate::actions::{Action, Universe};
use crate::judge::Kind;
use crate::rules::{ALL, Setting, Slowness};
use crate::words::told;
use crate::world::World;

/// What must hold always.
pub(crate) fn laws() -> Vec<Property<Universe>> {
    vec![
        Property::always("never two executed recharges of an order", |_, world: &World| {
            world.lives().all(|life| life.executed() <= 1)
        }),
        Property::always("never a refund of an executed recharge without an open case", |_, world: &World| {
            world.lives().all(|life| !life.is_refunded_in_silence())
        }),
        Property::always("at its deadline every order is decided", |universe: &Universe, world: &World| {
            world.lives().all(|life| !life.is_forgotten(world.now, &universe.judge))
        }),
        Property::always("where nothing can happen any more every order is decided", |universe, world: &World| {
            let mut actions = Vec::new();
            let decided = world.lives().all(|life| life.row.is_decided());
            decided || {
                universe.actions(world, &mut actions);
                actions.into_iter().any(|action| universe.next_state(world, action).is_some())
            }
        }),
        Property::always("what a row says is so", |_, world: &World| world.lives().all(crate::world::Life::is_honest)),
        Property::always("never asked while somebody else asks", |_, world: &World| {
            world.lives().all(|life| !life.was_rushed)
        }),
    ]
}

/// What a run looked at.
#[derive(Debug)]
pub(crate) struct Looked {
    pub(crate) worlds: usize,
    pub(crate) decisions: usize,
    pub(crate) kinds: BTreeSet<Kind>,
    /// The laws that do not hold, with the way to where they do not.
    pub(crate) broken: Vec<(&'static str, Vec<String>)>,
}

/// Looks at every world that can be reached; stops early only where every law is broken.
pub(crate) fn look(setting: &Setting, laws: fn() -> Vec<Property<Universe>>, threads: usize) -> Looked {
    let checker = Universe::new(setting.clone(), laws).checker().threads(threads).spawn_bfs().join();
    let judge = &checker.model().judge;
    let broken = checker.discoveries().into_iter().map(|(law, path)| (law, told(path))).collect();
    Looked { worlds: checker.unique_state_count(), decisions: judge.questions(), kinds: judge.seen(), broken }
}

/// Every world of a setting keeps every law; what was looked at.
pub(crate) fn check(setting: &Setting) -> Looked {
    let began = Instant::now();
    let looked = look(setting, laws, 2);
    let Setting { duplicates, on_unknown, slowness, orders, claims, questions, .. } = setting;
    println!(
        "{duplicates:?}, {on_unknown:?}, {slowness:?}, {orders} order(s), {claims} claims, {questions} question(s), to {}: \
         {} worlds, {} decisions, {:.1} s",
        setting.last,
        looked.worlds,
        looked.decisions,
        began.elapsed().as_secs_f32()
    );
    assert!(looked.broken.is_empty(), "{setting:?}\n{:#?}", looked.broken);
    looked
}

#[test]
fn every_interleaving_of_one_order_with_anybody_slow_keeps_the_laws() {
    for duplicates in ALL {
        check(&Setting::new(duplicates));
    }
}
#[test]
fn two_orders() {
    for duplicates in [ALL[0]] {
        for (crash, pause, last, hesitant) in [(true,false,4,false), (false,true,4,false), (true,true,4,false)] {
        for orders in 2..=2 {
        check(&Setting { slowness: Slowness::OneCrashOnePause, orders, claims:1, lost_replies:false, commit_lag:0, crash, pause, last, hesitant, ..Setting::new(duplicates) });
        } }
    }
}
