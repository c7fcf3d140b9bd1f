//! Quantiles of several values: the median, and how far apart the middle half is.

/// Returns the value below which `part` of the values are: 0.5 for the median. It interpolates
/// between two values.
pub(super) fn quantile(part: f64, mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let place = part * values.len().checked_sub(1)? as f64;
    let (lower, upper) = (values[place.floor() as usize], values[place.ceil() as usize]);
    Some(lower + (upper - lower) * place.fract())
}

/// Returns how far apart the middle half of the values is, as a fraction of their median.
pub(super) fn spread(values: Vec<f64>) -> Option<f64> {
    if values.len() < 2 {
        return None;
    }
    let at = |part| quantile(part, values.clone());
    Some((at(0.75)? - at(0.25)?) / at(0.5)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        let median = |values| quantile(0.5, values);
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0]), Some(3.0));
        assert_eq!(median(vec![4.0, 1.0]), Some(2.5));
        assert_eq!(median(vec![9.0, 1.0, 2.0]), Some(2.0));
    }

    #[test]
    fn the_spread_is_that_of_the_middle_half() {
        assert_eq!(spread(vec![]), None);
        assert_eq!(spread(vec![7.0]), None);
        assert_eq!(spread(vec![12.0, 8.0, 10.0]), Some(0.2));
        assert_eq!(spread(vec![8.0, 1000.0, 10.0, 12.0, 1.0]), Some(0.4));
    }
}
