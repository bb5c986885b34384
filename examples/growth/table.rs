//! What was measured, for a person and for a program.

use std::fmt;

use serde_json::{Value, json};

/// Figures of one unit, by row and column. A figure that was not measured is `None`.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) title: String,
    /// What the columns are.
    pub(crate) over: &'static str,
    pub(crate) columns: Vec<String>,
    pub(crate) rows: Vec<(String, Vec<Option<f64>>)>,
}

impl Table {
    pub(crate) fn as_json(&self) -> Value {
        let row = |(name, figures): &(String, Vec<Option<f64>>)| json!({ "name": name, "figures": figures });
        json!({
            "title": self.title,
            "over": self.over,
            "columns": self.columns,
            "rows": self.rows.iter().map(row).collect::<Vec<_>>(),
        })
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.rows.iter().map(|(name, _)| name.chars().count());
        let width = names.chain([self.over.len()]).max().unwrap_or_default();
        writeln!(f, "{}", self.title)?;
        write!(f, "  {:<width$}", self.over)?;
        for column in &self.columns {
            write!(f, " {column:>12}")?;
        }
        writeln!(f)?;
        for (name, figures) in &self.rows {
            write!(f, "  {name:<width$}")?;
            for figure in figures {
                let figure = figure.map(rounded).unwrap_or_default();
                write!(f, " {figure:>12}")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

/// As many digits as mean something, in groups of three.
fn rounded(figure: f64) -> String {
    if figure < 100.0 && figure.fract() != 0.0 {
        return format!("{figure:.1}");
    }
    grouped(figure.round() as u64)
}

/// A number in groups of three digits.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let groups = digits.as_bytes().rchunks(3).rev();
    let groups: Vec<_> = groups.map(String::from_utf8_lossy).collect();
    groups.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_rounded_and_grouped() {
        let text = [0.0, 7.0, 9.96, 999.6, 1_234_567.8].map(rounded);
        assert_eq!(text, ["0", "7", "10.0", "1,000", "1,234,568"]);
    }
}
