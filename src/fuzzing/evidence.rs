//! What a provider's words prove, by its documents alone: the codes are written down here once more. An adapter that
//! makes more of a body than is found here has guessed.

use super::document::Document;
use super::world::{REFERENCE, THEIRS};
use crate::domain::Failure;

/// A whole answer, as far as it can be evidence.
#[derive(Debug, Clone, Copy)]
pub(super) struct Answer<'a> {
    pub(super) status: u16,
    pub(super) body: &'a [u8],
}

impl Answer<'_> {
    pub(super) fn is_good(self) -> bool {
        (200..300).contains(&self.status)
    }

    fn document(self) -> Option<Document> {
        Document::of(self.body)
    }

    /// Where the body decides nothing, the status may say that it is our login.
    pub(super) fn refuses_the_login(self, failure: &Failure) -> bool {
        [401, 403].contains(&self.status) && failure.code == self.status.to_string()
    }
}

/// What a provider can say that ends something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Word<'a> {
    Delivered,
    TakenBack,
    Taken,
    /// Not delivered, and why.
    Refused(&'a str),
    KnownAlready,
    NotFound,
    TooFast,
    UnknownToThem,
}

pub(super) mod simulator {
    use super::{Answer, Document, Word};

    const REFUSALS: [&str; 10] = [
        "invalid_recipient",
        "recipient_barred",
        "amount_not_allowed",
        "limit_reached",
        "cooldown_active",
        "operator_unavailable",
        "insufficient_float",
        "unauthorized",
        "declined",
        "cancelled",
    ];

    pub(in crate::fuzzing) fn says(answer: Answer<'_>, word: Word<'_>) -> bool {
        answer.document().is_some_and(|document| tells(&document, word))
    }

    pub(in crate::fuzzing) fn tells(document: &Document, word: Word<'_>) -> bool {
        let (status, code) = (document.text("status"), document.text("code"));
        let is = |text: &str| status.as_deref() == Some(text);
        let only_code = |text: &str| !document.has("status") && code.as_deref() == Some(text);
        match word {
            Word::Delivered => is("succeeded"),
            Word::TakenBack => is("reversed"),
            Word::Taken => is("accepted"),
            Word::Refused(why) => is("rejected") && code.as_deref() == Some(why) && REFUSALS.contains(&why),
            Word::KnownAlready => only_code("duplicate"),
            Word::NotFound => only_code("not_found"),
            Word::TooFast => only_code("throttled") || only_code("banned"),
            Word::UnknownToThem => is("unknown"),
        }
    }
}

pub(super) mod dtone {
    use super::{Answer, Document, REFERENCE, Word};

    const REFUSALS: [i128; 12] = [
        1_000_400, 1_000_401, 1_003_001, 1_003_002, 1_003_003, 1_005_003, 1_005_004, 1_005_005, 1_005_006, 1_006_001,
        1_006_009, 1_007_500,
    ];
    const PARTIES: [&str; 6] = [
        "-INVALID-CREDIT-PARTY",
        "-BARRED-CREDIT-PARTY",
        "-INELIGIBLE-CREDIT-PARTY",
        "-INVALID-DEBIT-PARTY",
        "-BARRED-DEBIT-PARTY",
        "-OPERATOR-CURRENTLY-UNAVAILABLE",
    ];

    fn class(transaction: &Document) -> Option<String> {
        transaction.below("status")?.below("class")?.text("message")
    }

    fn codes(document: &Document) -> Vec<i128> {
        let errors = document.list("errors").unwrap_or_default();
        errors.iter().filter_map(|error| error.number("code")).collect()
    }

    fn is_end(why: &str) -> bool {
        let own = ["REJECTED", "DECLINED", "CANCELLED", "DECLINED-OTHER", "DECLINED-EXCEPTION"];
        let only = ["REJECTED-INSUFFICIENT-BALANCE", "DECLINED-DUPLICATED-TRANSACTION"];
        let rest = why.strip_prefix("REJECTED").or_else(|| why.strip_prefix("DECLINED"));
        let is_limit = rest.and_then(|rest| rest.strip_prefix("-LIMITATIONS-ON-")).is_some_and(|rest| {
            let (whom, what) = rest.rsplit_once('-').unwrap_or_default();
            ["OPERATOR", "CREDIT-PARTY", "CUSTOMER"].contains(&whom) && ["AMOUNT", "QUANTITY"].contains(&what)
        });
        own.contains(&why) || only.contains(&why) || is_limit || rest.is_some_and(|rest| PARTIES.contains(&rest))
    }

