//! What a publisher has sent and not been answered yet: plain data, which decides what may be sent
//! next and what an answer means.
//!
//! Invariants: positions up to `answered.position` are answered, those after it up to the last one sent
//! are not; `accepted + rejected = answered.position`; each rejection is told once, by the message's
//! ticket or in the list, or counted as missed. An answer that contradicts what was sent changes nothing.

use std::{collections::VecDeque, fmt, ops::Range};

use tokio::sync::oneshot;
use tonic::Code;

use super::{
    convert::Malformed,
    error::{PublisherError, TicketError},
    options::{PublisherOptions, REJECTIONS_KEPT_MAX},
};
use crate::wire::pb;

/// A message's place among those that its publisher sent. The first is 1, and there are no gaps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Position(pub u64);

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What became of the messages that the broker has answered, since the publisher began. The sums leave
/// the rejected ones out, and `matched = delivered + dropped`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answered {
    /// All messages up to this one are answered; 0 while none is.
    pub position: Position,
    /// How many of them were published.
    pub accepted: u64,
    /// How many of them were not.
    pub rejected: u64,
    /// How many subscriptions they matched; a group counts once for each message.
    pub matched: u64,
    /// How many mailboxes took them.
    pub delivered: u64,
    /// How many subscriptions lost them, because their mailbox had no room.
    pub dropped: u64,
    /// How many older messages were lost to make room for them.
    pub displaced: u64,
}

/// A message that the broker did not publish; the publisher goes on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the broker rejected message {position}: {message} ({code:?})")]
pub struct Rejection {
    /// Which message.
    pub position: Position,
    /// The status that [`Client::publish`](super::Client::publish) would have failed with.
    pub code: Code,
    /// Why, with limit and value.
    pub message: String,
    /// The field at fault, by its name in the proto, if it is one field.
    pub field: Option<String>,
}

impl Rejection {
    /// Whether the same message can be published later, and without the risk of a duplicate: it was
    /// not published.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self.code, Code::Unavailable | Code::DeadlineExceeded)
    }
}

impl From<pb::Rejection> for Rejection {
    fn from(rejection: pb::Rejection) -> Self {
        Self {
            position: Position(rejection.position),
            code: Code::from_i32(rejection.code),
            message: rejection.message,
            field: (!rejection.field.is_empty()).then_some(rejection.field),
        }
    }
}

/// Rejections in the order of their positions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rejections {
    /// The rejections since they were taken last, [`REJECTIONS_KEPT_MAX`] at most; without those that a
    /// [`Ticket`](super::Ticket) has told.
    pub list: Vec<Rejection>,
    /// How many came after those in the list and were not kept, because nobody took them.
    pub missed: u64,
}

pub(super) type TicketSender = oneshot::Sender<Result<(), TicketError>>;
pub(super) type TicketReceiver = oneshot::Receiver<Result<(), TicketError>>;

#[derive(Debug)]
pub(super) struct InFlight {
    options: PublisherOptions,
    /// Of each message that is not answered, in order.
    sizes: VecDeque<u32>,
    bytes: usize,
    answered: Answered,
    rejections: Rejections,
    /// Of messages that are not answered, in order; only of those that somebody wants to hear of.
    tickets: VecDeque<(Position, TicketSender)>,
}

impl InFlight {
    pub(super) fn new(options: PublisherOptions) -> Self {
        Self {
            options,
            sizes: VecDeque::new(),
            bytes: 0,
            answered: Answered::default(),
            rejections: Rejections::default(),
            tickets: VecDeque::new(),
        }
    }

    /// Whether a message of this size may go out now. Whatever the bounds, one may at a time.
    pub(super) fn has_room(&self, bytes: u32) -> bool {
        self.sizes.is_empty()
            || self.sizes.len() < self.options.messages_in_flight_max
                && self.bytes.saturating_add(bytes as usize) <= self.options.bytes_in_flight_max
    }

    pub(super) fn push(&mut self, bytes: u32) -> Position {
        self.sizes.push_back(bytes);
        self.bytes += bytes as usize;
        self.sent()
    }

    /// Lets somebody hear of the message that was pushed last.
    pub(super) fn track(&mut self) -> TicketReceiver {
        let (sender, receiver) = oneshot::channel();
        self.tickets.push_back((self.sent(), sender));
        receiver
    }

    /// The position of the message that was pushed last.
    pub(super) fn sent(&self) -> Position {
        Position(self.answered.position.0 + self.sizes.len() as u64)
    }

    pub(super) fn answered(&self) -> Answered {
        self.answered
    }

    pub(super) fn unanswered(&self) -> Range<Position> {
        Position(self.answered.position.0 + 1)..Position(self.sent().0 + 1)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sizes.is_empty()
    }

    pub(super) fn take_rejections(&mut self) -> Rejections {
        std::mem::take(&mut self.rejections)
    }

