//! The pictures of a report, as SVG documents. No font is needed to draw them: the reader's sans-serif is used.

use std::io;
use std::iter::once;
use std::ops::Range;

use plotters::coord::Shift;
use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, ValueFormatter};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

const WIDTH: u32 = 900;
const HEIGHT: u32 = 420;
/// Above the plot, for the title.
const TOP: u32 = 56;
const EDGE: u32 = 16;
/// plotters writes 1/1.24 of a size into the document: these are 18 and 13 pixels.
const TITLE_SIZE: f64 = 22.3;
const TEXT_SIZE: f64 = 16.1;
/// Room for a letter of a text, in any sans-serif.
const LETTER: u32 = 8;
/// From Okabe and Ito's palette, which the colour-blind can tell apart.
const COLOURS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
];
const PERCENTILES: [f64; 8] = [0.0, 50.0, 90.0, 99.0, 99.9, 99.99, 99.999, 99.9999];
/// What is faster is drawn here: a log axis has no zero.
const FASTEST_MS: f64 = 0.001;

type Document<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Chart<'a> = ChartContext<'a, SVGBackend<'a>, Cartesian2d<Axis, Axis>>;
type Drawn<T> = Result<T, DrawingAreaErrorKind<io::Error>>;
type Line<'a> = (&'a str, Vec<(f64, f64)>);

/// Latency over percentiles at one rate.
pub(super) struct LatencyCurve {
    pub(super) label: String,
    /// (percentile 0..100, milliseconds)
    pub(super) points: Vec<(f64, f64)>,
}

/// The 100th percentile has no place on this axis. What is beyond 99.9999 is left out.
pub(super) fn latency_by_rate(title: &str, curves: &[LatencyCurve]) -> Result<String, String> {
    let lines = curves.iter().map(|curve| {
        let points = drawable(&curve.points).filter(|(percentile, _)| *percentile < PERCENTILES[7] + 1e-9);
        let on_axes = points.map(|(percentile, ms)| (nines(percentile), ms.max(FASTEST_MS).log10()));
        (curve.label.as_str(), on_axes.collect())
    });
    draw_lines(title, lines, |(_, right), (low, high)| (percentiles(right), milliseconds(low, high)))
}

/// A rate, against F.
pub(super) struct Bar {
    pub(super) name: String,
    /// share of F
    pub(super) of_baseline: f64,
    pub(super) per_second: f64,
}

/// One bar below the other, as they are given.
pub(super) fn throughput_against_baseline(title: &str, bars: &[Bar]) -> Result<String, String> {
    let bars: Vec<_> = bars.iter().filter(|bar| sane(bar.of_baseline) && sane(bar.per_second)).collect();
    if bars.is_empty() {
        return Err("nothing to draw".into());
    }
    let height = HEIGHT.max(120 + 26 * bars.len().min(1_000) as u32);
    picture(height, |root| draw_bars(root, title, &bars))
}

/// A figure over time.
pub(super) struct Timeline {
    pub(super) label: String,
    /// (seconds, per second)
    pub(super) points: Vec<(f64, f64)>,
}

pub(super) fn over_time(title: &str, lines: &[Timeline]) -> Result<String, String> {
    let lines = lines.iter().map(|line| (line.label.as_str(), drawable(&line.points).collect()));
    draw_lines(title, lines, |x, y| (linear("seconds", x.0, x.1), linear("per second", 0.0, y.1 * 1.08)))
}

fn sane(value: f64) -> bool {
    (0.0..=1e12).contains(&value)
}

fn drawable(points: &[(f64, f64)]) -> impl Iterator<Item = (f64, f64)> {
    points.iter().copied().filter(|(x, y)| sane(*x) && sane(*y))
}

fn bounds(values: impl Iterator<Item = f64>) -> (f64, f64) {
    values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)))
}

struct Axis {
    name: &'static str,
    range: Range<f64>,
    ticks: Vec<(f64, String)>,
}

