//! Throughput over threads, one line per part size, as SVG: writing on the left, reading on the right.

use std::fs::{self, OpenOptions};
use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::choose::best_of;
use super::grid::exact_bytes;
use super::report::{Report, Side};
use crate::failure::Failure;
use crate::output::{human_bytes, human_time, printable};

const WIDTH: u32 = 1200;
const CHARTS_HEIGHT: u32 = 480;
const HEAD_HEIGHT: u32 = 74;
const LEGEND_ROW_HEIGHT: u32 = 26;
const LEGEND_COLUMN_WIDTH: u32 = 110;

/// Most characters of the URI in the title.
const TITLE_CHARACTERS_MAX: usize = 75;

/// Distance of twice the threads, in units of the axis, which has whole numbers.
const DOUBLING: i32 = 10_000;

/// Distinguishable for the colour-blind. Source: Okabe and Ito, "Color Universal Design", 2008; without
/// the yellow, which white paper swallows.
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(0, 0, 0),
];

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Whether a plot can be written to this file. Leaves nothing where there was none.
pub fn check(path: &Path) -> std::result::Result<(), Failure> {
    // A link that leads nowhere yet is the user's too: what it would lead to is removed, not the link.
    let existed = path.exists();
    let opened = OpenOptions::new().write(true).create(true).truncate(false).open(path);
    let failed = |e| Failure::io("write the plot", path, &e);
    opened.map_err(failed)?;
    if existed {
        return Ok(());
    }
    fs::canonicalize(path).and_then(fs::remove_file).map_err(failed)
}

/// Draws and writes.
pub fn write(path: &Path, report: &Report<'_>) -> std::result::Result<(), Failure> {
    let mut svg = String::new();
    let drawn = draw(&mut svg, report);
    drawn.map_err(|e| Failure::Other(format!("draw the plot: {e}")))?;
    fs::write(path, svg).map_err(|e| Failure::io("write the plot", path, &e))
}

fn draw(svg: &mut String, report: &Report<'_>) -> Result<()> {
    let legend_columns = (WIDTH / LEGEND_COLUMN_WIDTH - 1) as usize;
    let legend_rows = report.grid.parts.len().div_ceil(legend_columns) as u32;
    let legend_height = LEGEND_ROW_HEIGHT * legend_rows + 10;
    let height = HEAD_HEIGHT + CHARTS_HEIGHT + legend_height;
    let root = SVGBackend::with_string(svg, (WIDTH, height)).into_drawing_area();
    // Readable on dark pages too.
    root.fill(&WHITE)?;
    let (head, below) = root.split_vertically(HEAD_HEIGHT);
    let (charts, legend) = below.split_vertically(CHARTS_HEIGHT);
    draw_head(&head, report)?;
    let (left, right) = charts.split_horizontally(WIDTH / 2);
    draw_chart(&left, report, Side::Write, "Writing (write_borrowed, CRC32C, committed)")?;
    draw_chart(&right, report, Side::Read, "Reading (read_into_verified, warm memory)")?;
    draw_legend(&legend, report, legend_columns)?;
    root.present()?;
    Ok(())
}

fn draw_head(area: &Area<'_>, report: &Report<'_>) -> Result<()> {
    let facts = &report.facts;
    let title = format!("{}, {}", ending(&report.args.uri), human_time(Some(facts.date)));
    let machine = format!(
        "{}; {} a run, median of {} rounds",
        facts.line(),
        human_bytes(report.size_bytes),
        report.args.rounds
    );
    let middle = (WIDTH / 2) as i32;
    area.draw(&Text::new(title, (middle, 24), text(22, HPos::Center)))?;
    area.draw(&Text::new(machine, (middle, 52), text(15, HPos::Center)))?;
    Ok(())
}

/// The end of a URI that is too long for the title.
fn ending(uri: &str) -> String {
    let characters: Vec<char> = printable(uri).chars().collect();
    match characters.len().checked_sub(TITLE_CHARACTERS_MAX) {
        None | Some(0) => characters.into_iter().collect(),
        Some(too_many) => format!("...{}", characters[too_many..].iter().collect::<String>()),
    }
}

