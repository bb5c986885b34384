//! Everything with one command: a broker, the model server, dispatchers, and the API.
//!
//! Promises: what dies is started again where it was, unless it dies over and over; and nothing of it outlives
//! this program, however that ends.

use std::{collections::VecDeque, convert::Infallible, env, net::SocketAddr, time::Duration};

use anyhow::ensure;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use futures_util::future::select_all;
use tokio::time::{Instant, sleep};

use crate::{
    child::{self, Child, Recipe},
    interrupt::Stop,
    job,
};

/// The most ends of one program in [`RESTARTS_WINDOW`]; with the next one, all are stopped.
const RESTARTS_MAX: usize = 5;
const RESTARTS_WINDOW: Duration = Duration::from_secs(60);
/// How much longer each restart within that time waits than the one before. The first one does not.
const RESTART_PAUSE: Duration = Duration::from_millis(500);
/// What the API takes its key from.
const API_KEY: &str = "CHAT_KEY";

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
    let outcome = tokio::select! {
        failed = serve(&args, &mut children) => failed.map(|never| match never {}),
        () = stop.requested() => Ok(()),
    };
    while let Some(child) = children.pop() {
        child.stop().await;
    }
    outcome
}

async fn serve(args: &AllArgs, children: &mut Vec<Child>) -> anyhow::Result<Infallible> {
    let url = start(args, children).await?;
    println!("chat at {url}/ until Ctrl-C");
    supervise(children).await
}

async fn start(args: &AllArgs, children: &mut Vec<Child>) -> anyhow::Result<String> {
    let (mut child, broker) = child::broker(&args.broker_listen.to_string()).await?;
    stay_at(&mut child.recipe, &broker);
    children.push(child);
    let model = ["model", "--listen", &args.model_listen.to_string()];
    let model = start_server(recipe("model", &model)?, children).await?;
    for number in 1..=args.dispatchers {
        let title = format!("dispatcher {number}");
        let dispatcher = ["dispatcher", "--broker", &broker, "--model", &model];
        let recipe = recipe(&title, &dispatcher)?;
        let (child, _) = Child::start(recipe).await?;
        children.push(child);
    }
    let listen = args.listen.to_string();
    let mut api = recipe("api", &["api", "--listen", &listen, "--broker", &broker])?;
    if env::var_os(API_KEY).is_none() {
        // One that is started again knows the secrets that the last one gave.
        let key = URL_SAFE_NO_PAD.encode(job::random::<32>()?);
        api.environment.push((API_KEY, key));
    }
    start_server(api, children).await
}

/// This program as another of its kind.
fn recipe(title: &str, args: &[&str]) -> anyhow::Result<Recipe> {
    Ok(Recipe {
        title: title.to_owned(),
        program: env::current_exe()?,
        args: args.iter().map(ToString::to_string).collect(),
        environment: Vec::new(),
        find: |line| match line.split_once(": serving at ") {
            Some((_, url)) => Some(url.to_owned()),
            None => line.ends_with("is ready").then(String::new),
        },
    })
}

/// Hands back its URL.
async fn start_server(recipe: Recipe, children: &mut Vec<Child>) -> anyhow::Result<String> {
    let (mut child, url) = Child::start(recipe).await?;
    stay_at(&mut child.recipe, &url);
    children.push(child);
    Ok(url)
}

/// Where it is to be found again, also if it was free to choose a port.
fn stay_at(recipe: &mut Recipe, url: &str) {
    let address = url.trim_start_matches("http://");
    let mut args = recipe.args.iter_mut();
    if args.any(|arg| arg == "--listen")
        && let Some(listen) = args.next()
    {
        address.clone_into(listen);
    }
}

/// Starts whatever ends again, where it was: the others find it by themselves. Fails when one has ended
/// too often.
async fn supervise(children: &mut [Child]) -> anyhow::Result<Infallible> {
    let mut ends = vec![VecDeque::new(); children.len()];
    loop {
        let ended = select_all(children.iter_mut().map(|child| Box::pin(child.ended())));
        let (how, index, _) = ended.await;
        eprintln!("{how}; it is started again");
        loop {
            let (now, ends) = (Instant::now(), &mut ends[index]);
            ends.retain(|end| now.duration_since(*end) < RESTARTS_WINDOW);
            ensure!(ends.len() < RESTARTS_MAX, "{how}, and that too often");
            let pause = RESTART_PAUSE * u32::try_from(ends.len())?;
            ends.push_back(now);
            sleep(pause).await;
            match children[index].start_again().await {
                Ok(()) => break,
                Err(error) => eprintln!("{error:#}"),
            }
        }
    }
}
