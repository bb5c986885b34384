//! A live subscription, and how it comes back.
//!
//! A state machine that runs only while it is polled: no task, no queue of its own. An application
//! that reads slowly is felt by the broker, whose mailbox is the one buffer; dropping the
//! subscription cancels it.

use std::{
    collections::VecDeque,
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tokio::time::{Sleep, sleep};
use tokio_stream::Stream;

use super::{
    connection::Connection,
    convert::Received,
    error::SubscribeError,
    gap::{Account, Gap},
    live::{End, Facts, Live},
    subscribe::{GoOn, Subscribe},
};
use crate::{
    cursor::{self, Cursor},
    wire::pb,
};

/// What a [`Subscription`] yields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A message.
    Message(Received),
    /// So many messages were lost at the broker since the event before, because the application
    /// reads too slowly. Told as early as possible: older messages may still follow. Of what the broker keeps,
    /// they may come after all, once, if the connection breaks: the subscription then goes on after the last
    /// message that was handed over, which was before them.
    Missed(u64),
    /// What was asked for by [`Subscribe::start_at`], or stood in line to be replayed, and is no longer
    /// kept. Told before the next of these messages. With a wildcard, what is gone may be newer than messages of
    /// other topics that are still to come; if the connection breaks before these, it is told again, as at
    /// least one.
    Gap(cursor::Gap),
    /// The connection broke and the subscription is live again. What the broker has kept of what was
    /// published meanwhile follows, each message once; every other one that follows was published after
    /// that.
    Resubscribed {
        /// What was lost in between.
        gap: Gap,
        /// The facts of the new subscription.
        facts: Facts,
    },
}

/// A live subscription: a [`Stream`] of [`Event`]s, without end unless an error or the topic's own end ends
/// it: then it yields nothing more, and all that was left of the topic has been yielded or told as missed.
/// Dropping it unsubscribes.
///
/// When its connection breaks, it resubscribes until it succeeds, and yields
/// [`Event::Resubscribed`]; only what the application must decide is yielded as an error, once, and
/// then nothing more. With [`ClientOptions::reconnect`](super::ClientOptions::reconnect) off, so is a
/// broken connection.
///
/// It makes progress only while it is polled.
pub struct Subscription {
    connection: Arc<Connection>,
    subscribe: Subscribe,
    state: State,
    /// What one response or end came to, in order; at most three.
    ready: VecDeque<Event>,
    facts: Facts,
    account: Account,
    /// After what was handed to the application last, of what is kept.
    newest: Option<Cursor>,
    /// Whether a message or a gap has come.
    is_answered: bool,
    /// How the attempt goes on that is under way.
    go_on: GoOn,
    /// Failures in a row.
    failures: u32,
}

type Opening = Pin<Box<dyn Future<Output = Result<(Facts, Live), SubscribeError>> + Send>>;

enum State {
    Live(Box<Live>),
    Waiting(Pin<Box<Sleep>>),
    Opening(Opening),
    Failed(SubscribeError),
    Ended,
}

impl Subscription {
    pub(super) async fn open(
        connection: Arc<Connection>,
        subscribe: Subscribe,
    ) -> Result<Self, SubscribeError> {
        let opening = Live::open(
            Arc::clone(&connection),
            subscribe.request(),
            subscribe.heartbeat(),
        );
        let (facts, live) = opening.await?;
        Ok(Self {
            connection,
            account: if subscribe.starts_now() {
                Account::new(facts.start, subscribe.takes_all())
            } else {
                Account::with_replay(facts.start, subscribe.takes_all())
            },
            subscribe,
            state: State::Live(Box::new(live)),
            ready: VecDeque::with_capacity(2),
            facts,
            newest: facts.cursor,
            is_answered: false,
            go_on: GoOn::Anew,
            failures: 0,
        })
    }

    /// The next event; `None` once an error has been yielded, or when the topic has ended. Loses nothing if it is dropped while it
    /// waits.
    pub async fn next(&mut self) -> Option<Result<Event, SubscribeError>> {
        std::future::poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }

