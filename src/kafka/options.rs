//! How to reach the brokers, and what every client has in common.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use rdkafka::ClientConfig;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};

use super::KafkaError;

/// Properties on which the guarantees of this module rest, and what decides them instead.
const RESERVED: [(&str, &str); 14] = [
    ("bootstrap.servers", "the brokers have a key of their own"),
    ("metadata.broker.list", "the brokers have a key of their own"),
    ("client.id", "it follows from the process's name"),
    ("group.id", "it follows from the role"),
    ("group.instance.id", "it follows from the process's name"),
    ("group.protocol", "only the classic protocol is supported: see docs/adr/0200"),
    ("enable.auto.commit", "offsets are committed once records are durable, never by a timer"),
    ("enable.auto.offset.store", "offsets are committed once records are durable, never by a timer"),
    ("statistics.interval.ms", "commits and lag are watched by it"),
    ("allow.auto.create.topics", "topics are made by `recharged topics create`"),
    ("enable.idempotence", "the producer is always idempotent"),
    ("acks", "every write waits for all in-sync replicas"),
    ("request.required.acks", "every write waits for all in-sync replicas"),
    ("transactional.id", "transactions are not used"),
];

/// How to reach the brokers.
#[derive(Clone, Default)]
pub struct KafkaOptions {
    /// `host:port`, several by commas.
    pub brokers: String,
    /// Any other librdkafka setting: `security.protocol`, `sasl.*`, `ssl.*` and the like.
    pub properties: BTreeMap<String, String>,
    /// The process's lasting name, where it has one; it makes static group membership possible.
    pub process_name: Option<String>,
    /// What brokers show in their logs and quotas.
    pub client_id: String,
}

impl KafkaOptions {
    /// Options without security, for brokers on a trusted network.
    pub fn plain(brokers: impl Into<String>, client_id: impl Into<String>) -> Self {
        Self { brokers: brokers.into(), properties: BTreeMap::new(), process_name: None, client_id: client_id.into() }
    }

    /// The `group.instance.id` of a role's consumer, if the process has a lasting name.
    pub fn static_id(&self, role: &str, index: usize) -> Option<String> {
        self.process_name.as_ref().map(|name| format!("{name}-{role}-{index}"))
    }

    /// A client's settings: what all share, then the client's own defaults, then the user's
    /// properties over both.
    pub(super) fn config(&self, defaults: &[(&str, &str)]) -> Result<ClientConfig, KafkaError> {
        for (key, why) in RESERVED {
            if self.properties.contains_key(key) {
                return Err(KafkaError::Reserved { key: key.to_owned(), why });
            }
        }
        let mut config = ClientConfig::new();
        config
            .set_log_level(RDKafkaLogLevel::Info)
            .set("bootstrap.servers", &self.brokers)
            .set("client.id", &self.client_id)
            .set("socket.keepalive.enable", "true")
            // The default of a minute hides a broker that vanished without a word.
            .set("socket.timeout.ms", "10000")
            .set("reconnect.backoff.ms", "100")
            .set("reconnect.backoff.max.ms", "1000")
            .set("topic.metadata.refresh.interval.ms", "30000")
            .set("log.connection.close", "false");
        if self.wants_tls() && !self.names_a_ca() {
            // The OpenSSL that is built in does not know where this system keeps its authorities.
            config.set("ssl.ca.location", "probe");
        }
        for (key, value) in defaults {
            config.set(*key, *value);
        }
        for (key, value) in &self.properties {
            config.set(key, value);
        }
        Ok(config)
    }

    pub(super) fn scrubber(&self) -> Scrubber {
        let secrets = self.properties.iter().filter(|(key, value)| is_secret(key) && !value.is_empty());
        Scrubber { secrets: secrets.map(|(_, value)| value.clone()).collect() }
    }

    fn wants_tls(&self) -> bool {
        let protocol = self.properties.get("security.protocol");
        protocol.is_some_and(|protocol| protocol.to_ascii_lowercase().contains("ssl"))
    }

    fn names_a_ca(&self) -> bool {
        ["ssl.ca.location", "ssl.ca.pem", "ssl.ca.certificate.stores"]
            .iter()
            .any(|key| self.properties.contains_key(*key))
    }
}

impl fmt::Debug for KafkaOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown: BTreeMap<&str, &str> = self
            .properties
            .iter()
            .map(|(key, value)| (key.as_str(), if is_secret(key) { "***" } else { value.as_str() }))
            .collect();
        f.debug_struct("KafkaOptions")
            .field("brokers", &self.brokers)
            .field("properties", &shown)
            .field("process_name", &self.process_name)
            .field("client_id", &self.client_id)
            .finish()
    }
}

