//! Inputs read on all cores, when it makes no difference in which order records are taken.
//!
//! All threads do the same: take a block apart if one is waiting, else open the next input and read it,
//! decompressing on the way. A reader puts its blocks where the others find them and takes one apart itself
//! only if enough are waiting. So one large stream is decompressed by one thread and taken apart by all,
//! many small ones are read side by side, and nobody waits while there is something to do. With a
//! shingle a reader takes all of its blocks apart itself, in order.
//!
//! Waiting are at most two blocks a thread, so memory does not depend on the input. An error of an input
//! ends the run after the inputs before it: which error is told does not depend on threads.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::blocks::Block;
use super::period::Way;
use super::stream::{Head, Moved, Stream};
use super::{InputError, Record, Source};

/// Blocks that may wait, for each thread.
const WAITING_PER_THREAD: usize = 2;

/// What one thread does with the records that it is given.
pub(crate) trait Taker: Send {
    /// Takes a record, in no particular order.
    fn take(&mut self, record: Record<'_>);
    /// Is told now and then: after each block of some thousand records, and at last.
    fn pause(&mut self);
}

/// Reads every record of all inputs once, on as many threads as there are takers. Returns the way, with the
/// columns that the first header of a CSV gave, and the takers.
///
/// # Errors
/// [`InputError`] of the first input that has one. A bad record is no error.
pub(crate) fn read_all<T: Taker>(
    sources: &[Source],
    mut way: Way,
    moved: Moved<'_>,
    takers: Vec<T>,
) -> Result<(Way, Vec<T>), InputError> {
    let mut left = sources.iter();
    // All inputs are read by the columns of the first that has any.
    let mut begun = None;
    while way.spec.needs_header()
        && let Some(source) = left.next()
    {
        let stream = Stream::open(source, &way, moved)?;
        way = stream.head.way.clone();
        begun = Some(stream);
    }
    let work = Work {
        state: Mutex::new(State {
            begun,
            left,
            reading: 0,
            waiting: VecDeque::new(),
            spare: Vec::new(),
            fault: None,
        }),
        changed: Condvar::new(),
        most_waiting: WAITING_PER_THREAD * takers.len(),
        way: way.clone(),
        moved,
    };
    let takers = std::thread::scope(|scope| {
        let run = |mut taker: T| {
            let work = &work;
            scope.spawn(move || {
                work.run(&mut taker);
                taker
            })
        };
        let threads: Vec<_> = takers.into_iter().map(run).collect();
        let ended = threads.into_iter().map(std::thread::ScopedJoinHandle::join);
        ended.map(|taker| taker.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    });
    let state = work.state.into_inner().unwrap_or_else(PoisonError::into_inner);
    match state.fault {
        Some((_, fault)) => Err(fault),
        None => Ok((way, takers)),
    }
}

/// What the threads share.
struct Work<'a> {
    state: Mutex<State<'a>>,
    /// A block is waiting, or the last reader has ended.
    changed: Condvar,
    most_waiting: usize,
    way: Way,
    moved: Moved<'a>,
}

struct State<'a> {
    /// An input that is open already.
    begun: Option<Stream<'a>>,
    /// Inputs that nobody has opened yet, in order.
    left: std::slice::Iter<'a, Source>,
    /// Inputs that are being read.
    reading: usize,
    waiting: VecDeque<(Arc<Head<'a>>, Block)>,
    /// Memory of blocks, to be used again.
    spare: Vec<Vec<u8>>,
    /// The error of the first input that has one.
    fault: Option<(usize, InputError)>,
}

/// What a thread does next.
enum Task<'a> {
    Take(Arc<Head<'a>>, Block),
    Begun(Stream<'a>),
    Open(&'a Source),
}

/// Counts a reader for as long as it is there, even if it panics: the others wait for it.
struct Reader<'w, 'a>(&'w Work<'a>);

impl Drop for Reader<'_, '_> {
    fn drop(&mut self) {
        self.0.state().reading -= 1;
        self.0.changed.notify_all();
    }
}

impl<'a> Work<'a> {
    fn state(&self) -> MutexGuard<'_, State<'a>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, taker: &mut impl Taker) {
        while let Some(task) = self.next() {
            match task {
                Task::Take(head, block) => self.take(&head, block, taker),
                Task::Begun(stream) => self.read(Ok(stream), taker),
                Task::Open(source) => {
                    let stream = Stream::open(source, &self.way, self.moved);
                    self.read(stream.map_err(|fault| (source.at, fault)), taker);
                }
            }
        }
        taker.pause();
    }

    fn next(&self) -> Option<Task<'a>> {
        let mut state = self.state();
        loop {
            if let Some((head, block)) = state.waiting.pop_front() {
                return Some(Task::Take(head, block));
            }
            if state.fault.is_none() {
                let begun = state.begun.take().map(Task::Begun);
                if let Some(task) = begun.or_else(|| state.left.next().map(Task::Open)) {
                    state.reading += 1;
                    return Some(task);
                }
            }
            if state.reading == 0 {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Takes a block apart whose records need no others.
    fn take(&self, head: &Head<'a>, block: Block, taker: &mut impl Taker) {
        // Without a shingle there is no history and no error of one.
        let taken = head.read(&block, &mut head.shingler(), |record| taker.take(record));
        taker.pause();
        self.state().spare.push(block.into_buffer());
        if let Err(fault) = taken {
            self.fail(head.source.at, fault);
        }
    }

    fn read(&self, stream: Result<Stream<'a>, (usize, InputError)>, taker: &mut impl Taker) {
        let _reader = Reader(self);
        let read = stream.and_then(|stream| {
            let at = stream.head.source.at;
            self.read_blocks(stream, taker).map_err(|fault| (at, fault))
        });
        if let Err((at, fault)) = read {
            self.fail(at, fault);
        }
    }

    fn read_blocks(
        &self,
        mut stream: Stream<'a>,
        taker: &mut impl Taker,
    ) -> Result<(), InputError> {
        let head = Arc::new(stream.head.clone());
        let mut shingler = head.shingler();
        loop {
            let buffer = {
                let mut state = self.state();
                if state.fault.as_ref().is_some_and(|(at, _)| *at < head.source.at) {
                    return Ok(());
                }
                state.spare.pop().unwrap_or_default()
            };
            let Some(block) = stream.next(buffer)? else { return Ok(()) };
            if !head.is_in_any_order() {
                head.read(&block, &mut shingler, |record| taker.take(record))?;
                taker.pause();
                self.state().spare.push(block.into_buffer());
                continue;
            }
            let mut state = self.state();
            if state.waiting.len() < self.most_waiting {
                state.waiting.push_back((Arc::clone(&head), block));
                drop(state);
                self.changed.notify_one();
            } else {
                drop(state);
                self.take(&head, block, taker);
            }
        }
    }

    /// Keeps the error of the first input.
    fn fail(&self, at: usize, fault: InputError) {
        let mut state = self.state();
        if state.fault.as_ref().is_none_or(|(before, _)| at < *before) {
            state.fault = Some((at, fault));
        }
    }
}
