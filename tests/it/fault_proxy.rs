//! The network between a client and a broker, at its worst: late, slow, half-open, cut.
//!
//! Passes bytes between sockets as the test says, each way on its own, and changes its ways while
//! connections are open. What a cut connection has passed is exact to the byte.

use std::{collections::VecDeque, fmt, io, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpSocket, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{oneshot, watch},
    task::JoinHandle,
    time::Instant,
};

/// What a connection takes in before it has passed on what it has; and little in the system's buffers.
const HELD_BYTES_MAX: usize = 1 << 20;
const CHUNK_BYTES: usize = 16 * 1024;
const SOCKET_BUFFER_BYTES: u32 = 16 * 1024;

/// One of the two ways through a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    ToBroker,
    ToClient,
}

/// How bytes pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pass {
    Freely,
    /// Each byte so much later.
    Late(Duration),
    /// So many bytes a second.
    Slowly(u32),
    /// They are taken, and never seen again; nor is the end of the connection.
    Swallowed,
    /// They are not even taken.
    Held,
}

/// How a connection is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// Both sides are told that the other one has closed.
    Fin,
    /// Both sides are told that there is no such connection.
    Reset,
}

/// When a connection is cut by itself: once so many bytes have passed this way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fate {
    pub(crate) way: Way,
    pub(crate) after_bytes: u64,
    pub(crate) cut: Cut,
}

type Fates = Box<dyn FnMut() -> Option<Fate> + Send>;

/// Listens in the place of a broker. Gone with all its connections when dropped.
pub(crate) struct FaultProxy {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

struct Shared {
    broker: SocketAddr,
    /// How bytes pass on connections to come.
    ways: Mutex<[Pass; 2]>,
    fates: Mutex<Fates>,
    connections: Mutex<Vec<Line>>,
}

/// One connection, from outside.
struct Line {
    ways: [watch::Sender<Pass>; 2],
    cut: Option<oneshot::Sender<Cut>>,
    /// Tells when nothing passes any more.
    severed: oneshot::Receiver<()>,
    passing: JoinHandle<()>,
}

impl fmt::Debug for FaultProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("FaultProxy").field(&self.address).finish()
    }
}

impl FaultProxy {
    pub(crate) async fn start(broker: SocketAddr) -> Self {
        Self::start_with_fates(broker, || None).await
    }

    /// Asks `fates` about each connection that comes.
    pub(crate) async fn start_with_fates(
        broker: SocketAddr,
        fates: impl FnMut() -> Option<Fate> + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            broker,
            ways: Mutex::new([Pass::Freely; 2]),
            fates: Mutex::new(Box::new(fates)),
            connections: Mutex::default(),
        });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Self {
            address,
            shared,
            accepting,
        }
    }

    /// How bytes pass from now on, on connections that are there and that come.
    pub(crate) fn set(&self, way: Way, pass: Pass) {
        self.shared.ways.lock()[way as usize] = pass;
        self.set_present(way, pass);
    }

    /// The same for connections that are there.
    pub(crate) fn set_present(&self, way: Way, pass: Pass) {
        for line in &*self.shared.connections.lock() {
            line.ways[way as usize].send_replace(pass);
        }
    }

    /// Cuts all connections; returns when nothing passes on them any more.
    pub(crate) async fn cut(&self, cut: Cut) {
        let lines = std::mem::take(&mut *self.shared.connections.lock());
        for mut line in lines {
            if line.cut.take().unwrap().send(cut).is_ok() {
                line.severed.await.ok();
            }
        }
    }

    /// How many connections have come since the last cut by hand.
    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.lock().len()
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.accepting.abort();
        let lines = std::mem::take(&mut *self.shared.connections.lock());
        lines.iter().for_each(|line| line.passing.abort());
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        let (near, _) = listener.accept().await.unwrap();
        let socket = TcpSocket::new_v4().unwrap();
        // What the proxy does not take should soon be felt at the other end.
        socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES).unwrap();
        let far = socket.connect(shared.broker).await.unwrap();
        let fate = (shared.fates.lock())();
        let (ways, seen): (Vec<_>, Vec<_>) =
            shared.ways.lock().map(watch::channel).into_iter().unzip();
        let (cut, cutting) = oneshot::channel();
        let (sever, severed) = oneshot::channel();
        let seen = seen.try_into().expect("there are two ways");
        let passing = tokio::spawn(pass(near, far, seen, fate, cutting, sever));
        let ways = ways.try_into().expect("there are two ways");
        shared.connections.lock().push(Line {
            ways,
            cut: Some(cut),
            severed,
            passing,
        });
    }
}

