//! Writing and reading data files.
