//! What goes wrong with callbacks, one class of trouble after the other.

use std::collections::BTreeSet;
use std::time::Duration;

use recharged::ports::{Clock as _, SubmitRequest};
use recharged::providers::simulator::{
    Callbacks, Declines, Dialect, FaultClass, Latency, Outcomes, Profile, SimulatorOptions, Spell,
};
use tokio::time::Instant;

use super::callbacks::{PATH, calling, next, options, prompt, quiet, staged, told, words};
use super::dialects::KEY;
use super::receiver::{Answer, Got, Receiver, THANKS};
use super::simulator::Run;
use super::{RealClock, provider, submit_of, until};

/// What the callbacks that came say, in their order.
fn said(receiver: &Receiver) -> Vec<(String, String)> {
    receiver.got().iter().map(|got| got.says(Dialect::Own)).collect()
}

fn says(reference: &str, word: &str) -> (String, String) {
    (reference.to_owned(), word.to_owned())
}

#[tokio::test]
async fn one_that_is_lost_is_never_sent() {
    let receiver = Receiver::start([THANKS]).await;
    let run = calling(&receiver, told(Callbacks { lost: 1.0, duplicated: 1.0, ..prompt() })).await;
    assert_eq!(run.post("order-1-1").await.status(), 200);
    assert_eq!((run.struck(FaultClass::CallbackLost), run.simulator.callbacks_open()), ((1, 1), 0));
    run.set(told(prompt()));
    run.post("order-2-1").await;
    until("the next one came", || receiver.count() == 1).await;
    assert_eq!(said(&receiver), [says("order-2-1", "succeeded")]);
    assert_eq!(run.struck(FaultClass::CallbackDuplicated), (0, 0));
}

#[tokio::test]
async fn one_that_is_duplicated_comes_twice_as_two_messages() {
    let receiver = Receiver::start([THANKS]).await;
    let run = calling(&receiver, told(Callbacks { duplicated: 1.0, ..prompt() })).await;
    run.post("order-1-1").await;
    until("both came", || receiver.count() == 2).await;
    quiet(&run.simulator).await;
    let got = receiver.got();
    assert_eq!((got.len(), &got[0].body), (2, &got[1].body));
    assert_ne!(got[0].header("webhook-id"), got[1].header("webhook-id"));
    assert!(got.iter().all(|got| got.is_signed(Dialect::Own, KEY)));
    assert_eq!(run.struck(FaultClass::CallbackDuplicated), (1, 1));
}

#[tokio::test]
async fn a_late_one_comes_so_much_later() {
    let receiver = Receiver::start([THANKS]).await;
    let late = Spell::fixed(1.0, Duration::from_secs(1));
    let run = calling(&receiver, told(Callbacks { late, ..prompt() })).await;
    let began = Instant::now();
    assert_eq!(run.post("order-1-1").await.status(), 200);
    until("it came", || receiver.count() == 1).await;
    assert!(receiver.got()[0].at - began >= Duration::from_secs(1));
    assert_eq!(run.struck(FaultClass::CallbackLate), (1, 1));
}

#[tokio::test]
async fn an_early_one_comes_before_the_reply_to_the_submit_and_others_after_it() {
    for dialect in Dialect::ALL {
        for accepted_first in [0.0, 1.0] {
            let receiver = Receiver::start([THANKS]).await;
            let completion = Latency::Fixed(Duration::from_mins(1));
            let profile = |callbacks| Profile { accepted_first, completion, ..told(callbacks) };
            let stage = staged(dialect, &receiver, profile(Callbacks { early: 1.0, ..prompt() })).await;
            let provider = stage.provider();
            let outcome = provider.submit(&submit_of("R00000000001")).await;
            let case = format!("{dialect:?}, {accepted_first}: {outcome:?}");
            let got = receiver.got();
            assert_eq!(got.len(), 1, "{case}");
            assert_eq!(got[0].says(dialect), says("R00000000001", words(dialect)[0]), "{case}");
            assert_eq!(stage.simulator.struck(FaultClass::CallbackEarly), 1, "{case}");
        }
    }
    let receiver = Receiver::start([THANKS]).await;
    let after = Latency::Fixed(Duration::from_millis(500));
    let run = calling(&receiver, told(Callbacks { after, ..prompt() })).await;
    run.post("order-1-1").await;
    assert_eq!(receiver.count(), 0);
    until("it came", || receiver.count() == 1).await;
}

