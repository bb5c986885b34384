//! Transport security: what is served over TLS, who gets in, and what happens when files change.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{Extension, Router, routing::get};
use fanfare::{
    broker::{Broker, Limits},
    certificate::CertificateNames,
    client::{Client, ClientOptions, ConnectError, Event, TlsConnector, TlsOptions, UrlError},
    message::Message,
    server::{BindError, Server, ServerConfig, TlsConfig},
    topic::TopicFilter,
};
use rustls::{ClientConfig, RootCertStore, crypto::ring, pki_types::pem::PemObject};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::client::TlsStream;

use crate::{
    pki::{Authority, EXPIRED, Files, Issued, VALID, over},
    raw::{OPEN, PREFACE, Raw, http1, http1_on, read_to_close, socket},
    support::{Running, filter as raw_filter, value_of, within},
};

const GET_HEALTH: &str = "GET /health HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n";
const REFUSED: &str = "fanfare_tls_reloads_total{result=\"refused\"}";
const TAKEN: &str = "fanfare_tls_reloads_total{result=\"taken\"}";

async fn client(broker: &Running, tls: TlsOptions) -> Result<Client, ConnectError> {
    let options = ClientOptions {
        tls: Some(tls),
        ..ClientOptions::default()
    };
    let url = format!("https://{}", broker.address);
    within(Client::with_options(&url, options)).await
}

/// A handshake by hand: trusting one authority, offering these protocols and showing no certificate.
async fn handshake(
    address: SocketAddr,
    authority: &Authority,
    protocols: &[&str],
    version: &'static rustls::SupportedProtocolVersion,
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    let root = rustls::pki_types::CertificateDer::from_pem_slice(authority.pem.as_bytes());
    roots.add(root.unwrap()).unwrap();
    let provider = Arc::new(ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols
        .iter()
        .map(|name| name.as_bytes().to_vec())
        .collect();
    let socket = within(TcpStream::connect(address)).await.unwrap();
    socket.set_nodelay(true).unwrap();
    let name = "localhost".try_into().unwrap();
    within(tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, socket)).await
}

async fn get_over_tls(broker: &Running, authority: &Authority, path: &str) -> (u16, String) {
    let http1 = &["http/1.1"];
    let stream = handshake(broker.address, authority, http1, &rustls::version::TLS13).await;
    let request = GET_HEALTH.replace("/health", path);
    http1_on(stream.unwrap(), &request).await
}

async fn metric(broker: &Running, authority: &Authority, name: &str) -> u64 {
    value_of(&get_over_tls(broker, authority, "/metrics").await.1, name)
}

pub(crate) async fn until_metric(broker: &Running, authority: &Authority, name: &str, wanted: u64) {
    within(async { while metric(broker, authority, name).await != wanted {} }).await;
}

fn message(payload: &str) -> Message {
    Message::new("t".parse().unwrap(), payload.to_owned())
}

fn filter() -> TopicFilter {
    "t".parse().unwrap()
}

#[tokio::test]
async fn http2_and_http1_are_served_over_tls_on_one_port() {
    let authority = Authority::new("one port");
    let files = Files::new(&authority);
    let broker = Running::start_with(over(files.server()), Limits::default()).await;

    let client = client(&broker, files.client()).await.unwrap();
    let mut subscription = client.subscribe(filter()).await.unwrap();
    let large = "x".repeat(1_000_000);
    for payload in ["hello", &large] {
        let receipt = client.publish(message(payload)).await.unwrap();
        assert_eq!(receipt.delivered, 1);
        match within(subscription.next()).await.unwrap().unwrap() {
            Event::Message(received) => assert!(received.payload == payload),
            other => panic!("{other:?}"),
        }
    }

    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        // What was agreed on is spoken; where nothing was, the first bytes tell.
        for (offered, agreed) in [
            (&["http/1.1"][..], Some(&b"http/1.1"[..])),
            (&["http/1.1", "h2"], Some(b"h2")),
            (&[], None),
        ] {
            let stream = handshake(broker.address, &authority, offered, version).await;
            let stream = stream.unwrap();
            assert_eq!(stream.get_ref().1.alpn_protocol(), agreed);
            if agreed != Some(b"h2") {
                assert_eq!(http1_on(stream, GET_HEALTH).await, (200, "ok\n".to_owned()));
            }
        }
        for offered in [&["h2"][..], &[]] {
            let stream = handshake(broker.address, &authority, offered, version).await;
            let (mut requests, connection) = within(h2::client::handshake(stream.unwrap()))
                .await
                .unwrap();
            tokio::spawn(connection);
            let request = http::Request::get("https://localhost/health");
            let (response, _) = requests
                .send_request(request.body(()).unwrap(), true)
                .unwrap();
            assert_eq!(within(response).await.unwrap().status(), 200);
        }
    }
    let expiry = metric(
        &broker,
        &authority,
        "fanfare_tls_certificate_expiry_timestamp_seconds",
    );
    let expected = rcgen::date_time_ymd(VALID.1, 1, 1).unix_timestamp();
    assert_eq!(expiry.await, expected as u64);
}

