//! From what a subscriber asks for to where its replay begins.

use std::{cmp::Reverse, collections::BinaryHeap, sync::Arc, time::SystemTime};

use super::{Asked, Many, Replay, Topics, as_wanted};
use crate::{
    broker::{
        Shared,
        log::{GivenUp, Log},
        subscriber::Subscriber,
        topics::TopicState,
    },
    cursor::{Cursor, Gap, Position, StartAt},
    message::{Epoch, Sequence, Tag},
    topic::Topic,
};

/// How a subscription begins.
#[derive(Debug, Default)]
pub(in crate::broker) struct Beginning {
    /// What is to be read or told before the mailbox.
    pub(in crate::broker) replay: Option<Box<Replay>>,
    /// From where to go on if nothing is handed over; `None` if asking for the same again does it, or if
    /// nothing is kept.
    pub(in crate::broker) cursor: Option<Cursor>,
}

impl Beginning {
    /// Whether the mailbox is to leave out what has history, for now.
    pub(in crate::broker) fn is_behind(&self) -> bool {
        self.replay
            .as_ref()
            .is_some_and(|replay| replay.is_behind())
    }

    /// A subscription to what is not kept: it begins now, and who had a cursor is told that it is worth
    /// nothing.
    pub(in crate::broker) fn without_history(start: StartAt) -> Self {
        let had_cursor = matches!(start, StartAt::After(_));
        Self {
            replay: had_cursor.then(|| {
                Box::new(Replay {
                    is_done: true,
                    ..Replay::new(Topics::None, Asked::After, Gap::UNKNOWN)
                })
            }),
            cursor: None,
        }
    }

    /// A subscription to one topic, whose lock is held. Without a replay if there is nothing to read or to
    /// tell.
    pub(in crate::broker) fn of_topic(
        shared: &Shared,
        start: StartAt,
        tags: &[Tag],
        topic: &Topic,
        state: &Arc<TopicState>,
        log: Option<&Log>,
    ) -> Self {
        let Some(log) = log else {
            return Self::without_history(start);
        };
        // Of lives that the topic had before this one; few have to ask.
        let forgotten = || {
            let history = &shared.history;
            history.forgotten(|it, gone| it == topic && gone.newest <= log.born())
        };
        let (next, gone) = begin_in(shared, start, tags, state.epoch, (log, &forgotten));
        let is_anything = next <= log.pushed() || !gone.is_none();
        let topics = Topics::One {
            state: Arc::clone(state),
            next,
        };
        Self {
            replay: is_anything
                .then(|| Box::new(Replay::new(topics, Asked::After, as_wanted(gone, tags)))),
            // To go on from after a gap that has not been told would be never to be told it.
            cursor: gone.is_none().then(|| match start {
                // Its own position is known even where the message is gone.
                StartAt::After(cursor)
                    if cursor.epoch == state.epoch && cursor.sequence == Sequence(next - 1) =>
                {
                    cursor
                }
                _ => Cursor {
                    epoch: state.epoch,
                    position: log.position_before(next),
                    sequence: Sequence(next - 1),
                },
            }),
        }
    }

    /// A subscription to all that its filters match, which is registered by now; `these` are all of it, if
    /// they are.
    pub(in crate::broker) fn of_many(
        shared: &Shared,
        start: StartAt,
        subscriber: &Subscriber,
        these: Option<Vec<Arc<TopicState>>>,
    ) -> Self {
        let many = match these {
            Some(topics) => Many::These(topics.into()),
            None => Many::Matching(subscriber.filters.clone()),
        };
        let history = &shared.history;
        let (head, stamp) = (history.head(), history.figures.stamp());
        let kept = Asked::Kept { head, stamp };
        let (asked, position, gone) = match start {
            StartAt::Now | StartAt::All => (kept, Some(Position(0)), Gap::NONE),
            StartAt::Last(count) => {
                let (position, gone) = last_of(shared, count, subscriber, &many, head);
                (kept, Some(position), gone)
            }
            StartAt::After(cursor) if is_ours(shared, cursor) => {
                (Asked::After, Some(cursor.position), Gap::NONE)
            }
            StartAt::After(_) => (kept, None, Gap::UNKNOWN),
            StartAt::Since(at) => (Asked::Since { head, at }, None, Gap::NONE),
        };
        let is_kept = |topic: Arc<TopicState>| {
            let live = topic.look();
            live.log.as_ref().is_some_and(|log| !log.is_empty())
        };
        let is_anything_kept = matches!(start, StartAt::All) && many.topics(shared).any(is_kept);
        let topics = Topics::Many(many);
        let gone = as_wanted(gone, &subscriber.tags);
        let mut replay = Replay::new(topics, asked, gone);
        replay.begin_after(position.unwrap_or_default());
        let place = match start {
            // To ask for all again would be to be told nothing of what was given up meanwhile. Where there is
            // something, its messages say where to go on.
            StartAt::All => (!is_anything_kept).then_some(head),
            StartAt::Since(_) => None,
            _ => position.filter(|_| gone.is_none()),
        };
        Self {
            replay: Some(Box::new(replay)),
            cursor: place.map(|place| shared.cursor_at(place)),
        }
    }
}

