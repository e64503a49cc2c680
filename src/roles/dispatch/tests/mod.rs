//! A whole lane, with everything around it in memory: what it does where places, topics or the provider's patience are what
//! is lacking.

mod fakes;

use std::sync::Arc;
use std::time::Duration;

use crate::domain::{
    CaseKind, Command, CommandKind, Failure, FailureClass, Order, OrderId, QueryOutcome, Receipt, RetryAdvice, State,
    SubmitOutcome,
};

use fakes::{Coming, World, second};

const SECOND: Duration = Duration::from_secs(1);

fn declined(advice: RetryAdvice) -> SubmitOutcome {
    SubmitOutcome::Rejected(Failure { class: FailureClass::OperatorUnavailable, code: "down".to_owned(), advice })
}

fn delivered(_reference: &str) -> (Duration, SubmitOutcome) {
    (Duration::from_millis(100), SubmitOutcome::Succeeded(Receipt::default()))
}

fn no_answer(_reference: &str) -> (Duration, QueryOutcome) {
    (Duration::from_secs(10), QueryOutcome::Unavailable { retry_after: None })
}

/// So many a second for ten seconds.
fn flow(world: &World, name: &str, state: State, per_second: u32) -> Vec<Coming> {
    let kind = if state == State::InFlight { CommandKind::Query } else { CommandKind::Submit };
    (0..per_second * 10)
        .map(|n| {
            let order = world.order(&format!("{name}-{n}"), state, 170);
            Coming { at: SECOND * n / per_second, kind, order }
        })
        .collect()
}

fn begins_with(sent: &[String], name: &str) -> usize {
    sent.iter().filter(|reference| reference.starts_with(name)).count()
}

#[tokio::test(start_paused = true)]
async fn slow_declines_and_a_flood_of_retries_leave_fresh_orders_their_share_of_the_places() {
    // Twenty places, two seconds a call: ten calls a second, and fifty a second are wanted.
    let world = Arc::new(World::new(|_| (SECOND * 2, declined(RetryAdvice::Never)), no_answer));
    let mut coming = flow(&world, "retry", State::RetryWait, 40);
    coming.extend(flow(&world, "fresh", State::Queued, 10));
    world.run(coming, 20, SECOND * 10).await;
    let sent = world.sent.lock().unwrap();
    let (fresh, retries) = (begins_with(&sent, "fresh"), begins_with(&sent, "retry"));
    assert!(fresh >= 50, "{fresh} fresh, {retries} retries");
    assert!(retries >= 15, "{fresh} fresh, {retries} retries");
}

#[tokio::test(start_paused = true)]
async fn questions_that_hang_leave_fresh_orders_their_share_of_the_places() {
    let world = Arc::new(World::new(delivered, no_answer));
    let mut coming = flow(&world, "asked", State::InFlight, 20);
    coming.extend(flow(&world, "fresh", State::Queued, 30));
    world.run(coming, 20, SECOND * 12).await;
    assert_eq!(world.count(State::Succeeded), 300, "every fresh order went its way");
    let asked = world.asked.lock().unwrap().len();
    assert!(asked >= 4, "{asked} were asked about");
}

