//! History beside a list of all messages ever published: random lives of a small broker, every start, rule,
//! bound, age, tag, wildcard and end. What each reader got and was told is checked against the list.

use proptest::prelude::*;

use super::*;
use crate::message::Tag;

const TOPICS: [&str; 5] = ["a", "a.b", "a.c", "b", "free"];
/// Some of them are several.
const FILTERS: [&str; 12] = [
    "a",
    "a.b",
    "b",
    "free",
    "a.*",
    "*",
    "a.>",
    ">",
    "a b",
    "a.b a.c",
    "a.* a.b free",
    "free a",
];

/// Of an earlier life of the broker.
const FOREIGN: Epoch = Epoch(1);

/// `free` keeps nothing, `b` few bytes, `a` few messages, the others for a short time.
fn small_limits() -> Limits {
    let bounds = |messages, bytes, seconds| {
        Some(Bounds {
            messages,
            bytes,
            age: Duration::from_secs(seconds),
        })
    };
    let rules = [
        ("free", None),
        ("a", bounds(3, 1 << 20, 1_000)),
        ("b", bounds(100, 1_200, 1_000)),
        (">", bounds(8, 1 << 20, 20)),
    ];
    Limits {
        history: HistoryLimits {
            rules: rules
                .into_iter()
                .map(|(filter, bounds)| Retention {
                    filter: filter.parse().unwrap(),
                    bounds,
                })
                .collect(),
            ..HistoryLimits::default()
        },
        ..Limits::default()
    }
}

fn at(second: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(second)
}

#[derive(Clone, Copy, Debug)]
enum From {
    Now,
    All,
    Last(u64),
    /// A cursor that was seen, by any number.
    After(usize),
    /// So many seconds ago.
    Since(u64),
    Foreign,
}

#[derive(Clone, Debug)]
enum Step {
    Publish {
        topic: &'static str,
        tag: Option<&'static str>,
        bytes: usize,
        /// How late the publisher's clock is.
        late: u64,
        end: bool,
    },
    Subscribe {
        filter: &'static str,
        tags: &'static [&'static str],
        from: From,
        encoded: bool,
        capacity: usize,
    },
    Read(usize, usize),
    Leave(usize),
    Wait(u64),
    Age,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let tag = prop::sample::select(vec![None, None, Some("x"), Some("y")]);
    let publish = (
        prop::sample::select(TOPICS.to_vec()),
        tag,
        0usize..200,
        prop_oneof![4 => Just(0u64), 1 => 1u64..4],
        prop::bool::weighted(0.02),
    );
    let from = prop_oneof![
        1 => Just(From::Now),
        3 => Just(From::All),
        3 => (0u64..8).prop_map(From::Last),
        6 => any::<usize>().prop_map(From::After),
        3 => (0u64..30).prop_map(From::Since),
        1 => Just(From::Foreign),
    ];
    let tags = prop::sample::select(vec![&[] as &[&str], &[], &[], &["x"], &["x", "y"]]);
    let capacities = prop::sample::select(vec![1, 2, 3, 1_000, 1_000]);
    let subscribe = (
        prop::sample::select(FILTERS.to_vec()),
        tags,
        from,
        any::<bool>(),
        capacities,
    );
    let step = prop_oneof![
        30 => publish.prop_map(|(topic, tag, bytes, late, end)| Step::Publish {
            topic, tag, bytes, late, end,
        }),
        8 => subscribe.prop_map(|(filter, tags, from, encoded, capacity)| Step::Subscribe {
            filter, tags, from, encoded, capacity,
        }),
        16 => (any::<usize>(), 1usize..4).prop_map(|(who, messages)| Step::Read(who, messages)),
        2 => any::<usize>().prop_map(Step::Leave),
        3 => (1u64..8).prop_map(Step::Wait),
        1 => Just(Step::Age),
    ];
    prop::collection::vec(step, 0..200)
}

