//! What the two halves of a stream see, and what is said when they go.

use std::slice::from_ref;

use super::*;

#[track_caller]
fn check_empty(peer: &Peer) {
    assert_eq!(peer.connection.open_streams(), 0);
    assert_eq!(peer.connection.kept().inbound_bytes, 0);
    assert!(peer.connection.is_empty());
}

#[test]
fn a_body_is_read_as_it_comes_and_to_its_end() {
    let mut peer = Peer::new();
    let (inbound, _outbound) = peer.begin(&headers(1));
    assert_eq!(read(&inbound), (vec![], None));
    peer.say(&[data(1, b"one"), data(1, b""), data(1, b"two")].concat());
    assert!(!inbound.is_end_stream());
    assert_eq!(read(&inbound), (b"onetwo".to_vec(), None));
    peer.say(&last_data(1, b"three"));
    assert!(!inbound.is_end_stream(), "there is more to read");
    assert_eq!(read(&inbound), (b"three".to_vec(), Some(Ok(()))));
    assert!(inbound.is_end_stream());
    assert_eq!(peer.connection.kept().inbound_bytes, 0);
}

#[test]
fn readers_are_woken_by_what_comes_and_by_the_end() {
    let words: [&[Vec<u8>]; 4] = [
        &[data(1, b"hello")],
        &[last_data(1, b"")],
        &[last_headers(1)],
        &[reset(1, Reason::CANCEL)],
    ];
    for said in words {
        let mut peer = Peer::new();
        let (inbound, _outbound) = peer.begin(&headers(1));
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        assert!(
            inbound
                .poll_data(&mut Context::from_waker(&waker))
                .is_pending()
        );
        peer.say(&said.concat());
        assert!(woken.take());
        assert!(poll_data(&inbound).is_ready());
    }
    let mut peer = Peer::new();
    let (inbound, mut outbound) = peer.begin(&headers(1));
    let [reader, writer] = [(); 2].map(|()| Arc::new(Woken::default()));
    let wakers = [&reader, &writer].map(|woken| Waker::from(Arc::clone(woken)));
    assert!(
        inbound
            .poll_data(&mut Context::from_waker(&wakers[0]))
            .is_pending()
    );
    assert!(
        outbound
            .poll_broken(&mut Context::from_waker(&wakers[1]))
            .is_pending()
    );
    peer.connection.end();
    assert!(reader.take() && writer.take());
    assert_eq!(read(&inbound), (vec![], Some(Err(Broken::Connection))));
    assert_eq!(send_head(&mut outbound, false), Err(Broken::Connection));
}

#[test]
fn trailers_end_a_body_and_nobody_wants_to_know_them() {
    let mut peer = Peer::new();
    let (inbound, _outbound) = peer.begin(&headers(1));
    let flags = flag::END_HEADERS | flag::END_STREAM;
    let trailers = frame(kind::HEADERS, flags, 1, &field("x", "y"));
    peer.say(&[data(1, b"hello"), trailers].concat());
    assert_eq!(read(&inbound), (b"hello".to_vec(), Some(Ok(()))));
    assert_eq!(peer.hear(), []);
}

#[test]
fn what_came_before_the_peer_s_reset_is_read_before_it() {
    let mut peer = Peer::new();
    let (inbound, mut outbound) = peer.begin(&headers(1));
    peer.say(&[data(1, b"hello"), reset(1, Reason(77))].concat());
    let broken = Broken::Reset(Reason(77));
    assert_eq!(send_head(&mut outbound, false), Err(broken));
    assert_eq!(outbound.end(), Err(broken));
    let mut data = Bytes::from_static(b"late");
    assert_eq!(
        poll_send(&mut outbound, &mut data),
        Poll::Ready(Err(broken))
    );
    assert_eq!(peer.connection.open_streams(), 0);
    assert!(!inbound.is_end_stream());
    assert_eq!(read(&inbound), (b"hello".to_vec(), Some(Err(broken))));
    drop((inbound, outbound));
    assert_eq!(peer.hear(), [], "a reset is not answered");
    check_empty(&peer);
}

