//! Where callbacks go.

use std::fmt;
use std::sync::Arc;

use url::Url;

use super::super::dice::Dice;

/// An address for callbacks: plain HTTP.
#[derive(Clone, PartialEq, Eq)]
pub struct CallbackUrl(Arc<Parts>);

#[derive(PartialEq, Eq)]
struct Parts {
    /// Without the brackets of an IPv6 address.
    host: String,
    port: u16,
    /// As in the header `Host`.
    authority: String,
    /// With the question, if there is one.
    path: String,
}

/// Why a text is no address for callbacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("give an address like http://127.0.0.1:9600/callbacks/sim: plain HTTP, since TLS is ended in front")]
pub struct NoCallbackUrl;

impl CallbackUrl {
    /// Reads an address.
    pub fn parse(text: &str) -> Result<Self, NoCallbackUrl> {
        let url = Url::parse(text).map_err(|_| NoCallbackUrl)?;
        let (Some(host), Some(port), "http") = (url.host_str(), url.port_or_known_default(), url.scheme()) else {
            return Err(NoCallbackUrl);
        };
        let authority = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        let path = url.query().map_or_else(|| url.path().to_owned(), |query| format!("{}?{query}", url.path()));
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok(Self(Arc::new(Parts { host, port, authority, path })))
    }

    pub(super) fn host(&self) -> &str {
        &self.0.host
    }

    pub(super) fn port(&self) -> u16 {
        self.0.port
    }

    pub(super) fn authority(&self) -> &str {
        &self.0.authority
    }

    pub(super) fn path(&self) -> &str {
        &self.0.path
    }

    /// The same with one character of its token changed: of the last part of the path, behind its
    /// last dot. Not the very last character, of which not every bit counts in base64. `None` where there is no token.
    pub(in super::super) fn with_a_wrong_token(&self, dice: &mut Dice) -> Option<Self> {
        let path = self.0.path.split_once('?').map_or(self.path(), |(path, _)| path);
        let begin = path.rfind(['/', '.'])? + 1;
        let token = path.get(begin..)?;
        let places: Vec<usize> = token.char_indices().map(|(at, _)| begin + at).collect();
        let (_, places) = places.split_last()?;
        let at = dice.pick(places)?;
        let old = self.0.path.get(at..)?.chars().next()?;
        let new = if old == 'A' { "B" } else { "A" };
        let mut path = self.0.path.clone();
        path.replace_range(at..at + old.len_utf8(), new);
        let Parts { host, port, authority, .. } = &*self.0;
        Some(Self(Arc::new(Parts { host: host.clone(), port: *port, authority: authority.clone(), path })))
    }
}

impl fmt::Debug for CallbackUrl {
    /// Without its path: whoever knows that can send callbacks.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CallbackUrl(http://{}/…)", self.0.authority)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_plain_http_and_keeps_its_question() {
        let url = CallbackUrl::parse("http://127.0.0.1:9600/callbacks/sim?a=b").unwrap();
        assert_eq!((url.host(), url.port(), url.path()), ("127.0.0.1", 9600, "/callbacks/sim?a=b"));
        let url = CallbackUrl::parse("http://[::1]").unwrap();
        assert_eq!((url.host(), url.port(), url.authority(), url.path()), ("::1", 80, "[::1]", "/"));
        for wrong in ["https://127.0.0.1/", "127.0.0.1:9600", "ftp://h/", "", "http://"] {
            assert_eq!(CallbackUrl::parse(wrong), Err(NoCallbackUrl), "{wrong}");
        }
        let secret = CallbackUrl::parse("http://h:1/callbacks/sim/order-1.1.token").unwrap();
        assert_eq!(format!("{secret:?}"), "CallbackUrl(http://h:1/…)");
    }

    #[test]
    fn one_character_of_a_token_is_changed_and_never_its_last() {
        let (right, places) = ("/callbacks/one/order-7.1.MAC-of-22-characters-", 0..200);
        let url = CallbackUrl::parse(&format!("http://h{right}?q=1")).unwrap();
        for n in places {
            let wrong = url.with_a_wrong_token(&mut Dice::new(1, "token", "r", n)).unwrap();
            let path = wrong.path().strip_suffix("?q=1").unwrap();
            let differing: Vec<usize> =
                (0..right.len()).filter(|at| path.as_bytes()[*at] != right.as_bytes()[*at]).collect();
            assert!(path.len() == right.len() && differing.len() == 1, "{path}");
            assert!((right.rfind('.').unwrap() + 1..right.len() - 1).contains(&differing[0]), "{path}");
        }
        let none = CallbackUrl::parse("http://h/").unwrap();
        assert_eq!(none.with_a_wrong_token(&mut Dice::new(1, "token", "r", 0)), None);
    }
}
