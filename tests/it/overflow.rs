//! What a subscriber that falls behind loses, and that nothing is lost without saying so.
//!
//! The slow reader is a connection whose window is closed: the first message leaves the mailbox and
//! waits at the connection, those after it fill the mailbox, and all stays so until the test opens
//! the window.

use fanfare::{
    broker::{Limits, Receipt},
    server::ServerConfig,
    wire::pb::{OverflowPolicy, PublishRequest, PublishResponse, SubscribeRequest},
};
use tonic::Code;

use crate::{
    raw::{Raw, Response},
    support::{Running, filter, message, next, subscribe, within},
};

const CAPACITY: u32 = 4;

fn request(policy: OverflowPolicy) -> SubscribeRequest {
    SubscribeRequest {
        overflow_policy: policy.into(),
        mailbox_capacity: CAPACITY,
        ..filter("t")
    }
}

/// A subscriber that has been sent sequence 1, takes nothing, and has an empty mailbox.
async fn stuck(broker: &Running, request: SubscribeRequest) -> (Raw, Response) {
    let mut raw = Raw::connect_with_window(broker.address, 0).await;
    let stream = raw.subscribe(request).await;
    broker.publish("t", "1");
    broker.until(|s| s.ledger.delivered == 1).await;
    (raw, stream)
}

/// Publishes sequences 2 to 11 through gRPC; (matched, delivered, dropped, displaced) of each.
async fn publish_ten(broker: &Running) -> Vec<(u32, u32, u32, u64)> {
    let mut client = broker.client().await;
    let mut counts = Vec::new();
    for number in 2..=11 {
        let reply = within(client.publish(message("t", &number.to_string()))).await;
        let PublishResponse {
            matched,
            delivered,
            dropped,
            displaced,
            ..
        } = reply.unwrap().into_inner();
        counts.push((matched, delivered, dropped, displaced));
        assert!(broker.broker.snapshot().ledger.balances());
    }
    counts
}

fn missed_metric(reason: &str) -> String {
    format!("fanfare_missed_messages_total{{reason=\"{reason}\"}}")
}

#[tokio::test]
async fn drop_newest_keeps_the_oldest_and_tells_the_loss_though_nothing_follows() {
    for policy in [OverflowPolicy::Unspecified, OverflowPolicy::DropNewest] {
        let broker = Running::start().await;
        let (raw, mut stream) = stuck(&broker, request(policy)).await;
        let counts = publish_ten(&broker).await;
        assert_eq!(counts[..4], [(1, 1, 0, 0); 4]);
        assert_eq!(counts[4..], [(1, 0, 1, 0); 6]);

        raw.set_window(65_535).await;
        // The loss is told with the first message that is sent after it, before those that wait.
        for expected in [(1, 0), (2, 6), (3, 0), (4, 0), (5, 0)] {
            let response = stream.next().await;
            assert_eq!((response.sequence, response.missed), expected);
        }
        assert_eq!(broker.metric(&missed_metric("drop_newest")).await, 6);
        assert_eq!(broker.metric("fanfare_delivered_messages_total").await, 5);
        assert_eq!(broker.metric("fanfare_matched_messages_total").await, 11);
        assert_eq!(broker.metric("fanfare_buffered_bytes").await, 0);
    }
}

#[tokio::test]
async fn drop_oldest_keeps_the_newest_and_tells_the_loss_though_nothing_follows() {
    let broker = Running::start().await;
    let (raw, mut stream) = stuck(&broker, request(OverflowPolicy::DropOldest)).await;
    let counts = publish_ten(&broker).await;
    assert_eq!(counts[..4], [(1, 1, 0, 0); 4]);
    assert_eq!(counts[4..], [(1, 1, 0, 1); 6]);

    raw.set_window(65_535).await;
    for expected in [(1, 0), (8, 6), (9, 0), (10, 0), (11, 0)] {
        let response = stream.next().await;
        assert_eq!((response.sequence, response.missed), expected);
    }
    assert_eq!(broker.metric(&missed_metric("drop_oldest")).await, 6);
}

#[tokio::test]
async fn disconnect_ends_the_subscription_and_tells_all_that_was_lost() {
    let broker = Running::start().await;
    let (raw, stream) = stuck(&broker, request(OverflowPolicy::Disconnect)).await;
    let counts = publish_ten(&broker).await;
    assert_eq!(counts[..4], [(1, 1, 0, 0); 4]);
    assert_eq!(counts[4], (1, 0, 1, 4));
    assert_eq!(counts[5..], [(0, 0, 0, 0); 5]);
    let snapshot = broker.broker.snapshot();
    assert_eq!(snapshot.ledger.buffered, 0);
    assert!(
        snapshot.buffered_bytes < 500,
        "what its stream holds: {snapshot:?}"
    );

    raw.set_window(65_535).await;
    let (responses, status, trailers) = stream.responses().await;
    let responses: Vec<_> = responses.iter().map(|r| (r.sequence, r.missed)).collect();
    assert_eq!(responses, [(1, 0)]);
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert_eq!(trailers["fanfare-missed"], "5");
    broker.until(|s| s.subscriptions == 0).await;
    assert_eq!(broker.metric(&missed_metric("disconnect")).await, 5);
}

