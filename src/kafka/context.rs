//! What librdkafka tells: log lines to `tracing`, errors remembered for those who ask why.

use std::sync::Mutex;

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::options::Scrubber;
use super::sync::lock;

/// The last error that a client told of.
#[derive(Debug, Clone)]
pub(super) struct Told {
    pub(super) code: Option<RDKafkaErrorCode>,
    pub(super) text: String,
}

/// The ears that every client has.
#[derive(Debug, Default)]
pub(super) struct Listener {
    scrubber: Scrubber,
    last: Mutex<Option<Told>>,
}

impl Listener {
    pub(super) fn new(scrubber: Scrubber) -> Self {
        Self { scrubber, last: Mutex::new(None) }
    }

    pub(super) fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        let message = self.scrubber.clean(message);
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical | RDKafkaLogLevel::Error => {
                tracing::error!(target: "librdkafka", facility, "{message}");
            }
            // Chosen with open eyes, and nothing that whoever runs the service could change.
            RDKafkaLogLevel::Warning if facility == "CONFWARN" && message.contains("is experimental") => {
                tracing::debug!(target: "librdkafka", facility, "{message}");
            }
            RDKafkaLogLevel::Warning => tracing::warn!(target: "librdkafka", facility, "{message}"),
            RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => {
                tracing::info!(target: "librdkafka", facility, "{message}");
            }
            RDKafkaLogLevel::Debug => tracing::debug!(target: "librdkafka", facility, "{message}"),
        }
    }

    /// An error of the client as a whole. Most are passing: a broker went away, a name did not
    /// resolve. So it is a warning, and what is fatal is found out elsewhere.
    pub(super) fn error(&self, error: &KafkaError, reason: &str) {
        let text = self.scrubber.clean(reason);
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown) {
            // It says less than what came before it, again at every attempt to connect.
            tracing::debug!(target: "librdkafka", "{error}: {text}");
            return;
        }
        tracing::warn!(target: "librdkafka", "{error}: {text}");
        *lock(&self.last) = Some(Told { code: error.rdkafka_error_code(), text });
    }

    /// The last error; it may be long over.
    pub(super) fn last(&self) -> Option<Told> {
        lock(&self.last).clone()
    }

    pub(super) fn clean(&self, text: &str) -> String {
        self.scrubber.clean(text)
    }
}
