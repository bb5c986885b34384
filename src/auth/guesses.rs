//! Slows whoever guesses: each address may fail some times, and then once in a while.
//!
//! A bucket for each address that has failed lately; while it is empty, credentials from there are
//! refused unseen, right ones too, for an exception for these would tell guesses apart. What is already
//! under way goes on. Invariant: at most [`PEERS_MAX`] buckets; addresses that have none share one.
//! Knows no clock: whoever asks says how late it is.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};

/// Buckets that are kept: about 1 MiB.
pub const PEERS_MAX: usize = 10_000;
/// How often an address may fail in a row: a fleet behind one address with a credential that has just
/// run out is no attack.
pub const GUESSES_MAX: u32 = 20;
/// How often it may fail from then on.
pub const GUESS_INTERVAL: Duration = Duration::from_secs(1);

/// Who failed how often.
#[derive(Debug)]
pub struct Guesses {
    max: u32,
    interval: Duration,
    buckets: HashMap<IpAddr, Bucket>,
    /// For addresses that find no room.
    others: Bucket,
    swept_at: Duration,
}

/// The time at which all failures will have been forgotten.
#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    clear_at: Duration,
}

impl Guesses {
    /// `max` failures in a row, and one in each `interval` from then on.
    #[must_use]
    pub fn new(max: u32, interval: Duration) -> Self {
        Self {
            max: max.max(1),
            interval,
            buckets: HashMap::new(),
            others: Bucket::default(),
            swept_at: Duration::ZERO,
        }
    }

    /// Whether credentials from this address are looked at; if not, how long it has to wait.
    ///
    /// # Errors
    /// The time to wait.
    pub fn check(&self, address: IpAddr, now: Duration) -> Result<(), Duration> {
        let bucket = match self.buckets.get(&network(address)) {
            Some(bucket) => *bucket,
            None if self.buckets.len() < PEERS_MAX => Bucket::default(),
            None => self.others,
        };
        let full = self.interval * (self.max - 1);
        match bucket.clear_at.saturating_sub(now).checked_sub(full) {
            None | Some(Duration::ZERO) => Ok(()),
            Some(wait) => Err(wait),
        }
    }

    /// Counts a failure.
    pub fn failed(&mut self, address: IpAddr, now: Duration) {
        let address = network(address);
        let has_room = self.buckets.len() < PEERS_MAX || self.buckets.contains_key(&address);
        // A sweep visits all, so it is not done for each failure.
        if !has_room && now >= self.swept_at + self.interval {
            self.buckets.retain(|_, bucket| bucket.clear_at > now);
            self.swept_at = now;
        }
        let bucket = if self.buckets.len() < PEERS_MAX || self.buckets.contains_key(&address) {
            self.buckets.entry(address).or_default()
        } else {
            &mut self.others
        };
        bucket.clear_at = bucket.clear_at.max(now) + self.interval;
    }
}

/// One customer's network: an IPv6 address costs nothing, and a customer has 2^64 of them.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn peer(index: u32) -> IpAddr {
        std::net::Ipv4Addr::from(index).into()
    }

    #[test]
    fn whoever_fails_too_often_waits_and_then_has_one_more_try() {
        let mut guesses = Guesses::new(3, SECOND);
        let now = SECOND * 100;
        for _ in 0..3 {
            assert_eq!(guesses.check(peer(1), now), Ok(()));
            guesses.failed(peer(1), now);
        }
        assert_eq!(guesses.check(peer(1), now), Err(SECOND));
        assert_eq!(guesses.check(peer(2), now), Ok(()));
        assert_eq!(guesses.check(peer(1), now + SECOND), Ok(()));
        guesses.failed(peer(1), now + SECOND);
        assert_eq!(guesses.check(peer(1), now + SECOND), Err(SECOND));
        assert_eq!(guesses.check(peer(1), now + 10 * SECOND), Ok(()));
    }

    #[test]
    fn addresses_of_one_network_count_as_one() {
        let mut guesses = Guesses::new(1, SECOND);
        guesses.failed("2001:db8::1".parse().unwrap(), SECOND);
        let check = |text: &str| guesses.check(text.parse().unwrap(), SECOND).is_ok();
        assert!(!check("2001:db8::ffff:1"));
        assert!(check("2001:db8:0:1::1"));
        guesses.failed("::ffff:10.0.0.1".parse().unwrap(), SECOND);
        assert!(guesses.check("10.0.0.1".parse().unwrap(), SECOND).is_err());
    }

    #[test]
    fn many_addresses_take_a_known_amount_of_memory_and_are_still_slowed() {
        let mut guesses = Guesses::new(2, SECOND);
        for index in 0..3 * PEERS_MAX as u32 {
            guesses.failed(peer(index), SECOND);
        }
        assert_eq!(guesses.buckets.len(), PEERS_MAX);
        assert!(guesses.check(peer(u32::MAX), SECOND).is_err());
        // And later they are forgotten.
        let later = SECOND * 100_000;
        guesses.failed(peer(u32::MAX), later);
        assert_eq!(guesses.buckets.len(), 1);
    }
}
