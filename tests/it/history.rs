//! Late, and back again, over the wire: replay and what follows, every start, gaps, the end of a topic.

use std::{
    fs,
    time::{Duration, SystemTime},
};

use fanfare::{
    auth::{Secret, TokenHash},
    broker::{Bounds, HistoryLimits, Limits, Retention},
    client::{Client, Event, PublishError, PublisherOptions, Received, Subscribe},
    cursor::{Cursor, Gap, StartAt},
    message::Message,
    server::ServerConfig,
    topic::TopicFilter,
    wire::pb::{
        self, PublishRequest, PublishStreamRequest, SubscribeRequest, SubscribeResponse,
        pub_sub_service_client::PubSubServiceClient, subscribe_request::StartAt as WireStart,
    },
};
use tonic::{
    Code, Request, Status, Streaming,
    metadata::{MetadataMap, MetadataValue},
    transport::Channel,
};

use crate::{
    client::{connect, event, message as received},
    support::{Running, filter, message, next, payloads, subscribe, to_end, within},
};

/// Topics keep so many messages each, but those called `free`.
fn keeping(messages: usize) -> Limits {
    let rule = |filter: &str, bounds| Retention {
        filter: filter.parse().unwrap(),
        bounds,
    };
    let bounds = Bounds {
        messages,
        bytes: 64 * 1024 * 1024,
        ..Bounds::default()
    };
    Limits {
        history: HistoryLimits {
            rules: vec![rule("free", None), rule(">", Some(bounds))],
            ..HistoryLimits::default()
        },
        ..Limits::default()
    }
}

async fn start(messages: usize) -> Running {
    Running::start_with(ServerConfig::default(), keeping(messages)).await
}

fn starting(topic: &str, start: WireStart) -> SubscribeRequest {
    SubscribeRequest {
        start_at: Some(start),
        ..filter(topic)
    }
}

fn last_message(topic: &str, payload: &str) -> PublishRequest {
    PublishRequest {
        end: true,
        ..message(topic, payload)
    }
}

/// The stream's end: what came until then, the status and the trailers.
async fn to_trailers(
    stream: &mut Streaming<SubscribeResponse>,
) -> (Vec<SubscribeResponse>, Status, MetadataMap) {
    let (responses, status) = to_end(stream).await;
    let trailers = within(stream.trailers()).await.unwrap();
    (responses, status, trailers.unwrap_or_default())
}

fn texts(responses: &[SubscribeResponse]) -> Vec<String> {
    let messages = responses.iter().filter(|response| response.sequence > 0);
    messages
        .map(|response| String::from_utf8(response.payload.to_vec()).unwrap())
        .collect()
}

async fn refusal(client: &PubSubServiceClient<Channel>, request: SubscribeRequest) -> Status {
    within(client.clone().subscribe(request)).await.unwrap_err()
}

/// Each start with what it yields before what is published afterwards.
#[tokio::test]
async fn a_subscription_starts_where_it_asks_to() {
    for topic in ["t", "*"] {
        for case in 0..6 {
            let broker = start(100).await;
            let client = broker.client().await;
            let mut cursors = Vec::new();
            let mut time = SystemTime::UNIX_EPOCH;
            for number in 1..=4 {
                if number == 3 {
                    time = SystemTime::now();
                }
                let message = message("t", &number.to_string());
                let published = within(client.clone().publish(message)).await;
                cursors.push(published.unwrap().into_inner().cursor);
            }
            let (start, expected) = [
                (WireStart::StartAll(true), &["1", "2", "3", "4"][..]),
                (WireStart::StartLast(2), &["3", "4"]),
                (WireStart::StartAfter(cursors[0].clone()), &["2", "3", "4"]),
                (WireStart::StartSince(time.into()), &["3", "4"]),
                (WireStart::StartAfter(cursors[3].clone()), &[]),
                (WireStart::StartAll(false), &[]),
            ][case]
                .clone();
            let mut stream = subscribe(&client, starting(topic, start.clone())).await;
            broker.publish("t", "live");
            let got = payloads(&mut stream, expected.len() + 1).await;
            assert_eq!(got, [expected, &["live"]].concat(), "{topic} {start:?}");
        }
    }
}

