//! History beside a list of all messages ever published: random lives of a small broker, every start, rule,
//! bound, age, tag, wildcard and end. What each reader got and was told is checked against the list.

use proptest::prelude::*;

use super::*;
use crate::message::Tag;

const TOPICS: [&str; 5] = ["a", "a.b", "a.c", "b", "free"];
const FILTERS: [&str; 8] = ["a", "a.b", "b", "free", "a.*", "*", "a.>", ">"];

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
    let capacities = prop::sample::select(vec![1_000, 1_000, 2_000]);
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

/// A reader, and what it is owed: by its index in the list.
struct Reader {
    filter: TopicFilter,
    tags: Vec<Tag>,
    start: StartAt,
    subscription: Subscription,
    /// What was published before it came.
    before: usize,
    /// Of these, what it asked for and was kept then.
    kept_then: Vec<usize>,
    /// Of these, what it asked for, kept or not, as far as anybody can know.
    asked: Vec<usize>,
    /// What it may get of these.
    allowed: Vec<usize>,
    /// Whether all it is told must be exact.
    is_exact: bool,
    /// Whether it may be told of something that it cannot have asked for.
    may_be_unknown: bool,
    received: Vec<usize>,
    told: Gap,
    /// What of `asked` must be told, and what it had received, whenever it received something.
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
                epoch: Epoch(1),
                position: Position(1),
                sequence: Sequence(1),
            }),
        }
    }

    fn subscribe(&mut self, options: SubscribeOptions, encoded: bool) {
        let (filter, tags, start) = (options.filter.clone(), options.tags.clone(), options.start);
        let mut subscription = subscribe_either(&self.broker, options, encoded).unwrap();
        let before = self.list.len();
        let matching: Vec<usize> = (0..before)
            .filter(|index| is_for(&filter, &tags, &self.list[*index]))
            .filter(|index| self.list[*index].position.is_some())
            .collect();
        let kept = |index: &usize| self.list[*index].is_kept;
        let all_kept: Vec<usize> = matching.iter().copied().filter(kept).collect();
        let life = subscription.start().map(|start| start.epoch);
        let of_this_life = |index: &usize| life.is_none_or(|life| self.list[*index].epoch == life);
        let topic_is_kept = filter
            .as_topic()
            .is_none_or(|topic| self.broker.limits().history.bounds(&topic).is_some());
        let is_one = filter.as_topic().is_some() && tags.is_empty();
        let (asked, is_exact, may_be_unknown): (Vec<usize>, bool, bool) = match start {
            StartAt::Now | StartAt::Last(0) => (vec![], true, false),
            StartAt::All => (all_kept.clone(), is_one, false),
            StartAt::Last(count) => {
                // More than what is kept can be asked for of one topic without tags alone.
                let candidates: Vec<usize> = match is_one {
                    true => matching.iter().copied().filter(of_this_life).collect(),
                    false => all_kept.clone(),
                };
                let from = candidates.len().saturating_sub(count as usize);
                (candidates[from..].to_vec(), is_one, true)
            }
            StartAt::After(cursor) if cursor.epoch == Epoch(1) => (all_kept.clone(), false, true),
            StartAt::After(cursor) => {
                let after = |index: &usize| self.list[*index].position > Some(cursor.position);
                let after: Vec<usize> = matching.iter().copied().filter(after).collect();
                let is_own = life == Some(cursor.epoch);
                (after, is_one && is_own, !(is_one && is_own))
            }
            StartAt::Since(since) => {
                let is_since = |index: &usize| self.list[*index].at >= since;
                (
                    matching.iter().copied().filter(is_since).collect(),
                    false,
                    true,
                )
            }
        };
        // Clocks step back: what follows the first of a topic that is young enough may come, too.
        let allowed = match start {
            StartAt::Since(since) => {
                let follows = |index: &usize| {
                    let of_topic = self.list[..=*index].iter().rev().filter(|earlier| {
                        earlier.topic == self.list[*index].topic && earlier.position.is_some()
                    });
                    of_topic.clone().any(|earlier| earlier.at >= since)
                };
                matching
                    .iter()
                    .copied()
                    .filter(follows)
                    .collect::<HashSet<_>>()
            }
            // What is gone may have been among the newest.
            StartAt::Last(count) => {
                let newest = matching.iter().rev().take(count as usize).copied();
                newest.chain(asked.iter().copied()).collect::<HashSet<_>>()
            }
            _ => asked.iter().copied().collect(),
        };
        let (asked, allowed) = match topic_is_kept {
            true => (asked, allowed.into_iter().collect()),
            false => (vec![], vec![]),
        };
        let kept_then = asked.iter().copied().filter(kept).collect();
        self.cursors.extend(subscription.cursor());
        let end = subscription.end();
        assert!(end.is_none_or(|end| end == EndReason::TopicEnded));
        if start.is_now() {
            let nothing = poll_past(&mut subscription, ALL, Waker::noop());
            assert!(!matches!(nothing, Poll::Ready(Ok(_))), "{nothing:?}");
        }
        self.readers.push(Reader {
            may_be_unknown: may_be_unknown || !topic_is_kept,
            filter,
            tags,
            start,
            subscription,
            before,
            kept_then,
            asked,
            allowed,
            is_exact: is_exact && topic_is_kept,
            received: Vec::new(),
            told: Gap::NONE,
            end: None,
        });
    }

    /// False if there was nothing to take.
    fn read(&mut self, who: usize, messages: usize) -> bool {
        let reader = &mut self.readers[who];
        let wakes = Arc::new(Wakes::default());
        let limit = BatchLimit { messages, ..ALL };
        let waker = Arc::clone(&wakes).into();
        match poll_past(&mut reader.subscription, limit, &waker) {
            Poll::Ready(Ok((lost, batch))) => {
                assert_eq!(lost.missed, 0, "mailboxes are large enough");
                assert!(!batch.is_empty() || !lost.gap.is_none());
                reader.told += lost.gap;
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
                assert_eq!((ended.reason, ended.missed), (EndReason::TopicEnded, 0));
                reader.end = Some(ended.reason);
                false
            }
            Poll::Pending => wakes.count() > 0,
        }
    }

    fn settle(&mut self) {
        for who in 0..self.readers.len() {
            while self.read(who, 5) {}
            self.readers[who].check_settled(&self.list, &self.ended);
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

fn is_for(filter: &TopicFilter, tags: &[Tag], one: &Published) -> bool {
    let tag = one.tag.as_ref();
    filter.matches(&one.topic) && (tags.is_empty() || tag.is_some_and(|tag| tags.contains(tag)))
}

impl Reader {
    /// What it was owed by now: what it asked for, and what was published since it came.
    fn owed(&self, list: &[Published]) -> Vec<usize> {
        self.and_since(&self.asked, list)
    }

    fn and_since(&self, before: &[usize], list: &[Published]) -> Vec<usize> {
        let since = (self.before..list.len())
            .filter(|index| is_for(&self.filter, &self.tags, &list[*index]));
        before.iter().copied().chain(since).collect()
    }

    fn receive(&mut self, index: usize, list: &[Published]) {
        let one = &list[index];
        assert!(is_for(&self.filter, &self.tags, one));
        assert!(
            index >= self.before || self.allowed.contains(&index),
            "{index} was not asked for: {:?}",
            self.start
        );
        if one.position.is_some() {
            let in_order = self
                .received
                .iter()
                .filter(|r| list[**r].position.is_some());
            assert!(
                in_order.max().is_none_or(|newest| *newest < index),
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

    /// What is gone of what is owed up to an index was told, and no more than that is claimed to be known.
    fn check_told(&self, list: &[Published], up_to: usize) {
        let owed = self.owed(list);
        let gone = owed
            .iter()
            .filter(|index| **index < up_to && !self.received.contains(index))
            .filter(|index| list[**index].position.is_some())
            .count() as u64;
        let told = self.told;
        assert!(
            told.at_least || told.missing >= gone,
            "{gone} are gone, told {told:?}"
        );
    }

    fn check_settled(&self, list: &[Published], ended: &HashMap<Topic, Epoch>) {
        let owed = self.owed(list);
        let gone: Vec<usize> = owed
            .iter()
            .copied()
            .filter(|index| !self.received.contains(index))
            .collect();
        for index in &gone {
            let one = &list[*index];
            assert!(
                !one.is_kept && one.position.is_some(),
                "{index} is lost: {one:?}"
            );
        }
        self.check_told(list, usize::MAX);
        let (told, gone) = (self.told, gone.len() as u64);
        let all = self.and_since(&self.allowed, list);
        let unread = all.iter().filter(|index| !self.received.contains(index));
        let most = unread.count() as u64;
        assert!(
            told.missing <= most,
            "{most} are gone, told {told:?} from {:?}",
            self.start
        );
        if self.is_exact {
            assert_eq!(told, Gap::exactly(gone), "{:?}", self.start);
        }
        if gone == 0 && !self.may_be_unknown {
            assert!(told.is_none() || !self.tags.is_empty() || self.filter.as_topic().is_none());
        }
        let kept_and_got = self
            .kept_then
            .iter()
            .all(|index| self.received.contains(index) || !list[*index].is_kept);
        assert!(kept_and_got);
        let start = self.subscription.start();
        let has_ended = self
            .filter
            .as_topic()
            .is_some_and(|topic| ended.get(&topic).copied() == start.map(|start| start.epoch));
        let expected = has_ended.then_some(EndReason::TopicEnded);
        assert_eq!(self.end, expected);
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
