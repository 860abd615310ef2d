//! `cloud-connect init`: a project that runs at once, to be changed from there.

use std::io::Write as _;
use std::path::{Path, PathBuf};

/// Why no project was made. Nothing is written unless everything can be.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// These would have been overwritten.
    #[error("{} already exists", .0.iter().map(|p| format!("`{}`", p.display())).collect::<Vec<_>>().join(", "))]
    Exists(Vec<PathBuf>),
    #[error("`{}` cannot be written: {error}", .path.display())]
    Write { path: PathBuf, error: std::io::Error },
}

impl InitError {
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Exists(_) => "choose an empty directory: `cloud-connect init DIR`",
            Self::Write { .. } => "check that you may write there",
        }
    }
}

const FILES: &[(&str, &str)] = &[
    ("cloud-connect.yml", include_str!("starter/cloud-connect.yml")),
    ("models/example.yml", include_str!("starter/example.yml")),
    ("models/example.sql", include_str!("starter/example.sql")),
    ("data/customers.csv", include_str!("starter/customers.csv")),
    ("data/orders.csv", include_str!("starter/orders.csv")),
];
const GITIGNORE: (&str, &str) =
    (".gitignore", "# the state of cloud-connect\n/.cloud-connect/\n# secrets\n.env\n/secrets/\n");

/// Writes a starter project into `dir` (made when it is missing), and returns the files that it made, relative to
/// `dir`. Overwrites nothing: one file in the way, and none is written. A `.gitignore` that is there already is kept
/// as it is, for most directories under version control have one.
pub fn init(dir: &Path) -> Result<Vec<PathBuf>, InitError> {
    let in_the_way: Vec<PathBuf> =
        FILES.iter().map(|(path, _)| dir.join(path)).filter(|path| path.symlink_metadata().is_ok()).collect();
    if !in_the_way.is_empty() {
        return Err(InitError::Exists(in_the_way));
    }
    let gitignore = Some(GITIGNORE).filter(|(path, _)| dir.join(path).symlink_metadata().is_err());
    let mut made = Vec::new();
    for (path, text) in FILES.iter().copied().chain(gitignore) {
        let target = dir.join(path);
        let written = target.parent().map_or(Ok(()), std::fs::create_dir_all).and_then(|()| {
            // another program may have made it just now
            std::fs::File::options().write(true).create_new(true).open(&target)?.write_all(text.as_bytes())
        });
        written.map_err(|error| InitError::Write { path: target, error })?;
        made.push(PathBuf::from(path));
    }
    Ok(made)
}
