//! What is said of one record: normal or anomalous, and why.
//!
//! As JSON, always with the same keys in the same order (`timestamp_ms` only when known; `lag` and
//! `lag_share` only with a shingle: how many records before the newest stands the one that most of a
//! feature's share comes from, and how much):
//!
//! ```json
//! {"id":"kafka/orders/3/12345",
//!  "origin":{"source":"kafka","topic":"orders","partition":3,"offset":12345},
//!  "timestamp_ms":1545084650987,
//!  "score":1.91,"threshold":1.4,"anomaly":true,
//!  "features":{"duration_ms":930250,"path":"/cart"},
//!  "attribution":{"duration_ms":{"high":0.93,"low":0.0,"share":0.93},"path":{…}},
//!  "model":"5f0c…","scorer":"local"}
//! ```
//!
//! Unless a fresh model scored it, the end says how the score came about:
//! `…,"model":"5f0c…","scorer":"endpoint","endpoint":"rcf","reason":"stale","threshold_of":"endpoint",
//! "degraded":false}`; `endpoint` only where it scored. `model` is then the one whose place the endpoint
//! took, which the attribution is of too, and null if there was none.

use std::borrow::Cow;

use sawlog_model::{FeatureShare, Features, Fitted, Model, Value};
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};

use crate::models::Held;
use crate::origin::Origin;
use crate::scorer::Scored;
use crate::trust::{By, Reason, Scorer};

/// The score above which a record is an anomaly; `None` for a model that is not calibrated.
pub fn threshold(model: &Model) -> Option<f64> {
    model.calibration().map(|calibration| calibration.threshold)
}

/// The verdict on one record.
#[derive(Debug, Clone)]
pub struct Verdict<'m> {
    features: &'m Features,
    model: Option<&'m Model>,
    /// The endpoint that scored it, if one did.
    endpoint: Option<&'m str>,
    origin: Cow<'m, Origin>,
    timestamp_ms: Option<i64>,
    scored: Scored,
}

/// How much of a score comes from one feature, each part 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Share {
    /// Because it lies above what was seen.
    pub high: f32,
    /// Because it lies below.
    pub low: f32,
    /// Both together.
    pub share: f32,
    /// With a shingle, the record that most of it comes from: so many before the newest, 0 for the
    /// newest itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lag: Option<usize>,
    /// With a shingle, how much comes from that record.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lag_share: Option<f32>,
}

impl<'m> Verdict<'m> {
    /// The verdict that a model gives of what it scored. `timestamp_ms` is when the record was made,
    /// in milliseconds since 1970.
    pub fn new(
        model: &'m Model,
        origin: Cow<'m, Origin>,
        timestamp_ms: Option<i64>,
        scored: Scored,
    ) -> Self {
        let features = model.features();
        Self { features, model: Some(model), endpoint: None, origin, timestamp_ms, scored }
    }

    /// The verdict on what was scored by what is held, or by the endpoint of this name.
    pub fn by(
        held: &'m Held,
        endpoint: Option<&'m str>,
        origin: Cow<'m, Origin>,
        timestamp_ms: Option<i64>,
        scored: Scored,
    ) -> Self {
        let endpoint = endpoint.filter(|_| scored.by.scorer == Scorer::Endpoint);
        let (features, model) = (held.features(), held.model());
        Self { features, model, endpoint, origin, timestamp_ms, scored }
    }

    /// The record's identity: see [`Origin::identity`].
    pub fn id(&self) -> String {
        self.origin.identity()
    }

    /// Where the record comes from.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// When the record was made, in milliseconds since 1970, if that is known.
    pub fn timestamp_ms(&self) -> Option<i64> {
        self.timestamp_ms
    }

    /// The score, finite.
    pub fn score(&self) -> f32 {
        self.scored.score
    }

    /// The score above which a record is an anomaly; `None` without calibration.
    pub fn threshold(&self) -> Option<f64> {
        self.scored.by.threshold
    }

    /// True for an anomaly.
    pub fn is_anomaly(&self) -> bool {
        self.scored.by.is_anomaly(self.scored.score)
    }

    /// The record's features by name, as the record had them.
    pub fn features(&self) -> impl ExactSizeIterator<Item = (&str, &Value)> {
        self.features.names().zip(&self.scored.values)
    }