#[tokio::test]
async fn a_reply_waits_for_an_early_callback_no_longer_than_for_its_answer() {
    let receiver = Receiver::start([Answer::Silence]).await;
    let callbacks = Callbacks { early: 1.0, patience: Duration::from_millis(200), resend: Vec::new(), ..prompt() };
    let run = calling(&receiver, told(callbacks)).await;
    let outcome = provider(&run.simulator.base_url()).submit(&submit_of("order-1-1")).await;
    assert!(format!("{outcome:?}").starts_with("Succeeded"), "{outcome:?}");
    assert_eq!((receiver.count(), run.simulator.stats().callbacks.unanswered), (1, 1));
}

#[tokio::test]
async fn of_two_ends_the_later_one_is_told_first_where_they_are_swapped() {
    for dialect in Dialect::ALL {
        let receiver = Receiver::start([THANKS]).await;
        let soon = Spell::fixed(0.0, Duration::from_millis(300));
        let outcomes = Outcomes { late_success: soon, reversed: soon, ..Outcomes::default() };
        let [delivered, refused, reversed] = words(dialect);
        let profile = |swapped| Profile { outcomes, ..told(Callbacks { swapped, ..prompt() }) };
        let stage = staged(dialect, &receiver, profile(0.0)).await;
        let mut expected = Vec::new();
        for (n, (swapped, then, first, second)) in [
            (0.0, "outcomes.reversed", delivered, reversed),
            (1.0, "outcomes.reversed", reversed, delivered),
            (0.0, "outcomes.late_success", refused, delivered),
            (1.0, "outcomes.late_success", delivered, refused),
        ]
        .into_iter()
        .enumerate()
        {
            // Of those that a script decides, only the class that it names is struck: by chance, here.
            let outcomes = match then {
                "outcomes.reversed" => Outcomes { reversed: Spell { rate: 1.0, ..soon }, ..outcomes },
                _ => Outcomes { late_success: Spell { rate: 1.0, ..soon }, ..outcomes },
            };
            stage.simulator.set_profile(Profile { outcomes, ..profile(swapped) }).unwrap();
            let reference = format!("R0000000000{n}");
            stage.provider().submit(&submit_of(&reference)).await;
            expected.extend([says(&reference, first), says(&reference, second)]);
            until("both came", || receiver.count() == expected.len()).await;
            let got: Vec<_> = receiver.got().iter().map(|got| got.says(dialect)).collect();
            assert_eq!(got, expected, "{dialect:?}, {then}");
        }
        assert_eq!(stage.simulator.struck(FaultClass::CallbackSwapped), 2, "{dialect:?}");
    }
}

#[tokio::test]
async fn a_forged_one_says_the_opposite_and_never_verifies() {
    for dialect in Dialect::ALL {
        let receiver = Receiver::start([THANKS]).await;
        let stage = staged(dialect, &receiver, told(Callbacks { forged: 1.0, ..prompt() })).await;
        let [delivered, refused, _] = words(dialect);
        for (n, word) in [delivered, refused].into_iter().enumerate() {
            let reference = format!("R0000000000{n}");
            let fatal = if word == refused { 1.0 } else { 0.0 };
            let declines = Declines { fatal, ..Declines::default() };
            stage.simulator.set_profile(Profile { declines, ..stage.simulator.profile() }).unwrap();
            let url = Some(receiver.url(PATH)).filter(|_| dialect != Dialect::Reloadly);
            stage.provider().submit(&SubmitRequest { callback_url: url, ..submit_of(&reference) }).await;
            until("both came", || receiver.count() == 2 * (n + 1)).await;
            let got = receiver.got().split_off(2 * n);
            let is_true = |got: &Got| got.is_signed(dialect, KEY) || dialect == Dialect::Dtone && got.path == PATH;
            let (truth, forged): (Vec<Got>, Vec<Got>) = got.into_iter().partition(is_true);
            let case = format!("{dialect:?}, {word}: {truth:?} {forged:?}");
            assert_eq!((truth.len(), forged.len()), (1, 1), "{case}");
            let (reference_told, told) = truth[0].says(dialect);
            // DT One and Reloadly have several words for a refusal.
            assert!(reference_told == reference && (told == delivered) == (word == delivered), "{case}");
            let lie = if word == delivered { refused } else { delivered };
            assert_eq!(forged[0].says(dialect), says(&reference, lie), "{case}");
            let differing = forged[0].path.bytes().zip(PATH.bytes()).filter(|(a, b)| a != b).count();
            assert_eq!(differing, usize::from(dialect == Dialect::Dtone), "{case}");
        }
        quiet(&stage.simulator).await;
        let counts = stage.simulator.stats().callbacks;
        assert_eq!((counts.forged_sent, counts.forged_acknowledged), (2, 2), "by one who believes everything");
        assert_eq!(stage.simulator.struck(FaultClass::CallbackForged), 2);
    }
}