#[test]
fn nothing_is_read_after_our_own_reset() {
    let mut peer = Peer::new();
    let (inbound, mut outbound) = peer.begin(&headers(1));
    peer.say(&data(1, b"hello"));
    outbound.reset(Reason::ENHANCE_YOUR_CALM);
    outbound.reset(Reason::CANCEL);
    check_frames(&peer.hear(), &[reset(1, Reason::ENHANCE_YOUR_CALM)]);
    assert_eq!(peer.connection.kept().inbound_bytes, 0);
    let broken = Broken::Reset(Reason::ENHANCE_YOUR_CALM);
    assert_eq!(read(&inbound), (vec![], Some(Err(broken))));
    drop((inbound, outbound));
    assert_eq!(peer.hear(), []);
    check_empty(&peer);
}

#[test]
fn a_body_is_as_long_as_it_was_said_to_be() {
    let length = |length| [POST, &field("content-length", length)].concat();
    let begin = |said| frame(kind::HEADERS, flag::END_HEADERS, 1, &length(said));
    let fault = Err(Broken::Reset(Reason::PROTOCOL_ERROR));
    for (said, body, ended) in [
        (vec![last_data(1, b"hello")], "hello", Ok(())),
        (vec![data(1, b"hello"), last_headers(1)], "hello", Ok(())),
        (vec![data(1, b"hel"), last_data(1, b"lo")], "hello", Ok(())),
        (vec![last_data(1, b"hell")], "", fault),
        (vec![data(1, b"hell"), last_headers(1)], "", fault),
        (vec![data(1, b"hello!")], "", fault),
        (vec![data(1, b"hello"), last_data(1, b"!")], "", fault),
    ] {
        let mut peer = Peer::new();
        let (inbound, _outbound) = peer.begin(&begin("5"));
        peer.say(&said.concat());
        assert_eq!(read(&inbound), (body.into(), Some(ended)));
        let heard = peer.hear();
        match ended {
            Ok(()) => assert_eq!(heard, []),
            Err(_) => check_frames(&heard, &[reset(1, Reason::PROTOCOL_ERROR)]),
        }
    }
    let flags = flag::END_HEADERS | flag::END_STREAM;
    let mut peer = Peer::new();
    peer.say(&frame(kind::HEADERS, flags, 1, &length("5")));
    check_frames(&peer.hear(), &[reset(1, Reason::PROTOCOL_ERROR)]);
    peer.say(&frame(kind::HEADERS, flags, 3, &length("0")));
    assert_eq!(peer.requests.len(), 1);
}

/// What a half does.
type Act = fn(&mut Option<Inbound>, &mut Option<Outbound>);

/// Each of these is done in order, and says so much.
#[track_caller]
fn check(begins: &[u8], acts: &[(Act, &[Vec<u8>])]) {
    let mut peer = Peer::new();
    let (inbound, outbound) = peer.begin(begins);
    let (mut inbound, mut outbound) = (Some(inbound), Some(outbound));
    for (at, (act, said)) in acts.iter().enumerate() {
        act(&mut inbound, &mut outbound);
        assert_eq!(peer.hear(), frames(&said.concat()), "after {at}");
    }
    drop((inbound, outbound));
    check_empty(&peer);
}

const DROP_INBOUND: Act = |inbound, _| *inbound = None;
const DROP_OUTBOUND: Act = |_, outbound| *outbound = None;
const ANSWER: Act = |_, outbound| {
    let outbound = outbound.as_mut().unwrap();
    send_head(outbound, true).unwrap();
};
const TRAILERS: Act = |_, outbound| {
    let outbound = outbound.as_mut().unwrap();
    outbound.send_trailers(&HeaderMap::new()).unwrap();
};
const END: Act = |_, outbound| outbound.as_mut().unwrap().end().unwrap();

fn answer() -> Vec<u8> {
    frame(
        kind::HEADERS,
        flag::END_HEADERS | flag::END_STREAM,
        1,
        &[0x88],
    )
}

fn trailers() -> Vec<u8> {
    frame(kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, 1, &[])
}

