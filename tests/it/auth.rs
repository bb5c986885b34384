//! Who calls, and what it may do: over the wire, on live streams, from the shell.

use std::{
    fs,
    net::SocketAddr,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use bytes::Bytes;
use fanfare::{
    auth::{Secret, TokenHash},
    client::{Client, ClientOptions, Event, PublishError, SubscribeError},
    message::Message,
    server::ServerConfig,
    topic::{Topic, TopicFilter},
    wire::pb::{PublishRequest, PublishStreamRequest, PublishStreamResponse},
};
use http::{Request, StatusCode, request};
use prost::Message as _;
use ring::hmac;
use serde_json::json;
use tempfile::TempDir;
use tonic::{Code, Status};

use crate::{
    pki::{Authority, Files, VALID, over},
    raw::{PUBLISH, Raw, Response, SUBSCRIBE, frame, frame_of, http1},
    support::{Running, filter, message, within},
};

const PUBLISH_STREAM: &str = "/pubsub.v1.PubSubService/PublishStream";
const HEALTH: &str = "/grpc.health.v1.Health/Check";
const REFLECTION: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
const JWT_SECRET: &[u8] = b"thirty-two bytes are long enough";

/// An auth file, the tokens of its users, and a broker that goes by it.
pub(crate) struct Guarded {
    pub(crate) broker: Running,
    folder: TempDir,
    pub(crate) alice: Secret,
    pub(crate) bob: Secret,
}

impl Guarded {
    /// `HASH(alice)` and `HASH(bob)` in the text stand for the hashes of their tokens.
    pub(crate) async fn start(text: &str) -> Self {
        Self::start_with(ServerConfig::default(), text).await
    }

    pub(crate) async fn start_with(config: ServerConfig, text: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("jwt.secret"), JWT_SECRET).unwrap();
        let [alice, bob] = [(); 2].map(|()| Secret::new_token().unwrap());
        let path = folder.path().join("auth.toml");
        fs::write(&path, with_hashes(text, &alice, &bob)).unwrap();
        Self {
            broker: Running::start_with_auth(config, &path).await,
            folder,
            alice,
            bob,
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.broker.address
    }

    /// Puts other rules in the file, which the broker finds by itself.
    pub(crate) fn rewrite(&self, text: &str) {
        let text = with_hashes(text, &self.alice, &self.bob);
        fs::write(self.file(), text).unwrap();
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("auth.toml")
    }

    async fn raw(&self) -> Raw {
        Raw::connect(self.address()).await
    }

    async fn client(&self, token: &Secret) -> Client {
        let options = ClientOptions {
            bearer_token: Some(token.expose().parse().unwrap()),
            ..ClientOptions::default()
        };
        within(Client::with_options(&self.broker.url(), options))
            .await
            .unwrap()
    }
}

fn with_hashes(text: &str, alice: &Secret, bob: &Secret) -> String {
    let hash = |token| TokenHash::of(token).to_string();
    text.replace("HASH(alice)", &hash(alice))
        .replace("HASH(bob)", &hash(bob))
}

fn authorized(request: request::Builder, token: &Secret) -> request::Builder {
    request.header("authorization", format!("Bearer {}", token.expose()))
}

async fn publish(raw: &mut Raw, token: Option<&Secret>, topic: &str) -> Status {
    let mut request = raw.grpc(PUBLISH);
    if let Some(token) = token {
        request = authorized(request, token);
    }
    raw.status_of(request, frame(&message(topic, "x"))).await
}

async fn subscribe(raw: &mut Raw, token: &Secret, topic: &str) -> Response {
    let request = authorized(raw.grpc(SUBSCRIBE), token);
    raw.call(request, frame(&filter(topic))).await
}

async fn subscribe_status(raw: &mut Raw, token: &Secret, topic: &str) -> Status {
    let response = subscribe(raw, token, topic).await;
    if response.headers.contains_key("grpc-status") {
        response.finished().await.1
    } else {
        Status::ok("")
    }
}

pub(crate) fn jwt(user: &str, lives: Duration) -> Secret {
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let expires_after = since_1970.unwrap() + lives;
    let claims = json!({
        "sub": user, "iss": "https://issuer.example", "aud": "fanfare",
        "exp": expires_after.as_secs(),
    });
    let part = |value: serde_json::Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", part(json!({"alg": "HS256"})), part(claims));
    let key = hmac::Key::new(hmac::HMAC_SHA256, JWT_SECRET);
    let signature = hmac::sign(&key, signed.as_bytes());
    let signature = BASE64_URL_SAFE_NO_PAD.encode(signature);
    format!("{signed}.{signature}").as_str().into()
}

pub(crate) const RULES: &str = r#"
    [everyone]
    publish.allow = ["inbox.{user}"]

    [roles.writer]
    publish = { allow = ["orders.>"], deny = ["orders.secret.>"] }

    [users.alice]
    tokens = ["HASH(alice)"]
    roles = ["writer"]
    subscribe = { allow = ["orders.>", "open"], deny = ["orders.secret.>"] }
    rights = ["metrics", "reflection"]

    [users.bob]
    tokens = ["HASH(bob)"]
    subscribe.allow = ["bobs"]
"#;

pub(crate) const JWT: &str = r#"
    [everyone]
    publish.allow = ["u.{user}.>"]
    subscribe.allow = ["u.{user}.>"]

    [jwt]
    algorithms = ["HS256"]
    issuer = "https://issuer.example"
    audience = "fanfare"
    secret_file = "jwt.secret"
"#;

#[tokio::test]
async fn who_calls_is_asked_before_what_it_wants() {
    let guarded = Guarded::start(RULES).await;
    let mut raw = guarded.raw().await;
    let missing = publish(&mut raw, None, "orders.eu").await;
    assert_eq!(missing.code(), Code::Unauthenticated);
    assert_eq!(
        missing.message(),
        "the call has no credentials: send `authorization: Bearer TOKEN`"
    );
    for wrong in ["x", "a.b.c", &guarded.alice.expose()[1..]] {
        let wrong = publish(&mut raw, Some(&wrong.into()), "orders.eu").await;
        assert_eq!(wrong.code(), Code::Unauthenticated);
        assert_eq!(wrong.message(), "the credentials are not valid");
    }
    for path in [PUBLISH, SUBSCRIBE, PUBLISH_STREAM, REFLECTION] {
        // Nothing of the request is needed to refuse it.
        let call = raw.start(raw.grpc(path)).await;
        let status = call.response().await.finished().await.1;
        assert_eq!(status.code(), Code::Unauthenticated, "{path}");
    }
    let known = publish(&mut raw, Some(&guarded.alice), "orders.eu").await;
    assert_eq!(known.code(), Code::Ok);
    let refused = guarded.metric("unauthenticated").await;
    assert_eq!(refused, 8);
}

#[tokio::test]
async fn a_caller_may_do_what_a_rule_allows_and_none_denies() {
    let guarded = Guarded::start(RULES).await;
    let mut raw = guarded.raw().await;
    let (alice, bob) = (&guarded.alice, &guarded.bob);
    for (token, topic, code) in [
        (alice, "orders.eu", Code::Ok),
        (alice, "orders.secret.eu", Code::PermissionDenied),
        (alice, "orders", Code::PermissionDenied),
        (alice, "open", Code::PermissionDenied),
        (alice, "inbox.alice", Code::Ok),
        (alice, "inbox.bob", Code::PermissionDenied),
        (bob, "inbox.bob", Code::Ok),
        (bob, "orders.eu", Code::PermissionDenied),
    ] {
        let status = publish(&mut raw, Some(token), topic).await;
        assert_eq!(status.code(), code, "publish to {topic}");
    }
    for (token, topic, code) in [
        (alice, "orders.eu", Code::Ok),
        (alice, "open", Code::Ok),
        (alice, "inbox.alice", Code::PermissionDenied),
        (bob, "bobs", Code::Ok),
        (bob, "orders.eu", Code::PermissionDenied),
    ] {
        let status = subscribe_status(&mut raw, token, topic).await;
        assert_eq!(status.code(), code, "subscribe to {topic}");
    }
    let denied = publish(&mut raw, Some(bob), "orders.eu").await;
    assert_eq!(
        denied.message(),
        "user `bob` may not publish to `orders.eu`"
    );
    assert_eq!(guarded.metric("permission_denied").await, 8);
}

#[tokio::test]
async fn a_wildcard_never_reaches_what_is_denied() {
    let guarded = Guarded::start(RULES).await;
    let mut raw = guarded.raw().await;
    for (asked, code) in [
        ("orders.*", Code::Ok),
        ("orders.eu.>", Code::Ok),
        ("orders.>", Code::PermissionDenied),
        ("orders.*.*", Code::PermissionDenied),
        ("orders.secret.>", Code::PermissionDenied),
        (">", Code::PermissionDenied),
        ("*", Code::PermissionDenied),
        ("*.eu", Code::PermissionDenied),
    ] {
        let status = subscribe_status(&mut raw, &guarded.alice, asked).await;
        assert_eq!(status.code(), code, "{asked}");
    }
}

#[tokio::test]
async fn the_answer_is_the_same_whether_a_topic_exists_or_not() {
    let guarded = Guarded::start(RULES).await;
    let mut raw = guarded.raw().await;
    let _existing = subscribe(&mut raw, &guarded.alice, "orders.eu").await;
    guarded.broker.publish("orders.eu", "x");
    for calls in 0..2 {
        let mut answers = Vec::new();
        for topic in ["orders.eu", "orders.us"] {
            let bob = &guarded.bob;
            let status = if calls == 0 {
                publish(&mut raw, Some(bob), topic).await
            } else {
                subscribe_status(&mut raw, bob, topic).await
            };
            assert_eq!(status.code(), Code::PermissionDenied);
            answers.push((
                status.message().replace(topic, "TOPIC"),
                status.details().to_vec(),
                status.metadata().len(),
            ));
        }
        assert_eq!(answers[0], answers[1]);
    }
}

/// The responses of a publish stream, as they come.
struct PublishStream {
    call: crate::raw::Call,
}

impl PublishStream {
    async fn open(raw: &mut Raw, token: &Secret) -> Self {
        let request = authorized(raw.grpc(PUBLISH_STREAM), token);
        Self {
            call: raw.start(request).await,
        }
    }

    fn send(&mut self, topic: &str) {
        let request = PublishStreamRequest {
            topic: topic.to_owned(),
            ..Default::default()
        };
        self.call.send(frame(&request), false);
    }
}

async fn answer_to(response: &mut Response, position: u64) -> PublishStreamResponse {
    loop {
        let bytes = response.next_bytes().await.unwrap().expect("it goes on");
        let answer = PublishStreamResponse::decode(bytes).unwrap();
        if answer.position >= position {
            return answer;
        }
    }
}

#[tokio::test]
async fn a_forbidden_message_of_a_stream_is_rejected_and_the_stream_goes_on() {
    let guarded = Guarded::start(RULES).await;
    let alice = guarded.client(&guarded.alice).await;
    let publisher = alice.publisher(Default::default());
    let mut publisher = within(publisher).await.unwrap();
    for topic in ["orders.eu", "orders.secret.eu", "orders.eu", "open"] {
        let message = Message::new(topic.parse().unwrap(), "x");
        within(publisher.send(message)).await.unwrap();
    }
    within(publisher.finish()).await.unwrap();
    let rejections = publisher.take_rejections().list;
    let said: Vec<_> = rejections.iter().map(|r| r.message.as_str()).collect();
    assert_eq!(
        said,
        [
            "user `alice` may not publish to `orders.secret.eu`",
            "user `alice` may not publish to `open`"
        ]
    );
}

#[tokio::test]
async fn health_stays_open_and_metrics_and_reflection_take_a_right() {
    let guarded = Guarded::start(RULES).await;
    for path in ["/health", "/ready"] {
        assert_eq!(guarded.broker.get(path).await.0, 200, "{path}");
    }
    let mut raw = guarded.raw().await;
    let request = raw.grpc(HEALTH);
    let status = raw.status_of(request, frame_of(&[])).await;
    assert_eq!(status.code(), Code::Ok);

    let address = guarded.address();
    let get = async |authorization: &str| {
        let request =
            format!("GET /metrics HTTP/1.1\r\nhost: t\r\n{authorization}connection: close\r\n\r\n");
        http1(address, &request).await
    };
    let bearer = |token: &Secret| format!("Authorization: Bearer {}\r\n", token.expose());
    assert_eq!(
        get("").await,
        (
            401,
            "the call has no credentials: send `authorization: Bearer TOKEN`\n".to_owned()
        )
    );
    assert_eq!(get("Authorization: Basic eDp4\r\n").await.0, 401);
    let bob = get(&bearer(&guarded.bob)).await;
    assert_eq!(bob, (403, "user `bob` may not use metrics\n".to_owned()));
    let (status, metrics) = get(&bearer(&guarded.alice)).await;
    assert_eq!(status, 200);
    assert!(metrics.contains("fanfare_connections"));
    let (over_http2, _) = raw.get("/metrics").await;
    assert_eq!(over_http2, StatusCode::UNAUTHORIZED);

    for (token, code) in [
        (&guarded.alice, Code::Ok),
        (&guarded.bob, Code::PermissionDenied),
    ] {
        let request = authorized(raw.grpc(REFLECTION), token);
        // `list_services` of ServerReflectionRequest.
        let body = frame_of(&[0x3a, 1, b'*']);
        assert_eq!(raw.status_of(request, body).await.code(), code);
    }
}

impl Guarded {
    /// How often something was refused for this reason.
    pub(crate) async fn metric(&self, limit: &str) -> u64 {
        let mut raw = self.raw().await;
        let url = format!("http://{}/metrics", self.address());
        let request = authorized(Request::get(url), &self.alice);
        let response = raw.call(request, Bytes::new()).await;
        let text = response.text().await;
        let name = format!("fanfare_rejected_total{{limit=\"{limit}\"}}");
        crate::support::value_of(&text, &name)
    }
}

#[tokio::test(start_paused = true)]
async fn live_streams_end_within_5_s_when_their_right_is_taken() {
    let guarded = Guarded::start(RULES).await;
    let mut raw = guarded.raw().await;
    let lost = subscribe(&mut raw, &guarded.alice, "orders.eu").await;
    let mut kept = subscribe(&mut raw, &guarded.alice, "open").await;
    let mut stream = PublishStream::open(&mut raw, &guarded.alice).await;
    let mut other = PublishStream::open(&mut raw, &guarded.alice).await;
    stream.send("orders.eu");
    other.send("inbox.alice");
    let mut answers = stream.call.response().await;
    answer_to(&mut answers, 1).await;
    let mut other_answers = other.call.response().await;
    answer_to(&mut other_answers, 1).await;

    let began = tokio::time::Instant::now();
    guarded.rewrite(
        r#"
        [everyone]
        publish.allow = ["inbox.{user}"]
        [users.alice]
        tokens = ["HASH(alice)"]
        subscribe.allow = ["open"]
        rights = ["metrics"]
        "#,
    );
    let (_, status, _) = lost.responses().await;
    assert_eq!(status.code(), Code::PermissionDenied);
    assert_eq!(
        status.message(),
        "user `alice` may not subscribe to `orders.eu`"
    );
    let (_, status, _) = answers.finished().await;
    assert_eq!(status.code(), Code::PermissionDenied);
    assert!(began.elapsed() <= Duration::from_secs(5));

    // Whoever may go on does.
    guarded.broker.publish("open", "y");
    assert_eq!(kept.next().await.payload, "y");
    guarded.broker.until(|now| now.subscriptions == 1).await;

    // And a token that is known no more is nobody's.
    guarded.rewrite("[users.bob]\ntokens = [\"HASH(bob)\"]");
    let (_, status, _) = kept.responses().await;
    assert_eq!(status.code(), Code::Unauthenticated);
    let (_, status, _) = other_answers.finished().await;
    assert_eq!(status.code(), Code::Unauthenticated);
    assert!(began.elapsed() <= Duration::from_secs(10));
}

/// How many changes of the auth file were taken and refused, as the metrics say.
async fn reloads(raw: &mut Raw, guarded: &Guarded) -> [u64; 2] {
    let url = format!("http://{}/metrics", guarded.address());
    let request = authorized(Request::get(url), &guarded.alice);
    let metrics = raw.call(request, Bytes::new()).await.text().await;
    ["taken", "refused"].map(|result| {
        let name = format!("fanfare_auth_reloads_total{{result=\"{result}\"}} ");
        let value = metrics.lines().find_map(|line| line.strip_prefix(&name));
        value.unwrap().parse().unwrap()
    })
}

#[tokio::test(start_paused = true)]
async fn a_right_that_is_given_counts_within_5_s_and_a_wrong_file_changes_nothing() {
    let guarded = Guarded::start(RULES).await;
    let mut raw = guarded.raw().await;
    let mut kept = subscribe(&mut raw, &guarded.alice, "orders.eu").await;
    guarded.rewrite("[users.alice");
    tokio::time::sleep(Duration::from_secs(5)).await;
    let status = publish(&mut raw, Some(&guarded.bob), "inbox.bob").await;
    assert_eq!(status.code(), Code::Ok);
    fs::remove_file(guarded.file()).unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    let status = publish(&mut raw, Some(&guarded.bob), "bobs").await;
    assert_eq!(status.code(), Code::PermissionDenied);
    guarded.broker.publish("orders.eu", "x");
    assert_eq!(kept.next().await.payload, "x");
    assert_eq!(reloads(&mut raw, &guarded).await, [0, 2]);

    guarded.rewrite(&format!("{RULES}\n    publish.allow = [\"bobs\"]"));
    tokio::time::sleep(Duration::from_secs(5)).await;
    let status = publish(&mut raw, Some(&guarded.bob), "bobs").await;
    assert_eq!(status.code(), Code::Ok);
    assert_eq!(reloads(&mut raw, &guarded).await, [1, 2]);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_expires_in_mid_stream_ends_it_within_5_s() {
    const LIVES: Duration = Duration::from_secs(40);
    let guarded = Guarded::start(JWT).await;
    let mut raw = guarded.raw().await;
    let token = jwt("alice", LIVES);
    let mut live = subscribe(&mut raw, &token, "u.alice.>").await;
    let mut stream = PublishStream::open(&mut raw, &token).await;
    stream.send("u.alice.x");
    let mut answers = stream.call.response().await;
    answer_to(&mut answers, 1).await;
    assert_eq!(live.next().await.topic, "u.alice.x");
    let began = tokio::time::Instant::now();
    let (responses, status, _) = live.responses().await;
    assert!(responses.is_empty());
    assert_eq!(status.code(), Code::Unauthenticated);
    assert_eq!(status.message(), "the token has expired");
    let (_, status, _) = answers.finished().await;
    assert_eq!(status.code(), Code::Unauthenticated);
    assert_eq!(status.message(), "the token has expired");
    let took = began.elapsed();
    assert!(took <= LIVES + Duration::from_secs(5), "{took:?}");
    assert!(took >= LIVES - Duration::from_secs(5), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_token_that_expires_while_its_request_arrives_is_expired() {
    const LIVES: Duration = Duration::from_secs(10);
    let guarded = Guarded::start(JWT).await;
    let mut raw = guarded.raw().await;
    let request = authorized(raw.grpc(PUBLISH), &jwt("alice", LIVES));
    let mut call = raw.start(request).await;
    call.send(frame(&message("u.alice.x", "x")).split_to(3), false);
    tokio::time::sleep(LIVES + Duration::from_secs(1)).await;
    call.send(frame(&message("u.alice.x", "x")).split_off(3), true);
    let (_, status, _) = call.response().await.finished().await;
    assert_eq!(status.code(), Code::Unauthenticated);
    assert_eq!(status.message(), "the token has expired");
}

#[tokio::test]
async fn a_jwt_says_who_calls_and_its_name_is_one_token() {
    let guarded = Guarded::start(JWT).await;
    let mut raw = guarded.raw().await;
    let hour = Duration::from_secs(3_600);
    let status = publish(&mut raw, Some(&jwt("alice", hour)), "u.alice.x").await;
    assert_eq!(status.code(), Code::Ok);
    for (user, topic) in [
        ("alice", "u.bob.x"),
        ("*", "u.alice.x"),
        (">", "u.alice.x"),
        ("alice.x", "u.alice.x"),
        ("alice.x", "u.alice.x.y"),
    ] {
        let token = jwt(user, hour);
        let status = publish(&mut raw, Some(&token), topic).await;
        assert_eq!(status.code(), Code::PermissionDenied, "{user} to {topic}");
        let status = subscribe_status(&mut raw, &token, topic).await;
        assert_eq!(status.code(), Code::PermissionDenied, "{user} to {topic}");
        for wild in ["u.*.x", "u.>", ">"] {
            let status = subscribe_status(&mut raw, &token, wild).await;
            assert_eq!(status.code(), Code::PermissionDenied, "{user} to {wild}");
        }
    }
    let expired = publish(&mut raw, Some(&jwt("alice", Duration::ZERO)), "x").await;
    // A second may have passed or not.
    assert!([Code::Unauthenticated, Code::PermissionDenied].contains(&expired.code()));
}

#[tokio::test(start_paused = true)]
async fn whoever_guesses_is_slowed_down_and_let_in_again() {
    let config = ServerConfig {
        guesses_max: 3,
        guess_interval: Duration::from_secs(60),
        ..ServerConfig::default()
    };
    let guarded = Guarded::start_with(config, RULES).await;
    let mut raw = guarded.raw().await;
    // To have none at all is no guess, and to be refused for want of a right is none either.
    for _ in 0..10 {
        let status = publish(&mut raw, None, "x").await;
        assert_eq!(status.code(), Code::Unauthenticated);
        let status = publish(&mut raw, Some(&guarded.bob), "x").await;
        assert_eq!(status.code(), Code::PermissionDenied);
    }
    for _ in 0..3 {
        // Another connection makes no difference.
        let mut raw = guarded.raw().await;
        let status = publish(&mut raw, Some(&"wrong".into()), "x").await;
        assert_eq!(status.code(), Code::Unauthenticated);
    }
    for token in [&"wrong".into(), &guarded.alice] {
        let mut raw = guarded.raw().await;
        let status = publish(&mut raw, Some(token), "orders.eu").await;
        assert_eq!(status.code(), Code::ResourceExhausted);
        let said = status.message();
        assert!(said.starts_with("too many wrong credentials"), "{said}");
    }
    // Who was known before is not kept from going on.
    let status = publish(&mut raw, Some(&guarded.bob), "inbox.bob").await;
    assert_eq!(status.code(), Code::Ok);
    tokio::time::advance(Duration::from_secs(61)).await;
    let mut raw = guarded.raw().await;
    let status = publish(&mut raw, Some(&guarded.alice), "orders.eu").await;
    assert_eq!(status.code(), Code::Ok);
    assert_eq!(guarded.metric("guesses").await, 2);
}

#[tokio::test]
async fn a_client_shows_its_token_and_is_told_what_is_wrong_with_it() {
    let guarded = Guarded::start(RULES).await;
    let alice = guarded.client(&guarded.alice).await;
    let orders: TopicFilter = "orders.*".parse().unwrap();
    let mut orders = within(alice.subscribe(orders)).await.unwrap();
    let order = || Message::new("orders.eu".parse().unwrap(), "42");
    within(alice.publish(order())).await.unwrap();
    let event = within(orders.next()).await.unwrap().unwrap();
    assert!(matches!(event, Event::Message(message) if message.payload == "42"));

    let bob = guarded.client(&guarded.bob).await;
    let error = within(bob.publish(order())).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the broker does not allow this: user `bob` may not publish to `orders.eu`"
    );
    let stranger = guarded.client(&"stranger".into()).await;
    let error: PublishError = within(stranger.publish(order())).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the broker wants to know who calls: the credentials are not valid"
    );
    let filter: TopicFilter = ">".parse().unwrap();
    let error: SubscribeError = within(stranger.subscribe(filter)).await.unwrap_err();
    assert!(!error.is_retryable());
    let shown = format!("{stranger:?} {error:?} {error}");
    assert!(!shown.contains("stranger"), "{shown}");
}

#[tokio::test]
async fn a_message_is_not_read_before_its_publisher_is_known() {
    let guarded = Guarded::start(RULES).await;
    let mut raw = guarded.raw().await;
    let request = PublishRequest::default();
    let call = authorized(raw.grpc(PUBLISH), &guarded.bob);
    let status = raw.status_of(call, frame(&request)).await;
    assert_eq!(status.code(), Code::InvalidArgument);
    let call = raw.grpc(PUBLISH);
    let status = raw.status_of(call, frame(&request)).await;
    assert_eq!(status.code(), Code::Unauthenticated);
}

/// A stream on which nothing can be sent cannot be told; it ends all the same, and frees what waits.
#[tokio::test(start_paused = true)]
async fn a_stalled_reader_that_loses_its_right_is_let_go() {
    let guarded = Guarded::start(RULES).await;
    let mut raw = Raw::connect_with_window(guarded.address(), 0).await;
    let stalled = subscribe(&mut raw, &guarded.alice, "orders.eu").await;
    for _ in 0..3 {
        guarded.broker.publish("orders.eu", "x");
    }
    guarded.rewrite("[users.bob]\ntokens = [\"HASH(bob)\"]");
    tokio::time::sleep(Duration::from_secs(5)).await;
    let snapshot = guarded.broker.broker.snapshot();
    assert_eq!(snapshot.subscriptions, 0);
    assert_eq!(snapshot.ledger.buffered, 0);
    stalled.reset().await;
}

#[tokio::test]
async fn a_stream_that_publishes_without_a_pause_ends_with_its_right() {
    let guarded = Guarded::start(RULES).await;
    let alice = guarded.client(&guarded.alice).await;
    let publisher = alice.publisher(Default::default());
    let mut publisher = within(publisher).await.unwrap();
    guarded.rewrite("[users.bob]\ntokens = [\"HASH(bob)\"]");
    let topic: Topic = "orders.eu".parse().unwrap();
    let error = within(async {
        loop {
            let message = Message::new(topic.clone(), "x");
            if let Err(error) = publisher.send(message).await {
                return error;
            }
        }
    });
    let error = error.await;
    let source = std::error::Error::source(&error);
    let said = format!("{error}: {source:?}");
    assert!(said.contains("the credentials are not valid"), "{said}");
}

#[tokio::test]
async fn a_verified_client_certificate_says_who_calls() {
    let authority = Authority::new("fleet");
    let files = Files::new(&authority);
    files.write(
        "auth.toml",
        "[users.eu]\ncertificates = [\"Eu.Example\"]\npublish.allow = [\"orders.{user}\"]",
    );
    let broker = Running::start_with_auth(over(files.mutual()), &files.path("auth.toml")).await;
    let publish = async |name: &str, token: Option<&str>, topic: &str| {
        let options = ClientOptions {
            tls: Some(files.client_as(&authority.issue(name, VALID))),
            bearer_token: token.map(|token| token.parse().unwrap()),
            ..ClientOptions::default()
        };
        let url = format!("https://{}", broker.address);
        let client = within(Client::with_options(&url, options)).await.unwrap();
        let message = Message::new(topic.parse().unwrap(), "x");
        let published = within(client.publish(message)).await;
        published.map(|_| ()).map_err(|error| error.to_string())
    };
    assert_eq!(publish("eu.example", None, "orders.eu").await, Ok(()));
    for (name, token, topic, error) in [
        (
            "eu.example",
            None,
            "orders.us",
            "the broker does not allow this: user `eu` may not publish to `orders.us`",
        ),
        (
            "us.example",
            None,
            "orders.eu",
            "the broker wants to know who calls: the credentials are not valid",
        ),
        (
            "eu.example",
            Some("wrong"),
            "orders.eu",
            "the broker wants to know who calls: the credentials are not valid",
        ),
    ] {
        let published = publish(name, token, topic).await;
        assert_eq!(published, Err(error.to_owned()), "{name} to {topic}");
    }
}