    /// What the broker granted last.
    #[must_use]
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Turns a response into the events that it stands for.
    fn take(&mut self, response: pb::SubscribeResponse) {
        self.tell_missed(response.missed);
        if let Some(pb::Gap { missing, at_least }) = response.gap {
            let gap = cursor::Gap { missing, at_least };
            self.account.give_up(gap);
            self.ready.push_back(Event::Gap(gap));
            let keeps_nothing = self.facts.cursor.is_none() && self.subscribe.is_to_one_topic();
            match response.cursor.parse() {
                // What was asked for has been answered: to ask for it again would be to be told it again.
                Ok(place) => {
                    self.newest = Some(place);
                    self.is_answered = true;
                }
                // What comes is what is published from the start on.
                Err(_) if keeps_nothing => {
                    self.newest = None;
                    self.is_answered = true;
                    self.account = Account::new(self.facts.start, self.subscribe.takes_all());
                }
                Err(_) => {}
            }
        }
        if response.sequence == 0 {
            return;
        }
        match Received::try_from(response) {
            Ok(message) => {
                self.account.receive(message.epoch, message.sequence);
                self.newest = message.cursor.or(self.newest);
                self.is_answered = true;
                self.ready.push_back(Event::Message(message));
            }
            Err(malformed) => self.state = State::Failed(malformed.into()),
        }
    }

    fn tell_missed(&mut self, missed: u64) {
        if missed > 0 {
            self.account.settle(missed);
            self.ready.push_back(Event::Missed(missed));
        }
    }

    /// Waits for another attempt, or gives up.
    fn fail(&mut self, error: SubscribeError) {
        let options = self.connection.options();
        self.state = if options.reconnect && error.is_survivable() {
            self.failures = self.failures.saturating_add(1);
            let delay = options.backoff.delay(self.failures, error.retry_after());
            State::Waiting(Box::pin(sleep(delay)))
        } else {
            State::Failed(error)
        };
    }

    fn reopen(&mut self) {
        self.go_on = self.subscribe.go_on(self.newest, self.is_answered);
        self.state = State::Opening(Box::pin(Live::open(
            Arc::clone(&self.connection),
            self.subscribe.request_again(self.go_on),
            self.subscribe.heartbeat(),
        )));
    }

    fn resume(&mut self, facts: Facts, live: Live) {
        let all = self.subscribe.takes_all();
        let gap = match self.go_on {
            GoOn::Anew => self.account.resume(facts.start),
            GoOn::Again | GoOn::After(_) => {
                self.account = match self.go_on {
                    GoOn::After(cursor) => Account::after(cursor, facts.start, all),
                    _ => Account::with_replay(facts.start, all),
                };
                if self.subscribe.is_to_one_topic() {
                    Gap::None
                } else {
                    Gap::NotKept
                }
            }
        };
        self.newest = facts.cursor.or(self.newest);
        self.facts = facts;
        self.ready.push_back(Event::Resubscribed { gap, facts });
        self.state = State::Live(Box::new(live));
    }
}

impl Stream for Subscription {
    type Item = Result<Event, SubscribeError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            if let Some(event) = this.ready.pop_front() {
                return Poll::Ready(Some(Ok(event)));
            }
            match &mut this.state {
                State::Live(live) => match ready!(live.poll_response(cx, &this.connection)) {
                    Ok(response) => this.take(response),
                    Err(End { error, missed }) => {
                        if live.was_steady() {
                            this.failures = 0;
                        }
                        this.tell_missed(missed);
                        match error {
                            Some(error) => this.fail(error),
                            None => this.state = State::Ended,
                        }
                    }
                },
                State::Waiting(delay) => {
                    ready!(delay.as_mut().poll(cx));
                    this.reopen();
                }
                State::Opening(opening) => match ready!(opening.as_mut().poll(cx)) {
                    Ok((facts, live)) => this.resume(facts, live),
                    Err(error) => this.fail(error),
                },
                State::Failed(_) | State::Ended => {
                    let failed = std::mem::replace(&mut this.state, State::Ended);
                    return Poll::Ready(match failed {
                        State::Failed(error) => Some(Err(error)),
                        _ => None,
                    });
                }
            }
        }
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::Live(_) => "live",
            State::Waiting(_) => "waiting",
            State::Opening(_) => "opening",
            State::Failed(_) => "failed",
            State::Ended => "ended",
        };
        f.debug_struct("Subscription")
            .field("url", &self.connection.url())
            .field("subscribe", &self.subscribe)
            .field("state", &state)
            .field("facts", &self.facts)
            .finish_non_exhaustive()
    }
}
