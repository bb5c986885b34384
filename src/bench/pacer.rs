//! The clock of a fixed rate: a thread of its own, since a runtime's timers are no finer than a millisecond,
//! which every latency would show. The system's sleep ends about 60 us late.
//!
//! Publishers take turns, so that the messages of all together leave at even intervals.

use std::{sync::Arc, thread, time::Duration};

use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;

/// How often the thread looks whether it is to end.
const STEP: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(super) struct Pacer {
    started: Instant,
    /// Between two messages.
    interval: Duration,
    /// By publisher.
    turns: Box<[Notify]>,
}

impl Pacer {
    /// Begins now, with `rate` messages a second, and ends with `stop`.
    pub(super) fn start(rate: u64, publishers: usize, stop: CancellationToken) -> Arc<Self> {
        let pacer = Arc::new(Self {
            started: Instant::now(),
            interval: Duration::from_secs(1).div_f64(rate as f64),
            turns: (0..publishers).map(|_| Notify::new()).collect(),
        });
        if publishers > 0 {
            let pacer = Arc::clone(&pacer);
            thread::spawn(move || pacer.run(&stop));
        }
        pacer
    }

    fn run(&self, stop: &CancellationToken) {
        for number in 0.. {
            let due = self.due(number);
            loop {
                if stop.is_cancelled() {
                    return;
                }
                let left = due.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    break;
                }
                thread::sleep(left.min(STEP));
            }
            self.turns[(number % self.turns.len() as u64) as usize].notify_one();
        }
    }

    /// When the message of this number is due, of those of all publishers.
    fn due(&self, number: u64) -> Instant {
        let after_ns = u128::from(number) * self.interval.as_nanos();
        self.started + Duration::from_nanos(after_ns as u64)
    }

    /// Waits for the publisher's message of this number, the first being 0; returns when it was due.
    pub(super) async fn turn(&self, publisher: usize, number: u64) -> Instant {
        let due = self.due(number * self.turns.len() as u64 + publisher as u64);
        while Instant::now() < due {
            self.turns[publisher].notified().await;
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn publishers_take_turns_at_even_intervals() {
        let stop = CancellationToken::new();
        let pacer = Pacer::start(1_000, 2, stop.clone());
        let after = async |publisher, number| {
            let due = pacer.turn(publisher, number).await;
            assert!(Instant::now() >= due);
            (due - pacer.started).as_millis()
        };
        assert_eq!(after(0, 0).await, 0);
        assert_eq!(after(1, 0).await, 1);
        assert_eq!(after(0, 1).await, 2);
        assert_eq!(after(1, 20).await, 41);
        // One that was late finds its message due at once.
        assert_eq!(after(0, 2).await, 4);
        stop.cancel();
    }
}
