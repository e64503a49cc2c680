//! Scripts: what is to happen to a certain reference, or to the next submits whoever sends them.
//!
//! ```toml
//! [[step]]
//! order = "order-7"            # or client_ref = "order-7-1", or next = 3
//! then = "faults.hang.after"   # a class of trouble, or "deliver", or "accept"
//!
//! [[step]]
//! next = 2
//! refuse = "operator_unavailable"
//! retry_after = "1s"
//!
//! [[step]]
//! client_ref = "order-9-1"
//! answer = { status = 503, body = "come back", executed = true }
//! ```

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::class::{FaultClass, Moment, near};
use super::fate::Refusal;
use super::reply::Reply;
use super::text::optional_duration;

/// The documented codes of a refusal.
const CODES: [&str; 9] = [
    "invalid_recipient",
    "recipient_barred",
    "amount_not_allowed",
    "limit_reached",
    "cooldown_active",
    "operator_unavailable",
    "insufficient_float",
    "declined",
    "cancelled",
];
/// What is planned for an order is to be seen while somebody still looks.
const WITHIN: Duration = Duration::from_secs(3);
/// The most steps that may wait.
pub(super) const STEPS_MAX: usize = 100_000;

/// A list of steps: what `--script FILE` holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Script {
    /// Each is taken once, or as often as it says.
    #[serde(default, rename = "step")]
    pub steps: Vec<Step>,
}

/// One step: one of `client_ref`, `order` and `next`, and one of `then`, `refuse` and `answer`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Step {
    /// The next submit of this reference.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_ref: Option<String>,
    /// The next submit of any attempt of this order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order: Option<String>,
    /// Other orders that may take the place of `order`: whichever of them comes first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub or: Vec<String>,
    /// So many submits, whichever come next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<u32>,
    /// How many submits of the reference or order; 1 if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub times: Option<u32>,
    /// A class of trouble, `"deliver"` or `"accept"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub then: Option<String>,
    /// Complete what is accepted within this time, whatever the profile says.
    #[serde(with = "optional_duration", skip_serializing_if = "Option::is_none")]
    pub within: Option<Duration>,
    /// Refuse with this documented code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refuse: Option<String>,
    /// With the advice to try again after this long.
    #[serde(with = "optional_duration", skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<Duration>,
    /// Answer with these words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answer: Option<ScriptedAnswer>,
}

/// An answer, word for word.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScriptedAnswer {
    /// The status.
    pub status: u16,
    /// The body.
    #[serde(default)]
    pub body: String,
    /// Whether the recharge is executed.
    #[serde(default)]
    pub executed: bool,
}

/// Why a script cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ScriptError {
    /// Not TOML, or not a script.
    #[error("the script cannot be read: {0}")]
    Toml(#[source] Box<toml::de::Error>),
    /// Not JSON, or not a script.
    #[error("the script cannot be read: {0}")]
    Json(#[source] serde_json::Error),
    /// A step that makes no sense.
    #[error("step {number}: {problem}")]
    Step {
        /// Which, from 1.
        number: usize,
        /// What is wrong, and what would be right.
        problem: String,
    },
    /// Too many.
    #[error("more than {STEPS_MAX} steps would wait: let some happen first")]
    TooMany,
}

/// What a step says is to happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Then {
    Deliver,
    Accept,
    Refuse(Refusal),
    Answer(Moment, Reply),
    /// With the most time that its completion may take.
    Face(FaultClass, Option<Duration>),
}

impl Script {
    /// Reads and checks a script in TOML.
    pub fn from_toml(text: &str) -> Result<Self, ScriptError> {
        let script: Self = toml::from_str(text).map_err(|error| ScriptError::Toml(Box::new(error)))?;
        script.check().map(|()| script)
    }

    /// The same in JSON: `{"step": [...]}`.
    pub fn from_json(text: &str) -> Result<Self, ScriptError> {
        let script: Self = serde_json::from_str(text).map_err(ScriptError::Json)?;
        script.check().map(|()| script)
    }

    /// One of each of these lists of orders, whichever comes first, meets a class of trouble, once,
    /// and soon.
    pub fn for_orders(plan: impl IntoIterator<Item = (Vec<String>, FaultClass)>) -> Self {
        let step = |(orders, class): (Vec<String>, FaultClass)| {
            let mut orders = orders.into_iter();
            let (order, or, then) = (orders.next(), orders.collect(), Some(class.as_str().to_owned()));
            Step { order, or, then, within: Some(WITHIN), ..Step::default() }
        };
        Self { steps: plan.into_iter().map(step).collect() }
    }

