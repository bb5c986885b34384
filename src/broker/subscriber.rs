//! One live reader of a filter: its mailbox, and whom it shares its lane or its work with.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use super::{
    ended::{EndReason, Ended},
    figures::Arrival,
    filters::Filters,
    lane::Lane,
    ledger::Ledger,
    mailbox::Mailbox,
    memory::Held,
    queue::{BatchLimit, Taken},
    registry::Group,
};
use crate::message::{GroupName, Tag};

/// One live reader of a filter.
#[derive(Debug)]
pub(crate) struct Subscriber {
    pub(crate) id: u64,
    pub(crate) filters: Filters,
    pub(crate) tags: Box<[Tag]>,
    pub(crate) group: Option<Arc<Group>>,
    /// When the group served this member last, in messages; 0 for never.
    pub(crate) served: AtomicU64,
    /// Shared with those who want the same.
    pub(crate) lane: Option<Arc<Lane>>,
    pub(crate) mailbox: Arc<Mailbox>,
    pub(crate) arrival: Arrival,
    /// Whether it still reads the logs of topics with history, and its mailbox is to leave their messages
    /// out. Changes under the order lock; a lane knows by itself where its members are.
    pub(crate) is_behind: AtomicBool,
    /// What a subscription takes without a message.
    pub(crate) _held: Held,
}

impl Subscriber {
    /// Whether the subscriber's tags let a message with this tag through.
    pub(super) fn wants(&self, tag: Option<&Tag>) -> bool {
        self.tags.is_empty() || tag.is_some_and(|tag| self.tags.contains(tag))
    }

    pub(super) fn group_name(&self) -> Option<&GroupName> {
        self.group.as_ref().map(|group| group.name())
    }

    pub(crate) fn is_behind(&self) -> bool {
        self.is_behind.load(Ordering::Relaxed)
    }

    /// Takes messages of topics with history into the mailbox from now on. To be called under the order
    /// lock.
    pub(crate) fn go_live(&self) {
        self.is_behind.store(false, Ordering::Relaxed);
        if let Some(lane) = &self.lane {
            lane.catch_up(self.id);
        }
    }

    /// See [`Mailbox::poll_take`].
    pub(crate) fn poll_take(
        &self,
        cx: &mut Context<'_>,
        limit: BatchLimit,
        mut into: impl FnMut(Taken),
    ) -> Poll<Result<(), Ended>> {
        let Some(lane) = &self.lane else {
            return self.mailbox.poll_take(cx, limit, into);
        };
        lane.flush_known();
        let taken = self.mailbox.poll_take(cx, limit, &mut into);
        if taken.is_ready() {
            return taken;
        }
        // The reader is parked by now. Looked at once more even if the tail was empty: somebody else
        // may have handed it over a moment ago, for a reader that was not parked yet.
        lane.flush();
        self.mailbox.poll_take(cx, limit, into)
    }

    /// The account, with all that was published so far.
    pub(crate) fn ledger(&self) -> Ledger {
        self.with_flushed(Mailbox::ledger)
    }

    /// See [`Mailbox::tick`].
    pub(crate) fn tick(&self, ticks_max: u32) -> Option<EndReason> {
        self.with_flushed(|mailbox| mailbox.tick(ticks_max))
    }

    /// See [`Mailbox::held_bytes`].
    pub(crate) fn held_bytes(&self) -> usize {
        self.with_flushed(Mailbox::held_bytes)
    }

    /// See [`Mailbox::shed`].
    pub(crate) fn shed(&self) -> bool {
        self.with_flushed(Mailbox::shed)
    }

    pub(super) fn with_flushed<R>(&self, act: impl FnOnce(&Mailbox) -> R) -> R {
        match &self.lane {
            Some(lane) => lane.with_flushed(self.id, &self.mailbox, act),
            None => act(&self.mailbox),
        }
    }
}
