//! A progress bar on a terminal, and nothing in a pipe.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Progress through `total` units of work, or a spinner where the total is 0 (unknown).
pub(crate) struct Progress(ProgressBar);

impl Progress {
    /// Progress over bytes: with rate and time left.
    pub(crate) fn over_bytes(what: &'static str, total: u64) -> Self {
        let known = "{msg:9} {bar:20} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left";
        Self::new(what, total, known, "{msg:9} {spinner} {bytes}, {bytes_per_sec}")
    }

    /// Progress over things counted.
    pub(crate) fn over_items(what: &'static str, total: u64) -> Self {
        let known = "{msg:9} {bar:20} {human_pos} of {human_len}, {eta} left";
        Self::new(what, total, known, "{msg:9} {spinner} {human_pos}")
    }

    fn new(what: &'static str, total: u64, known: &str, unknown: &str) -> Self {
        // Standard error that is no terminal draws nothing.
        let bar = if total == 0 { ProgressBar::new_spinner() } else { ProgressBar::new(total) };
        bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(10));
        if let Ok(style) = ProgressStyle::with_template(if total == 0 { unknown } else { known }) {
            bar.set_style(style);
        }
        bar.set_message(what);
        Self(bar)
    }

    /// Moves on by `count`.
    pub(crate) fn add(&self, count: u64) {
        self.0.inc(count);
    }

    /// Takes the bar off the screen.
    pub(crate) fn finish(self) {
        self.0.finish_and_clear();
    }
}
