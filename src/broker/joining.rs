//! How subscriptions come and go.
//!
//! Invariants: nothing that is published after a subscription was granted is lost to a race; a topic with
//! a subscriber of its own is pinned for as long as that lives.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use super::{
    Shared,
    batch::Encoding,
    ended::EndReason,
    lane::LaneKey,
    mailbox::Mailbox,
    pressure,
    queue::MailboxSize,
    registry::Registry,
    replay::Beginning,
    subscriber::Subscriber,
    subscription::{Start, SubscribeError, SubscribeOptions, Subscription},
};
use crate::{
    message::{Sequence, Tag},
    topic::Topic,
};

impl Shared {
    pub(super) fn subscribe(
        self: &Arc<Self>,
        options: SubscribeOptions,
        encoding: Option<&'static Encoding>,
    ) -> Result<Subscription, SubscribeError> {
        let limits = &self.limits;
        if options.tags.len() > limits.tags_max {
            return Err(SubscribeError::TooManyTags {
                tags: options.tags.len(),
                max: limits.tags_max,
            });
        }
        if options.filters.as_slice().len() > limits.filters_max {
            return Err(SubscribeError::TooManyFilters {
                filters: options.filters.as_slice().len(),
                max: limits.filters_max,
            });
        }
        if options.group.is_some() && !options.start.is_now() {
            return Err(SubscribeError::GroupWithStart);
        }
        // Asked before the topic is pinned: who is refused must not push others out of memory.
        self.admits(&self.registry.read())?;
        match options.filters.as_topic() {
            Some(topic) => self.subscribe_to_topic(&topic, options, encoding),
            None => self.subscribe_to_many(options, encoding),
        }
    }

    fn subscribe_to_topic(
        self: &Arc<Self>,
        topic: &Topic,
        options: SubscribeOptions,
        encoding: Option<&'static Encoding>,
    ) -> Result<Subscription, SubscribeError> {
        let state = self.topics.pin(topic);
        let live = state.lock().expect("a pinned topic is not retired");
        let log = live.log.as_deref();
        let beginning = Beginning::of_topic(self, options.start, &options.tags, topic, &state, log);
        let is_behind = beginning.is_behind();
        // Registered under the topic's lock: no message falls between the head and the first one.
        match self.register(options, encoding, is_behind) {
            Ok(subscriber) => {
                if live.ended {
                    // Nobody reads it yet, so there is nobody to wake.
                    drop(subscriber.with_flushed(|mailbox| mailbox.finish(EndReason::TopicEnded)));
                }
                let start = Start {
                    epoch: state.epoch,
                    head: Sequence(live.head),
                };
                drop(live);
                let shared = Arc::clone(self);
                Ok(Subscription::new(
                    shared,
                    subscriber,
                    Some(start),
                    beginning,
                ))
            }
            Err(error) => {
                drop(live);
                self.topics.unpin(topic);
                Err(error)
            }
        }
    }

    fn subscribe_to_many(
        self: &Arc<Self>,
        options: SubscribeOptions,
        encoding: Option<&'static Encoding>,
    ) -> Result<Subscription, SubscribeError> {
        let (start, filters) = (options.start, options.filters.clone());
        let topics: Vec<_> = filters.topics().map(|t| self.topics.pin(&t)).collect();
        let are_all_topics = topics.len() == filters.as_slice().len();
        // Before it is registered: what comes in between would be handed over twice, but not be lost.
        let head = self.history.head();
        let is_on = self.history.is_on();
        let is_behind = is_on && !start.is_now();
        let registered = self.register(options, encoding, is_behind);
        let subscriber = registered
            .inspect_err(|_| filters.topics().for_each(|topic| self.topics.unpin(&topic)))?;
        let beginning = if is_behind {
            let these = are_all_topics.then(|| topics.clone());
            Beginning::of_many(self, start, &subscriber, these)
        } else if is_on {
            Beginning {
                replay: None,
                cursor: Some(self.cursor_at(head)),
            }
        } else {
            Beginning::without_history(start)
        };
        let subscription = Subscription::new(Arc::clone(self), subscriber, None, beginning);
        Ok(if are_all_topics {
            subscription.until_ended(topics)
        } else {
            subscription
        })
    }

    /// Whether one more subscription may live.
    fn admits(&self, registry: &Registry) -> Result<(), SubscribeError> {
        let max = self.limits.subscriptions_max;
        if registry.is_draining() {
            return Err(SubscribeError::Draining);
        }
        if registry.len() >= max {
            return Err(SubscribeError::TooManySubscriptions { max });
        }
        self.admits_by_memory()?;
        Ok(())
    }

    fn register(
        &self,
        options: SubscribeOptions,
        encoding: Option<&'static Encoding>,
        is_behind: bool,
    ) -> Result<Arc<Subscriber>, SubscribeError> {
        let limits = &self.limits;
        let size = MailboxSize {
            messages: options
                .mailbox_capacity
                .unwrap_or(limits.mailbox_capacity)
                .clamp(1, limits.mailbox_capacity_max),
            bytes: limits.mailbox_bytes,
        };
        let tags: Box<[Tag]> = options.tags.into();
        let more_filters = options.filters.as_slice().len() - 1;
        let held_bytes = pressure::SUBSCRIPTION_BYTES + more_filters * pressure::FILTER_BYTES;
        // Taken under the registry's lock: the trie wants rising ids.
        let next_id = || self.next_id.fetch_add(1, Ordering::Relaxed);
        let mut registry = self.registry.write();
        self.admits(&registry)?;
        let shares = options.group.is_none() && size.messages >= self.lane_capacity_min;
        let lane = encoding.filter(|_| shares).map(|encoding| {
            let key = LaneKey {
                filters: options.filters.clone(),
                tags: tags.clone(),
                encoding: encoding.name,
            };
            registry.lane(key, encoding, &self.budget, next_id)
        });
        let subscriber = Arc::new(Subscriber {
            id: next_id(),
            arrival: options.arrival,
            filters: options.filters,
            tags,
            group: options.group.map(|name| registry.join_group(name)),
            served: AtomicU64::new(0),
            lane,
            is_behind: AtomicBool::new(is_behind),
            mailbox: Arc::new(Mailbox::new(
                size,
                options.overflow,
                Arc::clone(&self.budget),
            )),
            _held: self.budget.memory().hold(held_bytes),
        });
        registry.insert(&subscriber);
        self.version.store(registry.version(), Ordering::Release);
        Ok(subscriber)
    }

    pub(super) fn unsubscribe(&self, id: u64) {
        let mut registry = self.registry.write();
        let removed = registry.remove(id);
        self.version.store(registry.version(), Ordering::Release);
        drop(registry);
        let Some((subscriber, wakers)) = removed else {
            return;
        };
        wakers.wake();
        for topic in subscriber.filters.topics() {
            self.topics.unpin(&topic);
        }
    }
}
