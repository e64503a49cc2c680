//! The part of a profile that is about callbacks: when they go out, and what goes wrong with them.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::super::class::FaultClass;
use super::super::text::{duration_text, durations_text};
use super::check::{ProfileError, share, spell};
use super::{Latency, Spell};

/// The most times that a callback is sent again.
const RESENDS_MAX: usize = 100;
/// The longest wait before it is sent again.
const RESEND_MAX: Duration = Duration::from_hours(24);
/// The longest that an answer is waited for.
const PATIENCE_MAX: Duration = Duration::from_mins(1);

/// What is told without being asked, when a recharge has come to an end. Nothing, unless `enabled`
/// says so or a rate is above zero. The rates are thrown independently, for each end on its own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Callbacks {
    /// Send them, whatever the rates.
    pub enabled: bool,
    /// Send one too where the reply to the submit has told the end already, as most providers do.
    pub repeats_reply: bool,
    /// From the end, or from the reply to the submit if that is later, to the first sending.
    pub after: Latency,
    /// How many are held back for so much longer.
    pub late: Spell,
    /// How many are never sent, of 1.
    pub lost: f64,
    /// How many are sent twice, of 1, as two messages with ids of their own.
    pub duplicated: f64,
    /// How many are sent before the reply to the submit leaves, of 1.
    pub early: f64,
    /// Of the recharges with two ends, how many have the later one told first, of 1.
    pub swapped: f64,
    /// To how many ends somebody else tells the opposite, of 1, with a signature that is wrong.
    pub forged: f64,
    /// To how many ends the same is said again, of 1, rightly signed and with a timestamp an hour old.
    pub stale: f64,
    /// How many are sent again some seconds later, of 1, byte for byte.
    pub replayed: f64,
    /// To how many ends another message is sent, of 1, rightly signed and about a reference that nobody has.
    pub unknown_reference: f64,
    /// To how many recharges that were accepted first "in progress" is sent before the end, of 1.
    pub in_progress: f64,
    /// The waits before it is sent again, until somebody acknowledges it.
    #[serde(with = "durations_text")]
    pub resend: Vec<Duration>,
    /// How long an answer is waited for; one that comes later is none.
    #[serde(with = "duration_text")]
    pub patience: Duration,
}

impl Default for Callbacks {
    /// None; if there are any, they arrive within half a second.
    fn default() -> Self {
        Self {
            enabled: false,
            repeats_reply: true,
            after: Latency::Lognormal { p50: Duration::from_millis(50), p99: Duration::from_millis(500) },
            late: Spell::fixed(0.0, Duration::from_mins(5)),
            lost: 0.0,
            duplicated: 0.0,
            early: 0.0,
            swapped: 0.0,
            forged: 0.0,
            stale: 0.0,
            replayed: 0.0,
            unknown_reference: 0.0,
            in_progress: 0.0,
            resend: vec![Duration::from_secs(3); 3],
            patience: Duration::from_secs(2),
        }
    }
}

impl Callbacks {
    /// Whether any are sent.
    pub fn is_on(&self) -> bool {
        self.enabled || self.rates().into_iter().any(|(_, rate)| rate > 0.0)
    }

    /// How often each class of their trouble strikes, of 1.
    pub fn rates(&self) -> [(FaultClass, f64); 10] {
        [
            (FaultClass::CallbackLate, self.late.rate),
            (FaultClass::CallbackLost, self.lost),
            (FaultClass::CallbackDuplicated, self.duplicated),
            (FaultClass::CallbackEarly, self.early),
            (FaultClass::CallbackSwapped, self.swapped),
            (FaultClass::CallbackForged, self.forged),
            (FaultClass::CallbackStale, self.stale),
            (FaultClass::CallbackReplayed, self.replayed),
            (FaultClass::CallbackUnknown, self.unknown_reference),
            (FaultClass::CallbackInProgress, self.in_progress),
        ]
    }

