//! A page of keys and values, indented by section and aligned within it.

use super::super::table::{Columns, text};
use serde_json::Value;
use std::io::{self, Write};

const INDENT: usize = 2;
/// Longer keys do not push the values of their section to the right.
const WIDEST_KEY: usize = 28;

#[derive(Debug)]
enum Line {
    /// A key with a value, which may be empty for the head of a section.
    Pair {
        level: usize,
        key: String,
        value: String,
    },
    /// Text under the value column of the line before.
    More(String),
    Table {
        level: usize,
        rows: Vec<Vec<String>>,
    },
}

/// What is to be printed, in order.
#[derive(Debug, Default)]
pub struct Page(Vec<Line>);

impl Page {
    pub fn head(&mut self, level: usize, key: &str) {
        self.pair(level, key, "");
    }

    pub fn pair(&mut self, level: usize, key: &str, value: impl Into<String>) {
        self.0.push(Line::Pair { level, key: key.to_owned(), value: value.into() });
    }

    /// A pair, unless there is no value.
    pub fn some(&mut self, level: usize, key: &str, value: &Value) {
        let value = text(value);
        if !value.is_empty() {
            self.pair(level, key, value);
        }
    }

    /// One value a line, or `<none>`.
    pub fn lines(&mut self, level: usize, key: &str, values: impl IntoIterator<Item = String>) {
        let mut values = values.into_iter();
        self.pair(level, key, values.next().unwrap_or_else(|| "<none>".to_owned()));
        self.0.extend(values.map(Line::More));
    }

    pub fn table(&mut self, level: usize, rows: Vec<Vec<String>>) {
        self.0.push(Line::Table { level, rows });
    }

    /// What every object has.
    pub fn metadata(&mut self, object: &Value) {
        let metadata = &object["metadata"];
        self.pair(0, "Name", text(&metadata["name"]));
        self.some(0, "Namespace", &metadata["namespace"]);
        self.lines(0, "Labels", map_lines(&metadata["labels"], "="));
        let remembered =
            |line: &String| !line.starts_with("kubectl.kubernetes.io/last-applied-configuration");
        self.lines(
            0,
            "Annotations",
            map_lines(&metadata["annotations"], ": ").into_iter().filter(remembered),
        );
    }

    /// A table of a status' conditions.
    pub fn conditions(&mut self, conditions: &Value) {
        let Some(conditions) = conditions.as_array().filter(|conditions| !conditions.is_empty()) else {
            return;
        };
        self.head(0, "Conditions");
        let mut rows = vec![["Type", "Status", "Reason", "Message"].map(str::to_owned).to_vec()];
        rows.extend(conditions.iter().map(|condition| {
            ["type", "status", "reason", "message"].map(|field| text(&condition[field])).to_vec()
        }));
        self.table(1, rows);
    }

    pub fn print(&self, out: &mut impl Write) -> io::Result<()> {
        let mut column = 0;
        for (index, line) in self.0.iter().enumerate() {
            match line {
                Line::Pair { level, key, value } => {
                    let shift = level * INDENT;
                    column = shift + self.key_width(index, *level) + 3;
                    let pad = column.saturating_sub(shift);
                    if value.is_empty() {
                        writeln!(out, "{:shift$}{key}:", "")?;
                    } else {
                        let key = format!("{key}:");
                        writeln!(out, "{:shift$}{key:<pad$}{}", "", continued(value, column))?;
                    }
                }
                Line::More(value) => writeln!(out, "{:column$}{}", "", continued(value, column))?,
                Line::Table { level, rows } => {
                    let mut table = Vec::new();
                    Columns::default().print(&mut table, rows)?;
                    for row in String::from_utf8_lossy(&table).lines() {
                        writeln!(out, "{:shift$}{}", "", row.trim_end(), shift = level * INDENT)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// The widest key of the section that the line at `index` stands in.
    fn key_width(&self, index: usize, level: usize) -> usize {
        let before = self.0[..index].iter().rev();
        let section = before
            .take_while(|line| line.level().is_none_or(|other| other >= level))
            .chain(self.0[index..].iter().take_while(|line| line.level().is_none_or(|other| other >= level)));
        let width = |line: &Line| match line {
            Line::Pair { level: other, key, value } if *other == level && !value.is_empty() => {
                Some(key.chars().count()).filter(|width| *width <= WIDEST_KEY)
            }
            _ => None,
        };
        section.filter_map(width).max().unwrap_or(0)
    }
}

impl Line {
    fn level(&self) -> Option<usize> {
        match self {
            Self::Pair { level, .. } | Self::Table { level, .. } => Some(*level),
            Self::More(_) => None,
        }
    }
}

/// A value of several lines stays in its column, and cannot drive the terminal.
fn continued(value: &str, column: usize) -> String {
    let clean = |line: &str| line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>();
    value.lines().map(clean).collect::<Vec<_>>().join(&format!("\n{:column$}", ""))
}

/// The entries of a mapping, one a line.
pub fn map_lines(map: &Value, between: &str) -> Vec<String> {
    map.as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}{between}{}", text(value)))
        .collect()
}
