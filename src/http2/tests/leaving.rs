//! How a connection ends in good order, and pings.

use super::*;

fn goaway(last: u32) -> Vec<u8> {
    let payload = [last.to_be_bytes(), [0; 4]].concat();
    frame(kind::GOAWAY, 0, 0, &payload)
}

const SHUTDOWN: &[u8; 8] = b"shutdown";

#[test]
fn a_connection_says_first_what_it_allows() {
    let connection = Connection::new(CONFIG);
    let out = connection.with_out(bytes::BytesMut::split);
    let ours = settings(&[
        (3, STREAMS_MAX as u32),
        (INITIAL_WINDOW_SIZE, STREAM_WINDOW),
        (6, 4_096),
    ]);
    check_frames(
        &frames(&out),
        &[ours, window_update(0, CONNECTION_WINDOW - 65_535)],
    );
    let config = Config {
        connection_window_bytes: 65_535,
        ..CONFIG
    };
    let connection = Connection::new(config);
    let out = connection.with_out(bytes::BytesMut::split);
    assert_eq!(frames(&out).len(), 1, "no window is opened by nothing");
}

#[test]
fn a_connection_leaves_in_two_steps() {
    let mut peer = Peer::new();
    let (_inbound, mut first) = peer.begin(&last_headers(1));
    peer.connection.leave();
    peer.connection.leave();
    let ping = frame(kind::PING, 0, 0, SHUTDOWN);
    check_frames(&peer.hear(), &[goaway((1 << 31) - 1), ping]);
    // What was on its way is served.
    let (_inbound, mut second) = peer.begin(&last_headers(3));
    send_head(&mut first, true).unwrap();
    peer.hear();
    peer.say(&frame(kind::PING, flag::ACK, 0, SHUTDOWN));
    check_frames(&peer.hear(), &[goaway(3)]);
    peer.say(&[headers(5), data(5, b"hello"), reset(5, Reason::CANCEL)].concat());
    assert!(peer.requests.is_empty());
    assert_eq!(peer.hear(), [], "it knows that it comes too late");
    assert!(!poll_done(&peer.connection));
    send_head(&mut second, true).unwrap();
    assert!(poll_done(&peer.connection));
    peer.hear();
    peer.say(&frame(kind::PING, flag::ACK, 0, SHUTDOWN));
    assert_eq!(peer.hear(), [], "it was said already");
    // What was the last stream may not become a later one.
    peer.connection.fail(Reason::ENHANCE_YOUR_CALM);
    assert_eq!(peer.hear()[0].payload, [0, 0, 0, 3, 0, 0, 0, 11]);
}

#[test]
fn a_connection_does_not_end_before_the_peer_knows() {
    let mut peer = Peer::new();
    peer.connection.leave();
    assert!(!poll_done(&peer.connection), "a request may be on its way");
    peer.say(&frame(kind::PING, flag::ACK, 0, SHUTDOWN));
    assert!(poll_done(&peer.connection));
}

#[test]
fn a_peer_that_does_not_say_that_it_knows_is_not_waited_for_for_ever() {
    let mut peer = Peer::new();
    peer.connection.leave_unanswered();
    assert_eq!(peer.hear(), [], "nobody has said that we leave");
    let (_inbound, mut first) = peer.begin(&last_headers(1));
    peer.connection.leave();
    peer.hear();
    peer.connection.leave_unanswered();
    check_frames(&peer.hear(), &[goaway(1)]);
    assert!(!poll_done(&peer.connection), "it is served to its end");
    peer.say(&headers(3));
    assert!(peer.requests.is_empty());
    send_head(&mut first, true).unwrap();
    assert!(poll_done(&peer.connection));
}

#[test]
fn a_pong_to_nothing_says_nothing() {
    let mut peer = Peer::new();
    peer.say(&frame(kind::PING, flag::ACK, 0, SHUTDOWN));
    assert_eq!(peer.hear(), []);
    assert!(!poll_done(&peer.connection));
}

