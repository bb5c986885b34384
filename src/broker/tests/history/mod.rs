//! Late, and back again: what is kept, where a subscription starts, what is told as gone, and the end of a
//! topic.

mod budget;
mod ends;
#[cfg(feature = "interleavings")]
mod interleavings;
mod oracle;
mod starts;
mod threads;

use super::*;
use crate::cursor::{Cursor, Gap, StartAt};

/// Which topics keep how many messages.
pub(super) fn keeping(rules: &[(&str, Option<usize>)]) -> Limits {
    let rules = rules.iter().map(|(filter, messages)| Retention {
        filter: filter.parse().unwrap(),
        bounds: messages.map(|messages| Bounds {
            messages,
            bytes: 1 << 30,
            ..Bounds::default()
        }),
    });
    Limits {
        history: HistoryLimits {
            rules: rules.collect(),
            bytes_max: 1 << 30,
        },
        memory_budget: 1 << 31,
        ..Limits::default()
    }
}

/// A broker whose topics keep so many messages each.
pub(super) fn broker_keeping(messages: usize) -> Broker {
    broker_with(keeping(&[(">", Some(messages))]))
}

pub(super) fn from_start(filter: &str, start: StartAt) -> SubscribeOptions {
    SubscribeOptions {
        start,
        ..options(filter)
    }
}

pub(super) fn subscribe_from(broker: &Broker, filter: &str, start: StartAt) -> Subscription {
    let options = from_start(filter, start);
    broker.subscribe_encoded(options, &ENCODING).unwrap()
}

type Taking = Result<(Lost, Vec<Arc<Delivery>>), Ended>;

/// Takes, and passes on at once.
pub(super) fn poll_past(
    subscription: &mut Subscription,
    limit: BatchLimit,
    waker: &Waker,
) -> Poll<Taking> {
    let (mut lost, mut batch) = (Lost::default(), Vec::new());
    let mut cx = Context::from_waker(waker);
    let taken = subscription.poll_take_encoded(&mut cx, limit, |taken| match taken {
        Taken::Missed(count) => lost.missed += count,
        Taken::Gap(gap, _) => {
            let comes_first = batch.iter().all(|d: &Arc<Delivery>| d.position.is_none());
            assert!(comes_first && lost.gap.is_none() && !gap.is_none());
            lost.gap = gap;
        }
        Taken::Delivery(delivery) => batch.push(delivery),
        Taken::Frames(mut frames) => {
            while frames.has_remaining() {
                batch.push(decode(&mut frames));
            }
        }
    });
    subscription.pass_on();
    taken.map_ok(|()| (lost, batch))
}

/// What a reader got until nothing more came.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Got {
    pub(super) payloads: Vec<String>,
    pub(super) lost: Lost,
    pub(super) end: Option<EndReason>,
}

impl Got {
    fn of(payloads: &[&str]) -> Self {
        Self {
            payloads: payloads.iter().map(|text| (*text).to_owned()).collect(),
            ..Self::default()
        }
    }

    fn after_gap(self, gap: Gap) -> Self {
        let lost = Lost { gap, ..self.lost };
        Self { lost, ..self }
    }

    fn and_end(self, reason: EndReason) -> Self {
        Self {
            end: Some(reason),
            ..self
        }
    }
}

pub(super) fn read_all(subscription: &mut Subscription) -> Got {
    read_all_by(subscription, ALL)
}

pub(super) fn read_all_by(subscription: &mut Subscription, limit: BatchLimit) -> Got {
    let wakes = Arc::new(Wakes::default());
    let waker = Arc::clone(&wakes).into();
    let mut got = Got::default();
    loop {
        let before = wakes.count();
        match poll_past(subscription, limit, &waker) {
            Poll::Ready(Ok((lost, batch))) => {
                assert!(batch.len() <= limit.messages);
                got.lost.missed += lost.missed;
                got.lost.gap += lost.gap;
                got.payloads
                    .extend(batch.iter().map(|delivery| payload(delivery)));
            }
            Poll::Ready(Err(ended)) => {
                got.lost.missed += ended.missed;
                got.end = Some(ended.reason);
                return got;
            }
            Poll::Pending if wakes.count() == before => return got,
            Poll::Pending => {}
        }
    }
}

/// Publishes numbers as payloads.
pub(super) fn publish_all(
    broker: &Broker,
    topic: &str,
    numbers: impl IntoIterator<Item = u64>,
) -> Vec<Receipt> {
    let receipts = numbers
        .into_iter()
        .map(|number| publish(broker, topic, &number.to_string()));
    receipts.collect()
}

pub(super) fn publish_end(broker: &Broker, topic: &str, payload: &str) -> Receipt {
    let mut message = Message::new(topic.parse().unwrap(), payload.to_owned());
    message.end = true;
    broker.publish(message, SystemTime::UNIX_EPOCH).unwrap()
}
