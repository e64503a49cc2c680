//! The configuration.

use super::message::several;
use crate::config::{Config, Loaded, Needs};

/// A file, then variables of the environment, then `--set`s, a line each. Whatever is wrong is said in one line that names
/// its place; what is right has an answer to every question, keeps its secrets, and reads back from what it shows.
pub fn config(bytes: &[u8]) {
    let parts = several(bytes);
    let part = |nth: usize| parts.get(nth).map(|part| String::from_utf8_lossy(part)).unwrap_or_default();
    let env = part(1);
    let env = env
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, text)| (format!("RECHARGED__{name}"), text.to_owned()));
    let sets: Vec<String> = part(2).lines().map(str::to_owned).collect();
    match Config::read(&part(0), env, &sets) {
        Ok(loaded) => check(&loaded),
        Err(problems) => {
            assert!(!problems.is_empty(), "it is wrong, and nobody says why");
            for problem in problems {
                let said = problem.to_string();
                assert!(!said.contains('\n') && !problem.message().is_empty(), "a problem is one line");
                assert!(said.len() <= 4_096, "a problem is a line that can be read");
            }
        }
    }
}

fn check(loaded: &Loaded) {
    let config = &loaded.config;
    let shown = serde_json::to_string(&loaded.shown()).unwrap();
    let (raw, masked) = (config.store.url.expose(), config.store.url.masked());
    if let Some(password) = password_of(raw).filter(|password| raw.matches(password).count() == 1) {
        assert!(!masked.contains(password), "a password is shown");
        let told = [shown, format!("{config:?}"), format!("{loaded:?}")];
        assert!(told.iter().all(|told| !told.contains(raw)), "the address is shown");
    }
    assert_eq!(config.fingerprint().len(), 12);
    assert!(config.problems().is_empty(), "it is right, and has problems");
    let _told: Vec<_> = [Needs::RUN, Needs::KAFKA, Needs::STORE].map(|needs| loaded.require(needs)).into();
    let policy = config.policy();
    assert_eq!(policy.providers.len(), config.providers.len());
    for plan in config.topic_plan() {
        assert!(!plan.settings().is_empty());
    }
    for lane in config.lanes() {
        let terms = config.quota_terms(&lane).unwrap();
        assert!(!terms.interval.is_zero() && terms.burst > 0);
        assert_ne!(config.topics().requests(&lane), config.topics().due(&lane));
    }
    assert!(config.tiers().iter().all(|tier| config.topics().tier_of(&config.topics().delay(*tier)) == Some(*tier)));
    assert!(config.kafka.consumer_properties().iter().all(|(_, value)| !value.is_empty()));
    assert!(!config.drain_time().is_zero());
    // A password is not shown, so that it would not come back.
    if !config.store.url.has_password() {
        let text = toml::to_string(config).expect("it can be shown as a file");
        let back = Config::read(&text, [], &[]).expect("what is shown is a file that can be read");
        assert_eq!(back.config, *config, "what is shown reads back");
    }
}

/// What stands behind a colon and before an `@`, where user and host would stand: a person who reads it takes it for one.
fn password_of(url: &str) -> Option<&str> {
    let (_, rest) = url.split_once(':')?;
    let authority = rest.trim_start_matches('/').split(['/', '?', '#']).next()?;
    let (user, _) = authority.rsplit_once('@')?;
    let (_, password) = user.split_once(':')?;
    (password.len() >= 5).then_some(password)
}