    /// Checks what the types do not.
    pub fn check(&self) -> Result<(), ScriptError> {
        for (index, step) in self.steps.iter().enumerate() {
            step.then().map_err(|problem| ScriptError::Step { number: index + 1, problem })?;
        }
        Ok(())
    }
}

impl Step {
    pub(super) fn then(&self) -> Result<Then, String> {
        let targets = [self.client_ref.is_some(), self.order.is_some(), self.next.is_some()];
        if targets.into_iter().filter(|given| *given).count() != 1 {
            return Err("it must have exactly one of client_ref, order and next".to_owned());
        }
        if self.next.or(self.times) == Some(0) || self.next.is_some() && self.times.is_some() {
            return Err("times and next count submits, from 1; with next, leave times out".to_owned());
        }
        if !self.or.is_empty() && self.order.is_none() {
            return Err("or belongs to order".to_owned());
        }
        if self.within.is_some() && self.then.is_none() {
            return Err("within belongs to then".to_owned());
        }
        if self.retry_after.is_some() && self.refuse.is_none() {
            return Err("retry_after belongs to refuse".to_owned());
        }
        match (&self.then, &self.refuse, &self.answer) {
            (Some(name), None, None) => happening(name, self.within),
            (None, Some(code), None) => {
                let known = CODES.into_iter().find(|known| known == code);
                let code = known.ok_or_else(|| format!("refuse: {code:?} is none of {}", CODES.join(", ")))?;
                let class = if self.retry_after.is_some() { FaultClass::Retryable } else { FaultClass::Fatal };
                Ok(Then::Refuse(Refusal { retry_after: self.retry_after, ..Refusal::for_good(code, Some(class)) }))
            }
            (None, None, Some(answer)) if (200..600).contains(&answer.status) => {
                let moment = if answer.executed { Moment::AfterExecution } else { Moment::BeforeExecution };
                let body = Bytes::from(answer.body.clone());
                Ok(Then::Answer(moment, Reply::Raw { status: answer.status, body }))
            }
            (None, None, Some(answer)) => Err(format!("answer.status: {} is not from 200 to 599", answer.status)),
            (_, _, _) => Err("it must have exactly one of then, refuse and answer".to_owned()),
        }
    }

    pub(super) fn times(&self) -> u32 {
        self.next.or(self.times).unwrap_or(1)
    }
}

fn happening(name: &str, within: Option<Duration>) -> Result<Then, String> {
    match (name, FaultClass::parse(name)) {
        ("deliver", _) => Ok(Then::Deliver),
        ("accept", _) => Ok(Then::Accept),
        (_, Some(class)) if class.is_limit() => {
            Err(format!("then: {class} is a limit of the profile, which a caller meets by what it does: set it there"))
        }
        (_, Some(class)) => Ok(Then::Face(class, within)),
        (_, None) => {
            Err(format!("then: {name:?} is neither deliver, nor accept, nor a class of trouble{}", near(name)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_that_makes_no_sense_is_refused_with_what_would_be_right() {
        for (step, word) in [
            ("then = \"deliver\"", "exactly one of client_ref, order and next"),
            ("next = 1", "exactly one of then, refuse and answer"),
            ("next = 1\nthen = \"faults.hang\"", "did you mean \"faults.hang"),
            ("next = 1\nthen = \"cooldown\"", "limit of the profile"),
            ("next = 0\nthen = \"deliver\"", "from 1"),
            ("next = 1\nrefuse = \"no\"", "insufficient_float"),
            ("next = 1\nanswer = { status = 99 }", "answer.status"),
            ("next = 1\nthen = \"deliver\"\nretry_after = \"1s\"", "retry_after belongs to refuse"),
            ("next = 1\nor = [\"order-1\"]\nthen = \"deliver\"", "or belongs to order"),
            ("next = 1\nrefuse = \"declined\"\nwithin = \"1s\"", "within belongs to then"),
            ("nexts = 1", "nexts"),
        ] {
            let error = Script::from_toml(&format!("[[step]]\n{step}\n")).unwrap_err().to_string();
            assert!(error.contains(word), "{step}: {error}");
        }
    }
}
