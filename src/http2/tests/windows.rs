//! Windows for what is sent: the peer's, and how much may wait to leave.

use proptest::prelude::*;

use super::*;

/// DATA that was heard, by stream, and how large its frames are.
fn heard_data(peer: &mut Peer) -> Vec<(u32, usize)> {
    let heard = peer.hear();
    let data = heard.iter().filter(|frame| frame.kind == kind::DATA);
    data.map(|frame| (frame.stream, frame.payload.len()))
        .collect()
}

const ROOM: usize = UNSENT_MAX - 9;

fn zeros(bytes: usize) -> Bytes {
    Bytes::from(vec![0; bytes])
}

#[test]
fn no_more_is_sent_than_may_wait_to_leave() {
    let mut peer = Peer::new();
    let (_inbound, mut outbound) = peer.begin(&headers(1));
    let mut data = zeros(25_000);
    for sent in [ROOM, ROOM] {
        assert!(poll_send(&mut outbound, &mut data).is_pending());
        assert!(poll_send(&mut outbound, &mut data).is_pending());
        assert_eq!(peer.connection.unsent_bytes(), UNSENT_MAX);
        assert_eq!(heard_data(&mut peer), [(1, sent)]);
        assert!(peer.connection.sent());
        assert!(!peer.connection.sent(), "nobody waits");
    }
    assert!(poll_send(&mut outbound, &mut data).is_ready());
    assert_eq!(heard_data(&mut peer), [(1, 25_000 - 2 * ROOM)]);
    assert!(!peer.connection.sent());
}

#[test]
fn a_stream_s_window_is_kept_to_also_where_it_becomes_negative() {
    let mut peer = Peer::new();
    let window = |bytes| settings(&[(INITIAL_WINDOW_SIZE, bytes)]);
    peer.say(&window(1_000));
    let (_inbound, mut outbound) = peer.begin(&headers(1));
    peer.hear();
    let mut left = zeros(10_000);
    let mut check = |peer: &mut Peer, said: &[u8], sent: &[usize]| {
        peer.say(said);
        assert!(poll_send(&mut outbound, &mut left).is_pending());
        let heard: Vec<_> = heard_data(peer)
            .into_iter()
            .map(|(_, bytes)| bytes)
            .collect();
        assert_eq!(heard, sent);
    };
    check(&mut peer, &[], &[1_000]);
    check(&mut peer, &window_update(1, 500), &[500]);
    check(&mut peer, &window(400), &[]);
    // It is 600 below nothing.
    check(&mut peer, &window_update(1, 600), &[]);
    check(&mut peer, &window_update(1, 1), &[1]);
    check(&mut peer, &window(500), &[100]);
    check(&mut peer, &window(0), &[]);
    check(&mut peer, &window(500), &[]);
    check(&mut peer, &window(501), &[1]);
    check(
        &mut peer,
        &settings(&[(INITIAL_WINDOW_SIZE, 0), (INITIAL_WINDOW_SIZE, 502)]),
        &[1],
    );
}

#[test]
fn the_window_of_all_streams_is_kept_to() {
    let config = Config {
        unsent_bytes_max: 1 << 20,
        ..CONFIG
    };
    let mut peer = Peer::with(config);
    peer.say(&settings(&[
        (INITIAL_WINDOW_SIZE, 50_000),
        (MAX_FRAME_SIZE, 40_000),
    ]));
    let (_first, mut first) = peer.begin(&headers(1));
    let (_second, mut second) = peer.begin(&headers(3));
    peer.hear();
    let mut data = [zeros(60_000), zeros(60_000)];
    assert!(poll_send(&mut first, &mut data[0]).is_pending());
    assert!(poll_send(&mut second, &mut data[1]).is_pending());
    assert_eq!(
        heard_data(&mut peer),
        [(1, 40_000), (1, 10_000), (3, 15_535)]
    );
    assert!(!peer.connection.sent(), "room is not what they wait for");
    peer.say(&window_update(0, 7));
    assert!(poll_send(&mut first, &mut data[0]).is_pending());
    assert!(poll_send(&mut second, &mut data[1]).is_pending());
    assert_eq!(heard_data(&mut peer), [(3, 7)]);
}

/// A stream that is polled when it is woken, as a task is.
struct Sending {
    id: u32,
    _inbound: Inbound,
    outbound: Outbound,
    left: Bytes,
    woken: Arc<Woken>,
}

