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
        atomic::{AtomicU64, Ordering},
    },
    task::Waker,
};

use super::{
    ledger::Ledger,
    mailbox::{Mailbox, Outcome, Push},
    trie::FilterTrie,
    wakers::Wakers,
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
    /// When the group served this member last, in messages; 0 for never.
    pub(crate) served: AtomicU64,
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
    /// Messages that the group was given.
    messages: AtomicU64,
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
        self.wakers.extend(push.wakers);
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

/// Offers the message to the members that want it, the one served longest ago first. If none has
/// room, that one takes the loss by its own policy. `None` if the message is for no member.
///
/// A turn by position would starve members where tags or topics alternate in step with it.
fn deliver_to_group(
    group: &Group,
    members: &[Arc<Subscriber>],
    delivery: &Arc<Delivery>,
) -> Option<Push> {
    let wanting = || members.iter().filter(|member| member.wants(delivery));
    let served = |member: &&Arc<Subscriber>| member.served.load(Ordering::Relaxed);
    let serve = |member: &Arc<Subscriber>, push: Push| {
        let now = group.messages.fetch_add(1, Ordering::Relaxed) + 1;
        member.served.store(now, Ordering::Relaxed);
        push
    };
    let first = wanting().min_by_key(served)?;
    let push = first.mailbox.offer(delivery);
    if push.outcome == Outcome::Buffered {
        return Some(serve(first, push));
    }
    let mut in_turn: Vec<_> = wanting().collect();
    in_turn.sort_by_key(served);
    for member in &in_turn {
        let push = member.mailbox.offer(delivery);
        if push.outcome == Outcome::Buffered {
            return Some(serve(member, push));
        }
    }
    in_turn.into_iter().find_map(|member| {
        let push = member.mailbox.push(delivery);
        (push.outcome != Outcome::Closed).then(|| serve(member, push))
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
            let messages = AtomicU64::new(0);
            (Arc::new(Group { name, messages }), 0)
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
    pub(crate) fn remove(&mut self, id: u64) -> Option<(Arc<Subscriber>, Wakers)> {
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
        let (ledger, wakers) = subscriber.mailbox.close();
        self.departed += ledger;
        self.version += 1;
        Some((subscriber, wakers))
    }

    /// Lets nobody in any more, and ends every mailbox once it is empty.
    pub(crate) fn drain(&mut self) -> Vec<Wakers> {
        self.draining = true;
        let mailboxes = self.subscribers.values().map(|s| &s.mailbox);
        mailboxes.map(Mailbox::drain).collect()
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
