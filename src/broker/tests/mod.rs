//! What the broker promises as a whole: that nothing is lost without saying so, that order holds,
//! that a subscription is live at once, and that nothing stays of those who left.
//!
//! Threads wait for a bounded time only: a lost wake-up or a deadlock fails a test, and does not
//! hang it.

mod accounting;
mod endings;
mod figures;
mod groups;
mod history;
#[cfg(feature = "interleavings")]
mod interleavings;
mod lanes;
mod limits;
mod many;
mod matching;
mod reentry;
mod runs;
mod threads;
mod twins;
mod world;

use std::{
    collections::{HashMap, HashSet},
    future::Future,
    hash::Hash,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    task::{Context, Poll, Wake, Waker},
    thread,
    time::{Duration, SystemTime},
};

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::{subscriber::Subscriber, *};
use crate::{
    cursor::Position,
    message::{Delivery, DeliveryRef, Epoch, Message, Sequence},
    topic::{Topic, TopicFilter},
};

const ALL: BatchLimit = BatchLimit {
    messages: usize::MAX,
    bytes: usize::MAX,
};

/// Far above what any test takes on a slow machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// With lanes for mailboxes of any size.
fn broker_with(limits: Limits) -> Broker {
    Broker::with_lanes(limits, 1, 1).unwrap()
}

fn broker() -> Broker {
    broker_with(Limits::default())
}

fn topic(text: &str) -> Topic {
    text.parse().unwrap()
}

/// One filter, or several with blanks between them.
fn filters(texts: &str) -> Filters {
    let filters = texts.split(' ').map(|text| text.parse().unwrap());
    Filters::new(filters.collect()).unwrap()
}

fn options(texts: &str) -> SubscribeOptions {
    SubscribeOptions {
        filters: filters(texts),
        ..SubscribeOptions::new("unused".parse().unwrap())
    }
}

fn in_group(filter: &str, group: &str) -> SubscribeOptions {
    SubscribeOptions {
        group: Some(group.parse().unwrap()),
        ..options(filter)
    }
}

/// Reads encoded messages: what nothing is said of shares its lane.
fn subscribe(broker: &Broker, filter: &str) -> Subscription {
    broker
        .subscribe_encoded(options(filter), &ENCODING)
        .unwrap()
}

fn publish(broker: &Broker, topic: &str, payload: &str) -> Receipt {
    publish_tagged(broker, topic, None, payload)
}

fn publish_tagged(broker: &Broker, topic: &str, tag: Option<&str>, payload: &str) -> Receipt {
    let mut message = Message::new(topic.parse().unwrap(), payload.to_owned());
    message.tag = tag.map(|tag| tag.parse().unwrap());
    broker.publish(message, SystemTime::UNIX_EPOCH).unwrap()
}

/// Who reads encoded messages shares a lane, whatever the size of the mailbox: see [`broker_with`].
static ENCODING: Encoding = Encoding {
    name: "test",
    put: encode,
};

fn encode(out: &mut BytesMut, delivery: DeliveryRef<'_>) {
    let message = &delivery.message;
    let tag = message.tag.map_or("", |tag| tag.as_str());
    out.put_u64(delivery.epoch.0);
    out.put_u64(delivery.sequence.0);
    out.put_u64(delivery.position.map_or(0, |position| position.0));
    for field in [
        message.topic.as_str().as_bytes(),
        tag.as_bytes(),
        &*message.payload,
    ] {
        out.put_u32(field.len() as u32);
        out.put_slice(field);
    }
}

fn decode(frames: &mut Bytes) -> Arc<Delivery> {
    let (epoch, sequence) = (frames.get_u64(), frames.get_u64());
    let position = Some(Position(frames.get_u64())).filter(|position| position.0 > 0);
    let mut field = || {
        let bytes = frames.get_u32() as usize;
        frames.split_to(bytes)
    };
    let text = |bytes: Bytes| String::from_utf8(bytes.to_vec()).unwrap();
    let (topic, tag, payload) = (text(field()), text(field()), field());
    let mut message = Message::new(topic.parse().unwrap(), payload);
    message.tag = (!tag.is_empty()).then(|| tag.parse().unwrap());
    let at = SystemTime::UNIX_EPOCH;
    let mut delivery = Delivery::new(message, Epoch(epoch), Sequence(sequence), at);
    delivery.position = position;
    Arc::new(delivery)
}

fn subscribe_either(
    broker: &Broker,
    wish: SubscribeOptions,
    encoded: bool,
) -> Result<Subscription, SubscribeError> {
    if encoded {
        broker.subscribe_encoded(wish, &ENCODING)
    } else {
        broker.subscribe(wish)
    }
}

