//! The floor's server: one thread that copies what a publisher sends to each subscriber, one write for
//! each batch. It knows no messages, only bytes.

use std::{cell::RefCell, net::SocketAddr, rc::Rc};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, tcp::OwnedWriteHalf},
    task::LocalSet,
};

use crate::wire::floor::{HELLO, PUBLISHER, READY, SUBSCRIBER};

const BATCH_BYTES: usize = 64 * 1024;

/// The subscribers of all topics, each with its topic.
type Subscribers = Rc<RefCell<Vec<(u8, OwnedWriteHalf)>>>;

pub(crate) fn serve(address: SocketAddr) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let local = LocalSet::new();
    local.block_on(&runtime, async {
        let listener = TcpListener::bind(address).await?;
        let subscribers = Subscribers::default();
        loop {
            let (stream, _) = listener.accept().await?;
            tokio::task::spawn_local(serve_one(stream, Rc::clone(&subscribers)));
        }
    })
}

async fn serve_one(mut stream: TcpStream, subscribers: Subscribers) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    loop {
        match stream.read_u8().await? {
            HELLO => stream.write_all(&[READY]).await?,
            SUBSCRIBER => {
                let topic = stream.read_u8().await?;
                stream.write_all(&[READY]).await?;
                let (_reads_nothing, write) = stream.into_split();
                subscribers.borrow_mut().push((topic, write));
                return Ok(());
            }
            PUBLISHER => {
                let topic = stream.read_u8().await?;
                return publish(stream, topic, &subscribers).await;
            }
            _ => return Ok(()),
        }
    }
}

async fn publish(
    mut stream: TcpStream,
    topic: u8,
    subscribers: &Subscribers,
) -> std::io::Result<()> {
    // All have subscribed by now.
    let mut mine = Vec::new();
    let all = std::mem::take(&mut *subscribers.borrow_mut());
    for (of, write) in all {
        match of == topic {
            true => mine.push(write),
            false => subscribers.borrow_mut().push((of, write)),
        }
    }
    let mut batch = vec![0; BATCH_BYTES];
    loop {
        let length = stream.read(&mut batch).await?;
        if length == 0 {
            // The subscribers may have more to read.
            return std::future::pending().await;
        }
        for write in &mut mine {
            write.write_all(&batch[..length]).await?;
        }
    }
}