impl Ranged for Axis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (start, end): (i32, i32)) -> i32 {
        let share = (value - self.range.start) / (self.range.end - self.range.start);
        start + (f64::from(end - start) * share).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _hint: Hint) -> Vec<f64> {
        self.ticks.iter().map(|(tick, _)| *tick).collect()
    }

    fn range(&self) -> Range<f64> {
        self.range.clone()
    }
}

impl ValueFormatter<f64> for Axis {
    fn format_ext(&self, value: &f64) -> String {
        self.ticks.iter().find(|(tick, _)| tick == value).map(|(_, label)| label.clone()).unwrap_or_default()
    }
}

/// A percentile's place: 1 for 90, 2 for 99, 3 for 99.9.
fn nines(percentile: f64) -> f64 {
    (100.0 / (100.0 - percentile)).log10()
}

fn percentiles(right: f64) -> Axis {
    let right = right.max(1.0);
    let ticks = PERCENTILES.map(|percentile| (nines(percentile), format!("{percentile} %")));
    let ticks = ticks.into_iter().filter(|(tick, _)| *tick < right + 1e-6).collect();
    Axis { name: "percentile", range: 0.0..right, ticks }
}

/// Takes logarithms. From the tick at or below all data to one above: 1, 2, 5, 10, or powers of ten if they are many.
fn milliseconds(low: f64, high: f64) -> Axis {
    let steps: &[f64] = if high - low > 4.0 { &[1.0] } else { &[1.0, 2.0, 5.0] };
    let decades = (low.floor() as i32 - 1)..=(high.ceil() as i32 + 1);
    let ticks = decades.flat_map(|decade| steps.iter().map(move |step| step * 10f64.powi(decade)));
    let ticks: Vec<_> = ticks.map(|tick| (tick.log10(), number(tick, decimals(tick)))).collect();
    let up_to = |value: f64| ticks.partition_point(|(tick, _)| *tick <= value + 1e-9);
    let (first, last) = (up_to(low).saturating_sub(1), up_to(high));
    let ticks: Vec<_> = ticks.into_iter().take(last + 1).skip(first).collect();
    let (bottom, top) = bounds(ticks.iter().map(|(tick, _)| *tick));
    Axis { name: "latency, ms", range: bottom..top, ticks }
}

fn linear(name: &'static str, low: f64, high: f64) -> Axis {
    let high = if high - low < 1e-9 { low + 1.0 } else { high };
    let least = (high - low) / 8.0;
    let decade = 10f64.powf(least.log10().floor());
    let step = [decade, 2.0 * decade, 5.0 * decade].into_iter().find(|step| *step >= least).unwrap_or(10.0 * decade);
    let (first, last) = ((low / step - 1e-9).ceil() as i64, (high / step + 1e-9).floor() as i64);
    let ticks = (first..=last).map(|count| count as f64 * step);
    Axis { name, range: low..high, ticks: ticks.map(|tick| (tick, number(tick, decimals(step)))).collect() }
}

/// How many a multiple of `step` needs.
fn decimals(step: f64) -> usize {
    (-(step * 1.01).log10()).ceil().max(0.0) as usize
}

/// With the thousands separated.
fn number(value: f64, decimals: usize) -> String {
    let mut text = format!("{value:.decimals$}");
    let mut place = text.find('.').unwrap_or(text.len());
    while place > 3 {
        place -= 3;
        text.insert(place, ',');
    }
    text
}

fn picture(height: u32, draw: impl FnOnce(&Document) -> Drawn<()>) -> Result<String, String> {
    let mut svg = String::new();
    let root = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
    let drawn = root.fill(&WHITE).and_then(|()| draw(&root)).and_then(|()| root.present());
    drop(root);
    drawn.map(|()| svg).map_err(|error| error.to_string())
}

fn write(root: &Document, text: &str, size: f64, (x, y): (i32, i32), anchor: HPos) -> Drawn<()> {
    let style = ("sans-serif", size).into_font().color(&BLACK).pos(Pos::new(anchor, VPos::Center));
    root.draw_text(text, &style, (x, y))
}

/// The letters of the longest.
fn longest<'a>(texts: impl Iterator<Item = &'a str>) -> u32 {
    texts.map(|text| text.chars().count()).max().unwrap_or(0).min(50) as u32
}

