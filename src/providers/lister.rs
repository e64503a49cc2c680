//! How lists are asked for: slowly, since the same account recharges at the same time; with a permit of its quota for each
//! call; and again where that can help.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::{HeaderMap, Method, StatusCode};
use tokio::time::Instant;

use super::http::{HttpRequest, HttpResponse, HttpResult, HttpTransport, retry_after};
use super::{BuildError, ProviderSettings};
use crate::domain::{ProviderId, Timestamp, UnknownCause};
use crate::ports::{Clock, ListPermits, StatementError};

/// A page of a list may be long, and long in coming.
const CALL_TIMEOUT: Duration = Duration::from_mins(1);
/// A permit that was used no sooner than this is none.
const SEND_WITHIN: Duration = Duration::from_secs(2);
/// The longest page, in bytes.
const BODY_MAX: usize = 16 * 1024 * 1024;
/// A page that did not come is asked for again so often.
const FAILURES_MAX: u32 = 5;
/// A page that was refused for our pace is asked for again so often.
const THROTTLES_MAX: u32 = 20;
/// The first wait after either; then twice as long, up to the most.
const WAIT_FIRST: Duration = Duration::from_millis(500);
const WAIT_MAX: Duration = Duration::from_mins(1);
/// What the provider says itself is waited for to its end, and where that is longer than this, not at all.
const TOLD_MAX: Duration = Duration::from_mins(15);

/// Of which time a list is wanted, and how fast it may be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListSpan {
    /// From this moment on.
    pub from: Timestamp,
    /// Up to this one, without it.
    pub until: Timestamp,
    /// Between two calls at least.
    pub pace: Duration,
}

/// Asks for pages.
#[derive(Debug)]
pub(super) struct Lister {
    provider: ProviderId,
    transport: HttpTransport,
    clock: Arc<dyn Clock>,
    permits: Arc<dyn ListPermits>,
    pace: Duration,
    next_at: Instant,
    /// How the last page began.
    began_with: Option<String>,
}

/// What an answer says in its body where its status says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BodySays {
    Nothing,
    TooFast(Option<Duration>),
    /// Nothing of ours is wanted for a time.
    Banned(Option<Duration>),
}

impl Lister {
    pub(super) fn new(
        provider: ProviderId,
        settings: &ProviderSettings,
        clock: Arc<dyn Clock>,
        permits: Arc<dyn ListPermits>,
        pace: Duration,
    ) -> Result<Self, BuildError> {
        let mut http = settings.http();
        (http.call_timeout, http.connections_max, http.body_max) = (CALL_TIMEOUT, 1, BODY_MAX);
        let transport = HttpTransport::new(&http, Arc::clone(&clock)).map_err(|source| BuildError::Transport {
            provider: provider.clone(),
            problem: source.to_string(),
            source,
        })?;
        Ok(Self { provider, transport, clock, permits, pace, next_at: Instant::now(), began_with: None })
    }

    /// That the list cannot be used; `what` says why, in words without anything of its contents.
    pub(super) fn unusable(&self, what: impl std::fmt::Display) -> StatementError {
        StatementError::unusable(format!("providers.{}: its list: {what}", self.provider))
    }

    pub(super) fn away(&self, what: impl std::fmt::Display) -> StatementError {
        StatementError::away(format!("providers.{}: its list: {what}", self.provider))
    }

    /// Looks at how page `number` begins: a provider that takes no notice of which one is asked for would be read for ever.
    pub(super) fn look_at_beginning(&mut self, number: u32, first: Option<String>) -> Result<(), StatementError> {
        if number > 1 && first.is_some() && first == self.began_with {
            return Err(self.unusable("a page is the same as the one before it: give its day file with --file"));
        }
        self.began_with = first;
        Ok(())
    }

    /// That a login was refused.
    pub(super) fn refused(&self, status: StatusCode) -> StatementError {
        self.unusable(format_args!("refused with status {}: check account and key_file", status.as_u16()))
    }

    /// Asks for a page until there is an answer with a meaning: a success, or a refusal that asking again does not
    /// change.
    pub(super) async fn get(
        &mut self,
        path: &str,
        headers: &HeaderMap,
        says: impl Fn(&HttpResponse) -> BodySays,
    ) -> Result<HttpResponse, StatementError> {
        let (mut failures, mut throttles, mut wait) = (0, 0, WAIT_FIRST);
        loop {
            tokio::time::sleep_until(self.next_at).await;
            // A permit is for a moment, and connecting may take longer; a call without a connection tells of it.
            self.transport.connect(1).await;
            self.permits.wait().await?;
            self.next_at = Instant::now() + self.pace;
            let request = HttpRequest {
                method: Method::GET,
                path: path.to_owned(),
                headers: headers.clone(),
                body: Bytes::new(),
            };
            let send_by = self.clock.since_boot() + SEND_WITHIN;
            let told = match self.transport.call(&request, send_by).await {
                HttpResult::Response(response) => {
                    let status = response.status;
                    let told = retry_after(&response.headers, self.clock.now());
                    match says(&response) {
                        BodySays::TooFast(wait) => Some(wait.or(told)),
                        BodySays::Banned(wait) => Some(self.banned(wait.or(told)).await?),
                        BodySays::Nothing if status == StatusCode::TOO_MANY_REQUESTS => Some(told),
                        BodySays::Nothing if status == StatusCode::FORBIDDEN && told.is_some() => {
                            Some(self.banned(told).await?)
                        }
                        BodySays::Nothing if status.is_server_error() || status == StatusCode::REQUEST_TIMEOUT => {
                            failures += 1;
                            if failures >= FAILURES_MAX {
                                return Err(self.away(format_args!("status {}: try again later", status.as_u16())));
                            }
                            None
                        }
                        BodySays::Nothing => return Ok(response),
                    }
                }
                HttpResult::NotSent(_) | HttpResult::Unknown(UnknownCause::Timeout | UnknownCause::Reset) => {
                    failures += 1;
                    if failures >= FAILURES_MAX {
                        return Err(
                            self.away("base_url does not answer: try again later, or give its day file with --file")
                        );
                    }
                    None
                }
                HttpResult::Unknown(cause) => {
                    failures += 1;
                    if failures >= FAILURES_MAX {
                        return Err(self.unusable(format_args!(
                            "a page comes to no end that can be used ({}): give its day file with --file",
                            cause.as_str()
                        )));
                    }
                    None
                }
            };
            if told.is_some() {
                throttles += 1;
                if throttles >= THROTTLES_MAX {
                    return Err(self.away("it refuses us for our pace: try again later"));
                }
            }
            let pause = match told.flatten() {
                Some(told) if told > TOLD_MAX => {
                    let minutes = told.as_secs().div_ceil(60);
                    return Err(self.away(format_args!("it takes no calls of ours for {minutes} min: try again then")));
                }
                Some(told) => told,
                None => wait,
            };
            self.next_at = self.next_at.max(Instant::now() + pause);
            wait = (wait * 2).min(WAIT_MAX);
        }
    }

    /// Whose calls are refused altogether is told so as an account: nobody's leave until then.
    async fn banned(&self, told: Option<Duration>) -> Result<Option<Duration>, StatementError> {
        self.permits.rest(told.unwrap_or(WAIT_MAX)).await?;
        Ok(told.or(Some(WAIT_MAX)))
    }
}
