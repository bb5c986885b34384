//! Sees to it that every response ends: what nobody has taken is published again, and what a dead
//! dispatcher had taken is ended with an error, so that its readers are told.
//!
//! One task for each response that was asked for or is being read here; it ends with the response.
//! Invariant: a response is ended for all readers only on evidence. Who has accepted the request knows that
//! nobody takes it; anybody who sees which dispatcher is at work can find that it is gone. An API that
//! knows neither tells its own readers, and leaves the response to those who may know more.

use std::{collections::HashMap, sync::Arc, time::Duration};

use anyhow::Context;
use fanfare::{
    client::{Event, Received, Subscribe},
    cursor::{Cursor, StartAt},
    message::Message,
};
use parking_lot::Mutex;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::{
    connections::Connections,
    job::{Chunk, DispatcherName, Job, RequestId},
    metrics::Metrics,
};

/// The most responses in progress at a time.
const WATCHED_MAX: usize = 10_000;
/// How often a dispatcher is asked for.
const INTERVAL: Duration = Duration::from_secs(1);
/// A dispatcher that is missing as often in a row is dead: more than the blink of a reconnect.
const ABSENCES_MAX: u32 = 2;
/// How often a request is published, before it is given up. At the default claim timeout the last time is
/// 40 seconds after the first: a dispatcher that went without a word is found by the broker's keepalive
/// within 30 seconds, and is sent no more requests from then on.
const ATTEMPTS_MAX: u32 = 5;

#[derive(Debug)]
pub(crate) struct Watch {
    connections: Arc<Connections>,
    metrics: Arc<Metrics>,
    claim_timeout: Duration,
    /// Each with what is cancelled when it turns out that nothing is known of the request.
    watched: Mutex<HashMap<RequestId, CancellationToken>>,
}

impl Watch {
    pub(crate) fn new(
        connections: Arc<Connections>,
        metrics: Arc<Metrics>,
        claim_timeout: Duration,
    ) -> Self {
        Self {
            connections,
            metrics,
            claim_timeout,
            watched: Mutex::default(),
        }
    }

    /// Watches over a response until it ends, if nobody does here; with its request, if that was
    /// accepted here. None if there are too many; or else what is cancelled if nothing is known of the
    /// request, and it is watched over no longer.
    pub(crate) fn over(
        self: &Arc<Self>,
        id: &RequestId,
        job: Option<Job>,
    ) -> Option<CancellationToken> {
        let mut watched = self.watched.lock();
        if let Some(unknown) = watched.get(id) {
            return Some(unknown.clone());
        }
        if watched.len() >= WATCHED_MAX {
            return None;
        }
        let unknown = CancellationToken::new();
        watched.insert(id.clone(), unknown.clone());
        let response = Response::new(Arc::clone(self), id.clone(), job);
        tokio::spawn(response.watch());
        Some(unknown)
    }

    /// Whoever has accepted a request and is alive has seen it claimed by then, or has ended it.
    fn unknown_timeout(&self) -> Duration {
        self.claim_timeout * (ATTEMPTS_MAX + 1)
    }
}

/// What is known of one response.
struct Response {
    watch: Arc<Watch>,
    id: RequestId,
    job: Option<Job>,
    attempts: u32,
    accepted_at: Instant,
    published_at: Instant,
    claimed: Option<(DispatcherName, Instant)>,
    /// How often in a row the dispatcher was missing.
    absences: u32,
    has_token: bool,
    cursor: Option<Cursor>,
    /// Since when it has been read without a break.
    followed_at: Instant,
    /// Whether nothing has come in that time, and it was not accepted here.
    is_unknown: bool,
}

impl Response {
    fn new(watch: Arc<Watch>, id: RequestId, job: Option<Job>) -> Self {
        if job.is_some() {
            watch.metrics.queued.inc();
        }
        Self {
            watch,
            id,
            job,
            attempts: 1,
            accepted_at: Instant::now(),
            published_at: Instant::now(),
            claimed: None,
            absences: 0,
            has_token: false,
            cursor: None,
            followed_at: Instant::now(),
            is_unknown: false,
        }
    }

