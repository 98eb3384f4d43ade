//! A record in words: where it stands, and the features that make it unusual.

use sawlog_lambda::{Origin, Verdict};

/// Parts of a score that are not named are less than this.
pub(super) const NAMED: f32 = 0.05;
/// Most features named.
const MAX_NAMED: usize = 3;

/// One feature's part in a score.
pub(crate) struct Reason<'a> {
    /// Index of the feature.
    pub feature: usize,
    /// Its name.
    pub name: &'a str,
    /// Its part of the score, 0 to 1.
    pub share: f32,
    /// Rather because it lies above what was seen than below.
    pub is_high: bool,
    /// With a shingle, how many records before the newest stands the one that most of it comes from.
    pub lag: Option<usize>,
}

/// The features of a record, the one with the greatest part first.
pub(crate) fn reasons<'a>(verdict: &'a Verdict<'_>) -> Vec<Reason<'a>> {
    let shares = verdict.attribution().into_iter().flatten().enumerate();
    let mut reasons: Vec<Reason<'a>> = shares
        .map(|(feature, (name, share))| Reason {
            feature,
            name,
            share: share.share,
            is_high: share.high >= share.low,
            lag: share.lag,
        })
        .collect();
    reasons.sort_by(|a, b| b.share.total_cmp(&a.share));
    reasons
}

/// The features that a score mostly comes from.
pub(crate) fn because(verdict: &Verdict<'_>) -> String {
    let reasons = reasons(verdict).into_iter().filter(|reason| reason.share >= NAMED);
    let because = reasons.take(MAX_NAMED).map(|reason| {
        let way = if reason.is_high { "high" } else { "low" };
        format!("{} {way} {:.0} %", reason.name, 100.0 * reason.share)
    });
    because.collect::<Vec<_>>().join(", ")
}

/// Where a record stands: file and line.
pub(crate) fn place(verdict: &Verdict<'_>) -> String {
    match verdict.origin() {
        Origin::File { path, line, .. } => format!("{path}:{line}"),
        other => other.identity(),
    }
}
