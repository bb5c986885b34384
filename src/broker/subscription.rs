//! The reading end: a [`Subscription`] is live while it is held, and unsubscribes when it is dropped.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use super::{
    Memory, Shared,
    ended::{EndReason, Ended, Lost},
    figures::Arrival,
    filters::Filters,
    mailbox::Mailbox,
    overflow::OverflowPolicy,
    queue::{BatchLimit, MailboxSize, Taken},
    replay::{Beginning, Replay},
    subscriber::Subscriber,
    topics::TopicState,
};
use crate::{
    cursor::{Cursor, StartAt},
    message::{Delivery, Epoch, GroupName, Sequence, Tag},
    topic::TopicFilter,
};

/// What to subscribe to, and how.
#[derive(Clone, Debug)]
pub struct SubscribeOptions {
    /// Which topics.
    pub filters: Filters,
    /// With whom to share the work.
    pub group: Option<GroupName>,
    /// Only messages that carry one of these; empty means all.
    pub tags: Vec<Tag>,
    /// What a full mailbox does.
    pub overflow: OverflowPolicy,
    /// The mailbox's bound in messages, if not the default; granted up to a maximum.
    pub mailbox_capacity: Option<usize>,
    /// From where on; a group can only start now.
    pub start: StartAt,
    /// Who asks, for those who look at the [list](super::Broker::subscriptions).
    pub arrival: Arrival,
}

impl SubscribeOptions {
    /// All messages of a filter, with the defaults.
    #[must_use]
    pub fn new(filter: TopicFilter) -> Self {
        Self {
            filters: filter.into(),
            group: None,
            tags: Vec::new(),
            overflow: OverflowPolicy::default(),
            mailbox_capacity: None,
            start: StartAt::Now,
            arrival: Arrival::default(),
        }
    }
}

/// Why a subscription was not granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubscribeError {
    /// More tags than allowed; the caller must ask for fewer.
    #[error("{tags} tags exceed the limit of {max}")]
    TooManyTags {
        /// The number asked for.
        tags: usize,
        /// The limit.
        max: usize,
    },
    /// A group shares what comes, and has no past to share; the caller must ask for one or the other.
    #[error("a group can only start now")]
    GroupWithStart,
    /// More filters than allowed; the caller must ask for fewer.
    #[error("{filters} filters exceed the limit of {max}")]
    TooManyFilters {
        /// The number asked for.
        filters: usize,
        /// The limit.
        max: usize,
    },
    /// As many subscriptions as allowed are live; a retry helps once some have left.
    #[error("{max} subscriptions are live, which is the limit")]
    TooManySubscriptions {
        /// The limit.
        max: usize,
    },
    /// Memory is scarce; a retry helps once some is free again.
    #[error(
        "{used} bytes of the memory budget of {budget} are in use, which leaves no room for a subscription"
    )]
    MemoryScarce {
        /// What is in use, in bytes.
        used: usize,
        /// The budget, in bytes.
        budget: usize,
    },
    /// The broker is shutting down; a retry helps once it is back.
    #[error("the broker is shutting down")]
    Draining,
}

/// Where a topic stood when a subscription to it went live: the first message comes after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start {
    /// The topic's present life.
    pub epoch: Epoch,
    /// Its newest sequence; 0 before the first message.
    pub head: Sequence,
}

/// A live subscription.
#[derive(Debug)]
pub struct Subscription {
    shared: Arc<Shared>,
    subscriber: Arc<Subscriber>,
    start: Option<Start>,
    cursor: Option<Cursor>,
    /// Until it is done.
    replay: Option<Box<Replay>>,
    /// If all that it is for are several topics: those that have not been seen to have ended.
    unended: Option<Vec<Arc<TopicState>>>,
    is_watched: bool,
}

impl Subscription {
    pub(super) fn new(
        shared: Arc<Shared>,
        subscriber: Arc<Subscriber>,
        start: Option<Start>,
        beginning: Beginning,
    ) -> Self {
        Self {
            shared,
            subscriber,
            start,
            cursor: beginning.cursor,
            replay: beginning.replay,
            unended: None,
            is_watched: false,
        }
    }

    /// Comes to its end once all these have.
    pub(super) fn until_ended(mut self, topics: Vec<Arc<TopicState>>) -> Self {
        self.unended = Some(topics);
        self
    }

    /// The mailbox's bounds, as granted.
    #[must_use]
    pub fn mailbox_size(&self) -> MailboxSize {
        self.subscriber.mailbox.size()
    }

    /// Where the topic stood; `None` for a filter with wildcards.
    #[must_use]
    pub fn start(&self) -> Option<Start> {
        self.start
    }

    /// From where to go on if the first message never arrives; `None` if asking for the same again does
    /// it, or if nothing that the filter matches has history.
    #[must_use]
    pub fn cursor(&self) -> Option<Cursor> {
        self.cursor
    }

