//! The results as a plot: a panel for each workload, with a bar for each system. Each panel has a scale of
//! its own; the line over a bar spans the rounds.

use std::fmt::Write;

use crate::{
    report::short,
    results::{Results, Spread, figure},
    system::System,
    workload::Workload,
};

const WIDTH: usize = 760;
const LABEL_WIDTH: usize = 110;
const VALUE_WIDTH: usize = 70;
const BAR_HEIGHT: usize = 18;
const TITLE_HEIGHT: usize = 30;
const GAP: usize = 14;

fn color(system: System) -> &'static str {
    match system {
        System::Fanfare => "#c2410c",
        System::Nats => "#2563a8",
        System::Redis => "#9f3a52",
        System::Mosquitto => "#5b7a3a",
        System::Floor => "#9a9a9a",
        System::Reference => "#0f766e",
    }
}

pub(crate) fn svg(results: &Results) -> String {
    let mut panels = String::new();
    let mut top = 0;
    for workload in Workload::ALL {
        let bars = System::ALL.map(|system| {
            let figure = |outcome: &_| figure(outcome, workload.measure());
            Some((system, results.spread(workload, system, figure)?))
        });
        let bars: Vec<(System, Spread)> = bars.into_iter().flatten().collect();
        if bars.is_empty() {
            continue;
        }
        panel(&mut panels, top, workload, &bars);
        top += TITLE_HEIGHT + bars.len() * BAR_HEIGHT + GAP;
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {top}\" width=\"{WIDTH}\" \
         height=\"{top}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n{panels}</svg>\n"
    )
}

fn panel(out: &mut String, top: usize, workload: Workload, bars: &[(System, Spread)]) {
    let largest = bars
        .iter()
        .map(|(_, spread)| spread.max)
        .fold(0.0, f64::max);
    let scale = (WIDTH - LABEL_WIDTH - VALUE_WIDTH) as f64 / largest.max(f64::MIN_POSITIVE);
    let x = |value: f64| LABEL_WIDTH as f64 + value.max(0.0) * scale;
    let title = workload.name().replace('>', "&gt;");
    let mut put = |line: String| writeln!(out, "{line}").expect("a string takes all");
    put(format!(
        "<text x=\"8\" y=\"{}\" font-weight=\"bold\">{title} <tspan font-weight=\"normal\" \
         fill=\"#666\">({})</tspan></text>",
        top + 20,
        workload.measure().unit(),
    ));
    for (index, (system, spread)) in bars.iter().enumerate() {
        let y = top + TITLE_HEIGHT + index * BAR_HEIGHT;
        let middle = y + BAR_HEIGHT / 2 - 1;
        put(format!(
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>",
            LABEL_WIDTH - 6,
            middle + 4,
            system.name(),
        ));
        put(format!(
            "<rect x=\"{LABEL_WIDTH}\" y=\"{y}\" width=\"{:.1}\" height=\"{}\" fill=\"{}\"/>",
            x(spread.median) - LABEL_WIDTH as f64,
            BAR_HEIGHT - 3,
            color(*system),
        ));
        put(format!(
            "<line x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{middle}\" y2=\"{middle}\" stroke=\"black\"/>",
            x(spread.min),
            x(spread.max),
        ));
        put(format!(
            "<text x=\"{:.1}\" y=\"{}\">{}</text>",
            x(spread.max) + 5.0,
            middle + 4,
            short(spread.median),
        ));
    }
}
