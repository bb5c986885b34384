//! Whether the process keeps within its memory budget and a tenth, with readers that take nothing, sockets
//! that take nothing, and requests that never end.

use std::{
    io::{self, Write},
    net::SocketAddr,
    path::Path,
    time::Duration,
};

use fanfare::wire::pb::PublishStreamRequest;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::Instant,
};

use crate::{
    attack,
    client::{connect, subscribe},
    held_back,
    server::Server,
};

const BUDGET: u64 = 128 << 20;
const SUBSCRIBE: &str = "/pubsub.v1.PubSubService/Subscribe";
const PUBLISH: &str = "/pubsub.v1.PubSubService/Publish";
/// Long enough to be shed and not ended as stalled.
const STALL_TIMEOUT: &str = "1h";

/// What fills the memory.
#[derive(Clone, Copy, Debug)]
struct Scenario {
    title: &'static str,
    connections: usize,
    subscriptions: usize,
    /// What a peer lets the broker send on a stream; nobody reads the socket either way.
    window: u32,
    payload: usize,
    /// Topics that each subscriber has for itself, or one that all share.
    is_shared: bool,
}

const SCENARIOS: [Scenario; 5] = [
    Scenario {
        title: "small messages, one's own",
        connections: 4,
        subscriptions: 200,
        window: 0,
        payload: 64,
        is_shared: false,
    },
    Scenario {
        title: "small messages, shared",
        connections: 4,
        subscriptions: 200,
        window: 0,
        payload: 64,
        is_shared: true,
    },
    Scenario {
        title: "64 KiB, one's own",
        connections: 4,
        subscriptions: 200,
        window: 0,
        payload: 64 << 10,
        is_shared: false,
    },
    Scenario {
        title: "open windows, 1 KiB",
        connections: 20,
        subscriptions: 250,
        window: 1 << 30,
        payload: 1 << 10,
        is_shared: false,
    },
    Scenario {
        title: "open windows, shared",
        connections: 20,
        subscriptions: 250,
        window: 1 << 30,
        payload: 1 << 10,
        is_shared: true,
    },
];

/// Returns whether the broker kept within its budget.
pub(crate) async fn keeps_its_budget(
    broker: &Path,
    duration: Duration,
    out: &mut impl Write,
) -> anyhow::Result<bool> {
    writeln!(
        out,
        "\nmemory, with a budget of {} MiB\n{:<28} {:>9} {:>9} {:>9} {:>6}",
        BUDGET >> 20,
        "scenario",
        "peak MiB",
        "of it",
        "account",
        "shed"
    )?;
    let mut keeps = true;
    for scenario in SCENARIOS {
        let server = start(broker)?;
        let held = scenario.run(server.address, duration).await?;
        keeps &= show(scenario.title, &server, out).await?;
        drop(held);
        // Who comes afterwards is served, without a restart.
        let mut latecomer = None;
        let until = Instant::now() + 10 * duration.max(Duration::from_secs(1));
        while latecomer.is_none() && Instant::now() < until {
            latecomer = subscribe(server.address, "late").await.ok();
        }
        keeps &= latecomer.is_some();
    }
    let server = start(broker)?;
    let _held = requests_that_never_end(server.address).await;
    keeps &= show("requests that never end", &server, out).await?;
    for (title, said) in held_back::all()? {
        let server = start(broker)?;
        let _held = held_back::open(server.address, &said).await?;
        tokio::time::sleep(duration.min(Duration::from_secs(2))).await;
        keeps &= show(title, &server, out).await?;
    }
    Ok(keeps)
}

fn start(broker: &Path) -> anyhow::Result<Server> {
    let budget = BUDGET.to_string();
    let args = ["--memory-budget", &budget, "--stall-timeout", STALL_TIMEOUT];
    Server::start_with(broker, &args)
}