/// Makes a client; what librdkafka says against the settings is told without their secrets.
pub(super) fn create<T, C>(config: &ClientConfig, context: C, scrubber: &Scrubber) -> Result<T, KafkaError>
where
    T: FromClientConfigAndContext<C>,
    C: rdkafka::ClientContext,
{
    T::from_config_and_context(config, context).map_err(|error| {
        let rdkafka::error::KafkaError::ClientConfig(_, description, key, _) = error else {
            return KafkaError::Client { reason: scrubber.clean(&error.to_string()) };
        };
        let reason = if is_secret(&key) { "the value is not valid".to_owned() } else { scrubber.clean(&description) };
        KafkaError::Property { key, reason }
    })
}

/// Whether a property's value must never be shown.
pub fn is_secret(key: &str) -> bool {
    key.contains("password")
        || key.contains("secret")
        || key.contains("jaas")
        || key.contains("token")
        || key.ends_with("key.pem")
        || key == "sasl.oauthbearer.config"
}

/// Takes the values of secret properties out of text that others wrote.
#[derive(Clone, Default)]
pub(super) struct Scrubber {
    secrets: Arc<[String]>,
}

impl Scrubber {
    pub(super) fn clean(&self, text: &str) -> String {
        self.secrets.iter().fold(text.to_owned(), |text, secret| {
            if text.contains(secret.as_str()) { text.replace(secret.as_str(), "***") } else { text }
        })
    }
}

impl fmt::Debug for Scrubber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Scrubber({} secrets)", self.secrets.len())
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::producer::{BaseProducer, DefaultProducerContext};

    use super::*;

    fn with(properties: &[(&str, &str)]) -> KafkaOptions {
        let mut options = KafkaOptions::plain("127.0.0.1:1", "test");
        options.properties = properties.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        options
    }

    fn make(options: &KafkaOptions) -> Result<BaseProducer, KafkaError> {
        create(&options.config(&[])?, DefaultProducerContext, &options.scrubber())
    }

    #[test]
    fn a_property_that_guarantees_rest_on_is_refused() {
        for (key, _) in RESERVED {
            let error = with(&[(key, "x")]).config(&[]).unwrap_err();
            assert!(matches!(error, KafkaError::Reserved { key: found, .. } if found == key));
        }
    }

    #[test]
    fn secrets_are_shown_neither_by_debug_nor_by_errors() {
        let canary = "canary-7f3a";
        let keys = ["sasl.password", "ssl.key.password", "ssl.key.pem", "sasl.oauthbearer.client.secret"];
        for key in keys {
            let options =
                with(&[("security.protocol", "sasl_ssl"), ("sasl.mechanism", "SCRAM-SHA-512"), (key, canary)]);
            assert!(!format!("{options:?}").contains(canary), "{key}");
            if let Err(error) = make(&options).map(drop) {
                assert!(!format!("{error} {error:?}").contains(canary), "{key}: {error}");
            }
        }
        let scrubber = with(&[("sasl.password", canary)]).scrubber();
        assert_eq!(scrubber.clean("said canary-7f3a twice: canary-7f3a"), "said *** twice: ***");
    }

    #[test]
    fn an_unknown_property_is_named() {
        let error = make(&with(&[("no.such.setting", "1")])).map(drop).unwrap_err();
        assert!(error.to_string().contains("`no.such.setting`"), "{error}");
    }

    #[test]
    fn tls_and_scram_are_compiled_in_and_the_system_s_authorities_are_the_default() {
        let options = with(&[
            ("security.protocol", "SASL_SSL"),
            ("sasl.mechanism", "SCRAM-SHA-512"),
            ("sasl.username", "u"),
            ("sasl.password", "p"),
        ]);
        assert_eq!(options.config(&[]).unwrap().get("ssl.ca.location"), Some("probe"));
        drop(make(&options).unwrap());
        let named = with(&[("security.protocol", "ssl"), ("ssl.ca.location", "/ca.pem")]);
        assert_eq!(named.config(&[]).unwrap().get("ssl.ca.location"), Some("/ca.pem"));
        assert_eq!(with(&[]).config(&[]).unwrap().get("ssl.ca.location"), None);
    }

    #[test]
    fn a_process_without_a_lasting_name_has_no_static_id() {
        let mut options = with(&[]);
        assert_eq!(options.static_id("intake", 0), None);
        options.process_name = Some("shop-2".to_owned());
        assert_eq!(options.static_id("intake", 0).as_deref(), Some("shop-2-intake-0"));
    }
}