/// The title, the axes and the grid. `right` is left free beside them.
fn chart<'a>(root: &Document<'a>, title: &str, x: Axis, y: Axis, right: u32) -> Drawn<Chart<'a>> {
    write(root, title, TITLE_SIZE, (EDGE as i32, 26), HPos::Left)?;
    let left =
        LETTER * longest(y.ticks.iter().map(|(_, label)| label.as_str())) + if y.name.is_empty() { 12 } else { 40 };
    let (x_name, y_name) = (x.name, y.name);
    let mut builder = ChartBuilder::on(root);
    builder.margin(EDGE).margin_top(TOP).margin_right(right).x_label_area_size(48).y_label_area_size(left);
    let mut chart = builder.build_cartesian_2d(x, y)?;
    let font = ("sans-serif", TEXT_SIZE).into_font().color(&BLACK);
    let mut mesh = chart.configure_mesh();
    if y_name.is_empty() {
        mesh.disable_y_mesh();
    }
    mesh.bold_line_style(BLACK.mix(0.12)).light_line_style(TRANSPARENT).axis_style(BLACK.mix(0.5));
    mesh.label_style(font.clone()).axis_desc_style(font).x_desc(x_name).y_desc(y_name).draw()?;
    Ok(chart)
}

fn draw_lines<'a>(
    title: &str,
    lines: impl Iterator<Item = Line<'a>>,
    axes: impl Fn((f64, f64), (f64, f64)) -> (Axis, Axis),
) -> Result<String, String> {
    let lines: Vec<_> = lines.filter(|(_, points)| !points.is_empty()).collect();
    if lines.is_empty() {
        return Err("nothing to draw".into());
    }
    let points = || lines.iter().flat_map(|(_, points)| points);
    let (x, y) = axes(bounds(points().map(|(x, _)| *x)), bounds(points().map(|(_, y)| *y)));
    let legend = LETTER * longest(lines.iter().map(|(label, _)| *label)) + 56;
    picture(HEIGHT, |root| {
        let mut chart = chart(root, title, x, y, legend)?;
        let (left, rows) = ((WIDTH - legend) as i32, (TOP as i32 + 10..).step_by(22));
        for (((label, points), y), colour) in lines.iter().zip(rows).zip(COLOURS.iter().cycle()) {
            draw_line(&mut chart, points, *colour)?;
            root.draw(&PathElement::new([(left + 12, y), (left + 34, y)], colour.stroke_width(3)))?;
            write(root, label, TEXT_SIZE, (left + 42, y), HPos::Left)?;
        }
        Ok(())
    })
}

/// A line of a few points shows them.
fn draw_line(chart: &mut Chart, points: &[(f64, f64)], colour: RGBColor) -> Drawn<()> {
    chart.draw_series(once(PathElement::new(points, colour.stroke_width(2))))?;
    if points.len() <= 12 {
        chart.draw_series(points.iter().map(|point| Circle::new(*point, 3, colour.filled())))?;
    }
    Ok(())
}

