//! How many messages each publisher or subscriber had, and all of them together.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// Counts that go on.
#[derive(Debug)]
pub(super) struct Tally {
    total: AtomicU64,
    each: Box<[AtomicU64]>,
}

impl Tally {
    pub(super) fn new(clients: usize) -> Self {
        Self {
            total: AtomicU64::new(0),
            each: (0..clients).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    pub(super) fn clients(&self) -> usize {
        self.each.len()
    }

    pub(super) fn add(&self, client: usize) {
        self.total.fetch_add(1, Ordering::Relaxed);
        self.each[client].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    pub(super) fn counts(&self) -> Counts {
        let each = self.each.iter();
        Counts(each.map(|count| count.load(Ordering::Relaxed)).collect())
    }
}

/// What each client had until some time, or in an interval.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts(pub(super) Vec<u64>);

impl Counts {
    pub(super) fn since(&self, earlier: &Self) -> Self {
        let pairs = self.0.iter().zip(&earlier.0);
        Self(pairs.map(|(now, before)| now - before).collect())
    }

    pub(super) fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// `None` where there is no client.
    pub(super) fn rates(&self, elapsed: Duration) -> Option<Rates> {
        let rates = self.0.iter();
        let rates = rates.map(|count| *count as f64 / elapsed.as_secs_f64());
        let rates: Vec<f64> = rates.collect();
        let clients = rates.len() as f64;
        let mean = rates.iter().sum::<f64>() / clients;
        let variance = rates.iter().map(|rate| (rate - mean).powi(2)).sum::<f64>() / clients;
        Some(Rates {
            min: rates.iter().copied().reduce(f64::min)?,
            mean,
            max: rates.iter().copied().reduce(f64::max)?,
            stddev: variance.sqrt(),
        })
    }
}

/// Messages a second of one client, over all of them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Rates {
    pub(super) min: f64,
    pub(super) mean: f64,
    pub(super) max: f64,
    pub(super) stddev: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_client_is_counted_on_its_own() {
        let tally = Tally::new(2);
        tally.add(0);
        let before = tally.counts();
        tally.add(1);
        tally.add(1);
        assert_eq!(tally.total(), 3);
        assert_eq!(tally.counts(), Counts(vec![1, 2]));
        assert_eq!(tally.counts().since(&before), Counts(vec![0, 2]));
    }

    #[test]
    fn rates_are_of_one_client() {
        let rates = Counts(vec![2, 6]).rates(Duration::from_secs(2));
        let expected = Rates {
            min: 1.0,
            mean: 2.0,
            max: 3.0,
            stddev: 1.0,
        };
        assert_eq!(rates, Some(expected));
        assert_eq!(Counts::default().rates(Duration::from_secs(2)), None);
    }
}