    pub(super) fn answer(&mut self, response: pb::PublishStreamResponse) -> Result<(), Malformed> {
        self.check(&response)?;
        let count = response.position - self.answered.position.0;
        let rejected = response.rejections.len() as u64;
        for bytes in self.sizes.drain(..count as usize) {
            self.bytes -= bytes as usize;
        }
        let answered = &mut self.answered;
        answered.position = Position(response.position);
        answered.accepted += count - rejected;
        answered.rejected += rejected;
        for (sum, more) in [
            (&mut answered.matched, response.matched),
            (&mut answered.delivered, response.delivered),
            (&mut answered.dropped, response.dropped),
            (&mut answered.displaced, response.displaced),
        ] {
            *sum = sum.saturating_add(more);
        }
        for rejection in response.rejections {
            self.reject(rejection.into());
        }
        self.accept_before(Position(response.position + 1));
        Ok(())
    }

    /// Tells all who still wait that there will be no answer.
    pub(super) fn end(&mut self, error: &PublisherError) {
        for (_, ticket) in std::mem::take(&mut self.tickets) {
            tell(ticket, Err(TicketError::Unanswered(error.clone())));
        }
    }

    fn check(&self, response: &pb::PublishStreamResponse) -> Result<(), Malformed> {
        let (from, sent) = (self.answered.position.0, self.sent().0);
        let position = response.position;
        if !(from..=sent).contains(&position) {
            let reason = format_args!("{position} is not within {from} to {sent}");
            return Err(Malformed::new("position", reason));
        }
        let mut last = from;
        for rejection in &response.rejections {
            let at = rejection.position;
            if at <= last || at > position {
                let reason = format_args!("{at} is not within {} to {position}", last + 1);
                return Err(Malformed::new("rejections", reason));
            }
            last = at;
        }
        Ok(())
    }

    fn reject(&mut self, rejection: Rejection) {
        self.accept_before(rejection.position);
        let untold = match self.ticket_before(Position(rejection.position.0 + 1)) {
            None => rejection,
            Some(ticket) => match ticket.send(Err(TicketError::Rejected(rejection))) {
                Err(Err(TicketError::Rejected(untold))) => untold,
                _ => return,
            },
        };
        if self.rejections.list.len() < REJECTIONS_KEPT_MAX {
            self.rejections.list.push(untold);
        } else {
            self.rejections.missed += 1;
        }
    }

    fn accept_before(&mut self, position: Position) {
        while let Some(ticket) = self.ticket_before(position) {
            tell(ticket, Ok(()));
        }
    }

    /// The oldest ticket, if its message is one before `position`.
    fn ticket_before(&mut self, position: Position) -> Option<TicketSender> {
        let (at, _) = self.tickets.front()?;
        (*at < position)
            .then(|| self.tickets.pop_front())?
            .map(|(_, ticket)| ticket)
    }
}