#[tokio::test]
async fn a_kept_message_carries_its_cursor_and_others_none() {
    let broker = start(100).await;
    let client = broker.client().await;
    let mut live = subscribe(&client, filter(">")).await;
    let kept = within(client.clone().publish(message("t", "kept"))).await;
    let kept = kept.unwrap().into_inner();
    let free = within(client.clone().publish(message("free", "free"))).await;
    assert_eq!(free.unwrap().into_inner().cursor, "");
    let response = next(&mut live).await;
    assert_eq!(response.cursor, kept.cursor);
    let cursor: Cursor = kept.cursor.parse().unwrap();
    assert_eq!(
        (cursor.epoch.0, cursor.sequence.0),
        (kept.epoch, kept.sequence)
    );
    assert_eq!(next(&mut live).await.cursor, "");
    let all = starting("t", WireStart::StartAll(true));
    let mut replayed = subscribe(&client, all).await;
    assert_eq!(
        next(&mut replayed).await,
        response,
        "the same as it was live"
    );
}

/// Publishers of several topics, and readers that join at any time: each gets all that it asked for, once
/// and in order, and what follows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replay_and_what_follows_meet_under_concurrent_publishing() {
    const PUBLISHERS: usize = 3;
    const MESSAGES: u64 = 3_000;
    let broker = start(100_000).await;
    let publishing: Vec<_> = (0..PUBLISHERS)
        .map(|publisher| {
            let domain = broker.broker.clone();
            tokio::task::spawn_blocking(move || {
                for number in 0..MESSAGES {
                    let topic = ["a.x", "a.y", "b"][(number as usize + publisher) % 3];
                    let message = Message::new(topic.parse().unwrap(), number.to_string());
                    domain.publish(message, SystemTime::now()).unwrap();
                }
            })
        })
        .collect();
    let mut reading = Vec::new();
    for reader in 0..12 {
        let topic = ["a.x", "a.*", ">", "b"][reader % 4];
        let client = broker.client().await;
        reading.push(tokio::spawn(async move {
            // Room for all of it: publishers wait for nobody.
            let request = SubscribeRequest {
                mailbox_capacity: 65_536,
                ..starting(topic, WireStart::StartAll(true))
            };
            let mut stream = subscribe(&client, request).await;
            let topics = match topic {
                "a.x" | "b" => 1,
                "a.*" => 2,
                _ => 3,
            };
            let mut newest = std::collections::HashMap::new();
            let mut position = 0;
            for _ in 0..topics * PUBLISHERS as u64 * MESSAGES / 3 {
                let response = next(&mut stream).await;
                assert_eq!((response.missed, response.gap), (0, None));
                let before = newest.insert(response.topic, response.sequence);
                assert_eq!(response.sequence, before.unwrap_or(0) + 1);
                let cursor: Cursor = response.cursor.parse().unwrap();
                assert!(cursor.position.0 > position);
                position = cursor.position.0;
            }
        }));
    }
    for publisher in publishing {
        within(publisher).await.unwrap();
    }
    for reader in reading {
        within(reader).await.unwrap();
    }
    assert!(broker.broker.snapshot().ledger.balances());
    let replayed = broker.broker.snapshot().replayed;
    assert_eq!(
        broker.metric("fanfare_replayed_messages_total").await,
        replayed
    );
    assert!(replayed > 0);
}

