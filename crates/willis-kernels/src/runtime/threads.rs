//! Work on rayon's threads, which are kept awake while it lasts.
//!
//! A net is hundreds of kernels one after the other, and a sleeping thread takes longer to wake
//! than many of them last: without this, small kernels run on one thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Longest wait for the other threads; one that is busy elsewhere is not waited for.
const MUSTER: Duration = Duration::from_millis(1);
/// Rounds without work after which a waiting thread lets others of the machine run.
const ROUNDS: usize = 2000;

/// Whether the threads are kept awake for somebody.
static BUSY: AtomicBool = AtomicBool::new(false);

/// Runs work on a thread of rayon's pool.
pub fn keep_threads_awake<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    rayon::scope(|_| {
        let _watch = Watch::begin();
        work()
    })
}

/// The other threads awake; they may sleep again when it is dropped.
struct Watch(Arc<Roster>);

#[derive(Default)]
struct Roster {
    /// Threads that keep watch, and [`CLOSED`] once no more may begin.
    ///
    /// A thread that began in the midst of a job of this very work would wait for the work to end,
    /// and the work for the job.
    members: AtomicUsize,
    over: AtomicBool,
}

const CLOSED: usize = 1 << (usize::BITS - 1);

impl Watch {
    /// `None` where the threads are kept awake already, or there is one only.
    fn begin() -> Option<Self> {
        let others = rayon::current_num_threads() - 1;
        if others == 0 || BUSY.swap(true, Ordering::AcqRel) {
            return None;
        }
        let watch = Self(Arc::default());
        let (roster, own) = (watch.0.clone(), rayon::current_thread_index());
        rayon::spawn_broadcast(move |thread| {
            if Some(thread.index()) != own {
                roster.keep_watch();
            }
        });
        let begun = Instant::now();
        while watch.0.members.load(Ordering::Acquire) < others && begun.elapsed() < MUSTER {
            std::hint::spin_loop();
        }
        watch.0.members.fetch_or(CLOSED, Ordering::AcqRel);
        Some(watch)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::Release);
        BUSY.store(false, Ordering::Release);
    }
}

impl Roster {
    /// Looks for work until the watch is over, unless it is too late to begin.
    fn keep_watch(&self) {
        if self.members.fetch_add(1, Ordering::AcqRel) & CLOSED != 0 {
            return;
        }
        let mut idle = 0;
        while !self.over.load(Ordering::Acquire) {
            match rayon::yield_now() {
                Some(rayon::Yield::Executed) => idle = 0,
                _ if idle < ROUNDS => {
                    idle += 1;
                    std::hint::spin_loop();
                }
                _ => std::thread::yield_now(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rayon::prelude::*;

    use super::*;

    #[test]
    fn work_inside_work_beside_work_ends() {
        let sum = |n: u64| (0..n).into_par_iter().map(|i| i % 7).sum::<u64>();
        let expected = sum(1000);
        // From outside threads at once, each with work of its own inside, and from inside the pool.
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let nested = keep_threads_awake(|| {
                            (0..8).into_par_iter().map(|_| keep_threads_awake(|| sum(1000))).sum::<u64>()
                        });
                        assert_eq!(nested, 8 * expected);
                    }
                });
            }
        });
    }

    #[test]
    fn the_watch_ends_with_a_panic() {
        for _ in 0..2 {
            assert!(std::panic::catch_unwind(|| keep_threads_awake(|| panic!("on purpose"))).is_err());
        }
        assert_eq!(keep_threads_awake(|| 3), 3);
    }
}
