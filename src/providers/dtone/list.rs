//! `GET /transactions?from_date=&to_date=&page=&per_page=`: the transactions of a time by their creation, in pages.
//!
//! Of the specification: the parameters, a window of at most 24 hours, 50 transactions in a page unless asked
//! otherwise, and the headers `X-Total`, `X-Total-Pages`. Our guess: that 100 in a page are allowed, and that `to_date`
//! may or may not be part of the window.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::SecondsFormat;
use hyper::HeaderMap;

use super::wire::Transaction;
use super::{Said, headers, said, table};
use crate::domain::{ClientRef, ProviderId, Timestamp, plus};
use crate::ports::{Clock, ListPermits, Listed, ListedState, Statement, StatementError};
use crate::providers::http::{HttpResponse, escaped};
use crate::providers::lister::{BodySays, ListSpan, Lister};
use crate::providers::{BuildError, ProviderSettings};

/// Half of the longest window that is allowed.
const WINDOW: Duration = Duration::from_hours(12);
const PER_PAGE: u32 = 100;

/// A transaction of whomever.
type AnyTransaction = Transaction<Option<String>>;

/// The list of a time.
#[derive(Debug)]
pub(in crate::providers) struct DtoneList {
    lister: Lister,
    headers: HeaderMap,
    windows: VecDeque<(Timestamp, Timestamp)>,
    /// Of the first window.
    page: u32,
    counted: u64,
    place: u64,
}

impl DtoneList {
    /// Asks for nothing yet.
    pub(in crate::providers) fn new(
        id: ProviderId,
        settings: &ProviderSettings,
        clock: Arc<dyn Clock>,
        permits: Arc<dyn ListPermits>,
        span: ListSpan,
    ) -> Result<Self, BuildError> {
        let headers = headers(&id, settings)?;
        let mut windows = VecDeque::new();
        let mut from = span.from;
        while from < span.until {
            let until = plus(from, WINDOW).min(span.until);
            windows.push_back((from, until));
            from = until;
        }
        let lister = Lister::new(id, settings, clock, permits, span.pace)?;
        Ok(Self { lister, headers, windows, page: 1, counted: 0, place: 0 })
    }

    /// The transactions of an answer.
    fn transactions(&self, response: &HttpResponse) -> Result<Vec<AnyTransaction>, StatementError> {
        if let Ok(found) = serde_json::from_slice(&response.body)
            && response.status.is_success()
        {
            return Ok(found);
        }
        match said(&response.body) {
            // Documented for a search that finds nothing.
            Said::Errors(codes) if codes == [table::NOT_FOUND] => Ok(Vec::new()),
            Said::Errors(_) | Said::Broken | Said::Found(_) | Said::Transaction(_) => {
                if [401, 403].contains(&response.status.as_u16()) {
                    return Err(self.lister.refused(response.status));
                }
                let status = response.status.as_u16();
                Err(self.lister.unusable(format_args!(
                    "page {} is no list of transactions (status {status}): give its day file with --file",
                    self.page
                )))
            }
        }
    }

    fn listed(&mut self, transaction: &AnyTransaction) -> Listed {
        self.place += 1;
        // What somebody made in their portal has no reference of ours.
        let none = || format!("#{}", transaction.reference());
        let client_ref = transaction.external_id.clone().filter(|text| !text.is_empty()).unwrap_or_else(none);
        let state = match transaction.status.class.message.as_str() {
            "CREATED" | "CONFIRMED" | "SUBMITTED" => ListedState::InProgress,
            "COMPLETED" => ListedState::Delivered,
            "REVERSED" => ListedState::Reversed,
            "REJECTED" | "DECLINED" | "CANCELLED" => ListedState::Failed,
            _ => ListedState::Unknown,
        };
        let tells_amount = matches!(state, ListedState::Delivered | ListedState::Reversed);
        Listed {
            client_ref: ClientRef::from_stored(&client_ref),
            state,
            amount: transaction.receipt().delivered.filter(|_| tells_amount),
            at: transaction.creation_date.as_deref().and_then(|text| text.parse().ok()),
            provider_ref: Some(transaction.reference()),
            place: self.place,
        }
    }

    /// The window has been read: whether all of it has come.
    fn close_window(&mut self, total: Option<u64>) -> Result<(), StatementError> {
        if let Some(total) = total.filter(|total| *total > self.counted) {
            return Err(self.lister.away(format_args!(
                "it ended after {} of {total} transactions, so it changed while it was read: try again",
                self.counted
            )));
        }
        self.windows.pop_front();
        (self.page, self.counted) = (1, 0);
        Ok(())
    }
}

#[async_trait]
impl Statement for DtoneList {
    async fn next_page(&mut self) -> Result<Option<Vec<Listed>>, StatementError> {
        let Some((from, until)) = self.windows.front().copied() else { return Ok(None) };
        let moment = |at: Timestamp| escaped(&at.to_rfc3339_opts(SecondsFormat::Micros, true));
        let path = format!(
            "/transactions?from_date={}&to_date={}&page={}&per_page={PER_PAGE}",
            moment(from),
            moment(until),
            self.page
        );
        let response = self.lister.get(&path, &self.headers, too_fast).await?;
        let found = self.transactions(&response)?;
        let number = |name| response.headers.get(name)?.to_str().ok()?.trim().parse::<u64>().ok();
        let (total, pages) = (number("x-total"), number("x-total-pages"));
        self.lister.look_at_beginning(self.page, found.first().map(Transaction::reference))?;
        self.counted += found.len() as u64;
        let listed: Vec<Listed> = found.iter().map(|transaction| self.listed(transaction)).collect();
        // Without a word about its pages a list ends with an empty one.
        let is_last = pages.map_or(found.is_empty(), |pages| u64::from(self.page) >= pages);
        if is_last {
            self.close_window(total)?;
        } else {
            self.page += 1;
        }
        Ok(Some(listed))
    }
}

/// Their refusal for pace may come with any status.
fn too_fast(response: &HttpResponse) -> BodySays {
    match said(&response.body) {
        Said::Errors(codes) if codes.contains(&table::TOO_MANY_REQUESTS) => BodySays::TooFast(None),
        Said::Errors(_) | Said::Broken | Said::Found(_) | Said::Transaction(_) => BodySays::Nothing,
    }
}
