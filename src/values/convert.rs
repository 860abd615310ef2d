//! Result columns become value types. What cannot be carried faithfully is reported row by row, never changed in silence.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray, StringBuilder};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, Float64Type, Schema, TimeUnit, TimestampMicrosecondType};
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, FormatOptions};

use super::ValueType;
use crate::warehouse::UNCONVERTIBLE_COLUMN;

/// A column that the result must have, as it shall be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetColumn {
    pub name: String,
    pub value_type: ValueType,
    /// A null quarantines its row.
    pub not_null: bool,
}

/// Why a result cannot be converted at all.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum ConvertError {
    #[error("the query returns no column `{0}`")]
    Missing(String),
    #[error("the query returns {1} columns named `{0}`")]
    Ambiguous(String, usize),
    #[error("column `{column}` is {found}, which cannot become {wanted}")]
    Incompatible { column: String, found: String, wanted: ValueType },
    #[error("arrow: {0}")]
    Arrow(String),
}

impl From<ArrowError> for ConvertError {
    fn from(e: ArrowError) -> Self {
        Self::Arrow(e.to_string())
    }
}

/// Turns batches of one result into the target columns.
#[derive(Debug)]
pub struct Converter {
    sources: Vec<(usize, DataType, bool)>,
    targets: Vec<TargetColumn>,
    unconvertible: Option<usize>,
}

/// The target columns of one batch. Strings may still be in any of Arrow's string layouts (they are brought into the
/// stored one only for rows that are written); every other column has its stored type.
#[derive(Debug)]
pub struct Converted {
    pub columns: Vec<ArrayRef>,
    /// Row -> why it cannot be carried; in row order, the first reason of each row.
    pub bad: Vec<(usize, String)>,
}

impl Converter {
    /// Checks that every target can be had from `result`.
    pub fn new(result: &Schema, targets: Vec<TargetColumn>) -> Result<Self, ConvertError> {
        let mut sources = Vec::with_capacity(targets.len());
        for target in &targets {
            let mut found = result.fields().iter().enumerate().filter(|(_, f)| *f.name() == target.name);
            let Some((index, field)) = found.next() else { return Err(ConvertError::Missing(target.name.clone())) };
            let more = found.count();
            if more > 0 {
                return Err(ConvertError::Ambiguous(target.name.clone(), more + 1));
            }
            let source_type = ValueType::of(field);
            if !source_type.is_some_and(|source| converts(source, field, target.value_type)) {
                return Err(ConvertError::Incompatible {
                    column: target.name.clone(),
                    found: source_type.map_or_else(|| field.data_type().to_string(), |t| t.to_string()),
                    wanted: target.value_type,
                });
            }
            sources.push((index, field.data_type().clone(), source_type == Some(ValueType::Json)));
        }
        let unconvertible = result.index_of(UNCONVERTIBLE_COLUMN).ok();
        Ok(Self { sources, targets, unconvertible })
    }

    /// Converts one batch of the result.
    pub fn convert(&self, batch: &RecordBatch) -> Result<Converted, ConvertError> {
        let mut bad: Vec<(usize, String)> = Vec::new();
        if let Some(index) = self.unconvertible {
            let reasons = batch.column(index);
            if reasons.null_count() < reasons.len() {
                let reasons = arrow::compute::cast(reasons, &DataType::Utf8)?;
                let reasons = reasons.as_string::<i32>();
                bad.extend((0..reasons.len()).filter(|i| reasons.is_valid(*i)).map(|i| (i, reasons.value(i).into())));
            }
        }
        let mut columns = Vec::with_capacity(self.targets.len());
        for (target, (index, _, is_json)) in self.targets.iter().zip(&self.sources) {
            let source = batch.column(*index);
            let column = convert_column(source, *is_json, target, &mut bad)?;
            if target.not_null && column.null_count() > 0 {
                let nulls = (0..column.len()).filter(|i| column.is_null(*i));
                bad.extend(nulls.map(|i| (i, format!("{}: null, but declared not_null", target.name))));
            }
            columns.push(column);
        }
        bad.sort_by_key(|(row, _)| *row);
        bad.dedup_by_key(|(row, _)| *row);
        Ok(Converted { columns, bad })
    }
}

