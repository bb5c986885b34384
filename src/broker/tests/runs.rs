//! Messages that are published together beside ones that are published one by one: two brokers that live
//! through the same, and nobody can tell them apart.

use proptest::prelude::*;

use super::{history::keeping, *};
use crate::message::{Attributes, MessageRef, Tag};

const TICKS_MAX: u32 = 3;
/// The last of them has history.
const TOPICS: [&str; 4] = ["a", "b", "a.b", "kept"];

/// One message of a burst. Small numbers are common.
#[derive(Clone, Debug)]
struct Sent {
    topic: usize,
    payload_bytes: usize,
    tag: Option<&'static str>,
    end: bool,
    /// Whether its topic is another publisher's, though of the same name.
    is_parsed_anew: bool,
}

#[derive(Clone, Debug)]
enum Step {
    Publish(Vec<Sent>),
    Subscribe(SubscribeOptions, bool),
    Read(usize, BatchLimit),
    Leave(usize),
    Tick,
    Age,
    Look,
    Drain,
}

fn bursts() -> impl Strategy<Value = Vec<Sent>> {
    // Some take a good part of a mailbox, are too large for a lane, or too large at all.
    let payloads = prop_oneof![
        90 => 0usize..300,
        5 => 2_000usize..9_000,
        2 => 15_000usize..18_000,
        1 => Just(20_001usize),
    ];
    let tags = prop::sample::select(vec![None, None, None, Some("x"), Some("y")]);
    let sent = (payloads, tags, 0u8..200, 0u8..20);
    let alike = (0..TOPICS.len(), prop::collection::vec(sent, 1..9)).prop_map(|(topic, sent)| {
        let sent = sent.into_iter();
        let sent = sent.map(move |(payload_bytes, tag, end, anew)| Sent {
            topic,
            payload_bytes,
            tag,
            end: end == 0,
            is_parsed_anew: anew == 0,
        });
        sent.collect::<Vec<_>>()
    });
    prop::collection::vec(alike, 1..4).prop_map(|alike| alike.concat())
}

fn wishes() -> impl Strategy<Value = (SubscribeOptions, bool)> {
    let policies = prop::sample::select(vec![
        OverflowPolicy::DropNewest,
        OverflowPolicy::DropOldest,
        OverflowPolicy::Disconnect,
    ]);
    let filters = prop::sample::select(vec!["a", "a", "a", "b", ">", "a b", "a.*", "kept"]);
    let groups = prop::sample::select(vec![None, None, None, None, Some("g")]);
    let tags = prop::sample::select(vec![&[][..], &[], &[], &["x"]]);
    let encoded = prop::bool::weighted(0.8);
    (filters, policies, 1usize..60, groups, tags, encoded).prop_map(
        |(filter, overflow, capacity, group, tags, encoded)| {
            let wish = SubscribeOptions {
                overflow,
                mailbox_capacity: Some(capacity),
                group: group.map(|group| group.parse().unwrap()),
                tags: tags.iter().map(|tag| tag.parse().unwrap()).collect(),
                ..options(filter)
            };
            (wish, encoded)
        },
    )
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let limits = (1usize..30, prop_oneof![Just(usize::MAX), 0usize..5_000])
        .prop_map(|(messages, bytes)| BatchLimit { messages, bytes });
    let subscribe = || wishes().prop_map(|(wish, encoded)| Step::Subscribe(wish, encoded));
    let step = prop_oneof![
        30 => bursts().prop_map(Step::Publish),
        4 => subscribe(),
        12 => (any::<usize>(), limits).prop_map(|(who, limit)| Step::Read(who, limit)),
        1 => any::<usize>().prop_map(Step::Leave),
        2 => Just(Step::Tick),
        1 => Just(Step::Age),
        1 => Just(Step::Look),
    ];
    let first = prop::collection::vec(subscribe(), 1..4);
    let ending = prop::collection::vec(step.clone(), 0..10);
    (first, prop::collection::vec(step, 0..120), ending)
        .prop_map(|(first, steps, ending)| [first, steps, vec![Step::Drain], ending].concat())
}

fn small_limits(buffered_bytes_max: usize) -> Limits {
    Limits {
        payload_bytes_max: 20_000,
        attributes_bytes_max: 0,
        mailbox_bytes: 40_000,
        buffered_bytes_max,
        ..keeping(&[("kept", Some(5))])
    }
}

type Told = Vec<Result<Receipt, PublishError>>;

fn publish_together(run: &mut Run<'_>, messages: &[Message]) -> Told {
    let mut told = Vec::new();
    let messages = messages.iter().map(Message::as_message_ref);
    run.publish_all(messages, SystemTime::UNIX_EPOCH, |outcome| {
        told.push(outcome);
    });
    run.count();
    told
}

fn publish_singly(broker: &Broker, messages: &[Message]) -> Told {
    let messages = messages.iter().cloned();
    messages
        .map(|message| broker.publish(message, SystemTime::UNIX_EPOCH))
        .collect()
}

/// What a reader gets of a message.
type Got = (Topic, Epoch, Sequence, Option<Position>, usize, Option<Tag>);

/// How a take went, and the messages that it brought between counts of those missed.
type Taking = (Poll<Result<(), Ended>>, Vec<Result<Got, u64>>);