#[tokio::test]
async fn what_is_spoken_is_what_was_agreed_on_or_nothing() {
    let authority = Authority::new("agreed");
    let files = Files::new(&authority);
    let broker = Running::start_with(over(files.server()), Limits::default()).await;
    for (agreed, spoken) in [("h2", GET_HEALTH.as_bytes()), ("http/1.1", PREFACE)] {
        let version = &rustls::version::TLS13;
        let stream = handshake(broker.address, &authority, &[agreed], version).await;
        let mut stream = stream.unwrap();
        stream.write_all(spoken).await.unwrap();
        let mut answer = Vec::new();
        drop(within(stream.read_to_end(&mut answer)).await);
        assert_eq!(answer, b"", "{agreed}");
    }
    let unknown = handshake(
        broker.address,
        &authority,
        &["smtp"],
        &rustls::version::TLS13,
    )
    .await;
    let error = unknown.unwrap_err().to_string();
    assert!(error.contains("NoApplicationProtocol"), "{error}");
}

/// Answers with the names in the caller's certificate.
fn who_am_i() -> Router {
    let names = async |names: Option<Extension<CertificateNames>>| match names {
        Some(Extension(names)) => names.join(" "),
        None => "nobody".to_owned(),
    };
    Router::new().route("/who", get(names))
}

/// The names that the broker knows the holder of a connection by.
async fn names(broker: &Running, tls: &TlsConnector) -> String {
    let url = format!("https://{}", broker.address);
    let endpoint = tonic::transport::Endpoint::from_shared(url.clone()).unwrap();
    let channel = within(endpoint.connect_with_connector(tls.clone()));
    let request = http::Request::get(format!("{url}/who"));
    let request = request.body(tonic::body::Body::empty()).unwrap();
    let response = tower::ServiceExt::oneshot(channel.await.unwrap(), request);
    let body = within(response).await.unwrap().into_body();
    let collected = within(http_body_util::BodyExt::collect(body)).await;
    String::from_utf8(collected.unwrap().to_bytes().into()).unwrap()
}

#[tokio::test]
async fn a_known_client_gets_in_and_is_known_by_its_names() {
    let authority = Authority::new("mutual");
    let files = Files::new(&authority);
    let (config, limits) = (over(files.mutual()), Limits::default());
    let broker = Running::start_with_routes(config, limits, who_am_i()).await;
    let orders = authority.issue("Orders.Example", VALID);
    let tls = files.client_as(&orders);
    let client = client(&broker, tls.clone()).await.unwrap();
    let mut subscription = client.subscribe(filter()).await.unwrap();
    client.publish(message("x")).await.unwrap();
    within(subscription.next()).await.unwrap().unwrap();
    let connector = TlsConnector::new(tls, Duration::from_secs(5));
    assert_eq!(names(&broker, &connector).await, "orders.example");

    // The next connection shows what is in the files then.
    files.write_pair("client", &authority.issue("billing.example", VALID));
    assert_eq!(names(&broker, &connector).await, "billing.example");
    // And if that is of no use, what was there before.
    files.write("client.pem", "");
    assert_eq!(names(&broker, &connector).await, "billing.example");
}

#[tokio::test]
async fn nobody_has_names_where_no_certificate_is_demanded() {
    let authority = Authority::new("anonymous");
    let files = Files::new(&authority);
    let (config, limits) = (over(files.server()), Limits::default());
    let broker = Running::start_with_routes(config, limits, who_am_i()).await;
    let tls = files.client_as(&authority.issue("orders.example", VALID));
    let connector = TlsConnector::new(tls, Duration::from_secs(5));
    assert_eq!(names(&broker, &connector).await, "nobody");
    let over_http1 = get_over_tls(&broker, &authority, "/who").await;
    assert_eq!(over_http1, (200, "nobody".to_owned()));
}

