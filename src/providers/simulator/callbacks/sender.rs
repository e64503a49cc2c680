//! The task that sends messages when they are due.

use std::sync::Arc;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use super::super::engine::Engine;
use super::super::stats::{CallbackCounts, count};
use super::client::Client;
use super::{Answer, Content, Follower, Kind, Message};

/// So many are under way at once; more wait.
const SENDING_MAX: usize = 256;

/// Sends until the engine is stopped; what is under way or waits then is dropped.
pub(in super::super) async fn send_all(engine: Arc<Engine>) {
    let client = Arc::new(Client::default());
    let mut sending = JoinSet::new();
    loop {
        while sending.len() < SENDING_MAX
            && let Some(message) = engine.outbox.due(Instant::now())
        {
            sending.spawn(send(Arc::clone(&engine), Arc::clone(&client), message));
        }
        let (next, has_room) = (engine.outbox.next_at(), sending.len() < SENDING_MAX);
        // First the end, then room for what waits, then what is new, then what is due.
        tokio::select! {
            biased;
            () = engine.stop.cancelled() => break,
            Some(sent) = sending.join_next() => {
                if sent.is_err() {
                    tracing::error!("sending a callback panicked");
                }
            }
            () = engine.outbox.changed.notified() => {}
            () = at(next), if has_room => {}
        }
    }
    sending.shutdown().await;
}

async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

async fn send(engine: Arc<Engine>, client: Arc<Client>, mut message: Message) {
    engine.windows.thawed().await;
    let letter = match &message.content {
        Content::Telling(telling) => engine.dialect.letter(&engine, telling),
        Content::Again(letter) => letter.clone(),
    };
    for class in message.strikes.drain(..) {
        engine.strikes.count(class, message.about.as_str());
    }
    let callbacks = engine.callbacks();
    let counts = &engine.counts.callbacks;
    sent(counts, message.kind);
    let answer = match timeout(callbacks.patience, client.post(&message.to, &letter)).await {
        Ok(Ok((status, body))) => {
            let is_acknowledged = engine.dialect.acknowledges(status, &body);
            Answer { status: Some(status), is_acknowledged }
        }
        Ok(Err(_)) | Err(_) => Answer { status: None, is_acknowledged: false },
    };
    answered(counts, message.kind, answer);
    message.sent += 1;
    if let Some(first) = message.first.take()
        && first.send(answer).is_err()
    {
        tracing::trace!("nobody waits for a callback's answer any more");
    }
    for follower in message.followers.drain(..) {
        match follower {
            Follower::Message(next) => engine.put(Instant::now(), *next),
            Follower::Replay(wait) => {
                let again = Content::Again(letter.clone());
                let replay = Message::new(&message.to, &message.about, Kind::Replayed, again);
                engine.put(Instant::now() + wait, replay.struck_by(super::FaultClass::CallbackReplayed));
            }
        }
    }
    if message.kind == Kind::End && !answer.is_acknowledged {
        match callbacks.resend.get(message.sent - 1) {
            Some(wait) => engine.put(Instant::now() + *wait, message),
            None => count(&counts.given_up),
        }
    }
    engine.outbox.done();
}

fn sent(counts: &CallbackCounts, kind: Kind) {
    count(&counts.sent);
    match kind {
        Kind::End | Kind::Once => {}
        Kind::Forged => count(&counts.forged_sent),
        Kind::Stale => count(&counts.stale_sent),
        Kind::Replayed => count(&counts.replayed_sent),
        Kind::Unknown => count(&counts.unknown_sent),
    }
}

fn answered(counts: &CallbackCounts, kind: Kind, answer: Answer) {
    match answer {
        Answer { is_acknowledged: true, .. } => {
            count(&counts.acknowledged);
            match kind {
                Kind::End | Kind::Once => {}
                Kind::Forged => count(&counts.forged_acknowledged),
                Kind::Stale => count(&counts.stale_acknowledged),
                Kind::Replayed => count(&counts.replayed_acknowledged),
                Kind::Unknown => count(&counts.unknown_acknowledged),
            }
        }
        Answer { status: None, .. } => count(&counts.unanswered),
        Answer { status: Some(status), .. } => count(match status {
            200..300 => &counts.refused_2xx,
            300..400 => &counts.refused_3xx,
            400..500 => &counts.refused_4xx,
            _ => &counts.refused_5xx,
        }),
    }
}