type Batch = Result<(u64, Vec<Arc<Delivery>>), Ended>;

/// Takes, and passes on at once.
fn poll_take(subscription: &mut Subscription, limit: BatchLimit, waker: &Waker) -> Poll<Batch> {
    let (mut missed, mut batch) = (0, Vec::new());
    let mut cx = Context::from_waker(waker);
    let taken = subscription.poll_take_encoded(&mut cx, limit, |taken| match taken {
        Taken::Missed(count) => missed = count,
        Taken::Gap(gap, _) => panic!("nothing is kept: {gap}"),
        Taken::Delivery(delivery) => batch.push(delivery),
        Taken::Frames(mut frames) => {
            while frames.has_remaining() {
                batch.push(decode(&mut frames));
            }
        }
    });
    subscription.pass_on();
    taken.map_ok(|()| (missed, batch))
}

/// All that waits, and how many messages were missed: nothing and none if there is neither.
fn take(subscription: &mut Subscription) -> Batch {
    match poll_take(subscription, ALL, Waker::noop()) {
        Poll::Ready(taken) => taken,
        Poll::Pending => Ok((0, Vec::new())),
    }
}

/// The payloads of all that waits. There must be no miss and no end.
#[track_caller]
fn payloads(subscription: &mut Subscription) -> Vec<String> {
    let (missed, batch) = take(subscription).unwrap();
    assert_eq!(missed, 0);
    batch.iter().map(|delivery| payload(delivery)).collect()
}

fn payload(delivery: &Delivery) -> String {
    String::from_utf8(delivery.message.payload.to_vec()).unwrap()
}

fn poll_end(watch: &mut EndWatch, waker: &Waker) -> Poll<EndReason> {
    Pin::new(watch).poll(&mut Context::from_waker(waker))
}

/// The subscriber that came last, as the registry holds it.
fn newest_subscriber(broker: &Broker) -> Arc<Subscriber> {
    let registry = broker.shared.registry.read();
    let newest = registry.subscribers().max_by_key(|s| s.id).unwrap();
    Arc::clone(newest)
}

/// Counts how often it was woken.
#[derive(Debug, Default)]
struct Wakes(AtomicUsize);

impl Wakes {
    fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// Wakes a thread that waits in [`Reader::take`].
#[derive(Debug)]
struct Bell(SyncSender<()>);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.try_send(()).ok();
    }
}

/// A subscription read by a thread that sleeps until it is woken.
#[derive(Debug)]
struct Reader {
    subscription: Subscription,
    waker: Waker,
    rung: Receiver<()>,
}

impl Reader {
    fn new(subscription: Subscription) -> Self {
        let (bell, rung) = sync_channel(1);
        Self {
            subscription,
            waker: Arc::new(Bell(bell)).into(),
            rung,
        }
    }

    fn take(&mut self, limit: BatchLimit) -> Batch {
        loop {
            match poll_take(&mut self.subscription, limit, &self.waker) {
                Poll::Ready(taken) => return taken,
                Poll::Pending => self.rung.recv_timeout(PATIENCE).expect("a reader is woken"),
            }
        }
    }
}

/// Threads whose results are awaited for a bounded time.
#[derive(Debug)]
struct Crew<T> {
    done: SyncSender<T>,
    results: Receiver<T>,
    members: usize,
}

impl<T: Send + 'static> Crew<T> {
    fn new() -> Self {
        let (done, results) = sync_channel(64);
        Self {
            done,
            results,
            members: 0,
        }
    }

    fn spawn(&mut self, work: impl FnOnce() -> T + Send + 'static) {
        self.members += 1;
        let done = self.done.clone();
        thread::spawn(move || done.send(work()).expect("the crew waits"));
    }

    #[track_caller]
    fn join(self) -> Vec<T> {
        drop(self.done);
        let wait = |_| {
            self.results
                .recv_timeout(PATIENCE)
                .expect("no thread hangs")
        };
        (0..self.members).map(wait).collect()
    }
}

/// Checks on what a subscriber gets: each message once, and those of a topic in order.
#[derive(Debug, Default)]
struct OrderCheck {
    newest: HashMap<Topic, (Epoch, Sequence)>,
}

impl OrderCheck {
    #[track_caller]
    fn see(&mut self, delivery: &Delivery) {
        let place = (delivery.epoch, delivery.sequence);
        if let Some(before) = self.newest.insert(delivery.message.topic.clone(), place) {
            assert!(place > before, "{place:?} comes after {before:?}");
        }
    }
}

fn distinct<T: Eq + Hash>(items: impl IntoIterator<Item = T>) -> usize {
    items.into_iter().collect::<HashSet<_>>().len()
}
