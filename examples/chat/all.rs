//! Everything with one command: a broker, the model server, dispatchers, and the API.

use std::{net::SocketAddr, path::Path};

use futures_util::future::select_all;

use crate::{
    child::{self, Child},
    interrupt::Stop,
};

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct AllArgs {
    /// Where the API and the page are
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Where the broker listens
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:1234")]
    broker_listen: SocketAddr,
    /// Where the model server listens
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:50051")]
    model_listen: SocketAddr,
    /// How many dispatchers share the requests
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64))]
    dispatchers: u16,
}

pub(crate) async fn run(args: AllArgs, stop: Stop) -> anyhow::Result<()> {
    // In the order in which they need each other; stopped in the opposite one.
    let mut children = Vec::new();
    let started = tokio::select! {
        started = start(&args, &mut children) => started,
        () = stop.requested() => Ok(String::new()),
    };
    let outcome = match started {
        Ok(url) => {
            if !url.is_empty() {
                println!("chat at {url}/ until Ctrl-C");
            }
            let ended = select_all(children.iter_mut().map(|child| Box::pin(child.ended())));
            tokio::select! {
                (how, _, _) = ended => Err(anyhow::anyhow!(how)),
                () = stop.requested() => Ok(()),
            }
        }
        Err(error) => Err(error),
    };
    while let Some(child) = children.pop() {
        child.stop().await;
    }
    outcome
}

async fn start(args: &AllArgs, children: &mut Vec<Child>) -> anyhow::Result<String> {
    let this = std::env::current_exe()?;
    let (child, broker) = child::broker(&args.broker_listen.to_string()).await?;
    children.push(child);
    let model = ["model", "--listen", &args.model_listen.to_string()];
    let model = serve(&this, "model", &model, children).await?;
    for number in 1..=args.dispatchers {
        let title = format!("dispatcher {number}");
        let dispatcher = ["dispatcher", "--broker", &broker, "--model", &model];
        let dispatcher = dispatcher.map(str::to_owned);
        let is_ready = |line: &str| line.ends_with("is ready").then_some(());
        let (child, ()) = Child::start(&title, &this, &dispatcher, is_ready).await?;
        children.push(child);
    }
    let listen = args.listen.to_string();
    let api = ["api", "--listen", &listen, "--broker", &broker];
    serve(&this, "api", &api, children).await
}

/// Starts this program as another of its kind, and returns its URL.
async fn serve(
    this: &Path,
    title: &str,
    args: &[&str],
    children: &mut Vec<Child>,
) -> anyhow::Result<String> {
    let args: Vec<String> = args.iter().map(ToString::to_string).collect();
    let start = Child::start(title, this, &args, |line| {
        let (_, url) = line.split_once(": serving at ")?;
        Some(url.to_owned())
    });
    let (child, url) = start.await?;
    children.push(child);
    Ok(url)
}
