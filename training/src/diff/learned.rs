//! What two models have learned of their features, side by side.

use std::collections::BTreeSet;

use sawlog_model::spec::FeatureSpec;
use sawlog_model::{Features, Fitted};
use serde::Serialize;

/// One feature in both models.
#[derive(Debug, Serialize)]
pub(super) struct Feature<'m> {
    pub name: &'m str,
    pub status: Status,
    /// How it is read and encoded; none where the model doesn't have it.
    pub old_spec: Option<&'m FeatureSpec>,
    pub new_spec: Option<&'m FeatureSpec>,
    /// What was learned of it.
    pub old: Option<&'m Fitted>,
    pub new: Option<&'m Fitted>,
    /// Categories that only the new model knows, and only the old one.
    pub categories_added: Vec<&'m str>,
    pub categories_removed: Vec<&'m str>,
}

/// What becomes of a feature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Status {
    /// It is read and encoded as before.
    Kept,
    /// It is read or encoded in another way.
    Changed,
    /// Only the new model has it.
    Added,
    /// Only the old model has it.
    Removed,
}

/// All features: first those of the new model in its order, then those that it lacks.
pub(super) fn features<'m>(old: &'m Features, new: &'m Features) -> Vec<Feature<'m>> {
    type Known<'m> = (&'m FeatureSpec, &'m Fitted);
    let of = |features: &'m Features| -> Vec<Known<'m>> {
        features.spec().features().iter().zip(features.fitted()).collect()
    };
    let (old, new) = (of(old), of(new));
    let find = |among: &[Known<'m>], name: &str| among.iter().copied().find(|it| it.0.name == name);
    let removed = old.iter().filter(|it| find(&new, &it.0.name).is_none());
    let pairs = new.iter().map(|it| (find(&old, &it.0.name), Some(*it)));
    let pairs = pairs.chain(removed.map(|it| (Some(*it), None)));
    let feature = |(old, new): (Option<Known<'m>>, Option<Known<'m>>)| {
        let status = match (old, new) {
            (Some((old, _)), Some((new, _))) if old == new => Status::Kept,
            (Some(_), Some(_)) => Status::Changed,
            (None, _) => Status::Added,
            (_, None) => Status::Removed,
        };
        let known = |side: Option<Known<'m>>| categories(side.map(|(_, fitted)| fitted));
        let (before, after) = (known(old), known(new));
        let name = new.or(old).map_or("", |(spec, _)| &spec.name);
        Feature {
            name,
            status,
            old_spec: old.map(|(spec, _)| spec),
            new_spec: new.map(|(spec, _)| spec),
            old: old.map(|(_, fitted)| fitted),
            new: new.map(|(_, fitted)| fitted),
            categories_added: after.difference(&before).copied().collect(),
            categories_removed: before.difference(&after).copied().collect(),
        }
    };
    pairs.map(feature).collect()
}

fn categories(fitted: Option<&Fitted>) -> BTreeSet<&str> {
    match fitted {
        Some(Fitted::OneHot { categories }) => categories.iter().map(String::as_str).collect(),
        Some(Fitted::Frequency { categories, .. }) => {
            categories.iter().map(|(name, _)| name.as_str()).collect()
        }
        Some(Fitted::Constant | Fitted::Number { .. }) | None => BTreeSet::new(),
    }
}
