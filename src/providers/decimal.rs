//! Amounts as providers write them: decimals of major units, `4.75` for 475 minor ones. Inside, money is whole minor
//! units; here is the only place where it is anything else, and no float is in between.

use crate::domain::{Currency, Money};

/// More digits than this are no amount of money.
const DIGITS_MAX: usize = 30;

/// How many decimals a currency has (ISO 4217); two where the standard does not know it.
fn decimals(currency: Currency) -> usize {
    let known = iso_currency::Currency::from_code(currency.as_str());
    known.and_then(iso_currency::Currency::exponent).map_or(2, usize::from)
}

/// An amount in major units, with as many decimals as it needs: `5`, `4.75`.
pub(super) fn to_decimal(amount: Money) -> String {
    let decimals = decimals(amount.currency);
    let digits = format!("{:0>width$}", amount.minor.unsigned_abs(), width = decimals + 1);
    let (whole, part) = digits.split_at(digits.len() - decimals);
    let sign = if amount.minor < 0 { "-" } else { "" };
    match part.trim_end_matches('0') {
        "" => format!("{sign}{whole}"),
        part => format!("{sign}{whole}.{part}"),
    }
}

/// Reads an amount in major units, as a JSON number or a text has it (`4.75`, `"4.75"`, `475e-2`). `None` where it is
/// none, or where it has a part of a minor unit.
pub(super) fn from_decimal(text: &str, currency: Currency) -> Option<Money> {
    let text = text.trim();
    let text = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text).trim();
    let (sign, text) = text.strip_prefix('-').map_or((1, text), |text| (-1, text));
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok().filter(|e| e.unsigned_abs() < 30)?),
        None => (text, 0),
    };
    let (whole, part) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all_digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !all_digits(whole) || !all_digits(part) || whole.len() + part.len() > DIGITS_MAX {
        return None;
    }
    let digits: i128 = format!("{whole}{part}").parse().ok()?;
    // The minor units are the digits, shifted by so many places.
    let shift = i32::try_from(decimals(currency)).ok()? + exponent - i32::try_from(part.len()).ok()?;
    let power = 10_i128.checked_pow(shift.unsigned_abs())?;
    let minor =
        if shift >= 0 { digits.checked_mul(power)? } else { (digits % power == 0).then_some(digits / power)? };
    Some(Money { minor: i64::try_from(sign * minor).ok()?, currency })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str, currency: &str) -> Option<i64> {
        from_decimal(text, Currency::parse(currency).unwrap()).map(|money| money.minor)
    }

    #[test]
    fn amounts_are_read_as_numbers_and_as_texts() {
        for (text, currency, minor) in [
            ("4.75", "USD", Some(475)),
            ("\"4.75\"", "USD", Some(475)),
            ("50", "CNY", Some(5_000)),
            ("50.0", "CNY", Some(5_000)),
            ("475e-2", "USD", Some(475)),
            ("5E+1", "CNY", Some(5_000)),
            ("-1.5", "USD", Some(-150)),
            ("1000", "JPY", Some(1_000)),
            ("1.234", "KWD", Some(1_234)),
            ("0.1", "USD", Some(10)),
            // A part of the least unit is no amount, nor is what only looks like a number.
            ("4.755", "USD", None),
            ("1.5", "JPY", None),
            ("", "USD", None),
            (".5", "USD", None),
            ("1,000.00", "USD", None),
            ("NaN", "USD", None),
            ("1e400", "USD", None),
            ("99999999999999999999", "USD", None),
            ("null", "USD", None),
        ] {
            assert_eq!(read(text, currency), minor, "{text} {currency}");
        }
    }

    proptest! {
        #[test]
        fn an_amount_reads_back_from_its_decimals(minor in any::<i64>(), which in 0_usize..3) {
            let currency = Currency::parse(["USD", "JPY", "KWD"][which]).unwrap();
            let money = Money { minor, currency };
            prop_assert_eq!(from_decimal(&to_decimal(money), currency), Some(money));
        }

        #[test]
        fn no_text_breaks_it(text in "[-0-9.eE\"+ ]{0,40}") {
            let _read = from_decimal(&text, Currency::parse("USD").unwrap());
        }
    }
}