fn draw_chart(area: &Area<'_>, report: &Report<'_>, side: Side, title: &str) -> Result<()> {
    let threads = &report.grid.threads;
    let rates: Vec<f64> = report.measured.iter().map(|m| side.of(m).mib_per_s).collect();
    let ticks: Vec<i32> = threads.iter().map(|threads| at(*threads)).collect();
    let ends = (ticks[0] - DOUBLING / 5)..(ticks[ticks.len() - 1] + DOUBLING / 5);
    let label = |tick: &i32| {
        let named = threads.iter().find(|threads| at(**threads) == *tick);
        named.map(usize::to_string).unwrap_or_default()
    };
    let mut chart = ChartBuilder::on(area)
        .caption(title, text(18, HPos::Left))
        .margin(12)
        .x_label_area_size(50)
        .y_label_area_size(75)
        .build_cartesian_2d(ends.with_key_points(ticks), 0.0..best_of(&rates) * 1.08)?;
    chart
        .configure_mesh()
        .x_desc("I/O threads")
        .y_desc("MiB/s")
        .x_label_formatter(&label)
        .y_label_formatter(&|y| format!("{y:.0}"))
        .y_labels(8)
        .light_line_style(TRANSPARENT)
        .bold_line_style(RGBColor(220, 220, 220))
        .label_style(("sans-serif", 15))
        .axis_desc_style(("sans-serif", 16))
        .draw()?;
    for (index, part) in report.grid.parts.iter().enumerate() {
        let of_part = report.measured.iter().filter(|m| m.setting.part_bytes == *part);
        let points: Vec<(i32, f64)> =
            of_part.map(|m| (at(m.setting.io_threads), side.of(m).mib_per_s)).collect();
        chart
            .draw_series(LineSeries::new(points.iter().copied(), colour(index).stroke_width(2)))?;
        chart.draw_series(points.iter().map(|point| EmptyElement::at(*point) + marker(index)))?;
    }
    Ok(())
}

/// Where so many threads stand: twice as many are as far away everywhere.
fn at(threads: usize) -> i32 {
    ((threads as f64).log2() * f64::from(DOUBLING)) as i32
}

fn draw_legend(area: &Area<'_>, report: &Report<'_>, columns: usize) -> Result<()> {
    area.draw(&Text::new("part size:", (75, 13), text(16, HPos::Right)))?;
    for (index, part) in report.grid.parts.iter().enumerate() {
        let x = 110 + (index % columns) as i32 * LEGEND_COLUMN_WIDTH as i32;
        let y = 13 + (index / columns) as i32 * LEGEND_ROW_HEIGHT as i32;
        area.draw(&Rectangle::new([(x - 18, y - 1), (x + 18, y + 1)], colour(index).filled()))?;
        area.draw(&(EmptyElement::at((x, y)) + marker(index)))?;
        area.draw(&Text::new(exact_bytes(*part), (x + 26, y), text(16, HPos::Left)))?;
    }
    Ok(())
}

fn colour(index: usize) -> RGBColor {
    COLOURS[index % COLOURS.len()]
}

/// A shape beside the colour: four shapes and seven colours come together anew only after 28.
fn marker(index: usize) -> Polygon<(i32, i32)> {
    let corners = match index % 4 {
        0 => [(-4, -4), (4, -4), (4, 4), (-4, 4)].to_vec(),
        1 => vec![(0, -6), (6, 0), (0, 6), (-6, 0)],
        2 => vec![(0, -6), (6, 4), (-6, 4)],
        _ => vec![(0, 6), (6, -4), (-6, -4)],
    };
    Polygon::new(corners, colour(index).filled())
}

fn text<'a>(size: i32, side: HPos) -> TextStyle<'a> {
    TextStyle::from(("sans-serif", size).into_font())
        .color(&BLACK)
        .pos(Pos::new(side, VPos::Center))
}
