//! How a connection begins and ends: RFC 9113, sections 3.4, 5.4.1, 5.5, 6.5 to 6.8 and 7.

use super::*;

#[tokio::test]
async fn a_connection_begins_with_a_preface_and_settings() {
    const MUST: Must = End(PROTOCOL_ERROR);
    check(cases! {
        "3.4" "all as it should be": [] => Pass;
    })
    .await;
    let cases = cases! {
        "3.4" "settings at last": [settings(&[])] => Pass;
        "3.4" "a request first": [headers(WHOLE, 1, &get())] => MUST;
        "3.4" "a ping first": [ping(0, 0, &[0; 8])] => MUST;
        "3.4" "an acknowledgement first": [frame(SETTINGS, ACK, 0, &[])] => MUST;
        "3.4" "a window first": [window_update(0, 1)] => MUST;
        "3.4" "a frame that nobody knows first": [frame(99, 0, 0, &[])] => MUST;
        "3.4" "settings that are too long": [head_of(16_386, SETTINGS, 0, 0)] => End(FRAME_SIZE_ERROR);
    };
    check_from(PREFACE.to_vec(), cases).await;
}

#[tokio::test]
async fn whoever_says_another_preface_is_answered_in_http_1() {
    let broker = Running::start().await;
    for (at, byte) in [(0, b'X'), (7, b'X'), (12, b'1'), (18, b'X'), (23, b'X')] {
        let mut preface = PREFACE.to_vec();
        preface[at] = byte;
        let socket = crate::raw::socket(broker.address, &preface).await;
        let answer = crate::raw::read_to_close(socket).await;
        assert!(
            answer.starts_with(b"HTTP/1.1 400 "),
            "{answer:?} for byte {at}"
        );
    }
}

/// What the broker begins with, before it has heard anything but a preface.
#[tokio::test]
async fn the_broker_begins_with_its_settings() {
    const STREAMS_MAX: u32 = 256 + 64;
    let broker = Running::start().await;
    let mut peer = Peer::connect(broker.address, PREFACE).await;
    let entries = [(3, STREAMS_MAX), (INITIAL_WINDOW_SIZE, 65_536), (6, 16_384)];
    let entry =
        |(name, value): (u16, u32)| [&name.to_be_bytes()[..], &value.to_be_bytes()].concat();
    let settings = entries.into_iter().flat_map(entry).collect();
    assert_eq!(peer.read_frame().await, Some((SETTINGS, 0, 0, settings)));
    let window = (4_194_304 - 65_535_u32).to_be_bytes().to_vec();
    assert_eq!(peer.read_frame().await, Some((WINDOW_UPDATE, 0, 0, window)));
    peer.say(&attack::frame(SETTINGS, 0, 0, &[])).await;
    assert_eq!(
        peer.read_frame().await,
        Some((SETTINGS, ACK, 0, vec![])),
        "6.5.3"
    );
    peer.say(&attack::frame(PING, 0, 0, b"12345678")).await;
    assert_eq!(
        peer.read_frame().await,
        Some((PING, ACK, 0, b"12345678".to_vec())),
        "6.7"
    );
    let pings = [(ACK, b"12345678"), (0, b"abcdefgh")];
    let pings = pings.map(|(flags, payload)| attack::frame(PING, flags, 0, payload));
    peer.say(&pings.concat()).await;
    let pong = (PING, ACK, 0, b"abcdefgh".to_vec());
    assert_eq!(
        peer.read_frame().await,
        Some(pong),
        "6.7: an answer is not answered"
    );
}

#[tokio::test]
async fn the_last_words_say_which_stream_was_the_last() {
    let broker = Running::start().await;
    let mut peer = Peer::connect(broker.address, &opening()).await;
    peer.say(&attack::frame(HEADERS, WHOLE, 5, &get())).await;
    assert!(
        peer.hear_until(|heard| heard.answer(5).is_some_and(|answer| answer.is_whole))
            .await
    );
    peer.say(&attack::frame(PING, 0, 1, &[0; 8])).await;
    let said = loop {
        match peer.read_frame().await {
            Some((GOAWAY, 0, 0, said)) => break said,
            Some(_) => {}
            None => panic!("6.8: closed without a word"),
        }
    };
    assert_eq!(said, [0, 0, 0, 5, 0, 0, 0, 1], "6.8");
    assert_eq!(peer.read_frame().await, None, "5.4.1: closed");
}

