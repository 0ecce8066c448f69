//! Runs work on rayon's thread pool while the other workers busy-wait instead of sleeping.
//!
//! A net is a sequence of hundreds of kernels, many of which finish sooner than a sleeping thread
//! wakes up. If the workers slept between kernels, small kernels would run on one thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Longest time to wait for the other workers to start spinning. Workers that are busy with other
/// work are not waited for any longer.
const MAX_WAKE_TIME: Duration = Duration::from_millis(1);
/// Rounds without work after which a spinning worker yields to other threads of the system.
const SPINS_BEFORE_YIELD: usize = 2000;

/// Runs `work` on a thread of the current rayon pool. Until it returns, the pool's other workers
/// stay awake.
///
/// Calls may be nested and concurrent; one of them keeps the workers awake for all. A panic of
/// `work` is propagated.
pub fn keep_threads_awake<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    /// Whether some call keeps the workers awake.
    static SPINNING: AtomicBool = AtomicBool::new(false);
    run_with_spinning_workers(&SPINNING, work)
}

fn run_with_spinning_workers<R: Send>(spinning: &'static AtomicBool, work: impl FnOnce() -> R + Send) -> R {
    rayon::scope(|_| {
        let _guard = SpinGuard::start(spinning);
        work()
    })
}

/// While it lives, the other workers of the pool spin.
struct SpinGuard {
    session: Arc<SpinSession>,
    spinning: &'static AtomicBool,
}

#[derive(Default)]
struct SpinSession {
    /// Number of workers that joined, plus [`CLOSED`] once no more may join.
    ///
    /// Without closing, a worker could join from inside a job that is part of the very work which
    /// the session waits for: the worker would wait for the work to end, and the work for the job.
    joined: AtomicUsize,
    finished: AtomicBool,
}

/// Bit of [`SpinSession::joined`] above any number of workers.
const CLOSED: usize = 1 << (usize::BITS - 1);

impl SpinGuard {
    /// Wakes the other workers. `None` if another guard already keeps them awake, or if the pool
    /// has one thread.
    fn start(spinning: &'static AtomicBool) -> Option<Self> {
        let others = rayon::current_num_threads() - 1;
        if others == 0 || spinning.swap(true, Ordering::AcqRel) {
            return None;
        }
        let guard = Self { session: Arc::default(), spinning };
        let (session, own) = (guard.session.clone(), rayon::current_thread_index());
        rayon::spawn_broadcast(move |thread| {
            if Some(thread.index()) != own {
                session.spin();
            }
        });
        let start = Instant::now();
        while guard.session.joined.load(Ordering::Acquire) < others && start.elapsed() < MAX_WAKE_TIME {
            std::hint::spin_loop();
        }
        guard.session.joined.fetch_or(CLOSED, Ordering::AcqRel);
        Some(guard)
    }
}

impl Drop for SpinGuard {
    fn drop(&mut self) {
        self.session.finished.store(true, Ordering::Release);
        self.spinning.store(false, Ordering::Release);
    }
}

impl SpinSession {
    /// Executes jobs of the pool until the session is finished. Returns at once if the session is
    /// closed.
    fn spin(&self) {
        if self.joined.fetch_add(1, Ordering::AcqRel) & CLOSED != 0 {
            return;
        }
        let mut rounds = 0;
        while !self.finished.load(Ordering::Acquire) {
            match rayon::yield_now() {
                Some(rayon::Yield::Executed) => rounds = 0,
                _ if rounds < SPINS_BEFORE_YIELD => {
                    rounds += 1;
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

    fn pool(threads: usize) -> rayon::ThreadPool {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a small pool")
    }

    #[test]
    fn nested_and_concurrent_calls_do_not_deadlock() {
        let sum = |n: u64| (0..n).into_par_iter().map(|i| i % 7).sum::<u64>();
        let expected = sum(1000);
        let pool = pool(3);
        // Four threads outside the pool, each with calls nested inside its work.
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let nested = pool.install(|| {
                            keep_threads_awake(|| {
                                (0..8).into_par_iter().map(|_| keep_threads_awake(|| sum(1000))).sum::<u64>()
                            })
                        });
                        assert_eq!(nested, 8 * expected);
                    }
                });
            }
        });
    }

    #[test]
    fn workers_spin_during_the_work_and_stop_after_a_panic() {
        static SPINNING: AtomicBool = AtomicBool::new(false);
        pool(2).install(|| {
            for _ in 0..2 {
                let work = || {
                    assert!(SPINNING.load(Ordering::Acquire), "the guard lives during the work");
                    panic!("on purpose")
                };
                let result: std::thread::Result<()> =
                    std::panic::catch_unwind(|| run_with_spinning_workers(&SPINNING, work));
                assert_eq!(result.unwrap_err().downcast_ref(), Some(&"on purpose"));
                assert!(!SPINNING.load(Ordering::Acquire), "the guard is dropped");
            }
            // The other worker has left its loop, so a job for every worker of the pool ends.
            rayon::broadcast(|_| ());
            assert_eq!(run_with_spinning_workers(&SPINNING, || 3), 3);
        });
    }
}
