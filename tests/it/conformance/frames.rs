//! Frames of streams, and what each must be: RFC 9113, sections 4.2, 4.3, 6.1 to 6.4, 6.6 and 6.10.

use super::*;

#[tokio::test]
async fn no_frame_is_larger_than_the_broker_allows() {
    const MUST: Must = End(FRAME_SIZE_ERROR);
    const LARGE: usize = FRAME_BYTES_MAX + 1;
    let large = |kind, stream| vec![open(), head_of(LARGE, kind, 0, stream)];
    // Beside the payload: gRPC's prefix, the topic, and the payload's tag and length.
    let longest = crate::raw::frame(&message("t", &"x".repeat(FRAME_BYTES_MAX - 5 - 3 - 3)));
    assert_eq!(longest.len(), FRAME_BYTES_MAX);
    check(cases! {
        "4.2" "the largest DATA": [publish(1), data(END_STREAM, 1, &longest)] => Succeed;
        "4.2" "DATA above that": large(DATA, 1) => MUST;
        "4.2" "headers above that": large(HEADERS, 3) => MUST;
        "4.2" "settings above that": large(SETTINGS, 0) => MUST;
        "4.2" "a goodbye above that": large(GOAWAY, 0) => MUST;
        "4.2" "a frame above that which nobody knows": large(0xfa, 0) => MUST;
        "4.2" "the largest there could be": [head_of((1 << 24) - 1, DATA, 0, 1)] => MUST;
    })
    .await;
}

#[tokio::test]
async fn a_header_block_comes_in_one_go() {
    const MUST: Must = End(PROTOCOL_ERROR);
    let (first, rest) = (&get()[..5], &get()[5..]);
    let begun = || headers(END_STREAM, 1, first);
    let goes_on = || continuation(0, 1, &[]);
    let ends = || continuation(END_HEADERS, 1, rest);
    let many: Vec<Step> = [headers(END_STREAM, 1, &[])]
        .into_iter()
        .chain(get().chunks(2).map(|bytes| continuation(0, 1, bytes)))
        .chain([continuation(END_HEADERS, 1, &[])])
        .collect();
    check(cases! {
        "4.3" "all in one frame": [headers(WHOLE, 1, &get())] => Answer(200);
        "6.10" "in two frames": [begun(), ends()] => Answer(200);
        "6.10" "in three": [begun(), goes_on(), ends()] => Answer(200);
        "6.10" "in one for every two bytes": many => Answer(200);
        "6.10" "the request's end is said at the beginning alone":
            [begun(), continuation(WHOLE, 1, rest)] => Answer(200);
        "4.3" "a priority in it": [begun(), priority(1, &[0, 0, 0, 0, 9]), ends()] => MUST;
        "6.2" "headers of another stream in it": [begun(), headers(WHOLE, 3, &get()), ends()] => MUST;
        "6.2" "its own headers in it": [begun(), headers(WHOLE, 1, &get()), ends()] => MUST;
        "6.10" "DATA in it": [begun(), data(0, 1, b"x"), ends()] => MUST;
        "6.10" "a ping in it": [begun(), ping(0, 0, &[0; 8]), ends()] => MUST;
        "6.10" "settings in it": [begun(), settings(&[]), ends()] => MUST;
        "6.10" "a window in it": [begun(), window_update(0, 1), ends()] => MUST;
        "6.10" "a reset in it": [begun(), reset(1, CANCEL), ends()] => MUST;
        "6.10" "a goodbye in it": [begun(), goaway(0, NO_ERROR), ends()] => MUST;
        "6.10" "another frame after a part of it": [begun(), goes_on(), data(0, 1, b"x")] => MUST;
        "6.10" "another stream's continuation": [begun(), continuation(END_HEADERS, 3, rest)] => MUST;
        "6.10" "the connection's": [begun(), continuation(END_HEADERS, 0, rest)] => MUST;
        "6.10" "a continuation of nothing": [continuation(END_HEADERS, 1, &get())] => MUST;
        "6.10" "one after the end of headers": [open(), continuation(END_HEADERS, 1, &[])] => MUST;
        "6.10" "one after the last one": [begun(), ends(), continuation(END_HEADERS, 1, &[])] => MUST;
        "6.10" "one after DATA": [open(), data(0, 1, &[0]), continuation(END_HEADERS, 1, &[])] => MUST;
        "6.10" "more of them than any block takes":
            [begun(), Step::Say(attack::frame(CONTINUATION, 0, 1, &[0]).repeat(32))] => End(ENHANCE_YOUR_CALM);
    })
    .await;
}

/// A body in frames with this much padding.
fn padded(content: &[u8], padding: u8) -> Vec<u8> {
    [&[padding], content, &vec![0; padding.into()]].concat()
}

#[tokio::test]
async fn data_is_of_an_open_stream_and_has_no_more_padding_than_payload() {
    const LAST_AND_PADDED: u8 = END_STREAM | PADDED;
    let (first, rest) = (&body()[..3], &body()[3..]);
    let whole = padded(&body(), 255);
    check(cases! {
        "6.1" "all in one frame": [publish(1), data(END_STREAM, 1, &body())] => Succeed;
        "6.1" "in several":
            [publish(1), data(0, 1, first), data(0, 1, &[]), data(END_STREAM, 1, rest)] => Succeed;
        "6.1" "an empty frame at its end":
            [publish(1), data(0, 1, &body()), data(END_STREAM, 1, &[])] => Succeed;
        "6.1" "padded": [publish(1), data(LAST_AND_PADDED, 1, &whole)] => Succeed;
        "6.1" "padded by nothing": [publish(1), data(LAST_AND_PADDED, 1, &padded(&body(), 0))] => Succeed;
        "6.1" "nothing but padding":
            [publish(1), data(PADDED, 1, &padded(&[], 7)), data(END_STREAM, 1, &body())] => Succeed;
        "6.1" "as much padding as payload": [open(), data(PADDED, 1, &[5, 0, 0, 0, 0])] => End(PROTOCOL_ERROR);
        "6.1" "more padding than payload": [open(), data(PADDED, 1, &[255, 0, 0, 0, 0])] => End(PROTOCOL_ERROR);
        "6.1" "no room for the padding's length": [open(), data(PADDED, 1, &[])] => End(FRAME_SIZE_ERROR);
        "6.1" "of no stream": [data(0, 0, b"x")] => End(PROTOCOL_ERROR);
    })
    .await;
}