#[tokio::test]
async fn what_is_gone_is_told_before_what_follows_it() {
    let broker = start(3).await;
    let client = broker.client().await;
    let cursors = (1..=10).map(|number| broker.publish("t", number.to_string()).cursor().unwrap());
    let cursors: Vec<_> = cursors.collect();
    let first = cursors[0].to_string();
    let after = WireStart::StartAfter(first.clone());
    let mut one = subscribe(&client, starting("t", after.clone())).await;
    let gap = |missing, at_least, cursor: String| SubscribeResponse {
        gap: Some(pb::Gap { missing, at_least }),
        cursor,
        ..Default::default()
    };
    // From where to go on after it: the last that is gone.
    let seventh = cursors[6];
    assert_eq!(
        next(&mut one).await,
        gap(6, false, seventh.to_string()),
        "2 to 7, and nothing else with it"
    );
    assert_eq!(payloads(&mut one, 3).await, ["8", "9", "10"]);
    let mut many = subscribe(&client, starting("*", after)).await;
    let told = next(&mut many).await;
    assert_eq!(
        told.gap,
        gap(1, true, String::new()).gap,
        "a filter's topics are not counted"
    );
    let after = WireStart::StartAfter(told.cursor);
    let mut again = subscribe(&client, starting("*", after)).await;
    assert_eq!(payloads(&mut again, 3).await, ["8", "9", "10"]);
    assert_eq!(payloads(&mut many, 3).await, ["8", "9", "10"]);
    let mut more = subscribe(&client, starting("t", WireStart::StartLast(5))).await;
    assert_eq!(next(&mut more).await, gap(2, false, seventh.to_string()));
    let mut unkept = subscribe(&client, starting("free", WireStart::StartAfter(first))).await;
    assert_eq!(next(&mut unkept).await, gap(0, true, String::new()));
    let evicted = "fanfare_history_evicted_messages_total{reason=\"count\"}";
    assert_eq!(broker.metric(evicted).await, 7);
    assert_eq!(broker.metric("fanfare_history_messages").await, 3);
}

#[tokio::test]
async fn a_cursor_outlives_its_connection_but_not_its_broker() {
    let broker = start(100).await;
    for number in 1..=5 {
        broker.publish("t", number.to_string());
    }
    let first_connection = broker.client().await;
    let all = starting("*", WireStart::StartAll(true));
    let mut stream = subscribe(&first_connection, all.clone()).await;
    assert_eq!(payloads(&mut stream, 2).await, ["1", "2"]);
    let cursor = next(&mut stream).await.cursor;
    drop((stream, first_connection));
    broker.publish("t", "6");
    let after = starting("*", WireStart::StartAfter(cursor.clone()));
    let mut again = subscribe(&broker.client().await, after.clone()).await;
    assert_eq!(payloads(&mut again, 3).await, ["4", "5", "6"]);

    let restarted = start(100).await;
    restarted.publish("t", "new");
    for topic in ["*", "t"] {
        let after = starting(topic, WireStart::StartAfter(cursor.clone()));
        let mut again = subscribe(&restarted.client().await, after).await;
        let unknown = pb::Gap {
            missing: 0,
            at_least: true,
        };
        assert_eq!(next(&mut again).await.gap, Some(unknown));
        assert_eq!(payloads(&mut again, 1).await, ["new"]);
    }
}

#[tokio::test]
async fn the_headers_say_from_where_to_go_on_before_the_first_message() {
    let broker = start(100).await;
    let client = broker.client().await;
    for topic in ["t", "*"] {
        let answer = within(client.clone().subscribe(filter(topic)))
            .await
            .unwrap();
        let cursor = answer.metadata().get("fanfare-cursor").unwrap().clone();
        drop(answer);
        broker.publish("t", "missed");
        let after = WireStart::StartAfter(cursor.to_str().unwrap().to_owned());
        let mut again = subscribe(&client, starting(topic, after)).await;
        assert_eq!(payloads(&mut again, 1).await, ["missed"]);
    }
    let answer = within(client.clone().subscribe(filter("free")))
        .await
        .unwrap();
    assert_eq!(answer.metadata().get("fanfare-cursor"), None);
}

#[tokio::test]
async fn the_end_of_a_topic_is_a_clean_end_for_who_reads_just_this_one() {
    let broker = start(100).await;
    let client = broker.client().await;
    let mut live = subscribe(&client, filter("t")).await;
    let mut many = subscribe(&client, filter("*")).await;
    within(client.clone().publish(message("t", "1")))
        .await
        .unwrap();
    within(client.clone().publish(last_message("t", "2")))
        .await
        .unwrap();
    let mut late = subscribe(&client, starting("t", WireStart::StartAll(true))).await;
    for stream in [&mut live, &mut late] {
        let (responses, status, trailers) = to_trailers(stream).await;
        assert_eq!(texts(&responses), ["1", "2"]);
        let ends: Vec<bool> = responses.iter().map(|response| response.end).collect();
        assert_eq!(ends, [false, true]);
        assert_eq!(status.code(), Code::Ok);
        assert_eq!(trailers.get("fanfare-topic-ended").unwrap(), "true");
    }
    let mut after = subscribe(&client, filter("t")).await;
    let (responses, status, trailers) = to_trailers(&mut after).await;
    assert_eq!((responses, status.code()), (vec![], Code::Ok));
    assert_eq!(trailers.get("fanfare-topic-ended").unwrap(), "true");
    // A filter goes on.
    assert_eq!(payloads(&mut many, 1).await, ["1"]);
    assert!(next(&mut many).await.end);
    broker.publish("u", "3");
    assert_eq!(payloads(&mut many, 1).await, ["3"]);
}

