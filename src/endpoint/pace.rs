//! The limit on calls a second, over all invocations of a warm function.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::deadline::Until;

/// Gives each call the next free moment. Without a limit every moment is free.
#[derive(Debug)]
pub(super) struct Pace {
    /// Time between two calls.
    interval: Duration,
    /// When the next one may set out.
    next: Mutex<Instant>,
}

impl Pace {
    pub(super) fn new(calls_per_sec: Option<f64>) -> Self {
        let interval =
            calls_per_sec.map_or(Duration::ZERO, |rate| Duration::from_secs_f64(1.0 / rate));
        Self { interval, next: Mutex::new(Instant::now()) }
    }

    /// Waits for the call's moment; `None` if the time is over before, and then no moment is taken.
    pub(super) async fn wait(&self, until: Until) -> Option<()> {
        let at = {
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            let at = (*next).max(Instant::now());
            if !until.is_after(at) {
                return None;
            }
            *next = at + self.interval;
            at
        };
        until.limit(tokio::time::sleep_until(at.into())).await
    }

    /// Takes the next moment for a call that does not wait for it, a retry: the others wait longer.
    pub(super) fn take(&self) {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        *next = (*next).max(Instant::now()) + self.interval;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn calls_set_out_one_after_the_other_and_retries_count() {
        let pace = Pace::new(Some(100.0));
        let started = Instant::now();
        for _each in 0..4 {
            pace.wait(Until::FOREVER).await.expect("no limit of time");
        }
        pace.take();
        let next = *pace.next.lock().expect("sound");
        assert!(next >= started + Duration::from_millis(50), "{:?}", next - started);
    }

    #[tokio::test]
    async fn a_call_that_would_wait_too_long_is_not_made() {
        let pace = Pace::new(Some(0.001));
        assert_eq!(pace.wait(Until::FOREVER.within(Duration::from_secs(5))).await, Some(()));
        assert_eq!(pace.wait(Until::FOREVER.within(Duration::from_secs(5))).await, None);
    }

    #[tokio::test]
    async fn without_a_limit_nothing_waits() {
        let pace = Pace::new(None);
        for _each in 0..1000 {
            assert_eq!(pace.wait(Until::FOREVER).await, Some(()));
        }
        let next = *pace.next.lock().expect("sound");
        assert!(next <= Instant::now());
    }
}
