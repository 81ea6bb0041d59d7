//! Medians, and how far apart values are.

/// The median, and between which values the middle half is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) from: f64,
    pub(crate) to: f64,
}

/// Of these values.
pub(crate) fn spread(values: impl IntoIterator<Item = f64>) -> Spread {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let at = |share: usize| values[(values.len() - 1) * share / 4];
    Spread {
        median: at(2),
        from: at(1),
        to: at(3),
    }
}

impl Spread {
    /// With so many digits after the point.
    pub(crate) fn text(&self, digits: usize) -> String {
        format!(
            "{:.digits$} [{:.digits$} to {:.digits$}]",
            self.median, self.from, self.to
        )
    }
}

/// The quotient, value by value.
pub(crate) fn ratios(ours: &[f64], theirs: &[f64]) -> Spread {
    spread(ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs))
}