    /// How often one class strikes, of 1.
    pub(in super::super) fn rate(&self, class: FaultClass) -> f64 {
        self.rates().into_iter().find(|(known, _)| *known == class).map_or(0.0, |(_, rate)| rate)
    }

    pub(super) fn check(&self) -> Result<(), ProfileError> {
        self.after.check("callbacks.after")?;
        spell(["callbacks.late.rate", "callbacks.late.lasts"], self.late)?;
        for (class, rate) in self.rates() {
            share(class.as_str(), rate)?;
        }
        if self.resend.len() > RESENDS_MAX {
            return Err(ProfileError::Resends { count: self.resend.len(), most: RESENDS_MAX });
        }
        if let Some(value) = self.resend.iter().copied().find(|wait| *wait > RESEND_MAX) {
            return Err(ProfileError::TooLong { key: "callbacks.resend", value, most: RESEND_MAX });
        }
        if self.patience.is_zero() || self.patience > PATIENCE_MAX {
            return Err(ProfileError::Patience { value: self.patience, most: PATIENCE_MAX });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::Profile;
    use super::*;

    #[test]
    fn callbacks_are_off_unless_they_are_asked_for_or_rated() {
        let on = |text: &str| Profile::from_toml(text).unwrap().callbacks.is_on();
        assert!(!on("") && !on("[callbacks]\npatience = \"1s\"\n"));
        assert!(on("[callbacks]\nenabled = true\n") && on("[callbacks]\nlost = 0.1\n"));
        assert!(on("[callbacks]\nlate = { rate = 0.1, lasts = { fixed = \"4m\" } }\n"));
        for preset in [Profile::default(), Profile::some_faults(), Profile::storm()] {
            assert_eq!(preset.callbacks, Callbacks::default());
        }
    }

    #[test]
    fn each_class_of_trouble_of_callbacks_has_the_rate_of_its_name() {
        let of_callbacks: Vec<_> = FaultClass::ALL.iter().copied().filter(|class| class.is_of_callbacks()).collect();
        assert_eq!(Callbacks::default().rates().map(|(class, _)| class).to_vec(), of_callbacks);
        for class in of_callbacks {
            let key = class.as_str();
            let key = if class == FaultClass::CallbackLate { "callbacks.late.rate" } else { key };
            let profile = Profile::from_toml(&format!("{key} = 0.25\n")).unwrap();
            assert!((profile.callbacks.rate(class) - 0.25).abs() < f64::EPSILON, "{class}");
            assert_eq!(profile.classes(), [class], "{class}");
            assert!(profile.rates_of_submits().iter().all(|(class, _)| !class.is_of_callbacks()), "{class}");
        }
    }

    #[test]
    fn callbacks_that_make_no_sense_are_refused_by_name() {
        for (text, word) in [
            ("lost = 1.5", "callbacks.lost: 1.5 is not between 0 and 1"),
            ("unknown_reference = -0.1", "callbacks.unknown_reference"),
            ("late = { rate = 2 }", "callbacks.late.rate"),
            (
                "late = { lasts = { uniform = { min = \"2s\", max = \"1s\" } } }",
                "callbacks.late.lasts: min is above max",
            ),
            ("after = { lognormal = { p50 = \"0s\", p99 = \"1s\" } }", "callbacks.after"),
            ("resend = [\"3s\", \"25h\"]", "callbacks.resend: 1day 1h is more than 1day"),
            ("resend = [\"soon\"]", "resend"),
            ("patience = \"0s\"", "callbacks.patience: 0s is not above zero and at most 1m"),
            ("patience = \"2m\"", "callbacks.patience: 2m"),
            ("forgd = 0.1", "forgd"),
        ] {
            let error = Profile::from_toml(&format!("[callbacks]\n{text}\n")).unwrap_err().to_string();
            assert!(error.contains(word), "{text}: {error}");
        }
        let many = Callbacks { resend: vec![Duration::ZERO; RESENDS_MAX + 1], ..Callbacks::default() };
        assert!(many.check().unwrap_err().to_string().contains("callbacks.resend: 101 waits, more than 100"));
    }
}
