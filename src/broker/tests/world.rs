//! A small broker beside a model of it that matches linearly and remembers everything. Each step is
//! made in both, and [`World::check`] compares their accounts.

use super::*;
use crate::message::GroupName;

const TICKS_MAX: u32 = 2;

/// Room for few messages, few subscriptions, and less in all mailboxes together than they ask for.
fn small_limits() -> Limits {
    Limits {
        payload_bytes_max: 100,
        attributes_bytes_max: 0,
        mailbox_capacity_max: 4,
        mailbox_capacity: 4,
        mailbox_bytes: 1_250,
        buffered_bytes_max: 2_400,
        subscriptions_max: 8,
        idle_topics_max: 32,
        ..Limits::default()
    }
}

/// What the model knows of one subscriber.
#[derive(Debug)]
pub(super) struct Account {
    wish: SubscribeOptions,
    /// `None` once it has left.
    subscription: Option<Subscription>,
    /// Kept to read the broker's own account of it, also afterwards.
    subscriber: Arc<Subscriber>,
    /// Known for a subscriber without a group only.
    matched: u64,
    received: Vec<(Topic, Epoch, Sequence)>,
    told: u64,
    order: OrderCheck,
    in_registry: bool,
    took: bool,
    idle_ticks: u32,
}

impl Account {
    fn end(&self) -> Option<EndReason> {
        self.subscription
            .as_ref()
            .map_or(Some(EndReason::Unsubscribed), Subscription::end)
    }

    fn wants(&self, message: &Message) -> bool {
        let tags = &self.wish.tags;
        let tag = message.tag.as_ref();
        self.wish.filters.matches(&message.topic)
            && (tags.is_empty() || tag.is_some_and(|tag| tags.contains(tag)))
    }

    fn ledger(&self) -> Ledger {
        self.subscriber.ledger()
    }
}

pub(super) struct World {
    pub(super) broker: Broker,
    draining: bool,
    pub(super) accounts: Vec<Account>,
    group_matched: HashMap<GroupName, u64>,
    /// Which messages a group's members got, each once.
    group_received: HashSet<(GroupName, Topic, Epoch, Sequence)>,
    receipts: Vec<Receipt>,
    published_bytes: u64,
    newest: HashMap<Topic, (Epoch, Sequence)>,
}

impl World {
    pub(super) fn new() -> Self {
        Self {
            broker: broker_with(small_limits()),
            draining: false,
            accounts: Vec::new(),
            group_matched: HashMap::new(),
            group_received: HashSet::new(),
            receipts: Vec::new(),
            published_bytes: 0,
            newest: HashMap::new(),
        }
    }

    /// One of those who have not left, by any number.
    pub(super) fn present(&self, who: usize) -> Option<usize> {
        let present: Vec<usize> = (0..self.accounts.len())
            .filter(|who| self.accounts[*who].subscription.is_some())
            .collect();
        (!present.is_empty()).then(|| present[who % present.len()])
    }

    pub(super) fn publish(&mut self, topic: &str, tag: Option<&str>, payload_bytes: usize) {
        let mut message = Message::new(topic.parse().unwrap(), vec![0; payload_bytes]);
        message.tag = tag.map(|tag| tag.parse().unwrap());
        let mut singles = 0;
        let mut groups = HashSet::new();
        for account in &mut self.accounts {
            if account.end().is_none() && account.wants(&message) {
                match &account.wish.group {
                    Some(group) => drop(groups.insert(group.clone())),
                    None => {
                        account.matched += 1;
                        singles += 1;
                    }
                }
            }
        }
        let receipt = self.broker.publish(message.clone(), SystemTime::UNIX_EPOCH);
        let receipt = receipt.unwrap();
        assert_eq!(receipt.matched, singles + groups.len() as u32);
        assert_eq!(receipt.matched, receipt.delivered + receipt.dropped);
        for group in groups {
            *self.group_matched.entry(group).or_default() += 1;
        }
        self.check_place(&message.topic, &receipt);
        self.published_bytes += payload_bytes as u64;
        self.receipts.push(receipt);
    }

    /// A sequence follows the one before it or is the first of a new epoch; a topic with a
    /// subscriber of its own keeps its epoch.
    fn check_place(&mut self, topic: &Topic, receipt: &Receipt) {
        let place = (receipt.epoch, receipt.sequence);
        match self.newest.insert(topic.clone(), place) {
            Some((epoch, newest)) if epoch == receipt.epoch => {
                assert_eq!(receipt.sequence, Sequence(newest.0 + 1));
            }
            before => {
                assert_eq!(receipt.sequence, Sequence(1));
                assert!(before.is_none_or(|(epoch, _)| epoch < receipt.epoch));
            }
        }
        let own = Filters::from(TopicFilter::from(topic.clone()));
        let registered = self.accounts.iter().filter(|a| a.in_registry);
        for pin in registered.filter(|a| a.wish.filters == own) {
            let start = pin.subscription.as_ref().and_then(Subscription::start);
            assert_eq!(Some(receipt.epoch), start.map(|start| start.epoch));
        }
    }

