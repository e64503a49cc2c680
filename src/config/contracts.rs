//! What each kind of provider promises and forbids, by its own documents (`docs/PROVIDERS.md` has the sources).
//!
//! What a document leaves open is our guess, and may be corrected in the file as a contract tells more.

use std::time::Duration;

use super::{CapabilitiesConfig, Duplicates, ProviderKind, Span};
use crate::domain::{Capabilities, DuplicateSemantics, RefFormat};

const DAY: Duration = Duration::from_hours(24);

/// The contract of a kind, with nothing corrected.
pub(super) fn of(kind: ProviderKind, call_timeout: Duration) -> Capabilities {
    let simulator = Capabilities {
        duplicates: DuplicateSemantics::RejectsAlways,
        query_not_before: Duration::from_secs(2),
        query_min_interval: Duration::from_secs(5),
        query_retention: 30 * DAY,
        not_found_grace: Duration::from_mins(1),
        same_number_cooldown: None,
        client_ref: RefFormat { max_len: 64, alphanumeric_only: false },
        call_timeout,
        callback_settles: true,
    };
    match kind {
        ProviderKind::Simulator => simulator,
        // Asked by our reference at any time. Not before, interval and grace are not published.
        ProviderKind::Dtone => Capabilities {
            client_ref: RefFormat { max_len: 40, alphanumeric_only: false },
            callback_settles: false,
            ..simulator
        },
        // First asked after 60 s, then every 60 s; "not found" counts after minutes. How long orders can be asked
        // about is not published.
        ProviderKind::Mf178 => Capabilities {
            query_not_before: Duration::from_mins(1),
            query_min_interval: Duration::from_mins(1),
            query_retention: 7 * DAY,
            not_found_grace: Duration::from_mins(5),
            client_ref: RefFormat { max_len: 32, alphanumeric_only: true },
            callback_settles: false,
            ..simulator
        },
        // Reports go back for months; the same number is refused for two minutes.
        ProviderKind::Reloadly => {
            Capabilities { same_number_cooldown: Some(Duration::from_mins(2)), callback_settles: false, ..simulator }
        }
    }
}

impl CapabilitiesConfig {
    /// The contract with what is corrected here.
    pub(super) fn correct(&self, contract: &Capabilities) -> Capabilities {
        let span = |own: Option<Span>, other: Duration| own.map_or(other, Span::get);
        Capabilities {
            duplicates: self.duplicates.map_or(contract.duplicates, |duplicates| match duplicates {
                Duplicates::RejectsAlways => DuplicateSemantics::RejectsAlways,
                Duplicates::RejectsUnlessFailed => DuplicateSemantics::RejectsUnlessFailed,
                Duplicates::ReplaysResult => DuplicateSemantics::ReplaysResult,
                Duplicates::NotDeduplicated => DuplicateSemantics::NotDeduplicated,
            }),
            query_not_before: span(self.query_not_before, contract.query_not_before),
            query_min_interval: span(self.query_min_interval, contract.query_min_interval),
            query_retention: span(self.query_retention, contract.query_retention),
            not_found_grace: span(self.not_found_grace, contract.not_found_grace),
            same_number_cooldown: self.same_number_cooldown.map(Span::get).or(contract.same_number_cooldown),
            client_ref: RefFormat {
                max_len: self.client_ref_max_len.unwrap_or(contract.client_ref.max_len),
                alphanumeric_only: self.client_ref_alphanumeric_only.unwrap_or(contract.client_ref.alphanumeric_only),
            },
            call_timeout: contract.call_timeout,
            callback_settles: contract.callback_settles,
        }
    }
}
