//! Which columns an upload may bring into its stream's table.

use std::collections::HashMap;

use crate::config::check_column;

/// The most columns that a stream's table has beside the service's own.
pub const MAX_COLUMNS: usize = 500;
const MAX_NAME_BYTES: usize = 128;

/// The columns of a stream: those of its table, then new ones in the order in which they come.
#[derive(Debug, Clone)]
pub struct Columns {
    names: Vec<String>,
    positions: HashMap<String, usize>,
    /// Delta tables do not tell names apart by case.
    lowercase: HashMap<String, usize>,
}

impl Columns {
    /// `known`: the columns that the stream's table has.
    pub fn new(known: &[String]) -> Self {
        let mut columns = Self { names: Vec::new(), positions: HashMap::new(), lowercase: HashMap::new() };
        known.iter().for_each(|name| columns.push(name));
        columns
    }

    fn push(&mut self, name: &str) {
        let position = self.names.len();
        self.names.push(name.to_string());
        self.positions.insert(name.to_string(), position);
        self.lowercase.insert(name.to_lowercase(), position);
    }

    pub fn names(&self) -> &[String] {
        &self.names
    }

    pub fn position(&self, name: &str) -> Option<usize> {
        self.positions.get(name).copied()
    }

    /// Why this name, which is not among the columns, cannot become one.
    pub fn fault(&self, name: &str, more: usize) -> Option<String> {
        if name.is_empty() {
            return Some("a name is empty".into());
        }
        if name.len() > MAX_NAME_BYTES {
            return Some(format!("a stored column's name has at most {MAX_NAME_BYTES} bytes"));
        }
        if name.chars().any(char::is_control) {
            return Some("a stored column's name may hold no control character".into());
        }
        if let Err(why) = check_column(name) {
            return Some(why.into());
        }
        if let Some(position) = self.lowercase.get(&name.to_lowercase()) {
            return Some(format!("it differs only by case from `{}`", self.names[*position]));
        }
        if self.names.len() + more >= MAX_COLUMNS {
            return Some(format!("a stream has at most {MAX_COLUMNS} columns"));
        }
        None
    }

    /// Takes the names of one row in: all of them, or none and why.
    pub fn admit<'a>(&mut self, names: impl Iterator<Item = &'a str> + Clone) -> Result<(), (String, String)> {
        let mut new: Vec<&str> = Vec::new();
        for name in names.filter(|name| !self.positions.contains_key(*name)) {
            let twin = new.iter().find(|other| other.to_lowercase() == name.to_lowercase());
            let fault = match twin {
                Some(twin) => Some(format!("it differs only by case from `{twin}`")),
                None => self.fault(name, new.len()),
            };
            if let Some(why) = fault {
                return Err((name.to_string(), why));
            }
            new.push(name);
        }
        new.into_iter().for_each(|name| self.push(name));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_admitted_whole_or_not_at_all() {
        let mut columns = Columns::new(&["email".into()]);
        assert!(columns.admit(["email", "city"].into_iter()).is_ok());
        for (bad, row) in [("a b", ["new", "a b"]), ("Email", ["new", "Email"]), ("_cc_x", ["new", "_cc_x"])] {
            assert_eq!(columns.admit(row.into_iter()).map_err(|(name, _)| name), Err(bad.to_string()));
        }
        assert!(columns.admit(["x", "X"].into_iter()).is_err());
        assert_eq!(columns.names(), ["email", "city"]);
    }

    #[test]
    fn a_stream_has_a_limit_of_columns() {
        let mut columns = Columns::new(&[]);
        for i in 0..MAX_COLUMNS {
            assert!(columns.admit([format!("c{i}").as_str()].into_iter()).is_ok());
        }
        assert!(columns.admit(["one_more"].into_iter()).is_err());
        assert!(columns.admit(["c0"].into_iter()).is_ok());
    }
}