    pub(super) fn subscribe(&mut self, wish: SubscribeOptions, encoded: bool) {
        let live = self.accounts.iter().filter(|a| a.in_registry).count();
        match subscribe_either(&self.broker, wish.clone(), encoded) {
            Ok(subscription) => {
                assert!(live < 8 && !self.draining);
                self.check_start(&wish.filters, subscription.start());
                self.accounts.push(Account {
                    wish,
                    subscription: Some(subscription),
                    subscriber: newest_subscriber(&self.broker),
                    matched: 0,
                    received: Vec::new(),
                    told: 0,
                    order: OrderCheck::default(),
                    in_registry: true,
                    took: false,
                    idle_ticks: 0,
                });
            }
            Err(SubscribeError::Draining) => assert!(self.draining),
            Err(SubscribeError::TooManySubscriptions { max }) => {
                assert!(!self.draining && live == max);
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn check_start(&self, filter: &Filters, start: Option<Start>) {
        assert_eq!(start.is_some(), filter.as_topic().is_some());
        let (Some(topic), Some(start)) = (filter.as_topic(), start) else {
            return;
        };
        match self.newest.get(&topic) {
            Some((epoch, newest)) if *epoch == start.epoch => assert_eq!(start.head, *newest),
            _ => assert_eq!(start.head, Sequence(0)),
        }
    }

    /// False if there was nothing to take.
    pub(super) fn read(&mut self, who: usize, messages: usize) -> bool {
        let account = &mut self.accounts[who];
        let subscription = account.subscription.as_mut().unwrap();
        let limit = BatchLimit { messages, ..ALL };
        match poll_take(subscription, limit, Waker::noop()) {
            Poll::Ready(Ok((missed, batch))) => {
                assert!(batch.len() <= messages && (missed > 0 || !batch.is_empty()));
                account.told += missed;
                account.took = true;
                for delivery in batch {
                    assert!(account.wants(&delivery.message));
                    account.order.see(&delivery);
                    let topic = delivery.message.topic.clone();
                    let (epoch, sequence) = (delivery.epoch, delivery.sequence);
                    account.received.push((topic.clone(), epoch, sequence));
                    if let Some(group) = account.wish.group.clone() {
                        let key = (group, topic, epoch, sequence);
                        assert!(self.group_received.insert(key), "one member only");
                    }
                }
                return true;
            }
            Poll::Ready(Err(ended)) => {
                assert_eq!(account.end(), Some(ended.reason));
                account.told += ended.missed;
            }
            Poll::Pending => {}
        }
        self.check_settled(who);
        false
    }

    /// A subscriber that has read everything was told of exactly what it lost.
    fn check_settled(&self, who: usize) {
        let account = &self.accounts[who];
        let ledger = account.ledger();
        assert_eq!(ledger.buffered, 0);
        assert_eq!(ledger.missed_total(), account.told);
        let received = account.received.len() as u64;
        if account.wish.group.is_none() {
            assert_eq!(account.matched, received + account.told);
        }
        let start = account.subscription.as_ref().and_then(Subscription::start);
        let (Some(topic), Some(start)) = (account.wish.filters.as_topic(), start) else {
            return;
        };
        let all = account.wish.group.is_none() && account.wish.tags.is_empty();
        if all && account.end().is_none() {
            let head = match self.newest.get(&topic) {
                Some((epoch, newest)) if *epoch == start.epoch => newest.0,
                _ => start.head.0,
            };
            let places = account.received.iter();
            let got: HashSet<u64> = places.map(|(_, _, sequence)| sequence.0).collect();
            let gaps = (start.head.0 + 1..=head).filter(|place| !got.contains(place));
            assert_eq!(gaps.count() as u64, account.told);
        }
    }

    pub(super) fn leave(&mut self, who: usize) {
        let before = self.broker.snapshot().ledger;
        let account = &mut self.accounts[who];
        let waiting = account.ledger().buffered;
        account.subscription = None;
        account.in_registry = false;
        let after = self.broker.snapshot().ledger;
        let departed = MissReason::Departed as usize;
        assert_eq!(after.missed[departed] - before.missed[departed], waiting);
        assert_eq!(after.missed_total() - before.missed_total(), waiting);
    }

    pub(super) fn tick(&mut self) {
        let mut stalled = Vec::new();
        for (who, account) in self.accounts.iter_mut().enumerate() {
            match account.end() {
                None if account.ledger().buffered > 0 && !account.took => account.idle_ticks += 1,
                None => account.idle_ticks = 0,
                Some(EndReason::Overflow) => account.in_registry = false,
                Some(_) => {}
            }
            account.took = false;
            if account.end().is_none() && account.idle_ticks == TICKS_MAX {
                account.in_registry = false;
                stalled.push(who);
            }
        }
        assert_eq!(self.broker.tick(TICKS_MAX), stalled.len());
        for who in stalled {
            assert_eq!(self.accounts[who].end(), Some(EndReason::Stalled));
        }
    }

    /// Ends the largest of the mailboxes.
    pub(super) fn shed(&mut self) {
        let held = |account: &Account| (account.subscriber.held_bytes(), account.subscriber.id);
        let live = self.accounts.iter().filter(|a| a.end().is_none());
        let largest = live
            .map(held)
            .filter(|(bytes, _)| *bytes > 0)
            .max_by_key(|(bytes, id)| (*bytes, std::cmp::Reverse(*id)));
        let calls = std::cell::Cell::new(0);
        let one = |_: &Memory| calls.replace(calls.get() + 1) > 0;
        let before = self.broker.snapshot().ledger;
        assert_eq!(
            self.broker.shared.shed(1, one),
            usize::from(largest.is_some()),
        );
        let after = self.broker.snapshot().ledger;
        let shed = MissReason::Shed as usize;
        assert_eq!(
            after.missed[shed] - before.missed[shed],
            before.buffered - after.buffered
        );
        for account in &mut self.accounts {
            if account.end() == Some(EndReason::Shed) && account.in_registry {
                assert_eq!(largest.map(|(_, id)| id), Some(account.subscriber.id));
                account.in_registry = false;
            }
        }
    }

    pub(super) fn drain(&mut self) {
        self.broker.drain();
        self.draining = true;
    }

    pub(super) fn check(&self) {
        let snapshot = self.broker.snapshot();
        let ledger = snapshot.ledger;
        assert!(ledger.balances(), "{ledger:?}");
        let sum = |figure: fn(&Receipt) -> u64| self.receipts.iter().map(figure).sum::<u64>();
        assert_eq!(ledger.matched, sum(|receipt| receipt.matched.into()));
        assert_eq!(
            ledger.missed[..3].iter().sum::<u64>(),
            sum(|receipt| u64::from(receipt.dropped) + receipt.displaced),
            "publishers see what overflows"
        );
        assert_eq!(snapshot.published, self.receipts.len() as u64);
        assert_eq!(snapshot.published_bytes, self.published_bytes);
        assert_eq!(
            snapshot.unmatched,
            sum(|receipt| u64::from(receipt.matched == 0))
        );
        self.check_accounts();

        let live = self.accounts.iter().filter(|a| a.in_registry);
        let pins = distinct(live.clone().flat_map(|a| a.wish.filters.topics()));
        assert!(snapshot.topics <= pins + self.broker.limits().idle_topics_max);
        assert_eq!(snapshot.subscriptions, live.clone().count());
        let groups = distinct(live.filter_map(|a| a.wish.group.as_ref()));
        assert_eq!(snapshot.groups, groups);
        assert!(snapshot.buffered_bytes <= self.broker.limits().buffered_bytes_max);
        assert_eq!(snapshot.buffered_bytes == 0, ledger.buffered == 0);
    }

    fn check_accounts(&self) {
        let mut sum = Ledger::default();
        let mut group_matched: HashMap<GroupName, u64> = HashMap::new();
        for account in &self.accounts {
            let ledger = account.ledger();
            assert!(ledger.balances());
            assert_eq!(ledger.delivered, account.received.len() as u64);
            assert!(ledger.buffered <= account.wish.mailbox_capacity.unwrap() as u64);
            match account.wish.group.clone() {
                Some(group) => *group_matched.entry(group).or_default() += ledger.matched,
                None => assert_eq!(ledger.matched, account.matched),
            }
            if account.end() == Some(EndReason::Overflow) {
                assert_eq!(account.wish.overflow, OverflowPolicy::Disconnect);
            }
            sum += ledger;
        }
        assert_eq!(sum, self.broker.snapshot().ledger, "nobody is forgotten");
        group_matched.retain(|_, matched| *matched > 0);
        assert_eq!(group_matched, self.group_matched);
    }

    /// Everybody reads to the end.
    pub(super) fn settle(&mut self) {
        for who in 0..self.accounts.len() {
            while self.accounts[who].subscription.is_some() && self.read(who, usize::MAX) {}
        }
    }
}
