//! The model that batches are scored with, kept fresh while the function is warm.
//!
//! A function lives for hours, and models are published while it does. So at the start of an
//! invocation, at most once in the refresh period, a *check* sets out: a conditional GET that runs
//! beside the batch. What it finds is verified and only then put in place of the old model, in one
//! step; a batch on its way keeps the model that it began with. Whatever goes wrong with a check, the
//! old model stays:
//!
//! - What can't be used (damaged, no snapshot at all) is *refused*. Its version is remembered, and it
//!   is not fetched again until something else stands there.
//! - What can't be had (404, 403, no answer) has *failed*, and is tried again a period later.
//!
//! Lambda freezes the process as soon as an invocation is answered. The invocation that began a check
//! therefore waits for it a moment (`CHECK_WAIT`); one that is frozen all the same goes on when the
//! process does, or is given up for a new one when it has taken too long by either clock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use sawlog_model::Model;
use tokio::task::{AbortHandle, JoinHandle};
use tracing::Instrument as _;

use crate::deadline::{Moment, Until};
use crate::handler::chain;
use crate::model_store::{Found, Loaded, ModelFault, ModelStore, ModelStoreError, Version};

/// Longest that an answer waits for a check. S3 answers in 20 to 100 ms and a small model is here in
/// 200; without waiting, a function whose batches are shorter would be frozen in the middle of every
/// check. It is paid once in a refresh period.
const CHECK_WAIT: Duration = Duration::from_millis(250);

/// Longest time between two checks while there is no model at all: each batch costs an endpoint's
/// calls.
const MISSING_PERIOD: Duration = Duration::from_secs(10);

/// A check that began longer ago is given up: no fetch takes so long unless it was frozen, and its
/// connection is dead by then.
const CHECK_TIMEOUT: Duration = Duration::from_secs(30);

/// A model, where it comes from, and what is known of its freshness. Shared by all invocations.
#[derive(Debug)]
pub struct ModelSlot {
    store: ModelStore,
    /// Longest time between two checks; none: the model is never checked.
    period: Option<Duration>,
    /// None until a model could be loaded.
    current: ArcSwapOption<Loaded>,
    checks: Mutex<Checks>,
    counts: CheckCounters,
}

#[derive(Debug)]
struct Checks {
    /// When the last one began; at first, when the model was loaded.
    begun: Moment,
    running: Option<AbortHandle>,
    /// The content seen last, taken or refused.
    seen: Option<Version>,
}

/// What became of checks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CheckCounts {
    /// A new model was put in place.
    pub replaced: u64,
    /// What was there can't be used.
    pub refused: u64,
    /// Nothing could be had.
    pub failed: u64,
}

impl std::iter::Sum for CheckCounts {
    fn sum<I: Iterator<Item = Self>>(counts: I) -> Self {
        counts.fold(Self::default(), |a, b| Self {
            replaced: a.replaced + b.replaced,
            refused: a.refused + b.refused,
            failed: a.failed + b.failed,
        })
    }
}

#[derive(Debug, Default)]
struct CheckCounters {
    replaced: AtomicU64,
    refused: AtomicU64,
    failed: AtomicU64,
}

impl ModelSlot {
    /// Loads the model; it is then checked at most once in `period`.
    ///
    /// # Errors
    /// [`ModelStoreError`] names the URI and the fault.
    pub async fn load(
        store: ModelStore,
        period: Option<Duration>,
    ) -> Result<Self, ModelStoreError> {
        let begun = Moment::now();
        let found = store.find(None).await;
        let found = found.and_then(|Found { version, model }| Ok((version, model?)));
        match found {
            Ok((seen, loaded)) => Ok(Self {
                store,
                period,
                current: ArcSwapOption::from_pointee(loaded),
                checks: Mutex::new(Checks { begun, running: None, seen }),
                counts: CheckCounters::default(),
            }),
            Err(fault) => Err(ModelStoreError { uri: store.uri(), fault }),
        }
    }

    /// A place whose model can't be had yet; it is looked for until it can.
    pub fn missing(store: ModelStore, period: Option<Duration>) -> Self {
        Self {
            store,
            period,
            current: ArcSwapOption::empty(),
            checks: Mutex::new(Checks { begun: Moment::now(), running: None, seen: None }),
            counts: CheckCounters::default(),
        }
    }

    /// The model to score a batch with, to its end; `None` until one could be loaded.
    pub fn model(&self) -> Option<Arc<Model>> {
        Some(Arc::clone(&self.current.load().as_ref()?.model))
    }

    /// How long ago the model in place was published. Zero if the store's clock is ahead of this
    /// one's; `None` if the store doesn't tell, or there is no model.
    pub fn age(&self) -> Option<Duration> {
        let published = self.current.load().as_ref()?.published;
        published.map(|published| published.elapsed().unwrap_or_default())
    }