#[tokio::test]
async fn settings_are_the_connection_s_and_within_their_bounds() {
    const WINDOW_MAX: u32 = (1 << 31) - 1;
    let windows = |values: &[u32]| {
        let entries: Vec<_> = values
            .iter()
            .map(|value| (INITIAL_WINDOW_SIZE, *value))
            .collect();
        settings(&entries)
    };
    check(cases! {
        "6.5" "of a stream": [frame(SETTINGS, 0, 1, &[])] => End(PROTOCOL_ERROR);
        "6.5" "acknowledged on a stream": [frame(SETTINGS, ACK, 1, &[])] => End(PROTOCOL_ERROR);
        "6.5" "an acknowledgement that says something":
            [frame(SETTINGS, ACK, 0, &[0; 6])] => End(FRAME_SIZE_ERROR);
        "6.5" "part of an entry": [frame(SETTINGS, 0, 0, &[0, 3, 0])] => End(FRAME_SIZE_ERROR);
        "6.5" "an entry and a part": [frame(SETTINGS, 0, 0, &[0; 7])] => End(FRAME_SIZE_ERROR);
        "6.5.2" "pushes allowed, and not": [settings(&[(ENABLE_PUSH, 1), (ENABLE_PUSH, 0)])] => Pass;
        "6.5.2" "pushes neither allowed nor not": [settings(&[(ENABLE_PUSH, 2)])] => End(PROTOCOL_ERROR);
        "6.5.2" "no streams allowed": [settings(&[(3, 0)])] => Pass;
        "6.5.2" "the largest window": [windows(&[WINDOW_MAX])] => Pass;
        "6.5.2" "a window above that": [windows(&[WINDOW_MAX + 1])] => End(FLOW_CONTROL_ERROR);
        "6.5.2" "the smallest frames": [settings(&[(MAX_FRAME_SIZE, 16_384)])] => Pass;
        "6.5.2" "frames below that": [settings(&[(MAX_FRAME_SIZE, 16_383)])] => End(PROTOCOL_ERROR);
        "6.5.2" "the largest frames": [settings(&[(MAX_FRAME_SIZE, (1 << 24) - 1)])] => Pass;
        "6.5.2" "frames above that": [settings(&[(MAX_FRAME_SIZE, 1 << 24)])] => End(PROTOCOL_ERROR);
        "6.5.2" "no table, and the largest": [settings(&[(1, 0), (1, u32::MAX)])] => Pass;
        "6.5.2" "any size of a list": [settings(&[(6, 0)])] => Pass;
        "6.5.2" "one that nobody knows": [settings(&[(0xfafa, 7)])] => Pass;
        "6.5.3" "several values, the last of which counts":
            [windows(&[0, 2]), headers(WHOLE, 1, &get()), HearBytes(1, 2)] => Send(&[2]);
        "6.5.3" "an acknowledgement of nothing": [frame(SETTINGS, ACK, 0, &[])] => Pass;
    })
    .await;
}

#[tokio::test]
async fn no_stream_has_pings_and_goodbyes() {
    check(cases! {
        "6.7" "a ping of a stream": [ping(0, 1, &[0; 8])] => End(PROTOCOL_ERROR);
        "6.7" "an answer on a stream": [ping(ACK, 1, &[0; 8])] => End(PROTOCOL_ERROR);
        "6.7" "a short ping": [ping(0, 0, &[0; 7])] => End(FRAME_SIZE_ERROR);
        "6.7" "a long ping": [ping(0, 0, &[0; 9])] => End(FRAME_SIZE_ERROR);
        "6.7" "an empty answer": [ping(ACK, 0, &[])] => End(FRAME_SIZE_ERROR);
        "6.7" "an answer to nothing": [ping(ACK, 0, &[0; 8])] => Pass;
        "6.8" "a goodbye of a stream": [goaway(1, NO_ERROR)] => End(PROTOCOL_ERROR);
        "6.8" "a short goodbye": [frame(GOAWAY, 0, 0, &[0; 7])] => End(FRAME_SIZE_ERROR);
        "6.8" "a goodbye": [goaway(0, NO_ERROR)] => Close;
        "6.8" "a goodbye with its reasons": [frame(GOAWAY, 0, 0, &[0; 99])] => Close;
        "7" "a goodbye for a reason that nobody knows": [goaway(0, 0xff)] => Close;
        "7" "a reset for a reason that nobody knows": [open(), reset(1, 0xff)] => Pass;
    })
    .await;
}

/// Calls in progress are served to their ends.
#[tokio::test]
async fn whoever_says_goodbye_still_gets_its_answers() {
    let broker = Running::start().await;
    let mut peer = Peer::connect(broker.address, &opening()).await;
    let Step::Say(begins) = publish(1) else {
        unreachable!()
    };
    peer.say(&begins).await;
    peer.say(&attack::frame(GOAWAY, 0, 0, &[0; 8])).await;
    assert!(peer.sync().await, "6.8");
    peer.say(&attack::frame(DATA, END_STREAM, 1, &body())).await;
    while peer.hear().await {}
    assert!(
        peer.heard.answer(1).is_some_and(is_ok),
        "6.8: {:?}",
        peer.heard
    );
    assert_eq!(peer.heard.goaway, None);
}

#[tokio::test]
async fn what_nobody_knows_is_ignored() {
    check(cases! {
        "4.1" "a frame of an unknown type": [frame(0xfa, 0xff, 0, b"whatever")] => Pass;
        "4.1" "one of a stream": [frame(0xfa, 0, 7, b"whatever")] => Pass;
        "4.1" "one in an open stream":
            [publish(1), frame(0xfa, 0, 1, b"x"), data(END_STREAM, 1, &body())] => Succeed;
        "4.1" "the largest one": [frame(0xfa, 0, 0, &[0; FRAME_BYTES_MAX])] => Pass;
        "4.1" "flags that a ping does not have": [ping(0xfe, 0, &[0; 8])] => Pass;
        "4.1" "flags that headers do not have": [headers(WHOLE | 0xd2, 1, &get())] => Answer(200);
        "4.1" "flags that DATA does not have": [publish(1), data(END_STREAM | 0xf6, 1, &body())] => Succeed;
        "4.1" "flags that a reset does not have": [open(), frame(RST_STREAM, 0xff, 1, &[0; 4])] => Pass;
        "4.1" "flags that a window does not have": [frame(WINDOW_UPDATE, 0xff, 0, &[0, 0, 0, 1])] => Pass;
        "4.1" "the reserved bit of a ping": [ping(0, RESERVED, &[0; 8])] => Pass;
        "4.1" "the reserved bit of headers": [headers(WHOLE, 1 | RESERVED, &get())] => Answer(200);
        "5.5" "an unknown frame in a header block":
            [headers(END_STREAM, 1, &get()), frame(0xfa, 0, 1, &[])] => End(PROTOCOL_ERROR);
        "6.9" "the reserved bit of a window": [window_update(0, 1 | RESERVED)] => Pass;
    })
    .await;
}