    pub(in crate::fuzzing) fn tells(transaction: &Document, word: Word<'_>) -> bool {
        let class = class(transaction);
        let is = |names: &[&str]| class.as_deref().is_some_and(|class| names.contains(&class));
        match word {
            Word::Delivered => is(&["COMPLETED"]),
            Word::TakenBack => is(&["REVERSED"]),
            Word::Taken => is(&["CREATED", "CONFIRMED", "SUBMITTED"]),
            Word::Refused(why) => is(&["REJECTED", "DECLINED", "CANCELLED"]) && is_end(why),
            Word::KnownAlready | Word::NotFound | Word::TooFast | Word::UnknownToThem => false,
        }
    }

    fn refuses(answer: Answer<'_>, word: Word<'_>) -> bool {
        let codes = answer.document().map(|document| codes(&document)).unwrap_or_default();
        match word {
            Word::Refused(why) => {
                REFUSALS.iter().any(|code| codes.contains(code) && code.to_string() == why)
                    && !codes.contains(&1_007_001)
            }
            Word::KnownAlready => codes.contains(&1_007_001),
            Word::NotFound => codes == [1_008_004],
            Word::TooFast => codes.contains(&1_000_429),
            Word::Delivered | Word::TakenBack | Word::Taken | Word::UnknownToThem => false,
        }
    }

    fn is_ours(transaction: &Document) -> bool {
        transaction.text("external_id").as_deref() == Some(REFERENCE)
    }

    pub(in crate::fuzzing) fn submit_says(answer: Answer<'_>, word: Word<'_>) -> bool {
        let created = answer.document().filter(|one| answer.is_good() && is_ours(one));
        created.is_some_and(|one| tells(&one, word)) || refuses(answer, word)
    }

    pub(in crate::fuzzing) fn query_says(answer: Answer<'_>, word: Word<'_>) -> bool {
        let found = Document::list_of(answer.body).filter(|_| answer.is_good());
        let is_empty = found.as_ref().is_some_and(Vec::is_empty);
        let one = answer.document().filter(|_| answer.is_good());
        let mut ours = found.into_iter().flatten().chain(one).filter(is_ours);
        let by_code = !matches!(word, Word::Refused(_)) && refuses(answer, word);
        ours.any(|one| tells(&one, word)) || by_code || (word == Word::NotFound && is_empty)
    }

    /// Whether it tells that a transaction is cancelled.
    pub(in crate::fuzzing) fn cancelled(answer: Answer<'_>) -> bool {
        let Some(document) = answer.document() else { return false };
        let is_cancelled = answer.is_good() && class(&document).as_deref() == Some("CANCELLED");
        is_cancelled || codes(&document).contains(&1_007_005)
    }
}

pub(super) mod mf178 {
    use super::{Answer, Document, REFERENCE, Word};

    const REFUSALS: [i128; 9] = [10_001, 10_002, 10_003, 10_004, 10_005, 10_006, 10_011, 10_012, 10_014];

    pub(in crate::fuzzing) fn tells(state: i128, word: Word<'_>) -> bool {
        match word {
            Word::Delivered => state == 3,
            Word::Taken => [1, 2, 11, 12].contains(&state),
            Word::Refused(why) => [4, 6].contains(&state) && why == format!("state_{state}"),
            Word::UnknownToThem => state == 41,
            Word::TakenBack | Word::KnownAlready | Word::NotFound | Word::TooFast => false,
        }
    }

    fn state(answer: Answer<'_>, document: &Document) -> Option<i128> {
        let order = document.below("data").filter(|_| answer.is_good() && document.number("code") == Some(0))?;
        let is_ours = order.text("third_id").is_none_or(|reference| reference == REFERENCE);
        order.number("state").filter(|_| is_ours)
    }

