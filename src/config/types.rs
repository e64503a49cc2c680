//! Values that are text in the file and something stricter in the program.

use std::borrow::Cow;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The schema format of a duration; the layer reader checks it.
pub(super) const DURATION_FORMAT: &str = "human-duration";
/// The schema format of an address to listen on.
pub(super) const LISTEN_FORMAT: &str = "socket-address";

/// A hundred years.
const LONGEST: Duration = Duration::from_hours(100 * 366 * 24);

/// A duration as people write it: `"180s"`, `"30m"`, `"90d"`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Span(Duration);

impl Span {
    /// Takes a duration.
    pub const fn new(duration: Duration) -> Self {
        Self(duration)
    }

    /// So many seconds.
    pub const fn seconds(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// The duration.
    pub const fn get(self) -> Duration {
        self.0
    }

    /// Reads a text; `None` where it is none, or longer than anything lasts: what is reckoned from it must have room.
    pub fn parse(text: &str) -> Option<Self> {
        humantime::parse_duration(text).ok().filter(|duration| *duration <= LONGEST).map(Self)
    }
}

impl From<Duration> for Span {
    fn from(duration: Duration) -> Self {
        Self(duration)
    }
}

/// Units from large to small, in milliseconds.
const UNITS: [(u128, &str); 5] = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s"), (1, "ms")];

/// Writes a duration in the largest unit that divides it; minutes and above only if there are at
/// least `least` of them.
fn in_units(duration: Duration, least: u128) -> String {
    let millis = duration.as_millis();
    for (size, unit) in UNITS {
        let enough = size < 60_000 || millis / size >= least;
        if millis > 0 && millis.is_multiple_of(size) && enough {
            return format!("{}{unit}", millis / size);
        }
    }
    // Fractions of a millisecond, or nothing at all.
    if millis == 0 { format!("{}ms", duration.as_secs_f64() * 1000.0) } else { format!("{millis}ms") }
}

/// A delay tier's name in topics, consumer groups and labels: the largest unit that divides it.
pub fn tier_name(tier: Duration) -> String {
    in_units(tier, 1)
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // From four of a unit on: people say 180 s and 72 h, but 30 m and 90 d.
        f.write_str(&in_units(self.0, 4))
    }
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("not a duration such as \"180s\""))
    }
}

impl JsonSchema for Span {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Span".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": DURATION_FORMAT })
    }
}

/// An address to listen on: `"127.0.0.1:9400"`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Listen(pub SocketAddr);

impl Listen {
    /// Whether two listeners could not be opened side by side.
    pub fn collides_with(self, other: Self) -> bool {
        let (one, two) = (self.0, other.0);
        let same_host = one.ip() == two.ip() || one.ip().is_unspecified() || two.ip().is_unspecified();
        one.port() != 0 && one.port() == two.port() && same_host
    }

    /// A port of the loopback interface.
    pub const fn loopback(port: u16) -> Self {
        Self(SocketAddr::V4(std::net::SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, port)))
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Listen {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Listen {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map(Self).map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Listen {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Listen".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": LISTEN_FORMAT })
    }
}

/// Where the store is. A password in it (which only the environment may bring) is masked
/// wherever the value is shown.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct StoreUrl(String);

impl StoreUrl {
    /// Takes a URL.
    pub fn new(url: &str) -> Self {
        Self(url.to_owned())
    }

    /// The URL in clear, for the store's driver alone.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether none was given.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether it has the form of a database's address: without its slashes, what is meant for a password would be a path.
    pub(super) fn names_a_database(&self) -> bool {
        let known = |scheme: &str| matches!(scheme, "postgres" | "postgresql");
        let is_server = self.0.split_once("://").is_some_and(|(scheme, _)| known(&scheme.to_ascii_lowercase()));
        url::Url::parse(&self.0).is_ok_and(|url| if known(url.scheme()) { is_server } else { url.scheme() == "sqlite" })
    }

    /// Whether a password stands in it.
    pub fn has_password(&self) -> bool {
        url::Url::parse(&self.0).is_ok_and(|url| {
            url.password().is_some() || url.query_pairs().any(|(name, _)| name.eq_ignore_ascii_case("password"))
        })
    }

    /// The URL without its password. One that cannot be read is not shown at all.
    pub fn masked(&self) -> String {
        if self.0.is_empty() {
            return String::new();
        }
        let Ok(mut url) = url::Url::parse(&self.0) else { return "(unreadable)".to_owned() };
        if !self.has_password() {
            return if self.names_a_database() { self.0.clone() } else { "(unreadable)".to_owned() };
        }
        if url.password().is_some() && url.set_password(Some("****")).is_err() {
            return "(masked)".to_owned();
        }
        let kept: Vec<(String, String)> = url
            .query_pairs()
            .map(|(name, value)| {
                let shown = if name.eq_ignore_ascii_case("password") { "****".into() } else { value };
                (name.into_owned(), shown.into_owned())
            })
            .collect();
        if !kept.is_empty() {
            url.query_pairs_mut().clear().extend_pairs(kept);
        }
        url.to_string()
    }
}

impl fmt::Debug for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.masked())
    }
}

impl Serialize for StoreUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.masked())
    }
}

impl<'de> Deserialize<'de> for StoreUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self)
    }
}

impl JsonSchema for StoreUrl {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "StoreUrl".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_the_way_people_say_them() {
        for text in ["180s", "30m", "72h", "90d", "1s", "15s", "50ms", "90s"] {
            assert_eq!(Span::parse(text).map(|span| span.to_string()).as_deref(), Some(text));
        }
        assert_eq!(Span::parse("1m").map(|span| span.to_string()).as_deref(), Some("60s"));
        assert_eq!(Span::parse("180"), None);
        assert_eq!(Span::parse("fast"), None);
        assert!(Span::parse("100y").is_some());
        assert_eq!(Span::parse("18446744073709551615s"), None, "for ever");
    }

    #[test]
    fn a_tier_has_one_name_however_it_was_written() {
        let name = |text: &str| Span::parse(text).map(|span| tier_name(span.get()));
        assert_eq!(name("60s").as_deref(), Some("1m"));
        assert_eq!(name("1m").as_deref(), Some("1m"));
        assert_eq!(name("90s").as_deref(), Some("90s"));
        assert_eq!(name("30m").as_deref(), Some("30m"));
    }

    #[test]
    fn a_password_in_the_stores_url_is_never_shown() {
        for url in ["postgres://me:canary@db/r", "postgres://me@db/r?password=canary&sslmode=require"] {
            let url = StoreUrl::new(url);
            assert!(url.has_password());
            let shown = format!("{url:?} {}", serde_json::to_string(&url).unwrap());
            assert!(!shown.contains("canary"), "{shown}");
        }
        for url in ["postgres:/me:canary@db/r", "postgres:me:canary@db", "me:canary@db"] {
            let url = StoreUrl::new(url);
            assert!(!url.names_a_database() && url.masked() == "(unreadable)", "{url:?}");
        }
        let plain = StoreUrl::new("sqlite://recharged.db");
        assert_eq!(plain.masked(), "sqlite://recharged.db");
        assert!(!plain.has_password());
    }

    #[test]
    fn listeners_collide_on_the_same_port_of_the_same_or_any_host() {
        let at = |text: &str| Listen(text.parse().unwrap());
        assert!(at("127.0.0.1:9400").collides_with(at("0.0.0.0:9400")));
        assert!(!at("127.0.0.1:9400").collides_with(at("127.0.0.1:9401")));
        assert!(!at("127.0.0.1:0").collides_with(at("127.0.0.1:0")));
    }
}