    /// Moves waiting messages to `into`, in order, and says what was lost before them.
    ///
    /// Pending while there is neither a message nor a miss to tell; one reader at a time is woken. What
    /// is taken counts against the bound on all mailboxes, and as waiting to the stall clock, until the
    /// next call or [`pass_on`](Self::pass_on).
    ///
    /// # Errors
    /// [`Ended`] once the broker has ended the subscription. An overflow or a stall ends it at once, a drain
    /// and the end of its topic after the last message that is left for it.
    pub fn poll_take(
        &mut self,
        cx: &mut Context<'_>,
        limit: BatchLimit,
        into: &mut Vec<Arc<Delivery>>,
    ) -> Poll<Result<Lost, Ended>> {
        let mut lost = Lost::default();
        let taken = self.poll_take_encoded(cx, limit, |taken| match taken {
            Taken::Missed(count) => lost.missed += count,
            Taken::Gap(gap, _) => lost.gap += gap,
            Taken::Delivery(delivery) => into.push(delivery),
            Taken::Frames(_) => unreachable!("frames are for those who brought an encoding"),
        });
        taken.map_ok(|()| lost)
    }

    /// [`poll_take`](Self::poll_take) for one who [brought an encoding](super::Broker::subscribe_encoded):
    /// what many share comes encoded, the rest as it is.
    pub(crate) fn poll_take_encoded(
        &mut self,
        cx: &mut Context<'_>,
        limit: BatchLimit,
        mut into: impl FnMut(Taken),
    ) -> Poll<Result<(), Ended>> {
        if let Some(replay) = &mut self.replay {
            let taken = replay.poll_take(&self.shared, &self.subscriber, cx, limit, &mut into);
            if replay.is_done() {
                self.replay = None;
            }
            match taken {
                Poll::Ready(Ok(false)) => {}
                taken => return taken.map_ok(drop),
            }
        }
        let taken = self.subscriber.poll_take(cx, limit, &mut into);
        if taken.is_ready() || !self.have_all_ended() {
            return taken;
        }
        // Nothing more will come, and what came until then may still wait.
        let finish = |mailbox: &Mailbox| mailbox.finish(EndReason::TopicEnded);
        self.subscriber.with_flushed(finish).wake();
        self.subscriber.poll_take(cx, limit, into)
    }

    /// Whether there were several topics, and all have ended. Each is asked until it has.
    fn have_all_ended(&mut self) -> bool {
        let Some(unended) = &mut self.unended else {
            return false;
        };
        while unended.last().is_some_and(|topic| topic.look().ended) {
            unended.pop();
        }
        unended.is_empty()
    }

    /// What was taken has been passed on.
    pub fn pass_on(&mut self) {
        self.subscriber.mailbox.pass_on();
    }

    /// [`poll_take`](Self::poll_take) as a future, for those who embed the broker: what it takes is
    /// theirs, and no longer counts.
    ///
    /// # Errors
    /// As [`poll_take`](Self::poll_take).
    pub async fn take(
        &mut self,
        limit: BatchLimit,
        into: &mut Vec<Arc<Delivery>>,
    ) -> Result<Lost, Ended> {
        let taken = std::future::poll_fn(|cx| self.poll_take(cx, limit, into)).await;
        self.pass_on();
        taken
    }

    /// The account that what is made of the messages belongs to.
    pub(crate) fn memory(&self) -> &Arc<Memory> {
        self.shared.budget.memory()
    }

    /// Why the broker has ended the subscription, if it has; messages may still wait.
    #[must_use]
    pub fn end(&self) -> Option<EndReason> {
        self.subscriber.mailbox.end()
    }

    /// Resolves once the broker has ended the subscription, also while nobody reads it; the end of its
    /// topic does not count, since what is left may still be read. There is one
    /// such watch for a subscription: the second call returns `None`.
    pub fn watch_end(&mut self) -> Option<EndWatch> {
        let first = !std::mem::replace(&mut self.is_watched, true);
        first.then(|| EndWatch(Arc::clone(&self.subscriber)))
    }

    /// The way to end the subscription while another reads it.
    pub(crate) fn ender(&self) -> Ender {
        Ender {
            shared: Arc::clone(&self.shared),
            id: self.subscriber.id,
        }
    }
}

/// Ends a subscription from outside: it is over as if its reader had unsubscribed, and what its mailbox
/// held is missed.
pub(crate) struct Ender {
    shared: Arc<Shared>,
    id: u64,
}

impl Ender {
    pub(crate) fn end(&self) {
        self.shared.unsubscribe(self.id);
    }
}

impl std::fmt::Debug for Ender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Ender").field(&self.id).finish()
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.pass_on();
        self.shared.unsubscribe(self.subscriber.id);
    }
}

/// See [`Subscription::watch_end`]. A subscription that is dropped has ended, too.
#[derive(Debug)]
pub struct EndWatch(Arc<Subscriber>);

impl Future for EndWatch {
    type Output = EndReason;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<EndReason> {
        self.0.mailbox.poll_ended(cx)
    }
}
