//! The labels of a metric.

/// Label names and values.
pub(super) type Labels = Vec<(&'static str, String)>;

/// The labels with these names and values.
pub(super) fn labels<const N: usize>(pairs: [(&'static str, &str); N]) -> Labels {
    pairs.into_iter().map(|(name, value)| (name, value.to_owned())).collect()
}