impl Sending {
    fn begin(peer: &mut Peer, id: u32, bytes: usize) -> Self {
        let (inbound, outbound) = peer.begin(&headers(id));
        let woken = Arc::new(Woken::default());
        woken.0.store(true, Ordering::Relaxed);
        Self {
            id,
            _inbound: inbound,
            outbound,
            left: zeros(bytes),
            woken,
        }
    }

    fn poll(&mut self) {
        let waker = Waker::from(Arc::clone(&self.woken));
        let mut cx = Context::from_waker(&waker);
        let polled = self.outbound.poll_send(&mut cx, &mut self.left);
        assert_eq!(polled.is_ready(), self.left.is_empty());
    }
}

/// Remembers in which order its streams were woken.
#[derive(Default)]
struct Order(parking_lot::Mutex<Vec<u32>>);

struct InOrder(u32, Arc<Order>);

impl Wake for InOrder {
    fn wake(self: Arc<Self>) {
        self.1.0.lock().push(self.0);
    }
}

/// Serves streams in the order in which they are woken, while `open` makes room.
fn shares(lengths: &[usize], rounds: usize, mut open: impl FnMut(&mut Peer)) -> Vec<usize> {
    let mut peer = Peer::new();
    let order = Arc::new(Order::default());
    let huge = 1 << 30;
    peer.say(&settings(&[(INITIAL_WINDOW_SIZE, huge)]));
    let mut sending = Vec::new();
    for (at, bytes) in lengths.iter().enumerate() {
        let id = 2 * at as u32 + 1;
        sending.push(Sending::begin(&mut peer, id, *bytes));
        order.0.lock().push(id);
    }
    peer.hear();
    let mut sent = vec![0; lengths.len()];
    for _ in 0..rounds {
        for id in std::mem::take(&mut *order.0.lock()) {
            let stream = &mut sending[id as usize / 2];
            let waker = Waker::from(Arc::new(InOrder(id, Arc::clone(&order))));
            let _sent = stream
                .outbound
                .poll_send(&mut Context::from_waker(&waker), &mut stream.left);
        }
        for (id, bytes) in heard_data(&mut peer) {
            sent[id as usize / 2] += bytes;
        }
        open(&mut peer);
    }
    sent
}

#[test]
fn streams_that_wait_share_the_room_in_turn() {
    let sent = shares(&[1 << 20; 4], 40, |peer| {
        peer.say(&window_update(0, 10_000));
        peer.connection.sent();
    });
    let sum: usize = sent.iter().sum();
    assert!(
        sent.iter()
            .all(|bytes| bytes.abs_diff(sum / 4) <= 2 * UNSENT_MAX),
        "{sent:?}"
    );
    assert!(sum >= 39 * ROOM);
}

#[test]
fn streams_that_wait_share_the_window_in_turn() {
    // Three streams, since two are served in turn by orders that starve a third.
    let sent = shares(&[1 << 20; 3], 1_000, |peer| {
        peer.connection.sent();
        peer.say(&window_update(0, 100));
    });
    let sum: usize = sent.iter().sum();
    assert!(
        sent.iter()
            .all(|bytes| bytes.abs_diff(sum / 3) <= 2 * UNSENT_MAX),
        "{sent:?}"
    );
}

#[test]
fn a_small_answer_does_not_wait_for_large_ones_to_end() {
    let sent = shares(&[1 << 20, 1 << 20, 1 << 20, 50], 6, |peer| {
        peer.connection.sent();
    });
    assert_eq!(sent[3], 50);
}

#[derive(Clone, Debug)]
enum Op {
    Send(usize, u16),
    Flush,
    Open(usize, u16),
    OpenAll(u16),
    Window(u16),
    FrameSize(u16),
    Restart(usize),
}

fn op() -> impl Strategy<Value = Op> {
    let bytes = || prop_oneof![0..100_u16, 0..30_000_u16];
    prop_oneof![
        5 => (0..4_usize, bytes()).prop_map(|(at, bytes)| Op::Send(at, bytes)),
        4 => Just(Op::Flush),
        3 => (0..4_usize, bytes()).prop_map(|(at, bytes)| Op::Open(at, bytes + 1)),
        3 => bytes().prop_map(|bytes| Op::OpenAll(bytes + 1)),
        2 => bytes().prop_map(Op::Window),
        1 => bytes().prop_map(Op::FrameSize),
        1 => (0..4_usize).prop_map(Op::Restart),
    ]
}

/// A peer's windows, as it knows them, and what it has heard.
struct Model {
    peer: Peer,
    streams: Vec<Sending>,
    window: i64,
    windows: Vec<i64>,
    initial: i64,
    frame_bytes_max: usize,
    next: u32,
    said: Vec<usize>,
    heard: Vec<usize>,
}