#[tokio::test]
async fn headers_have_room_for_what_their_flags_say() {
    const ALL: u8 = WHOLE | PADDED | HAS_PRIORITY;
    let prioritised = [&[0x80, 0, 0, 0, 255], &get()[..]].concat();
    let of_itself = [&[0, 0, 0, 1, 9], &get()[..]].concat();
    let send = |flags, payload: &[u8]| vec![headers(WHOLE | flags, 1, payload)];
    check(cases! {
        "6.2" "padded": send(PADDED, &padded(&get(), 255)) => Answer(200);
        "6.2" "padded by nothing": send(PADDED, &padded(&get(), 0)) => Answer(200);
        "6.2" "with a priority": send(HAS_PRIORITY, &prioritised) => Answer(200);
        "6.2" "with both": send(ALL, &padded(&prioritised, 9)) => Answer(200);
        "6.2" "more padding than payload": send(PADDED, &[9, METHOD_GET]) => End(PROTOCOL_ERROR);
        "6.2" "padding in place of a priority": send(ALL, &[1, 0, 0, 0, 3, 0]) => End(PROTOCOL_ERROR);
        "4.2" "no room for the padding's length": send(PADDED, &[]) => End(FRAME_SIZE_ERROR);
        "4.2" "no room for a priority": send(HAS_PRIORITY, &[0; 4]) => End(FRAME_SIZE_ERROR);
        "4.2" "no room for both": send(ALL, &[0; 5]) => End(FRAME_SIZE_ERROR);
        "6.2" "of no stream": [headers(WHOLE, 0, &get())] => End(PROTOCOL_ERROR);
        // RFC 7540, section 5.3.1, which RFC 9113 has taken back.
        "5.3.1" "a stream that depends on itself": send(HAS_PRIORITY, &of_itself) => End(PROTOCOL_ERROR);
    })
    .await;
}

#[tokio::test]
async fn priorities_are_read_and_nothing_is_made_of_them() {
    let short = || priority(1, &[0; 4]);
    let long = || priority(1, &[0; 6]);
    let of_itself = || priority(1, &[0x80, 0, 0, 1, 9]);
    let answered = || vec![headers(WHOLE, 1, &get()), HearEnd(1)];
    check(cases! {
        "6.3" "of the first weight": [open(), priority(1, &[0, 0, 0, 0, 0])] => Pass;
        "6.3" "of the last weight": [open(), priority(1, &[0, 0, 0, 0, 255])] => Pass;
        "6.3" "alone below another stream": [open(), priority(1, &[0x80, 0, 0, 9, 7])] => Pass;
        "5.1" "of an idle stream": [priority(1, &[0, 0, 0, 3, 9]), headers(WHOLE, 1, &get())] => Answer(200);
        "5.1" "of one that is lower than others":
            [priority(9, &[0; 5]), headers(WHOLE, 1, &get())] => Answer(200);
        "5.1" "of a closed stream": [answered(), vec![priority(1, &[0, 0, 0, 3, 9])]].concat() => Pass;
        "6.3" "of no stream": [priority(0, &[0; 5])] => End(PROTOCOL_ERROR);
        "6.3" "a short one": [open(), short()] => Reset(1, FRAME_SIZE_ERROR);
        "6.3" "a long one": [open(), long()] => Reset(1, FRAME_SIZE_ERROR);
        "6.3" "a short one of an idle stream": [short()] => End(FRAME_SIZE_ERROR);
        "6.3" "a long one of a closed stream": [answered(), vec![long()]].concat() => End(FRAME_SIZE_ERROR);
        // RFC 7540, section 5.3.1.
        "5.3.1" "a stream that depends on itself": [open(), of_itself()] => Reset(1, PROTOCOL_ERROR);
        "5.3.1" "an idle one that does": [of_itself()] => End(PROTOCOL_ERROR);
    })
    .await;
}

#[tokio::test]
async fn resets_and_promises() {
    let promise = |stream| {
        frame(
            PUSH_PROMISE,
            END_HEADERS,
            stream,
            &[&[0, 0, 0, 2], &get()[..]].concat(),
        )
    };
    check(cases! {
        "6.4" "a reset": [open(), reset(1, CANCEL)] => Pass;
        "6.4" "a reset of no stream": [reset(0, CANCEL)] => End(PROTOCOL_ERROR);
        "6.4" "a reset of an idle stream": [reset(1, CANCEL)] => End(PROTOCOL_ERROR);
        "6.4" "a short reset": [open(), frame(RST_STREAM, 0, 1, &[0; 3])] => End(FRAME_SIZE_ERROR);
        "6.4" "a long reset": [open(), frame(RST_STREAM, 0, 1, &[0; 5])] => End(FRAME_SIZE_ERROR);
        "8.4" "a promise on an open stream": [open(), promise(1)] => End(PROTOCOL_ERROR);
        "6.6" "a promise on an idle stream": [promise(1)] => End(PROTOCOL_ERROR);
        "6.6" "a promise of no stream": [promise(0)] => End(PROTOCOL_ERROR);
    })
    .await;
}