/// Can a source of this type become that type, value by value?
pub fn converts(source: ValueType, field: &Field, target: ValueType) -> bool {
    use ValueType::{Bool, Date, Decimal, Float, Int, Json, List, String, Timestamp};
    if field.data_type() == &DataType::Null {
        return true;
    }
    match (source, target) {
        (a, b) if a == b => true,
        (Decimal { .. }, Decimal { .. }) | (String | Json, Json) | (Json, String) => true,
        (String, Int | Float | Decimal { .. } | Bool | Timestamp | Date) => true,
        (Int, Float | Decimal { .. } | String) | (Decimal { .. }, Float | String) | (Float, Decimal { .. }) => true,
        (Date, Timestamp | String) | (Bool | Timestamp | Float, String) => true,
        (List, Json) => true,
        _ => false,
    }
}

fn convert_column(
    source: &ArrayRef,
    is_json: bool,
    target: &TargetColumn,
    bad: &mut Vec<(usize, String)>,
) -> Result<ArrayRef, ConvertError> {
    let stored = target.value_type.arrow_type();
    let source_type = source.data_type();
    if *source_type == stored
        || (stored == DataType::Utf8 && is_text(source_type) && !wants_json_check(is_json, target))
    {
        return Ok(source.clone());
    }
    if source_type.is_nested() && stored == DataType::Utf8 {
        return Ok(Arc::new(json_texts(source)?));
    }
    if let (DataType::List(_), Some(items)) = (&stored, list_items(source_type))
        && items.is_nested()
    {
        return Err(ConvertError::Incompatible {
            column: target.name.clone(),
            found: source_type.to_string(),
            wanted: target.value_type,
        });
    }
    if *source_type == DataType::Timestamp(TimeUnit::Microsecond, None) && target.value_type == ValueType::Timestamp {
        // without a zone it is taken as UTC: the same numbers, which a cast would work through one by one
        let utc = source.as_primitive::<TimestampMicrosecondType>().clone().with_timezone("UTC");
        return Ok(Arc::new(utc));
    }
    let safe = CastOptions { safe: true, ..Default::default() };
    let converted = match (source_type, target.value_type) {
        (text, _) if is_text(text) => {
            let text = cast_with_options(source, &DataType::Utf8, &safe)?;
            from_text(text.as_string::<i32>(), target.value_type)?
        }
        _ => cast_with_options(source, &stored, &safe)?,
    };
    let mut failed: Vec<usize> = Vec::new();
    if converted.null_count() > source.null_count() {
        failed.extend((0..source.len()).filter(|i| source.is_valid(*i) && converted.is_null(*i)));
    }
    let may_round = match target.value_type {
        ValueType::Decimal { .. } => source_type.is_decimal() || source_type.is_floating(),
        ValueType::Float => source_type.is_integer(),
        _ => false,
    };
    if may_round {
        // a value that a smaller scale, or a float's 53 bits, would round does not fit the declared type
        let back = cast_with_options(&converted, source_type, &safe)?;
        if source_type.is_floating() {
            // as numbers: -0.0 is 0.0
            let floats = |array: &ArrayRef| cast_with_options(array, &DataType::Float64, &safe);
            let (back, source) = (floats(&back)?, floats(source)?);
            let (back, source) = (back.as_primitive::<Float64Type>(), source.as_primitive::<Float64Type>());
            failed.extend((0..back.len()).filter(|i| back.is_valid(*i) && back.value(*i) != source.value(*i)));
        } else {
            let same = arrow::compute::kernels::cmp::not_distinct(&back, source)?;
            failed.extend((0..same.len()).filter(|i| !same.value(*i)));
        }
        failed.sort_unstable();
        failed.dedup();
    }
    if !failed.is_empty() {
        let formatter = ArrayFormatter::try_new(source.as_ref(), &FormatOptions::default())?;
        for row in failed {
            let shown = shorten(&formatter.value(row).to_string());
            bad.push((row, format!("{}: `{shown}` is not a {}", target.name, target.value_type)));
        }
    }
    Ok(converted)
}

