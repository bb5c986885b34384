//! How fast one connection may publish, where the operator bounds that.
//!
//! A bucket of tokens: it holds as many as come in a second, so that a burst of a second's messages passes
//! at once, and a longer one at the rate.

use std::num::NonZeroU32;

use parking_lot::Mutex;
use tokio::time::Instant;

/// The messages that a connection may publish.
#[derive(Debug)]
pub(crate) struct PublishRate {
    per_second: NonZeroU32,
    bucket: Mutex<Bucket>,
}

#[derive(Debug)]
struct Bucket {
    tokens: f64,
    filled_at: Instant,
}

/// A retry helps within a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this connection publishes more than {max} messages a second, which is the limit")]
pub(crate) struct PublishRateExceeded {
    max: u32,
}

impl PublishRate {
    pub(crate) fn new(per_second: NonZeroU32) -> Self {
        Self {
            per_second,
            bucket: Mutex::new(Bucket {
                tokens: per_second.get().into(),
                filled_at: Instant::now(),
            }),
        }
    }

    /// Takes one message's token, if there is one.
    pub(crate) fn take(&self) -> Result<(), PublishRateExceeded> {
        let max = self.per_second.get();
        let mut bucket = self.bucket.lock();
        if bucket.tokens < 1.0 {
            let now = Instant::now();
            let fill = (now - bucket.filled_at).as_secs_f64() * f64::from(max);
            bucket.tokens = (bucket.tokens + fill).min(max.into());
            bucket.filled_at = now;
            if bucket.tokens < 1.0 {
                return Err(PublishRateExceeded { max });
            }
        }
        bucket.tokens -= 1.0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_seconds_messages_pass_at_once_and_then_so_many_a_second() {
        let rate = PublishRate::new(NonZeroU32::new(10).unwrap());
        let passing = || std::iter::from_fn(|| rate.take().ok()).count();
        assert_eq!(passing(), 10);
        tokio::time::advance(Duration::from_millis(250)).await;
        assert_eq!(passing(), 2);
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(passing(), 10, "silence is not saved up");
        assert_eq!(
            rate.take().unwrap_err().to_string(),
            "this connection publishes more than 10 messages a second, which is the limit"
        );
    }
}
