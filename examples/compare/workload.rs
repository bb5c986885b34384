//! What is measured, and the ratios to reach.

use crate::{
    load::{Pace, Shape},
    system::System,
    wire::Method,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Workload {
    /// One publisher, one subscriber, each publish answered on its own
    Unary,
    /// One publisher, one subscriber
    OneToOne,
    /// Ten pairs, each with a topic of its own
    TenToTen,
    /// One publisher, 100 subscribers
    Fan100,
    /// The same with payloads of 1 KiB
    Fan100Kib,
    /// One publisher, 1,000 subscribers
    Fan1000,
    /// 200 messages a second to 100 subscribers
    Paced,
    /// 1,000 subscribers, each on a connection of its own, that receive nothing
    Idle,
    /// 1,000 subscriptions on 5 connections that receive nothing
    IdleShared,
}

/// The figure of a workload that is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Measure {
    CpuPerDelivery,
    LatencyP99,
    KbPerSubscriber,
}

impl Measure {
    pub(crate) fn unit(self) -> &'static str {
        match self {
            Self::CpuPerDelivery => "server CPU us per delivery",
            Self::LatencyP99 => "p99 latency, us",
            Self::KbPerSubscriber => "kB per idle subscriber",
        }
    }

    /// What follows a figure.
    pub(crate) fn symbol(self) -> &'static str {
        match self {
            Self::CpuPerDelivery | Self::LatencyP99 => "us",
            Self::KbPerSubscriber => "kB",
        }
    }
}

/// How many publishes may be unanswered where each is answered on its own.
const IN_FLIGHT: u64 = 64;

impl Workload {
    pub(crate) const ALL: [Self; 9] = [
        Self::Unary,
        Self::OneToOne,
        Self::TenToTen,
        Self::Fan100,
        Self::Fan100Kib,
        Self::Fan1000,
        Self::Paced,
        Self::Idle,
        Self::IdleShared,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Unary => "1->1 answered",
            Self::OneToOne => "1->1",
            Self::TenToTen => "10->10",
            Self::Fan100 => "1->100",
            Self::Fan100Kib => "1->100, 1 KiB",
            Self::Fan1000 => "1->1000",
            Self::Paced => "1->100 at 200/s",
            Self::Idle => "idle",
            Self::IdleShared => "idle, 200 a connection",
        }
    }

    pub(crate) fn measure(self) -> Measure {
        match self {
            Self::Paced => Measure::LatencyP99,
            Self::Idle | Self::IdleShared => Measure::KbPerSubscriber,
            _ => Measure::CpuPerDelivery,
        }
    }

    /// Whether the system can do it at all.
    pub(crate) fn suits(self, system: System) -> bool {
        match self {
            // It has no PublishStream: in the others, its publisher would do other work than ours.
            _ if system == System::Reference => self == Self::Unary,
            // Its publisher is Fanfare's own.
            _ if system == System::Events => {
                matches!(
                    self,
                    Self::OneToOne | Self::Fan100 | Self::Fan1000 | Self::Idle
                )
            }
            // MQTT answers no publish of QoS 0, and the floor none at all.
            Self::Unary => !matches!(system, System::Mosquitto | System::Floor),
            Self::Idle => system != System::Floor,
            // On the others, a connection's subscriptions are entries in a map, not streams.
            Self::IdleShared => system == System::Fanfare,
            _ => true,
        }
    }

    pub(crate) fn shape(self) -> Shape {
        let (topics, subscribers_per_topic) = match self {
            Self::Unary | Self::OneToOne => (1, 1),
            Self::TenToTen => (10, 1),
            Self::Fan100 | Self::Fan100Kib | Self::Paced => (1, 100),
            Self::Fan1000 | Self::Idle | Self::IdleShared => (1, 1_000),
        };
        Shape {
            topics,
            subscribers_per_topic,
            size: match self {
                Self::Fan100Kib => 1_024,
                _ => 128,
            },
            pace: match self {
                Self::Unary => Pace::Acked {
                    in_flight: IN_FLIGHT,
                },
                Self::Paced => Pace::Rate(200),
                Self::Idle | Self::IdleShared => Pace::Idle,
                _ => Pace::Saturation,
            },
            method: match self {
                Self::Unary => Method::Publish,
                _ => Method::PublishStream,
            },
            subscriptions_per_connection: match self {
                Self::IdleShared => 200,
                _ => 1,
            },
        }
    }
}

/// A bound on Fanfare's figure, or on its ratio to another system's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Goal {
    pub(crate) workload: Workload,
    pub(crate) against: Option<System>,
    /// What to reach first, then, and in the end.
    pub(crate) steps: [Option<f64>; 3],
}

pub(crate) const STEPS: [&str; 3] = ["first", "then", "in the end"];

const fn goal(
    workload: Workload,
    against: System,
    first: Option<f64>,
    then: Option<f64>,
    end: Option<f64>,
) -> Goal {
    Goal {
        workload,
        against: Some(against),
        steps: [first, then, end],
    }
}

/// The goals; those against NATS and Redis without a number of their own are for information.
pub(crate) const GOALS: [Goal; 17] = [
    goal(
        Workload::Fan100,
        System::Nats,
        Some(0.66),
        Some(0.35),
        Some(0.25),
    ),
    goal(
        Workload::Fan100,
        System::Redis,
        Some(0.66),
        Some(0.35),
        Some(0.25),
    ),
    goal(Workload::Fan100, System::Floor, None, None, Some(1.15)),
    goal(Workload::Fan100, System::Events, None, None, None),
    goal(Workload::Fan1000, System::Events, None, None, None),
    goal(
        Workload::OneToOne,
        System::Nats,
        Some(1.0),
        Some(0.55),
        Some(0.4),
    ),
    goal(Workload::OneToOne, System::Redis, None, None, None),
    goal(
        Workload::TenToTen,
        System::Nats,
        Some(1.0),
        Some(0.55),
        Some(0.4),
    ),
    goal(Workload::TenToTen, System::Redis, None, None, None),
    goal(Workload::Unary, System::Redis, None, None, Some(1.0)),
    goal(
        Workload::Unary,
        System::Reference,
        Some(0.55),
        Some(0.3),
        None,
    ),
    goal(
        Workload::Fan100Kib,
        System::Nats,
        Some(1.3),
        Some(0.75),
        Some(0.45),
    ),
    goal(Workload::Fan100Kib, System::Redis, None, None, None),
    goal(
        Workload::Fan1000,
        System::Nats,
        Some(1.05),
        Some(0.6),
        Some(0.4),
    ),
    goal(Workload::Paced, System::Nats, Some(0.9), Some(0.7), None),
    Goal {
        workload: Workload::Idle,
        against: None,
        steps: [Some(24.0), Some(21.0), Some(2.0)],
    },
    Goal {
        workload: Workload::IdleShared,
        against: None,
        steps: [Some(3.0), Some(2.0), None],
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_takes_part_where_each_publish_is_a_call() {
        for workload in Workload::ALL {
            let is_call = workload.shape().method == Method::Publish;
            assert_eq!(workload.suits(System::Reference), is_call, "{workload:?}");
        }
    }
}
