//! All outcomes, and the figures drawn from them.
//!
//! A ratio is taken within each round, between runs that are seconds apart; what a noisy machine does to
//! both then cancels out. Medians are of rounds.

use std::collections::BTreeMap;

use crate::{
    load::Outcome,
    system::System,
    workload::{Goal, Measure, Workload},
};

#[derive(Debug, Default)]
pub(crate) struct Results {
    /// By workload, system and round.
    pub(crate) outcomes: BTreeMap<(Workload, System, usize), Outcome>,
    /// Runs that failed, with the reason.
    pub(crate) failures: Vec<String>,
}

/// A median with its extremes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// `None` of nothing.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        let median = match values.len() % 2 {
            _ if values.is_empty() => return None,
            0 => f64::midpoint(values[middle - 1], values[middle]),
            _ => values[middle],
        };
        Some(Self {
            median,
            min: values[0],
            max: values[values.len() - 1],
        })
    }
}

impl Results {
    fn rounds(
        &self,
        workload: Workload,
        system: System,
    ) -> impl Iterator<Item = (usize, &Outcome)> {
        let all = (workload, system, 0)..=(workload, system, usize::MAX);
        self.outcomes
            .range(all)
            .map(|((_, _, round), outcome)| (*round, outcome))
    }

    /// Any figure over the rounds.
    pub(crate) fn spread(
        &self,
        workload: Workload,
        system: System,
        figure: impl Fn(&Outcome) -> Option<f64>,
    ) -> Option<Spread> {
        let rounds = self.rounds(workload, system);
        Spread::of(rounds.filter_map(|(_, outcome)| figure(outcome)))
    }

    /// What the goal bounds, over the rounds.
    pub(crate) fn reached(&self, goal: Goal) -> Option<Spread> {
        let figure = |outcome: &Outcome| figure(outcome, goal.workload.measure());
        let Some(against) = goal.against else {
            return self.spread(goal.workload, System::Fanfare, figure);
        };
        let ratios = self
            .rounds(goal.workload, System::Fanfare)
            .filter_map(|(round, ours)| {
                let theirs = self.outcomes.get(&(goal.workload, against, round))?;
                Some(figure(ours)? / figure(theirs)?)
            });
        Spread::of(ratios)
    }

    /// Losses and breaks of order of all runs of a system.
    pub(crate) fn faults(&self, system: System) -> (u64, u64) {
        let outcomes = self.outcomes.iter().filter(|((_, of, _), _)| *of == system);
        outcomes.fold((0, 0), |(lost, order_breaks), (_, outcome)| {
            (lost + outcome.lost, order_breaks + outcome.order_breaks)
        })
    }
}

pub(crate) fn figure(outcome: &Outcome, measure: Measure) -> Option<f64> {
    match measure {
        Measure::CpuPerDelivery => outcome.cpu_us_per_delivery,
        Measure::LatencyP99 => Some(outcome.latency_us?.p99),
        Measure::KbPerSubscriber => outcome.kb_per_subscriber,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(values: &[f64], expected: Option<(f64, f64, f64)>) {
        let spread = Spread::of(values.iter().copied());
        let expected = expected.map(|(median, min, max)| Spread { median, min, max });
        assert_eq!(spread, expected);
    }

    #[test]
    fn the_median_is_in_the_middle() {
        check(&[], None);
        check(&[2.0], Some((2.0, 2.0, 2.0)));
        check(&[3.0, 1.0, 2.5], Some((2.5, 1.0, 3.0)));
        check(&[4.0, 1.0, 2.0, 3.0], Some((2.5, 1.0, 4.0)));
    }
}
