//! The `Retry-After` header (RFC 9110 section 10.2.3): seconds, or a date.

use std::time::Duration;

use hyper::HeaderMap;
use hyper::header::RETRY_AFTER;

use crate::domain::Timestamp;

/// A wait longer than this is taken for a mistake and cut: it would stop a lane for good.
pub const WAIT_MAX: Duration = Duration::from_hours(1);

/// How long a provider asks us to wait, if it says so in a form that can be read.
pub fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = if let Ok(seconds) = text.parse() {
        Duration::from_secs(seconds)
    } else {
        let at = chrono::DateTime::parse_from_rfc2822(text).ok()?;
        (at.to_utc() - now).to_std().unwrap_or(Duration::ZERO)
    };
    Some(wait.min(WAIT_MAX))
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    fn read(text: &'static str) -> Option<Duration> {
        let now = Timestamp::from_timestamp(1_445_412_470, 0).unwrap();
        retry_after(&HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_static(text))]), now)
    }

    #[test]
    fn seconds_and_dates_are_read_and_anything_else_is_not() {
        assert_eq!(read("3"), Some(Duration::from_secs(3)));
        assert_eq!(read("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::from_secs(10)));
        assert_eq!(read("Wed, 21 Oct 2015 07:27:00 GMT"), Some(Duration::ZERO), "a date that has passed");
        assert_eq!(read("soon"), None);
        assert_eq!(read("-1"), None);
    }

    #[test]
    fn an_absurd_wait_is_cut() {
        assert_eq!(read("31536000"), Some(WAIT_MAX));
    }
}