/// One that was published.
#[derive(Clone, Debug)]
struct Published {
    topic: Topic,
    tag: Option<Tag>,
    size: usize,
    at: SystemTime,
    epoch: Epoch,
    position: Option<Position>,
    is_kept: bool,
}

/// What a reader asked for of what was published before it came, by its index in the list.
#[derive(Debug, Default)]
struct Debt {
    /// What it must get, or be told of.
    asked: Vec<usize>,
    /// What it may get, or be told of.
    allowed: Vec<usize>,
    /// Whether all that it is told is exact.
    is_exact: bool,
    /// Whether it may be told that something may be gone though nothing is.
    is_unsure: bool,
}

struct Reader {
    wish: SubscribeOptions,
    subscription: Subscription,
    /// How many were published before it came.
    before: usize,
    debt: Debt,
    received: Vec<usize>,
    told: Gap,
    missed: u64,
    end: Option<EndReason>,
}

struct World {
    broker: Broker,
    now: u64,
    list: Vec<Published>,
    by_place: HashMap<(Epoch, Sequence), usize>,
    ended: HashMap<Topic, Epoch>,
    cursors: Vec<Cursor>,
    readers: Vec<Reader>,
    matched: u64,
}

impl World {
    fn new() -> Self {
        Self {
            broker: Broker::with_lanes(small_limits(), 1_000, 1).unwrap(),
            now: 1_000,
            list: Vec::new(),
            by_place: HashMap::new(),
            ended: HashMap::new(),
            cursors: Vec::new(),
            readers: Vec::new(),
            matched: 0,
        }
    }

    fn publish(&mut self, topic: &str, tag: Option<&str>, bytes: usize, late: u64, end: bool) {
        let mut message = Message::new(topic.parse().unwrap(), vec![0; bytes]);
        message.tag = tag.map(|tag| tag.parse().unwrap());
        message.end = end;
        let published_at = at(self.now - late);
        let (topic, size) = (message.topic.clone(), message.size());
        let receipt = match self.broker.publish(message, published_at) {
            Ok(receipt) => receipt,
            Err(error) => {
                assert_eq!(error, PublishError::TopicEnded);
                assert!(self.ended.contains_key(&topic), "{topic:?} has not ended");
                return;
            }
        };
        let epoch = receipt.epoch;
        let ended_before = self.ended.get(&topic);
        assert!(
            ended_before.is_none_or(|ended| *ended < epoch),
            "{topic:?} has ended"
        );
        let bounds = self.broker.limits().history.bounds(&topic);
        assert_eq!(receipt.position.is_some(), bounds.is_some());
        let newest = self.list.iter().filter_map(|one| one.position).max();
        assert!(
            receipt
                .position
                .is_none_or(|position| Some(position) > newest)
        );
        if end {
            self.ended.insert(topic.clone(), epoch);
        }
        self.matched += u64::from(receipt.matched);
        self.by_place
            .insert((epoch, receipt.sequence), self.list.len());
        self.cursors.extend(receipt.cursor());
        self.list.push(Published {
            topic: topic.clone(),
            tag: tag.map(|tag| tag.parse().unwrap()),
            size,
            at: published_at,
            epoch,
            position: receipt.position,
            is_kept: bounds.is_some(),
        });
        let Some(bounds) = bounds else { return };
        let of_topic: Vec<usize> = (0..self.list.len())
            .filter(|index| self.list[*index].topic == topic && self.list[*index].is_kept)
            .collect();
        let mut bytes = 0;
        let mut is_over = false;
        for (count, index) in of_topic.into_iter().rev().enumerate() {
            bytes += self.list[index].size;
            is_over |= count >= bounds.messages || bytes > bounds.bytes;
            self.list[index].is_kept &= !is_over;
        }
    }

