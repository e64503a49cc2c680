//! Text that must not be printed.

use std::fmt;

/// A provider's key. Masked wherever it is printed; read in clear only through `expose()`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes a key as read from its file or environment; a trailing line end is not part of it.
    pub fn new(text: &str) -> Self {
        Self(text.trim_end_matches(['\r', '\n']).to_owned())
    }

    /// The key in clear, for the request that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(****)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_masked_in_debug_and_loses_only_its_line_end() {
        let secret = Secret::new(" s3cret \r\n");
        assert_eq!(secret.expose(), " s3cret ");
        assert_eq!(format!("{secret:?}"), "Secret(****)");
    }
}
