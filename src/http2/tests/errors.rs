//! What a peer may not say, and the code that each of it is answered with (RFC 9113).

use std::slice::from_ref;

use super::*;

/// The connection ends, with this code.
#[track_caller]
fn check_failure(reason: Reason, said: &[Vec<u8>]) {
    check_failure_of(&mut Peer::new(), reason, said);
}

#[track_caller]
fn check_failure_of(peer: &mut Peer, reason: Reason, said: &[Vec<u8>]) {
    let failure = peer.try_say(&said.concat()).unwrap_err();
    assert_eq!(failure.reason, reason, "{failure}");
    let goaway = peer.hear().pop().expect("the peer is told");
    assert_eq!((goaway.kind, goaway.stream), (kind::GOAWAY, 0));
    assert_eq!(goaway.number(), reason.0);
    let last = u32::from_be_bytes(goaway.payload[..4].try_into().unwrap());
    assert_eq!(last, peer.connection.last_stream());
    assert!(poll_done(&peer.connection));
}

/// The stream is reset with this code, and the connection goes on.
#[track_caller]
fn check_fault(stream: u32, reason: Reason, said: &[Vec<u8>]) {
    let mut peer = Peer::new();
    peer.say(&said.concat());
    let resets: Vec<_> = peer
        .hear()
        .into_iter()
        .filter(|frame| frame.kind == kind::RST_STREAM)
        .collect();
    check_frames(&resets, &[reset(stream, reason)]);
    let ping = frame(kind::PING, 0, 0, b"12345678");
    peer.say(&ping);
    assert_eq!(peer.hear().len(), 1, "the connection goes on");
    peer.requests.clear();
    assert!(peer.connection.is_empty());
}

/// It means nothing, and nothing is said.
#[track_caller]
fn check_ignored(said: &[Vec<u8>]) {
    let mut peer = Peer::new();
    peer.say(&said.concat());
    assert_eq!(peer.hear(), []);
}

const BLOCK_BEGINS: u8 = 0;

#[test]
fn a_connection_begins_with_settings() {
    let ping = frame(kind::PING, 0, 0, &[0; 8]);
    for first in [
        ping,
        frame(kind::SETTINGS, flag::ACK, 0, &[]),
        headers(1),
        data(1, b""),
    ] {
        let mut peer = Peer {
            connection: Connection::new(CONFIG),
            requests: Vec::new(),
        };
        check_failure_of(&mut peer, Reason::PROTOCOL_ERROR, &[first]);
    }
}

#[test]
fn no_frame_is_larger_than_allowed() {
    let mut large = frame(kind::DATA, 0, 1, &[]);
    large[..3].copy_from_slice(&[0, 0x40, 1]);
    check_failure(Reason::FRAME_SIZE_ERROR, &[headers(1), large.clone()]);
    large[3] = 99;
    check_failure(Reason::FRAME_SIZE_ERROR, &[large]);
    check_ignored(&[frame(99, 0xff, 1, &[0; 16_384])]);
}

#[test]
fn a_header_block_comes_in_one_go() {
    let begins = frame(kind::HEADERS, BLOCK_BEGINS, 1, POST);
    for between in [
        frame(kind::PING, 0, 0, &[0; 8]),
        frame(99, 0, 0, &[]),
        data(1, b"hello"),
        headers(3),
        frame(kind::CONTINUATION, flag::END_HEADERS, 3, POST),
    ] {
        check_failure(Reason::PROTOCOL_ERROR, &[begins.clone(), between]);
    }
    let continuation = frame(kind::CONTINUATION, flag::END_HEADERS, 1, POST);
    check_failure(Reason::PROTOCOL_ERROR, from_ref(&continuation));
    check_failure(Reason::PROTOCOL_ERROR, &[headers(1), continuation]);
}

#[test]
fn a_header_block_has_an_end() {
    let begins = frame(kind::HEADERS, BLOCK_BEGINS, 1, &[0; 16_384]);
    let more = |bytes| frame(kind::CONTINUATION, 0, 1, &vec![0; bytes]);
    check_ignored(&[begins.clone(), more(16_384)]);
    let frames = [begins, more(16_384), more(1)];
    check_failure(Reason::ENHANCE_YOUR_CALM, &frames);
    let mut frames = vec![frame(kind::HEADERS, BLOCK_BEGINS, 1, POST)];
    frames.extend(vec![more(1); 31]);
    check_ignored(&frames);
    frames.push(more(1));
    check_failure(Reason::ENHANCE_YOUR_CALM, &frames);
}

