//! The few of librdkafka's statistics that are used, by consumers and producers.

use std::collections::HashMap;
use std::time::Duration;

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

/// A broker that owes an answer and has said nothing for this long does not answer: fetches are
/// answered after half a second at the latest.
const SILENT: Duration = Duration::from_millis(2_500);

#[derive(Debug, Deserialize)]
pub(super) struct Statistics {
    #[serde(default)]
    brokers: HashMap<String, BrokerFigures>,
    #[serde(default)]
    topics: HashMap<String, TopicFigures>,
    cgrp: Option<GroupFigures>,
}

#[derive(Debug, Deserialize)]
struct BrokerFigures {
    source: String,
    state: String,
    #[serde(rename = "waitresp_cnt")]
    awaited: i64,
    /// Microseconds since it last said something on this connection; negative for never.
    #[serde(rename = "rxidle")]
    silent_micros: i64,
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

    /// For how long at least no broker has answered; `None` if one does. One that is connected and
    /// owes nothing is given the benefit of the doubt, unless another one owes and is silent.
    pub(super) fn silence(&self) -> Option<Duration> {
        let steady = self.is_steady();
        let connected = || self.brokers.values().filter(|broker| broker.is_connected());
        // While members join, their coordinator may take as long as the slowest of them.
        let is_silent = |broker: &BrokerFigures| broker.is_silent() && (steady || broker.source != "logical");
        if connected().any(BrokerFigures::spoke_lately) {
            None
        } else if connected().any(is_silent) {
            Some(SILENT)
        } else {
            connected().next().is_none().then_some(Duration::ZERO)
        }
    }

    /// Whether there is a broker that the client could ask. It can forget all, those of its settings
    /// included: then its coordinator, a name without an address, is all that is left.
    pub(super) fn knows_a_broker(&self) -> bool {
        self.brokers.values().any(|broker| matches!(broker.source.as_str(), "configured" | "learned"))
    }

    pub(super) fn partitions(&self) -> impl Iterator<Item = (&str, i32, PartitionFacts)> {
        self.topics.iter().flat_map(|(topic, figures)| {
            figures.partitions.iter().map(|(partition, figures)| (topic.as_str(), *partition, figures.facts()))
        })
    }
}

impl BrokerFigures {
    fn is_connected(&self) -> bool {
        matches!(self.state.as_str(), "UP" | "REAUTH")
    }

    fn spoke_lately(&self) -> bool {
        u64::try_from(self.silent_micros).is_ok_and(|micros| Duration::from_micros(micros) <= SILENT)
    }

    fn is_silent(&self) -> bool {
        self.awaited > 0 && self.silent_micros >= 0 && !self.spoke_lately()
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

    fn answers(join_state: &str, brokers: &[(&str, &str, i64, i64)]) -> bool {
        let broker = |(name, (source, state, awaited, silent)): (usize, &(&str, &str, i64, i64))| {
            format!(
                r#""{name}":{{"nodeid":1,"source":"{source}","state":"{state}","waitresp_cnt":{awaited},"rxidle":{silent}}}"#
            )
        };
        let brokers: Vec<String> = brokers.iter().enumerate().map(broker).collect();
        let json =
            format!(r#"{{"brokers":{{{}}},"cgrp":{{"state":"up","join_state":"{join_state}"}}}}"#, brokers.join(","));
        Statistics::parse(json.as_bytes()).unwrap().silence().is_none()
    }

    #[test]
    fn a_broker_answers_while_one_is_connected_and_none_that_owes_an_answer_is_silent() {
        const SECOND: i64 = 1_000_000;
        let down = ("learned", "TRY_CONNECT", 0, -1);
        assert!(!answers("steady", &[]));
        assert!(!answers("steady", &[down, ("learned", "APIVERSION_QUERY", 1, -1)]));
        assert!(answers("steady", &[down, ("learned", "UP", 1, SECOND / 5)]));
        assert!(answers("steady", &[down, ("learned", "REAUTH", 1, SECOND / 5)]));
        // Idle: a bootstrap connection of which nothing is asked.
        let idle = ("configured", "UP", 0, 60 * SECOND);
        assert!(answers("steady", &[idle]));
        // Hanging: a fetch is not answered, and neither are heartbeats.
        let fetch = ("learned", "UP", 1, 4 * SECOND);
        assert!(!answers("steady", &[idle, fetch]));
        assert!(answers("steady", &[fetch, ("learned", "UP", 1, SECOND / 5)]), "another one answers");
        let coordinator = ("logical", "UP", 1, 4 * SECOND);
        assert!(!answers("steady", &[idle, coordinator]));
        assert!(answers("wait-join", &[idle, coordinator]), "others are still joining");
    }

    #[test]
    fn a_client_that_has_forgotten_its_brokers_still_has_a_coordinator_without_address() {
        let known = |sources: &[&str]| {
            let broker = |(name, source): (usize, &&str)| {
                format!(r#""{name}":{{"source":"{source}","state":"DOWN","waitresp_cnt":0,"rxidle":-1}}"#)
            };
            let brokers: Vec<String> = sources.iter().enumerate().map(broker).collect();
            let json = format!(r#"{{"brokers":{{{}}}}}"#, brokers.join(","));
            Statistics::parse(json.as_bytes()).unwrap().knows_a_broker()
        };
        assert!(!known(&["logical", "internal"]));
        assert!(known(&["logical", "configured"]));
        assert!(known(&["learned"]));
        assert!(!Statistics::parse(b"{}").unwrap().knows_a_broker());
    }
}