    /// How long ago the last check began.
    pub fn unchecked(&self) -> Duration {
        self.checks().begun.elapsed()
    }

    /// What became of the checks since this was last asked.
    pub fn take_counts(&self) -> CheckCounts {
        let take = |counter: &AtomicU64| counter.swap(0, Ordering::Relaxed);
        let CheckCounters { replaced, refused, failed } = &self.counts;
        CheckCounts { replaced: take(replaced), refused: take(refused), failed: take(failed) }
    }

    /// Begins a check if one is due and none is on its way.
    pub fn check_if_due(self: &Arc<Self>) -> Option<Checking> {
        let period = match self.current.load().is_some() {
            true => self.period?,
            false => self.period.map_or(MISSING_PERIOD, |period| period.min(MISSING_PERIOD)),
        };
        let mut checks = self.checks();
        let elapsed = checks.begun.elapsed();
        if let Some(running) = checks.running.take_if(|running| !running.is_finished()) {
            if elapsed <= CHECK_TIMEOUT {
                checks.running = Some(running);
                return None;
            }
            running.abort();
            self.failed(&ModelFault::Timeout);
        }
        if elapsed < period {
            return None;
        }
        checks.begun = Moment::now();
        let slot = Arc::clone(self);
        // Under the id of the invocation that began it.
        let check = tokio::spawn(async move { slot.check().await }.in_current_span());
        checks.running = Some(check.abort_handle());
        Some(Checking(check))
    }

    async fn check(&self) {
        let known = self.checks().seen.clone();
        match self.store.find(known.as_ref()).await {
            Ok(Found { version, model }) => self.take(version, model),
            Err(ModelFault::Unchanged) => {
                tracing::debug!(uri = self.store.uri(), "model unchanged")
            }
            Err(fault) => self.failed(&fault),
        }
    }

