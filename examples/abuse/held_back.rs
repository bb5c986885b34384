//! Peers that make the broker keep something and hold back what would free it: the rest of a request, of a frame
//! or of a header block, or the window for an answer.

use std::{net::SocketAddr, time::Duration};

use tokio::{io::AsyncWriteExt, net::TcpStream};

use crate::{attack, memory::hello};

const WATCH: &str = "/grpc.health.v1.Health/Watch";
const PUBLISH_STREAM: &str = "/pubsub.v1.PubSubService/PublishStream";
/// Fields of a header list of 16 KiB, each a byte on the wire.
const FIELDS: usize = 430;
/// The newest entry of the table.
const NEWEST: u8 = 0x80 | 62;
const STREAMS: usize = 300;

/// What each of many connections says.
pub(crate) struct Said {
    connections: usize,
    settings: &'static [u8],
    frames: Vec<u8>,
}

/// Each by its title.
pub(crate) fn all() -> anyhow::Result<Vec<(&'static str, Said)>> {
    let watch = attack::grpc_request(WATCH);
    let publish = attack::grpc_request(PUBLISH_STREAM);
    let metrics = get("/metrics")?;
    Ok(vec![
        (
            "calls with many fields, routed",
            requests(60, &with_many_fields(&watch), 0),
        ),
        (
            "calls with many fields, direct",
            requests(200, &with_many_fields(&publish), 0),
        ),
        (
            "calls that say nothing more",
            requests(200, &[publish.clone(), publish], 0),
        ),
        (
            "answers that nobody takes",
            Said {
                // INITIAL_WINDOW_SIZE
                settings: &[0, 4, 0, 0, 0, 0],
                ..requests(100, &[metrics.clone(), metrics], attack::END_STREAM)
            },
        ),
        ("half frames", part(half_a_frame(attack::UNKNOWN, 0))),
        ("half header blocks", part(half_a_block())),
        ("tables of tiny entries", part(full_table()?)),
    ])
}

/// Opens the connections, which stay open as long as they are held.
pub(crate) async fn open(address: SocketAddr, said: &Said) -> anyhow::Result<Vec<TcpStream>> {
    let mut held = Vec::new();
    for _ in 0..said.connections {
        let mut socket = TcpStream::connect(address).await?;
        let all = [hello(said.settings), said.frames.clone()].concat();
        // The broker may refuse to read all of it.
        let writing = tokio::time::timeout(Duration::from_millis(100), socket.write_all(&all));
        drop(writing.await);
        held.push(socket);
    }
    Ok(held)
}

fn part(frames: Vec<u8>) -> Said {
    Said {
        connections: 2_400,
        settings: &[],
        frames,
    }
}

/// Requests of which the first has another head than the others.
fn requests(connections: usize, [first, other]: &[Vec<u8>; 2], flags: u8) -> Said {
    let flags = flags | attack::END_HEADERS;
    let frame = |index| {
        let block = if index == 0 { first } else { other };
        attack::frame(attack::HEADERS, flags, attack::stream(index), block)
    };
    Said {
        connections,
        settings: &[],
        frames: (0..STREAMS).flat_map(frame).collect(),
    }
}

/// A head that enters a field into the table and repeats it, and one that repeats it alone.
fn with_many_fields(block: &[u8]) -> [Vec<u8>; 2] {
    let first = [block, b"\x40\x03aaa\x01b", &[NEWEST; FIELDS - 1]].concat();
    [first, [block, &[NEWEST; FIELDS]].concat()]
}

fn get(path: &str) -> anyhow::Result<Vec<u8>> {
    let length = u8::try_from(path.len())?;
    Ok([&[0x82, 0x86, 0x04, length], path.as_bytes()].concat())
}

fn half_a_frame(kind: u8, stream: u32) -> Vec<u8> {
    let mut frame = attack::frame(kind, 0, stream, &[0; 16_384]);
    frame.truncate(16_000);
    frame
}

fn half_a_block() -> Vec<u8> {
    let mut frames = attack::frame(attack::HEADERS, 0, 1, &[0; 16_384]);
    frames.extend(attack::frame(attack::CONTINUATION, 0, 1, &[0; 16_000]));
    frames.extend(half_a_frame(attack::CONTINUATION, 1));
    frames
}

fn full_table() -> anyhow::Result<Vec<u8>> {
    let mut block = get("/health")?;
    for field in 0..116_u8 {
        block.extend([0x40, 2, b'a' + field % 26, b'a' + field / 26, 1, b'x']);
    }
    let flags = attack::END_HEADERS | attack::END_STREAM;
    Ok(attack::frame(attack::HEADERS, flags, 1, &block))
}
