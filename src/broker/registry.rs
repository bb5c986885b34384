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
    batch::Encoding,
    budget::Budget,
    ended::EndReason,
    lane::{Lane, LaneKey, Seat},
    ledger::Ledger,
    mailbox::{Mailbox, Outcome, Push},
    parting::Parting,
    subscriber::Subscriber,
    trie::FilterTrie,
    wakers::Wakers,
};
use crate::{
    message::{Delivery, GroupName},
    topic::Topic,
};

/// Subscribers that share the work, whatever their filters.
#[derive(Debug)]
pub(crate) struct Group {
    name: GroupName,
    /// Messages that the group was given.
    messages: AtomicU64,
}

impl Group {
    pub(super) fn name(&self) -> &GroupName {
        &self.name
    }
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
    pub(super) fn add(&mut self, push: Push) {
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
    lanes: Vec<Arc<Lane>>,
    singles: Vec<Arc<Subscriber>>,
    groups: Vec<(Arc<Group>, Vec<Arc<Subscriber>>)>,
}

impl Route {
    pub(crate) fn is_empty(&self) -> bool {
        self.lanes.is_empty() && self.singles.is_empty() && self.groups.is_empty()
    }

    /// Pushes the message to every subscriber it is for. Never waits, wakes nobody.
    pub(crate) fn deliver(&self, parting: &mut Parting<'_>, tally: &mut Tally) {
        let tag = parting.message().tag;
        parting.expect_lanes(self.lanes.len());
        for lane in self.lanes.iter().filter(|lane| lane.wants(tag)) {
            lane.lock().push(parting, tally);
        }
        for subscriber in self.singles.iter().filter(|s| s.wants(tag)) {
            if parting.is_kept() && subscriber.is_behind() {
                continue;
            }
            tally.add(subscriber.mailbox.push(parting.shared()));
        }
        for (group, members) in &self.groups {
            if let Some(push) = deliver_to_group(group, members, parting.shared()) {
                tally.add(push);
            }
        }
    }

    /// The lane that is all of the route, if it is one.
    pub(crate) fn only_lane(&self) -> Option<&Lane> {
        match &*self.lanes {
            [lane] if self.singles.is_empty() && self.groups.is_empty() => Some(lane),
            _ => None,
        }
    }

