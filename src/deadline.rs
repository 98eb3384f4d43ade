//! Until when work may go on.
//!
//! Lambda kills a function at its deadline, and a killed function answers nothing: the whole batch
//! comes again although most of it may be stored. So work stops a reserve before the deadline, and
//! what isn't done by then is reported as failed.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::time;

/// Lambda's longest time-out, with a minute for clocks that differ. A deadline further away is not
/// believed.
const LONGEST_INVOCATION: Duration = Duration::from_secs(900 + 60);

/// The instant of a deadline given in milliseconds since 1970, as the Runtime API gives it. `None`
/// for one that is already past or further away than any invocation lasts: emulators send a constant
/// in 1970, and stopping at it would mean never to work.
pub fn from_epoch_ms(deadline_ms: u64) -> Option<Instant> {
    let (now, clock) = (Instant::now(), SystemTime::now());
    let deadline = UNIX_EPOCH.checked_add(Duration::from_millis(deadline_ms))?;
    let left = deadline.duration_since(clock).ok()?;
    if left.is_zero() || left > LONGEST_INVOCATION {
        return None;
    }
    now.checked_add(left)
}

/// The instant after which no work is begun or waited for; without one, work goes on to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Until(Option<time::Instant>);

impl Until {
    /// No limit.
    pub const FOREVER: Self = Self(None);

    /// The given reserve before the deadline.
    pub fn before(deadline: Option<Instant>, reserve: Duration) -> Self {
        // Earlier than the clock can say is long past.
        let until =
            |at: Instant| at.checked_sub(reserve).map_or_else(time::Instant::now, Into::into);
        Self(deadline.map(until))
    }

    /// So long from now, or as long as there is, whichever is less.
    pub fn within(self, limit: Duration) -> Self {
        let soon = time::Instant::now() + limit;
        Self(Some(self.0.map_or(soon, |at| at.min(soon))))
    }

    /// Half of the time that is left, so that what comes after has as much.
    pub fn half(self) -> Self {
        let now = time::Instant::now();
        Self(self.0.map(|at| now + at.saturating_duration_since(now) / 2))
    }

    /// True if there is time until an instant and beyond.
    pub fn is_after(self, instant: Instant) -> bool {
        self.0.is_none_or(|at| at > instant.into())
    }

    /// True when nothing more may be begun.
    pub fn is_over(self) -> bool {
        self.0.is_some_and(|at| at <= time::Instant::now())
    }

    /// Waits for a piece of work; `None` if it is not done in time, and then it is dropped. Nothing
    /// is begun when the time is over already.
    pub async fn limit<F: Future>(self, work: F) -> Option<F::Output> {
        match self.0 {
            _ if self.is_over() => None,
            None => Some(work.await),
            Some(at) => time::timeout_at(at, work).await.ok(),
        }
    }
}

/// A point in time by both clocks: while a process is frozen either may stand still, and the wall
/// clock may be set back.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    pub(crate) instant: Instant,
    pub(crate) wall: SystemTime,
}

impl Moment {
    pub(crate) fn now() -> Self {
        Self { instant: Instant::now(), wall: SystemTime::now() }
    }

    /// The time since then, by the clock that has gone further.
    pub(crate) fn elapsed(self) -> Duration {
        self.instant.elapsed().max(self.wall.elapsed().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epoch_ms_in(offset_ms: i64) -> u64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis();
        u64::try_from(now).expect("fits").saturating_add_signed(offset_ms)
    }

    #[test]
    fn a_plausible_deadline_is_kept_and_any_other_is_none() {
        let before = Instant::now();
        let deadline = from_epoch_ms(epoch_ms_in(30_000)).expect("plausible");
        let (half_a_minute, took) = (Duration::from_secs(30), before.elapsed());
        let slack = took + Duration::from_millis(2);
        assert!(deadline <= before + half_a_minute + slack, "{deadline:?}, {before:?}");
        assert!(deadline >= before + half_a_minute - slack, "{deadline:?}, {before:?}");
        for nonsense in [0, 600_000, epoch_ms_in(-5), epoch_ms_in(3_600_000), u64::MAX] {
            assert_eq!(from_epoch_ms(nonsense), None, "{nonsense}");
        }
    }

    // Without a clock of the tests' own, which would have tokio, and all that is built on it, compiled
    // once more: an hour and what a busy machine takes for a step are far enough apart.
    #[tokio::test]
    async fn work_stops_a_reserve_before_the_deadline() {
        let deadline = Instant::now() + Duration::from_secs(7200);
        let until = Until::before(Some(deadline), Duration::from_secs(3600));
        assert!(!until.is_over());
        assert_eq!(until.limit(async { 7 }).await, Some(7));
        let soon = Until::before(Some(deadline), Duration::from_millis(7_199_980));
        assert_eq!(soon.limit(std::future::pending::<()>()).await, None);
        assert!(soon.is_over() && Instant::now() < deadline);
        assert_eq!(soon.limit(async { 7 }).await, None, "nothing is begun after it");
        assert_eq!(Until::FOREVER.limit(async { 7 }).await, Some(7));
    }

    #[test]
    fn half_of_the_time_leaves_as_much_for_what_follows() {
        let now = Instant::now();
        let whole = Until::before(Some(now + Duration::from_secs(10_000)), Duration::ZERO);
        let half = whole.half();
        assert!(half.is_after(now + Duration::from_secs(4_900)));
        assert!(!half.is_after(now + Duration::from_secs(5_100)));
        assert_eq!(Until::FOREVER.half(), Until::FOREVER);
        assert!(Until::before(Some(now), Duration::ZERO).half().is_over());
    }
}
