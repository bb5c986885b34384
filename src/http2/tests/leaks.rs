//! Whatever becomes of streams, nothing is left of them once nobody holds their halves.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Copy, Debug)]
enum Op {
    Begin {
        is_last: bool,
    },
    Data {
        at: usize,
        bytes: u16,
        is_last: bool,
    },
    Trailers {
        at: usize,
        is_last: bool,
    },
    PeerReset(usize),
    Window(u16),
    InitialWindow(u16),
    Leave,
    Goaway,
    Flush,
    Read(usize),
    Head {
        at: usize,
        is_whole: bool,
    },
    Send {
        at: usize,
        bytes: u16,
    },
    End {
        at: usize,
        with_trailers: bool,
    },
    Reset(usize),
    DropInbound(usize),
    DropOutbound(usize),
    Fail,
}

fn op() -> impl Strategy<Value = Op> {
    let at = || 0..8_usize;
    prop_oneof![
        8 => any::<bool>().prop_map(|is_last| Op::Begin { is_last }),
        8 => (at(), 0..10_000_u16, any::<bool>())
            .prop_map(|(at, bytes, is_last)| Op::Data { at, bytes, is_last }),
        2 => (at(), any::<bool>()).prop_map(|(at, is_last)| Op::Trailers { at, is_last }),
        2 => at().prop_map(Op::PeerReset),
        1 => any::<u16>().prop_map(|bytes| Op::Window(bytes.max(1))),
        1 => any::<u16>().prop_map(Op::InitialWindow),
        1 => Just(Op::Leave),
        1 => Just(Op::Goaway),
        4 => Just(Op::Flush),
        6 => at().prop_map(Op::Read),
        4 => (at(), any::<bool>()).prop_map(|(at, is_whole)| Op::Head { at, is_whole }),
        6 => (at(), any::<u16>()).prop_map(|(at, bytes)| Op::Send { at, bytes }),
        3 => (at(), any::<bool>())
            .prop_map(|(at, with_trailers)| Op::End { at, with_trailers }),
        2 => at().prop_map(Op::Reset),
        4 => at().prop_map(Op::DropInbound),
        4 => at().prop_map(Op::DropOutbound),
        1 => prop::bool::weighted(0.1).prop_map(|fails| if fails { Op::Fail } else { Op::Flush }),
    ]
}

#[derive(Default)]
struct Halves {
    id: u32,
    inbound: Option<Inbound>,
    outbound: Option<Outbound>,
    /// Nothing may be answered after the end of an answer.
    has_ended: bool,
}

#[derive(Default)]
struct Held {
    streams: Vec<Halves>,
    next: u32,
}

impl Held {
    /// The answer's half of a stream, if it has not said its last.
    fn outbound(&mut self, at: usize, is_last: bool) -> Option<&mut Outbound> {
        let halves = self.streams.get_mut(at)?;
        if halves.has_ended {
            return None;
        }
        halves.has_ended |= is_last;
        halves.outbound.as_mut()
    }

    /// What the peer says, if it is its turn.
    fn words(&self, op: Op) -> Option<Vec<u8>> {
        let id = |at: usize| self.streams.get(at).map_or(1, |halves| halves.id);
        let head = |id, is_last| {
            if is_last {
                last_headers(id)
            } else {
                headers(id)
            }
        };
        Some(match op {
            Op::Begin { is_last } => head(self.next + 1, is_last),
            Op::Data { at, bytes, is_last } => {
                frame(kind::DATA, is_last.into(), id(at), &vec![0; bytes.into()])
            }
            Op::Trailers { at, is_last } => head(id(at), is_last),
            Op::PeerReset(at) => reset(id(at), Reason::CANCEL),
            Op::Window(bytes) => window_update(0, bytes.into()),
            Op::InitialWindow(bytes) => settings(&[(INITIAL_WINDOW_SIZE, bytes.into())]),
            Op::Goaway => frame(kind::GOAWAY, 0, 0, &[0; 8]),
            _ => return None,
        })
    }

    fn hear(&mut self, peer: &mut Peer, words: &[u8]) {
        // Some of them are wrong, and nothing is heard once the connection is over.
        peer.try_say(words).ok();
        self.streams
            .extend(peer.requests.drain(..).map(|request| Halves {
                id: peer.connection.last_stream(),
                inbound: Some(request.head.into_body()),
                outbound: Some(request.answer),
                has_ended: false,
            }));
        self.next = peer.connection.last_stream() + 1;
    }

    fn act(&mut self, peer: &mut Peer, op: Op) {
        if let Some(words) = self.words(op) {
            return self.hear(peer, &words);
        }
        match op {
            Op::Leave => peer.connection.leave(),
            Op::Flush => {
                peer.hear();
                peer.connection.sent();
            }
            Op::Fail => peer.connection.fail(Reason::ENHANCE_YOUR_CALM),
            Op::Read(at) => {
                let halves = self.streams.get(at);
                halves.and_then(|halves| halves.inbound.as_ref()).map(read);
            }
            Op::Head { at, is_whole } => {
                let outbound = self.outbound(at, is_whole);
                outbound.map(|outbound| send_head(outbound, is_whole));
            }
            Op::Send { at, bytes } => {
                let outbound = self.outbound(at, false);
                outbound.map(|outbound| poll_send(outbound, &mut vec![0; bytes.into()].into()));
            }
            Op::End { at, with_trailers } => {
                let outbound = self.outbound(at, true);
                outbound.map(|outbound| match with_trailers {
                    true => outbound.send_trailers(&HeaderMap::new()),
                    false => outbound.end(),
                });
            }
            Op::Reset(at) => {
                if let Some(outbound) = self.outbound(at, true) {
                    outbound.reset(Reason::ENHANCE_YOUR_CALM);
                }
            }
            Op::DropInbound(at) => {
                drop(self.streams.get_mut(at).map(|halves| halves.inbound.take()))
            }
            Op::DropOutbound(at) => drop(
                self.streams
                    .get_mut(at)
                    .map(|halves| halves.outbound.take()),
            ),
            _ => {}
        }
        self.streams
            .retain(|halves| halves.inbound.is_some() || halves.outbound.is_some());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn nothing_is_left_once_all_halves_are_gone(
        ops in prop::collection::vec(op(), 0..80),
        backwards in any::<bool>(),
    ) {
        let mut peer = Peer::new();
        let mut held = Held::default();
        for op in ops {
            held.act(&mut peer, op);
            prop_assert!(peer.connection.open_streams() <= STREAMS_MAX);
        }
        if backwards {
            held.streams.reverse();
        }
        drop(held);
        prop_assert_eq!(peer.connection.open_streams(), 0);
        prop_assert_eq!(peer.connection.kept().inbound_bytes, 0);
        prop_assert!(peer.connection.is_empty());
    }
}

#[test]
fn whoever_waits_and_goes_leaves_no_place_in_the_queue() {
    let mut peer = Peer::new();
    let (inbound, mut first) = peer.begin(&headers(1));
    assert!(poll_send(&mut first, &mut vec![0; 100_000].into()).is_pending());
    for id in (3..201).step_by(2) {
        let (_inbound, mut outbound) = peer.begin(&headers(id));
        assert!(poll_send(&mut outbound, &mut Bytes::from_static(b"hello")).is_pending());
        peer.say(&reset(id, Reason::CANCEL));
    }
    drop((first, inbound));
    assert!(peer.connection.is_empty());
}