    /// Ends the subscriptions to just this topic, which has seen its last message, each after what its
    /// mailbox holds. Who reads several topics looks by itself whether this was the last of them. Wakes
    /// nobody.
    pub(crate) fn finish(&self, topic: &Topic, tally: &mut Tally) {
        for lane in &self.lanes {
            if lane.key.filters.is_just(topic) {
                lane.finish(tally);
            } else if lane.key.filters.names_among_others(topic) {
                lane.wake(tally);
            }
        }
        let members = self.groups.iter().flat_map(|(_, members)| members);
        for subscriber in self.singles.iter().chain(members) {
            if subscriber.filters.is_just(topic) {
                let wakers = subscriber.mailbox.finish(EndReason::TopicEnded);
                tally.wakers.extend(wakers);
            } else if subscriber.filters.names_among_others(topic) {
                tally.wakers.extend(subscriber.mailbox.take_reader());
            }
        }
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
    let tag = delivery.message.tag.as_ref();
    let wanting = || members.iter().filter(|member| member.wants(tag));
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
    // Each turn is read once: other topics change them meanwhile.
    in_turn.sort_by_cached_key(served);
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

/// What a filter leads to.
#[derive(Debug)]
enum Target {
    Lane(Arc<Lane>),
    Subscriber(Arc<Subscriber>),
}

impl Target {
    fn id(&self) -> u64 {
        match self {
            Self::Lane(lane) => lane.id,
            Self::Subscriber(subscriber) => subscriber.id,
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Registry {
    version: u64,
    draining: bool,
    trie: FilterTrie<Target>,
    subscribers: HashMap<u64, Arc<Subscriber>>,
    lanes: HashMap<LaneKey, Arc<Lane>>,
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

    pub(crate) fn lanes(&self) -> impl Iterator<Item = &Arc<Lane>> {
        self.lanes.values()
    }

    /// How many subscribers a topic has.
    pub(crate) fn matching(&self, topic: &Topic) -> usize {
        let targets = self.targets(topic).into_iter();
        let members = targets.map(|target| match target {
            Target::Lane(lane) => lane.len(),
            Target::Subscriber(_) => 1,
        });
        members.sum()
    }

    /// What a topic leads to, in the order in which it came.
    fn targets(&self, topic: &Topic) -> Vec<&Target> {
        let mut found = Vec::new();
        self.trie.visit(topic, |target| found.push(target));
        found.sort_unstable_by_key(|target| target.id());
        // Found by each of its filters that matches.
        found.dedup_by_key(|target| target.id());
        found
    }

    /// The accounts of all subscribers, those that left included.
    pub(crate) fn ledger(&self) -> Ledger {
        let mut sum = self.departed;
        for subscriber in self.subscribers.values() {
            sum += subscriber.ledger();
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

    /// The lane of those who want just this, whether or not it has been there before. `next_id` gives
    /// rising ids.
    pub(crate) fn lane(
        &mut self,
        key: LaneKey,
        encoding: &'static Encoding,
        budget: &Arc<Budget>,
        next_id: impl FnOnce() -> u64,
    ) -> Arc<Lane> {
        if let Some(lane) = self.lanes.get(&key) {
            return Arc::clone(lane);
        }
        let id = next_id();
        let lane = Arc::new(Lane::new(id, key.clone(), encoding, Arc::clone(budget)));
        for filter in key.filters.as_slice() {
            let target = Target::Lane(Arc::clone(&lane));
            self.trie.insert(filter, id, target);
        }
        self.lanes.insert(key, Arc::clone(&lane));
        self.version += 1;
        lane
    }

    pub(crate) fn insert(&mut self, subscriber: &Arc<Subscriber>) {
        let id = subscriber.id;
        self.subscribers.insert(id, Arc::clone(subscriber));
        if let Some(lane) = &subscriber.lane {
            let seat = Seat {
                id,
                mailbox: Arc::clone(&subscriber.mailbox),
            };
            lane.join(seat, subscriber.is_behind());
        } else {
            for filter in subscriber.filters.as_slice() {
                let target = Target::Subscriber(Arc::clone(subscriber));
                self.trie.insert(filter, id, target);
            }
            self.version += 1;
        }
    }

    /// Removes a subscriber, closes its mailbox and keeps its account. `None` if it was gone.
    pub(crate) fn remove(&mut self, id: u64) -> Option<(Arc<Subscriber>, Wakers)> {
        let subscriber = self.subscribers.remove(&id)?;
        if self.subscribers.len() < self.subscribers.capacity() / 4 {
            self.subscribers.shrink_to_fit();
        }
        if let Some(group) = &subscriber.group
            && let Some((_, members)) = self.groups.get_mut(&group.name)
        {
            *members -= 1;
            if *members == 0 {
                self.groups.remove(&group.name);
                if self.groups.len() < self.groups.capacity() / 4 {
                    self.groups.shrink_to_fit();
                }
            }
        }
        let (ledger, wakers) = subscriber.with_flushed(Mailbox::close);
        self.departed += ledger;
        match &subscriber.lane {
            None => {
                for filter in subscriber.filters.as_slice() {
                    self.trie.remove(filter, id);
                }
                self.version += 1;
            }
            Some(lane) if lane.is_empty() => self.remove_lane(lane),
            Some(_) => {}
        }
        Some((subscriber, wakers))
    }

    /// Removes an empty lane, unless it is gone and another one has taken its place.
    fn remove_lane(&mut self, lane: &Lane) {
        let filters = lane.key.filters.as_slice().iter();
        let removed = filters.filter_map(|filter| self.trie.remove(filter, lane.id));
        if removed.count() == 0 {
            return;
        }
        self.lanes.remove(&lane.key);
        if self.lanes.len() < self.lanes.capacity() / 4 {
            self.lanes.shrink_to_fit();
        }
        self.version += 1;
    }

    /// Lets nobody in any more, and ends every mailbox once it is empty.
    pub(crate) fn drain(&mut self) -> Vec<Wakers> {
        self.draining = true;
        let subscribers = self.subscribers.values();
        subscribers
            .map(|s| s.with_flushed(|mailbox| mailbox.finish(EndReason::Draining)))
            .collect()
    }

    pub(crate) fn matches(&self, topic: &Topic) -> bool {
        self.trie.matches(topic)
    }

    /// The way to all subscribers of a topic, in the order in which they came.
    pub(crate) fn route(&self, topic: &Topic) -> Route {
        let mut route = Route {
            version: self.version,
            ..Route::default()
        };
        let mut groups: HashMap<&GroupName, usize> = HashMap::new();
        for target in self.targets(topic) {
            let subscriber = match target {
                Target::Lane(lane) => {
                    route.lanes.push(Arc::clone(lane));
                    continue;
                }
                Target::Subscriber(subscriber) => subscriber,
            };
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
        route.lanes.shrink_to_fit();
        route.singles.shrink_to_fit();
        route
    }
}

#[cfg(test)]
impl Registry {
    /// Whether nothing is left of anybody.
    pub(crate) fn is_empty(&self) -> bool {
        self.trie.is_empty() && self.lanes.is_empty() && self.subscribers.is_empty()
    }
}
