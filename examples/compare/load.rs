//! One workload against one system: the connections, the closed loop, and what came of it.
//!
//! A topic has one publisher, and all of its subscribers get each message. The loop is lossless: a
//! publisher waits while its slowest subscriber is a window behind, or too many of its publishes are
//! unanswered. Everything has a time limit.

use std::{cell::Cell, rc::Rc, thread, time::Duration};

use anyhow::{Context, anyhow, bail, ensure};
use tokio::{task::LocalSet, time::Instant};

use crate::{
    link::{Link, Scratch},
    pacer,
    progress::{STEP, Shared, Topic},
    system::{Server, System, Usage},
    wire::{Method, Traffic},
};

/// What is sent in one go at most, so that a publisher's thread share stays small.
const BATCH_BYTES: usize = 64 * 1024;
/// How long memory may take to settle once the subscribers have come.
const IDLE_TIME: Duration = Duration::from_millis(300);
/// Subscribers that come before memory is first looked at, to leave out what only the first one costs.
const FIRST_SUBSCRIBERS: usize = 20;

/// A workload's form.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// Each has one publisher.
    pub(crate) topics: usize,
    pub(crate) subscribers_per_topic: usize,
    pub(crate) size: usize,
    pub(crate) pace: Pace,
    pub(crate) method: Method,
    /// How many subscriptions share a connection.
    pub(crate) subscriptions_per_connection: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// As fast as the window allows.
    Saturation,
    /// The same, and each message is answered on its own; so many may be unanswered.
    Acked { in_flight: u64 },
    /// Messages a second, at even intervals.
    Rate(u64),
    /// Nothing is published.
    Idle,
}

/// For how long, and how far.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    pub(crate) warmup: Duration,
    pub(crate) duration: Duration,
    /// How many messages a subscriber may be behind.
    pub(crate) window: u64,
}

/// What came of a run.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) delivered: u64,
    pub(crate) delivered_per_s: f64,
    /// Of the server.
    pub(crate) cpu_us_per_delivery: Option<f64>,
    /// Shares of a core's time, without and with the wait for others to leave the core.
    pub(crate) server_share: f64,
    pub(crate) server_demand: f64,
    pub(crate) load_share: f64,
    pub(crate) load_demand: f64,
    pub(crate) lost: u64,
    pub(crate) order_breaks: u64,
    pub(crate) latency_us: Option<Latency>,
    pub(crate) kb_per_subscriber: Option<f64>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Latency {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
}

/// Runs a workload against a server that nothing else uses.
pub(crate) fn run(
    system: System,
    server: &Server,
    shape: Shape,
    effort: Effort,
) -> anyhow::Result<Outcome> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    // All tasks and connections end with it.
    let local = LocalSet::new();
    local.block_on(&runtime, measure(system, server, shape, effort))
}

async fn measure(
    system: System,
    server: &Server,
    shape: Shape,
    effort: Effort,
) -> anyhow::Result<Outcome> {
    let scratch = Scratch::new();
    let shared = Rc::new(Shared::new(shape, effort.window)?);
    let traffic = |topic| Traffic {
        topic,
        size: shape.size,
        acked: matches!(shape.pace, Pace::Acked { .. }),
        method: shape.method,
    };
    let kb_per_subscriber = subscribe(system, server, shape, &shared, &scratch).await?;
    if shape.pace == Pace::Idle {
        shared.check()?;
        return Ok(Outcome {
            kb_per_subscriber,
            ..Outcome::default()
        });
    }
    let address = server.address();
    let mut pacer = None;
    if let Pace::Rate(rate) = shape.pace {
        let codec = traffic(0).codec(system.publisher());
        let count = (rate as f64 * (effort.warmup + effort.duration).as_secs_f64()) as u64;
        let epoch = shared.epoch;
        let paced = move || pacer::publish(address, codec, epoch, rate, count);
        pacer = Some((thread::spawn(paced), count));
    } else {
        for topic in 0..shape.topics {
            let codec = traffic(topic).codec(system.publisher());
            let link = Link::connect(address, codec, &scratch).await?;
            let unanswered_max = match shape.pace {
                Pace::Acked { in_flight } => in_flight,
                _ => u64::MAX,
            };
            let publisher = publish(link, Rc::clone(&shared), topic, unanswered_max);
            let shared = Rc::clone(&shared);
            tokio::task::spawn_local(async move { shared.fail_on(publisher.await) });
        }
    }
    shared.wait(effort.warmup).await?;
    let mut outcome = measured(server, &shared, effort.duration).await?;
    shared.stopping.set(true);
    let mut connection = None;
    if let Some((thread, count)) = pacer {
        while !thread.is_finished() {
            shared.wait(STEP).await?;
        }
        connection = Some(thread.join().map_err(|_| anyhow!("the pacer panicked"))??);
        shared.topics[0].published.set(count);
    }
    let missing = shared.settle().await?;
    drop(connection);
    outcome.lost = shared.lost.get() + missing;
    outcome.order_breaks = shared.order_breaks.get();
    outcome.kb_per_subscriber = kb_per_subscriber;
    if matches!(shape.pace, Pace::Rate(_)) {
        let latency = shared.latency.borrow();
        outcome.latency_us = Some(Latency {
            p50: latency.value_at_quantile(0.5) as f64,
            p99: latency.value_at_quantile(0.99) as f64,
        });
    }
    Ok(outcome)
}

