//! Owns the arithmetic of a bench: medians, quartiles and ratios paired by round. Never measures, never rounds.

/// Middle and quartiles of some samples.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    pub median: f64,
    pub lower: f64,
    pub upper: f64,
}

/// Summary of what there is; none of nothing. What is not a number does not count.
pub fn summary(samples: &[f64]) -> Option<Summary> {
    let mut sorted: Vec<f64> = samples.iter().copied().filter(|sample| sample.is_finite()).collect();
    sorted.sort_by(f64::total_cmp);
    Some(Summary { median: quantile(&sorted, 0.5)?, lower: quantile(&sorted, 0.25)?, upper: quantile(&sorted, 0.75)? })
}

/// Quantile of sorted samples, linear between the two nearest.
pub fn quantile(sorted: &[f64], share: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    let place = share.clamp(0.0, 1.0) * last as f64;
    let (below, above) = (*sorted.get(place.floor() as usize)?, *sorted.get(place.ceil() as usize)?);
    Some(below + (above - below) * place.fract())
}

/// Ours ÷ rival of each round in which both were measured: what slowed the machine in one round slowed both.
pub fn paired(ours: &[Option<f64>], rival: &[Option<f64>]) -> Vec<f64> {
    ours.iter()
        .zip(rival)
        .filter_map(|(ours, rival)| Some((*ours)?).zip(*rival))
        .filter(|(ours, rival)| ours.is_finite() && *rival > 0.0)
        .map(|(ours, rival)| ours / rival)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-9
    }

    #[test]
    fn median_and_quartiles_do_not_depend_on_order() {
        for samples in [[1.0, 2.0, 3.0, 4.0, 5.0], [5.0, 1.0, 4.0, 2.0, 3.0]] {
            assert_eq!(summary(&samples), Some(Summary { median: 3.0, lower: 2.0, upper: 4.0 }));
        }
        let even = summary(&[4.0, 1.0, 3.0, 2.0]).unwrap();
        assert!(close(even.median, 2.5) && close(even.lower, 1.75) && close(even.upper, 3.25));
    }

    #[test]
    fn one_sample_is_its_own_summary_and_nothing_has_none() {
        assert_eq!(summary(&[7.0]), Some(Summary { median: 7.0, lower: 7.0, upper: 7.0 }));
        assert_eq!(summary(&[]), None);
        assert_eq!(summary(&[f64::NAN]), None);
        assert_eq!(quantile(&[], 0.5), None);
    }

    #[test]
    fn ratios_pair_the_same_round_and_leave_out_what_failed() {
        let ours = [Some(6.0), None, Some(4.0), Some(5.0), Some(1.0)];
        let rival = [Some(2.0), Some(1.0), None, Some(10.0), Some(0.0)];
        assert_eq!(paired(&ours, &rival), [3.0, 0.5]);
    }

    #[test]
    fn a_slow_round_for_both_does_not_move_the_paired_ratio() {
        let ours = [Some(6.0), Some(0.6), Some(6.0)];
        let rival = [Some(2.0), Some(0.2), Some(2.0)];
        let ratios = summary(&paired(&ours, &rival)).unwrap();
        assert!(close(ratios.lower, 3.0) && close(ratios.upper, 3.0));
    }
}