impl Shared {
    /// The place of a reader of many topics.
    pub(in crate::broker) fn cursor_at(&self, position: Position) -> Cursor {
        Cursor {
            epoch: self.topics.own_epoch(),
            position,
            sequence: Sequence(0),
        }
    }
}

/// Whether this life of the broker gave the cursor out.
fn is_ours(shared: &Shared, cursor: Cursor) -> bool {
    shared.topics.has_minted(cursor.epoch) && cursor.position <= shared.history.head()
}

/// From which sequence of a topic on, and what is gone before that and is not counted by it.
fn begin_in(
    shared: &Shared,
    start: StartAt,
    tags: &[Tag],
    epoch: Epoch,
    (log, forgotten): (&Log, &dyn Fn() -> Option<GivenUp>),
) -> (u64, Gap) {
    let (first, pushed) = (log.first_sequence(), log.pushed());
    match start {
        StartAt::Now => (pushed + 1, Gap::NONE),
        StartAt::All => (first, Gap::NONE),
        StartAt::Last(count) => {
            let wants =
                |tag: Option<&Tag>| tags.is_empty() || tag.is_some_and(|t| tags.contains(t));
            let (next, found) = log.first_of_last(count, wants);
            (next, Gap::exactly((count - found).min(first - 1)))
        }
        StartAt::After(cursor) => {
            if !is_ours(shared, cursor) {
                return (first, Gap::UNKNOWN);
            }
            let Cursor {
                position, sequence, ..
            } = cursor;
            if cursor.epoch == epoch {
                // Made up where it is ahead of the topic.
                let is_made_up = sequence.0 > pushed;
                return if is_made_up {
                    (first, Gap::UNKNOWN)
                } else {
                    (sequence.0 + 1, Gap::NONE)
                };
            }
            if position < log.born() {
                let is_any = forgotten().is_some_and(|gone| gone.newest > position);
                return (1, if is_any { Gap::UNKNOWN } else { Gap::NONE });
            }
            match log.given_up() {
                Some(given_up) if given_up.newest > position => (first, Gap::at_least(1)),
                _ => (log.first_after(position), Gap::NONE),
            }
        }
        StartAt::Since(at) => (log.first_since(at), gone_since(at, log, forgotten)),
    }
}

fn gone_since(at: SystemTime, log: &Log, forgotten: &dyn Fn() -> Option<GivenUp>) -> Gap {
    let mut gone = match log.given_up() {
        Some(given_up) if given_up.earliest >= at => Gap::exactly(log.first_sequence() - 1),
        Some(given_up) if given_up.latest >= at => Gap::at_least(1),
        _ => Gap::NONE,
    };
    let earliest_given_up = log.given_up().map(|given_up| given_up.earliest);
    let earliest_kept = log.from(0).next().map(|kept| kept.delivery.published_at);
    let earliest = earliest_given_up.or(earliest_kept);
    // An earlier life of the topic may have ended since.
    if earliest.is_none_or(|earliest| earliest >= at)
        && forgotten().is_some_and(|gone| gone.latest >= at)
    {
        gone += Gap::UNKNOWN;
    }
    gone
}

/// The position before the newest `count` messages that match and were kept up to `head`, and what is known
/// to be gone of them; before all that is kept where that is fewer.
fn last_of(
    shared: &Shared,
    count: u64,
    subscriber: &Subscriber,
    many: &Many,
    head: Position,
) -> (Position, Gap) {
    if count == 0 {
        return (head, Gap::NONE);
    }
    let mut newest = BinaryHeap::new();
    let mut given_up = Vec::new();
    for topic in many.topics(shared) {
        let live = topic.look();
        let Some(log) = &live.log else { continue };
        given_up.extend(
            log.given_up()
                .map(|gone| (gone.newest, log.first_sequence() - 1)),
        );
        let wanted = log.from(0).rev().filter(|kept| {
            kept.position <= head && subscriber.wants(kept.delivery.message.tag.as_ref())
        });
        for kept in wanted {
            if newest.len() as u64 == count {
                if newest
                    .peek()
                    .is_some_and(|Reverse(oldest)| *oldest >= kept.position)
                {
                    break;
                }
                newest.pop();
            }
            newest.push(Reverse(kept.position));
        }
    }
    let before = newest
        .peek()
        .map_or(head, |Reverse(oldest)| Position(oldest.0 - 1));
    let is_asked = |topic: &Topic, _: &GivenUp| subscriber.filters.matches(topic);
    let forgotten = shared.history.forgotten(is_asked);
    let lacking = count - newest.len() as u64;
    if lacking > 0 {
        let gone = given_up.iter().map(|(_, messages)| messages).sum::<u64>();
        let unknown = if forgotten.is_some() {
            Gap::UNKNOWN
        } else {
            Gap::NONE
        };
        return (before, Gap::exactly(gone.min(lacking)) + unknown);
    }
    let gone = if given_up.iter().any(|(newest, _)| *newest > before) {
        Gap::at_least(1)
    } else if forgotten.is_some_and(|gone| gone.newest > before) {
        Gap::UNKNOWN
    } else {
        Gap::NONE
    };
    (before, gone)
}
