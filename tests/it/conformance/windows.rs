//! Flow control: RFC 9113, sections 5.2 and 6.9.

use prost::Message as _;

use super::*;
use crate::{raw::SUBSCRIBE, support::filter};

const WINDOW_MAX: u32 = (1 << 31) - 1;
/// What is left to the largest window from what it is at first.
const LEFT: u32 = WINDOW_MAX - 65_535;

/// The window of each stream.
fn window(bytes: u32) -> Step {
    settings(&[(INITIAL_WINDOW_SIZE, bytes)])
}

#[tokio::test]
async fn windows_are_opened_by_something_and_not_too_far() {
    let opened = |stream, bytes| vec![open(), window_update(stream, bytes)];
    check(cases! {
        "6.9" "the connection's by nothing": opened(0, 0) => End(PROTOCOL_ERROR);
        "6.9" "a stream's by nothing": opened(1, 0) => Reset(1, PROTOCOL_ERROR);
        "6.9" "by a short frame": [open(), frame(WINDOW_UPDATE, 0, 1, &[0; 3])] => End(FRAME_SIZE_ERROR);
        "6.9" "by a long frame": [open(), frame(WINDOW_UPDATE, 0, 0, &[0; 5])] => End(FRAME_SIZE_ERROR);
        "6.9.1" "the connection's as far as it goes": opened(0, LEFT) => Pass;
        "6.9.1" "the connection's too far": opened(0, LEFT + 1) => End(FLOW_CONTROL_ERROR);
        "6.9.1" "the connection's too far in two steps":
            [window_update(0, LEFT), window_update(0, 1)] => End(FLOW_CONTROL_ERROR);
        "6.9.1" "a stream's as far as it goes": opened(1, LEFT) => Pass;
        "6.9.1" "a stream's too far": opened(1, LEFT + 1) => Reset(1, FLOW_CONTROL_ERROR);
        "6.9.1" "a stream's too far in two steps":
            [open(), window_update(1, LEFT), window_update(1, 1)] => Reset(1, FLOW_CONTROL_ERROR);
        "6.9.2" "all streams' too far":
            [open(), window_update(1, LEFT), window(65_536)] => End(FLOW_CONTROL_ERROR);
    })
    .await;
}

#[tokio::test]
async fn no_more_is_sent_than_a_stream_s_window() {
    // The page at `/` has some thousands of bytes.
    let request = || headers(WHOLE, 1, b"\x82\x86\x84\x01\x01a");
    check(cases! {
        "6.9.1" "a window of one byte": [window(1), request(), HearBytes(1, 1)] => Send(&[1]);
        "6.9.1" "one byte more":
            [window(1), request(), HearBytes(1, 1), window_update(1, 1), HearBytes(1, 2)] => Send(&[1, 1]);
        "6.9.1" "and all the rest": [window(1), request(), HearBytes(1, 1), window_update(1, 1 << 20)] => Answer(200);
        "6.9.2" "opened by settings": [window(0), request(), window(1), HearBytes(1, 1)] => Send(&[1]);
        "6.9.2" "below nothing":
            [window(2), request(), HearBytes(1, 2), window(0), window_update(1, 2)] => Send(&[2]);
        "6.9.2" "from below nothing to one byte":
            [window(2), request(), HearBytes(1, 2), window(0), window_update(1, 3), HearBytes(1, 3)]
                => Send(&[2, 1]);
    })
    .await;
}

/// A subscription, whose answer is as long as what is published.
#[tokio::test]
async fn no_more_is_sent_than_the_connection_s_window_and_in_frames_of_their_size() {
    const PAYLOAD_BYTES: usize = 100_000;
    let broker = Running::start().await;
    let mut peer = Peer::connect(broker.address, &opening()).await;
    let request = attack::last_message(1, &filter("t").encode_to_vec());
    let subscribe = headers(END_HEADERS, 1, &attack::grpc_request(SUBSCRIBE));
    let steps = [window(WINDOW_MAX), subscribe, Step::Say(request)];
    assert!(peer.act(&steps).await);
    broker.until(|snapshot| snapshot.subscriptions == 1).await;
    broker.publish("t", vec![0; PAYLOAD_BYTES]);
    for (opened, sent) in [(0, 65_535), (1, 65_536), (10_000, 75_536)] {
        let more = Some(window_update(0, opened)).filter(|_| opened > 0);
        assert!(peer.act(&Vec::from_iter(more)).await);
        assert!(peer.act(&[HearBytes(1, sent)]).await && peer.sync().await);
        let sizes = &peer.heard.answers[&1].data;
        assert_eq!(sizes.iter().sum::<usize>(), sent, "6.9.1");
        assert!(sizes.iter().all(|bytes| *bytes <= FRAME_BYTES_MAX), "4.2");
    }
    peer.say(&attack::frame(SETTINGS, 0, 0, &[0, 5, 0, 0, 0x50, 0]))
        .await;
    assert!(
        peer.act(&[window_update(0, 1 << 20), HearBytes(1, PAYLOAD_BYTES)])
            .await
    );
    let largest = peer.heard.answers[&1].data.iter().max();
    assert_eq!(
        largest,
        Some(&0x5000),
        "6.5.2: a frame's size is what its peer allows"
    );
}

/// A call that has read its first requests and waits for its answers to leave, so that it reads no more.
fn unread(stream: u32) -> Vec<Step> {
    const REFLECTION: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
    const LIST: &[u8] = b"\0\0\0\0\x02\x3a\0";
    const STREAM_WINDOW: usize = 65_536;
    let requests = LIST.repeat(200);
    let mut left = STREAM_WINDOW - requests.len();
    let mut steps = vec![
        window(1),
        headers(END_HEADERS, stream, &attack::grpc_request(REFLECTION)),
        data(0, stream, &requests),
        HearBytes(stream, 1),
    ];
    while left > 0 {
        let bytes = left.min(FRAME_BYTES_MAX);
        steps.push(data(0, stream, &vec![0; bytes]));
        left -= bytes;
    }
    steps
}

#[tokio::test]
async fn a_peer_that_exceeds_its_windows_is_told() {
    // So many streams' windows are the connection's.
    let all = || (0..64).flat_map(|at| unread(2 * at + 1));
    let newest = headers(END_HEADERS, 129, &attack::grpc_request(PUBLISH_STREAM));
    check(cases! {
        "6.9.1" "a stream's window is used up": unread(1) => Pass;
        "6.9.1" "one byte above that": then(unread(1), [data(0, 1, &[0])]) => Reset(1, FLOW_CONTROL_ERROR);
        "6.9.1" "an empty frame above that": then(unread(1), [data(0, 1, &[])]) => Pass;
        "6.9.1" "the connection's window is used up": all().collect::<Vec<_>>() => Pass;
        "6.9.1" "one byte above that":
            then(all().collect(), [newest, data(0, 129, &[0])]) => End(FLOW_CONTROL_ERROR);
    })
    .await;
}