    async fn watch(mut self) {
        // Whatever breaks, the broker may be back in a while: a response is never left alone.
        while let Err(error) = self.follow().await {
            eprintln!("api: {}: {error:#}", self.id);
            tokio::time::sleep(INTERVAL).await;
        }
    }

    /// Reads along until the response ends, or is found to be unknown.
    async fn follow(&mut self) -> anyhow::Result<()> {
        let start = self.cursor.map_or(StartAt::All, StartAt::After);
        let subscribe = Subscribe::new(self.id.response()).start_at(start);
        let mut messages = self.watch.connections.subscribe(subscribe).await?;
        self.followed_at = Instant::now();
        let mut ticks = tokio::time::interval(INTERVAL.min(self.watch.claim_timeout));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                event = messages.next() => match event {
                    Some(Ok(Event::Message(message))) => self.read(&message),
                    Some(Ok(Event::Gap(_))) => {}
                    // What it has not seen is kept: begins anew where it was.
                    Some(Ok(Event::Missed(_) | Event::Resubscribed { .. })) => {
                        anyhow::bail!("the broker was away");
                    }
                    Some(Err(error)) => return Err(error).context("cannot read"),
                    None => return Ok(()),
                },
                _ = ticks.tick() => self.look_after().await?,
            }
            if self.is_unknown {
                return Ok(());
            }
        }
    }

    fn read(&mut self, message: &Received) {
        self.cursor = message.cursor;
        let metrics = &self.watch.metrics;
        if self.claimed.is_none()
            && let Some(dispatcher) = DispatcherName::at_work(message)
        {
            self.claimed = Some((dispatcher, Instant::now()));
            if self.job.is_some() {
                metrics.queued.dec();
            }
        }
        let Ok(chunk) = serde_json::from_slice::<Chunk>(&message.payload) else {
            return;
        };
        // Each response counts once, where it was accepted.
        if self.job.is_none() {
            return;
        }
        if !chunk.token.is_empty() {
            metrics.tokens.inc();
            if !self.has_token {
                metrics.first_token(self.accepted_at.elapsed());
            }
            self.has_token = true;
        }
        if chunk.done {
            match (&chunk.error, &self.claimed) {
                (None, Some((_, at))) => metrics.generation(at.elapsed()),
                _ => {
                    metrics.failed.inc();
                }
            }
        }
    }

    async fn look_after(&mut self) -> anyhow::Result<()> {
        if let Some((dispatcher, _)) = &self.claimed {
            let question = Message::new(dispatcher.topic()?, self.id.to_string());
            let receipt = self.watch.connections.publish(question).await?;
            let is_present = receipt.matched > 0;
            self.absences = if is_present { 0 } else { self.absences + 1 };
            if self.absences >= ABSENCES_MAX {
                self.end("the dispatcher is gone").await;
            }
        } else if let Some(job) = &self.job {
            if self.published_at.elapsed() >= self.watch.claim_timeout {
                self.published_at = Instant::now();
                if self.attempts < ATTEMPTS_MAX {
                    self.attempts += 1;
                    self.watch.connections.publish(job.message()?).await?;
                } else {
                    self.end("no dispatcher has taken the request").await;
                }
            }
        } else {
            self.is_unknown = self.followed_at.elapsed() >= self.watch.unknown_timeout();
        }
        Ok(())
    }

    /// Of the ends that are published, the first is the one; this one is tried again if it was lost.
    async fn end(&self, error: &str) {
        let failure = Chunk::failure(&self.id, error);
        drop(self.watch.connections.publish(failure).await);
    }
}

impl Drop for Response {
    fn drop(&mut self) {
        if self.job.is_some() && self.claimed.is_none() {
            self.watch.metrics.queued.dec();
        }
        // Under the lock, so that a reader either is told or finds nobody watching.
        let mut watched = self.watch.watched.lock();
        if let Some(unknown) = watched.remove(&self.id)
            && self.is_unknown
        {
            unknown.cancel();
        }
    }
}
