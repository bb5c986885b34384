//! Windows for what peers send: what is out of the way is given back, so that they can send for ever.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn padded(stream: u32, content: usize, padding: u8) -> Vec<u8> {
    let zeros = vec![0; content + usize::from(padding)];
    frame(
        kind::DATA,
        flag::PADDED,
        stream,
        &[&[padding], zeros.as_slice()].concat(),
    )
}

/// What each window was opened by.
fn opened(heard: &[Frame]) -> BTreeMap<u32, u32> {
    let mut opened = BTreeMap::new();
    for frame in heard {
        assert_eq!(frame.kind, kind::WINDOW_UPDATE);
        *opened.entry(frame.stream).or_default() += frame.number();
    }
    opened
}

#[test]
fn a_window_is_opened_by_half_of_it_once_that_is_read() {
    let mut peer = Peer::new();
    let (inbound, _outbound) = peer.begin(&headers(1));
    peer.say(&data(1, &[0; 9_999]));
    assert_eq!(peer.hear(), [], "nothing was read");
    read(&inbound);
    assert_eq!(peer.hear(), [], "less than half");
    peer.say(&data(1, &[0; 1]));
    read(&inbound);
    check_frames(&peer.hear(), &[window_update(1, 10_000)]);
    for _ in 0..2 {
        peer.say(&[data(1, &[0; 10_000]), data(1, &[0; 10_000])].concat());
        read(&inbound);
        let heard = peer.hear();
        assert_eq!(heard.first().map(|frame| frame.stream), Some(1));
        assert_eq!(opened(&heard)[&1], 20_000);
    }
    assert_eq!(peer.connection.window(), (CONNECTION_WINDOW.into(), 0));
}

/// A connection's window is what it is by the RFC before anything else can be said, and only grows.
#[test]
fn a_connection_s_window_may_be_smaller_than_it_is_at_first() {
    for window in [0, 1, 2, 10_000, 65_534, 65_535, 65_536] {
        let mut peer = Peer::with(Config {
            connection_window_bytes: window,
            stream_window_bytes: 1 << 20,
            ..CONFIG
        });
        let (inbound, _outbound) = peer.begin(&headers(1));
        // What the peer may send, as it knows it.
        let mut open = 65_535 + u32::from(window == 65_536);
        for at in 0.. {
            let bytes = open.min(5_000) as usize;
            if at == 30 || bytes == 0 {
                break;
            }
            peer.say(&data(1, &vec![0; bytes]));
            read(&inbound);
            open -= bytes as u32;
            let more = opened(&peer.hear()).get(&0).copied();
            assert_ne!(more, Some(0));
            open += more.unwrap_or_default();
            let (receive_window, unsaid) = peer.connection.window();
            assert_eq!(receive_window, i64::from(open));
            assert_eq!(receive_window + unsaid, i64::from(window));
        }
        assert_eq!(open == 0, window == 0);
        if window > 0 {
            assert!((window / 2..=window).contains(&open), "{open} of {window}");
        }
        while open > 0 {
            let bytes = open.min(16_000);
            peer.say(&data(1, &vec![0; bytes as usize]));
            open -= bytes;
        }
        let failure = peer.try_say(&data(1, &[0])).unwrap_err();
        assert_eq!(failure.reason, Reason::FLOW_CONTROL_ERROR);
    }
}

#[test]
fn no_stream_s_window_is_opened_where_nothing_more_is_to_come() {
    let mut peer = Peer::new();
    let (inbound, _outbound) = peer.begin(&headers(1));
    peer.say(&[data(1, &[0; 10_000]), last_data(1, &[0; 10_000])].concat());
    assert_eq!(read(&inbound).0.len(), 20_000);
    assert_eq!(peer.hear(), []);
    assert_eq!(peer.connection.window(), (50_000, 20_000));
}

#[test]
fn padding_is_given_back_though_there_is_nothing_to_read() {
    let mut peer = Peer::new();
    let _halves = peer.begin(&headers(1));
    let mut window = i64::from(STREAM_WINDOW);
    for _ in 0..1_000 {
        window -= 256;
        assert!(window >= 0);
        peer.say(&padded(1, 0, 255));
        window += i64::from(opened(&peer.hear()).get(&1).copied().unwrap_or_default());
    }
}