#[test]
fn headers_are_on_streams_of_clients_and_have_their_fields() {
    for stream in [0, 2] {
        check_failure(Reason::PROTOCOL_ERROR, &[headers(stream)]);
    }
    for (flags, payload) in [
        (flag::PADDED, &[1][..]),
        (flag::PADDED, &[4, 0x83, 0x86, 0x84]),
        (flag::PRIORITY, &[0x80, 0, 0, 1, 0]),
        (flag::PRIORITY | flag::PADDED, &[1, 0, 0, 0, 3, 0]),
    ] {
        let said = frame(kind::HEADERS, flag::END_HEADERS | flags, 1, payload);
        check_failure(Reason::PROTOCOL_ERROR, &[said]);
    }
    // No room for what the flags say is there (section 4.2).
    for (flags, payload) in [
        (flag::PADDED, &[][..]),
        (flag::PRIORITY, &[0, 0, 0, 3]),
        (flag::PRIORITY | flag::PADDED, &[0, 0, 0, 0, 3]),
    ] {
        let said = frame(kind::HEADERS, flag::END_HEADERS | flags, 1, payload);
        check_failure(Reason::FRAME_SIZE_ERROR, &[said]);
    }
}

#[test]
fn blocks_that_cannot_be_read_end_the_connection() {
    let block = |bytes: &[u8]| frame(kind::HEADERS, flag::END_HEADERS, 1, bytes);
    check_failure(Reason::COMPRESSION_ERROR, &[block(&[0x80])]);
    check_failure(Reason::COMPRESSION_ERROR, &[block(&[0x83, 0xbe])]);
    let trailers = frame(
        kind::HEADERS,
        flag::END_HEADERS | flag::END_STREAM,
        1,
        &[0x80],
    );
    check_failure(Reason::COMPRESSION_ERROR, &[headers(1), trailers]);
    let bomb = block(&[0x82; 1_000]);
    check_failure(Reason::ENHANCE_YOUR_CALM, &[bomb]);
}

#[test]
fn nobody_speaks_of_streams_that_were_never_opened() {
    for stream in [0, 2, 5] {
        let reset = reset(stream, Reason::CANCEL);
        check_failure(
            Reason::PROTOCOL_ERROR,
            &[headers(3), data(stream, b"hello")],
        );
        check_failure(Reason::PROTOCOL_ERROR, &[headers(3), reset]);
        if stream != 0 {
            let update = window_update(stream, 1);
            check_failure(Reason::PROTOCOL_ERROR, &[headers(3), update]);
        }
    }
}

/// Streams that were left out are closed, and none of them may be opened any more (section 5.1.1).
#[test]
fn streams_that_were_left_out_do_not_begin() {
    check_failure(Reason::PROTOCOL_ERROR, &[headers(3), headers(1)]);
    check_failure(Reason::PROTOCOL_ERROR, &[headers(9), last_headers(7)]);
    let gaps = |count: u32| -> Vec<Vec<u8>> {
        (1..=count)
            .flat_map(|at| [headers(4 * at + 1), reset(4 * at + 1, Reason::CANCEL)])
            .collect()
    };
    let then = |count, stream| [gaps(count), vec![trailers(stream)]].concat();
    for stream in [1, 3, 7, 11, 15] {
        check_failure(Reason::PROTOCOL_ERROR, &then(4, stream));
    }
    // What was left out before four others is no longer known, and nobody is accused.
    check_ignored(&then(5, 3));
    check_failure(Reason::PROTOCOL_ERROR, &then(5, 7));
    // Those that were opened may have trailers on their way, however many came after them.
    for stream in (5..=4 * 9 + 1).step_by(4) {
        check_ignored(&then(9, stream));
    }
}

#[test]
fn padding_is_no_more_than_there_is() {
    let padded = |payload: &[u8]| frame(kind::DATA, flag::PADDED, 1, payload);
    check_failure(Reason::FRAME_SIZE_ERROR, &[headers(1), padded(&[])]);
    check_failure(Reason::PROTOCOL_ERROR, &[headers(1), padded(&[1])]);
    check_failure(Reason::PROTOCOL_ERROR, &[headers(1), padded(&[4, 0, 0, 0])]);
    check_ignored(&[headers(1), padded(&[3, 0, 0, 0]), padded(&[0])]);
}