    /// For an anomaly, how much of the score comes from each feature, by name.
    pub fn attribution(&self) -> Option<impl ExactSizeIterator<Item = (&str, Share)>> {
        let share = |part: &FeatureShare| Share {
            high: part.high,
            low: part.low,
            share: part.high + part.low,
            lag: part.peak.map(|peak| peak.lag),
            lag_share: part.peak.map(|peak| peak.share),
        };
        let shares = self.scored.attribution.as_ref()?;
        Some(self.features.names().zip(shares.iter().map(share)))
    }

    /// What training learned of each feature, in the order of [`Verdict::features`]; nothing that
    /// means anything without a model.
    pub fn fitted(&self) -> &[Fitted] {
        self.features.fitted()
    }

    /// The id of the model that scored it, or whose place the endpoint took; `None` if there was none.
    pub fn model_id(&self) -> Option<&str> {
        self.model.map(Model::id)
    }

    /// Who scored it.
    pub fn scorer(&self) -> &'static str {
        self.scored.by.scorer.name()
    }

    /// The name of the endpoint that scored it, if one did.
    pub fn endpoint(&self) -> Option<&str> {
        self.endpoint
    }

    /// How the score came about. A fresh model's own is the rule, and nothing more is said of it.
    pub fn exception(&self) -> Option<&By> {
        Some(&self.scored.by).filter(|by| by.reason != Reason::Fresh)
    }
}

impl Serialize for Verdict<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("id", &self.id())?;
        map.serialize_entry("origin", self.origin())?;
        if let Some(timestamp_ms) = self.timestamp_ms {
            map.serialize_entry("timestamp_ms", &timestamp_ms)?;
        }
        map.serialize_entry("score", &self.score())?;
        map.serialize_entry("threshold", &self.threshold())?;
        map.serialize_entry("anomaly", &self.is_anomaly())?;
        map.serialize_entry("features", &FeatureMap(self))?;
        if self.scored.attribution.is_some() {
            map.serialize_entry("attribution", &AttributionMap(self))?;
        }
        map.serialize_entry("model", &self.model_id())?;
        map.serialize_entry("scorer", self.scorer())?;
        if let Some(endpoint) = self.endpoint() {
            map.serialize_entry("endpoint", endpoint)?;
        }
        if let Some(by) = self.exception() {
            map.serialize_entry("reason", by.reason.name())?;
            map.serialize_entry("threshold_of", by.threshold_of.name())?;
            map.serialize_entry("degraded", &by.degraded)?;
        }
        map.end()
    }
}

struct FeatureMap<'v, 'm>(&'v Verdict<'m>);

impl Serialize for FeatureMap<'_, '_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.features().map(|(name, value)| (name, FeatureValue(value))))
    }
}

struct AttributionMap<'v, 'm>(&'v Verdict<'m>);

impl Serialize for AttributionMap<'_, '_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.attribution().into_iter().flatten())
    }
}

/// A feature's value: a number, a string, or null for a missing one.
pub(crate) struct FeatureValue<'v>(pub(crate) &'v Value);

/// Integers below this are exact in an f64 and are written without a fraction.
const EXACT: f64 = 9_007_199_254_740_992.0;

