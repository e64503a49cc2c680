//! The few of librdkafka's statistics that are used.

use std::collections::HashMap;

use serde::Deserialize;

/// What the client knows of a partition; unknown where it says a negative number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct PartitionFacts {
    /// The end of the log.
    pub(super) high: Option<i64>,
    /// The beginning of the log.
    pub(super) low: Option<i64>,
    /// What the broker confirmed as committed.
    pub(super) committed: Option<i64>,
    /// What is fetched next; it passes transaction markers, which are never delivered.
    pub(super) fetched: Option<i64>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Statistics {
    #[serde(default)]
    topics: HashMap<String, TopicFigures>,
    cgrp: Option<GroupFigures>,
}

#[derive(Debug, Deserialize)]
struct TopicFigures {
    partitions: HashMap<i32, PartitionFigures>,
}

#[derive(Debug, Deserialize)]
struct PartitionFigures {
    #[serde(rename = "next_offset")]
    next: i64,
    #[serde(rename = "committed_offset")]
    committed: i64,
    #[serde(rename = "lo_offset")]
    low: i64,
    #[serde(rename = "hi_offset")]
    high: i64,
}

#[derive(Debug, Deserialize)]
struct GroupFigures {
    state: String,
    join_state: String,
}

impl Statistics {
    pub(super) fn parse(json: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(json)
    }

    /// Whether the group is settled, as the client sees it.
    pub(super) fn is_steady(&self) -> bool {
        self.cgrp.as_ref().is_some_and(|group| group.state == "up" && group.join_state == "steady")
    }

    pub(super) fn partitions(&self) -> impl Iterator<Item = (&str, i32, PartitionFacts)> {
        self.topics.iter().flat_map(|(topic, figures)| {
            figures.partitions.iter().map(|(partition, figures)| (topic.as_str(), *partition, figures.facts()))
        })
    }
}

impl PartitionFigures {
    fn facts(&self) -> PartitionFacts {
        let known = |offset: i64| (offset >= 0).then_some(offset);
        PartitionFacts {
            high: known(self.high),
            low: known(self.low),
            committed: known(self.committed),
            fetched: known(self.next),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_offsets_are_negative_and_unused_figures_are_ignored() {
        let json = br#"{"name":"x","topics":{"t":{"topic":"t","partitions":{"0":{"partition":0,"next_offset":7,
            "committed_offset":-1001,"lo_offset":0,"hi_offset":9},"-1":{"next_offset":0,"committed_offset":-1001,
            "lo_offset":-1001,"hi_offset":-1001}}}},"cgrp":{"state":"up","join_state":"steady","stateage":1}}"#;
        let statistics = Statistics::parse(json).unwrap();
        assert!(statistics.is_steady());
        let (_, _, facts) = statistics.partitions().find(|(_, partition, _)| *partition == 0).unwrap();
        assert_eq!(facts, PartitionFacts { high: Some(9), low: Some(0), committed: None, fetched: Some(7) });
    }
}
