//! The results as a plot: a panel for each workload, with a bar for each system. Each panel has a scale of
//! its own; the line over a bar spans the rounds.
//!
//! A system that is far behind would leave the others a few pixels. A panel's scale therefore ends at a
//! multiple of Fanfare's figure, and a bar that would go on is cut, with a mark where it is.

use std::fmt::Write;

use crate::{
    report::short,
    results::{Results, Spread, figure},
    system::System,
    workload::Workload,
};

const WIDTH: usize = 760;
const LABEL_WIDTH: usize = 110;
/// For a value with its unit and its extremes.
const VALUE_WIDTH: usize = 190;
const BAR_WIDTH_MAX: usize = WIDTH - LABEL_WIDTH - VALUE_WIDTH;
const BAR_HEIGHT: usize = 18;
const LEGEND_HEIGHT: usize = 26;
const TITLE_HEIGHT: usize = 30;
const GAP: usize = 14;
/// Where a panel's scale ends at the latest, in multiples of Fanfare's largest figure.
const SCALE_END: f64 = 4.0;

const LEGEND: &str = "Medians of the rounds, with their extremes; less is better. \
                      A bar with a gap is longer than the panel.";

fn color(system: System) -> &'static str {
    match system {
        System::Fanfare => "#c2410c",
        System::Events => "#e8a33d",
        System::Nats => "#2563a8",
        System::Redis => "#9f3a52",
        System::Mosquitto => "#5b7a3a",
        System::Floor => "#9a9a9a",
        System::Reference => "#0f766e",
    }
}

pub(crate) fn svg(results: &Results) -> String {
    let mut panels = String::new();
    let mut top = LEGEND_HEIGHT;
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
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"8\" y=\"18\" fill=\"#666\">{LEGEND}</text>\n{panels}</svg>\n"
    )
}

fn panel(out: &mut String, top: usize, workload: Workload, bars: &[(System, Spread)]) {
    let title = workload.name().replace('>', "&gt;");
    let measure = workload.measure();
    let mut put = |line: String| writeln!(out, "{line}").expect("a string takes all");
    put(format!(
        "<text x=\"8\" y=\"{}\" font-weight=\"bold\">{title} <tspan font-weight=\"normal\" \
         fill=\"#666\">({})</tspan></text>",
        top + 20,
        measure.unit(),
    ));
    let end = scale_end(bars);
    for (index, (system, spread)) in bars.iter().enumerate() {
        let y = top + TITLE_HEIGHT + index * BAR_HEIGHT;
        put(format!(
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>",
            LABEL_WIDTH - 6,
            y + 12,
            system.name(),
        ));
        put(bar(y, *spread, end, color(*system)));
        put(format!(
            "<text x=\"{:.1}\" y=\"{}\">{} {} <tspan fill=\"#666\">{}</tspan></text>",
            x(spread.max, end) + 6.0,
            y + 12,
            short(spread.median),
            measure.symbol(),
            extremes(*spread),
        ));
    }
}

/// Empty where all rounds are the same, as one round alone is.
fn extremes(spread: Spread) -> String {
    match spread.min < spread.max {
        true => format!("({}-{})", short(spread.min), short(spread.max)),
        false => String::new(),
    }
}

/// The value at the right end of a panel's bars.
fn scale_end(bars: &[(System, Spread)]) -> f64 {
    let largest = |bars: &mut dyn Iterator<Item = &(System, Spread)>| {
        bars.map(|(_, spread)| spread.max).fold(0.0, f64::max)
    };
    let all = largest(&mut bars.iter());
    let ours = largest(&mut bars.iter().filter(|(system, _)| *system == System::Fanfare));
    match ours > 0.0 {
        true => all.min(ours * SCALE_END),
        false => all,
    }
}

/// Where a value is, on a scale that ends at `end`.
fn x(value: f64, end: f64) -> f64 {
    let share = value / end.max(f64::MIN_POSITIVE);
    LABEL_WIDTH as f64 + share.clamp(0.0, 1.0) * BAR_WIDTH_MAX as f64
}

fn bar(y: usize, spread: Spread, end: f64, color: &str) -> String {
    let (middle, height) = (y + BAR_HEIGHT / 2 - 2, BAR_HEIGHT - 3);
    let width = x(spread.median, end) - LABEL_WIDTH as f64;
    let bar = format!(
        "<rect x=\"{LABEL_WIDTH}\" y=\"{y}\" width=\"{width:.1}\" height=\"{height}\" fill=\"{color}\"/>",
    );
    if spread.median > end {
        let gap = LABEL_WIDTH + BAR_WIDTH_MAX - 20;
        return format!(
            "{bar}<path d=\"M{gap},{} l6,-{}\" stroke=\"white\" stroke-width=\"4\"/>",
            y + BAR_HEIGHT - 1,
            BAR_HEIGHT + 1,
        );
    }
    if spread.min == spread.max {
        return bar;
    }
    let (min, max) = (x(spread.min, end), x(spread.max, end));
    // A cap closes the line where it ends, and is left out where the panel cuts it.
    let cap = match spread.max > end {
        true => String::new(),
        false => format!("M{max:.1},{} v7", middle - 3),
    };
    let line = format!(
        "M{min:.1},{} v7 M{min:.1},{middle} H{max:.1} {cap}",
        middle - 3
    );
    // White below black is seen on any bar.
    format!(
        "{bar}<g transform=\"translate(0,.5)\"><path d=\"{line}\" stroke=\"white\" stroke-width=\"3\"/>\
         <path d=\"{line}\" stroke=\"black\"/></g>"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spread(median: f64, max: f64) -> Spread {
        let min = median;
        Spread { median, min, max }
    }

    #[test]
    fn a_system_far_behind_does_not_flatten_the_others() {
        let ours = (System::Fanfare, spread(0.2, 0.25));
        let far = (System::Mosquitto, spread(9.0, 12.0));
        let near = (System::Nats, spread(0.3, 0.5));
        assert_eq!(scale_end(&[ours, far]), 1.0);
        assert_eq!(scale_end(&[ours, near]), 0.5);
        assert_eq!(scale_end(&[far, near]), 12.0);
        assert_eq!(x(9.0, 1.0), (LABEL_WIDTH + BAR_WIDTH_MAX) as f64);
    }
}