#[test]
fn the_driver_is_woken_where_there_is_something_to_send_or_nothing_to_wait_for() {
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    let is_done = |connection: &Connection| {
        connection
            .poll_done(&mut Context::from_waker(&waker))
            .is_ready()
    };
    let mut peer = Peer::new();
    let (inbound, mut outbound) = peer.begin(&last_headers(1));
    assert!(!is_done(&peer.connection));
    peer.connection.leave();
    assert!(woken.take());
    assert!(!is_done(&peer.connection));
    assert!(poll_once(peer.connection.ping()).is_pending());
    assert!(woken.take());
    peer.say(&frame(kind::PING, flag::ACK, 0, SHUTDOWN));
    assert!(!is_done(&peer.connection));
    send_head(&mut outbound, true).unwrap();
    assert!(woken.take());
    assert!(is_done(&peer.connection));
    drop((inbound, outbound));
}

#[test]
fn a_peer_that_leaves_is_served_to_the_end() {
    let mut peer = Peer::new();
    let (_inbound, mut outbound) = peer.begin(&last_headers(1));
    peer.say(&goaway(0));
    assert_eq!(peer.hear(), []);
    assert!(!poll_done(&peer.connection));
    send_head(&mut outbound, true).unwrap();
    assert!(poll_done(&peer.connection));
    let mut peer = Peer::new();
    peer.say(&goaway(0));
    assert!(poll_done(&peer.connection), "nothing is left");
}

#[test]
fn a_ping_is_answered_with_what_it_says() {
    let mut peer = Peer::new();
    peer.say(&frame(kind::PING, 0, 0, b"12345678"));
    check_frames(
        &peer.hear(),
        &[frame(kind::PING, flag::ACK, 0, b"12345678")],
    );
}

#[test]
fn all_that_wait_for_an_answer_are_told() {
    let mut peer = Peer::new();
    let connection = peer.connection.clone();
    let [first, second] = [(); 2].map(|()| Arc::new(Woken::default()));
    let wakers = [&first, &second].map(|woken| Waker::from(Arc::clone(woken)));
    let mut pings = [(); 2].map(|()| Box::pin(connection.ping()));
    let mut poll = |at: usize| {
        let mut cx = Context::from_waker(&wakers[at]);
        pings[at].as_mut().poll(&mut cx)
    };
    assert!(poll(0).is_pending() && poll(1).is_pending());
    let said = peer.hear();
    let pong = |at: usize| frame(kind::PING, flag::ACK, 0, &said[at].payload);
    peer.say(&frame(kind::PING, flag::ACK, 0, &[0xff; 8]));
    peer.say(&frame(kind::PING, flag::ACK, 0, &[0; 8]));
    assert!(poll(0).is_pending() && poll(1).is_pending(), "nobody asked");
    peer.say(&pong(0));
    assert!(first.take());
    assert!(poll(0).is_ready());
    assert!(poll(1).is_pending());
    second.take();
    peer.say(&pong(1));
    assert!(second.take());
    assert!(poll(1).is_ready());
    // An answer to a later one tells as much.
    let mut earlier = Box::pin(connection.ping());
    assert!(poll_once(earlier.as_mut()).is_pending());
    assert!(poll_once(connection.ping()).is_pending());
    let later = peer.hear().pop().unwrap().payload;
    peer.say(&frame(kind::PING, flag::ACK, 0, &later));
    assert!(poll_once(earlier).is_ready());
}

#[test]
fn a_ping_of_ours_is_over_once_it_is_answered_or_the_connection_is_over() {
    let ends: [fn(&mut Peer); 3] = [
        |peer| {
            let payload = peer.hear().pop().unwrap().payload;
            peer.say(&frame(kind::PING, flag::ACK, 0, &payload));
        },
        |peer| peer.connection.end(),
        |peer| assert!(peer.try_say(&headers(0)).is_err()),
    ];
    for end in ends {
        let mut peer = Peer::new();
        let connection = peer.connection.clone();
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        let mut ping = pin!(connection.ping());
        let mut poll = || ping.as_mut().poll(&mut Context::from_waker(&waker));
        assert!(poll().is_pending());
        peer.say(&frame(kind::PING, 0, 0, &[0; 8]));
        assert!(poll().is_pending(), "the peer's own is no answer");
        peer.hear();
        assert!(poll_once(peer.connection.ping()).is_pending());
        assert!(poll().is_pending());
        end(&mut peer);
        assert!(woken.take());
        assert!(poll().is_ready());
    }
}