/// Passes bytes both ways until the connection is over.
async fn pass(
    near: TcpStream,
    far: TcpStream,
    [to_broker, to_client]: [watch::Receiver<Pass>; 2],
    fate: Option<Fate>,
    cutting: oneshot::Receiver<Cut>,
    severed: oneshot::Sender<()>,
) {
    for socket in [&near, &far] {
        socket.set_nodelay(true).unwrap();
    }
    let left = |way| {
        let fate = fate.filter(|fate| fate.way == way);
        fate.map_or(u64::MAX, |fate| fate.after_bytes)
    };
    let (mut near_read, mut near_write) = near.into_split();
    let (mut far_read, mut far_write) = far.into_split();
    let cut = {
        let there = pump(
            &mut near_read,
            &mut far_write,
            to_broker,
            left(Way::ToBroker),
        );
        let back = pump(
            &mut far_read,
            &mut near_write,
            to_client,
            left(Way::ToClient),
        );
        let both = async { tokio::try_join!(there, back) };
        tokio::select! {
            cut = cutting => cut.ok(),
            ended = both => match ended {
                Ok(_) => None,
                Err(Broken::Fate) => fate.map(|fate| fate.cut),
                // Who is reset resets the other.
                Err(Broken::Socket(_)) => Some(Cut::Reset),
            },
        }
    };
    match cut {
        None => {}
        Some(Cut::Reset) => {
            for socket in [near_read.as_ref(), far_read.as_ref()] {
                socket.set_zero_linger().ok();
            }
            // They would say an orderly goodbye first.
            near_write.forget();
            far_write.forget();
        }
        Some(Cut::Fin) => {
            drop((near_write, far_write));
            severed.send(()).ok();
            // A socket that is closed with something unread in it would reset its peer.
            drain(near_read).await;
            drain(far_read).await;
        }
    }
}

async fn drain(mut socket: OwnedReadHalf) {
    let mut bytes = [0; 1024];
    while socket.read(&mut bytes).await.is_ok_and(|count| count > 0) {}
}

/// Why a way ends before its time.
#[derive(Debug)]
enum Broken {
    Fate,
    Socket(#[allow(dead_code, reason = "shown when a test fails")] io::Error),
}

/// Passes bytes one way, `left` at most, until the sender has said its last.
async fn pump(
    from: &mut OwnedReadHalf,
    to: &mut OwnedWriteHalf,
    mut passes: watch::Receiver<Pass>,
    mut left: u64,
) -> Result<(), Broken> {
    let mut chunk = [0; CHUNK_BYTES];
    // What has come, and when it goes on.
    let mut held: VecDeque<(Instant, Bytes)> = VecDeque::new();
    let mut held_bytes = 0;
    let mut is_over = false;
    loop {
        let pass = *passes.borrow_and_update();
        if is_over && held.is_empty() && !matches!(pass, Pass::Swallowed | Pass::Held) {
            to.shutdown().await.map_err(Broken::Socket)?;
            return Ok(());
        }
        let (chunk_bytes, room) = match pass {
            Pass::Slowly(per_second) => ((per_second / 10).max(1) as usize, 1),
            _ => (CHUNK_BYTES, HELD_BYTES_MAX),
        };
        let reads = !is_over && pass != Pass::Held && held_bytes < room;
        let writes = !matches!(pass, Pass::Swallowed | Pass::Held);
        let due = held.front().map(|(due, _)| *due).filter(|_| writes);
        tokio::select! {
            biased;
            Ok(()) = passes.changed() => {}
            () = until(due), if due.is_some() => {
                let (_, mut bytes) = held.pop_front().expect("it is due");
                held_bytes -= bytes.len();
                bytes.truncate(usize::try_from(left).unwrap_or(usize::MAX));
                to.write_all(&bytes).await.map_err(Broken::Socket)?;
                left -= bytes.len() as u64;
                if left == 0 {
                    return Err(Broken::Fate);
                }
            }
            read = from.read(&mut chunk[..chunk_bytes]), if reads => {
                let count = match read {
                    // Nobody beyond learns of it.
                    Err(_) if pass == Pass::Swallowed => 0,
                    read => read.map_err(Broken::Socket)?,
                };
                is_over = count == 0;
                if !is_over && pass != Pass::Swallowed {
                    let bytes = Bytes::copy_from_slice(&chunk[..count]);
                    held.push_back((due_at(pass, count), bytes));
                    held_bytes += count;
                }
            }
        }
    }
}

fn due_at(pass: Pass, bytes: usize) -> Instant {
    let now = Instant::now();
    match pass {
        Pass::Late(by) => now + by,
        Pass::Slowly(per_second) => now + Duration::from_secs(bytes as u64) / per_second,
        _ => now,
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}