#[tokio::test(start_paused = true)]
async fn places_that_nobody_else_wants_are_lent() {
    let world = Arc::new(World::new(|_| (SECOND * 2, declined(RetryAdvice::Never)), no_answer));
    let coming = flow(&world, "retry", State::RetryWait, 20);
    world.run(coming, 20, SECOND * 11).await;
    let retries = begins_with(&world.sent.lock().unwrap(), "retry");
    assert!(retries >= 90, "{retries} of some hundred that twenty places less one can make");
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_takes_nothing_holds_up_only_the_orders_whose_hints_go_there() {
    let submit = |reference: &str| {
        if reference.starts_with("declined") {
            (SECOND / 10, declined(RetryAdvice::NewAttempt { after: SECOND }))
        } else {
            delivered(reference)
        }
    };
    let world = Arc::new(World::new(submit, no_answer));
    world.refuses.lock().unwrap().insert("delay.1s".to_owned());
    let mut coming = flow(&world, "declined", State::Queued, 3);
    coming.extend(flow(&world, "delivered", State::Queued, 20));
    coming.sort_by_key(|one| one.at);
    let healing = Arc::clone(&world);
    let later = tokio::spawn(async move {
        tokio::time::sleep(SECOND * 11).await;
        let before = (healing.count(State::Succeeded), healing.count(State::RetryWait), healing.count(State::InFlight));
        healing.refuses.lock().unwrap().clear();
        before
    });
    world.run(coming, 50, SECOND * 20).await;
    assert_eq!(later.await.unwrap(), (200, 0, 30), "each row says what it knows, none more than its hint");
    assert_eq!(world.count(State::RetryWait), 30, "once the topic takes them");
}

#[tokio::test(start_paused = true)]
async fn an_error_page_about_one_order_lets_nothing_rest_and_a_ban_everything() {
    for (query, pauses) in [
        (
            (|_| (SECOND / 10, QueryOutcome::Unavailable { retry_after: Some(Duration::from_hours(1)) }))
                as fn(&str) -> _,
            0,
        ),
        (|_| (SECOND / 10, QueryOutcome::Throttled { retry_after: Some(Duration::from_hours(1)) }), 0),
        (|_| (SECOND / 10, QueryOutcome::Banned { retry_after: Some(Duration::from_hours(1)) }), 1),
    ] {
        let world = Arc::new(World::new(delivered, query));
        let mut coming = flow(&world, "asked", State::InFlight, 2);
        coming.truncate(1);
        world.run(coming, 20, SECOND * 3).await;
        let paused = world.paused.lock().unwrap();
        assert_eq!(paused.len(), pauses, "{paused:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_question_that_could_not_leave_comes_again_soon_and_one_without_an_answer_later() {
    // The attempt is twenty seconds old.
    for (query, least, most) in [
        ((|_| (Duration::ZERO, QueryOutcome::NotAsked)) as fn(&str) -> _, 1, 4),
        (|_| (Duration::ZERO, QueryOutcome::Unavailable { retry_after: None }), 10, 30),
    ] {
        let world = Arc::new(World::new(delivered, query));
        let mut coming = flow(&world, "asked", State::InFlight, 2);
        coming.truncate(1);
        world.run(coming, 20, SECOND / 2).await;
        let asked_at = world.asked.lock().unwrap()[0].1;
        let published = world.published.lock().unwrap();
        let next: Command = serde_json::from_slice(published[0].value.as_deref().unwrap()).unwrap();
        let wait = (next.wake_at.unwrap() - World::moment(asked_at)).num_milliseconds();
        assert!((least * 1_000..most * 1_000).contains(&wait), "{wait} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn throttled_questions_rest_and_recharges_go_on() {
    let world = Arc::new(World::new(delivered, |_| {
        (SECOND / 10, QueryOutcome::Throttled { retry_after: Some(Duration::from_secs(5)) })
    }));
    let mut coming = flow(&world, "asked", State::InFlight, 2);
    coming.extend(flow(&world, "fresh", State::Queued, 10));
    world.run(coming, 20, SECOND * 12).await;
    assert_eq!(world.count(State::Succeeded), 100);
    let asked = world.asked.lock().unwrap();
    let first = asked[0].1;
    let rested = asked.iter().filter(|(_, at)| *at > first + SECOND / 5 && *at < first + SECOND * 5).count();
    assert!(rested == 0 && asked.iter().any(|(_, at)| *at >= first + SECOND * 5), "{asked:?}");
}

#[tokio::test(start_paused = true)]
async fn retries_do_not_wait_behind_questions_and_no_question_that_can_be_in_time_is_lost() {
    // Questions rest for long: what comes fills all the room there is for them.
    let world = Arc::new(World::new(delivered, |_| {
        (SECOND / 10, QueryOutcome::Throttled { retry_after: Some(Duration::from_mins(10)) })
    }));
    let mut coming = Vec::new();
    for n in 0..30 {
        let order = world.order(&format!("late-{n}"), State::InDoubt, -30);
        coming.push(Coming { at: SECOND, kind: CommandKind::Query, order });
    }
    for n in 0..500 {
        let order = world.order(&format!("asked-{n}"), State::InFlight, 170);
        coming.push(Coming { at: if n == 0 { Duration::ZERO } else { SECOND }, kind: CommandKind::Query, order });
    }
    coming.sort_by_key(|one| one.at);
    let order = world.order("retry", State::RetryWait, 170);
    coming.push(Coming { at: SECOND, kind: CommandKind::Submit, order });
    world.run(coming, 20, SECOND * 10).await;
    assert_eq!(world.count(State::Succeeded), 1, "the retry was not held up");
    let done = world.done.lock().unwrap().len();
    let published = world.published.lock().unwrap();
    let named = |n: usize| {
        let name = format!("\"asked-{n}\"");
        published.iter().any(|one| std::str::from_utf8(one.value.as_deref().unwrap()).unwrap().contains(&name))
    };
    let put_off = (0..500).filter(|n| named(*n)).count();
    assert!(put_off >= 460, "{put_off} were put off, {done} are done");
    // Those in hand are done by nobody; of the late ones, what there is no room for is let go.
    assert!((20..=30).contains(&(done - put_off - 1)), "{done} done, {put_off} put off");
}

#[tokio::test(start_paused = true)]
async fn questions_do_not_wait_behind_retries_and_no_retry_is_lost() {
    // Each call takes long: what comes fills all the room there is for retries.
    let world = Arc::new(World::new(
        |_| (SECOND * 8, declined(RetryAdvice::Never)),
        |_| (SECOND / 10, QueryOutcome::Succeeded(Receipt::default())),
    ));
    let mut coming = Vec::new();
    for n in 0..500 {
        let order = world.order(&format!("retry-{n}"), State::RetryWait, 170);
        coming.push(Coming { at: SECOND, kind: CommandKind::Submit, order });
    }
    let order = world.order("asked", State::InFlight, 170);
    coming.push(Coming { at: SECOND, kind: CommandKind::Query, order });
    world.run(coming, 20, SECOND * 6).await;
    assert_eq!(world.count(State::Succeeded), 1, "the question was not held up");
    let (done, published) = (world.done.lock().unwrap().len(), world.published.lock().unwrap().len());
    // Those in hand are done by nobody: 40 in the room for them, and none of what was sent or put off.
    let sent = world.sent.lock().unwrap().len();
    assert!(published >= 430 && done <= published + sent + 1, "{done} done, {published} put off, {sent} sent");
    assert!(published + sent + 40 >= 500, "{done} done, {published} put off, {sent} sent");
}

fn row(world: &World, id: &str) -> Order {
    world.rows.lock().unwrap()[&OrderId::parse(id).unwrap()].clone()
}

/// Orders whose numbers cool down: beyond their deadline, and for some seconds; and one whose does not.
async fn cooled(world: World) -> Arc<World> {
    let world = Arc::new(world);
    for (id, until) in [("too-long", SECOND * 200), ("a-while", SECOND * 20)] {
        world.cools.lock().unwrap().insert(OrderId::parse(id).unwrap(), World::moment(until));
    }
    let coming = ["too-long", "a-while", "free"].map(|id| {
        let order = world.order(id, State::Queued, 170);
        Coming { at: SECOND, kind: CommandKind::Submit, order }
    });
    world.run(coming.into(), 20, SECOND * 5).await;
    assert_eq!(row(&world, "free").state, State::Succeeded);
    let waits = row(&world, "a-while");
    assert_eq!((waits.state, waits.version), (State::Queued, 3), "it waits for its number where it is");
    assert!(world.done.lock().unwrap().is_superset(&[1, 2].into()));
    world
}

#[tokio::test(start_paused = true)]
async fn an_order_whose_number_cools_down_beyond_its_deadline_goes_on_in_the_next_lane() {
    let world = cooled(World::new(delivered, no_answer).with_a_second_lane()).await;
    let moved = row(&world, "too-long");
    assert_eq!((moved.state, moved.provider), (State::Queued, Some(second())));
    let published = world.published.lock().unwrap();
    let asked: Vec<Command> = published
        .iter()
        .filter(|record| record.topic.as_ref() == "second")
        .map(|record| serde_json::from_slice(record.value.as_ref().unwrap()).unwrap())
        .collect();
    let [asked] = asked.as_slice() else { panic!("{asked:?}") };
    assert_eq!((asked.order_id.as_str(), asked.kind, asked.version), ("too-long", CommandKind::Submit, moved.version));
    assert!(world.done.lock().unwrap().contains(&0));
}

#[tokio::test(start_paused = true)]
async fn an_order_whose_number_cools_down_beyond_its_deadline_waits_where_no_other_lane_takes_it() {
    let mut world = World::new(delivered, no_answer).with_a_second_lane();
    // Its call would end too late there, too.
    world.policy.providers.get_mut(&second()).unwrap().expected_service = SECOND * 300;
    let world = cooled(world).await;
    let waits = row(&world, "too-long");
    assert_eq!((waits.state, waits.version), (State::Queued, 3));
    assert!(!world.done.lock().unwrap().contains(&0), "its command is not lost");
}

#[tokio::test(start_paused = true)]
async fn what_a_callback_said_and_nobody_confirmed_in_half_a_day_is_a_case_for_a_person() {
    let not_found = |_: &str| (SECOND / 10, QueryOutcome::NotFound);
    for world in [World::new(delivered, no_answer), World::new(delivered, not_found)].map(Arc::new) {
        let order = world.order("doubtful", State::Failed, 170);
        let order = Order { attempt: world.order("other", State::RetryWait, 170).attempt, ..order };
        world.rows.lock().unwrap().insert(order.order_id.clone(), order.clone());
        // Both come for the last time.
        let coming = || Coming { at: SECOND, kind: CommandKind::Confirm, order: order.clone() };
        world.run(vec![coming(), coming()], 20, SECOND * 15).await;
        let after = row(&world, "doubtful");
        assert_eq!((after.state, after.version), (State::Failed, order.version + 1), "one case, and nothing else");
        assert_eq!(after.cases, CaseKind::Unconfirmed.bit());
        assert_eq!(*world.done.lock().unwrap(), [0, 1].into());
    }
}