#[test]
fn a_stream_without_a_whole_answer_is_cancelled() {
    let cancel = reset(1, Reason::CANCEL);
    for begins in [headers(1), last_headers(1)] {
        check(
            &begins,
            &[(DROP_INBOUND, &[]), (DROP_OUTBOUND, from_ref(&cancel))],
        );
        check(
            &begins,
            &[(DROP_OUTBOUND, from_ref(&cancel)), (DROP_INBOUND, &[])],
        );
    }
    let unfinished = [headers(1), data(1, b"hello")].concat();
    check(
        &unfinished,
        &[(DROP_INBOUND, &[]), (DROP_OUTBOUND, &[cancel])],
    );
}

#[test]
fn a_whole_answer_is_followed_by_nothing_where_the_request_has_ended() {
    for (end, said) in [
        (ANSWER, answer()),
        (TRAILERS, trailers()),
        (END, last_data(1, b"")),
    ] {
        let begins = last_headers(1);
        check(
            &begins,
            &[
                (end, from_ref(&said)),
                (DROP_INBOUND, &[]),
                (DROP_OUTBOUND, &[]),
            ],
        );
        check(
            &begins,
            &[
                (end, from_ref(&said)),
                (DROP_OUTBOUND, &[]),
                (DROP_INBOUND, &[]),
            ],
        );
        check(
            &begins,
            &[(DROP_INBOUND, &[]), (end, &[said]), (DROP_OUTBOUND, &[])],
        );
    }
}

#[test]
fn a_whole_answer_asks_for_no_more_of_the_request_once_nobody_reads_it() {
    let enough = reset(1, Reason::NO_ERROR);
    let said = answer();
    let begins = [headers(1), data(1, b"hello")].concat();
    check(
        &begins,
        &[
            (ANSWER, from_ref(&said)),
            (DROP_INBOUND, from_ref(&enough)),
            (DROP_OUTBOUND, &[]),
        ],
    );
    check(
        &begins,
        &[
            (ANSWER, from_ref(&said)),
            (DROP_OUTBOUND, &[]),
            (DROP_INBOUND, from_ref(&enough)),
        ],
    );
    check(
        &begins,
        &[
            (DROP_INBOUND, &[]),
            (ANSWER, &[said, enough]),
            (DROP_OUTBOUND, &[]),
        ],
    );
}

#[test]
fn a_request_may_end_after_its_answer() {
    let mut peer = Peer::new();
    let (inbound, mut outbound) = peer.begin(&headers(1));
    send_head(&mut outbound, true).unwrap();
    drop(outbound);
    assert_eq!(peer.connection.open_streams(), 1);
    peer.say(&last_data(1, b"hello"));
    assert_eq!(peer.connection.open_streams(), 0);
    assert_eq!(read(&inbound), (b"hello".to_vec(), Some(Ok(()))));
    drop(inbound);
    check_frames(&peer.hear(), &[answer()]);
    check_empty(&peer);
}

#[test]
fn the_answer_s_half_learns_that_the_stream_is_over() {
    let mut peer = Peer::new();
    let (_inbound, mut outbound) = peer.begin(&headers(1));
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    let poll = |outbound: &mut Outbound| outbound.poll_broken(&mut Context::from_waker(&waker));
    assert!(poll(&mut outbound).is_pending());
    peer.say(&last_data(1, b"hello"));
    assert!(
        poll(&mut outbound).is_pending(),
        "the request's end is not the stream's"
    );
    woken.take();
    peer.say(&reset(1, Reason::CANCEL));
    assert!(woken.take());
    assert_eq!(
        poll(&mut outbound),
        Poll::Ready(Broken::Reset(Reason::CANCEL))
    );
}

#[test]
fn the_halves_outlive_the_connection() {
    let mut peer = Peer::new();
    let (inbound, outbound) = peer.begin(&[headers(1), data(1, b"hello")].concat());
    let failure = peer.try_say(&frame(kind::PING, 0, 1, &[0; 8]));
    assert!(failure.is_err());
    assert_eq!(
        read(&inbound),
        (b"hello".to_vec(), Some(Err(Broken::Connection)))
    );
    drop((inbound, outbound));
    check_empty(&peer);
}
