//! Requests and their heads, and the heads of answers.

use http::{HeaderName, HeaderValue, Method, Version};

use super::*;

const GET_AT_A: &str = "GET http://a/";

fn block(fields: &[&[u8]]) -> Vec<u8> {
    let usual = [&[0x82, 0x86, 0x84][..], &field(":authority", "a")].concat();
    [&[usual.as_slice()], fields].concat().concat()
}

fn request(block: &[u8]) -> Vec<u8> {
    frame(kind::HEADERS, flag::END_HEADERS, 1, block)
}

/// What a head says.
#[track_caller]
fn check(said: &[u8], line: &str, headers: &[(&str, &str)]) {
    let mut peer = Peer::new();
    peer.say(said);
    let head = &peer.requests.first().expect("it has begun").head;
    assert_eq!(format!("{} {}", head.method(), head.uri()), line);
    assert_eq!(head.version(), Version::HTTP_2);
    let said = head
        .headers()
        .iter()
        .map(|(name, value)| (name.as_str(), value.to_str().unwrap()));
    assert_eq!(said.collect::<Vec<_>>(), headers);
}

/// The head is malformed: the stream is reset, and no request begins.
#[track_caller]
fn check_malformed(block: &[u8]) {
    let mut peer = Peer::new();
    peer.say(&request(block));
    check_frames(&peer.hear(), &[reset(1, Reason::PROTOCOL_ERROR)]);
    assert!(peer.requests.is_empty());
    assert!(peer.connection.is_empty());
}

#[test]
fn a_request_is_its_method_its_target_and_its_headers() {
    check(&request(&block(&[])), GET_AT_A, &[]);
    check(&headers(1), "POST /", &[]);
    let said = block(&[&field("te", "trailers"), &field("x", "1"), &field("x", "2")]);
    check(
        &request(&said),
        GET_AT_A,
        &[("te", "trailers"), ("x", "1"), ("x", "2")],
    );
    let target = [
        field(":method", "PUT"),
        field(":scheme", "https"),
        field(":path", "/a?b"),
        vec![0x01, 3, b'b', b':', b'1'],
    ];
    check(&request(&target.concat()), "PUT https://b:1/a?b", &[]);
}

#[test]
fn padding_and_priority_are_no_part_of_a_block() {
    let block = block(&[]);
    let priority = [&[0x80, 0, 0, 3, 7], block.as_slice()].concat();
    let padded = |block: &[u8]| [&[2], block, &[9, 9]].concat();
    let end = flag::END_HEADERS;
    for (flags, payload) in [
        (flag::PRIORITY, priority.clone()),
        (flag::PADDED, padded(&block)),
        (flag::PADDED | flag::PRIORITY, padded(&priority)),
        (flag::PADDED, [&[0], block.as_slice()].concat()),
    ] {
        check(
            &frame(kind::HEADERS, end | flags, 1, &payload),
            GET_AT_A,
            &[],
        );
        let (first, rest) = payload.split_at(payload.len() - 2);
        if flags & flag::PADDED == 0 {
            let begins = frame(kind::HEADERS, flags, 1, first);
            let ends = frame(kind::CONTINUATION, end, 1, rest);
            check(&[begins, ends].concat(), GET_AT_A, &[]);
        }
    }
}

#[test]
fn a_block_goes_on_in_as_many_frames_as_it_takes() {
    let block = block(&[&field("x", "y")]);
    let mut said = frame(kind::HEADERS, flag::END_STREAM, 1, &[]);
    for (at, part) in block.chunks(1).enumerate() {
        let flags = if at + 1 == block.len() {
            flag::END_HEADERS
        } else {
            0
        };
        said.extend(frame(kind::CONTINUATION, flags, 1, part));
    }
    check(&said, GET_AT_A, &[("x", "y")]);
    let mut peer = Peer::new();
    let (inbound, _outbound) = peer.begin(&said);
    assert_eq!(
        read(&inbound),
        (vec![], Some(Ok(()))),
        "it ends with its head"
    );
}

#[test]
fn what_is_no_request_is_reset() {
    let without = |left_out: u8| -> Vec<u8> {
        POST.iter()
            .copied()
            .filter(|index| *index != left_out)
            .collect()
    };
    for index in POST {
        check_malformed(&without(*index));
    }
    let with = |name, value| block(&[&field(name, value)]);
    for (name, value) in [
        (":method", "GET"),
        (":scheme", "http"),
        (":path", "/"),
        (":authority", "a"),
        (":status", "200"),
        (":protocol", "websocket"),
        ("connection", "close"),
        ("keep-alive", "5"),
        ("proxy-connection", "close"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "h2c"),
        ("te", "gzip"),
        ("Upper", "x"),
        ("", "x"),
        ("a b", "x"),
        ("x", "a\nb"),
        ("x", "a\0b"),
        ("content-length", ""),
        ("content-length", "-1"),
        ("content-length", "+1"),
        ("content-length", "1, 1"),
        ("content-length", "99999999999999999999"),
    ] {
        check_malformed(&with(name, value));
    }
    check_malformed(&block(&[
        &field("content-length", "1"),
        &field("content-length", "2"),
    ]));
    let late = [&POST[..2], &field("x", "y"), &POST[2..]].concat();
    check_malformed(&late);
    let empty_path = [&POST[..2], &field(":path", "")].concat();
    check_malformed(&empty_path);
    for path in ["x", "?x", "x/y"] {
        check_malformed(&[&POST[..2], &field(":path", path)].concat());
    }
    let with_user = [POST, &field(":authority", "user@a")].concat();
    check_malformed(&with_user);
    let bad_authority = [POST, &field(":authority", "a b")].concat();
    check_malformed(&bad_authority);
}

