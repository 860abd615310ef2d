//! "did you mean …?"

/// The candidate that is written most like `given`, when one is near enough to be meant.
pub(crate) fn nearest<'a>(given: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let plain = |text: &str| text.to_lowercase().replace(['-', ' '], "_");
    let given = plain(given);
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&given, &plain(candidate)), candidate))
        .filter(|(distance, candidate)| *distance <= 1.max(candidate.chars().count().max(given.chars().count()) / 3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// `did you mean …?`, or else all the candidates after `otherwise`.
pub(crate) fn hint(given: &str, candidates: &[&str], otherwise: &str) -> String {
    match nearest(given, candidates.iter().copied()) {
        Some(candidate) => format!("did you mean `{candidate}`?"),
        None => format!("{otherwise} {}", list(candidates)),
    }
}

/// `a`, `b`, `c`
pub(crate) fn list<T: AsRef<str>>(names: &[T]) -> String {
    names.iter().map(|name| format!("`{}`", name.as_ref())).collect::<Vec<_>>().join(", ")
}
