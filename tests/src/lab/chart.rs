//! Owns the bar chart of outages in the terminal. Never computes what it draws.

/// Columns of the longest bar.
const WIDTH: usize = 44;
/// Right end of the scale: the window in which outages are looked for.
const LONGEST_MS: f64 = 5_000.0;

/// One bar.
#[derive(Clone, Debug)]
pub struct Bar {
    pub name: String,
    pub outage_ms: f64,
    pub limit_ms: Option<f64>,
    pub kept: bool,
}

/// Column of a value on the logarithmic scale.
fn column(ms: f64) -> usize {
    let share = (1.0 + ms.clamp(0.0, LONGEST_MS)).ln() / (1.0 + LONGEST_MS).ln();
    (share * WIDTH as f64).round() as usize
}

/// Bars over a logarithmic scale; `┊` marks the promised limit.
pub fn draw(bars: &[Bar]) -> String {
    let names = bars.iter().map(|bar| bar.name.chars().count()).max().unwrap_or(0);
    let mut out = format!("{:names$}  outage, worse direction (logarithmic)\n", "");
    for bar in bars {
        let mut cells: Vec<char> = (0..=WIDTH).map(|at| if at < column(bar.outage_ms) { '█' } else { ' ' }).collect();
        let mut limit = String::new();
        if let Some(ms) = bar.limit_ms {
            if let Some(cell) = cells.get_mut(column(ms)) {
                *cell = '┊';
            }
            limit = format!("  limit {ms:.0}");
        }
        let drawn: String = cells.into_iter().collect();
        let verdict = if bar.kept { "kept" } else { "BROKEN" };
        out.push_str(&format!("{:names$}  {drawn} {:>7.1} ms{limit}  {verdict}\n", bar.name, bar.outage_ms));
    }
    let mut axis = vec![' '; WIDTH + 6];
    for mark in ["0", "10", "100", "1000", "5000"] {
        let at = column(mark.parse().unwrap_or(0.0));
        for (offset, digit) in mark.chars().enumerate() {
            if let Some(cell) = axis.get_mut(at + offset) {
                *cell = digit;
            }
        }
    }
    let axis: String = axis.into_iter().collect();
    out.push_str(&format!("{:names$}  {}\n", "", axis.trim_end()));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bar(name: &str, outage_ms: f64, limit_ms: Option<f64>, kept: bool) -> Bar {
        Bar { name: name.into(), outage_ms, limit_ms, kept }
    }

    #[test]
    fn a_longer_outage_has_a_longer_bar_and_the_limit_is_marked() {
        let chart = draw(&[
            bar("planned_jump", 0.0, None, true),
            bar("silent_death", 84.25, Some(200.0), true),
            bar("restart", 5_100.0, Some(3_000.0), false),
        ]);
        let lines: Vec<&str> = chart.lines().collect();
        let length = |line: &str| line.matches('█').count();
        assert_eq!(length(lines[1]), 0);
        assert!(length(lines[1]) < length(lines[2]) && length(lines[2]) < length(lines[3]));
        assert!(lines[2].contains('┊') && lines[2].ends_with("84.2 ms  limit 200  kept"), "{}", lines[2]);
        assert!(lines[3].ends_with("BROKEN"));
        assert_eq!(lines[1].matches('┊').count(), 0);
        assert!(lines[4].trim_start().starts_with('0') && lines[4].contains("1000"));
    }
}
