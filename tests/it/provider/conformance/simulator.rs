//! Our own protocol; its documented answers are in `../adapter.rs`.

use recharged::providers::ProviderKind;

use super::Contender;

pub(super) const CONTENDER: Contender = Contender {
    kind: ProviderKind::Simulator,
    before: &[],
    undocumented: ("422 Unprocessable Content", r#"{"status":"rejected","code":"E-9917"}"#),
};