#[tokio::test]
async fn a_stale_one_is_rightly_signed_with_a_timestamp_an_hour_old() {
    for dialect in Dialect::ALL {
        let receiver = Receiver::start([THANKS]).await;
        let stage = staged(dialect, &receiver, told(Callbacks { stale: 1.0, ..prompt() })).await;
        stage.provider().submit(&submit_of("R00000000001")).await;
        // DT One's have no timestamp.
        let wanted = if dialect == Dialect::Dtone { 1 } else { 2 };
        until("they came", || receiver.count() == wanted).await;
        quiet(&stage.simulator).await;
        let now = RealClock.now().timestamp();
        let mut ages: Vec<i64> =
            receiver.got().iter().filter_map(|got| got.timestamp(dialect)).map(|at| (now - at) / 1_800).collect();
        ages.sort_unstable();
        assert_eq!(ages, if dialect == Dialect::Dtone { vec![] } else { vec![0, 2] }, "{dialect:?}");
        assert!(receiver.got().iter().all(|got| got.is_signed(dialect, KEY) || dialect == Dialect::Dtone));
        assert_eq!(stage.simulator.stats().callbacks.stale_acknowledged, wanted as u64 - 1, "{dialect:?}");
    }
}

#[tokio::test]
async fn a_replayed_one_comes_again_byte_for_byte() {
    let receiver = Receiver::start([THANKS]).await;
    let run = calling(&receiver, told(Callbacks { replayed: 1.0, ..prompt() })).await;
    run.post("order-1-1").await;
    until("both came", || receiver.count() == 2).await;
    quiet(&run.simulator).await;
    let got = receiver.got();
    assert_eq!(got[0].raw, got[1].raw);
    assert!(got[1].at - got[0].at >= Duration::from_secs(1), "some seconds later");
    let counts = run.simulator.stats().callbacks;
    assert_eq!((counts.replayed_sent, counts.replayed_acknowledged, counts.sent), (1, 1, 2));
    assert_eq!(run.struck(FaultClass::CallbackReplayed), (1, 1));
}

#[tokio::test]
async fn one_about_an_unknown_reference_is_rightly_signed_and_about_nobody() {
    for dialect in Dialect::ALL {
        let receiver = Receiver::start([THANKS]).await;
        let stage = staged(dialect, &receiver, told(Callbacks { unknown_reference: 1.0, ..prompt() })).await;
        stage.provider().submit(&submit_of("R00000000001")).await;
        until("both came", || receiver.count() == 2).await;
        quiet(&stage.simulator).await;
        let about: Vec<String> = receiver.got().iter().map(|got| got.says(dialect).0).collect();
        let stranger = about.iter().find(|about| *about != "R00000000001").unwrap();
        assert!(about.contains(&"R00000000001".to_owned()), "{dialect:?}: {about:?}");
        assert!(stage.simulator.references("", 10).iter().all(|known| known.client_ref != *stranger));
        assert!(receiver.got().iter().all(|got| got.is_signed(dialect, KEY) || dialect == Dialect::Dtone));
        assert_eq!(stage.simulator.stats().callbacks.unknown_acknowledged, 1, "{dialect:?}");
    }
}

#[tokio::test]
async fn one_may_say_in_progress_before_the_end() {
    for (dialect, word) in [
        (Dialect::Own, "accepted"),
        (Dialect::Dtone, "CONFIRMED"),
        (Dialect::Mf178, "11"),
        (Dialect::Reloadly, "PROCESSING"),
    ] {
        let receiver = Receiver::start([THANKS]).await;
        let completion = Latency::Fixed(Duration::from_millis(600));
        let callbacks = Callbacks { in_progress: 1.0, ..prompt() };
        let stage = staged(dialect, &receiver, Profile { accepted_first: 1.0, completion, ..told(callbacks) }).await;
        stage.provider().submit(&submit_of("R00000000001")).await;
        until("both came", || receiver.count() == 2).await;
        let got: Vec<_> = receiver.got().iter().map(|got| got.says(dialect).1).collect();
        assert_eq!(got, [word, words(dialect)[0]], "{dialect:?}");
        assert_eq!(stage.simulator.struck(FaultClass::CallbackInProgress), 1);
    }
}

