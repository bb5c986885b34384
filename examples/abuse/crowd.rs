//! One subscriber in a hundred that stalls: what it costs the ninety-nine others, and how long it stays.
//! And one that is frozen: its socket is open, and it answers nothing.

use std::{io::Write, path::Path, time::Duration};

use fanfare::wire::pb::PublishRequest;
use hdrhistogram::Histogram;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
    time::Instant,
};

use crate::{
    attack,
    client::{connect, subscribe},
    server::Server,
};

const SUBSCRIBERS: usize = 100;
const SUBSCRIBE: &str = "/pubsub.v1.PubSubService/Subscribe";
/// A stalled reader is gone in this time, a half-open peer in that.
const STALLED_MAX: Duration = Duration::from_secs(11);
const HALF_OPEN_MAX: Duration = Duration::from_secs(35);

/// What the subscribers that read got.
struct Crowd {
    per_second: f64,
    latency: Histogram<u64>,
}

/// Returns whether both were gone in time.
pub(crate) async fn stalled_one_in_a_hundred(
    broker: &Path,
    duration: Duration,
    out: &mut impl Write,
) -> anyhow::Result<bool> {
    const ROUNDS: usize = 3;
    writeln!(
        out,
        "\n{:<26} {:>12} {:>9} {:>9}",
        "99 readers", "messages/s", "p50 us", "p99 us"
    )?;
    for _ in 0..ROUNDS {
        for (title, stalled) in [("and one more", false), ("and one that stalls", true)] {
            let crowd = run(broker, duration, stalled).await?;
            let quantile = |quantile| crowd.latency.value_at_quantile(quantile);
            let (rate, p50, p99) = (crowd.per_second, quantile(0.5), quantile(0.99));
            writeln!(out, "{title:<26} {rate:>12.0} {p50:>9} {p99:>9}")?;
        }
    }
    let mut is_in_time = true;
    for (title, is_frozen, max) in [
        ("a stalled reader", false, STALLED_MAX),
        ("a half-open peer", true, HALF_OPEN_MAX),
    ] {
        let time = time_to_leave(broker, is_frozen).await?;
        is_in_time &= time <= max;
        writeln!(out, "{title} is gone after {:.1} s", time.as_secs_f64())?;
    }
    Ok(is_in_time)
}

/// Publishes as fast as it is answered, 32 messages at a time, for less time than a stalled reader stays.
async fn run(broker: &Path, duration: Duration, stalled: bool) -> anyhow::Result<Crowd> {
    let server = Server::start(broker)?;
    let started = Instant::now();
    let mut readers = JoinSet::new();
    for _ in 0..SUBSCRIBERS - 1 {
        let mut stream = subscribe(server.address, "t").await?;
        readers.spawn(async move {
            let mut latency = Histogram::new_with_bounds(1, 60_000_000, 3)?;
            let mut count = 0_u64;
            while let Ok(Some(response)) = stream.message().await {
                let sent: [u8; 8] = response.payload[..8].try_into()?;
                let now = started.elapsed().as_micros() as u64;
                latency.saturating_record(now.saturating_sub(u64::from_be_bytes(sent)));
                count += 1;
            }
            anyhow::Ok((count, latency))
        });
    }
    let _other = if stalled {
        Some(silent(server.address, false, "t").await?)
    } else {
        let mut stream = subscribe(server.address, "t").await?;
        readers.spawn(async move {
            while let Ok(Some(_)) = stream.message().await {}
            Ok((0, Histogram::new(3)?))
        });
        None
    };
    let mut publishers = JoinSet::new();
    let until = Instant::now() + duration;
    for _ in 0..4 {
        let mut client = connect(server.address).await?;
        publishers.spawn(async move {
            while Instant::now() < until {
                let mut payload = vec![0; 128];
                let now = started.elapsed().as_micros() as u64;
                payload[..8].copy_from_slice(&now.to_be_bytes());
                let request = PublishRequest {
                    topic: "t".to_owned(),
                    payload: payload.into(),
                    ..PublishRequest::default()
                };
                client.publish(request).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = publishers.join_next().await {
        done??;
    }
    drop(server);
    let mut crowd = Crowd {
        per_second: 0.0,
        latency: Histogram::new_with_bounds(1, 60_000_000, 3)?,
    };
    while let Some(done) = readers.join_next().await {
        let (count, latency) = done??;
        crowd.per_second += count as f64 / duration.as_secs_f64();
        crowd.latency.add(latency)?;
    }
    Ok(crowd)
}

/// A subscriber that takes no message: it answers pings, or is frozen.
async fn silent(
    address: std::net::SocketAddr,
    is_frozen: bool,
    topic: &str,
) -> anyhow::Result<tokio::task::JoinHandle<()>> {
    let mut socket = TcpStream::connect(address).await?;
    let mut body = vec![0x0a, u8::try_from(topic.len())?];
    body.extend(topic.as_bytes());
    let no_window = [0, 4, 0, 0, 0, 0];
    let said = [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        &attack::frame(attack::SETTINGS, 0, 0, &no_window)[..],
        &attack::request(1, SUBSCRIBE),
        &attack::last_message(1, &body),
    ]
    .concat();
    socket.write_all(&said).await?;
    // The first answer's headers: it is live.
    let mut header = [0; 9];
    let mut payload = Vec::new();
    while header[3] != attack::HEADERS {
        socket.read_exact(&mut header).await?;
        let [a, b, c, ..] = header;
        payload.resize(u32::from_be_bytes([0, a, b, c]) as usize, 0);
        socket.read_exact(&mut payload).await?;
    }
    Ok(tokio::spawn(async move {
        if is_frozen {
            std::future::pending::<()>().await;
        }
        while socket.read_exact(&mut header).await.is_ok() {
            let [a, b, c, kind, flags, ..] = header;
            payload.resize(u32::from_be_bytes([0, a, b, c]) as usize, 0);
            if socket.read_exact(&mut payload).await.is_err() {
                return;
            }
            if kind == attack::PING && flags & attack::ACK == 0 {
                let pong = attack::frame(attack::PING, attack::ACK, 0, &payload);
                if socket.write_all(&pong).await.is_err() {
                    return;
                }
            }
        }
    }))
}

/// From the first message that is not taken, or from the last word of the frozen one, to the end of the
/// subscription.
async fn time_to_leave(broker: &Path, is_frozen: bool) -> anyhow::Result<Duration> {
    let server = Server::start(broker)?;
    let silent = silent(server.address, is_frozen, "t").await?;
    let started = Instant::now();
    if !is_frozen {
        let request = PublishRequest {
            topic: "t".to_owned(),
            payload: vec![0; 128].into(),
            ..PublishRequest::default()
        };
        connect(server.address).await?.publish(request).await?;
    }
    while server.metric("fanfare_subscriptions").await? > 0 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        anyhow::ensure!(started.elapsed() < 2 * HALF_OPEN_MAX, "it never leaves");
    }
    silent.abort();
    Ok(started.elapsed())
}
