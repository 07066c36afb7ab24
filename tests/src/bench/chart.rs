//! Owns a line chart as SVG: x logarithmic, y linear from zero, in text that a diff shows. `bars` and `ranges` are the other
//! kinds. Never computes what it draws.

use std::fmt::Write;

pub mod bars;
pub mod ranges;

/// One line; points in order of x, which is above zero.
#[derive(Clone, Debug)]
pub struct Line {
    pub name: String,
    pub points: Vec<(f64, f64)>,
}

/// What is drawn.
#[derive(Clone, Debug)]
pub struct Chart {
    pub title: String,
    pub x: String,
    pub y: String,
    pub lines: Vec<Line>,
}

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 400.0;
/// Left, top, right, bottom.
const MARGIN: (f64, f64, f64, f64) = (64.0, 48.0, 24.0, 56.0);
/// Told apart in print and by people who see few colours.
const STYLES: [(&str, &str); 4] = [("#0b57a4", "none"), ("#c4511d", "6 4"), ("#2e7d32", "2 3"), ("#6a1b9a", "8 3 2 3")];

/// Of bars and ranges: where they end on the right, and where they begin below title and legend.
const RIGHT: f64 = WIDTH - 90.0;
const TOP: f64 = 64.0;
const OURS: &str = "#0b57a4";
const THEIRS: &str = "#8a8a8a";
const MUST: &str = "stroke=\"#c4511d\" stroke-width=\"3\"";
const GOAL: &str = "stroke=\"#2e7d32\" stroke-width=\"2\" stroke-dasharray=\"3 2\"";

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// The head of a chart: on white, so that it is read on a dark page, too.
fn head(height: f64, title: &str) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n\
         <text x=\"{}\" y=\"24\" font-size=\"16\">{}</text>\n",
        MARGIN.0,
        escaped(title)
    )
}

/// What the marks are.
fn legend(out: &mut String, before: &str) {
    let _ = writeln!(out, "<text x=\"64\" y=\"44\" fill=\"#555555\">{before}</text>");
    for (x, style, name) in [(RIGHT - 110.0, MUST, "must"), (RIGHT - 40.0, GOAL, "goal")] {
        let _ = writeln!(
            out,
            "<line x1=\"{x}\" x2=\"{x}\" y1=\"34\" y2=\"46\" {style}/><text x=\"{}\" y=\"44\">{name}</text>",
            x + 8.0
        );
    }
}

/// A round number not below `most`: 1, 2 or 5 times a power of ten.
fn ceiling(most: f64) -> f64 {
    let power = if most > 0.0 { 10_f64.powf(most.log10().floor()) } else { 1.0 };
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|step| step * power).find(|top| *top >= most).unwrap_or(10.0 * power)
}

/// The chart.
pub fn svg(chart: &Chart) -> String {
    let points = || chart.lines.iter().flat_map(|line| &line.points);
    let top = ceiling(points().map(|(_, y)| *y).fold(0.0, f64::max));
    let decades = points().map(|(x, _)| x.max(1.0).log10()).fold(1.0, f64::max).ceil();
    let (left, up, right, down) = MARGIN;
    let at_x = |x: f64| left + x.max(1.0).log10() / decades * (WIDTH - left - right);
    let at_y = |y: f64| HEIGHT - down - (y / top).clamp(0.0, 1.0) * (HEIGHT - up - down);
    let mut out = head(HEIGHT, &chart.title);
    for step in 0..=4 {
        let y = top * f64::from(step) / 4.0;
        let _ = writeln!(
            out,
            "<line x1=\"{left}\" x2=\"{:.1}\" y1=\"{1:.1}\" y2=\"{1:.1}\" stroke=\"#dddddd\"/>\
             <text x=\"{2:.1}\" y=\"{3:.1}\" text-anchor=\"end\">{y:.0}</text>",
            WIDTH - right,
            at_y(y),
            left - 8.0,
            at_y(y) + 4.0
        );
    }
    for decade in 0..=decades as i32 {
        let x = 10_f64.powi(decade);
        let _ = writeln!(
            out,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{x:.0}</text>",
            at_x(x),
            HEIGHT - down + 20.0
        );
    }
    let (middle, foot) = ((left + WIDTH - right) / 2.0, HEIGHT - 14.0);
    let side = (up + HEIGHT - down) / 2.0;
    let (x, y) = (escaped(&chart.x), escaped(&chart.y));
    let _ = writeln!(out, "<text x=\"{middle:.1}\" y=\"{foot:.1}\" text-anchor=\"middle\">{x}</text>");
    let _ = writeln!(
        out,
        "<text x=\"14\" y=\"{side:.1}\" transform=\"rotate(-90 14 {side:.1})\" text-anchor=\"middle\">{y}</text>"
    );
    for (at, line) in chart.lines.iter().enumerate() {
        draw(&mut out, line, at, &at_x, &at_y);
    }
    out.push_str("</svg>\n");
    out
}