#[tokio::test]
async fn a_script_calls_for_trouble_of_callbacks_even_where_there_are_none() {
    let receiver = Receiver::start([THANKS]).await;
    let soon = Spell::fixed(0.0, Duration::from_millis(50));
    let callbacks = Callbacks { enabled: false, late: soon, ..prompt() };
    assert!(!callbacks.is_on());
    let outcomes = Outcomes { reversed: soon, ..Outcomes::default() };
    let stage = staged(Dialect::Own, &receiver, Profile { outcomes, ..told(callbacks) }).await;
    let of_callbacks: Vec<_> = FaultClass::ALL.iter().copied().filter(|class| class.is_of_callbacks()).collect();
    for (n, class) in of_callbacks.iter().enumerate() {
        next(&stage, class.as_str());
        stage.provider().submit(&submit_of(&format!("order-{n}-1"))).await;
        until("it struck", || stage.simulator.struck(*class) == 1).await;
    }
    stage.provider().submit(&submit_of("order-99-1")).await;
    quiet(&stage.simulator).await;
    assert!(receiver.got().iter().all(|got| got.says(Dialect::Own).0 != "order-99-1"));
    for strike in stage.simulator.strikes().iter().filter(|strike| strike.class.is_of_callbacks()) {
        assert_eq!((strike.orders, strike.by_chance), (1, 0), "{}", strike.class);
    }
}

/// Some of everything, for 80 orders; what came, without what differs between runs.
async fn weather(seed: u64) -> BTreeSet<(String, String, bool, bool)> {
    let receiver = Receiver::start([THANKS]).await;
    let callbacks = Callbacks {
        lost: 0.2,
        forged: 0.2,
        stale: 0.2,
        unknown_reference: 0.2,
        duplicated: 0.2,
        in_progress: 0.2,
        ..prompt()
    };
    let completion = Latency::Fixed(Duration::from_millis(20));
    let profile = Profile { accepted_first: 0.5, completion, ..told(callbacks) };
    let options = SimulatorOptions { seed: Some(seed), ..options(profile, &receiver) };
    let run = Run { dir: tempfile::tempdir().unwrap(), simulator: super::simulator(options).await };
    println!("seed {seed}");
    let provider = provider(&run.simulator.base_url());
    let submits = (0..80).map(|n| {
        let provider = &provider;
        async move { provider.submit(&submit_of(&format!("order-{n}-1"))).await }
    });
    futures_util::future::join_all(submits).await;
    until("all have ended", || run.simulator.stats().executed == 80).await;
    quiet(&run.simulator).await;
    let now = RealClock.now().timestamp();
    let seen = receiver.got().into_iter().map(|got| {
        let (reference, word) = got.says(Dialect::Own);
        let is_stale = now - got.timestamp(Dialect::Own).unwrap() > 1_800;
        (reference, word, got.is_signed(Dialect::Own, KEY), is_stale)
    });
    seen.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_seed_gives_the_same_callbacks_and_another_one_others() {
    let (first, again, other) = (weather(7).await, weather(7).await, weather(8).await);
    assert_eq!(first, again);
    assert_ne!(first, other);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_receiver_that_verifies_nothing_forged_or_stale_is_acknowledged() {
    let refuses = Answer::Say("401 Unauthorized", "", "");
    let receiver = Receiver::judging(move |got| {
        let age = RealClock.now().timestamp() - got.timestamp(Dialect::Own).unwrap();
        if got.is_signed(Dialect::Own, KEY) && age < 300 { THANKS } else { refuses.clone() }
    })
    .await;
    let callbacks = Callbacks { forged: 0.3, stale: 0.3, duplicated: 0.3, lost: 0.1, early: 0.1, ..prompt() };
    let run = calling(&receiver, told(callbacks)).await;
    let provider = provider(&run.simulator.base_url());
    let submits = (0..200).map(|n| {
        let provider = &provider;
        async move { provider.submit(&submit_of(&format!("order-{n}-1"))).await }
    });
    futures_util::future::join_all(submits).await;
    quiet(&run.simulator).await;
    let counts = run.simulator.stats().callbacks;
    assert_eq!(counts.sent, receiver.count() as u64);
    assert_eq!((counts.forged_acknowledged, counts.stale_acknowledged), (0, 0));
    assert!(counts.forged_sent > 30 && counts.stale_sent > 30, "{counts:?}");
    assert_eq!(counts.refused_4xx, counts.forged_sent + counts.stale_sent);
    assert_eq!((counts.given_up, counts.unanswered, counts.overflowed), (0, 0, 0));
    let (duplicated, lost) = (run.struck(FaultClass::CallbackDuplicated).0, run.struck(FaultClass::CallbackLost).0);
    assert_eq!(counts.acknowledged, 200 - lost + duplicated);
}