#[test]
fn frames_have_their_sizes() {
    for frame in [
        reset(1, Reason::CANCEL),
        window_update(1, 1),
        frame(kind::PING, 0, 0, &[0; 8]),
        frame(kind::PING, flag::ACK, 0, &[0; 8]),
        settings(&[(INITIAL_WINDOW_SIZE, 1)]),
        frame(kind::SETTINGS, flag::ACK, 0, &[]),
    ] {
        let mut longer = frame.clone();
        longer[2] += 1;
        longer.push(0);
        check_failure(Reason::FRAME_SIZE_ERROR, &[headers(1), longer]);
        if frame.len() > 9 {
            let mut shorter = frame.clone();
            shorter[2] -= 1;
            shorter.pop();
            check_failure(Reason::FRAME_SIZE_ERROR, &[headers(1), shorter]);
        }
    }
    check_failure(
        Reason::FRAME_SIZE_ERROR,
        &[frame(kind::GOAWAY, 0, 0, &[0; 7])],
    );
    check_ignored(&[frame(kind::GOAWAY, 0, 0, &[0; 20])]);
}

#[test]
fn frames_of_the_connection_are_of_no_stream() {
    for said in [
        frame(kind::PING, 0, 1, &[0; 8]),
        frame(kind::GOAWAY, 0, 1, &[0; 8]),
        frame(kind::SETTINGS, 0, 1, &[]),
        frame(kind::SETTINGS, flag::ACK, 1, &[]),
        frame(kind::PRIORITY, 0, 0, &[0; 5]),
        frame(
            kind::PUSH_PROMISE,
            flag::END_HEADERS,
            1,
            &[0, 0, 0, 2, 0x82],
        ),
    ] {
        check_failure(Reason::PROTOCOL_ERROR, &[headers(1), said]);
    }
}

#[test]
fn settings_are_within_their_bounds() {
    for (setting, value, reason) in [
        (2, 2, Reason::PROTOCOL_ERROR),
        (INITIAL_WINDOW_SIZE, 1 << 31, Reason::FLOW_CONTROL_ERROR),
        (MAX_FRAME_SIZE, 16_383, Reason::PROTOCOL_ERROR),
        (MAX_FRAME_SIZE, 1 << 24, Reason::PROTOCOL_ERROR),
    ] {
        check_failure(reason, &[settings(&[(setting, value)])]);
    }
    let mut peer = Peer::new();
    peer.say(&settings(&[
        (2, 1),
        (2, 0),
        (3, 0),
        (INITIAL_WINDOW_SIZE, (1 << 31) - 1),
        (MAX_FRAME_SIZE, 16_384),
        (MAX_FRAME_SIZE, (1 << 24) - 1),
        (0xabcd, 7),
    ]));
    check_frames(&peer.hear(), &[frame(kind::SETTINGS, flag::ACK, 0, &[])]);
}

#[test]
fn windows_are_opened_by_something_and_not_too_far() {
    let most = (1 << 31) - 1;
    let full = most - 65_535;
    check_failure(Reason::PROTOCOL_ERROR, &[window_update(0, 0)]);
    check_failure(Reason::FLOW_CONTROL_ERROR, &[window_update(0, full + 1)]);
    check_ignored(&[window_update(0, full)]);
    check_fault(
        1,
        Reason::PROTOCOL_ERROR,
        &[headers(1), window_update(1, 0)],
    );
    check_fault(
        1,
        Reason::FLOW_CONTROL_ERROR,
        &[headers(1), window_update(1, full + 1)],
    );
    check_ignored(&[headers(1), window_update(1, full)]);
    let larger = settings(&[(INITIAL_WINDOW_SIZE, 65_536)]);
    let said = [headers(1), window_update(1, full), larger.clone()];
    check_failure(Reason::FLOW_CONTROL_ERROR, &said);
    // A stream that is over has no window, though somebody may hold it.
    let mut peer = Peer::new();
    peer.say(
        &[
            headers(1),
            window_update(1, full),
            reset(1, Reason::CANCEL),
            larger,
        ]
        .concat(),
    );
    assert_eq!(peer.requests.len(), 1);
}

#[test]
fn whoever_exceeds_a_window_is_told() {
    let part = |stream| data(stream, &[0; 10_000]);
    let full = [headers(1), part(1), part(1)].concat();
    check_ignored(from_ref(&full));
    check_fault(1, Reason::FLOW_CONTROL_ERROR, &[full, data(1, &[0])]);
    let mut said = Vec::new();
    for stream in [1, 3, 5] {
        said.extend([headers(stream), part(stream), part(stream)]);
    }
    said.extend([headers(7), part(7)]);
    check_ignored(&said);
    said.push(data(7, &[0]));
    check_failure(Reason::FLOW_CONTROL_ERROR, &said);
}