fn wants_json_check(is_json: bool, target: &TargetColumn) -> bool {
    target.value_type == ValueType::Json && !is_json
}

fn is_text(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

fn list_items(data_type: &DataType) -> Option<&DataType> {
    match data_type {
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::ListView(item)
        | DataType::LargeListView(item)
        | DataType::FixedSizeList(item, _) => Some(item.data_type()),
        _ => None,
    }
}

/// Text to a value type; what does not parse exactly becomes null.
fn from_text(text: &StringArray, wanted: ValueType) -> Result<ArrayRef, ConvertError> {
    let trimmed: StringArray = match wanted {
        ValueType::String | ValueType::Json => text.clone(),
        _ => text.iter().map(|v| v.map(str::trim)).collect(),
    };
    let checked: StringArray = match wanted {
        ValueType::Json => {
            let valid = |v: &&str| serde_json::from_str::<serde::de::IgnoredAny>(v).is_ok();
            return Ok(Arc::new(trimmed.iter().map(|v| v.filter(valid)).collect::<StringArray>()));
        }
        ValueType::Decimal { scale, .. } => {
            let fits = |v: &&str| {
                let digits = v.split_once('.').map_or("", |(_, fraction)| fraction.trim_end_matches('0'));
                digits.len() <= usize::try_from(scale).unwrap_or(0) && !v.contains(['e', 'E'])
            };
            trimmed.iter().map(|v| v.filter(fits)).collect()
        }
        _ => trimmed,
    };
    let safe = CastOptions { safe: true, ..Default::default() };
    Ok(cast_with_options(&(Arc::new(checked) as ArrayRef), &wanted.arrow_type(), &safe)?)
}

/// Nested values as JSON text, one text a row.
pub fn json_texts(source: &ArrayRef) -> Result<StringArray, ArrowError> {
    use arrow::json::writer::{EncoderOptions, make_encoder};
    let field: Arc<Field> = Arc::new(Field::new("value", source.data_type().clone(), true));
    let options = EncoderOptions::default().with_explicit_nulls(true);
    let mut encoder = make_encoder(&field, source.as_ref(), &options)?;
    let mut builder = StringBuilder::with_capacity(source.len(), source.len() * 32);
    let mut text = Vec::new();
    for row in 0..source.len() {
        if source.is_null(row) {
            builder.append_null();
            continue;
        }
        text.clear();
        encoder.encode(row, &mut text);
        builder.append_value(String::from_utf8_lossy(&text));
    }
    Ok(builder.finish())
}

/// A value for a person's eyes: at most 60 characters.
pub fn shorten(text: &str) -> String {
    if text.chars().count() <= 60 { text.to_string() } else { text.chars().take(59).chain(['…']).collect() }
}

/// Brings a column into the layout in which it is stored.
pub fn to_stored(column: &ArrayRef, value_type: ValueType) -> Result<ArrayRef, ArrowError> {
    let stored = value_type.arrow_type();
    if *column.data_type() == stored { Ok(column.clone()) } else { arrow::compute::cast(column, &stored) }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use arrow::array::{Decimal128Array, Int32Array, ListArray, TimestampNanosecondArray, UInt64Array};
    use arrow::datatypes::Int32Type;

    fn convert_one(array: ArrayRef, value_type: ValueType) -> Result<Converted, ConvertError> {
        let schema = Arc::new(Schema::new(vec![Field::new("c", array.data_type().clone(), true)]));
        let batch = RecordBatch::try_new(schema.clone(), vec![array]).unwrap();
        let target = TargetColumn { name: "c".into(), value_type, not_null: false };
        Converter::new(&schema, vec![target])?.convert(&batch)
    }

    #[test]
    fn text_that_does_not_parse_is_reported_and_not_rounded() {
        let text: ArrayRef =
            Arc::new(StringArray::from(vec![Some("12.50"), Some("n/a"), None, Some("1.005"), Some(" 7 ")]));
        let done = convert_one(text, ValueType::Decimal { precision: 12, scale: 2 }).unwrap();
        let bad: Vec<_> = done.bad.iter().map(|(row, why)| (*row, why.as_str())).collect();
        assert_eq!(bad, [(1, "c: `n/a` is not a decimal(12,2)"), (3, "c: `1.005` is not a decimal(12,2)")]);
        let values = done.columns[0].as_primitive::<arrow::datatypes::Decimal128Type>();
        assert_eq!((values.value(0), values.value(4), values.is_null(2)), (1250, 700, true));
    }

    #[test]
    fn integers_beyond_the_stored_type_are_reported() {
        let done = convert_one(Arc::new(UInt64Array::from(vec![1, u64::MAX])), ValueType::Int).unwrap();
        assert_eq!(done.bad.len(), 1);
        assert_eq!(done.bad[0].0, 1);
    }

    #[test]
    fn a_decimal_that_would_be_rounded_is_reported() {
        let wide = Decimal128Array::from(vec![12_345_i128, 12_300]).with_precision_and_scale(20, 3).unwrap();
        let done = convert_one(Arc::new(wide), ValueType::Decimal { precision: 12, scale: 1 }).unwrap();
        assert_eq!(done.bad.iter().map(|b| b.0).collect::<Vec<_>>(), [0]);
    }

    #[test]
    fn a_float_or_integer_that_would_be_rounded_is_reported() {
        let price = ValueType::Decimal { precision: 10, scale: 2 };
        let floats: ArrayRef =
            Arc::new(arrow::array::Float64Array::from(vec![Some(19.99), Some(1.005), None, Some(-0.0)]));
        assert_eq!(convert_one(floats, price).unwrap().bad.iter().map(|b| b.0).collect::<Vec<_>>(), [1]);
        let integers: ArrayRef = Arc::new(arrow::array::Int64Array::from(vec![1 << 53, (1 << 53) + 1]));
        assert_eq!(convert_one(integers, ValueType::Float).unwrap().bad.iter().map(|b| b.0).collect::<Vec<_>>(), [1]);
    }

    #[test]
    fn lists_become_lists_of_strings_and_structs_become_json() {
        let list = ListArray::from_iter_primitive::<Int32Type, _, _>(vec![Some(vec![Some(1), None]), None]);
        let done = convert_one(Arc::new(list), ValueType::List).unwrap();
        assert_eq!(done.columns[0].data_type(), &ValueType::List.arrow_type());
        let inner = Field::new("n", DataType::Int32, true);
        let nested = arrow::array::StructArray::from(vec![(
            Arc::new(inner),
            Arc::new(Int32Array::from(vec![Some(1), None])) as ArrayRef,
        )]);
        let done = convert_one(Arc::new(nested), ValueType::Json).unwrap();
        let texts = done.columns[0].as_string::<i32>();
        assert_eq!((texts.value(0), texts.value(1)), (r#"{"n":1}"#, r#"{"n":null}"#));
    }

    #[test]
    fn timestamps_of_any_unit_become_microseconds() {
        let done =
            convert_one(Arc::new(TimestampNanosecondArray::from(vec![1_500_000_000])), ValueType::Timestamp).unwrap();
        let micros = done.columns[0].as_primitive::<arrow::datatypes::TimestampMicrosecondType>();
        assert_eq!(micros.value(0), 1_500_000);
    }

    #[test]
    fn a_bool_cannot_become_a_date() {
        let array: ArrayRef = Arc::new(arrow::array::BooleanArray::from(vec![true]));
        assert!(matches!(convert_one(array, ValueType::Date), Err(ConvertError::Incompatible { .. })));
    }
}
