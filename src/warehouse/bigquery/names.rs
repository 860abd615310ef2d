//! Names of tables, as queries write them.

use super::config::BigQueryConfig;
use crate::warehouse::WarehouseError;

/// A table's three parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TableName {
    pub project: String,
    pub dataset: String,
    pub table: String,
}

impl TableName {
    /// Reads `table` (of the default dataset), `dataset.table` or `project.dataset.table`, with or without backticks.
    pub(super) fn parse(text: &str, config: &BigQueryConfig) -> Result<Self, WarehouseError> {
        let bare = text.replace('`', "");
        let mut parts = bare.trim().rsplitn(3, '.').map(str::trim);
        let (table, dataset, project) = (parts.next().unwrap_or_default(), parts.next(), parts.next());
        let name = match (dataset, &config.dataset) {
            (Some(dataset), _) => Self {
                project: project.unwrap_or(&config.project).into(),
                dataset: dataset.into(),
                table: table.into(),
            },
            (None, Some((project, dataset))) => {
                Self { project: project.clone(), dataset: dataset.clone(), table: table.into() }
            }
            (None, None) => {
                return Err(WarehouseError::sql(format!("the table `{text}` is named without its dataset"))
                    .with_hint("write dataset.table, or give the connection a `dataset`"));
            }
        };
        if [&name.project, &name.dataset, &name.table].iter().any(|part| part.is_empty()) {
            return Err(WarehouseError::sql(format!("`{text}` is not the name of a table")));
        }
        Ok(name)
    }

    /// As a query of this connection can write it.
    pub(super) fn written(&self, config: &BigQueryConfig) -> String {
        let Self { project, dataset, table } = self;
        if *project != config.project {
            return format!("`{project}.{dataset}.{table}`");
        }
        match is_plain(dataset) && is_plain(table) && !is_reserved(dataset) {
            true => format!("{dataset}.{table}"),
            false => format!("`{dataset}.{table}`"),
        }
    }
}

fn is_plain(name: &str) -> bool {
    let begins = name.chars().next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
    begins && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// GoogleSQL's reserved words cannot begin a name (after a point they can follow).
fn is_reserved(name: &str) -> bool {
    const WORDS: &str = " all and any array as asc assert_rows_modified at between by case cast collate contains create \
        cross cube current default define desc distinct else end enum escape except exclude exists extract false fetch \
        following for from full group grouping groups hash having if ignore in inner intersect interval into is join \
        lateral left like limit lookup merge natural new no not null nulls of on or order outer over partition \
        preceding proto qualify range recursive respect right rollup rows select set some struct tablesample then to \
        treat true unbounded union unnest using when where window with within ";
    WORDS.split_whitespace().any(|word| word.eq_ignore_ascii_case(name))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::warehouse::ConnectionParams;

    #[test]
    fn names_are_read_and_written_as_queries_do() {
        let mut params = ConnectionParams::new("shop", "/");
        params.set("project", "my-project");
        let config = BigQueryConfig::from_params(&params).unwrap();
        for (text, written) in [
            ("shop.people", "shop.people"),
            ("`shop`.`odd name`", "`shop.odd name`"),
            ("my-project.shop.people", "shop.people"),
            ("`other.shop.people`", "`other.shop.people`"),
            ("example.com:old.shop.people", "`example.com:old.shop.people`"),
            ("order.people", "`order.people`"),
        ] {
            assert_eq!(TableName::parse(text, &config).unwrap().written(&config), written);
        }
        assert!(TableName::parse("people", &config).unwrap_err().message.contains("people"));
        params.set("dataset", "other.shop");
        let config = BigQueryConfig::from_params(&params).unwrap();
        assert_eq!(TableName::parse("people", &config).unwrap().written(&config), "`other.shop.people`");
    }
}
