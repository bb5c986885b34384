//! Who listens to what: live subscribers under their filters, and the route that a topic's messages
//! take to them.
//!
//! A [`Route`] is what the registry says of one topic at one version; topics keep theirs and ask
//! again when the version has moved, so that publishing does not hold the registry's lock while it
//! fills mailboxes. Invariants: a subscriber is found from the moment it is inserted to the moment
//! it is removed; the accounts of those that left are kept in `departed`.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::Waker,
};

use super::{
    ledger::Ledger,
    mailbox::{Mailbox, Outcome, Push},
    trie::FilterTrie,
};
use crate::{
    message::{Delivery, GroupName, Tag},
    topic::{Topic, TopicFilter},
};

/// One live reader of a filter.
#[derive(Debug)]
pub(crate) struct Subscriber {
    pub(crate) id: u64,
    pub(crate) filter: TopicFilter,
    pub(crate) tags: Box<[Tag]>,
    pub(crate) group: Option<Arc<Group>>,
    pub(crate) mailbox: Mailbox,
}

impl Subscriber {
    /// Whether the subscriber's tags let the message through.
    fn wants(&self, delivery: &Delivery) -> bool {
        let tag = delivery.message.tag.as_ref();
        self.tags.is_empty() || tag.is_some_and(|tag| self.tags.contains(tag))
    }
}

/// Subscribers that share the work, whatever their filters.
#[derive(Debug)]
pub(crate) struct Group {
    name: GroupName,
    /// Whose turn it is, modulo the members that match.
    turn: AtomicUsize,
}

/// What became of one message at all the mailboxes it matched.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) matched: u32,
    pub(crate) delivered: u32,
    pub(crate) displaced: u64,
    /// Readers to wake once all locks are released.
    pub(crate) wakers: Vec<Waker>,
}

impl Tally {
    fn add(&mut self, push: Push) {
        self.matched += u32::from(push.outcome != Outcome::Closed);
        self.delivered += u32::from(push.outcome == Outcome::Buffered);
        self.displaced += push.displaced;
        self.wakers.extend(push.waker);
    }
}

/// The subscribers whose filters match one topic, as of one version of the registry.
#[derive(Debug, Default)]
pub(crate) struct Route {
    pub(crate) version: u64,
    singles: Vec<Arc<Subscriber>>,
    groups: Vec<(Arc<Group>, Vec<Arc<Subscriber>>)>,
}

impl Route {
    pub(crate) fn is_empty(&self) -> bool {
        self.singles.is_empty() && self.groups.is_empty()
    }

    /// Pushes the message to every subscriber it is for. Never waits, wakes nobody.
    pub(crate) fn deliver(&self, delivery: &Arc<Delivery>) -> Tally {
        let mut tally = Tally::default();
        for subscriber in self.singles.iter().filter(|s| s.wants(delivery)) {
            tally.add(subscriber.mailbox.push(delivery));
        }
        for (group, members) in &self.groups {
            if let Some(push) = deliver_to_group(group, members, delivery) {
                tally.add(push);
            }
        }
        tally
    }
}

/// Offers the message to the group's members in turn. If none has room, the first whose turn it is
/// takes the loss by its own policy. `None` if the message is for no member.
fn deliver_to_group(
    group: &Group,
    members: &[Arc<Subscriber>],
    delivery: &Arc<Delivery>,
) -> Option<Push> {
    let turn = group.turn.fetch_add(1, Ordering::Relaxed) % members.len();
    let in_turn = || {
        let (before, from) = members.split_at(turn);
        from.iter().chain(before).filter(|m| m.wants(delivery))
    };
    let offered = in_turn()
        .map(|member| member.mailbox.offer(delivery))
        .find(|push| push.outcome == Outcome::Buffered);
    offered.or_else(|| {
        in_turn()
            .map(|member| member.mailbox.push(delivery))
            .find(|push| push.outcome != Outcome::Closed)
    })
}

#[derive(Debug, Default)]
pub(crate) struct Registry {
    version: u64,
    draining: bool,
    trie: FilterTrie<Arc<Subscriber>>,
    subscribers: HashMap<u64, Arc<Subscriber>>,
    /// Live groups, each with the number of its members.
    groups: HashMap<GroupName, (Arc<Group>, usize)>,
    departed: Ledger,
}

impl Registry {
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining
    }

    pub(crate) fn len(&self) -> usize {
        self.subscribers.len()
    }

    pub(crate) fn groups_len(&self) -> usize {
        self.groups.len()
    }

    pub(crate) fn subscribers(&self) -> impl Iterator<Item = &Arc<Subscriber>> {
        self.subscribers.values()
    }

    /// The accounts of all subscribers, those that left included.
    pub(crate) fn ledger(&self) -> Ledger {
        let mut sum = self.departed;
        for subscriber in self.subscribers.values() {
            sum += subscriber.mailbox.ledger();
        }
        sum
    }

    /// The group of this name with one more member.
    pub(crate) fn join_group(&mut self, name: GroupName) -> Arc<Group> {
        let (group, members) = self.groups.entry(name.clone()).or_insert_with(|| {
            let turn = AtomicUsize::new(0);
            (Arc::new(Group { name, turn }), 0)
        });
        *members += 1;
        Arc::clone(group)
    }

    pub(crate) fn insert(&mut self, subscriber: &Arc<Subscriber>) {
        let (filter, id) = (&subscriber.filter, subscriber.id);
        self.trie.insert(filter, id, Arc::clone(subscriber));
        self.subscribers.insert(id, Arc::clone(subscriber));
        self.version += 1;
    }

    /// Removes a subscriber, closes its mailbox and keeps its account. `None` if it was gone.
    pub(crate) fn remove(&mut self, id: u64) -> Option<Arc<Subscriber>> {
        let subscriber = self.subscribers.remove(&id)?;
        if self.subscribers.len() < self.subscribers.capacity() / 4 {
            self.subscribers.shrink_to_fit();
        }
        self.trie.remove(&subscriber.filter, id);
        if let Some(group) = &subscriber.group
            && let Some((_, members)) = self.groups.get_mut(&group.name)
        {
            *members -= 1;
            if *members == 0 {
                self.groups.remove(&group.name);
            }
        }
        self.departed += subscriber.mailbox.close();
        self.version += 1;
        Some(subscriber)
    }

    /// Lets nobody in any more, and ends every mailbox once it is empty.
    pub(crate) fn drain(&mut self) {
        self.draining = true;
        for subscriber in self.subscribers.values() {
            subscriber.mailbox.drain();
        }
    }

    pub(crate) fn matches(&self, topic: &Topic) -> bool {
        self.trie.matches(topic)
    }

    /// The way to all subscribers of a topic, in the order in which they came.
    pub(crate) fn route(&self, topic: &Topic) -> Route {
        let mut found = Vec::new();
        self.trie.visit(topic, |subscriber| found.push(subscriber));
        found.sort_unstable_by_key(|subscriber| subscriber.id);

        let mut route = Route {
            version: self.version,
            ..Route::default()
        };
        let mut groups: HashMap<&GroupName, usize> = HashMap::new();
        for subscriber in found {
            let Some(group) = &subscriber.group else {
                route.singles.push(Arc::clone(subscriber));
                continue;
            };
            let at = *groups.entry(&group.name).or_insert_with(|| {
                route.groups.push((Arc::clone(group), Vec::new()));
                route.groups.len() - 1
            });
            route.groups[at].1.push(Arc::clone(subscriber));
        }
        route.singles.shrink_to_fit();
        route
    }
}
