//! What an order asked of providers, by our books.

use crate::domain::{ClientRef, LoggedEvent, Order, ProviderId};
use crate::ports::{Store, StoreError};

/// A reference under which an order was, or may have been, sent, and to whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sent {
    pub(super) provider: Option<ProviderId>,
    pub(super) client_ref: ClientRef,
}

/// Every reference under which an order was, or may have been, sent.
pub async fn references_of(store: &dyn Store, order: &Order) -> Result<Vec<String>, StoreError> {
    let sent = sends_of(store, order, false).await?;
    Ok(sent.into_iter().map(|sent| sent.client_ref.to_string()).collect())
}

/// The row has the current attempt's; those of older attempts stand in the log. Where it matters who was asked the log
/// tells that as well: since then the order may have gone on to another lane.
pub(super) async fn sends_of(store: &dyn Store, order: &Order, to_whom: bool) -> Result<Vec<Sent>, StoreError> {
    let Some(attempt) = &order.attempt else { return Ok(Vec::new()) };
    // Stored, sent and closed: there was nothing in between.
    let went_straight = order.state.is_closed() && order.version <= 3;
    if attempt.number == 1 && (went_straight || !to_whom) {
        return Ok(vec![Sent { provider: order.provider.clone(), client_ref: attempt.client_ref.clone() }]);
    }
    let timeline = store.timeline(&order.order_id).await?;
    let claims = timeline.iter().filter_map(|event: &LoggedEvent| {
        Some(Sent { provider: event.data.provider.clone(), client_ref: event.client_ref()? })
    });
    let mut sent: Vec<Sent> = claims.collect();
    // An attempt that was sent again has a claim, and an entry, for each time.
    sent.dedup();
    Ok(sent)
}