#[tokio::test]
async fn a_client_without_a_certificate_or_with_a_wrong_one_is_refused() {
    let authority = Authority::new("strict");
    let files = Files::new(&authority);
    let broker = Running::start_with(over(files.mutual()), Limits::default()).await;
    let stranger = Authority::new("strict").issue("orders.example", VALID);
    let expired = authority.issue("orders.example", EXPIRED);
    for (shown, said) in [
        (None, "CertificateRequired"),
        (Some(&stranger), "DecryptError"),
        (Some(&expired), "CertificateExpired"),
    ] {
        let tls = shown.map_or_else(|| files.client(), |shown| files.client_as(shown));
        let error = client(&broker, tls).await.unwrap_err();
        assert!(matches!(error, ConnectError::Broken { .. }), "{error:?}");
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(source.contains(said), "{source}");
    }
}

#[tokio::test]
async fn a_client_tells_why_it_does_not_trust_a_broker() {
    let authority = Authority::new("trusted");
    let files = Files::new(&authority);
    let broker = Running::start_with(over(files.server()), Limits::default()).await;
    let handshake = async |tls: TlsOptions| {
        let error = client(&broker, tls).await.unwrap_err();
        assert!(matches!(error, ConnectError::Handshake { .. }), "{error:?}");
        std::error::Error::source(&error).unwrap().to_string()
    };
    let unnamed = TlsOptions {
        server_name: None,
        ..files.client()
    };
    let said = handshake(unnamed).await;
    assert!(said.contains("certificate not valid for name"), "{said}");

    files.write("other.pem", &Authority::new("other").pem);
    let elsewhere = TlsOptions {
        ca: Some(files.path("other.pem")),
        ..files.client()
    };
    let said = handshake(elsewhere.clone()).await;
    assert!(said.contains("UnknownIssuer"), "{said}");
    let systems = TlsOptions {
        ca: None,
        ..files.client()
    };
    match client(&broker, systems).await.unwrap_err() {
        // A machine that trusts nobody.
        ConnectError::Tls(_) => {}
        error => assert!(matches!(error, ConnectError::Handshake { .. }), "{error:?}"),
    }

    let missing = TlsOptions {
        ca: Some(files.path("missing.pem")),
        ..files.client()
    };
    let error = client(&broker, missing).await.unwrap_err();
    assert!(matches!(error, ConnectError::Tls(_)), "{error:?}");
    assert!(!error.is_retryable());

    let options = ClientOptions {
        tls: Some(files.client()),
        ..ClientOptions::default()
    };
    let error = Client::connect_lazy("127.0.0.1:1234", options).unwrap_err();
    assert!(matches!(error, UrlError::Plaintext { .. }), "{error:?}");

    let plain = Running::start().await;
    let error = client(&plain, files.client()).await.unwrap_err();
    assert!(matches!(error, ConnectError::Handshake { .. }), "{error:?}");
}

#[tokio::test]
async fn new_files_reach_new_connections_and_no_live_stream_ends() {
    let old = Authority::new("old");
    let files = Files::new(&old);
    let config = TlsConfig {
        check_interval: Duration::from_millis(1),
        ..files.server()
    };
    let broker = Running::start_with(over(config), Limits::default()).await;
    let client = client(&broker, files.client()).await.unwrap();
    let mut subscription = client.subscribe(filter()).await.unwrap();

    // By writing over the files, one after the other.
    let new = Authority::new("new");
    files.write_pair("server", &new.issue("localhost", VALID));
    let shown = async |authority: &Authority| {
        let version = &rustls::version::TLS13;
        handshake(broker.address, authority, &["h2"], version).await
    };
    within(async { while shown(&new).await.is_err() {} }).await;
    assert!(shown(&old).await.is_err());
    // A look in the middle of a write may find the old certificate with an end of the new one.
    assert!((1..=2).contains(&metric(&broker, &new, TAKEN).await));

    // By renaming.
    let newer = Authority::new("newer");
    files.write_pair("next", &newer.issue("localhost", VALID));
    for kind in ["key", "pem"] {
        let (from, to) = (format!("next.{kind}"), format!("server.{kind}"));
        std::fs::rename(files.path(&from), files.path(&to)).unwrap();
    }
    within(async { while shown(&newer).await.is_err() {} }).await;

    let receipt = client.publish(message("still here")).await.unwrap();
    assert_eq!(receipt.delivered, 1);
    match within(subscription.next()).await.unwrap().unwrap() {
        Event::Message(message) => assert_eq!(message.payload, "still here"),
        other => panic!("{other:?}"),
    }
}

