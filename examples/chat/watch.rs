//! Sees to it that every response ends: what nobody has taken is published again, and what a dead
//! dispatcher had taken is ended with an error, so that its readers are told.
//!
//! One task for each response that was asked for or is being read here; it ends with the response. It
//! remembers nothing that is not on the broker, so that any API can watch over any response.

use std::{collections::HashSet, sync::Arc, time::Duration};

use anyhow::Context;
use fanfare::{
    client::{Client, Event, Received, Subscribe},
    cursor::{Cursor, StartAt},
    message::Message,
};
use parking_lot::Mutex;
use tokio::time::{Instant, MissedTickBehavior};

use crate::{
    job::{Chunk, DispatcherName, Job, RequestId},
    metrics::Metrics,
};

/// The most responses in progress at a time.
const WATCHED_MAX: usize = 10_000;
/// How often a dispatcher is asked for.
const INTERVAL: Duration = Duration::from_secs(1);
/// A dispatcher that is missing as often in a row is dead: more than the blink of a reconnect.
const ABSENCES_MAX: u32 = 2;
/// How often a request is published, before it is given up.
const ATTEMPTS_MAX: u32 = 3;

#[derive(Debug)]
pub(crate) struct Watch {
    client: Client,
    metrics: Arc<Metrics>,
    claim_timeout: Duration,
    watched: Mutex<HashSet<RequestId>>,
}

impl Watch {
    pub(crate) fn new(client: Client, metrics: Arc<Metrics>, claim_timeout: Duration) -> Self {
        Self {
            client,
            metrics,
            claim_timeout,
            watched: Mutex::default(),
        }
    }

    /// Watches over a response until it ends, if nobody does here; with its request, if that was
    /// accepted here. False if there are too many.
    pub(crate) fn over(self: &Arc<Self>, id: &RequestId, job: Option<Job>) -> bool {
        let mut watched = self.watched.lock();
        if watched.contains(id) {
            return true;
        }
        if watched.len() >= WATCHED_MAX {
            return false;
        }
        watched.insert(id.clone());
        let response = Response::new(Arc::clone(self), id.clone(), job);
        tokio::spawn(response.watch());
        true
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
        }
    }

    async fn watch(mut self) {
        // Whatever breaks, the broker may be back in a while: a response is never left alone.
        while let Err(error) = self.follow().await {
            eprintln!("api: {}: {error:#}", self.id);
            tokio::time::sleep(INTERVAL).await;
        }
    }

    /// Reads along until the response ends.
    async fn follow(&mut self) -> anyhow::Result<()> {
        let start = self.cursor.map_or(StartAt::All, StartAt::After);
        let subscribe = Subscribe::new(self.id.response()).start_at(start);
        let mut messages = self.watch.client.subscribe(subscribe).await?;
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
        }
    }

    fn read(&mut self, message: &Received) {
        self.cursor = message.cursor;
        let metrics = &self.watch.metrics;
        // The first claim counts: any other is that of a dispatcher who got the request as well.
        if self.claimed.is_none()
            && let Some(dispatcher) = DispatcherName::of_claim(&message.attributes)
        {
            self.claimed = Some((dispatcher, Instant::now()));
            if self.job.is_some() {
                metrics.queued.dec();
            }
            return;
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
            let receipt = self.watch.client.publish(question).await?;
            let is_present = receipt.matched > 0;
            self.absences = if is_present { 0 } else { self.absences + 1 };
            if self.absences >= ABSENCES_MAX {
                self.end("the dispatcher is gone").await;
            }
        } else if self.published_at.elapsed() >= self.watch.claim_timeout {
            self.published_at = Instant::now();
            match &self.job {
                Some(job) if self.attempts < ATTEMPTS_MAX => {
                    self.attempts += 1;
                    self.watch.client.publish(job.message()?).await?;
                }
                Some(_) => self.end("no dispatcher has taken the request").await,
                None => self.end("nothing is known of the request").await,
            }
        }
        Ok(())
    }

    /// Of the ends that are published, the first is the one; this one is tried again if it was lost.
    async fn end(&self, error: &str) {
        let failure = Chunk::failure(&self.id, error);
        drop(self.watch.client.publish(failure).await);
    }
}

impl Drop for Response {
    fn drop(&mut self) {
        if self.job.is_some() && self.claimed.is_none() {
            self.watch.metrics.queued.dec();
        }
        self.watch.watched.lock().remove(&self.id);
    }
}
