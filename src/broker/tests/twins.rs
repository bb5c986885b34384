//! Who shares a lane beside who does not: two brokers that live through the same, and nobody who looks
//! between the steps, since looking hands over what waits in a lane.

use proptest::prelude::*;

use super::*;

const TICKS_MAX: u32 = 3;

#[derive(Clone, Debug)]
enum Step {
    Publish {
        topic: &'static str,
        payload_bytes: usize,
    },
    Subscribe(SubscribeOptions),
    Read(Read),
    Leave(usize),
    Tick,
    Look,
    Drain,
}

#[derive(Clone, Debug)]
struct Read {
    who: usize,
    messages: usize,
    /// Of one take.
    limit: BatchLimit,
    passes_on: bool,
}

fn wishes() -> impl Strategy<Value = SubscribeOptions> {
    let policies = prop::sample::select(vec![
        OverflowPolicy::DropNewest,
        OverflowPolicy::DropOldest,
        OverflowPolicy::Disconnect,
    ]);
    let filters = prop::sample::select(vec!["a", "a", ">", "a b", "* a"]);
    (filters, policies, 1usize..40).prop_map(|(filter, overflow, capacity)| SubscribeOptions {
        overflow,
        mailbox_capacity: Some(capacity),
        ..options(filter)
    })
}

fn reads() -> impl Strategy<Value = Read> {
    let bytes = prop_oneof![Just(usize::MAX), 0usize..5_000];
    let limits = (1usize..9, bytes).prop_map(|(messages, bytes)| BatchLimit { messages, bytes });
    (any::<usize>(), 1usize..9, limits, any::<bool>()).prop_map(
        |(who, messages, limit, passes_on)| Read {
            who,
            messages,
            limit,
            passes_on,
        },
    )
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    // Few take a good part of a mailbox, or are too large for a lane.
    let payloads = prop_oneof![8 => 0usize..300, 1 => 2_000usize..9_000, 1 => 15_000usize..18_000];
    let publish = (prop::sample::select(vec!["a", "b"]), payloads);
    let step = prop_oneof![
        60 => publish.prop_map(|(topic, payload_bytes)| Step::Publish { topic, payload_bytes }),
        4 => wishes().prop_map(Step::Subscribe),
        12 => reads().prop_map(Step::Read),
        1 => any::<usize>().prop_map(Step::Leave),
        2 => Just(Step::Tick),
        1 => Just(Step::Look),
    ];
    let first = prop::collection::vec(wishes().prop_map(Step::Subscribe), 1..4);
    let ending = prop::collection::vec(step.clone(), 0..20);
    (first, prop::collection::vec(step, 0..400), ending)
        .prop_map(|(first, steps, ending)| [first, steps, vec![Step::Drain], ending].concat())
}

type Got = (u64, Vec<(Topic, Sequence)>, Option<Ended>);

/// Takes so many messages if there are as many: what was missed, what came, and the end.
fn read(subscription: &mut Subscription, read: &Read) -> Got {
    let (mut missed, mut all, mut end) = (0, Vec::new(), None);
    while all.len() < read.messages && end.is_none() {
        let limit = BatchLimit {
            messages: read.limit.messages.min(read.messages - all.len()),
            ..read.limit
        };
        let mut cx = Context::from_waker(Waker::noop());
        let taken = subscription.poll_take_encoded(&mut cx, limit, |taken| match taken {
            Taken::Missed(count) => missed += count,
            Taken::Gap(gap, _) => panic!("nothing is kept: {gap}"),
            Taken::Delivery(delivery) => all.push(place(&delivery)),
            Taken::Frames(mut frames) => {
                while frames.has_remaining() {
                    all.push(place(&decode(&mut frames)));
                }
            }
        });
        match taken {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(ended)) => end = Some(ended),
            Poll::Pending => break,
        }
    }
    if read.passes_on {
        subscription.pass_on();
    }
    (missed, all, end)
}

fn place(delivery: &Delivery) -> (Topic, Sequence) {
    (delivery.message.topic.clone(), delivery.sequence)
}

fn small_limits() -> Limits {
    Limits {
        payload_bytes_max: 20_000,
        attributes_bytes_max: 0,
        mailbox_bytes: 40_000,
        ..Limits::default()
    }
}

fn publish_zeros(broker: &Broker, topic: &str, payload_bytes: usize) -> Receipt {
    let message = Message::new(topic.parse().unwrap(), vec![0; payload_bytes]);
    broker.publish(message, SystemTime::UNIX_EPOCH).unwrap()
}

struct Twins {
    alone: Broker,
    sharing: Broker,
    readers: Vec<[Subscription; 2]>,
}

impl Twins {
    fn new() -> Self {
        Self {
            alone: broker_with(small_limits()),
            sharing: broker_with(small_limits()),
            readers: Vec::new(),
        }
    }