/// As Kubernetes mounts a secret: names point into a folder that a link is moved to at once.
#[tokio::test]
async fn a_folder_that_is_replaced_as_a_whole_is_seen() {
    let authorities = ["first", "second"].map(Authority::new);
    let files = Files::new(&authorities[0]);
    for (number, authority) in authorities.iter().enumerate() {
        let folder = files.path(&number.to_string());
        std::fs::create_dir(&folder).unwrap();
        let issued = authority.issue("localhost", VALID);
        files.write_pair(&format!("{number}/tls"), &issued);
        std::os::unix::fs::symlink(&folder, files.path(&format!("to-{number}"))).unwrap();
    }
    let swap = |number: usize| {
        let link = files.path(&format!("to-{number}"));
        std::fs::rename(link, files.folder().join("..data")).unwrap();
    };
    swap(0);
    let data = files.folder().join("..data");
    let config = TlsConfig {
        check_interval: Duration::from_millis(1),
        ..TlsConfig::new(data.join("tls.pem"), data.join("tls.key"))
    };
    let broker = Running::start_with(over(config), Limits::default()).await;
    assert_eq!(metric(&broker, &authorities[0], TAKEN).await, 0);
    swap(1);
    let version = &rustls::version::TLS13;
    let shown = async || handshake(broker.address, &authorities[1], &["h2"], version).await;
    within(async { while shown().await.is_err() {} }).await;
    until_metric(&broker, &authorities[1], TAKEN, 1).await;
}