#[tokio::test]
async fn an_ended_topic_takes_no_more_until_it_is_forgotten() {
    let broker = start(100).await;
    let mut client = broker.client().await;
    within(client.publish(last_message("t", ""))).await.unwrap();
    let refused = within(client.publish(message("t", "more")))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert_eq!(
        refused.message(),
        "the topic has ended: its last message has been published"
    );
    let more = |topic: &str, end| PublishStreamRequest {
        topic: topic.to_owned(),
        end,
        ..Default::default()
    };
    let requests = vec![
        more("t", false),
        more("u", true),
        more("u", false),
        more("v", false),
    ];
    let answers = within(client.publish_stream(tokio_stream::iter(requests)));
    let mut answers = answers.await.unwrap().into_inner();
    let mut rejected = Vec::new();
    while let Some(answer) = within(answers.message()).await.unwrap() {
        let rejections = answer.rejections.into_iter();
        rejected.extend(rejections.map(|rejection| (rejection.position, rejection.code)));
    }
    assert_eq!(rejected, [(1, 9), (3, 9)]);
    let over = SystemTime::now() + Bounds::default().age;
    broker.broker.expire(over);
    broker.broker.age_topics();
    broker.broker.age_topics();
    let anew = within(client.publish(message("t", "anew"))).await.unwrap();
    assert_eq!(anew.into_inner().sequence, 1);
}

#[tokio::test]
async fn a_start_that_cannot_be_is_refused_with_its_field() {
    let broker = start(100).await;
    let client = broker.client().await;
    for cursor in ["", "here", "1-2", "1-2-3-4", "1-2-3 "] {
        let start = WireStart::StartAfter(cursor.to_owned());
        let refused = refusal(&client, starting("t", start)).await;
        assert_eq!(refused.code(), Code::InvalidArgument, "{cursor:?}");
        assert_eq!(field_of(&refused), "start_after");
    }
    let early = prost_types::Timestamp {
        seconds: i64::MIN,
        nanos: 0,
    };
    let refused = refusal(&client, starting("t", WireStart::StartSince(early))).await;
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert_eq!(field_of(&refused), "start_since");
    let in_group = SubscribeRequest {
        group: "g".into(),
        ..starting("t", WireStart::StartAll(true))
    };
    let refused = refusal(&client, in_group).await;
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert_eq!(refused.message(), "a group can only start now");
    assert_eq!(field_of(&refused), "group");
}

fn field_of(status: &Status) -> String {
    use tonic_types::StatusExt;
    let violations = status.get_details_bad_request().unwrap().field_violations;
    violations[0].field.clone()
}

#[tokio::test]
async fn all_topics_together_keep_no_more_than_is_allowed() {
    let mut limits = keeping(1_000);
    limits.history.bytes_max = 100_000;
    let broker = Running::start_with(ServerConfig::default(), limits).await;
    for number in 0..2_000 {
        broker.publish(&format!("response:{number}"), "token");
    }
    assert!(broker.metric("fanfare_history_bytes").await <= 100_000);
    let topics = broker.metric("fanfare_history_topics").await;
    assert!((20..100).contains(&topics), "{topics}");
    let evicted = "fanfare_history_evicted_messages_total{reason=\"budget\"}";
    assert_eq!(broker.metric(evicted).await, 2_000 - topics);
    let all = starting("*", WireStart::StartAll(true));
    let mut stream = subscribe(&broker.client().await, all).await;
    let newest: Vec<String> = (2_000 - topics..2_000)
        .map(|n| format!("response:{n}"))
        .collect();
    for topic in newest {
        assert_eq!(next(&mut stream).await.topic, topic);
    }
}

