//! `GET /topups/reports/transactions?startDate=&endDate=&page=&size=`: the top-ups of a time, in pages.
//!
//! Of the documentation: the parameters, their form, pages from 1, 200 in a page unless asked otherwise. Our guess: that
//! the times are UTC (no zone is documented), and that `last` and `totalPages` tell the end where they are sent.

use std::sync::Arc;

use async_trait::async_trait;
use chrono::NaiveDateTime;
use hyper::HeaderMap;
use hyper::header::{ACCEPT, AUTHORIZATION};
use serde::Deserialize;

use super::table::{self, Standing};
use super::token::TokenSource;
use super::{MEDIA_TYPE, Transaction, is_about_the_token, tokens};
use crate::domain::{ClientRef, ProviderId, Timestamp};
use crate::ports::{Clock, ListPermits, Listed, ListedState, Statement, StatementError};
use crate::providers::answers::{Object, read};
use crate::providers::http::{HttpResponse, escaped};
use crate::providers::lister::{BodySays, ListSpan, Lister};
use crate::providers::{BuildError, ProviderSettings};

const PER_PAGE: u32 = 200;
const FORM: &str = "%Y-%m-%d %H:%M:%S";

/// The list of a time.
#[derive(Debug)]
pub(in crate::providers) struct ReloadlyList {
    lister: Lister,
    tokens: TokenSource,
    span: ListSpan,
    /// The next; none is left after the last.
    page: Option<u32>,
    place: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Page {
    content: Vec<Object<Transaction>>,
    last: Option<bool>,
    total_pages: Option<u32>,
    total_elements: Option<u64>,
}

impl ReloadlyList {
    /// Asks for nothing yet.
    pub(in crate::providers) fn new(
        id: ProviderId,
        settings: &ProviderSettings,
        clock: Arc<dyn Clock>,
        permits: Arc<dyn ListPermits>,
        span: ListSpan,
    ) -> Result<Self, BuildError> {
        let tokens = tokens(&id, settings, &clock)?;
        let lister = Lister::new(id, settings, clock, permits, span.pace)?;
        Ok(Self { lister, tokens, span, page: Some(1), place: 0 })
    }

    /// With the token at hand, and once more with a new one where that has ended.
    async fn get(&mut self, path: &str) -> Result<HttpResponse, StatementError> {
        let mut last = None;
        for _ in 0..2 {
            let Some(token) = self.tokens.get().await else {
                return Err(self.lister.away("no token: auth_url does not answer, or check account and key_file"));
            };
            let headers = HeaderMap::from_iter([(AUTHORIZATION, token.bearer.clone()), (ACCEPT, MEDIA_TYPE)]);
            let response = self.lister.get(path, &headers, |_| BodySays::Nothing).await?;
            if !is_about_the_token(&response) {
                return Ok(response);
            }
            self.tokens.refused(&token);
            last = Some(response);
        }
        Err(last.map_or_else(|| self.lister.away("no token"), |response| self.lister.refused(response.status)))
    }

    fn listed(&mut self, transaction: &Transaction) -> Listed {
        self.place += 1;
        let state =
            transaction.status.as_deref().map_or(ListedState::Unknown, |status| match table::standing(status) {
                Standing::InProgress => ListedState::InProgress,
                Standing::Succeeded => ListedState::Delivered,
                Standing::Failed(_) => ListedState::Failed,
                Standing::Undocumented => ListedState::Unknown,
            });
        let provider_ref = transaction.transaction_id.map(|id| id.to_string());
        // What somebody made in their portal has no reference of ours.
        let none = || format!("#{}", provider_ref.as_deref().unwrap_or("?"));
        let client_ref = transaction.custom_identifier.clone().filter(|text| !text.is_empty()).unwrap_or_else(none);
        let at = transaction.transaction_date.as_deref();
        Listed {
            client_ref: ClientRef::from_stored(&client_ref),
            state,
            amount: transaction.receipt().delivered.filter(|_| state == ListedState::Delivered),
            at: at.and_then(|text| NaiveDateTime::parse_from_str(text, FORM).ok()).map(|at| at.and_utc()),
            provider_ref,
            place: self.place,
        }
    }
}

#[async_trait]
impl Statement for ReloadlyList {
    async fn next_page(&mut self) -> Result<Option<Vec<Listed>>, StatementError> {
        let Some(number) = self.page else { return Ok(None) };
        let moment = |at: Timestamp| escaped(&at.format(FORM).to_string());
        let path = format!(
            "/topups/reports/transactions?startDate={}&endDate={}&page={number}&size={PER_PAGE}",
            moment(self.span.from),
            moment(self.span.until),
        );
        let response = self.get(&path).await?;
        if [401, 403].contains(&response.status.as_u16()) {
            return Err(self.lister.refused(response.status));
        }
        let page = read::<Page>(&response.body).filter(|_| response.status.is_success());
        let Some(page) = page else {
            let status = response.status.as_u16();
            return Err(self.lister.unusable(format_args!(
                "page {number} is no report (status {status}): give its day file with --file"
            )));
        };
        let first = page.content.first().and_then(|transaction| transaction.transaction_id);
        self.lister.look_at_beginning(number, first.map(|id| id.to_string()))?;
        let listed: Vec<Listed> = page.content.iter().map(|transaction| self.listed(transaction)).collect();
        let told = page.last.or_else(|| page.total_pages.map(|pages| number >= pages));
        // Without a word about its pages a list ends with an empty one.
        let is_last = told.unwrap_or(page.content.is_empty());
        self.page = (!is_last).then_some(number + 1);
        if let Some(total) = page.total_elements.filter(|total| is_last && *total > self.place) {
            return Err(self.lister.away(format_args!(
                "it ended after {} of {total} top-ups, so it changed while it was read: try again",
                self.place
            )));
        }
        Ok(Some(listed))
    }
}