#[tokio::test]
async fn new_authorities_of_clients_are_for_new_connections() {
    let old = Authority::new("old");
    let files = Files::new(&old);
    let config = TlsConfig {
        client_ca: Some(files.path("clients.pem")),
        check_interval: Duration::from_millis(1),
        ..files.server()
    };
    files.write("clients.pem", &old.pem);
    let broker = Running::start_with(over(config), Limits::default()).await;
    let veteran = client(&broker, files.client_as(&old.issue("a.example", VALID)));
    let veteran = veteran.await.unwrap();
    let mut subscription = veteran.subscribe(filter()).await.unwrap();

    let new = Authority::new("new");
    files.write("clients.pem", &new.pem);
    let newcomer = files.client_as(&new.issue("b.example", VALID));
    let newcomer = within(async {
        loop {
            match client(&broker, newcomer.clone()).await {
                Ok(newcomer) => return newcomer,
                Err(ConnectError::Broken { .. }) => {}
                Err(error) => panic!("{error:?}"),
            }
        }
    })
    .await;
    let late = files.client_as(&old.issue("c.example", VALID));
    client(&broker, late).await.unwrap_err();
    newcomer.publish(message("x")).await.unwrap();
    within(subscription.next()).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_bad_new_file_leaves_the_old_in_force_and_is_counted_once() {
    let authority = Authority::new("careful");
    let files = Files::new(&authority);
    let config = TlsConfig {
        check_interval: Duration::from_millis(1),
        ..files.server()
    };
    let broker = Running::start_with(over(config), Limits::default()).await;
    let [good, other, third] = [(); 3].map(|()| authority.issue("localhost", VALID));
    // No certificate among them fits a neighbour's key: a look may fall between two writes.
    let bad = [
        Issued {
            certificate: good.certificate.clone(),
            key: other.key,
        },
        Issued {
            certificate: "garbage".to_owned(),
            key: third.key,
        },
        Issued {
            certificate: third.certificate,
            key: String::new(),
        },
        authority.issue("localhost", EXPIRED),
        authority.issue("localhost", (3000, 4000)),
    ];
    let replace = |issued: &Issued| {
        files.write_pair("next", issued);
        for kind in ["key", "pem"] {
            let (from, to) = (format!("next.{kind}"), format!("server.{kind}"));
            std::fs::rename(files.path(&from), files.path(&to)).unwrap();
        }
    };
    let mut refused = 0;
    for bad in &bad {
        replace(bad);
        within(async { while metric(&broker, &authority, REFUSED).await == refused {} }).await;
        // Half of a change may have been seen as one.
        let seen = metric(&broker, &authority, REFUSED).await;
        assert!((refused + 1..=refused + 2).contains(&seen), "{seen}");
        refused = seen;
    }
    std::fs::remove_file(files.path("server.key")).unwrap();
    within(async { while metric(&broker, &authority, REFUSED).await == refused {} }).await;
    // Many looks later it has not been told again.
    for _ in 0..50 {
        let now = metric(&broker, &authority, REFUSED).await;
        assert_eq!(now, refused + 1);
    }
    assert_eq!(metric(&broker, &authority, TAKEN).await, 0);
    client(&broker, files.client()).await.unwrap();
    replace(&good);
    until_metric(&broker, &authority, TAKEN, 1).await;
}

#[tokio::test]
async fn a_handshake_that_stalls_is_closed_in_time_and_takes_a_place_until_then() {
    let authority = Authority::new("stalled");
    let files = Files::new(&authority);
    let config = ServerConfig {
        first_bytes_timeout: Duration::from_millis(500),
        ..over(files.server())
    };
    let broker = Running::start_with(config, Limits::default()).await;
    // Nothing at all, and the beginning of a handshake of 512 bytes.
    let silent = socket(broker.address, b"").await;
    let begun = socket(broker.address, &[22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3]).await;
    until_metric(&broker, &authority, "fanfare_connections", 3).await;
    // A handshake that is done, and nothing after it.
    let version = &rustls::version::TLS13;
    let mute = handshake(broker.address, &authority, &["h2"], version).await;
    for stalled in [silent, begun] {
        assert_eq!(read_to_close(stalled).await, b"");
    }
    let mut read = Vec::new();
    drop(within(mute.unwrap().read_to_end(&mut read)).await);
    assert_eq!(read, b"");
    let first_bytes = "fanfare_rejected_total{limit=\"first_bytes\"}";
    until_metric(&broker, &authority, first_bytes, 3).await;
    until_metric(&broker, &authority, "fanfare_connections", 1).await;
}

#[tokio::test]
async fn a_peer_that_takes_nothing_is_let_go_and_a_slow_one_gets_all() {
    let authority = Authority::new("slow");
    let files = Files::new(&authority);
    let config = ServerConfig {
        keepalive_interval: Duration::from_millis(500),
        keepalive_timeout: Duration::from_millis(500),
        stall_timeout: Duration::from_millis(500),
        ..over(files.server())
    };
    let broker = Running::start_with(config, Limits::default()).await;
    let version = &rustls::version::TLS13;
    let connect = async || {
        let stream = handshake(broker.address, &authority, &["h2"], version).await;
        Raw::connect_on(stream.unwrap(), broker.address, OPEN).await
    };
    let (mut frozen, mut reading) = (connect().await, connect().await);
    let kept = frozen.subscribe(raw_filter("t")).await;
    let mut read = reading.subscribe(raw_filter("t")).await;
    frozen.freeze().await;
    let large = vec![b'x'; 1_000_000];
    for sequence in 1..=20 {
        broker.publish("t", large.clone());
        let response = read.next().await;
        assert_eq!((response.sequence, response.missed), (sequence, 0));
    }
    broker.until(|snapshot| snapshot.subscriptions == 1).await;
    until_metric(&broker, &authority, "fanfare_connections", 2).await;
    broker.publish("t", "last");
    assert_eq!(read.next().await.payload, "last");
    drop(kept);
}

#[tokio::test]
async fn a_plaintext_client_is_closed_and_told_by_an_alert() {
    let authority = Authority::new("not plain");
    let files = Files::new(&authority);
    let broker = Running::start_with(over(files.server()), Limits::default()).await;
    let much = [b'x'; 32 * 1024];
    for said in [
        GET_HEALTH.as_bytes(),
        PREFACE,
        b"\x16\x03\x01\xff\xffgarbage",
        &much,
    ] {
        let mut plain = socket(broker.address, said).await;
        let mut answer = Vec::new();
        // In order: what was not read would reset the connection, and the reason could be lost.
        within(plain.read_to_end(&mut answer)).await.unwrap();
        // A fatal alert: type 21, two bytes of version and two of length, level 2.
        assert_eq!((answer[0], answer[5]), (21, 2), "{answer:?}");
    }
    let failures = "fanfare_tls_handshake_failures_total";
    until_metric(&broker, &authority, failures, 4).await;
    let plain = within(Client::connect(&broker.address.to_string())).await;
    let error = plain.unwrap_err();
    assert!(matches!(error, ConnectError::Broken { .. }), "{error:?}");
}

#[tokio::test]
async fn plaintext_in_the_open_must_be_asked_for() {
    let bind = async |listen: &str, insecure_plaintext: bool| {
        let config = ServerConfig {
            listen: listen.parse().unwrap(),
            insecure_plaintext,
            ..ServerConfig::default()
        };
        let broker = Broker::new(Limits::default(), 1).unwrap();
        Server::bind(config, broker).await.map(drop)
    };
    for open in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0", "[2001:db8::1]:0"] {
        let error = bind(open, false).await.unwrap_err();
        assert!(matches!(error, BindError::Plaintext { .. }), "{error:?}");
        for way_out in ["--tls-cert, --tls-key", "--insecure-plaintext", open] {
            assert!(error.to_string().contains(way_out), "{error}");
        }
    }
    // Addresses for documentation, which are no machine's: it is tried, and nothing is opened.
    for open in ["192.0.2.1:0", "[2001:db8::1]:0"] {
        let error = bind(open, true).await.unwrap_err();
        assert!(matches!(error, BindError::Address { .. }), "{error:?}");
    }
    bind("127.0.0.1:0", false).await.unwrap();
    bind("[::ffff:127.0.0.1]:0", false).await.unwrap();
}