    fn wait(&mut self, seconds: u64) {
        self.now += seconds;
        self.broker.expire(at(self.now));
        for topic in TOPICS.map(topic) {
            let Some(bounds) = self.broker.limits().history.bounds(&topic) else {
                continue;
            };
            // From the oldest on, up to one that is young enough.
            let of_topic = self
                .list
                .iter_mut()
                .filter(|one| one.topic == topic && one.is_kept);
            for one in of_topic {
                if one.at + bounds.age > at(self.now) {
                    break;
                }
                one.is_kept = false;
            }
        }
    }

    fn start(&self, from: From) -> StartAt {
        match from {
            From::Now => StartAt::Now,
            From::All => StartAt::All,
            From::Last(count) => StartAt::Last(count),
            From::After(which) if self.cursors.is_empty() => StartAt::Last(which as u64 % 3),
            From::After(which) => StartAt::After(self.cursors[which % self.cursors.len()]),
            From::Since(ago) => StartAt::Since(at(self.now - ago)),
            From::Foreign => StartAt::After(Cursor {
                epoch: FOREIGN,
                position: Position(1),
                sequence: Sequence(1),
            }),
        }
    }

    fn subscribe(&mut self, options: SubscribeOptions, encoded: bool) {
        let wish = options.clone();
        let mut subscription = subscribe_either(&self.broker, options, encoded).unwrap();
        let life = subscription.start().map(|start| start.epoch);
        let topic = wish.filters.as_topic();
        let rules = &self.broker.limits().history;
        let debt = match topic.is_none_or(|topic| rules.bounds(&topic).is_some()) {
            true => self.debt(&wish, life),
            false => Debt {
                is_unsure: true,
                ..Debt::default()
            },
        };
        self.cursors.extend(subscription.cursor());
        let end = subscription.end();
        assert!(end.is_none_or(|end| end == EndReason::TopicEnded));
        if wish.start.is_now() {
            let nothing = poll_past(&mut subscription, ALL, Waker::noop());
            assert!(!matches!(nothing, Poll::Ready(Ok(_))), "{nothing:?}");
        }
        self.readers.push(Reader {
            wish,
            subscription,
            before: self.list.len(),
            debt,
            received: Vec::new(),
            told: Gap::NONE,
            missed: 0,
            end: None,
        });
    }

    /// What a subscriber asks for of what was published before it comes.
    fn debt(&self, wish: &SubscribeOptions, life: Option<Epoch>) -> Debt {
        let matching: Vec<usize> = (0..self.list.len())
            .filter(|index| is_for(wish, &self.list[*index]))
            .filter(|index| self.list[*index].position.is_some())
            .collect();
        let those = |which: &dyn Fn(&Published) -> bool| -> Vec<usize> {
            let matching = matching.iter().copied();
            matching.filter(|index| which(&self.list[*index])).collect()
        };
        let newest =
            |of: &[usize], count: u64| of[of.len().saturating_sub(count as usize)..].to_vec();
        let all_kept = those(&|one| one.is_kept);
        let is_one = wish.filters.as_topic().is_some() && wish.tags.is_empty();
        let (asked, allowed, is_exact) = match wish.start {
            StartAt::Now => (vec![], vec![], true),
            StartAt::All => (all_kept.clone(), all_kept, is_one),
            // More than what is kept can be asked for of one topic without tags alone.
            StartAt::Last(count) if is_one => {
                let asked = newest(&those(&|one| Some(one.epoch) == life), count);
                (asked.clone(), asked, true)
            }
            StartAt::Last(count) => {
                let asked = newest(&all_kept, count);
                // What is gone may have been among the newest.
                let allowed: HashSet<usize> = newest(&matching, count)
                    .into_iter()
                    .chain(asked.clone())
                    .collect();
                (asked, allowed.into_iter().collect(), false)
            }
            StartAt::After(cursor) if cursor.epoch == FOREIGN => {
                (all_kept.clone(), all_kept, false)
            }
            StartAt::After(cursor) => {
                let after = those(&|one| one.position > Some(cursor.position));
                (after.clone(), after, is_one && life == Some(cursor.epoch))
            }
            StartAt::Since(since) => {
                // Clocks step back: what follows the first of a topic that is young enough may come, too.
                let follows = |index: &usize| {
                    let one = &self.list[*index];
                    let earlier = self.list[..=*index].iter();
                    let mut of_topic = earlier
                        .filter(|earlier| earlier.topic == one.topic && earlier.position.is_some());
                    of_topic.any(|earlier| earlier.at >= since)
                };
                let allowed = matching.iter().copied().filter(follows).collect();
                (those(&|one| one.at >= since), allowed, false)
            }
        };
        let is_unsure = !is_exact && wish.start != StartAt::All;
        Debt {
            asked,
            allowed,
            is_exact,
            is_unsure,
        }
    }

