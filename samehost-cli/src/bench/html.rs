//! The report as a page: one file that needs no other file and no network.

use std::fs;
use std::io;
use std::path::Path;

use super::headline::{headline, warnings};
use super::plan::Plan;
use super::plots::{self, Conditions, Plot, plots};
use super::report::{Report, Row};
use super::table::{Column, TableLine, columns, figure, notes, or_dash};
use crate::failure::Failure;

/// The page without its contents, which replace the names in double braces.
const PAGE: &str = include_str!("report.html");

/// Ensures that `directory` exists, before there are results that could be lost.
pub(super) fn prepare(directory: &Path) -> Result<(), Failure> {
    fs::create_dir_all(directory).map_err(|error| failed(directory, &error))
}

/// Writes `report.json`, `report.html` and the plots. Removes the plots of an earlier report.
/// Prints what it wrote.
pub(super) fn write(directory: &Path, plan: &Plan, report: &Report<'_>) -> Result<String, Failure> {
    let plots = plots(report.rows, &Conditions::new(report.machine, plan))
        .map_err(|error| Failure::Failed(format!("cannot draw the plots: {error}")))?;
    let page = page(plan, report, &plots);
    let mut files = vec![
        ("report.json".to_owned(), serde_json::to_string_pretty(report)? + "\n"),
        ("report.html".to_owned(), page),
    ];
    files.extend(plots.into_iter().map(|plot| (format!("{}.svg", plot.name), plot.svg)));
    for name in plots::NAMES {
        let path = directory.join(format!("{name}.svg"));
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed(&path, &error));
            }
            _ => {}
        }
    }
    for (name, contents) in &files {
        let path = directory.join(name);
        fs::write(&path, contents).map_err(|error| failed(&path, &error))?;
    }
    let names: Vec<_> = files.iter().map(|(name, _)| name.as_str()).collect();
    Ok(format!("{} to {}", names.join(", "), directory.display()))
}

fn failed(path: &Path, error: &io::Error) -> Failure {
    Failure::Failed(format!("cannot write {}: {error}: give another --report", path.display()))
}

fn page(plan: &Plan, report: &Report<'_>, plots: &[Plot]) -> String {
    let rows = report.rows;
    let paragraphs = |class: &str, texts: Vec<String>| -> String {
        let paragraph = |text: &String| format!("<p class=\"{class}\">{}</p>\n", escaped(text));
        texts.iter().map(paragraph).collect()
    };
    let mut headline = headline(report, plan.busy_poll, plan.address.is_some());
    if headline.is_empty() {
        headline.push("What a call costs here".to_owned());
    }
    let facts: String = report
        .machine
        .facts()
        .iter()
        .map(|(name, fact)| format!("<dt>{name}</dt><dd>{}</dd>\n", escaped(fact)))
        .collect();
    let figures: String = plots
        .iter()
        .map(|Plot { caption, svg, .. }| {
            let caption = escaped(caption);
            format!("<figure>\n{svg}\n<figcaption>{caption}</figcaption>\n</figure>\n")
        })
        .collect();
    [
        ("{{style}}", plots::style()),
        ("{{headline}}", paragraphs("headline", headline)),
        ("{{warnings}}", paragraphs("warning", warnings(rows, plan))),
        ("{{facts}}", facts),
        ("{{figures}}", figures),
        ("{{table}}", table(rows)),
        ("{{notes}}", paragraphs("note", notes(plan, rows))),
        ("{{command}}", escaped(&report.command)),
    ]
    .iter()
    .fold(PAGE.to_owned(), |page, (name, contents)| page.replace(name, contents))
}

fn table(rows: &[Row]) -> String {
    let mut columns = columns();
    columns.extend([
        Column::number("p90\nµs", |line: &TableLine<'_>| figure(line.row.p90_us)),
        Column::number("p99.9\nµs", |line| figure(line.row.p999_us)),
        Column::number("max\nµs", |line| figure(line.row.max_us)),
        Column::number("client\nMiB", |line| figure(line.row.detail.client.resident_mib)),
        Column::number("server\nMiB", |line| {
            or_dash(line.row.detail.server.map(|server| server.resident_mib), figure)
        }),
        Column::number("\ncalls", |line| line.row.calls.to_string()),
    ]);
    let class =
        |column: &Column<TableLine<'_>>| if column.is_text { "" } else { " class=\"number\"" };
    let mut html = "<thead><tr>".to_owned();
    for column in &columns {
        let title = escaped(column.title.trim()).replace('\n', "<br>");
        html += &format!("<th{}>{title}</th>", class(column));
    }
    html += "</tr></thead>\n<tbody>\n";
    for line in TableLine::all(rows) {
        html += "<tr>";
        for column in &columns {
            html += &format!("<td{}>{}</td>", class(column), escaped(&(column.show)(&line)));
        }
        html += "</tr>\n";
    }
    html + "</tbody>"
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_cannot_become_markup() {
        assert_eq!(escaped("<a href=\"x\">&"), "&lt;a href=&quot;x&quot;&gt;&amp;");
    }
}
