//! Faults of a project, each at its place, and how people see them.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use miette::{
    Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, MietteError, MietteSpanContents, SourceCode,
    SourceSpan, SpanContents,
};

/// One fault of a project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// A stable name of the kind of fault, for example `unknown-key`.
    pub code: &'static str,
    /// What is wrong. Never holds the value of a secret.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// Relative to the project's directory.
    pub file: PathBuf,
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// Bytes of the snippet that the caret underlines.
    pub length: usize,
    /// The whole file for the snippet, with the values of secrets replaced; empty when there is nothing to show.
    pub source_text: Arc<str>,
    /// Where the caret starts in `source_text`, in bytes.
    pub(super) offset: usize,
}

impl ConfigError {
    /// A fault of a whole file, without a snippet.
    pub fn of_file(code: &'static str, file: impl Into<PathBuf>, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            hint: None,
            file: file.into(),
            line: 1,
            column: 1,
            length: 0,
            source_text: Arc::from(""),
            offset: 0,
        }
    }

    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// `file:line:column: message`, on one line.
impl std::fmt::Display for ConfigError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}:{}: {}", slashed(&self.file), self.line, self.column, self.message)
    }
}

impl std::error::Error for ConfigError {}

impl serde::Serialize for ConfigError {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;
        let mut out = serializer.serialize_struct("ConfigError", 6)?;
        out.serialize_field("file", &slashed(&self.file))?;
        out.serialize_field("line", &self.line)?;
        out.serialize_field("column", &self.column)?;
        out.serialize_field("code", self.code)?;
        out.serialize_field("message", &self.message)?;
        out.serialize_field("hint", &self.hint)?;
        out.end()
    }
}

impl Diagnostic for ConfigError {
    fn code<'a>(&'a self) -> Option<Box<dyn std::fmt::Display + 'a>> {
        Some(Box::new(self.code))
    }

    fn help<'a>(&'a self) -> Option<Box<dyn std::fmt::Display + 'a>> {
        self.hint.as_ref().map(|hint| Box::new(hint) as Box<dyn std::fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        (!self.source_text.is_empty()).then_some(self as &dyn SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        (!self.source_text.is_empty())
            .then(|| Box::new(std::iter::once(LabeledSpan::new(None, self.offset, self.length))) as Box<_>)
    }
}

/// Names the file in the snippet's frame, and gives the column of the file as written: a replaced secret on the same
/// line moves what is shown, not what is said.
impl SourceCode for ConfigError {
    fn read_span<'a>(
        &'a self,
        span: &SourceSpan,
        before: usize,
        after: usize,
    ) -> Result<Box<dyn SpanContents<'a> + 'a>, MietteError> {
        let inner = self.source_text.read_span(span, before, after)?;
        let is_caret = before == 0 && after == 0 && span.offset() == self.offset;
        let column = if is_caret { self.column.saturating_sub(1) } else { inner.column() };
        Ok(Box::new(MietteSpanContents::new_named(
            slashed(&self.file),
            inner.data(),
            *inner.span(),
            inner.line(),
            column,
            inner.line_count(),
        )))
    }
}

/// Shows only the message: miette prints the place in the snippet's frame.
#[derive(Debug)]
struct Shown<'a>(&'a ConfigError);

impl std::fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.source_text.is_empty() {
            write!(f, "{}: ", slashed(&self.0.file))?;
        }
        f.write_str(&self.0.message)
    }
}

impl std::error::Error for Shown<'_> {}

impl Diagnostic for Shown<'_> {
    fn code<'a>(&'a self) -> Option<Box<dyn std::fmt::Display + 'a>> {
        Diagnostic::code(self.0)
    }

    fn help<'a>(&'a self) -> Option<Box<dyn std::fmt::Display + 'a>> {
        self.0.help()
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.0.source_code()
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        self.0.labels()
    }
}

/// Every fault of a project, in the order of files and lines. Never empty.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(transparent)]
pub struct ConfigErrors {
    pub errors: Vec<ConfigError>,
}

impl ConfigErrors {
    /// Sorts: `cloud-connect.yml` first, then the models by file, each from top to bottom.
    pub fn new(mut errors: Vec<ConfigError>) -> Self {
        let rank = |e: &ConfigError| (e.file != Path::new(super::PROJECT_FILE), e.file.clone(), e.line, e.column);
        errors.sort_by_key(rank);
        errors.dedup();
        Self { errors }
    }

    /// Each fault with its snippet, caret and hint, and a line that counts them.
    pub fn render(&self, color: bool) -> String {
        let theme = if color { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
        let handler = GraphicalReportHandler::new_themed(theme).with_links(false).with_width(120);
        let mut out = String::new();
        for error in &self.errors {
            if handler.render_report(&mut out, &Shown(error)).is_err() {
                // the frame could not be drawn: the fact matters more than its looks
                let _ = writeln!(out, "{error}");
            }
            out.push('\n');
        }
        let _ = writeln!(out, "{self}");
        out
    }
}

/// For example `5 faults in 2 files`.
impl std::fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let files = self.errors.iter().map(|e| &e.file).collect::<BTreeSet<_>>().len();
        let plural = |n: usize| if n == 1 { "" } else { "s" };
        let faults = self.errors.len();
        write!(f, "{faults} fault{} in {files} file{}", plural(faults), plural(files))
    }
}

impl std::error::Error for ConfigErrors {}

impl Diagnostic for ConfigErrors {
    fn related<'a>(&'a self) -> Option<Box<dyn Iterator<Item = &'a dyn Diagnostic> + 'a>> {
        Some(Box::new(self.errors.iter().map(|e| e as &dyn Diagnostic)))
    }
}

/// The path with `/` on every system, so that output does not differ between them.
pub(crate) fn slashed(path: &Path) -> String {
    path.components().map(|c| c.as_os_str().to_string_lossy()).collect::<Vec<_>>().join("/")
}
