//! Whether the local model can be trusted with a batch, and who scores it if not.
//!
//! A batch is scored by the model in the function, for that is fast, costs nothing and explains itself.
//! For three reasons it may be better not to: the model is stale, there is none, or validation found
//! that it disagrees with the endpoint. A reason is found once a batch and model; `FALLBACK` says
//! what follows from it:
//!
//! ```text
//! reason      found when                                         by default
//! Fresh       none of the below                                  the local model
//! Stale       published more than MODEL_MAX_AGE_SECS ago         the endpoint
//! Missing     no model could be loaded yet                       the endpoint
//! Suspect     validation: it disagrees with the endpoint         the local model, with a warning
//! ```
//!
//! What isn't had is not hidden: where the endpoint should have scored and there is none, or it fails,
//! a local model scores all the same, and what is said of its records is `degraded`.

use std::collections::HashSet;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use sawlog_model::Model;
use serde::Serialize;

use crate::config::Refused;
use crate::endpoint::Endpoint;
use crate::models::Held;
use crate::verdict;

/// Why the local model is, or isn't, what a batch is scored by. The greater, the worse.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// It is there, young enough, and nothing speaks against it.
    #[default]
    Fresh,
    /// Validation found that it disagrees with the endpoint.
    Suspect,
    /// It was published too long ago.
    Stale {
        /// How long ago, in seconds.
        age_secs: u64,
    },
    /// There is none.
    Missing,
}

impl Reason {
    /// As results, logs and metrics name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::Suspect => "suspect",
            Self::Stale { .. } => "stale",
            Self::Missing => "missing",
        }
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Who gave a score.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Scorer {
    /// The model in the function.
    #[default]
    Local,
    /// The SageMaker endpoint.
    Endpoint,
}

impl Scorer {
    /// As results, logs and metrics name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Endpoint => "endpoint",
        }
    }
}

/// Whose threshold a score is held against.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ThresholdOf {
    /// The model's, learned from its own scores.
    #[default]
    Local,
    /// The model's for this endpoint, learned from the endpoint's scores.
    Endpoint,
    /// `ENDPOINT_THRESHOLD`.
    Configured,
}

impl ThresholdOf {
    /// As results name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Endpoint => "endpoint",
            Self::Configured => "configured",
        }
    }
}

/// How a score came about, and what it is held against.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct By {
    /// Who gave it.
    pub scorer: Scorer,
    /// Why this one did.
    pub reason: Reason,
    /// True if another should have: see the head of this module.
    pub degraded: bool,
    /// The score above which a record is an anomaly; none without calibration.
    pub threshold: Option<f64>,
    /// Whose it is.
    pub threshold_of: ThresholdOf,
}

impl By {
    /// A local score that nothing speaks against.
    pub fn local(model: &Model) -> Self {
        Self { threshold: verdict::threshold(model), ..Self::default() }
    }

    /// True for a score above the threshold; never without one.
    pub fn is_anomaly(&self, score: f32) -> bool {
        self.threshold.is_some_and(|threshold| f64::from(score) > threshold)
    }
}

/// What is done when the local model can't be trusted. The greater, the stricter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fallback {
    /// It scores all the same.
    Local,
    /// The endpoint scores.
    Endpoint,
    /// Nobody does: records are reported failed and come again.
    Fail,
}

/// What is done, by reason (`FALLBACK`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// For a stale model.
    pub stale: Fallback,
    /// For a missing one; never [`Fallback::Local`].
    pub missing: Fallback,
    /// For a suspect one.
    pub suspect: Fallback,
}

impl Default for Policy {
    fn default() -> Self {
        Self { stale: Fallback::Endpoint, missing: Fallback::Endpoint, suspect: Fallback::Local }
    }
}

impl FromStr for Policy {
    type Err = Refused;

    /// `endpoint`, `local` or `fail` for all reasons, or `reason=one of these` by commas; reasons left
    /// out keep their defaults.
    fn from_str(text: &str) -> Result<Self, Refused> {
        let fallback = |text: &str| match text {
            "endpoint" => Ok(Fallback::Endpoint),
            "local" => Ok(Fallback::Local),
            "fail" => Ok(Fallback::Fail),
            _ => Err(Refused),
        };
        if let Ok(all) = fallback(text) {
            // There is nothing local to fall back to.
            let missing = if all == Fallback::Local { Fallback::Fail } else { all };
            return Ok(Self { stale: all, missing, suspect: all });
        }
        let mut policy = Self::default();
        for part in text.split(',') {
            let (reason, what) = part.split_once('=').ok_or(Refused)?;
            let what = fallback(what.trim())?;
            match reason.trim() {
                "stale" => policy.stale = what,
                "missing" if what != Fallback::Local => policy.missing = what,
                "suspect" => policy.suspect = what,
                _ => return Err(Refused),
            }
        }
        Ok(policy)
    }
}

/// What a batch and model are scored by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    /// Why.
    pub reason: Reason,
    /// By whom.
    pub fallback: Fallback,
    /// True if the policy would have it otherwise.
    pub degraded: bool,
}

/// What a warm function knows of how far its models can be trusted.
#[derive(Debug, Default)]
pub struct Trust {
    policy: Policy,
    /// None: a model is never stale.
    max_age: Option<Duration>,
    has_endpoint: bool,
    suspects: Suspects,
}