    /// False if there was nothing to take.
    fn read(&mut self, who: usize, messages: usize) -> bool {
        let reader = &mut self.readers[who];
        let wakes = Arc::new(Wakes::default());
        let limit = BatchLimit { messages, ..ALL };
        let waker = Arc::clone(&wakes).into();
        match poll_past(&mut reader.subscription, limit, &waker) {
            Poll::Ready(Ok((lost, batch))) => {
                assert!(!batch.is_empty() || lost != Lost::default());
                reader.told += lost.gap;
                reader.missed += lost.missed;
                for delivery in batch {
                    let index = self.by_place[&(delivery.epoch, delivery.sequence)];
                    let one = &self.list[index];
                    assert_eq!(delivery.message.topic, one.topic);
                    assert_eq!(delivery.message.tag, one.tag);
                    assert_eq!(delivery.message.size(), one.size);
                    reader.receive(index, &self.list);
                }
                true
            }
            Poll::Ready(Err(ended)) => {
                assert_eq!(ended.reason, EndReason::TopicEnded);
                reader.missed += ended.missed;
                reader.end = Some(ended.reason);
                false
            }
            Poll::Pending => wakes.count() > 0,
        }
    }

    fn settle(&mut self) {
        for who in 0..self.readers.len() {
            while self.read(who, 5) {}
            let table = &self.broker.shared.topics;
            let epoch_of = |topic: &Topic| Some(table.find(topic)?.state.epoch);
            self.readers[who].check_settled(&self.list, &self.ended, epoch_of);
        }
    }

    fn check_kept(&self) {
        let mut kept: Vec<Option<Position>> = Vec::new();
        for seat in self.broker.shared.history.seats() {
            let live = seat.state.look();
            let log = live.log.as_ref().unwrap();
            kept.extend(log.from(0).map(|kept| Some(kept.position)));
        }
        kept.sort_unstable();
        let expected = self
            .list
            .iter()
            .filter(|one| one.is_kept)
            .map(|one| one.position);
        assert_eq!(kept, expected.collect::<Vec<_>>());
        let snapshot = self.broker.snapshot();
        assert!(snapshot.ledger.balances());
        assert_eq!(snapshot.ledger.matched, self.matched + snapshot.replayed);
        budget::check_figures(&self.broker);
    }
}

fn is_for(wish: &SubscribeOptions, one: &Published) -> bool {
    let tags = &wish.tags;
    let has_tag = one.tag.as_ref().is_some_and(|tag| tags.contains(tag));
    wish.filters.matches(&one.topic) && (tags.is_empty() || has_tag)
}

impl Reader {
    /// With what was published since it came.
    fn and_since(&self, before: &[usize], list: &[Published]) -> Vec<usize> {
        let since = (self.before..list.len()).filter(|index| is_for(&self.wish, &list[*index]));
        before.iter().copied().chain(since).collect()
    }