impl Serialize for FeatureValue<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Missing => serializer.serialize_unit(),
            Value::Category(name) => serializer.serialize_str(name),
            #[expect(clippy::cast_possible_truncation, reason = "an integer within i64")]
            Value::Number(number) if number.fract() == 0.0 && number.abs() < EXACT => {
                serializer.serialize_i64(*number as i64)
            }
            Value::Number(number) => serializer.serialize_f64(*number),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use sawlog_model::ThresholdRule;

    use super::*;
    use crate::scorer::tests::model;
    use crate::trust::ThresholdOf;

    fn origin() -> Origin {
        Origin::Kafka { cluster: None, topic: "t".into(), partition: 0, offset: 7 }
    }

    fn scored(model: &Model, score: f32) -> Scored {
        let attribution = (score > 1.0).then(|| {
            vec![
                FeatureShare { feature: 0, high: 0.75, low: 0.0, peak: None },
                FeatureShare { feature: 1, high: 0.125, low: 0.125, peak: None },
            ]
        });
        Scored {
            score,
            by: By::local(model),
            values: vec![Value::Number(930.0), Value::Category("/a".into())],
            attribution,
        }
    }

    #[test]
    fn an_anomaly_as_json_has_its_keys_in_order() {
        let model = model(Some(ThresholdRule::Value(1.0)));
        let verdict = Verdict::new(&model, Cow::Owned(origin()), Some(5), scored(&model, 1.5));
        let expected = format!(
            r#"{{"id":"kafka/t/0/7","origin":{{"source":"kafka","topic":"t","partition":0,"offset":7}},"timestamp_ms":5,"score":1.5,"threshold":1.0,"anomaly":true,"features":{{"duration_ms":930,"path":"/a"}},"attribution":{{"duration_ms":{{"high":0.75,"low":0.0,"share":0.75}},"path":{{"high":0.125,"low":0.125,"share":0.25}}}},"model":"{}","scorer":"local"}}"#,
            model.id()
        );
        assert_eq!(serde_json::to_string(&verdict).expect("json"), expected);
    }

    #[test]
    fn what_no_fresh_model_scored_says_how_its_score_came_about() {
        let model = Arc::new(model(Some(ThresholdRule::Value(1.0))));
        let by = By {
            scorer: Scorer::Endpoint,
            reason: Reason::Stale { age_secs: 90_000 },
            degraded: false,
            threshold: Some(1.25),
            threshold_of: ThresholdOf::Configured,
        };
        let json = |held: &Held, by| {
            let scored = Scored { by, attribution: None, ..scored(&model, 1.5) };
            let verdict = Verdict::by(held, Some("rcf"), Cow::Owned(origin()), None, scored);
            let json = serde_json::to_string(&verdict).expect("json");
            json.split_once(r#"},"model":"#).expect("a model").1.to_owned()
        };
        let held = Held::Model { model: Arc::clone(&model), age: None };
        let id = model.id();
        let expected = format!(
            r#""{id}","scorer":"endpoint","endpoint":"rcf","reason":"stale","threshold_of":"configured","degraded":false}}"#
        );
        assert_eq!(json(&held, by), expected);
        let missing = Held::Missing { features: Arc::new(model.features().clone()) };
        let expected = r#"null,"scorer":"endpoint","endpoint":"rcf","reason":"missing","threshold_of":"configured","degraded":false}"#;
        assert_eq!(json(&missing, By { reason: Reason::Missing, ..by }), expected);
        let degraded = By { degraded: true, reason: Reason::Suspect, ..By::local(&model) };
        let expected = format!(
            r#""{id}","scorer":"local","reason":"suspect","threshold_of":"local","degraded":true}}"#
        );
        assert_eq!(json(&held, degraded), expected);
    }

    #[test]
    fn with_a_shingle_a_share_names_the_record_that_most_of_it_comes_from() {
        let share = |peak| {
            let share = FeatureShare { feature: 0, high: 0.75, low: 0.0, peak };
            let model = model(Some(ThresholdRule::Value(1.0)));
            let scored = Scored { attribution: Some(vec![share]), ..scored(&model, 1.5) };
            let verdict = Verdict::new(&model, Cow::Owned(origin()), None, scored);
            serde_json::to_string(&AttributionMap(&verdict)).expect("json")
        };
        assert_eq!(share(None), r#"{"duration_ms":{"high":0.75,"low":0.0,"share":0.75}}"#);
        let peak = Some(sawlog_model::Peak { lag: 3, share: 0.5 });
        assert_eq!(
            share(peak),
            r#"{"duration_ms":{"high":0.75,"low":0.0,"share":0.75,"lag":3,"lag_share":0.5}}"#
        );
    }

    #[test]
    fn only_a_score_above_the_threshold_is_an_anomaly() {
        let calibrated = model(Some(ThresholdRule::Value(1.0)));
        let by = By::local(&calibrated);
        assert!(!by.is_anomaly(1.0) && by.is_anomaly(1.000_001));
        let plain = model(None);
        assert!(!By::local(&plain).is_anomaly(100.0));
        let verdict = Verdict::new(&plain, Cow::Owned(origin()), None, scored(&plain, 0.5));
        let json = serde_json::to_value(&verdict).expect("json");
        assert!(json["threshold"].is_null() && json["anomaly"] == false);
        assert!(json.get("timestamp_ms").is_none() && json.get("attribution").is_none());
    }

    #[test]
    fn values_are_written_as_they_were() {
        for (value, json) in [
            (Value::Missing, "null"),
            (Value::Number(200.0), "200"),
            (Value::Number(-0.0), "0"),
            (Value::Number(0.25), "0.25"),
            (Value::Number(1e300), "1e+300"),
            (Value::Category("a\"b".into()), r#""a\"b""#),
        ] {
            assert_eq!(serde_json::to_string(&FeatureValue(&value)).expect("json"), json);
        }
    }
}