impl Model {
    fn new() -> Self {
        let mut peer = Peer::new();
        let streams = (0..4)
            .map(|at| Sending::begin(&mut peer, 2 * at + 1, 0))
            .collect();
        peer.hear();
        Self {
            peer,
            streams,
            window: 65_535,
            windows: vec![65_535; 4],
            initial: 65_535,
            frame_bytes_max: 16_384,
            next: 9,
            said: vec![0; 4],
            heard: vec![0; 4],
        }
    }

    fn act(&mut self, op: &Op) {
        match *op {
            Op::Send(at, bytes) => {
                // What a stream says counts on, so that its order is seen.
                let stream = &mut self.streams[at];
                let mut left = stream.left.to_vec();
                let from = self.said[at];
                left.extend((from..from + usize::from(bytes)).map(|at| (at % 251) as u8));
                self.said[at] += usize::from(bytes);
                stream.left = left.into();
                let unsent = self.peer.connection.unsent_bytes();
                self.streams[at].poll();
                let most = unsent.max(UNSENT_MAX);
                assert!(self.peer.connection.unsent_bytes() <= most);
            }
            Op::Flush => {
                self.hear();
                self.peer.connection.sent();
            }
            Op::Open(at, bytes) => self.open(at, bytes.into()),
            Op::OpenAll(bytes) => self.open_all(bytes.into()),
            Op::Window(bytes) => {
                self.hear();
                let more = i64::from(bytes) - self.initial;
                self.initial = bytes.into();
                self.windows.iter_mut().for_each(|window| *window += more);
                self.peer
                    .say(&settings(&[(INITIAL_WINDOW_SIZE, bytes.into())]));
            }
            Op::FrameSize(more) => {
                self.hear();
                self.frame_bytes_max = 16_384 + usize::from(more);
                self.peer
                    .say(&settings(&[(MAX_FRAME_SIZE, self.frame_bytes_max as u32)]));
            }
            Op::Restart(at) => {
                self.hear();
                self.peer.say(&reset(self.streams[at].id, Reason::CANCEL));
                self.streams[at] = Sending::begin(&mut self.peer, self.next, 0);
                self.windows[at] = self.initial;
                (self.said[at], self.heard[at]) = (0, 0);
                self.next += 2;
            }
        }
    }

    fn open(&mut self, at: usize, bytes: u32) {
        self.hear();
        self.windows[at] += i64::from(bytes);
        self.peer.say(&window_update(self.streams[at].id, bytes));
    }

    fn open_all(&mut self, bytes: u32) {
        self.hear();
        self.window += i64::from(bytes);
        self.peer.say(&window_update(0, bytes));
    }

    fn hear(&mut self) {
        for frame in self.peer.hear() {
            if frame.kind != kind::DATA {
                assert_eq!((frame.kind, frame.flags), (kind::SETTINGS, flag::ACK));
                continue;
            }
            let bytes = frame.payload.len();
            assert!(0 < bytes && bytes <= self.frame_bytes_max);
            let at = self
                .streams
                .iter()
                .position(|stream| stream.id == frame.stream);
            let at = at.expect("one that is open");
            self.window -= bytes as i64;
            self.windows[at] -= bytes as i64;
            assert!(
                self.window >= 0 && self.windows[at] >= 0,
                "windows are kept to"
            );
            for byte in frame.payload {
                assert_eq!(usize::from(byte), self.heard[at] % 251);
                self.heard[at] += 1;
            }
        }
    }

    /// Polls whoever was woken.
    fn poll_woken(&mut self) {
        for stream in &mut self.streams {
            if stream.woken.take() {
                stream.poll();
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn windows_are_kept_to_and_whoever_may_go_on_is_woken(
        ops in prop::collection::vec((op(), any::<bool>()), 0..120),
    ) {
        let mut model = Model::new();
        for (op, polls) in &ops {
            model.act(op);
            if *polls {
                model.poll_woken();
            }
        }
        // All is sent in the end, though only those are polled that are woken.
        model.poll_woken();
        (0..4).for_each(|at| model.open(at, 1 << 24));
        model.open_all(1 << 24);
        for _ in 0..500 {
            model.poll_woken();
            model.act(&Op::Flush);
        }
        model.hear();
        prop_assert_eq!(&model.heard, &model.said);
        model.streams.clear();
        model.peer.hear();
        prop_assert!(model.peer.connection.is_empty());
    }
}