    fn receive(&mut self, index: usize, list: &[Published]) {
        let one = &list[index];
        assert!(is_for(&self.wish, one));
        let is_owed = index >= self.before || self.debt.allowed.contains(&index);
        assert!(is_owed, "{index} was not asked for by {:?}", self.wish);
        if one.position.is_some() {
            let in_order = self
                .received
                .iter()
                .filter(|r| list[**r].position.is_some());
            let newest = in_order.max();
            assert!(
                newest.is_none_or(|newest| *newest < index),
                "out of order, or twice"
            );
        } else {
            assert!(!self.received.contains(&index), "twice");
        }
        self.received.push(index);
        if one.position.is_some() {
            self.check_told(list, index);
        }
    }

    fn unread(&self, of: &[usize], list: &[Published]) -> Vec<usize> {
        let mut all = self.and_since(of, list);
        all.retain(|index| !self.received.contains(index));
        all
    }

    /// What is gone of what was owed up to an index was told.
    fn check_told(&self, list: &[Published], up_to: usize) {
        let mut gone = self.unread(&self.debt.asked, list);
        gone.retain(|index| *index < up_to && list[*index].position.is_some());
        let (gone, told) = (gone.len() as u64, self.told);
        assert!(
            told.at_least || told.missing + self.missed >= gone,
            "{gone} are gone, told {told:?}"
        );
    }

    fn check_settled(
        &self,
        list: &[Published],
        ended: &HashMap<Topic, Epoch>,
        epoch_of: impl Fn(&Topic) -> Option<Epoch>,
    ) {
        let gone = self.unread(&self.debt.asked, list);
        if self.missed == 0 {
            for index in &gone {
                let one = &list[*index];
                assert!(
                    !one.is_kept && one.position.is_some(),
                    "{index} is lost: {one:?}"
                );
            }
        }
        self.check_told(list, usize::MAX);
        let (told, wish) = (self.told, &self.wish);
        let sum = told.missing + self.missed;
        let most = self.unread(&self.debt.allowed, list).len() as u64;
        assert!(sum <= most, "{most} are gone, told {told:?} of {wish:?}");
        let gone = gone.len() as u64;
        if self.debt.is_exact {
            let exactly = Gap::exactly(gone - self.missed);
            assert_eq!(told, exactly, "{wish:?}");
        }
        if gone == 0 && !self.debt.is_unsure && wish.filters.as_topic().is_some() {
            assert!(told.is_none() || !wish.tags.is_empty(), "{told:?}");
        }
        let mut filters = wish.filters.as_slice().iter();
        let has_ended = filters.all(|filter| {
            let topic = filter.as_topic();
            topic.is_some_and(|topic| ended.get(&topic).copied() == epoch_of(&topic))
        });
        assert_eq!(self.end, has_ended.then_some(EndReason::TopicEnded));
    }
}

fn take_step(world: &mut World, step: Step) {
    match step {
        Step::Publish {
            topic,
            tag,
            bytes,
            late,
            end,
        } => world.publish(topic, tag, bytes, late, end),
        Step::Subscribe {
            filter,
            tags,
            from,
            encoded,
            capacity,
        } => {
            let wish = SubscribeOptions {
                tags: tags.iter().map(|tag| tag.parse().unwrap()).collect(),
                mailbox_capacity: Some(capacity),
                ..from_start(filter, world.start(from))
            };
            world.subscribe(wish, encoded);
        }
        Step::Read(who, messages) => {
            if let Some(who) = who.checked_rem(world.readers.len()) {
                world.read(who, messages);
            }
        }
        Step::Leave(who) => {
            if let Some(who) = who.checked_rem(world.readers.len()) {
                world.readers.remove(who);
            }
        }
        Step::Wait(seconds) => world.wait(seconds),
        Step::Age => world.broker.age_topics(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn each_reader_gets_what_it_asked_for_or_is_told_what_is_gone(steps in steps()) {
        let mut world = World::new();
        for step in steps {
            take_step(&mut world, step);
            world.check_kept();
        }
        world.settle();
        world.check_kept();
    }
}
