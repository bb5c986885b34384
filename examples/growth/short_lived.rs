//! What is left of topics that come and go: nothing but what the allocator keeps for later.

use anyhow::{Context, ensure};
use fanfare::broker::{Broker, Limits};
use serde_json::{Value, json};

use crate::{
    memory::{Memory, in_new_process},
    publish, subscribe,
    table::{Table, grouped},
    topic,
};

/// As many as the broker grants subscriptions by default.
const TOGETHER: usize = fanfare::broker::SUBSCRIPTIONS_MAX;
const MOMENT_EVERY: usize = TOGETHER;

/// Lets topics live, each with a subscriber of its own and a message, so many at a time; and then
/// nothing, until all is forgotten. In this process, which has done nothing else.
pub(crate) fn measure(count: usize, together: usize) -> anyhow::Result<Value> {
    let broker = Broker::new(Limits::default(), 1)?;
    let moment = || -> anyhow::Result<[u64; 3]> {
        let memory = Memory::now()?;
        let topics = broker.snapshot().topics as u64;
        Ok([memory.allocated, memory.resident, topics])
    };
    let before = moment()?;
    let mut most = before;
    let mut live = Vec::with_capacity(together);
    for (number, topic) in (1..=count).zip((0..).map(topic)) {
        live.push(subscribe(&broker, &topic)?);
        publish(&broker, &topic)?;
        if number % MOMENT_EVERY == 0 {
            let now = moment()?;
            most = std::array::from_fn(|at| most[at].max(now[at]));
        }
        if live.len() == together {
            live.clear();
        }
    }
    drop(live);
    broker.tick(u32::MAX);
    broker.age_topics();
    broker.age_topics();
    let after = moment()?;
    ensure!(after[2] == 0, "{} topics still have state", after[2]);
    Ok(json!([before, most, after]))
}

pub(crate) fn tables(short: bool) -> anyhow::Result<Vec<Table>> {
    let count = if short { 100_000 } else { 1_000_000 };
    let tables = [1, TOGETHER].map(|together| table(count, together));
    tables.into_iter().collect()
}

fn table(count: usize, together: usize) -> anyhow::Result<Table> {
    let (count_text, together_text) = (count.to_string(), together.to_string());
    let arguments = ["--short-lived", &together_text, "--count", &count_text];
    let measured = in_new_process(&arguments)?;
    let moments = measured.as_array().context("no moments were measured")?;
    let row = |name: &str, at: usize| {
        let figures = moments.iter().map(|moment| moment[at].as_f64());
        (name.to_owned(), figures.collect())
    };
    let [count, together] = [count, together].map(|number| grouped(number as u64));
    let columns = ["before", "at most", "forgotten"];
    Ok(Table {
        title: format!("{count} short-lived topics, {together} at a time"),
        over: "",
        columns: columns.map(str::to_owned).to_vec(),
        rows: vec![
            row("bytes allocated", 0),
            row("bytes resident", 1),
            row("topics with state", 2),
        ],
    })
}
