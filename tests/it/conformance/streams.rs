//! What a stream is at some time, and what may come for it then: RFC 9113, section 5.1.

use prost::Message as _;

use super::*;
use crate::{raw::SUBSCRIBE, support::filter};

/// A call that has ended its request and is not answered to the end: half closed, for its peer.
fn half_closed() -> Vec<Step> {
    let request = attack::last_message(1, &filter("t").encode_to_vec());
    vec![
        headers(END_HEADERS, 1, &attack::grpc_request(SUBSCRIBE)),
        Step::Say(request),
    ]
}

fn trailers(stream: u32) -> Step {
    headers(WHOLE, stream, &field("x", "y"))
}

#[tokio::test]
async fn idle_streams_begin_with_headers_alone() {
    const MUST: Must = End(PROTOCOL_ERROR);
    check(cases! {
        "5.1" "DATA": [data(0, 1, b"x")] => MUST;
        "5.1" "a reset": [reset(1, CANCEL)] => MUST;
        "5.1" "a window": [window_update(1, 1)] => MUST;
        "5.1" "a continuation": [continuation(END_HEADERS, 1, &get())] => MUST;
        "5.1" "DATA above the newest stream": [open(), data(0, 3, b"x")] => MUST;
        "5.1" "a reset above the newest stream": [open(), reset(3, CANCEL)] => MUST;
        "5.1" "a window above the newest stream": [open(), window_update(3, 1)] => MUST;
        "5.1" "DATA of the broker's streams": [open(), data(0, 2, b"x")] => MUST;
        "5.1" "a reset of the broker's streams": [headers(WHOLE, 3, &get()), reset(2, CANCEL)] => MUST;
        "5.1" "a window of the broker's streams": [headers(WHOLE, 3, &get()), window_update(2, 1)] => MUST;
    })
    .await;
}

#[tokio::test]
async fn a_half_closed_stream_says_no_more() {
    const MUST: Must = Reset(1, STREAM_CLOSED);
    check(cases! {
        "5.1" "half closed": half_closed() => Pass;
        "5.1" "DATA": then(half_closed(), [data(0, 1, b"x")]) => MUST;
        "5.1" "its end once more": then(half_closed(), [data(END_STREAM, 1, &[])]) => MUST;
        "5.1" "headers": then(half_closed(), [headers(END_HEADERS, 1, &get())]) => MUST;
        "5.1" "trailers": then(half_closed(), [trailers(1)]) => MUST;
        "5.1" "a continuation": then(half_closed(), [continuation(END_HEADERS, 1, &[])]) => End(PROTOCOL_ERROR);
        "5.1" "a window": then(half_closed(), [window_update(1, 1)]) => Pass;
        "5.1" "a priority": then(half_closed(), [priority(1, &[0; 5])]) => Pass;
        "5.1" "a reset": then(half_closed(), [reset(1, CANCEL)]) => Pass;
    })
    .await;
}

/// What may have been on its way is read, and nothing comes of it; DATA cannot have been, where its peer had ended the
/// stream itself (section 5.1, closed).
#[tokio::test]
async fn what_comes_for_a_closed_stream_is_ignored_if_it_was_on_its_way() {
    let resets = || vec![open(), reset(1, CANCEL)];
    let answered = || vec![headers(WHOLE, 1, &get()), HearEnd(1)];
    let refers = &[METHOD_GET, SCHEME_HTTP, 0xbe];
    // The broker is the one who resets: a second head is malformed.
    let refused = || vec![publish(1), headers(END_HEADERS, 1, &get())];
    check(cases! {
        "5.1" "DATA after its peer's reset": then(resets(), [data(0, 1, b"x")]) => End(STREAM_CLOSED);
        "5.1" "headers after its peer's reset": then(resets(), [headers(WHOLE, 1, &get())]) => Pass;
        "5.1" "a window after its peer's reset": then(resets(), [window_update(1, 1)]) => Pass;
        "5.1" "a reset after its peer's reset": then(resets(), [reset(1, CANCEL)]) => Pass;
        "5.1" "a continuation after its peer's reset":
            then(resets(), [continuation(END_HEADERS, 1, &[])]) => End(PROTOCOL_ERROR);
        "5.1" "DATA after its end": then(answered(), [data(0, 1, b"x")]) => End(STREAM_CLOSED);
        "5.1" "headers after its end": then(answered(), [headers(WHOLE, 1, &get())]) => Pass;
        "5.1" "a window after its end": then(answered(), [window_update(1, 1)]) => Pass;
        "5.1" "a reset after its end": then(answered(), [reset(1, CANCEL)]) => Pass;
        "5.1" "a continuation after its end":
            then(answered(), [continuation(END_HEADERS, 1, &[])]) => End(PROTOCOL_ERROR);
        "5.1" "DATA after the broker's reset": then(refused(), [data(0, 1, b"x")]) => Reset(1, PROTOCOL_ERROR);
        "5.1" "trailers after the broker's reset": then(refused(), [trailers(1)]) => Reset(1, PROTOCOL_ERROR);
        "5.1" "a window after the broker's reset":
            then(refused(), [window_update(1, 1)]) => Reset(1, PROTOCOL_ERROR);
        "5.1" "a reset after the broker's reset":
            then(refused(), [reset(1, CANCEL)]) => Reset(1, PROTOCOL_ERROR);
        "5.1" "headers that others refer to":
            then(resets(), [headers(WHOLE, 1, b"\x44\x07/health"), headers(WHOLE, 3, refers), HearEnd(3)]) => Pass;
    })
    .await;
}

#[tokio::test]
async fn streams_have_odd_numbers_that_only_grow() {
    const MUST: Must = End(PROTOCOL_ERROR);
    let get_on = |stream| headers(WHOLE, stream, &get());
    let open_on = |stream| headers(END_HEADERS, stream, &attack::grpc_request(PUBLISH_STREAM));
    check(cases! {
        "5.1.1" "an even number": [get_on(2)] => MUST;
        "5.1.1" "an even number later": [get_on(1), HearEnd(1), get_on(4)] => MUST;
        "5.1.1" "numbers that are left out": [get_on(5), HearEnd(5), get_on(101), HearEnd(101)] => Pass;
        "5.1.1" "a number that was left out": [get_on(5), HearEnd(5), get_on(3)] => MUST;
        "5.1.1" "the first one, left out": [open_on(3), get_on(1)] => MUST;
        "5.1.1" "the last one, left out": [get_on(1001), HearEnd(1001), get_on(999)] => MUST;
        "5.1.1" "headers without an end of one that was left out": [get_on(5), HearEnd(5), open_on(3)] => MUST;
        "5.1.1" "the largest number": [get_on(LAST - 2), HearEnd(LAST - 2)] => Pass;
    })
    .await;
}

#[tokio::test]
async fn more_streams_than_the_broker_allows_are_refused() {
    const STREAMS_MAX: u32 = 256 + 64;
    let open_on = |at| {
        headers(
            END_HEADERS,
            2 * at + 1,
            &attack::grpc_request(PUBLISH_STREAM),
        )
    };
    let newest = 2 * STREAMS_MAX + 1;
    let too_many = (0..=STREAMS_MAX).map(open_on).collect();
    let all = (0..STREAMS_MAX).map(open_on).collect();
    check(cases! {
        "5.1.2" "one too many": then(too_many, [reset(1, CANCEL)]) => Reset(newest, REFUSED_STREAM);
        "5.1.2" "one after another is over":
            then(all, [reset(1, CANCEL), open_on(STREAMS_MAX), reset(3, CANCEL)]) => Pass;
    })
    .await;
}
