//! Text of others, with whatever may be a phone number masked: for people who look at records that could not be read.

use super::msisdn::Msisdn;

/// Fewer digits than this are no phone number.
const DIGITS_MIN: usize = 7;
/// So many digits stay at the end, and at most so many at the beginning, as where a number masks itself.
const BACK: usize = 4;
const FRONT_MAX: usize = 5;

/// Masks every run of digits that is long enough for a phone number, with what people write between digits.
pub fn masked(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while let Some(first) = chars.get(at) {
        let length = chars.get(at..).map_or(0, run_length);
        let run = chars.get(at..at + length).unwrap_or_default();
        if run.is_empty() {
            out.push(*first);
            at += 1;
            continue;
        }
        mask_into(&mut out, run);
        at += length;
    }
    out
}

/// Masks a text that is an identifier, an amount or a time, only if all of it is a phone number.
pub fn masked_if_a_number(text: &str, region: Option<&str>) -> String {
    let is_number = Msisdn::from_e164(text.trim()).is_some()
        || Msisdn::parse(text, region).is_some()
        || Msisdn::parse(text, Some("CN")).is_some();
    if is_number { masked(text) } else { text.to_owned() }
}

/// How long the run of digits is that begins here, a `+` before it and single marks within it included.
fn run_length(chars: &[char]) -> usize {
    let mut end = usize::from(chars.first() == Some(&'+'));
    if !chars.get(end).is_some_and(|c| c.is_numeric()) {
        return 0;
    }
    loop {
        while chars.get(end).is_some_and(|c| c.is_numeric()) {
            end += 1;
        }
        // At most two marks: `) ` and ` (` stand in numbers, too.
        let marks = chars.iter().skip(end).take(3).take_while(|c| is_mark(**c)).count();
        if marks == 0 || marks > 2 || !chars.get(end + marks).is_some_and(|c| c.is_numeric()) {
            return end;
        }
        end += marks;
    }
}

fn is_mark(c: char) -> bool {
    matches!(c, '-' | '.' | '(' | ')' | '/' | '\u{2010}'..='\u{2015}') || (c.is_whitespace() && c != '\n')
}

fn mask_into(out: &mut String, run: &[char]) {
    let digits: Vec<char> = run.iter().copied().filter(|c| c.is_numeric()).collect();
    if digits.len() < DIGITS_MIN {
        out.extend(run);
        return;
    }
    if run.first() == Some(&'+') {
        out.push('+');
    }
    let front = digits.len().saturating_sub(8).min(FRONT_MAX);
    out.extend(digits.iter().take(front));
    out.push_str("****");
    out.extend(digits.iter().skip(digits.len() - BACK));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_number_is_masked_however_it_is_written_and_the_text_around_it_stays() {
        for (text, expected) in [
            ("+8613812345678", "+86138****5678"),
            ("call 138-1234-5678, now", "call 138****5678, now"),
            ("(010) 8765 4321", "(010****4321"),
            ("+86 (138) 1234.5678", "+86138****5678"),
            ("\u{ff11}\u{ff13}\u{ff18}12345678", "\u{ff11}\u{ff13}\u{ff18}****5678"),
            ("91234567", "****4567"),
            ("amount 5000 of 123456", "amount 5000 of 123456"),
            ("1\n3\n8\n1\n2\n3\n4", "1\n3\n8\n1\n2\n3\n4"),
            ("+", "+"),
            ("", ""),
        ] {
            assert_eq!(masked(text), expected, "{text}");
        }
    }

    #[test]
    fn an_identifier_is_masked_only_where_it_is_a_number() {
        for (text, expected) in [
            ("20260101-000017", "20260101-000017"),
            ("2026-01-05T08:00:00Z", "2026-01-05T08:00:00Z"),
            ("1900000000000", "1900000000000"),
            ("13812345678", "138****5678"),
            ("+8613812345678", "+86138****5678"),
        ] {
            assert_eq!(masked_if_a_number(text, None), expected, "{text}");
        }
        assert_eq!(masked_if_a_number("9123 4567", Some("SG")), "****4567");
    }

    proptest! {
        #[test]
        fn what_is_left_of_a_run_is_shorter_than_a_number(text in "[+0-9 ()a-z.-]{0,60}") {
            let shown = masked(&text);
            for run in shown.split(|c: char| !c.is_ascii_digit()) {
                prop_assert!(run.len() < DIGITS_MIN, "{} shows {}", shown, run);
            }
        }
    }
}