fn draw_bars(root: &Document, title: &str, bars: &[&Bar]) -> Drawn<()> {
    let count = bars.len() as f64;
    let middles: Vec<_> = (0..bars.len()).rev().map(|below| below as f64 + 0.5).collect();
    let ticks = middles.iter().copied().zip(bars.iter().map(|bar| bar.name.clone())).collect();
    let names = Axis { name: "", range: 0.0..count, ticks };
    let (_, most) = bounds(bars.iter().map(|bar| bar.of_baseline).chain(once(1.0)));
    let end = |bar: &Bar| format!("{:.2} F · {}/s", bar.of_baseline, number(bar.per_second, 0));
    let ends: Vec<_> = bars.iter().map(|bar| end(bar)).collect();
    let right = LETTER * longest(ends.iter().map(String::as_str)) + EDGE;
    let mut chart = chart(root, title, linear("share of F", 0.0, most), names, right)?;
    let half = (0.06 * count).min(0.32);
    let corners = bars.iter().zip(&middles).map(|(bar, y)| [(0.0, y + half), (bar.of_baseline, y - half)]);
    chart.draw_series(corners.map(|corners| Rectangle::new(corners, COLOURS[0].filled())))?;
    chart.draw_series(once(PathElement::new([(1.0, 0.0), (1.0, count)], COLOURS[1].stroke_width(2))))?;
    let (x, y) = chart.backend_coord(&(1.0, count));
    write(root, "F", TEXT_SIZE, (x, y - 9), HPos::Center)?;
    for ((bar, end), y) in bars.iter().zip(&ends).zip(&middles) {
        let (x, y) = chart.backend_coord(&(bar.of_baseline, *y));
        let behind = [(x + 2, y - 9), (x + 6 + 7 * longest(once(end.as_str())) as i32, y + 9)];
        root.draw(&Rectangle::new(behind, WHITE.filled()))?;
        write(root, end, TEXT_SIZE, (x + 6, y), HPos::Left)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn latency(points: &[(f64, f64)]) -> Result<String, String> {
        latency_by_rate("latency", &[LatencyCurve { label: "40,000/s".into(), points: points.to_vec() }])
    }

    fn throughput(of_baseline: f64, per_second: f64) -> Result<String, String> {
        throughput_against_baseline("against F", &[Bar { name: "sold < out".into(), of_baseline, per_second }])
    }

    fn time(points: &[(f64, f64)]) -> Result<String, String> {
        over_time("over time", &[Timeline { label: "accepted".into(), points: points.to_vec() }])
    }

    /// It is a whole document, and these are texts in it.
    fn has(svg: &str, texts: &[&str]) {
        assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n"), "{svg}");
        for text in texts {
            assert!(svg.contains(&format!(">\n{text}\n</text>")), "no {text} in {svg}");
        }
    }

    #[test]
    fn pictures_say_what_they_show() -> Result<(), String> {
        let svg = latency(&[(0.0, 0.3), (50.0, 0.7), (99.0, 4.0), (99.9, 18.0), (100.0, 900.0)])?;
        has(&svg, &["latency", "40,000/s", "percentile", "0 %", "50 %", "99.9 %", "latency, ms", "0.2", "1", "20"]);
        assert!(!svg.contains("99.99 %") && !svg.contains("1,000"), "{svg}");
        has(&throughput(0.72, 98_400.4)?, &["against F", "sold &lt; out", "0.72 F · 98,400/s", "share of F", "1.0"]);
        let svg = time(&[(0.0, 0.0), (2.0, 70_000.0), (4.0, 1_065_000.0)])?;
        has(&svg, &["over time", "accepted", "seconds", "0.5", "4.0", "per second", "200,000", "1,000,000"]);
        Ok(())
    }

    #[test]
    fn what_is_no_figure_is_left_out() {
        let nothing = Err("nothing to draw".to_string());
        for empty in [latency_by_rate("", &[]), throughput_against_baseline("", &[]), over_time("", &[])] {
            assert_eq!(empty, nothing);
        }
        for broken in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::MAX, -1.0] {
            assert_eq!(latency(&[(broken, 1.0), (50.0, broken), (100.0, 1.0), (101.0, 1.0)]), nothing);
            assert_eq!(throughput(broken, 1.0), nothing);
            assert_eq!(time(&[(broken, 1.0), (1.0, broken)]), nothing);
            assert_eq!(latency(&[(50.0, broken), (50.0, 1.0)]), latency(&[(50.0, 1.0)]));
        }
    }

    #[test]
    fn figures_without_a_span_are_drawn() -> Result<(), String> {
        for value in [0.0, f64::MIN_POSITIVE, 0.3, 1.0, 1e12] {
            has(&latency(&[(50.0, value)])?, &["50 %", "90 %"]);
            has(&latency(&[(0.0, value), (99.9999, value)])?, &["99.9999 %"]);
            has(&time(&[(value, value)])?, &["accepted"]);
            has(&throughput(value, value)?, &["F"]);
        }
        has(&latency(&[(0.0, 0.0), (90.0, 3.0)])?, &["0.001", "5"]);
        Ok(())
    }
}
