//! The results as tables for a person, and as JSON.

use std::io::{self, Write};

use serde_json::{Value, json};

use crate::{
    load::Outcome,
    results::{Results, Spread, figure},
    system::System,
    workload::{GOALS, Goal, Measure, STEPS, Workload},
};

/// A core is saturated from this share of it on.
const SATURATED: f64 = 0.95;
/// What the longest title of a goal takes.
const GOAL_WIDTH: usize = 48;

pub(crate) fn print(results: &Results, out: &mut impl Write) -> io::Result<()> {
    print_figures(results, out)?;
    print_goals(results, out)?;
    for system in System::ALL {
        let (lost, order_breaks) = results.faults(system);
        if lost + order_breaks > 0 {
            let name = system.name();
            writeln!(
                out,
                "{name}: {lost} messages lost, {order_breaks} breaks of order"
            )?;
        }
    }
    for failure in &results.failures {
        writeln!(out, "FAILED: {failure}")?;
    }
    Ok(())
}

fn print_figures(results: &Results, out: &mut impl Write) -> io::Result<()> {
    writeln!(
        out,
        "\n{:<24}{:<11}{:>9}{:>19}  {:>12}{:>14}{:>14}",
        "workload", "system", "median", "min-max", "delivered/s", "server", "load"
    )?;
    let mut measure = None;
    for workload in Workload::ALL {
        for system in System::ALL {
            let of =
                |figure: &dyn Fn(&Outcome) -> Option<f64>| results.spread(workload, system, figure);
            let Some(spread) = of(&|outcome| figure(outcome, workload.measure())) else {
                continue;
            };
            if measure != Some(workload.measure()) {
                measure = Some(workload.measure());
                writeln!(out, "-- {}", workload.measure().unit())?;
            }
            write!(
                out,
                "{:<24}{:<11}{:>9}{:>19}",
                workload.name(),
                system.name(),
                short(spread.median),
                range(spread),
            )?;
            if workload.measure() != Measure::KbPerSubscriber
                && let Some(rate) = of(&|outcome| Some(outcome.delivered_per_s))
                && let Some(server) = of(&|outcome| Some(outcome.server_share))
                && let Some(server_demand) = of(&|outcome| Some(outcome.server_demand))
                && let Some(load) = of(&|outcome| Some(outcome.load_share))
                && let Some(load_demand) = of(&|outcome| Some(outcome.load_demand))
            {
                let percent = |share: Spread, demand: Spread| {
                    let (share, demand) = (share.median * 100.0, demand.median * 100.0);
                    format!("{share:.0} of {demand:.0} %")
                };
                let (server, load) = (percent(server, server_demand), percent(load, load_demand));
                write!(out, "  {:>12.0}{server:>14}{load:>14}", rate.median)?;
            }
            if let Some(p50) = of(&|outcome| Some(outcome.latency_us?.p50))
                && let Some(cpu) = of(&|outcome| outcome.cpu_us_per_delivery)
            {
                let (p50, cpu) = (short(p50.median), short(cpu.median));
                write!(out, "  p50 {p50} us, server CPU {cpu} us per delivery")?;
            }
            writeln!(out)?;
        }
    }
    writeln!(
        out,
        "server, load: the share of a core that each had, and the share that it would have taken if no \
         other process\nhad been in its way. A load that would have taken {:.0} % is the limit, not the \
         server; below that, it had time\nto spare.",
        SATURATED * 100.0
    )
}

fn print_goals(results: &Results, out: &mut impl Write) -> io::Result<()> {
    let cells = STEPS.map(|step| format!("{step:>16}")).concat();
    writeln!(
        out,
        "\n{:<GOAL_WIDTH$}{:>9}{:>15}{cells}",
        "goal", "median", "min-max"
    )?;
    for goal in GOALS {
        let Some(reached) = results.reached(goal) else {
            continue;
        };
        let (median, range) = (short(reached.median), range(reached));
        write!(out, "{:<GOAL_WIDTH$}{median:>9}{range:>15}", title(goal))?;
        for step in goal.steps {
            let cell = step.map_or_else(String::new, |bound| {
                let verdict = if reached.median <= bound { "yes" } else { "no" };
                format!("<= {bound}: {verdict}")
            });
            write!(out, "{cell:>16}")?;
        }
        writeln!(out)?;
    }
    let (lost, order_breaks) = results.faults(System::Fanfare);
    let label = "messages lost by Fanfare, all runs";
    writeln!(out, "{label:<GOAL_WIDTH$}{lost:>9}")?;
    let label = "breaks of order, all runs";
    writeln!(out, "{label:<GOAL_WIDTH$}{order_breaks:>9}")
}

pub(crate) fn title(goal: Goal) -> String {
    let workload = goal.workload.name();
    match (goal.against, goal.workload.measure()) {
        (None, measure) => format!("{workload}: {}", measure.unit()),
        (Some(System::Reference), _) => "unary publish: CPU against the Go reference".to_owned(),
        (Some(against), Measure::LatencyP99) => {
            format!("{workload}: p99 against {}", against.name())
        }
        (Some(against), _) => format!("{workload}: CPU against {}", against.name()),
    }
}

/// Three digits, of a figure that may be far below one or above a thousand.
pub(crate) fn short(value: f64) -> String {
    match value.abs() {
        size if size < 10.0 => format!("{value:.3}"),
        size if size < 100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

fn range(spread: Spread) -> String {
    format!("{}-{}", short(spread.min), short(spread.max))
}

pub(crate) fn as_json(results: &Results, systems: &[(System, String)], pinned: bool) -> Value {
    let runs = results
        .outcomes
        .iter()
        .map(|((workload, system, round), outcome)| {
            json!({
                "workload": workload.name(),
                "system": system.name(),
                "round": round,
                "delivered": outcome.delivered,
                "delivered_per_s": outcome.delivered_per_s,
                "server_cpu_us_per_delivery": outcome.cpu_us_per_delivery,
                "server_share": outcome.server_share,
                "load_share": outcome.load_share,
                "load_saturated": outcome.load_share >= SATURATED,
                "lost": outcome.lost,
                "order_breaks": outcome.order_breaks,
                "latency_p50_us": outcome.latency_us.map(|latency| latency.p50),
                "latency_p99_us": outcome.latency_us.map(|latency| latency.p99),
                "kb_per_idle_subscriber": outcome.kb_per_subscriber,
            })
        });
    let goals = GOALS.into_iter().filter_map(|goal| {
        let reached = results.reached(goal)?;
        let bounds = STEPS.iter().zip(goal.steps).filter_map(|(step, bound)| {
            let bound = bound?;
            Some(json!({"step": step, "bound": bound, "reached": reached.median <= bound}))
        });
        Some(json!({
            "goal": title(goal),
            "median": reached.median,
            "min": reached.min,
            "max": reached.max,
            "steps": Vec::from_iter(bounds),
        }))
    });
    let systems = systems
        .iter()
        .map(|(system, version)| (system.name().to_owned(), version.as_str().into()));
    json!({
        "systems": serde_json::Map::from_iter(systems),
        "server_and_load_pinned_to_a_core_each": pinned,
        "runs": Vec::from_iter(runs),
        "goals": Vec::from_iter(goals),
        "failures": results.failures,
    })
}
