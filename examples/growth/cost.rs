//! What one subscription, filter or topic costs in the process, by how many there are.

use std::task::{Context, Poll, Waker};

use anyhow::{Context as _, ensure};
use clap::ValueEnum;
use fanfare::broker::{BatchLimit, Broker, Limits, Lost, Subscription};
use serde_json::{Value, json};

use crate::{
    memory::{Memory, in_new_process},
    publish, subscribe,
    table::{Table, grouped},
    topic,
};

/// What there may be many of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// Subscriptions to one topic: what a subscription costs by itself.
    SharedTopic,
    /// Subscriptions, each to a topic of its own: its filter and its pinned topic besides.
    OwnTopic,
    /// The same after a message to each: the way to its subscriber besides.
    UsedTopic,
    /// Subscriptions, each to a filter of its own of four tokens, one of them a wildcard: no topic.
    OwnFilter,
    /// Topics whose subscribers have left.
    LeftTopic,
    /// Topics that one wildcard subscriber reads.
    HeardTopic,
    /// Topics that a hundred wildcard subscribers read.
    WidelyHeardTopic,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::SharedTopic => "subscription to a shared topic",
            Self::OwnTopic => "subscription to its own topic",
            Self::UsedTopic => "the same, once it was used",
            Self::OwnFilter => "subscription to its own filter",
            Self::LeftTopic => "topic that its subscriber has left",
            Self::HeardTopic => "topic that 1 wildcard subscriber reads",
            Self::WidelyHeardTopic => "topic that 100 wildcard subscribers read",
        }
    }

    /// How many read all topics.
    fn wildcards(self) -> usize {
        match self {
            Self::HeardTopic => 1,
            Self::WidelyHeardTopic => 100,
            _ => 0,
        }
    }

    /// In this process, which has done nothing else.
    pub(crate) fn measure(self, count: usize) -> anyhow::Result<Value> {
        let limits = Limits {
            // None is to be forgotten, and they do not spread evenly over the table's shards.
            idle_topics_max: 4 * count,
            ..Limits::default()
        };
        let broker = Broker::new(limits, 1)?;
        let wildcards = (0..self.wildcards()).map(|_| subscribe(&broker, ">"));
        let wildcards: Vec<_> = wildcards.collect::<anyhow::Result<_>>()?;
        let before = Memory::now()?;
        let live = self.grow(&broker, count)?;
        let after = Memory::now()?;
        drop((live, wildcards));
        let each = |before: u64, after: u64| after.saturating_sub(before) as f64 / count as f64;
        Ok(json!({
            "allocated": each(before.allocated, after.allocated),
            "resident": each(before.resident, after.resident),
        }))
    }

    fn grow(self, broker: &Broker, count: usize) -> anyhow::Result<Vec<Subscription>> {
        let mut live = Vec::new();
        for topic in (0..count).map(topic) {
            match self {
                Self::SharedTopic => live.push(subscribe(broker, "responses")?),
                Self::OwnTopic | Self::UsedTopic => live.push(subscribe(broker, &topic)?),
                Self::OwnFilter => live.push(subscribe(broker, &format!("job.{topic}.*.done"))?),
                Self::LeftTopic => drop(subscribe(broker, &topic)?),
                Self::HeardTopic | Self::WidelyHeardTopic => publish(broker, &topic)?,
            }
        }
        if self == Self::UsedTopic {
            for (index, subscription) in live.iter_mut().enumerate() {
                publish(broker, &topic(index))?;
                read(subscription)?;
            }
            // At the second tick without a message, mailboxes give back their buffers.
            broker.tick(u32::MAX);
            broker.tick(u32::MAX);
        }
        live.shrink_to_fit();
        Ok(live)
    }
}

fn read(subscription: &mut Subscription) -> anyhow::Result<()> {
    let limit = BatchLimit {
        messages: 1,
        bytes: 0,
    };
    let mut context = Context::from_waker(Waker::noop());
    let taken = subscription.poll_take(&mut context, limit, &mut Vec::new());
    subscription.pass_on();
    ensure!(
        taken == Poll::Ready(Ok(Lost::default())),
        "no message waits: {taken:?}"
    );
    Ok(())
}

pub(crate) fn table(short: bool) -> anyhow::Result<Table> {
    let counts: &[usize] = match short {
        true => &[1_000],
        false => &[1_000, 10_000, 100_000],
    };
    let mut rows = Vec::new();
    for kind in Kind::value_variants() {
        let value = kind.to_possible_value().context("a kind has no name")?;
        let mut figures = Vec::new();
        let mut resident = None;
        for count in counts {
            let arguments = ["--cost", value.get_name(), "--count", &count.to_string()];
            let measured = in_new_process(&arguments)?;
            figures.push(measured["allocated"].as_f64());
            resident = measured["resident"].as_f64();
        }
        figures.push(resident);
        rows.push((kind.name().to_owned(), figures));
    }
    let columns = counts.iter().map(|count| grouped(*count as u64));
    Ok(Table {
        title: "Bytes allocated for each, in the process; and resident at the largest count"
            .to_owned(),
        over: "how many",
        columns: columns.chain(["resident".to_owned()]).collect(),
        rows,
    })
}