#[tokio::test]
async fn a_second_loss_is_told_on_its_own_account() {
    let broker = Running::start().await;
    let (raw, mut stream) = stuck(&broker, request(OverflowPolicy::DropNewest)).await;
    publish_ten(&broker).await;
    raw.set_window(65_535).await;
    for _ in 1..=5 {
        stream.next().await;
    }
    // Nothing runs between these: the mailbox fills once more.
    let receipts: Vec<_> = (0..7).map(|_| broker.publish("t", "")).collect();
    assert_eq!(receipts.iter().map(|r| r.dropped).sum::<u32>(), 3);
    for expected in [(12, 3), (13, 0), (14, 0), (15, 0)] {
        let response = stream.next().await;
        assert_eq!((response.sequence, response.missed), expected);
    }
}

#[tokio::test]
async fn a_neighbour_of_a_slow_reader_gets_every_message() {
    let broker = Running::start().await;
    let mut quick = subscribe(&broker.client().await, filter("t")).await;
    let mut raw = Raw::connect_with_window(broker.address, 0).await;
    let _stuck = raw.subscribe(request(OverflowPolicy::DropNewest)).await;
    let mut client = broker.client().await;
    for sequence in 1..=50 {
        within(client.publish(message("t", "x"))).await.unwrap();
        let response = next(&mut quick).await;
        assert_eq!((response.sequence, response.missed), (sequence, 0));
    }
}

#[tokio::test]
async fn the_bound_in_bytes_overflows_like_the_bound_in_messages() {
    let limits = Limits {
        payload_bytes_max: 1_000,
        mailbox_bytes: 20_000,
        ..Limits::default()
    };
    let broker = Running::start_with(ServerConfig::default(), limits).await;
    let request = SubscribeRequest {
        mailbox_capacity: 1_000,
        ..request(OverflowPolicy::DropNewest)
    };
    let (raw, mut stream) = stuck(&broker, request).await;
    let receipts: Vec<_> = (0..50).map(|_| broker.publish("t", [0; 1_000])).collect();
    let taken = receipts.iter().filter(|r| r.delivered == 1).count() as u64;
    // A message counts for its payload, its topic and a fixed overhead.
    assert_eq!(taken, 20_000 / (1_000 + 1 + 256));
    let buffered = broker.broker.snapshot().buffered_bytes;
    assert!(buffered <= 20_000, "{buffered}");

    raw.set_window(1 << 20).await;
    assert_eq!(stream.next().await.sequence, 1);
    let first = stream.next().await;
    assert_eq!((first.sequence, first.missed), (2, 50 - taken));
    for sequence in 3..=taken + 1 {
        let response = stream.next().await;
        assert_eq!((response.sequence, response.missed), (sequence, 0));
    }
}

#[tokio::test]
async fn a_loss_with_no_message_to_go_with_is_told_on_its_own() {
    let limits = Limits {
        payload_bytes_max: 1_000,
        attributes_bytes_max: 0,
        ..Limits::default()
    };
    let room = limits.message_bytes_max();
    let limits = Limits {
        buffered_bytes_max: room,
        ..limits
    };
    let broker = Running::start_with(ServerConfig::default(), limits).await;
    let (_raw, _stuck) = stuck(&broker, filter("t")).await;
    let mut quick = subscribe(&broker.client().await, filter("other")).await;
    // The slow reader's mailbox holds what all mailboxes together may hold.
    assert_eq!(broker.publish("t", [0; 1_000]).delivered, 1);
    let Receipt {
        matched, dropped, ..
    } = broker.publish("other", [0; 1_000]);
    assert_eq!((matched, dropped), (1, 1));
    let notice = next(&mut quick).await;
    assert_eq!((notice.sequence, notice.missed), (0, 1));
    assert_eq!(notice.topic, "");
    let refusals = "fanfare_buffered_bytes_refusals_total";
    assert_eq!(broker.metric(refusals).await, 1);
    // A small message still finds room.
    assert_eq!(broker.publish("other", "x").delivered, 1);
    assert_eq!(next(&mut quick).await.payload, "x");
}

#[tokio::test]
async fn what_was_published_is_delivered_or_told_as_missed_however_slow_the_reader() {
    for policy in [OverflowPolicy::DropNewest, OverflowPolicy::DropOldest] {
        let broker = Running::start().await;
        let mut raw = Raw::connect_with_window(broker.address, 10_000).await;
        let mut stream = raw.subscribe(request(policy)).await;
        let mut publisher = broker.client().await;
        let (mut delivered, mut missed, mut last) = (0, 0, 0);
        // Two thirds of what is published finds no room.
        for _ in 0..20 {
            for _ in 0..30 {
                let request = PublishRequest {
                    payload: vec![0; 3_000].into(),
                    ..message("t", "")
                };
                within(publisher.publish(request)).await.unwrap();
            }
            for _ in 0..10 {
                let response = stream.next().await;
                delivered += u64::from(response.sequence > 0);
                missed += response.missed;
                assert!(response.sequence > last, "in order");
                last = response.sequence;
                if broker.broker.snapshot().ledger.buffered == 0 {
                    break;
                }
            }
        }
        raw.set_window(1 << 20).await;
        broker.until(|s| s.ledger.buffered == 0).await;
        broker.shut_down();
        let (rest, _, trailers) = stream.responses().await;
        delivered += rest.iter().filter(|r| r.sequence > 0).count() as u64;
        missed += rest.iter().map(|r| r.missed).sum::<u64>();
        assert!(!trailers.contains_key("fanfare-missed"));
        assert!(missed > 0, "the reader was slow");
        assert_eq!(delivered + missed, 600);
    }
}