async fn show(title: &str, server: &Server, out: &mut impl Write) -> anyhow::Result<bool> {
    let rss = server.rss_bytes()?;
    let part = rss as f64 / BUDGET as f64;
    // Above the budget nobody is told.
    let account = server.metric("fanfare_memory_bytes").await;
    let account = account.map_or("full".to_owned(), |bytes| (bytes >> 20).to_string());
    let shed = "fanfare_rejected_total{limit=\"shed\"}";
    let shed = server.metric(shed).await.map_or(0, |count| count);
    let rss = rss >> 20;
    writeln!(
        out,
        "{title:<28} {rss:>9} {part:>9.2} {account:>9} {shed:>6}"
    )?;
    Ok(part <= 1.1)
}

impl Scenario {
    async fn run(self, address: SocketAddr, duration: Duration) -> anyhow::Result<Vec<TcpStream>> {
        let mut held = Vec::new();
        for connection in 0..self.connections {
            held.push(self.subscribe(address, connection).await?);
        }
        let subscribers = self.connections * self.subscriptions;
        let until = Instant::now() + duration;
        let mut client = connect(address).await?;
        let mut next = 0;
        let requests = std::iter::from_fn(move || {
            next += 1;
            (Instant::now() < until).then(|| PublishStreamRequest {
                topic: format!(
                    "t{}",
                    if self.is_shared {
                        0
                    } else {
                        next % subscribers
                    }
                ),
                payload: vec![0; self.payload].into(),
                ..PublishStreamRequest::default()
            })
        });
        let answers = client.publish_stream(tokio_stream::iter(requests)).await?;
        let mut answers = answers.into_inner();
        while answers.message().await?.is_some() {}
        Ok(held)
    }

    /// A connection full of subscriptions, whose socket nobody reads any more.
    async fn subscribe(self, address: SocketAddr, connection: usize) -> anyhow::Result<TcpStream> {
        let window = [&[0, 4][..], &self.window.to_be_bytes()].concat();
        let open = attack::frame(attack::WINDOW_UPDATE, 0, 0, &(1_u32 << 30).to_be_bytes());
        let mut said = hello(&window);
        said.extend(open);
        for index in 0..self.subscriptions {
            let number = if self.is_shared {
                0
            } else {
                connection * self.subscriptions + index
            };
            let topic = format!("t{number}");
            let mut body = vec![0x0a, u8::try_from(topic.len())?];
            body.extend(topic.as_bytes());
            let stream = attack::stream(index);
            said.extend(attack::request(stream, SUBSCRIBE));
            said.extend(attack::last_message(stream, &body));
        }
        let mut socket = TcpStream::connect(address).await?;
        socket.write_all(&said).await?;
        Ok(socket)
    }
}

pub(crate) fn hello(settings: &[u8]) -> Vec<u8> {
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let settings = attack::frame(attack::SETTINGS, 0, 0, settings);
    [&preface[..], &settings].concat()
}

/// Each has sent all but its last byte. Once memory is used up, the broker lets no more connections in.
async fn requests_that_never_end(address: SocketAddr) -> Vec<TcpStream> {
    const CONNECTIONS: usize = 100;
    let mut held = Vec::new();
    for _ in 0..CONNECTIONS {
        held.extend(unfinished(address).await.ok());
    }
    held
}

async fn unfinished(address: SocketAddr) -> io::Result<TcpStream> {
    const BYTES: u32 = 60_000;
    const STREAMS: usize = 60;
    let prefix = (BYTES + 1).to_be_bytes();
    let mut socket = TcpStream::connect(address).await?;
    socket.write_all(&hello(&[])).await?;
    // Before that, the window of the connection is small.
    let mut header = [0; 9];
    while header[3] != attack::WINDOW_UPDATE {
        socket.read_exact(&mut header).await?;
        let [a, b, c, ..] = header;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        socket.read_exact(&mut payload).await?;
    }
    let mut said = Vec::new();
    for index in 0..STREAMS {
        let stream = attack::stream(index);
        said.extend(attack::request(stream, PUBLISH));
        let body = [&[0][..], &prefix, &[0; BYTES as usize]].concat();
        for part in body.chunks(16_000) {
            said.extend(attack::frame(attack::DATA, 0, stream, part));
        }
    }
    // The broker may refuse to read all of it.
    let writing = tokio::time::timeout(Duration::from_secs(1), socket.write_all(&said));
    drop(writing.await);
    Ok(socket)
}
