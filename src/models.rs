//! The models that a function scores with: one for all records, or one by topic.
//!
//! A topic is what a record's origin names as such ([`Origin::topic`](crate::Origin::topic)). A record
//! whose topic has no model is poison to this function: it is dead-lettered, and may be redriven when
//! `MODEL_URI` names one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::try_join_all;
use sawlog_model::{Features, Model};

use crate::config::{ModelUri, ModelUris};
use crate::handler::chain;
use crate::model_slot::{CheckCounts, Checking, ModelSlot};
use crate::model_store::{ModelStore, ModelStoreError};
use crate::trust::Scorer;

/// The models by topic.
#[derive(Debug)]
pub struct Models {
    by_topic: BTreeMap<String, Arc<ModelSlot>>,
    otherwise: Option<Arc<ModelSlot>>,
    /// Each of the above once.
    slots: Vec<Arc<ModelSlot>>,
    /// What records are read by while their model is missing; none: every model is there.
    without_model: Option<Arc<Features>>,
}

/// What a topic's records are read by, and scored by if there is a model.
#[derive(Debug, Clone)]
pub enum Held {
    /// A model.
    Model {
        /// The model.
        model: Arc<Model>,
        /// How long ago it was published, if that is known.
        age: Option<Duration>,
    },
    /// None could be loaded yet.
    Missing {
        /// What reads records as the endpoint takes them.
        features: Arc<Features>,
    },
}

impl Held {
    /// What records are read by.
    pub fn features(&self) -> &Features {
        match self {
            Self::Model { model, .. } => model.features(),
            Self::Missing { features } => features,
        }
    }

    /// The model, if there is one.
    pub fn model(&self) -> Option<&Model> {
        match self {
            Self::Model { model, .. } => Some(model),
            Self::Missing { .. } => None,
        }
    }

    /// A score on the model's own scale, whoever gave it. An endpoint's is mapped if the model has learned
    /// how; otherwise the scales are taken for equal, as they nearly are.
    #[expect(clippy::cast_possible_truncation, reason = "a score that was an f32")]
    pub fn on_local_scale(&self, score: f32, scorer: Scorer) -> f32 {
        let map = self.model().and_then(Model::endpoint_calibration);
        match map.filter(|_| scorer == Scorer::Endpoint) {
            Some(map) => map.to_local(f64::from(score)) as f32,
            None => score,
        }
    }

    fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Model { model: a, .. }, Self::Model { model: b, .. }) => Arc::ptr_eq(a, b),
            (Self::Missing { .. }, Self::Missing { .. }) => true,
            (Self::Model { .. }, Self::Missing { .. })
            | (Self::Missing { .. }, Self::Model { .. }) => false,
        }
    }
}

/// A model that a topic needs can't be had.
#[derive(Debug, thiserror::Error)]
#[error("MODEL_URI{}", of_topics(topics))]
pub struct ModelsError {
    /// The topics that have it, `*` among them; none if there is one model for all.
    pub topics: Vec<String>,
    /// Why.
    #[source]
    pub source: ModelStoreError,
}

fn of_topics(topics: &[String]) -> String {
    match topics {
        [] => String::new(),
        topics => format!(", topic {}", topics.join(", ")),
    }
}

impl Models {
    /// Loads every model, each once however many topics have it, all at the same time. Each is then
    /// checked at most once in `period`. With `without_model`, a model that can't be had is missing,
    /// and looked for until it is there.
    ///
    /// # Errors
    /// [`ModelsError`] for the first that fails, with its topics; never with `without_model`.
    pub async fn load(
        uris: ModelUris,
        period: Option<Duration>,
        without_model: Option<Features>,
        store: impl AsyncFn(ModelUri) -> ModelStore,
    ) -> Result<Self, ModelsError> {
        let may_be_missing = without_model.is_some();
        let mut topics: BTreeMap<ModelUri, Vec<String>> = BTreeMap::new();
        for (topic, uri) in &uris.by_topic {
            topics.entry(uri.clone()).or_default().push(topic.clone());
        }
        if let Some(uri) = &uris.otherwise {
            let others = topics.entry(uri.clone()).or_default();
            others.extend((!uris.by_topic.is_empty()).then(|| "*".to_owned()));
        }
        let loads = topics.into_iter().map(async |(uri, topics)| {
            let store = store(uri.clone()).await;
            match ModelSlot::load(store.clone(), period).await {
                Ok(slot) => Ok((uri, Arc::new(slot))),
                Err(missing) if may_be_missing => {
                    let reason = chain(&missing);
                    tracing::error!(reason, "no model: the endpoint scores until there is one");
                    Ok((uri, Arc::new(ModelSlot::missing(store, period))))
                }
                Err(source) => Err(ModelsError { topics, source }),
            }
        });
        let loaded: BTreeMap<ModelUri, Arc<ModelSlot>> =
            try_join_all(loads).await?.into_iter().collect();
        let of = |uri: &ModelUri| loaded.get(uri).map(Arc::clone);
        let by_topic = uris.by_topic.iter().filter_map(|(topic, uri)| {
            let slot = of(uri)?;
            Some((topic.clone(), slot))
        });
        Ok(Self {
            by_topic: by_topic.collect(),
            otherwise: uris.otherwise.as_ref().and_then(of),
            slots: loaded.values().map(Arc::clone).collect(),
            without_model: without_model.map(Arc::new),
        })
    }

    /// What a topic's records are scored by: its own model, or that of all others; `None` if there is
    /// neither.
    pub fn of(&self, topic: &str) -> Option<Held> {
        let slot = self.by_topic.get(topic).or(self.otherwise.as_ref())?;
        match (slot.model(), &self.without_model) {
            (Some(model), _) => Some(Held::Model { model, age: slot.age() }),
            (None, Some(features)) => Some(Held::Missing { features: Arc::clone(features) }),
            (None, None) => None,
        }
    }

