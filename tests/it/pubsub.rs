//! Publishing and subscribing through gRPC.

use crate::support::{Running, filter, message, next, payloads, subscribe, within};

#[tokio::test]
async fn two_subscribers_both_get_every_message() {
    let broker = Running::start().await;
    let mut client = broker.client().await;
    let mut first = subscribe(&client, filter("gocn")).await;
    let mut second = subscribe(&broker.client().await, filter("gocn")).await;
    for payload in ["hello, gophers!", "again"] {
        let reply = within(client.publish(message("gocn", payload))).await;
        let reply = reply.unwrap().into_inner();
        assert_eq!((reply.matched, reply.delivered, reply.dropped), (2, 2, 0));
    }
    for stream in [&mut first, &mut second] {
        assert_eq!(payloads(stream, 2).await, ["hello, gophers!", "again"]);
    }
}

#[tokio::test]
async fn a_message_arrives_with_all_that_it_was_published_with() {
    let broker = Running::start().await;
    let mut client = broker.client().await;
    let mut stream = subscribe(&client, filter("a.*")).await;
    let mut request = message("a.b", "payload");
    request.attributes = [("ce-id".to_owned(), "1".to_owned())].into();
    request.tag = "tag".to_owned();
    request.key = "the key".to_owned();
    request.id = "mine".to_owned();
    let reply = within(client.publish(request.clone())).await.unwrap();
    let reply = reply.into_inner();
    let got = next(&mut stream).await;
    assert_eq!(got.payload, request.payload);
    assert_eq!(got.topic, "a.b");
    assert_eq!(got.attributes, request.attributes);
    assert_eq!((got.tag, got.key), (request.tag, request.key));
    assert_eq!((got.id.as_str(), reply.id.as_str()), ("mine", "mine"));
    assert_eq!((got.sequence, got.epoch), (1, reply.epoch));
    assert!(got.publish_time.is_some());
    assert_eq!((got.missed, got.heartbeat), (0, false));
}

#[tokio::test]
async fn the_context_of_a_trace_travels_untouched_whatever_it_says() {
    let broker = Running::start().await;
    let mut client = broker.client().await;
    let mut stream = subscribe(&client, filter("t")).await;
    for (traceparent, tracestate) in [
        (
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "vendor=x:1,  other = 2 ",
        ),
        (
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00",
            "",
        ),
        (
            "cc-of-a-later-version-01-what-the-future-will-bring",
            "\u{e9}",
        ),
        ("nonsense", "nonsense"),
    ] {
        let mut request = message("t", "x");
        request.attributes = [("traceparent", traceparent), ("tracestate", tracestate)]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into();
        within(client.publish(request.clone())).await.unwrap();
        assert_eq!(next(&mut stream).await.attributes, request.attributes);
    }
}
