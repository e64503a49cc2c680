//! How values stand in a profile file.

/// Durations as text: `"20ms"`.
pub(super) mod duration_text {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(in super::super) fn serialize<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_duration(*value))
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(deserializer)?;
        humantime::parse_duration(&text).map_err(serde::de::Error::custom)
    }
}

/// The same, where there may be none.
pub(super) mod optional_duration {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serialize as _, Serializer};

    #[expect(clippy::ref_option, reason = "the shape that serde asks for")]
    pub(in super::super) fn serialize<S: Serializer>(
        value: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        value.map(|wait| humantime::format_duration(wait).to_string()).serialize(serializer)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| humantime::parse_duration(&text)).transpose().map_err(serde::de::Error::custom)
    }
}

/// A list of durations as text: `["3s", "1m"]`.
pub(super) mod durations_text {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(in super::super) fn serialize<S: Serializer>(value: &[Duration], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(value.iter().map(|wait| humantime::format_duration(*wait).to_string()))
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Duration>, D::Error> {
        let texts = Vec::<String>::deserialize(deserializer)?;
        let waits = texts.iter().map(|text| humantime::parse_duration(text));
        waits.collect::<Result<_, _>>().map_err(serde::de::Error::custom)
    }
}

/// Names in the style of the rest of the file.
pub(super) mod duplicates_text {
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::domain::DuplicateSemantics;

    const NAMES: [(DuplicateSemantics, &str); 4] = [
        (DuplicateSemantics::RejectsAlways, "rejects_always"),
        (DuplicateSemantics::RejectsUnlessFailed, "rejects_unless_failed"),
        (DuplicateSemantics::ReplaysResult, "replays_result"),
        (DuplicateSemantics::NotDeduplicated, "not_deduplicated"),
    ];

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "the shape that serde asks for")]
    pub(in super::super) fn serialize<S: Serializer>(
        value: &DuplicateSemantics,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let name = NAMES.iter().find(|(known, _)| known == value).map_or("", |(_, name)| name);
        serializer.serialize_str(name)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<DuplicateSemantics, D::Error> {
        let text = String::deserialize(deserializer)?;
        NAMES.iter().find(|(_, name)| *name == text).map(|(value, _)| *value).ok_or_else(|| {
            serde::de::Error::unknown_variant(
                &text,
                &["rejects_always", "rejects_unless_failed", "replays_result", "not_deduplicated"],
            )
        })
    }
}
