//! What the benches measured, from the files that Criterion leaves behind.

use std::{collections::BTreeSet, fs, path::Path};

use anyhow::Context;
use serde_json::Value;

use crate::table::{Table, grouped};

/// The curves of all benches.
///
/// # Errors
/// One has not run.
pub(crate) fn tables(folder: &Path) -> anyhow::Result<Vec<Table>> {
    let mut publish = table(
        folder,
        "publish",
        "One publish, in ns, by readers that are behind or parked",
        "subscribers",
    )?;
    for (name, figures) in publish.rows.clone() {
        let counts = values(&folder.join("publish").join(&name))?;
        let each = figures.iter().zip(counts);
        let each = each.map(|(figure, count)| Some((*figure)? / count as f64));
        publish
            .rows
            .push((format!("{name}, for each subscriber"), each.collect()));
    }
    Ok(vec![
        table(
            folder,
            "match",
            "One publish that nothing matches, in ns, by the topic's tokens",
            "filters",
        )?,
        table(
            folder,
            "match hostile",
            "The same where the topic leads to every filter, and fails them at its last token, in ns",
            "filters",
        )?,
        publish,
        table(
            folder,
            "publish among",
            "One publish to one subscriber, in ns, by filters that do not match",
            "other filters",
        )?,
    ])
}

/// One group: a row for each of its functions, a column for each of their inputs.
fn table(folder: &Path, group: &str, title: &str, over: &'static str) -> anyhow::Result<Table> {
    let group = folder.join(group);
    let mut columns = BTreeSet::new();
    let functions = folders(&group)?;
    for function in &functions {
        columns.extend(values(&group.join(function))?);
    }
    let mut rows = Vec::new();
    for function in functions {
        let figures = columns
            .iter()
            .map(|value| least(&group.join(&function).join(value.to_string())));
        let figures = figures.collect::<anyhow::Result<_>>()?;
        rows.push((function, figures));
    }
    Ok(Table {
        title: title.to_owned(),
        over,
        columns: columns.into_iter().map(grouped).collect(),
        rows,
    })
}

/// The inputs of one function.
fn values(function: &Path) -> anyhow::Result<BTreeSet<u64>> {
    // Criterion keeps its plots and sums in folders beside them.
    let names = folders(function)?;
    Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
}

fn folders(path: &Path) -> anyhow::Result<BTreeSet<String>> {
    let what = || format!("cannot read {}: `cargo bench` makes it", path.display());
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(path).with_context(what)? {
        let entry = entry.with_context(what)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.path().is_dir() && name != "report" {
            names.insert(name);
        }
    }
    Ok(names)
}

/// In nanoseconds; `None` if this input was not measured. The least of the samples: whatever else the
/// machine does can only add to it.
fn least(benchmark: &Path) -> anyhow::Result<Option<f64>> {
    let path = benchmark.join("new/sample.json");
    if !path.exists() {
        return Ok(None);
    }
    let what = || format!("cannot read {}", path.display());
    let text = fs::read_to_string(&path).with_context(what)?;
    let samples: Value = serde_json::from_str(&text).with_context(what)?;
    let numbers = |name: &str| samples[name].as_array().with_context(what);
    let (times, iterations) = (numbers("times")?, numbers("iters")?);
    let each = times.iter().zip(iterations);
    let each = each.filter_map(|(ns, iterations)| Some(ns.as_f64()? / iterations.as_f64()?));
    let least = each.min_by(f64::total_cmp);
    least.with_context(what).map(Some)
}