fn draw(out: &mut String, line: &Line, at: usize, at_x: &dyn Fn(f64) -> f64, at_y: &dyn Fn(f64) -> f64) {
    let (colour, dash) = STYLES[at % STYLES.len()];
    let path: Vec<_> = line.points.iter().map(|(x, y)| format!("{:.1},{:.1}", at_x(*x), at_y(*y))).collect();
    let _ = writeln!(
        out,
        "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" stroke-dasharray=\"{dash}\"/>",
        path.join(" ")
    );
    for (x, y) in &line.points {
        let _ = writeln!(
            out,
            "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3.5\" fill=\"{colour}\"/><text x=\"{:.1}\" y=\"{:.1}\" fill=\"{colour}\" text-anchor=\"middle\">{y:.0}</text>",
            at_x(*x),
            at_y(*y),
            at_x(*x),
            at_y(*y) - 9.0
        );
    }
    let y = MARGIN.1 + 16.0 * at as f64 + 8.0;
    let _ = writeln!(
        out,
        "<line x1=\"{0}\" x2=\"{1}\" y1=\"{2}\" y2=\"{2}\" stroke=\"{colour}\" stroke-width=\"2\" stroke-dasharray=\"{dash}\"/><text x=\"{3}\" y=\"{4}\">{5}</text>",
        MARGIN.0 + 12.0,
        MARGIN.0 + 44.0,
        y,
        MARGIN.0 + 52.0,
        y + 4.0,
        escaped(&line.name)
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_higher_value_stands_higher_and_every_point_is_inside() {
        let line = Line { name: "a < b".into(), points: vec![(1.0, 50.0), (1_000.0, 120.0), (1_000_000.0, 700.0)] };
        let chart = Chart { title: "t".into(), x: "x".into(), y: "y".into(), lines: vec![line] };
        let text = svg(&chart);
        let places: Vec<(f64, f64)> = text
            .lines()
            .filter_map(|line| line.strip_prefix("<circle cx=\""))
            .map(|rest| {
                let mut parts = rest.split('"');
                let x = parts.next().unwrap().parse().unwrap();
                (x, parts.nth(1).unwrap().parse().unwrap())
            })
            .collect();
        assert_eq!(places.len(), 3);
        assert!(places.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 > pair[1].1), "{places:?}");
        assert!(places.iter().all(|(x, y)| (0.0..=WIDTH).contains(x) && (0.0..=HEIGHT).contains(y)), "{places:?}");
        assert!(text.contains("a &lt; b") && !text.contains("a < b"));
        assert_eq!((ceiling(700.0), ceiling(1_000.0), ceiling(0.0)), (1_000.0, 1_000.0, 1.0));
        assert!((ceiling(0.16) - 0.2).abs() < 1e-9, "less than one has a scale of its own");
    }
}