#[test]
fn a_malformed_request_leaves_the_table_as_its_sender_knows_it() {
    let mut peer = Peer::new();
    let mut malformed = POST.to_vec();
    malformed.extend([0x40, 1, b'x', 1, b'y', 0x40, 1, b'X', 1, b'y']);
    peer.say(&request(&malformed));
    assert!(peer.requests.is_empty());
    let block = [POST, &[0xbf]].concat();
    peer.say(&frame(kind::HEADERS, flag::END_HEADERS, 3, &block));
    assert_eq!(peer.requests[0].head.headers()["x"], "y");
    assert_eq!(peer.requests[0].head.method(), Method::POST);
}

#[test]
fn a_head_that_is_too_large_is_answered() {
    let large = "y".repeat(120);
    let fields: Vec<Vec<u8>> = (0..30).map(|_| field("x", &large)).collect();
    let block = [POST, &fields.concat()].concat();
    let answer = frame(
        kind::HEADERS,
        flag::END_HEADERS | flag::END_STREAM,
        1,
        b"\x08\x03431",
    );
    let mut peer = Peer::new();
    peer.say(&request(&block));
    check_frames(&peer.hear(), &[answer.clone(), reset(1, Reason::NO_ERROR)]);
    let mut peer = Peer::new();
    peer.say(&frame(
        kind::HEADERS,
        flag::END_HEADERS | flag::END_STREAM,
        1,
        &block,
    ));
    check_frames(&peer.hear(), &[answer]);
    assert!(peer.requests.is_empty() && peer.connection.is_empty());
}

#[test]
fn streams_above_the_limit_are_refused_until_one_is_over() {
    let mut peer = Peer::new();
    for at in 0..STREAMS_MAX as u32 {
        peer.say(&headers(2 * at + 1));
    }
    assert_eq!(peer.connection.open_streams(), STREAMS_MAX);
    peer.say(&headers(9));
    check_frames(&peer.hear(), &[reset(9, Reason::REFUSED_STREAM)]);
    assert_eq!(peer.requests.len(), STREAMS_MAX);
    peer.say(&[reset(1, Reason::CANCEL), headers(11)].concat());
    assert_eq!(peer.hear(), [], "though somebody still holds the first");
    assert_eq!(peer.requests.len(), STREAMS_MAX + 1);
    assert_eq!(peer.connection.last_stream(), 11);
}

#[test]
fn an_answer_s_head_goes_in_frames_that_the_peer_allows() {
    for frame_bytes_max in [16_384, 20_000] {
        let mut peer = Peer::new();
        peer.say(&settings(&[(MAX_FRAME_SIZE, frame_bytes_max)]));
        let (_inbound, mut outbound) = peer.begin(&last_headers(1));
        peer.hear();
        let long = HeaderValue::from_str(&"y".repeat(50_000)).unwrap();
        let fields: HeaderMap = [(HeaderName::from_static("x"), long)].into_iter().collect();
        outbound.send_head(StatusCode::OK, &fields, false).unwrap();
        outbound.send_trailers(&fields).unwrap();
        let heard = peer.hear();
        let frame_bytes_max = frame_bytes_max as usize;
        let sizes: Vec<usize> = heard.iter().map(|frame| frame.payload.len()).collect();
        for (head, bytes, is_last) in [(0, 50_008, 0), (sizes.len() / 2, 50_007, 1)] {
            let of_one = &heard[head..][..sizes.len() / 2];
            assert_eq!(of_one[0].kind, kind::HEADERS);
            assert_eq!(of_one[0].flags, is_last * flag::END_STREAM);
            let (last, full) = of_one.split_last().unwrap();
            assert!(
                full.iter()
                    .all(|frame| frame.payload.len() == frame_bytes_max)
            );
            assert_eq!(
                (last.kind, last.flags),
                (kind::CONTINUATION, flag::END_HEADERS)
            );
            assert!(
                of_one[1..]
                    .iter()
                    .all(|frame| frame.kind == kind::CONTINUATION)
            );
            assert!(full[1..].iter().all(|frame| frame.flags == 0));
            assert!(of_one.iter().all(|frame| frame.stream == 1));
            let all: usize = of_one.iter().map(|frame| frame.payload.len()).sum();
            assert_eq!(all, bytes);
        }
    }
}

#[test]
fn a_block_that_just_fits_is_one_frame() {
    let mut peer = Peer::new();
    let (_inbound, mut outbound) = peer.begin(&headers(1));
    peer.hear();
    // One byte is the status, and six are around the value.
    let exact = HeaderValue::from_str(&"y".repeat(16_384 - 7)).unwrap();
    let fields: HeaderMap = [(HeaderName::from_static("x"), exact)]
        .into_iter()
        .collect();
    outbound.send_head(StatusCode::OK, &fields, false).unwrap();
    let [head] = &peer.hear()[..] else {
        panic!("one frame")
    };
    assert_eq!(
        (head.payload.len(), head.flags),
        (16_384, flag::END_HEADERS)
    );
}