    fn take_step(&mut self, step: Step) {
        match step {
            Step::Publish {
                topic,
                payload_bytes,
            } => {
                let fate = |broker: &Broker| {
                    let receipt = publish_zeros(broker, topic, payload_bytes);
                    (receipt.matched, receipt.delivered, receipt.displaced)
                };
                assert_eq!(fate(&self.sharing), fate(&self.alone));
            }
            Step::Subscribe(wish) => {
                let alone = self.alone.subscribe(wish.clone());
                let sharing = self.sharing.subscribe_encoded(wish, &ENCODING);
                match (alone, sharing) {
                    (Ok(alone), Ok(sharing)) => self.readers.push([alone, sharing]),
                    (alone, sharing) => assert_eq!(sharing.err(), alone.err()),
                }
            }
            Step::Read(by) => {
                if let Some(who) = by.who.checked_rem(self.readers.len()) {
                    let [alone, sharing] = &mut self.readers[who];
                    assert_eq!(read(sharing, &by), read(alone, &by));
                }
            }
            Step::Leave(who) => {
                if let Some(who) = who.checked_rem(self.readers.len()) {
                    self.readers.swap_remove(who);
                }
            }
            Step::Tick => assert_eq!(self.sharing.tick(TICKS_MAX), self.alone.tick(TICKS_MAX)),
            Step::Look => self.check_accounts(),
            Step::Drain => {
                self.alone.drain();
                self.sharing.drain();
            }
        }
        for [alone, sharing] in &self.readers {
            assert_eq!(sharing.end(), alone.end());
        }
    }

    fn check_accounts(&self) {
        let (sharing, alone) = (self.sharing.snapshot(), self.alone.snapshot());
        assert_eq!(sharing.ledger, alone.ledger);
        assert_eq!(sharing.mailbox_depth_max, alone.mailbox_depth_max);
        assert_eq!(sharing.subscriptions, alone.subscriptions);
    }
}

/// Where the bound on all mailboxes is reached, who loses what depends on all others; this does not.
#[derive(Default)]
struct Crowd {
    readers: Vec<(Subscription, HashMap<Topic, Sequence>)>,
    received: u64,
    told: u64,
    receipts: Vec<Receipt>,
}

impl Crowd {
    fn take_step(&mut self, broker: &Broker, step: Step) {
        match step {
            Step::Publish {
                topic,
                payload_bytes,
            } => self
                .receipts
                .push(publish_zeros(broker, topic, payload_bytes)),
            Step::Subscribe(wish) => {
                let granted = broker.subscribe_encoded(wish, &ENCODING).ok();
                let readers = granted.map(|subscription| (subscription, HashMap::new()));
                self.readers.extend(readers);
            }
            Step::Read(by) => {
                if let Some(who) = by.who.checked_rem(self.readers.len()) {
                    self.read(who, &by);
                }
            }
            Step::Leave(_) | Step::Look => {}
            Step::Tick => assert!(broker.tick(u32::MAX) == 0),
            Step::Drain => broker.drain(),
        }
    }

    fn read(&mut self, who: usize, by: &Read) -> bool {
        let (subscription, newest) = &mut self.readers[who];
        let (missed, places, end) = read(subscription, by);
        self.told += missed + end.map_or(0, |ended| ended.missed);
        self.received += places.len() as u64;
        let is_over = places.is_empty() && missed == 0;
        for (topic, sequence) in places {
            let before = newest.insert(topic, sequence);
            assert!(before.is_none_or(|before| before < sequence));
        }
        !is_over
    }

    fn check(mut self, broker: &Broker) {
        let all = Read {
            who: 0,
            messages: usize::MAX,
            limit: ALL,
            passes_on: true,
        };
        for who in 0..self.readers.len() {
            while self.read(who, &all) {}
        }
        let sum = |figure: fn(&Receipt) -> u64| self.receipts.iter().map(figure).sum::<u64>();
        let snapshot = broker.snapshot();
        assert_eq!(snapshot.ledger.delivered, self.received);
        assert_eq!(snapshot.ledger.missed_total(), self.told);
        assert_eq!(sum(|r| r.matched.into()), self.received + self.told);
        assert_eq!(sum(|r| u64::from(r.dropped) + r.displaced), self.told);
        assert_eq!(snapshot.buffered_bytes, 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn who_shares_a_lane_fares_as_its_twin_who_does_not(steps in steps()) {
        let mut twins = Twins::new();
        steps.into_iter().for_each(|step| twins.take_step(step));
        twins.check_accounts();
        twins.readers.clear();
        twins.check_accounts();
        assert_eq!(twins.sharing.snapshot().buffered_bytes, 0);
    }

    #[test]
    fn order_and_accounts_hold_where_all_mailboxes_together_are_full(steps in steps()) {
        let broker = broker_with(Limits { buffered_bytes_max: 60_000, ..small_limits() });
        let mut crowd = Crowd::default();
        for step in steps {
            crowd.take_step(&broker, step);
        }
        crowd.check(&broker);
    }
}

#[test]
fn a_take_takes_all_that_was_published_before_it() {
    let broker = broker();
    let wish = SubscribeOptions {
        mailbox_capacity: Some(64),
        ..options("t")
    };
    let mut subscription = subscribe_either(&broker, wish, true).unwrap();
    publish(&broker, "t", "first");
    // Handed over alone; what follows waits in the tail.
    assert_eq!(broker.snapshot().ledger.buffered, 1);
    for _ in 0..63 {
        publish(&broker, "t", "m");
    }
    assert_eq!(take(&mut subscription).unwrap().1.len(), 64);
    for _ in 0..64 {
        assert_eq!(publish(&broker, "t", "m").delivered, 1);
    }
}
