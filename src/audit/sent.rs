//! What an order asked of providers, by our books.

use crate::domain::{ClientRef, LoggedEvent, Order, OrderId, ProviderId};
use crate::ports::{Store, StoreError};

/// A reference under which an order was, or may have been, sent, and to whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sent {
    pub(super) provider: Option<ProviderId>,
    pub(super) client_ref: ClientRef,
}

/// Every reference under which each of a page of orders was, or may have been, sent.
pub async fn references_of(
    store: &dyn Store,
    orders: impl IntoIterator<Item = &Order>,
) -> Result<Vec<Vec<String>>, StoreError> {
    let sent = sends_of(store, orders, false).await?;
    Ok(sent.into_iter().map(|sent| sent.into_iter().map(|sent| sent.client_ref.to_string()).collect()).collect())
}

/// The rows have the current attempts'; those of older attempts stand in the log. Where it matters who was asked the log
/// tells that as well: since then the order may have gone on to another lane.
pub(super) async fn sends_of(
    store: &dyn Store,
    orders: impl IntoIterator<Item = &Order>,
    to_whom: bool,
) -> Result<Vec<Vec<Sent>>, StoreError> {
    let (mut sends, mut to_look_up) = (Vec::new(), Vec::new());
    for (place, order) in orders.into_iter().enumerate() {
        let known = known_sends(order, to_whom);
        if known.is_none() {
            to_look_up.push((place, order.order_id.clone()));
        }
        sends.push(known.unwrap_or_default());
    }
    let (places, ids): (Vec<usize>, Vec<OrderId>) = to_look_up.into_iter().unzip();
    if !ids.is_empty() {
        for (place, timeline) in places.into_iter().zip(store.timelines(&ids).await?) {
            if let Some(of_it) = sends.get_mut(place) {
                *of_it = logged_sends(&timeline);
            }
        }
    }
    Ok(sends)
}

/// What the row alone tells; `None` where that is not all.
fn known_sends(order: &Order, to_whom: bool) -> Option<Vec<Sent>> {
    let Some(attempt) = &order.attempt else { return Some(Vec::new()) };
    // Stored, sent and closed: there was nothing in between.
    let went_straight = order.state.is_closed() && order.version <= 3;
    (attempt.number == 1 && (went_straight || !to_whom))
        .then(|| vec![Sent { provider: order.provider.clone(), client_ref: attempt.client_ref.clone() }])
}

fn logged_sends(timeline: &[LoggedEvent]) -> Vec<Sent> {
    let claims = timeline.iter().filter_map(|event: &LoggedEvent| {
        Some(Sent { provider: event.data.provider.clone(), client_ref: event.client_ref()? })
    });
    let mut sent: Vec<Sent> = claims.collect();
    // An attempt that was sent again has a claim, and an entry, for each time.
    sent.dedup();
    sent
}
