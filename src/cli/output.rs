//! Tables, JSON and times for people and programs.

use std::io::{IsTerminal, Write};

use chrono::{DateTime, SecondsFormat, Utc};
use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, TableComponent};

/// Prints a line to standard output; a closed pipe ends the command quietly.
pub fn line(text: impl AsRef<str>) -> std::io::Result<()> {
    writeln!(std::io::stdout().lock(), "{}", text.as_ref())
}

/// Prints a value as JSON, indented.
pub fn json(value: &impl serde::Serialize) -> std::io::Result<()> {
    line(serde_json::to_string_pretty(value).map_err(std::io::Error::other)?)
}

/// A table; a heading that begins with `>` is of a column of numbers.
pub fn table(headings: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(UTF8_HORIZONTAL_ONLY).set_content_arrangement(ContentArrangement::Dynamic);
    // lines around the heading and the whole, none between rows
    table.remove_style(TableComponent::HorizontalLines);
    table.remove_style(TableComponent::MiddleIntersections);
    if !std::io::stdout().is_terminal() {
        // nothing to fit into: keep each row on one line
        table.set_content_arrangement(ContentArrangement::Disabled);
    }
    table.set_header(headings.iter().map(|heading| heading.trim_start_matches('>')));
    for (position, heading) in headings.iter().enumerate() {
        if let Some(column) = table.column_mut(position).filter(|_| heading.starts_with('>')) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// A number with thin thousands: `1,234,567`.
pub fn number(value: u64) -> String {
    let digits = value.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A number's cell; zero is only a dot, so that what happened stands out.
pub fn count(value: u64) -> Cell {
    Cell::new(if value == 0 { "·".to_string() } else { number(value) })
}

pub fn time(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Secs, true)
}

pub fn duration(ms: u64) -> String {
    if ms < 1000 { format!("{ms} ms") } else { format!("{:.1} s", ms as f64 / 1000.0) }
}

pub fn color_stderr() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}