/// The models that validation found to disagree with the endpoint, by id: a model that is published
/// anew has another id, and is believed until it is found out.
#[derive(Debug, Default)]
pub struct Suspects(Mutex<HashSet<String>>);

impl Suspects {
    /// Notes what validation found of a model. True if that is news.
    pub fn set(&self, model_id: &str, is_suspect: bool) -> bool {
        let mut ids = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if is_suspect { ids.insert(model_id.to_owned()) } else { ids.remove(model_id) }
    }

    /// True for a model that was found to disagree.
    pub fn contains(&self, model_id: &str) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(model_id)
    }
}

impl Trust {
    /// Trust by a policy; without a greatest age no model is stale.
    pub fn new(policy: Policy, max_age: Option<Duration>, endpoint: Option<&Endpoint>) -> Self {
        let has_endpoint = endpoint.is_some();
        Self { policy, max_age, has_endpoint, suspects: Suspects::default() }
    }

    /// The models that are suspect.
    pub fn suspects(&self) -> &Suspects {
        &self.suspects
    }

    /// By whom a batch is scored that found this model. Of two reasons the one counts whose policy is
    /// stricter.
    pub fn choose(&self, held: &Held) -> Choice {
        let (model, age) = match held {
            Held::Missing { .. } => {
                return self.choice(Reason::Missing, self.policy.missing, false);
            }
            Held::Model { model, age } => (model, *age),
        };
        let stale = age.zip(self.max_age).filter(|(age, max_age)| age > max_age);
        let stale = stale.map(|(age, _)| Reason::Stale { age_secs: age.as_secs() });
        let suspect = self.suspects.contains(model.id()).then_some(Reason::Suspect);
        let reasons = [
            stale.map(|reason| (self.policy.stale, reason)),
            suspect.map(|reason| (self.policy.suspect, reason)),
        ];
        match reasons.into_iter().flatten().max() {
            None => self.choice(Reason::Fresh, Fallback::Local, true),
            Some((fallback, reason)) => self.choice(reason, fallback, true),
        }
    }

    fn choice(&self, reason: Reason, fallback: Fallback, is_loaded: bool) -> Choice {
        if fallback == Fallback::Endpoint && !self.has_endpoint {
            let instead = if is_loaded { Fallback::Local } else { Fallback::Fail };
            return Choice { reason, fallback: instead, degraded: true };
        }
        Choice { reason, fallback, degraded: false }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::scorer::tests::model;

    const DAY: Duration = Duration::from_secs(86_400);

    fn held(age: Option<Duration>) -> Held {
        Held::Model { model: Arc::new(model(None)), age }
    }

    fn trust(policy: &str, has_endpoint: bool) -> Trust {
        let policy = policy.parse().expect("a policy");
        Trust { policy, max_age: Some(DAY), has_endpoint, suspects: Suspects::default() }
    }

    #[test]
    fn a_policy_is_one_word_or_a_list_by_reason() {
        let of = |stale, missing, suspect| Ok(Policy { stale, missing, suspect });
        use Fallback::{Endpoint, Fail, Local};
        for (text, expected) in [
            ("endpoint", of(Endpoint, Endpoint, Endpoint)),
            ("local", of(Local, Fail, Local)),
            ("fail", of(Fail, Fail, Fail)),
            ("stale=local", of(Local, Endpoint, Local)),
            ("stale=fail, missing=fail,suspect=endpoint", of(Fail, Fail, Endpoint)),
            ("missing=local", Err(Refused)),
            ("old=local", Err(Refused)),
            ("stale", Err(Refused)),
            ("stale=local,", Err(Refused)),
            ("", Err(Refused)),
        ] {
            assert_eq!(text.parse::<Policy>(), expected, "{text}");
        }
        assert_eq!(of(Endpoint, Endpoint, Local), Ok(Policy::default()));
    }

    #[test]
    fn each_reason_has_what_its_policy_says() {
        let trust = trust("stale=endpoint,suspect=local", true);
        let of = |fallback, reason| Choice { reason, fallback, degraded: false };
        for (age, fallback, reason) in [
            (None, Fallback::Local, Reason::Fresh),
            (Some(DAY), Fallback::Local, Reason::Fresh),
            (Some(DAY * 2), Fallback::Endpoint, Reason::Stale { age_secs: 172_800 }),
        ] {
            assert_eq!(trust.choose(&held(age)), of(fallback, reason));
        }
        let suspect = held(None);
        let id = suspect.model().expect("one").id();
        assert!(trust.suspects().set(id, true) && !trust.suspects().set(id, true), "news once");
        assert_eq!(trust.choose(&suspect), of(Fallback::Local, Reason::Suspect));
        let both = trust.choose(&held(Some(DAY * 2)));
        assert_eq!(both, of(Fallback::Endpoint, Reason::Stale { age_secs: 172_800 }));
        assert!(trust.suspects().set(id, false));
        assert_eq!(trust.choose(&suspect), of(Fallback::Local, Reason::Fresh));
    }

    #[test]
    fn without_an_endpoint_a_stale_model_scores_on_and_says_so() {
        let stale = Reason::Stale { age_secs: 172_800 };
        let without = trust("endpoint", false).choose(&held(Some(DAY * 2)));
        assert_eq!(without, Choice { reason: stale, fallback: Fallback::Local, degraded: true });
        let wanted = trust("local", false).choose(&held(Some(DAY * 2)));
        assert_eq!(wanted, Choice { reason: stale, fallback: Fallback::Local, degraded: false });
    }
}
