//! Addresses whose connections were cut off for breaking HTTP/2's rules: their new ones wait a little.
//!
//! To cut a flood off costs the broker a fraction of a millisecond, and a flooder comes back at once: thousands of
//! times a second, which is what others would feel. So for a while after it was cut off, connections of its
//! address are served one after the other at a low rate; those that are open are not concerned. Invariant: at
//! most [`ADDRESSES_MAX`] are known; a further one is not slowed.

use std::{collections::HashMap, net::IpAddr, time::Duration};

use tokio::time::Instant;

/// Between two new connections of a slowed address, at first.
const INTERVAL: Duration = Duration::from_millis(10);
/// The same after further offences, each of which doubles it: who goes on is cut off a few times a second.
const INTERVAL_MAX: Duration = Duration::from_millis(160);
/// How long an address is slowed after it has offended.
const MEMORY: Duration = Duration::from_secs(1);
/// Some 1 MiB.
const ADDRESSES_MAX: usize = 10_000;

#[derive(Debug, Default)]
pub(super) struct Slowed(HashMap<IpAddr, Slow>);

#[derive(Clone, Copy, Debug)]
struct Slow {
    until: Instant,
    /// When the next connection may be served.
    next: Instant,
    interval: Duration,
}

impl Slowed {
    /// A connection of this address was cut off.
    pub(super) fn offend(&mut self, address: IpAddr, now: Instant) {
        if self.0.len() >= ADDRESSES_MAX {
            self.0.retain(|_, slow| slow.until > now);
        }
        let until = now + MEMORY;
        if let Some(slow) = self.0.get_mut(&address) {
            slow.until = until;
            slow.interval = (2 * slow.interval).min(INTERVAL_MAX);
        } else if self.0.len() < ADDRESSES_MAX {
            let slow = Slow {
                until,
                next: now,
                interval: INTERVAL,
            };
            self.0.insert(address, slow);
        }
    }

    /// How long a new connection of this address has to wait. It takes its turn with that.
    pub(super) fn turn(&mut self, address: IpAddr, now: Instant) -> Duration {
        let Some(slow) = self.0.get_mut(&address) else {
            return Duration::ZERO;
        };
        if slow.until.max(slow.next) <= now {
            self.0.remove(&address);
            return Duration::ZERO;
        }
        slow.next = slow.next.max(now) + slow.interval;
        slow.next - now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(index: u32) -> IpAddr {
        std::net::Ipv4Addr::from(index).into()
    }

    #[test]
    fn whoever_offends_takes_turns_for_a_while() {
        let mut slowed = Slowed::default();
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let ms = Duration::from_millis;
        assert_eq!(slowed.turn(address(1), start), Duration::ZERO);
        slowed.offend(address(1), start);
        assert_eq!(slowed.turn(address(1), start), ms(10));
        assert_eq!(slowed.turn(address(1), start), ms(20));
        assert_eq!(slowed.turn(address(2), start), Duration::ZERO);
        assert_eq!(slowed.turn(address(1), at(15)), ms(15));
        // Offending again makes it last, and harder, up to a point.
        slowed.offend(address(1), at(900));
        assert_eq!(slowed.turn(address(1), at(1_800)), ms(20));
        assert_eq!(slowed.turn(address(1), at(1_900)), Duration::ZERO);
        assert!(slowed.0.is_empty());
        (0..10).for_each(|_| slowed.offend(address(1), at(2_000)));
        assert_eq!(slowed.turn(address(1), at(2_000)), ms(160));
        assert_eq!(slowed.turn(address(1), at(2_500)), ms(160));
        assert_eq!(slowed.turn(address(1), at(3_001)), Duration::ZERO);
        // As long as some wait, so do those who come after them.
        slowed.offend(address(1), start);
        let last = (0..200).map(|_| slowed.turn(address(1), at(999))).last();
        assert_eq!(last, Some(ms(2_000)));
        assert_eq!(
            slowed.turn(address(1), at(1_500)),
            ms(999 + 2_000 + 10 - 1_500)
        );
    }

    #[test]
    fn so_many_addresses_are_known_and_no_more() {
        let mut slowed = Slowed::default();
        let start = Instant::now();
        (0..2 * ADDRESSES_MAX as u32).for_each(|index| slowed.offend(address(index), start));
        assert_eq!(slowed.0.len(), ADDRESSES_MAX);
        slowed.offend(address(u32::MAX), start + MEMORY);
        assert_eq!(slowed.0.len(), 1);
    }
}
