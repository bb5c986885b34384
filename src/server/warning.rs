//! Warnings of what may happen a thousand times a second, for whoever reads the log.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// A warning for the same trouble at most this often.
const WARNING_INTERVAL: Duration = Duration::from_secs(10);

/// Says the same thing at most every [`WARNING_INTERVAL`], with how often it happened since.
#[derive(Debug, Default)]
pub(super) struct Warning(Mutex<Said>);

#[derive(Debug, Default)]
struct Said {
    last: Option<Instant>,
    count: u64,
}

impl Warning {
    pub(super) fn warn(&self, log: impl FnOnce(u64)) {
        let mut said = self.0.lock();
        said.count += 1;
        let now = Instant::now();
        if said.last.is_none_or(|last| now - last >= WARNING_INTERVAL) {
            let count = std::mem::take(&mut said.count);
            said.last = Some(now);
            drop(said);
            log(count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_warning_is_repeated_rarely_and_counts_in_between() {
        let warning = Warning::default();
        let mut said = Vec::new();
        for _ in 0..100 {
            warning.warn(|count| said.push(count));
        }
        tokio::time::advance(WARNING_INTERVAL).await;
        warning.warn(|count| said.push(count));
        assert_eq!(said, [1, 100]);
    }
}
