//! mf178's signature: MD5 over all parameters but `sign` and `datas`, sorted by name, each followed by its value, and
//! the secret behind them.
//!
//! It is computed from the parameters that there are, never from a list of those that we know.

use std::fmt::Write as _;

use md5::{Digest, Md5};

use crate::providers::Secret;

/// Parameters that are not signed.
const UNSIGNED: [&str; 2] = ["sign", "datas"];

/// The signature of some parameters, 32 lowercase hexadecimal digits.
pub(in crate::providers) fn sign<'a>(
    parameters: impl IntoIterator<Item = (&'a str, &'a str)>,
    secret: &Secret,
) -> String {
    let mut signed: Vec<_> = parameters.into_iter().filter(|(name, _)| !UNSIGNED.contains(name)).collect();
    signed.sort_unstable();
    let mut hash = Md5::new();
    for (name, value) in signed {
        hash.update(name);
        hash.update(value);
    }
    hash.update(secret.expose());
    let mut text = String::with_capacity(32);
    for byte in hash.finalize() {
        // Writing to a string cannot fail.
        write!(text, "{byte:02x}").unwrap_or_default();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_signed_in_the_order_of_their_names_without_sign_and_datas() {
        let secret = Secret::new("s3cret");
        let sorted = [("app_key", "a"), ("third_id", "R1"), ("timestamp", "1767600000")];
        // printf 'app_keyathird_idR1timestamp1767600000s3cret' | md5sum
        let expected = "83f1e87a0e35cd6f966eb960a28baa7d";
        let mut shuffled = vec![("timestamp", "1767600000"), ("sign", "x"), ("third_id", "R1")];
        shuffled.extend([("datas", "{}"), ("app_key", "a")]);
        assert_eq!(sign(sorted, &secret), sign(shuffled, &secret));
        assert_eq!(sign(sorted, &secret), expected);
        assert_ne!(sign([("app_key", "b"), ("third_id", "R1"), ("timestamp", "1767600000")], &secret), expected);
    }
}
