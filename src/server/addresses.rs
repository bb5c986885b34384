//! Whom connections come from: how many are open, and how many have not said yet what they want, by
//! address and in all.
//!
//! One address may take a part of what there is, so that it alone does not shut out the others. An IPv6
//! peer has its whole network of 64 bits at will, so that is what counts as its address. Invariant: no
//! entry outlives the last connection from its address.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::Instant;

use super::{config::ServerConfig, slowed::Slowed};
use crate::metrics::Limit;

/// One address may have this part of all handshakes in progress.
const HANDSHAKES_PART: usize = 2;

/// Connections, by address.
#[derive(Debug)]
pub(super) struct Addresses {
    connections_max: usize,
    per_address_max: usize,
    handshakes_max: usize,
    open: Mutex<Open>,
    slowed: Mutex<Slowed>,
}

#[derive(Debug, Default)]
struct Open {
    all: Counts,
    by_address: HashMap<IpAddr, Counts>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    connections: usize,
    handshakes: usize,
}

impl Addresses {
    pub(super) fn new(config: &ServerConfig) -> Arc<Self> {
        Arc::new(Self {
            connections_max: config.connections_max,
            per_address_max: config.connections_per_address_max,
            handshakes_max: config.handshakes_max,
            open: Mutex::default(),
            slowed: Mutex::default(),
        })
    }

    /// Lets a connection in, which has not said yet what it wants.
    ///
    /// # Errors
    /// The limit that it would pass.
    pub(super) fn enter(self: &Arc<Self>, peer: IpAddr) -> Result<Entry, Limit> {
        let address = network(peer);
        let mut open = self.open.lock();
        let from_here = open.by_address.get(&address).copied().unwrap_or_default();
        let handshakes_from_here_max = self.handshakes_max.div_ceil(HANDSHAKES_PART);
        if open.all.connections >= self.connections_max {
            return Err(Limit::Connections);
        }
        if from_here.connections >= self.per_address_max {
            return Err(Limit::ConnectionsPerAddress);
        }
        if open.all.handshakes >= self.handshakes_max
            || from_here.handshakes >= handshakes_from_here_max
        {
            return Err(Limit::Handshakes);
        }
        open.change(address, |counts| {
            counts.connections += 1;
            counts.handshakes += 1;
        });
        drop(open);
        let wait = self.slowed.lock().turn(address, Instant::now());
        Ok(Entry {
            addresses: Arc::clone(self),
            address,
            is_handshake: true,
            wait,
        })
    }
}

impl Open {
    fn change(&mut self, address: IpAddr, change: impl Fn(&mut Counts)) {
        change(&mut self.all);
        let counts = self.by_address.entry(address).or_default();
        change(counts);
        if counts.connections == 0 {
            self.by_address.remove(&address);
            if self.by_address.len() < self.by_address.capacity() / 4 {
                self.by_address.shrink_to_fit();
            }
        }
    }
}

/// One connection's entry, which ends when it is dropped.
#[derive(Debug)]
pub(super) struct Entry {
    addresses: Arc<Addresses>,
    address: IpAddr,
    is_handshake: bool,
    wait: Duration,
}

impl Entry {
    /// How long the connection waits until it is served: not at all, but for an address that is slowed.
    pub(super) fn wait(&self) -> Duration {
        self.wait
    }

    /// The connection was cut off for breaking the rules.
    pub(super) fn offended(&self) {
        let mut slowed = self.addresses.slowed.lock();
        slowed.offend(self.address, Instant::now());
    }

    /// The peer has said what it wants.
    pub(super) fn greeted(&mut self) {
        if std::mem::take(&mut self.is_handshake) {
            let mut open = self.addresses.open.lock();
            open.change(self.address, |counts| counts.handshakes -= 1);
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.greeted();
        let mut open = self.addresses.open.lock();
        open.change(self.address, |counts| counts.connections -= 1);
    }
}

fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses() -> Arc<Addresses> {
        Addresses::new(&ServerConfig {
            connections_max: 6,
            connections_per_address_max: 4,
            handshakes_max: 4,
            ..ServerConfig::default()
        })
    }

    fn from(address: &str) -> IpAddr {
        address.parse().unwrap()
    }

    #[test]
    fn one_address_takes_a_part_and_leaves_the_rest() {
        let addresses = addresses();
        let enter = |address| addresses.enter(from(address));
        let mut held: Vec<_> = (0..2).map(|_| enter("10.0.0.1").unwrap()).collect();
        assert_eq!(enter("10.0.0.1").unwrap_err(), Limit::Handshakes);
        held.push(enter("10.0.0.2").unwrap());
        held.iter_mut().for_each(Entry::greeted);
        held.extend((0..2).map(|_| enter("::ffff:10.0.0.1").unwrap()));
        held.iter_mut().for_each(Entry::greeted);
        assert_eq!(enter("10.0.0.1").unwrap_err(), Limit::ConnectionsPerAddress);
        held.push(enter("10.0.0.3").unwrap());
        assert_eq!(enter("10.0.0.4").unwrap_err(), Limit::Connections);
        held.clear();
        assert!(addresses.open.lock().by_address.is_empty());
        assert!(enter("10.0.0.1").is_ok());
    }

    #[test]
    fn a_network_of_64_bits_is_one_address() {
        let check = |peer, expected| assert_eq!(network(from(peer)), from(expected));
        check("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::");
        check("::ffff:192.0.2.1", "192.0.2.1");
        check("192.0.2.1", "192.0.2.1");
    }
}
