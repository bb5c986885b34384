//! How subscriptions come and go.
//!
//! Invariants: nothing that is published after a subscription was granted is lost to a race; a topic with
//! a subscriber of its own is pinned for as long as that lives.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use super::{
    Shared,
    batch::Encoding,
    lane::LaneKey,
    mailbox::Mailbox,
    pressure,
    queue::MailboxSize,
    registry::Registry,
    subscriber::Subscriber,
    subscription::{Start, SubscribeError, SubscribeOptions, Subscription},
};
use crate::message::{Sequence, Tag};

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
        // Asked before the topic is pinned: who is refused must not push others out of memory.
        self.admits(&self.registry.read())?;
        let Some(topic) = options.filter.as_topic() else {
            let subscriber = self.register(options, encoding)?;
            return Ok(Subscription::new(Arc::clone(self), subscriber, None));
        };
        let state = self.topics.pin(&topic);
        let live = state.lock().expect("a pinned topic is not retired");
        // Registered under the topic's lock: no message falls between the head and the first one.
        match self.register(options, encoding) {
            Ok(subscriber) => {
                let start = Start {
                    epoch: state.epoch,
                    head: Sequence(live.head),
                };
                drop(live);
                Ok(Subscription::new(Arc::clone(self), subscriber, Some(start)))
            }
            Err(error) => {
                drop(live);
                self.topics.unpin(&topic);
                Err(error)
            }
        }
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
        // Taken under the registry's lock: the trie wants rising ids.
        let next_id = || self.next_id.fetch_add(1, Ordering::Relaxed);
        let mut registry = self.registry.write();
        self.admits(&registry)?;
        let shares = options.group.is_none() && size.messages >= self.lane_capacity_min;
        let lane = encoding.filter(|_| shares).map(|encoding| {
            let key = LaneKey {
                filter: options.filter.clone(),
                tags: tags.clone(),
                encoding: encoding.name,
            };
            registry.lane(key, encoding, &self.budget, next_id)
        });
        let subscriber = Arc::new(Subscriber {
            id: next_id(),
            filter: options.filter,
            arrival: options.arrival,
            tags,
            group: options.group.map(|name| registry.join_group(name)),
            served: AtomicU64::new(0),
            lane,
            mailbox: Arc::new(Mailbox::new(
                size,
                options.overflow,
                Arc::clone(&self.budget),
            )),
            _held: self.budget.memory().hold(pressure::SUBSCRIPTION_BYTES),
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
        if let Some(topic) = subscriber.filter.as_topic() {
            self.topics.unpin(&topic);
        }
    }
}