async fn measured(server: &Server, shared: &Shared, duration: Duration) -> anyhow::Result<Outcome> {
    let now_ns = shared.epoch.elapsed().as_nanos() as u64;
    shared.record_from_ns.set(now_ns);
    let started = Instant::now();
    let from = (shared.delivered.get(), server.usage()?, Usage::own()?);
    shared.wait(duration).await?;
    let to = (shared.delivered.get(), server.usage()?, Usage::own()?);
    let elapsed = started.elapsed().as_secs_f64();
    let delivered = to.0 - from.0;
    ensure!(delivered > 0, "nothing was delivered");
    let server_cpu = (to.1.cpu - from.1.cpu).as_secs_f64();
    let load_cpu = (to.2.cpu - from.2.cpu).as_secs_f64();
    let waited = |from: Usage, to: Usage| to.waited.saturating_sub(from.waited).as_secs_f64();
    Ok(Outcome {
        delivered,
        delivered_per_s: delivered as f64 / elapsed,
        cpu_us_per_delivery: Some(server_cpu * 1e6 / delivered as f64),
        server_share: server_cpu / elapsed,
        server_demand: (server_cpu + waited(from.1, to.1)) / elapsed,
        load_share: load_cpu / elapsed,
        load_demand: (load_cpu + waited(from.2, to.2)) / elapsed,
        ..Outcome::default()
    })
}

/// Opens the subscribers' connections; returns what the later ones cost the server in memory.
async fn subscribe(
    system: System,
    server: &Server,
    shape: Shape,
    shared: &Rc<Shared>,
    scratch: &Scratch,
) -> anyhow::Result<Option<f64>> {
    let mut count = 0;
    let mut first = None;
    for topic in 0..shape.topics {
        let mut left = shape.subscribers_per_topic;
        while left > 0 {
            let traffic = Traffic {
                topic,
                size: shape.size,
                acked: false,
                method: shape.method,
            };
            let mut link = Link::connect(server.address(), traffic.codec(system), scratch).await?;
            let subscriptions = left.min(shape.subscriptions_per_connection);
            if system.answers_subscriptions() {
                link.subscribe(subscriptions).await?;
            } else {
                let codec = traffic.codec(system);
                let mut prober = Link::connect(server.address(), codec, scratch).await?;
                link.subscribe_with_probes(subscriptions, &mut prober)
                    .await?;
            }
            left -= subscriptions;
            count += subscriptions;
            if matches!(shape.pace, Pace::Rate(_)) {
                link.heard.due_ns = Some(Vec::new());
            }
            let receiver = receive(link, Rc::clone(shared), topic, left);
            let shared = Rc::clone(shared);
            tokio::task::spawn_local(async move { shared.fail_on(receiver.await) });
            if first.is_none() && count >= FIRST_SUBSCRIBERS {
                tokio::time::sleep(IDLE_TIME).await;
                first = Some((count, server.usage()?));
            }
        }
    }
    if shape.pace != Pace::Idle {
        return Ok(None);
    }
    tokio::time::sleep(IDLE_TIME).await;
    let (before, usage) = first.context("too few subscribers to measure memory")?;
    let grown = server.usage()?.rss_bytes as f64 - usage.rss_bytes as f64;
    if count == before {
        bail!("too few subscribers to measure memory");
    }
    Ok(Some(grown / (count - before) as f64 / 1e3))
}

async fn receive(
    mut link: Link,
    shared: Rc<Shared>,
    topic: usize,
    index: usize,
) -> anyhow::Result<()> {
    let topic = &shared.topics[topic];
    let (mut delivered, mut lost, mut order_breaks) = (0, 0, 0);
    loop {
        link.stream.ready(link.interest()).await?;
        link.pull()?;
        link.push()?;
        let heard = &mut link.heard;
        if let Some(due_ns) = &mut heard.due_ns {
            let now_ns = shared.epoch.elapsed().as_nanos() as u64;
            let mut latency = shared.latency.borrow_mut();
            let from_ns = shared.record_from_ns.get();
            for due_ns in due_ns.drain(..).filter(|due_ns| *due_ns >= from_ns) {
                latency.saturating_record(now_ns.saturating_sub(due_ns) / 1_000);
            }
        }
        let add = |total: &Cell<u64>, now: u64, before: &mut u64| {
            total.set(total.get() + now - *before);
            *before = now;
        };
        add(&shared.delivered, heard.deliveries, &mut delivered);
        add(&shared.lost, heard.lost, &mut lost);
        add(&shared.order_breaks, heard.order_breaks, &mut order_breaks);
        topic.positions[index].set(heard.position);
        if topic.awaited.get() == Some(index) {
            topic.progress.notify_one();
        }
    }
}

async fn publish(
    mut link: Link,
    shared: Rc<Shared>,
    topic: usize,
    unanswered_max: u64,
) -> anyhow::Result<()> {
    let topic = &shared.topics[topic];
    loop {
        if link.out.is_empty() && !shared.stopping.get() {
            fill(&mut link, &shared, topic, unanswered_max);
        }
        link.push()?;
        tokio::select! {
            biased;
            ready = link.stream.ready(link.interest()) => {
                if ready?.is_readable() {
                    link.pull()?;
                }
            }
            () = topic.progress.notified(), if link.out.is_empty() => {}
        }
    }
}

/// Encodes as many messages as the window and the unanswered publishes allow.
fn fill(link: &mut Link, shared: &Shared, topic: &Topic, unanswered_max: u64) {
    let mut published = topic.published.get();
    let (slowest, position) = topic.slowest();
    let unanswered = published.saturating_sub(link.heard.acked);
    let room = (position + shared.window)
        .saturating_sub(published)
        .min(unanswered_max.saturating_sub(unanswered));
    topic.awaited.set(Some(slowest));
    let until = published + room;
    while published < until && link.out.len() < BATCH_BYTES {
        let stamp = crate::wire::Stamp {
            position: published + 1,
            due_ns: 0,
        };
        if !link.codec.publish(stamp, &mut link.out) {
            break;
        }
        published += 1;
    }
    link.codec.seal(&mut link.out);
    topic.published.set(published);
}