    /// The models that are there.
    pub fn loaded(&self) -> impl Iterator<Item = Arc<Model>> {
        self.slots.iter().filter_map(|slot| slot.model())
    }

    /// Begins a check of the model that has gone unchecked for longest, if it is due: one in an
    /// invocation, so that as a rule one model more is in memory and not one more of each.
    pub fn check_if_due(&self) -> Option<Checking> {
        self.slots.iter().max_by_key(|slot| slot.unchecked())?.check_if_due()
    }

    /// What became of the checks since this was last asked.
    pub fn take_counts(&self) -> CheckCounts {
        self.slots.iter().map(|slot| slot.take_counts()).sum()
    }

    /// How long ago the oldest of the models in use was published, as far as it is known.
    pub fn age(&self) -> Option<Duration> {
        self.slots.iter().filter_map(|slot| slot.age()).max()
    }
}

/// The models of one batch's records, each of them held until the batch is done.
#[derive(Debug)]
pub(crate) struct Chosen {
    models: Vec<Held>,
    /// For each record the index of its model.
    of_record: Vec<Option<usize>>,
}

impl Chosen {
    /// Chooses models for records by their topics.
    pub(crate) fn new<'t>(
        topics: impl Iterator<Item = &'t str>,
        model_of: impl Fn(&str) -> Option<Held>,
    ) -> Self {
        let mut models: Vec<Held> = Vec::new();
        // A batch has few topics, and as a rule one after the other.
        let mut known: Vec<(&str, Option<usize>)> = Vec::new();
        let mut last: Option<(&str, Option<usize>)> = None;
        let mut choose = |topic: &'t str| {
            if let Some((_, choice)) = last.filter(|(seen, _)| *seen == topic) {
                return choice;
            }
            let choice = match known.iter().find(|(seen, _)| *seen == topic) {
                Some((_, choice)) => *choice,
                None => {
                    let choice = model_of(topic).map(|model| {
                        let at = models.iter().position(|held| held.is(&model));
                        at.unwrap_or_else(|| {
                            models.push(model);
                            models.len() - 1
                        })
                    });
                    known.push((topic, choice));
                    choice
                }
            };
            last = Some((topic, choice));
            choice
        };
        let of_record = topics.map(&mut choose).collect();
        Self { models, of_record }
    }

    /// Each model with the indexes of its records, in their order.
    pub(crate) fn groups(&self) -> impl Iterator<Item = (&Held, Vec<usize>)> {
        self.models.iter().enumerate().map(|(at, model)| {
            let records = self.of_record.iter().enumerate();
            let records = records.filter(|(_, choice)| **choice == Some(at));
            (model, records.map(|(record, _)| record).collect())
        })
    }

    /// Ids of the models that are there.
    pub(crate) fn ids(&self) -> Vec<&str> {
        self.models.iter().filter_map(Held::model).map(Model::id).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scorer::tests::model;
    use sawlog_model::ThresholdRule;

    #[tokio::test]
    async fn each_topic_has_its_model_and_the_others_the_one_for_all() {
        let folder = tempfile::tempdir().expect("folder");
        let file = |name: &str| ModelUri::File(folder.path().join(name));
        let (a, b) = (model(None), model(Some(ThresholdRule::Value(1.0))));
        std::fs::write(folder.path().join("a"), a.encode()).expect("written");
        std::fs::write(folder.path().join("b"), b.encode()).expect("written");
        let store = async |uri| match uri {
            ModelUri::File(path) => ModelStore::File(path),
            ModelUri::S3 { .. } => panic!("no S3 here"),
        };
        let uris = ModelUris {
            by_topic: [("orders".to_owned(), file("a")), ("web".to_owned(), file("b"))].into(),
            otherwise: Some(file("b")),
        };
        let models = Models::load(uris.clone(), None, None, store).await.expect("loaded");
        let of = |topic: &str| match models.of(topic) {
            Some(Held::Model { model, .. }) => Some(model),
            _ => None,
        };
        let id = |topic: &str| of(topic).map(|model| model.id().to_owned());
        assert_eq!(id("orders").as_deref(), Some(a.id()));
        assert_eq!((id("web"), id("other")), (Some(b.id().into()), Some(b.id().into())));
        let (web, other) = (of("web").expect("one"), of("other").expect("one"));
        assert!(Arc::ptr_eq(&web, &other), "loaded once");

        let one =
            Models::load(ModelUris { otherwise: None, ..uris.clone() }, None, None, store).await;
        assert!(one.expect("loaded").of("other").is_none());

        std::fs::remove_file(folder.path().join("b")).expect("removed");
        let error = Models::load(uris, None, None, store).await.expect_err("no b");
        assert_eq!(error.to_string(), "MODEL_URI, topic web, *");
        let error = Models::load(file("b").into(), None, None, store).await.expect_err("no b");
        assert_eq!(error.to_string(), "MODEL_URI");
    }

    #[test]
    fn records_are_grouped_by_model_in_their_order() {
        let held = || Held::Model { model: Arc::new(model(None)), age: None };
        let (a, b) = (held(), held());
        let topics = ["x", "y", "x", "none", "z", "y"];
        let chosen = Chosen::new(topics.into_iter(), |topic| match topic {
            "x" | "z" => Some(a.clone()),
            "y" => Some(b.clone()),
            _ => None,
        });
        let groups: Vec<Vec<usize>> = chosen.groups().map(|(_, records)| records).collect();
        assert_eq!(groups, [vec![0, 2, 4], vec![1, 5]]);
    }
}