#[tokio::test]
async fn what_is_kept_is_given_up_when_its_time_is_over() {
    let mut limits = keeping(100);
    for bounds in limits
        .history
        .rules
        .iter_mut()
        .filter_map(|rule| rule.bounds.as_mut())
    {
        bounds.age = Duration::from_millis(10);
    }
    let broker = Running::start_with(ServerConfig::default(), limits).await;
    broker.publish("t", "1");
    broker
        .until(|snapshot| snapshot.history_messages == 0)
        .await;
    let evicted = "fanfare_history_evicted_messages_total{reason=\"age\"}";
    assert_eq!(broker.metric(evicted).await, 1);
}

#[tokio::test]
async fn the_references_clients_see_payloads_and_the_end_of_their_stream() {
    use crate::raw::{Raw, frame};
    let broker = start(100).await;
    let mut raw = Raw::connect(broker.address).await;
    let request = raw.grpc("/proto.PubSubService/Subscribe");
    let response = raw.call(request, frame(&filter("t"))).await;
    broker.publish("t", "1");
    let mut message = Message::new("t".parse().unwrap(), "2");
    message.end = true;
    broker.broker.publish(message, SystemTime::now()).unwrap();
    let (responses, status, _) = within(response.responses()).await;
    assert_eq!(status.code(), Code::Ok);
    let bare = |payload: &'static str| SubscribeResponse {
        payload: payload.into(),
        ..Default::default()
    };
    assert_eq!(responses, [bare("1"), bare("2")]);
}

/// Alice may read `t`, until the file says otherwise.
struct Guarded {
    broker: Running,
    file: std::path::PathBuf,
    _folder: tempfile::TempDir,
    token: Secret,
}

impl Guarded {
    async fn start(limits: Limits) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let token = Secret::new_token().unwrap();
        let file = folder.path().join("auth.toml");
        fs::write(&file, Self::rules(&token, "t")).unwrap();
        let broker = Running::start_with_auth_and_limits(ServerConfig::default(), limits, &file);
        Self {
            broker: broker.await,
            file,
            _folder: folder,
            token,
        }
    }

    fn rules(token: &Secret, topic: &str) -> String {
        let hash = TokenHash::of(token);
        format!("[users.alice]\ntokens = [\"{hash}\"]\nsubscribe = {{ allow = [\"{topic}\"] }}\n")
    }

    async fn subscribe(
        &self,
        topic: &str,
        start: WireStart,
    ) -> Result<Streaming<SubscribeResponse>, Status> {
        let mut request = Request::new(starting(topic, start));
        let token = format!("Bearer {}", self.token.expose());
        let token: MetadataValue<_> = token.parse().unwrap();
        request.metadata_mut().insert("authorization", token);
        let mut client = self.broker.client().await;
        let answer = within(client.subscribe(request)).await?;
        Ok(answer.into_inner())
    }
}

#[tokio::test]
async fn history_is_for_those_who_may_read_it() {
    let guarded = Guarded::start(keeping(100)).await;
    let cursor = guarded.broker.publish("secret", "1").cursor().unwrap();
    guarded.broker.publish("t", "2");
    for start in [
        WireStart::StartAll(true),
        WireStart::StartLast(1),
        WireStart::StartAfter(cursor.to_string()),
    ] {
        for topic in ["secret", "*", ">"] {
            let refused = guarded.subscribe(topic, start.clone()).await.unwrap_err();
            assert_eq!(refused.code(), Code::PermissionDenied, "{topic} {start:?}");
        }
        let mut allowed = guarded.subscribe("t", start).await.unwrap();
        assert_eq!(payloads(&mut allowed, 1).await, ["2"]);
    }
}

#[tokio::test]
async fn a_reader_that_loses_its_right_in_the_middle_of_history_ends() {
    let mut limits = keeping(10_000);
    limits.history.bytes_max = 256 * 1024 * 1024;
    let guarded = Guarded::start(limits).await;
    for _ in 0..3_000 {
        guarded.broker.publish("t", vec![b'x'; 10_000]);
    }
    let mut slow = guarded
        .subscribe("t", WireStart::StartAll(true))
        .await
        .unwrap();
    next(&mut slow).await;
    fs::write(&guarded.file, Guarded::rules(&guarded.token, "other")).unwrap();
    // It reads nothing meanwhile, so that flow control holds up the replay.
    guarded
        .broker
        .until(|snapshot| snapshot.subscriptions == 0)
        .await;
    let (responses, status) = to_end(&mut slow).await;
    assert_eq!(status.code(), Code::PermissionDenied, "{status:?}");
    assert!(responses.len() < 2_999, "{}", responses.len());
    assert!(guarded.broker.broker.snapshot().ledger.balances());
}