#[test]
fn a_request_that_has_ended_does_not_go_on() {
    let closed = Reason::STREAM_CLOSED;
    check_fault(1, closed, &[last_headers(1), data(1, b"hello")]);
    check_fault(
        1,
        closed,
        &[headers(1), last_data(1, b""), last_data(1, b"")],
    );
    check_fault(1, closed, &[last_headers(1), last_headers(1)]);
    check_fault(1, closed, &[last_headers(1), trailers(1)]);
    check_fault(1, Reason::PROTOCOL_ERROR, &[headers(1), headers(1)]);
}

#[test]
fn priorities_are_read_and_nothing_is_made_of_them() {
    let priority = |stream, payload: &[u8]| frame(kind::PRIORITY, 0, stream, payload);
    check_ignored(&[
        priority(7, &[0, 0, 0, 1, 9]),
        headers(1),
        priority(1, &[0, 0, 0, 3, 9]),
    ]);
    let short = priority(1, &[0; 4]);
    check_fault(1, Reason::FRAME_SIZE_ERROR, &[headers(1), short]);
    let of_itself = priority(1, &[0x80, 0, 0, 1, 9]);
    check_fault(1, Reason::PROTOCOL_ERROR, &[headers(1), of_itself.clone()]);
    // There is no stream that could be reset.
    for size in [0, 4, 6] {
        let wrong = priority(3, &vec![0; size]);
        check_failure(Reason::FRAME_SIZE_ERROR, from_ref(&wrong));
        let said = [headers(3), reset(3, Reason::CANCEL), wrong];
        check_failure(Reason::FRAME_SIZE_ERROR, &said);
    }
    check_failure(Reason::PROTOCOL_ERROR, &[of_itself]);
}

#[test]
fn frames_that_nobody_knows_are_ignored() {
    for kind in 10..=255 {
        check_ignored(&[frame(kind, 0xff, 1, b"whatever")]);
    }
}

#[test]
fn what_comes_for_a_stream_that_is_over_is_ignored() {
    let mut peer = Peer::new();
    drop(peer.begin(&headers(1)));
    check_frames(&peer.hear(), &[reset(1, Reason::CANCEL)]);
    let late = [
        data(1, &[0; 1_000]),
        window_update(1, 5),
        window_update(1, 0),
        last_headers(1),
        trailers(1),
        reset(1, Reason::CANCEL),
    ];
    peer.say(&late.concat());
    assert_eq!(peer.hear(), []);
    assert!(peer.connection.is_empty());
}

#[test]
fn frames_that_ask_for_nothing_are_few() {
    let data = |flags, payload: &'static [u8]| frame(kind::DATA, flags, 1, payload);
    for (is_over, said) in [
        (false, frame(kind::PING, 0, 0, &[0; 8])),
        (false, settings(&[])),
        (false, frame(kind::SETTINGS, flag::ACK, 0, &[])),
        (false, frame(kind::PRIORITY, 0, 1, &[0; 5])),
        (false, window_update(0, 1)),
        (false, window_update(1, 1)),
        (false, frame(99, 0, 0, &[])),
        (false, data(0, b"")),
        (false, data(0, b"1234")),
        (false, data(flag::PADDED, &[3, 0, 0, 0])),
        (true, data(flag::END_STREAM, b"")),
        (true, last_headers(1)),
        (true, trailers(1)),
        (true, reset(1, Reason::CANCEL)),
    ] {
        let mut peer = Peer::new();
        let halves = Some(peer.begin(&headers(1))).filter(|_| !is_over);
        let failure = peer.try_say(&said.repeat(2_100)).unwrap_err();
        assert_eq!(failure.reason, Reason::ENHANCE_YOUR_CALM);
        assert!(failure.is_flood(), "{said:?}");
        drop(halves);
    }
}

#[test]
fn whoever_is_wrong_too_often_has_to_go() {
    let mut peer = Peer::new();
    let malformed = |stream| frame(kind::HEADERS, flag::END_HEADERS, stream, &[0x83]);
    let said: Vec<u8> = (0..1_024).flat_map(|at| malformed(2 * at + 1)).collect();
    peer.say(&said);
    assert_eq!(peer.hear().len(), 1_024);
    let failure = peer.try_say(&malformed(9_999)).unwrap_err();
    assert_eq!(failure.reason, Reason::ENHANCE_YOUR_CALM);
    assert!(!failure.is_flood());
}
