//! What may be called what.

/// Names that start so are ours.
pub(crate) const RESERVED_PREFIX: &str = "_cc_";

/// A slug: `[a-z][a-z0-9_]*`, at most 64 characters.
pub(crate) fn is_slug(slug: &str) -> bool {
    slug.len() <= 64
        && slug.starts_with(|c: char| c.is_ascii_lowercase())
        && slug.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

/// The slug that a file's stem is near to; what two stems share when they differ only by case, `-` and `_`.
pub(super) fn slug_of(stem: &str) -> String {
    stem.trim().to_lowercase().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect()
}

/// A connection's name.
pub(super) fn check_name(name: &str) -> Result<(), &'static str> {
    if name.is_empty() || name.chars().count() > 64 {
        return Err("it has to be 1 to 64 characters long");
    }
    if !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-') {
        return Err("it holds other characters than letters, digits, `_` and `-`");
    }
    Ok(())
}

/// The name of an identity field.
pub(super) fn check_identity(name: &str) -> Result<(), &'static str> {
    if name.starts_with(RESERVED_PREFIX) {
        return Err("names that start with `_cc_` are reserved");
    }
    if name.to_ascii_lowercase().starts_with("cc_") {
        return Err("names that start with `cc_` are those of fields that come from models");
    }
    if name.eq_ignore_ascii_case("profile_id") {
        return Err("`profile_id` is every profile's own id");
    }
    if name.len() > 64 {
        return Err("it has to be 64 characters long at most");
    }
    if !name.starts_with(|c: char| c.is_ascii_alphabetic())
        || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    {
        return Err("it holds other characters than letters, digits and `_`");
    }
    Ok(())
}

/// The name of a result column that is kept in a table. Delta Lake refuses some characters.
pub(crate) fn check_column(name: &str) -> Result<(), &'static str> {
    if name.starts_with(RESERVED_PREFIX) {
        return Err("names that start with `_cc_` are reserved");
    }
    if name.contains([' ', ',', ';', '{', '}', '(', ')', '\n', '\t', '=']) {
        return Err("a stored column's name may hold no space and none of `,;{}()=`");
    }
    Ok(())
}