    pub(in crate::fuzzing) fn submit_says(answer: Answer<'_>, word: Word<'_>) -> bool {
        let Some(document) = answer.document() else { return false };
        let code = document.number("code");
        let by_code = match word {
            Word::Refused(why) => REFUSALS.iter().any(|known| code == Some(*known) && known.to_string() == why),
            Word::KnownAlready => code == Some(10_010),
            Word::TooFast => code == Some(10_016),
            // They look into it by hand: they have it.
            Word::Taken => state(answer, &document) == Some(41),
            Word::Delivered | Word::TakenBack | Word::NotFound | Word::UnknownToThem => false,
        };
        by_code || state(answer, &document).is_some_and(|state| tells(state, word))
    }

    pub(in crate::fuzzing) fn query_says(answer: Answer<'_>, word: Word<'_>) -> bool {
        let Some(document) = answer.document() else { return false };
        let by_code = match word {
            Word::NotFound => document.number("code") == Some(10_015),
            Word::TooFast => document.number("code") == Some(10_016),
            _ => false,
        };
        by_code || state(answer, &document).is_some_and(|state| tells(state, word))
    }
}

pub(super) mod reloadly {
    use super::{Answer, Document, REFERENCE, THEIRS, Word};

    const REFUSALS: [&str; 8] = [
        "INVALID_RECIPIENT_PHONE",
        "INVALID_AMOUNT_FOR_OPERATOR",
        "COUNTRY_NOT_SUPPORTED",
        "OPERATOR_UNAVAILABLE_OR_CURRENTLY_INACTIVE",
        "TRANSACTION_CANNOT_BE_PROCESSED_AT_THE_MOMENT",
        "INSUFFICIENT_BALANCE",
        "PHONE_RECENTLY_RECHARGED",
        "TOKEN_EXPIRED",
    ];

    pub(in crate::fuzzing) fn tells(status: &str, word: Word<'_>) -> bool {
        match word {
            Word::Delivered => status == "SUCCESSFUL",
            Word::Taken => ["PROCESSING", "PENDING"].contains(&status),
            Word::Refused(why) => ["FAILED", "REFUNDED"].contains(&status) && why == status,
            _ => false,
        }
    }

    pub(in crate::fuzzing) fn submit_says(answer: Answer<'_>, word: Word<'_>) -> bool {
        let Some(document) = answer.document() else { return false };
        let code = document.text("errorCode");
        let code = code.as_deref();
        match word {
            Word::Taken => answer.is_good() && document.number("transactionId").is_some(),
            // The daily limits are documented by the beginning of their names alone.
            Word::Refused(why) if why.starts_with("MAX_DAILY_") => {
                code.is_some_and(|code| code == why || why == "MAX_DAILY_" && code.starts_with(why))
            }
            Word::Refused(why) => code == Some(why) && REFUSALS.contains(&why),
            Word::KnownAlready => code == Some("CUSTOM_IDENTIFIER_ALREADY_USED"),
            _ => false,
        }
    }

    /// Of the report that is asked for by our reference.
    pub(in crate::fuzzing) fn report_says(answer: Answer<'_>, word: Word<'_>) -> bool {
        let content = answer.document().filter(|_| answer.is_good()).and_then(|document| document.list("content"));
        let Some(content) = content else { return false };
        if word == Word::NotFound {
            return content.is_empty();
        }
        let is_ours = |one: &&Document| one.text("customIdentifier").as_deref() == Some(REFERENCE);
        content.iter().filter(is_ours).any(|one| one.text("status").is_some_and(|status| tells(&status, word)))
    }

    /// Of the status that is asked for by their number.
    pub(in crate::fuzzing) fn status_says(answer: Answer<'_>, word: Word<'_>) -> bool {
        let Some(document) = answer.document().filter(|_| answer.is_good()) else { return false };
        let is_ours = document.below("transaction").is_none_or(|one| {
            let reference = one.text("customIdentifier").is_none_or(|reference| reference == REFERENCE);
            reference && one.number("transactionId").is_none_or(|number| number.to_string() == THEIRS)
        });
        is_ours && document.text("status").is_some_and(|status| tells(&status, word))
    }
}