#[test]
fn what_nobody_reads_is_given_back_to_the_connection() {
    let mut peer = Peer::new();
    // One that is reset, and one whose answer goes on though its request is of no interest.
    drop(peer.begin(&headers(1)));
    let (inbound, _outbound) = peer.begin(&headers(3));
    peer.say(&data(3, &[0; 5_000]));
    drop(inbound);
    peer.hear();
    assert_eq!(peer.connection.window(), (65_000, 5_000));
    peer.say(&data(3, &[0; 10_000]));
    for stream in (5..105).step_by(2) {
        drop(peer.begin(&headers(stream)));
        // All that its window lets out.
        peer.say(&data(stream, &[0; 10_000]));
        peer.say(&data(stream, &[0; 10_000]));
    }
    let mut heard = peer.hear();
    heard.retain(|frame| frame.kind != kind::RST_STREAM);
    let opened = opened(&heard);
    assert_eq!(opened.keys().copied().collect::<Vec<_>>(), [0]);
    let (window, unsaid) = peer.connection.window();
    assert_eq!(window + unsaid, i64::from(CONNECTION_WINDOW));
}

#[derive(Clone, Debug)]
enum Op {
    Open {
        length: Option<u16>,
    },
    Data {
        stream: usize,
        bytes: u16,
        padding: Option<u8>,
        is_last: bool,
        cut: u8,
    },
    Trailers(usize),
    Reset(usize),
    Read(usize),
    Ignore(usize),
    Answer(usize),
    Drop(usize),
}

fn op() -> impl Strategy<Value = Op> {
    let at = || 0..4_usize;
    let bytes = prop_oneof![0..10_u16, 0..16_000_u16, Just(16_000)];
    prop_oneof![
        3 => prop::option::weighted(0.2, 0..40_000_u16).prop_map(|length| Op::Open { length }),
        10 => (at(), bytes, any::<Option<u8>>(), prop::bool::weighted(0.05), any::<u8>()).prop_map(
            |(stream, bytes, padding, is_last, cut)| Op::Data { stream, bytes, padding, is_last, cut }
        ),
        1 => at().prop_map(Op::Trailers),
        1 => at().prop_map(Op::Reset),
        6 => at().prop_map(Op::Read),
        1 => at().prop_map(Op::Ignore),
        1 => at().prop_map(Op::Answer),
        1 => at().prop_map(Op::Drop),
    ]
}

/// A stream as its peer knows it, and its halves.
struct Stream {
    id: u32,
    window: i64,
    /// The peer has said its last.
    has_ended: bool,
    inbound: Option<Inbound>,
    outbound: Option<Outbound>,
}

/// A peer that keeps to its windows.
struct Honest {
    peer: Peer,
    window: i64,
    streams: Vec<Stream>,
    next: u32,
}

impl Honest {
    fn new() -> Self {
        Self {
            peer: Peer::new(),
            window: CONNECTION_WINDOW.into(),
            streams: Vec::new(),
            next: 1,
        }
    }

    fn hear(&mut self) {
        for frame in self.peer.hear() {
            let stream = self
                .streams
                .iter_mut()
                .find(|stream| stream.id == frame.stream);
            match (frame.kind, stream) {
                (kind::WINDOW_UPDATE, None) => {
                    assert_eq!(frame.stream, 0);
                    self.window += i64::from(frame.number());
                }
                (kind::WINDOW_UPDATE, Some(stream)) => stream.window += i64::from(frame.number()),
                (kind::RST_STREAM, _) => {
                    let reason = Reason(frame.number());
                    // It goes on all the same: that may have been on its way.
                    assert_ne!(
                        reason,
                        Reason::FLOW_CONTROL_ERROR,
                        "it has kept to its windows"
                    );
                }
                (kind::HEADERS, _) => {}
                (other, _) => panic!("a frame of kind {other}"),
            }
        }
        assert!(self.window <= CONNECTION_WINDOW.into());
        for stream in &self.streams {
            assert!(stream.window <= STREAM_WINDOW.into());
        }
    }

    fn open(&mut self, length: Option<u16>) {
        if self.peer.connection.open_streams() >= STREAMS_MAX {
            return;
        }
        let mut block = POST.to_vec();
        if let Some(length) = length {
            block.extend(field("content-length", &length.to_string()));
        }
        let head = frame(kind::HEADERS, flag::END_HEADERS, self.next, &block);
        let (inbound, outbound) = self.peer.begin(&head);
        let stream = Stream {
            id: self.next,
            window: STREAM_WINDOW.into(),
            has_ended: false,
            inbound: Some(inbound),
            outbound: Some(outbound),
        };
        self.next += 2;
        self.streams.insert(0, stream);
        self.streams.truncate(4);
    }

    /// Sends as much as the windows let out, in two pieces.
    fn send(&mut self, at: usize, bytes: u16, padding: Option<u8>, is_last: bool, cut: u8) {
        let Some(stream) = self.streams.get_mut(at) else {
            return;
        };
        let overhead = padding.map_or(0, |padding| 1 + i64::from(padding));
        let most = self.window.min(stream.window) - overhead;
        if stream.has_ended || most < 0 {
            return;
        }
        let bytes = i64::from(bytes).min(most);
        self.window -= bytes + overhead;
        stream.window -= bytes + overhead;
        stream.has_ended = is_last;
        let content = bytes as usize;
        let mut said = match padding {
            Some(padding) => padded(stream.id, content, padding),
            None => data(stream.id, &vec![0; content]),
        };
        said[4] |= u8::from(is_last);
        let (first, rest) = said.split_at(said.len() * usize::from(cut) / 255);
        self.peer.say(first);
        if cut.is_multiple_of(2)
            && let Some(inbound) = &stream.inbound
        {
            read(inbound);
        }
        self.peer.say(rest);
    }