    /// Puts what was found in place, or refuses it; either way it is known from now on.
    fn take(&self, version: Option<Version>, found: Result<Loaded, ModelFault>) {
        let mut checks = self.checks();
        checks.seen = version;
        let uri = self.store.uri();
        match found {
            Ok(loaded) => {
                let before = self.model();
                if let Some(before) = before.as_ref().filter(|it| it.id() == loaded.model.id()) {
                    // Published again: the same model, younger.
                    let (model, published) = (Arc::clone(before), loaded.published);
                    self.current.store(Some(Arc::new(Loaded { model, published })));
                    return;
                }
                tracing::info!(
                    uri,
                    before = id_of(before.as_deref()),
                    now = loaded.model.id(),
                    "model replaced"
                );
                self.current.store(Some(Arc::new(loaded)));
                self.counts.replaced.fetch_add(1, Ordering::Relaxed);
            }
            Err(fault) => {
                let (reason, kept) = (chain(&fault), self.model());
                tracing::error!(uri, reason, kept = id_of(kept.as_deref()), "new model refused");
                self.counts.refused.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn failed(&self, fault: &ModelFault) {
        let (uri, reason, kept) = (self.store.uri(), chain(fault), self.model());
        tracing::warn!(uri, reason, kept = id_of(kept.as_deref()), "model check failed");
        self.counts.failed.fetch_add(1, Ordering::Relaxed);
    }

    fn checks(&self) -> MutexGuard<'_, Checks> {
        // Whoever panicked with it left every field sound.
        self.checks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The id of a model as logs give it.
fn id_of(model: Option<&Model>) -> &str {
    model.map_or("none", Model::id)
}

/// A check on its way.
#[derive(Debug)]
pub struct Checking(JoinHandle<()>);

impl Checking {
    /// Waits for its end, but no longer than `CHECK_WAIT`. It goes on all the same.
    pub async fn wait(self, until: Until) {
        let _ = until.limit(tokio::time::timeout(CHECK_WAIT, self.0)).await;
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::net::{TcpListener, TcpStream};
    use std::path::PathBuf;
    use std::time::{Instant, SystemTime};

    use sawlog_model::ThresholdRule;

    use super::*;
    use crate::scorer::tests::model;

    const PERIOD: Option<Duration> = Some(Duration::from_secs(300));

    fn snapshot(threshold: f64) -> Vec<u8> {
        model(Some(ThresholdRule::Value(threshold))).encode()
    }

    fn threshold(slot: &ModelSlot) -> Option<f64> {
        crate::verdict::threshold(&slot.model().expect("a model"))
    }

    async fn slot_of_file(
        period: Option<Duration>,
    ) -> (tempfile::TempDir, PathBuf, Arc<ModelSlot>) {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("m.model");
        std::fs::write(&path, snapshot(1.0)).expect("written");
        let slot = ModelSlot::load(ModelStore::File(path.clone()), period).await.expect("loaded");
        (folder, path, Arc::new(slot))
    }

    /// Lets the last check have begun a while ago.
    fn age_check(slot: &ModelSlot, by: Duration) {
        let mut checks = slot.checks();
        checks.begun.wall = checks.begun.wall.checked_sub(by).expect("after 1970");
    }

    /// Has a check made; what became of it.
    async fn check(slot: &Arc<ModelSlot>) -> CheckCounts {
        age_check(slot, Duration::from_secs(301));
        let Checking(check) = slot.check_if_due().expect("due");
        check.await.expect("no panic");
        slot.take_counts()
    }

    #[tokio::test]
    async fn a_new_model_takes_the_place_of_the_old_one_but_not_under_a_batch() {
        let (_folder, path, slot) = slot_of_file(PERIOD).await;
        let of_batch = slot.model();
        std::fs::write(&path, snapshot(2.0)).expect("written");
        assert_eq!(check(&slot).await, CheckCounts { replaced: 1, ..Default::default() });
        assert_eq!(threshold(&slot), Some(2.0));
        assert_eq!(crate::verdict::threshold(&of_batch.expect("a model")), Some(1.0));
    }

    #[tokio::test]
    async fn a_bad_model_is_refused_once_and_the_old_one_kept_until_a_good_one_comes() {
        let (_folder, path, slot) = slot_of_file(PERIOD).await;
        let mut bad = snapshot(2.0);
        bad[40] ^= 1;
        std::fs::write(&path, bad).expect("written");
        assert_eq!(check(&slot).await, CheckCounts { refused: 1, ..Default::default() });
        assert_eq!(check(&slot).await, CheckCounts::default(), "it is known");
        assert_eq!(threshold(&slot), Some(1.0));
        std::fs::write(&path, snapshot(3.0)).expect("written");
        assert_eq!(check(&slot).await, CheckCounts { replaced: 1, ..Default::default() });
        assert_eq!(threshold(&slot), Some(3.0));
    }

    #[tokio::test]
    async fn a_model_that_is_gone_stays_in_use_and_is_looked_for_again() {
        let (_folder, path, slot) = slot_of_file(PERIOD).await;
        std::fs::remove_file(&path).expect("removed");
        for _each in 0..2 {
            assert_eq!(check(&slot).await, CheckCounts { failed: 1, ..Default::default() });
            assert_eq!(threshold(&slot), Some(1.0));
        }
    }

    #[tokio::test]
    async fn a_model_that_was_missing_is_looked_for_often_and_taken_when_it_comes() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("m.model");
        for period in [PERIOD, None] {
            let slot = Arc::new(ModelSlot::missing(ModelStore::File(path.clone()), period));
            assert!(slot.check_if_due().is_none(), "it was looked for just now");
            for (bytes, counts) in [
                (None, CheckCounts { failed: 1, ..Default::default() }),
                (Some(b"no model".to_vec()), CheckCounts { refused: 1, ..Default::default() }),
                (Some(snapshot(2.0)), CheckCounts { replaced: 1, ..Default::default() }),
            ] {
                if let Some(bytes) = bytes {
                    std::fs::write(&path, bytes).expect("written");
                }
                assert!(slot.model().is_none() && slot.age().is_none());
                age_check(&slot, Duration::from_secs(11));
                let Checking(check) = slot.check_if_due().expect("due");
                check.await.expect("no panic");
                assert_eq!(slot.take_counts(), counts);
            }
            assert_eq!(threshold(&slot), Some(2.0));
            std::fs::remove_file(&path).expect("removed");
        }
    }

    #[tokio::test]
    async fn the_same_model_published_again_is_only_younger() {
        let (_folder, path, slot) = slot_of_file(PERIOD).await;
        let before = slot.model().expect("a model");
        let file = std::fs::File::options().write(true).open(&path).expect("there");
        let hour = Duration::from_secs(3600);
        file.set_modified(SystemTime::now() - hour).expect("set");
        assert_eq!(check(&slot).await, CheckCounts::default());
        assert!(slot.age().expect("known") >= hour, "{:?}", slot.age());
        assert!(Arc::ptr_eq(&before, &slot.model().expect("a model")));
        file.set_modified(SystemTime::now() + hour).expect("set");
        assert_eq!(check(&slot).await, CheckCounts::default());
        assert_eq!(slot.age(), Some(Duration::ZERO), "a clock that is ahead");
    }

    #[tokio::test]
    async fn checks_are_made_when_due_and_one_at_a_time() {
        let (_folder, _path, slot) = slot_of_file(PERIOD).await;
        assert!(slot.check_if_due().is_none(), "it was loaded just now");
        age_check(&slot, Duration::from_secs(301));
        let first = slot.check_if_due().expect("due");
        assert!(slot.check_if_due().is_none(), "one is on its way");
        first.wait(Until::FOREVER).await;
        assert!(slot.check_if_due().is_none(), "one was made");
        let (_folder, _path, never) = slot_of_file(None).await;
        age_check(&never, Duration::from_secs(1_000_000));
        assert!(never.check_if_due().is_none());
    }

    /// S3 as far as a GET goes: each request is answered as the function says, given the entity tag
    /// that it has already. An answer of `None` never comes.
    fn s3(
        mut answer: impl FnMut(Option<String>) -> Option<(u16, Vec<u8>)> + Send + 'static,
    ) -> ModelStore {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        std::thread::spawn(move || {
            let mut silent: Vec<TcpStream> = Vec::new();
            for stream in listener.incoming() {
                let mut reader = BufReader::new(stream.expect("connected"));
                let (mut tag, mut line) = (None, String::new());
                while reader.read_line(&mut line).expect("a header") > 2 {
                    if let Some(("if-none-match", value)) = line.split_once(": ") {
                        tag = Some(value.trim().to_owned());
                    }
                    line.clear();
                }
                let mut stream = reader.into_inner();
                let Some((status, body)) = answer(tag) else {
                    silent.push(stream);
                    continue;
                };
                let head = format!(
                    "HTTP/1.1 {status} .\r\nConnection: close\r\nETag: \"{}\"\r\n\
                     Last-Modified: Wed, 21 Oct 2015 07:28:00 GMT\r\nContent-Length: {}\r\n\r\n",
                    body.len(),
                    if status == 304 { 0 } else { body.len() }
                );
                stream.write_all(head.as_bytes()).expect("answered");
                if status != 304 {
                    stream.write_all(&body).expect("answered");
                }
            }
        });
        let config = aws_sdk_s3::Config::builder()
            .behavior_version(aws_sdk_s3::config::BehaviorVersion::v2026_01_12())
            .region(aws_sdk_s3::config::Region::new("eu-west-1"))
            .retry_config(aws_sdk_s3::config::retry::RetryConfig::disabled())
            .endpoint_url(url)
            .force_path_style(true)
            .allow_no_auth();
        let client = aws_sdk_s3::Client::from_conf(config.build());
        ModelStore::S3 { client, bucket: "models".into(), key: "m".into() }
    }

    #[tokio::test]
    async fn the_tag_seen_last_is_sent_and_not_modified_is_no_fault() {
        let (sent, tags) = std::sync::mpsc::channel();
        let (good, bad) = (snapshot(1.0), b"no snapshot".to_vec());
        let (good_tag, bad_tag) = (format!("\"{}\"", good.len()), format!("\"{}\"", bad.len()));
        let mut call = 0;
        let store = s3(move |tag| {
            sent.send(tag).expect("a listener");
            call += 1;
            Some(match call {
                1 => (200, good.clone()),
                2 | 4 => (304, Vec::new()),
                3 => (200, bad.clone()),
                _ => (403, Vec::new()),
            })
        });
        let slot = Arc::new(ModelSlot::load(store, PERIOD).await.expect("loaded"));
        let loaded = slot.model().expect("a model");
        assert!(slot.age().expect("known").as_secs() > 300_000_000, "since 2015: {:?}", slot.age());
        let refused = CheckCounts { refused: 1, ..Default::default() };
        let failed = CheckCounts { failed: 1, ..Default::default() };
        for expected in [CheckCounts::default(), refused, CheckCounts::default(), failed] {
            assert_eq!(check(&slot).await, expected);
            assert!(
                Arc::ptr_eq(&loaded, &slot.model().expect("a model")),
                "nothing was decoded or replaced"
            );
        }
        let sent: Vec<Option<String>> = tags.try_iter().collect();
        let (good, bad) = (Some(good_tag), Some(bad_tag));
        assert_eq!(sent, [None, good.clone(), good, bad.clone(), bad]);
    }

    #[tokio::test]
    async fn a_check_without_an_answer_holds_nobody_up_and_is_given_up_in_the_end() {
        let mut call = 0;
        let good = snapshot(1.0);
        let store = s3(move |_| {
            call += 1;
            (call != 2).then(|| (200, good.clone()))
        });
        let slot = Arc::new(ModelSlot::load(store, PERIOD).await.expect("loaded"));
        age_check(&slot, Duration::from_secs(301));
        let started = Instant::now();
        slot.check_if_due().expect("due").wait(Until::FOREVER).await;
        let waited = started.elapsed();
        assert!((CHECK_WAIT..4 * CHECK_WAIT).contains(&waited), "{waited:?}");
        // As after a freeze: by the wall clock a minute has gone.
        age_check(&slot, Duration::from_secs(60));
        assert!(slot.check_if_due().is_none(), "the period is not over");
        assert_eq!(slot.take_counts(), CheckCounts { failed: 1, ..Default::default() });
        assert_eq!(check(&slot).await, CheckCounts::default(), "answered again");
    }
}