#[tokio::test]
async fn files_that_do_not_work_are_said_before_anything_is_served() {
    let authority = Authority::new("strict start");
    let files = Files::new(&authority);
    let refusal = async |tls: TlsConfig| {
        let broker = Broker::new(Limits::default(), 1).unwrap();
        let mut config = over(tls);
        config.listen.set_port(0);
        match Server::bind(config, broker).await.unwrap_err() {
            BindError::Tls(error) => error.to_string(),
            error => panic!("{error:?}"),
        }
    };
    let said = refusal(TlsConfig::new("/nowhere.pem", files.path("server.key"))).await;
    assert_eq!(said, "cannot read /nowhere.pem");
    let swapped = TlsConfig::new(files.path("server.key"), files.path("server.pem"));
    let said = refusal(swapped).await;
    assert!(said.starts_with("no certificate in "), "{said}");
    files.write_pair("expired", &authority.issue("localhost", EXPIRED));
    let expired = TlsConfig::new(files.path("expired.pem"), files.path("expired.key"));
    let said = refusal(expired).await;
    let only = "is valid from 2001-01-01T00:00:00Z to 2002-01-01T00:00:00Z only";
    assert!(said.ends_with(only), "{said}");
    let unmatched = TlsConfig::new(files.path("server.pem"), files.path("expired.key"));
    let said = refusal(unmatched).await;
    assert!(said.ends_with("do not work together"), "{said}");
    files.write("nobody.pem", "");
    let nobody = TlsConfig {
        client_ca: Some(files.path("nobody.pem")),
        ..files.server()
    };
    let said = refusal(nobody).await;
    assert!(said.starts_with("no certificate in "), "{said}");

    let trusting = |bundle: &[&str]| {
        files.write("bundle.pem", &bundle.concat());
        TlsConfig {
            client_ca: Some(files.path("bundle.pem")),
            ..files.server()
        }
    };
    let bundle = files.path("bundle.pem").display().to_string();
    let old = Authority::valid("old", EXPIRED);
    let said = refusal(trusting(&[&authority.pem, &old.pem])).await;
    let whose = |subject: &str| format!("the certificate of `{subject}` in {bundle} is ");
    let start = whose("CN=old") + "valid from 2001";
    assert!(said.starts_with(&start), "{said}");
    let early = Authority::valid("early", (3000, 4000));
    let said = refusal(trusting(&[&early.pem])).await;
    assert!(said.starts_with(&whose("CN=early")), "{said}");
    let nobodys = authority.issue("localhost", VALID);
    let said = refusal(trusting(&[&nobodys.certificate])).await;
    let start = whose("CN=rcgen self signed cert") + "no authority's";
    assert!(said.starts_with(&start), "{said}");
    // One that is over in the midst of a chain breaks it.
    let own = old.issue("localhost", VALID);
    files.write("chain.pem", &[own.certificate, old.pem.clone()].concat());
    files.write("chain.key", &own.key);
    let chain = TlsConfig::new(files.path("chain.pem"), files.path("chain.key"));
    let said = refusal(chain).await;
    assert!(said.ends_with(only), "{said}");

    // Where TLS is not served, nothing is said about it.
    let plain = Running::start().await;
    assert!(!plain.get("/metrics").await.1.contains("tls"));
    assert_eq!(http1(plain.address, GET_HEALTH).await.0, 200);
}