    fn act(&mut self, op: &Op) {
        let count = self.streams.len().max(1);
        match *op {
            Op::Open { length } => self.open(length),
            Op::Data {
                stream,
                bytes,
                padding,
                is_last,
                cut,
            } => self.send(stream % count, bytes, padding, is_last, cut),
            Op::Trailers(stream) => {
                if let Some(stream) = self.streams.get_mut(stream % count)
                    && !stream.has_ended
                {
                    stream.has_ended = true;
                    self.peer.say(&trailers(stream.id));
                }
            }
            Op::Reset(stream) => {
                if let Some(stream) = self.streams.get_mut(stream % count) {
                    stream.has_ended = true;
                    self.peer.say(&reset(stream.id, Reason::CANCEL));
                }
            }
            Op::Read(stream) => {
                if let Some(inbound) = self.inbound(stream % count) {
                    read(inbound);
                }
            }
            Op::Ignore(stream) => {
                if let Some(stream) = self.streams.get_mut(stream % count) {
                    stream.inbound = None;
                }
            }
            Op::Answer(stream) => {
                let stream = self.streams.get_mut(stream % count);
                if let Some(mut outbound) = stream.and_then(|stream| stream.outbound.take()) {
                    send_head(&mut outbound, true).ok();
                }
            }
            Op::Drop(stream) => {
                if stream < self.streams.len() {
                    self.streams.remove(stream);
                }
            }
        }
    }

    fn inbound(&self, at: usize) -> Option<&Inbound> {
        self.streams.get(at)?.inbound.as_ref()
    }

    /// Once all that came is read, at least half of each window is open.
    fn check_open(&self) {
        for stream in &self.streams {
            let Some(inbound) = &stream.inbound else {
                continue;
            };
            let (_, ended) = read(inbound);
            let (window, unsaid) = self.peer.connection.stream_window(stream.id).unwrap();
            if ended.is_none() {
                assert_eq!(window + i64::from(unsaid), i64::from(STREAM_WINDOW));
                assert!(unsaid < STREAM_WINDOW / 2);
            }
        }
        let (window, unsaid) = self.peer.connection.window();
        assert_eq!(window + unsaid, i64::from(CONNECTION_WINDOW));
        assert!(unsaid < i64::from(CONNECTION_WINDOW / 2));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_peer_that_keeps_to_its_windows_can_send_for_ever(
        ops in prop::collection::vec(op(), 0..200),
    ) {
        let mut honest = Honest::new();
        for op in &ops {
            honest.act(op);
            honest.hear();
            let (window, _) = honest.peer.connection.window();
            prop_assert_eq!(window, honest.window);
        }
        honest.check_open();
        honest.hear();
        let connection = &honest.peer.connection;
        honest.streams.clear();
        prop_assert!(connection.is_empty());
        let (window, unsaid) = connection.window();
        prop_assert_eq!(window + unsaid, i64::from(CONNECTION_WINDOW));
    }
}

#[test]
fn data_for_streams_that_are_over_comes_as_far_as_their_windows_went() {
    let mut peer = Peer::new();
    // One that was read a little of, one that was refused, and one that the peer has ended itself.
    let (inbound, outbound) = peer.begin(&[headers(1), data(1, &[0; 1_000])].concat());
    drop((inbound, outbound));
    peer.say(&frame(kind::HEADERS, flag::END_HEADERS, 3, &[0x82]));
    let (inbound, outbound) = peer.begin(&last_headers(5));
    drop((inbound, outbound));
    let left = 2 * STREAM_WINDOW as usize - 1_000;
    let mut sent = 0;
    for piece in [5_000; 7].into_iter().chain([left - 35_000]) {
        peer.say(&data([1, 3][sent % 2], &vec![0; piece]));
        sent += piece;
    }
    assert_eq!(sent, left);
    let failure = peer.try_say(&data(1, b"x")).unwrap_err();
    assert_eq!(failure.reason, Reason::STREAM_CLOSED);
}

#[test]
fn padding_moves_nothing_on() {
    let padded = |stream| frame(kind::DATA, flag::PADDED, stream, &[100; 101]);
    let mut peer = Peer::new();
    let _request = peer.begin(&headers(1));
    let flood = (0..10_000).find_map(|_| peer.try_say(&padded(1)).err());
    assert!(flood.expect("it ends at some time").is_flood());
}