fn read(subscription: &mut Subscription, limit: BatchLimit) -> Taking {
    let mut all = Vec::new();
    let got = |delivery: &Delivery| {
        let message = &delivery.message;
        let payload_bytes = message.payload.len();
        let tag = message.tag.clone();
        let place = (delivery.epoch, delivery.sequence, delivery.position);
        (
            message.topic.clone(),
            place.0,
            place.1,
            place.2,
            payload_bytes,
            tag,
        )
    };
    let mut cx = Context::from_waker(Waker::noop());
    let polled = subscription.poll_take_encoded(&mut cx, limit, |taken| match taken {
        Taken::Missed(count) => all.push(Err(count)),
        Taken::Gap(gap, _) => panic!("nobody asks for the past: {gap}"),
        Taken::Delivery(delivery) => all.push(Ok(got(&delivery))),
        Taken::Frames(mut frames) => {
            while frames.has_remaining() {
                all.push(Ok(got(&decode(&mut frames))));
            }
        }
    });
    subscription.pass_on();
    (polled, all)
}

/// One that publishes a burst together, and one that publishes it one by one.
struct Twins<'b> {
    brokers: [&'b Broker; 2],
    run: Run<'b>,
    topics: [Topic; TOPICS.len()],
    readers: Vec<[Subscription; 2]>,
}

impl<'b> Twins<'b> {
    fn new(brokers: [&'b Broker; 2]) -> Self {
        Self {
            brokers,
            run: brokers[0].run(),
            topics: TOPICS.map(topic),
            readers: Vec::new(),
        }
    }

    fn message(&self, sent: &Sent) -> Message {
        let topic = match sent.is_parsed_anew {
            true => topic(TOPICS[sent.topic]),
            false => self.topics[sent.topic].clone(),
        };
        Message {
            tag: sent.tag.map(|tag| tag.parse().unwrap()),
            end: sent.end,
            ..Message::new(topic, vec![0; sent.payload_bytes])
        }
    }

    fn take_step(&mut self, step: Step) {
        let [together, singly] = self.brokers;
        match step {
            Step::Publish(sent) => {
                let messages: Vec<_> = sent.iter().map(|sent| self.message(sent)).collect();
                let told = publish_together(&mut self.run, &messages);
                assert_eq!(told, publish_singly(singly, &messages));
            }
            Step::Subscribe(wish, encoded) => {
                match self
                    .brokers
                    .map(|broker| subscribe_either(broker, wish.clone(), encoded))
                {
                    [Ok(together), Ok(singly)] => self.readers.push([together, singly]),
                    [together, singly] => assert_eq!(together.err(), singly.err()),
                }
            }
            Step::Read(who, limit) => {
                if let Some(who) = who.checked_rem(self.readers.len()) {
                    let [together, singly] = &mut self.readers[who];
                    assert_eq!(read(together, limit), read(singly, limit));
                }
            }
            Step::Leave(who) => {
                if let Some(who) = who.checked_rem(self.readers.len()) {
                    self.readers.swap_remove(who);
                }
            }
            Step::Tick => assert_eq!(together.tick(TICKS_MAX), singly.tick(TICKS_MAX)),
            Step::Age => self.brokers.into_iter().for_each(Broker::age_topics),
            Step::Look => self.check_accounts(),
            Step::Drain => self.brokers.into_iter().for_each(Broker::drain),
        }
        for [together, singly] in &self.readers {
            assert_eq!(together.end(), singly.end());
        }
    }

    fn check_accounts(&self) {
        let [together, singly] = self.brokers.map(Broker::snapshot);
        assert!(together.ledger.balances());
        assert_eq!(together, singly);
    }
}

fn check_twins(steps: Vec<Step>, buffered_bytes_max: usize) {
    let brokers = [(); 2].map(|()| broker_with(small_limits(buffered_bytes_max)));
    let mut twins = Twins::new(brokers.each_ref());
    steps.into_iter().for_each(|step| twins.take_step(step));
    twins.check_accounts();
    twins.readers.clear();
    twins.check_accounts();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn what_goes_together_fares_as_its_twin_that_goes_alone(steps in steps()) {
        check_twins(steps, 1 << 30);
    }

    #[test]
    fn so_it_does_where_all_mailboxes_together_are_full(steps in steps()) {
        check_twins(steps, 60_000);
    }
}

fn messages(topic: &Topic, count: usize) -> Vec<Message> {
    vec![Message::new(topic.clone(), "m"); count]
}

#[test]
fn readers_are_woken_once_after_all_that_go_together() {
    let broker = broker();
    let topic = topic("t");
    let mut subscription = subscribe(&broker, "t");
    let mut run = broker.run();
    publish_together(&mut run, &messages(&topic, 1));
    assert_eq!(take(&mut subscription).unwrap().1.len(), 1);
    let wakes = Arc::new(Wakes::default());
    let waker = Waker::from(Arc::clone(&wakes));
    assert!(poll_take(&mut subscription, ALL, &waker).is_pending());
    let mut seen = Vec::new();
    let none = Attributes::default();
    let messages = [b"1", b"2", b"3"].map(|payload| MessageRef::plain(&topic, payload, &none));
    run.publish_all(messages.into_iter(), SystemTime::UNIX_EPOCH, |outcome| {
        seen.push((outcome.unwrap().delivered, wakes.count()));
    });
    assert_eq!(seen, [(1, 0); 3], "they went together");
    assert_eq!(wakes.count(), 1);
    assert_eq!(payloads(&mut subscription), ["1", "2", "3"]);
}

#[test]
fn a_run_counts_once_it_is_counted() {
    let broker = broker();
    let mut run = broker.run();
    let messages = messages(&topic("t"), 3);
    let messages = messages.iter().map(Message::as_message_ref);
    run.publish_all(messages, SystemTime::UNIX_EPOCH, |outcome| {
        assert_eq!(outcome.unwrap().matched, 0);
    });
    run.count();
    let snapshot = broker.snapshot();
    let figures = (
        snapshot.published,
        snapshot.published_bytes,
        snapshot.unmatched,
    );
    assert_eq!(figures, (3, 3, 3));
}
