//! The circuit breaker: an endpoint that failed again and again is left alone for a while.
//!
//! ```text
//!           FAILURES_TO_OPEN in a row          the cool-down is over, one call asks
//!  Closed ---------------------------> Open <------------------------------------> HalfOpen
//!    ^                                          it fails too                          |
//!    +--------------------------------------------------------------------------------+
//!                                  it is answered
//! ```
//!
//! Without it every batch would wait out the time-outs of an endpoint that is down, before it is
//! scored in the function after all.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::deadline::Moment;

/// Calls that fail one after the other, each with its retries, until no more are made. One may be a
/// deploy or a full instance; the third costs as much time as all before and tells nothing new.
const FAILURES_TO_OPEN: u32 = 3;

/// Whether an endpoint is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerState {
    /// It is.
    Closed,
    /// It is not.
    Open,
    /// One call is on its way to find out.
    HalfOpen,
}

impl BreakerState {
    /// As logs and metrics name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

#[derive(Debug)]
pub(super) struct Breaker {
    cooldown: Duration,
    circuit: Mutex<Circuit>,
}

#[derive(Debug)]
enum Circuit {
    /// So many calls failed since the last that was answered.
    Closed {
        failures: u32,
    },
    Open {
        since: Moment,
    },
    HalfOpen {
        since: Moment,
    },
}

/// Leave to make a call. Dropped without a word, it changes nothing.
#[derive(Debug)]
pub(super) struct Permit<'b> {
    breaker: &'b Breaker,
    is_probe: bool,
    is_settled: bool,
}

impl Breaker {
    pub(super) fn new(cooldown: Duration) -> Self {
        Self { cooldown, circuit: Mutex::new(Circuit::Closed { failures: 0 }) }
    }

    pub(super) fn state(&self) -> BreakerState {
        match *self.circuit() {
            Circuit::Closed { .. } => BreakerState::Closed,
            Circuit::Open { .. } => BreakerState::Open,
            Circuit::HalfOpen { .. } => BreakerState::HalfOpen,
        }
    }

    /// Leave to make a call; `None` while there is none.
    pub(super) fn admit(&self) -> Option<Permit<'_>> {
        let mut circuit = self.circuit();
        let is_probe = match *circuit {
            Circuit::Closed { .. } => false,
            Circuit::Open { since } if since.elapsed() >= self.cooldown => {
                *circuit = Circuit::HalfOpen { since };
                true
            }
            Circuit::Open { .. } | Circuit::HalfOpen { .. } => return None,
        };
        Some(Permit { breaker: self, is_probe, is_settled: false })
    }

    fn open(&self, circuit: &mut Circuit) {
        if !matches!(circuit, Circuit::Open { .. }) {
            let secs = self.cooldown.as_secs_f64();
            tracing::warn!(cooldown_secs = secs, "the endpoint is not called for a while");
        }
        *circuit = Circuit::Open { since: Moment::now() };
    }

    fn circuit(&self) -> MutexGuard<'_, Circuit> {
        // Whoever panicked with it left it sound.
        self.circuit.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Permit<'_> {
    /// The endpoint answered; it can be called.
    pub(super) fn answered(mut self) {
        self.is_settled = true;
        let mut circuit = self.breaker.circuit();
        match *circuit {
            // A call that set out before it opened says nothing of now.
            Circuit::Open { .. } => {}
            Circuit::HalfOpen { .. } if !self.is_probe => {}
            Circuit::HalfOpen { .. } => {
                tracing::info!("the endpoint answers again");
                *circuit = Circuit::Closed { failures: 0 };
            }
            Circuit::Closed { .. } => *circuit = Circuit::Closed { failures: 0 },
        }
    }

    /// It did not.
    pub(super) fn failed(mut self) {
        self.is_settled = true;
        let mut circuit = self.breaker.circuit();
        match *circuit {
            Circuit::Closed { failures } if failures + 1 < FAILURES_TO_OPEN => {
                *circuit = Circuit::Closed { failures: failures + 1 };
            }
            Circuit::Closed { .. } => self.breaker.open(&mut circuit),
            Circuit::HalfOpen { .. } if self.is_probe => self.breaker.open(&mut circuit),
            Circuit::HalfOpen { .. } | Circuit::Open { .. } => {}
        }
    }

    /// It refuses in a way that another call won't change.
    pub(super) fn refused(mut self) {
        self.is_settled = true;
        let mut circuit = self.breaker.circuit();
        if self.is_probe || matches!(*circuit, Circuit::Closed { .. }) {
            self.breaker.open(&mut circuit);
        }
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        if self.is_settled || !self.is_probe {
            return;
        }
        // Nobody waited for the answer: the next call may ask.
        let mut circuit = self.breaker.circuit();
        if let Circuit::HalfOpen { since } = *circuit {
            *circuit = Circuit::Open { since };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(cooldown: Duration) -> Breaker {
        let breaker = Breaker::new(cooldown);
        for _each in 0..FAILURES_TO_OPEN {
            assert_eq!(breaker.state(), BreakerState::Closed);
            breaker.admit().expect("closed").failed();
        }
        breaker
    }

    #[test]
    fn it_opens_after_failures_in_a_row_and_not_before() {
        let breaker = Breaker::new(Duration::from_secs(60));
        for _each in 0..10 {
            breaker.admit().expect("closed").failed();
            breaker.admit().expect("closed").failed();
            breaker.admit().expect("closed").answered();
        }
        assert_eq!(breaker.state(), BreakerState::Closed);
        let breaker = opened(Duration::from_secs(60));
        assert_eq!(breaker.state(), BreakerState::Open);
        assert!(breaker.admit().is_none(), "the cool-down has just begun");
        let breaker = Breaker::new(Duration::from_secs(60));
        breaker.admit().expect("closed").refused();
        assert_eq!(breaker.state(), BreakerState::Open);
    }

    #[test]
    fn after_the_cool_down_one_call_asks_and_closes_it_or_opens_it_again() {
        let breaker = opened(Duration::ZERO);
        let probe = breaker.admit().expect("the cool-down is over");
        assert_eq!(breaker.state(), BreakerState::HalfOpen);
        assert!(breaker.admit().is_none(), "one at a time");
        probe.failed();
        assert_eq!(breaker.state(), BreakerState::Open);
        breaker.admit().expect("over again").refused();
        assert_eq!(breaker.state(), BreakerState::Open);
        breaker.admit().expect("over again").answered();
        assert_eq!(breaker.state(), BreakerState::Closed);
        breaker.admit().expect("closed").failed();
        assert_eq!(breaker.state(), BreakerState::Closed, "the count began anew");
    }

    #[test]
    fn a_probe_that_nobody_waited_for_lets_the_next_one_ask() {
        let breaker = opened(Duration::ZERO);
        drop(breaker.admit().expect("over"));
        assert_eq!(breaker.state(), BreakerState::Open);
        breaker.admit().expect("still over").answered();
        assert_eq!(breaker.state(), BreakerState::Closed);
    }

    #[test]
    fn calls_from_before_it_opened_neither_close_it_nor_end_the_probe() {
        let breaker = Breaker::new(Duration::ZERO);
        let (old, older) = (breaker.admit().expect("closed"), breaker.admit().expect("closed"));
        breaker.admit().expect("closed").refused();
        old.answered();
        assert_eq!(breaker.state(), BreakerState::Open);
        let probe = breaker.admit().expect("over");
        older.failed();
        assert_eq!(breaker.state(), BreakerState::HalfOpen);
        probe.answered();
        assert_eq!(breaker.state(), BreakerState::Closed);
    }
}