fn all_of(filter: &str) -> Subscribe {
    Subscribe::new(filter.parse::<TopicFilter>().unwrap()).start_at(StartAt::All)
}

async fn ended(client: &Client, topic: &str, payload: &str) {
    let mut last = Message::new(topic.parse().unwrap(), payload.to_owned());
    last.end = true;
    within(client.publish(last)).await.unwrap();
}

fn text(message: &Received) -> &str {
    std::str::from_utf8(&message.payload).unwrap()
}

#[tokio::test]
async fn the_rust_client_starts_in_the_past_and_comes_to_a_clean_end() {
    let broker = start(2).await;
    let client = connect(&broker).await;
    let receipt = {
        let first = Message::new("t".parse().unwrap(), "1");
        within(client.publish(first)).await.unwrap()
    };
    broker.publish("t", "2");
    broker.publish("t", "3");
    let cursor = receipt.cursor.unwrap();
    ended(&client, "t", "4").await;

    let after = all_of("t").start_at(StartAt::After(cursor));
    let mut late = within(client.subscribe(after)).await.unwrap();
    assert_eq!(event(&mut late).await, Event::Gap(Gap::exactly(1)));
    let third = received(&mut late).await;
    assert_eq!((text(&third), third.end), ("3", false));
    assert_eq!(third.cursor.unwrap().sequence.0, 3);
    let fourth = received(&mut late).await;
    assert_eq!((text(&fourth), fourth.end), ("4", true));
    assert!(
        within(late.next()).await.is_none(),
        "a clean end, and no error"
    );
    assert!(within(late.next()).await.is_none());

    let more = Message::new("t".parse().unwrap(), "5");
    let refused = within(client.publish(more)).await.unwrap_err();
    assert!(
        matches!(refused, PublishError::TopicEnded { .. }),
        "{refused:?}"
    );
    assert!(!refused.is_retryable() && !refused.may_be_published());
}

#[tokio::test]
async fn the_rust_clients_publisher_ends_a_topic_too() {
    let broker = start(100).await;
    let client = connect(&broker).await;
    let mut reader = within(client.subscribe(all_of("t"))).await.unwrap();
    let opened = within(client.publisher(PublisherOptions::default())).await;
    let mut publisher = opened.unwrap();
    for (payload, end) in [("1", false), ("2", true)] {
        let mut message = Message::new("t".parse().unwrap(), payload);
        message.end = end;
        within(publisher.send(message)).await.unwrap();
    }
    within(publisher.finish()).await.unwrap();
    assert_eq!(text(&received(&mut reader).await), "1");
    assert!(received(&mut reader).await.end);
    assert!(within(reader.next()).await.is_none());
}

/// What a subscription that began in the past has lost is counted from the first message that it got.
#[tokio::test]
async fn the_rust_client_comes_back_without_what_it_has_got() {
    let mut broker = start(100).await;
    let address = broker.address;
    let client = connect(&broker).await;
    for number in 1..=3 {
        broker.publish("t", number.to_string());
    }
    let mut reader = within(client.subscribe(all_of("t"))).await.unwrap();
    for number in 1..=3 {
        assert_eq!(text(&received(&mut reader).await), number.to_string());
    }
    broker.shut_down();
    broker.stopped().await;
    let config = ServerConfig {
        listen: address,
        ..ServerConfig::default()
    };
    let restarted = Running::start_with(config, keeping(100)).await;
    restarted.publish("t", "before it is back");
    match event(&mut reader).await {
        Event::Resubscribed { facts, .. } => assert_eq!(facts.start.unwrap().head.0, 1),
        other => panic!("{other:?}"),
    }
    assert_eq!(event(&mut reader).await, Event::Gap(Gap::UNKNOWN));
    assert_eq!(text(&received(&mut reader).await), "before it is back");
    restarted.publish("t", "live");
    assert_eq!(text(&received(&mut reader).await), "live");
}
