//! Two pieces of a cold load at the same time.

use std::panic::resume_unwind;
use std::thread;

/// Bytes from which on it is worth to start a thread, which takes some 50 µs: a checksum over half of
/// them takes as long, and everything else far longer.
const FROM_BYTES: usize = 128 << 10;

/// Does both, the first on a thread of its own if so many bytes are worth it and there can be one.
pub(crate) fn beside<A: Send, B>(
    bytes: usize,
    there: impl Fn() -> A + Sync,
    here: impl FnOnce() -> B,
) -> (A, B) {
    if bytes < FROM_BYTES {
        return (there(), here());
    }
    thread::scope(|scope| {
        let started = thread::Builder::new().spawn_scoped(scope, &there);
        let here = here();
        let there = match started {
            Ok(thread) => thread.join().unwrap_or_else(|panic| resume_unwind(panic)),
            Err(_) => there(),
        };
        (there, here)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_are_done_whatever_their_size() {
        let main = thread::current().id();
        for (bytes, is_here) in [(0, true), (FROM_BYTES - 1, true), (FROM_BYTES, false)] {
            let id = || thread::current().id();
            let (there, here) = beside(bytes, id, id);
            assert_eq!((there == main, here == main), (is_here, true), "of {bytes} bytes");
        }
    }
}