/// Whoever has dropped a ticket does not want to hear.
fn tell(ticket: TicketSender, outcome: Result<(), TicketError>) {
    drop(ticket.send(outcome));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_flight(messages: usize, bytes: usize) -> InFlight {
        InFlight::new(PublisherOptions {
            messages_in_flight_max: messages,
            bytes_in_flight_max: bytes,
        })
    }

    fn answer(position: u64, rejected: &[u64]) -> pb::PublishStreamResponse {
        let rejections = rejected.iter().map(|position| pb::Rejection {
            position: *position,
            code: 3,
            message: "no".into(),
            field: "topic".into(),
        });
        pb::PublishStreamResponse {
            position,
            rejections: rejections.collect(),
            ..Default::default()
        }
    }

    fn positions(rejections: &Rejections) -> Vec<u64> {
        rejections.list.iter().map(|r| r.position.0).collect()
    }

    /// Sends messages of these sizes for as long as there is room.
    #[track_caller]
    fn check_room(messages: usize, bytes: usize, sizes: &[u32], expected: usize) {
        let mut in_flight = in_flight(messages, bytes);
        let fits = sizes.iter().take_while(|size| {
            let fits = in_flight.has_room(**size);
            if fits {
                in_flight.push(**size);
            }
            fits
        });
        assert_eq!(fits.count(), expected, "{messages} {bytes} {sizes:?}");
    }

    #[test]
    fn messages_and_bytes_in_flight_are_bounded_but_one_message_may_always_go() {
        check_room(3, 100, &[1; 10], 3);
        check_room(100, 10, &[4; 10], 2);
        check_room(100, 10, &[4, 6, 1], 2);
        check_room(100, 10, &[11, 1], 1);
        check_room(100, usize::MAX, &[u32::MAX; 9], 9);
        check_room(0, 0, &[5, 5], 1);
    }

    #[test]
    fn an_answer_makes_room_and_counts() {
        let mut in_flight = in_flight(4, 100);
        for position in 1..=4 {
            assert_eq!(in_flight.push(25), Position(position));
        }
        assert!(!in_flight.has_room(1));
        let sums = pb::PublishStreamResponse {
            matched: 6,
            delivered: 5,
            dropped: 1,
            displaced: 2,
            ..answer(3, &[2])
        };
        in_flight.answer(sums).unwrap();
        assert_eq!(in_flight.unanswered(), Position(4)..Position(5));
        assert!(in_flight.has_room(75) && !in_flight.has_room(76));
        let expected = Answered {
            position: Position(3),
            accepted: 2,
            rejected: 1,
            matched: 6,
            delivered: 5,
            dropped: 1,
            displaced: 2,
        };
        assert_eq!(in_flight.answered(), expected);
        in_flight.answer(answer(4, &[])).unwrap();
        assert!(in_flight.is_empty() && in_flight.unanswered().is_empty());
        assert_eq!(in_flight.answered().accepted, 3);
        let rejections = in_flight.take_rejections();
        assert_eq!((positions(&rejections), rejections.missed), (vec![2], 0));
        assert_eq!(
            rejections.list[0].to_string(),
            "the broker rejected message 2: no (InvalidArgument)"
        );
        assert_eq!(rejections.list[0].field.as_deref(), Some("topic"));
        assert_eq!(in_flight.take_rejections(), Rejections::default());
    }

    /// After 9 messages of which 4 are answered.
    #[track_caller]
    fn check_malformed(position: u64, rejected: &[u64], expected: &str) {
        let mut in_flight = in_flight(100, 100);
        for _ in 0..9 {
            in_flight.push(1);
        }
        in_flight.answer(answer(4, &[])).unwrap();
        let before = in_flight.answered();
        let error = in_flight.answer(answer(position, rejected)).unwrap_err();
        assert_eq!(error.to_string(), expected);
        assert_eq!(in_flight.answered(), before);
        assert_eq!(in_flight.unanswered(), Position(5)..Position(10));
        assert_eq!(in_flight.take_rejections(), Rejections::default());
    }

    #[test]
    fn an_answer_that_contradicts_what_was_sent_changes_nothing() {
        check_malformed(3, &[], "position: 3 is not within 4 to 9");
        check_malformed(10, &[], "position: 10 is not within 4 to 9");
        check_malformed(
            u64::MAX,
            &[],
            "position: 18446744073709551615 is not within 4 to 9",
        );
        check_malformed(9, &[4], "rejections: 4 is not within 5 to 9");
        check_malformed(7, &[5, 8], "rejections: 8 is not within 6 to 7");
        check_malformed(9, &[6, 6], "rejections: 6 is not within 7 to 9");
        check_malformed(9, &[7, 6], "rejections: 6 is not within 8 to 9");
    }

    #[test]
    fn sums_beyond_counting_do_not_panic() {
        let mut in_flight = in_flight(9, 9);
        for position in 1..=2 {
            in_flight.push(1);
            let extreme = pb::PublishStreamResponse {
                matched: u64::MAX,
                ..answer(position, &[])
            };
            in_flight.answer(extreme).unwrap();
        }
        assert_eq!(in_flight.answered().matched, u64::MAX);
    }

    #[test]
    fn a_rejection_is_told_once_by_its_ticket_or_in_the_list() {
        let mut in_flight = in_flight(100, 100);
        let mut tickets = Vec::new();
        for position in 1..=8 {
            in_flight.push(1);
            if position % 2 == 0 {
                tickets.push(in_flight.track());
            }
        }
        // Nobody waits for message 6 any more.
        drop(tickets.remove(2));
        in_flight.answer(answer(7, &[3, 4, 6])).unwrap();
        assert_eq!(positions(&in_flight.take_rejections()), [3, 6]);
        let error = PublisherError::Malformed(Malformed::new("position", "x"));
        in_flight.end(&error);
        let outcomes: Vec<_> = tickets
            .iter_mut()
            .map(|ticket| ticket.try_recv().unwrap().map_err(|e| e.to_string()))
            .collect();
        let expected = [
            Ok(()),
            Err("the broker rejected message 4: no (InvalidArgument)".to_owned()),
            Err("the message was not answered".to_owned()),
        ];
        assert_eq!(outcomes, expected);
    }

    #[test]
    fn rejections_that_nobody_takes_are_counted() {
        let mut in_flight = in_flight(usize::MAX, usize::MAX);
        let count = REJECTIONS_KEPT_MAX as u64 + 5;
        for _ in 0..count {
            in_flight.push(1);
        }
        let all: Vec<_> = (1..=count).collect();
        in_flight.answer(answer(count, &all)).unwrap();
        let rejections = in_flight.take_rejections();
        assert_eq!(positions(&rejections), all[..REJECTIONS_KEPT_MAX]);
        assert_eq!(rejections.missed, 5);
        assert_eq!(in_flight.answered().rejected, count);
    }
}
