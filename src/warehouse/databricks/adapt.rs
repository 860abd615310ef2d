//! Arrays as the service sends them -> arrays as they were described. Nothing is rounded or shifted: what does not fit is
//! null and reported.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray, MapArray, StringArray, StructArray, new_null_array};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, TimeUnit, TimestampMicrosecondType};
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, FormatOptions};

use crate::values::ValueType;
use crate::values::convert::shorten;
use crate::warehouse::WarehouseError;

/// Values that are not what their column was described to hold.
#[derive(Debug, Default)]
pub(super) struct Misfits {
    /// Row and reason, column by column.
    pub rows: Vec<(usize, String)>,
}

/// The array as `field` says.
pub(super) fn adapt(array: &ArrayRef, field: &Field, misfits: &mut Misfits) -> Result<ArrayRef, WarehouseError> {
    let target = field.data_type();
    let source = array.data_type();
    if source == target {
        return Ok(array.clone());
    }
    let unexpected =
        || WarehouseError::bug(format!("column `{}` came as {source} where {target} was described", field.name()));
    let arrow = |e: ArrowError| WarehouseError::bug(format!("column `{}`: {e}", field.name()));
    if array.logical_null_count() == array.len() {
        return Ok(new_null_array(target, array.len()));
    }
    match (source, target) {
        (DataType::Timestamp(TimeUnit::Microsecond, _), DataType::Timestamp(_, Some(zone))) => {
            // an instant has the same number in every zone; one of no zone (TIMESTAMP_NTZ) is taken as UTC
            let array = array.as_primitive::<TimestampMicrosecondType>().clone();
            Ok(Arc::new(array.with_timezone(zone.clone())))
        }
        (DataType::List(_), DataType::List(item)) => {
            let list = array.as_list::<i32>();
            let values = inside(list.values(), item)?;
            Ok(Arc::new(
                ListArray::try_new(item.clone(), list.offsets().clone(), values, list.nulls().cloned())
                    .map_err(arrow)?,
            ))
        }
        (DataType::Map(_, _), DataType::Map(entries, sorted)) => {
            let map = array.as_map();
            let DataType::Struct(fields) = entries.data_type() else { return Err(unexpected()) };
            let columns = fields.iter().zip(map.entries().columns());
            let columns = columns.map(|(field, column)| inside(column, field)).collect::<Result<Vec<_>, _>>()?;
            let inner = StructArray::try_new(fields.clone(), columns, None).map_err(arrow)?;
            let (offsets, nulls) = (map.offsets().clone(), map.nulls().cloned());
            Ok(Arc::new(MapArray::try_new(entries.clone(), offsets, inner, nulls, *sorted).map_err(arrow)?))
        }
        (DataType::Struct(found), DataType::Struct(fields)) => {
            let same = found.len() == fields.len() && found.iter().zip(fields).all(|(a, b)| a.name() == b.name());
            if !same {
                return Err(unexpected());
            }
            let structs = array.as_struct();
            let columns = fields.iter().zip(structs.columns());
            let columns = columns.map(|(field, column)| inside(column, field)).collect::<Result<Vec<_>, _>>()?;
            Ok(Arc::new(StructArray::try_new(fields.clone(), columns, structs.nulls().cloned()).map_err(arrow)?))
        }
        (from, to) if !from.is_nested() && !to.is_nested() && is_carried(from, to) => convert(array, field, misfits),
        _ => Err(unexpected()),
    }
}

/// An array inside another: there is no row to blame, so a value that does not fit fails the whole.
fn inside(array: &ArrayRef, field: &Field) -> Result<ArrayRef, WarehouseError> {
    let mut misfits = Misfits::default();
    let array = adapt(array, field, &mut misfits)?;
    match misfits.rows.into_iter().next() {
        None => Ok(array),
        Some((_, reason)) => Err(WarehouseError::bug(format!("a nested value does not fit: {reason}"))),
    }
}

fn is_text(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

/// Can values of one type be told exactly in the other?
fn is_carried(from: &DataType, to: &DataType) -> bool {
    use DataType::{Binary, Boolean, Date32, Decimal128, LargeBinary, Timestamp};
    let is_number = |t: &DataType| t.is_integer() || t.is_floating() || t.is_decimal();
    (is_text(from)
        && (is_text(to) || is_number(to) || matches!(to, Boolean | Date32 | Timestamp(_, _) | Decimal128(_, _))))
        || (is_number(from) && is_number(to))
        || matches!((from, to), (LargeBinary, Binary) | (Timestamp(_, _), Timestamp(_, _)))
}

fn convert(array: &ArrayRef, field: &Field, misfits: &mut Misfits) -> Result<ArrayRef, WarehouseError> {
    let arrow = |e: ArrowError| WarehouseError::bug(format!("column `{}`: {e}", field.name()));
    let target = field.data_type();
    let safe = CastOptions { safe: true, ..Default::default() };
    let source = if is_text(array.data_type()) {
        let text = cast_with_options(array, &DataType::Utf8, &safe).map_err(arrow)?;
        let exact = |v: &&str| is_exact(v, target);
        Arc::new(text.as_string::<i32>().iter().map(|v| v.filter(exact)).collect::<StringArray>()) as ArrayRef
    } else {
        array.clone()
    };
    let converted = cast_with_options(&source, target, &safe).map_err(arrow)?;
    let mut wrong: Vec<bool> = (0..array.len()).map(|i| array.is_valid(i) && converted.is_null(i)).collect();
    if !is_text(array.data_type()) {
        // what was rounded does not come back
        let back = cast_with_options(&converted, array.data_type(), &safe).map_err(arrow)?;
        let same = arrow::compute::kernels::cmp::not_distinct(&back, array).map_err(arrow)?;
        wrong.iter_mut().enumerate().for_each(|(i, wrong)| *wrong |= !same.value(i));
    }
    if !wrong.contains(&true) {
        return Ok(converted);
    }
    let formatter = ArrayFormatter::try_new(array.as_ref(), &FormatOptions::default()).map_err(arrow)?;
    let wanted = ValueType::of(field).map_or_else(|| target.to_string(), |t| t.to_string());
    for row in (0..array.len()).filter(|i| wrong[*i]) {
        let shown = shorten(&formatter.value(row).to_string());
        misfits.rows.push((row, format!("{}: `{shown}` is not a {wanted}", field.name())));
    }
    let wrong = arrow::array::BooleanArray::from(wrong);
    arrow::compute::nullif(&converted, &wrong).map_err(arrow)
}

/// Does the text hold no more digits than the type?
fn is_exact(text: &str, target: &DataType) -> bool {
    let fraction = |most: usize| {
        let digits = text.split_once('.').map_or("", |(_, rest)| rest);
        let digits = &digits[..digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len())];
        digits.trim_end_matches('0').len() <= most
    };
    match target {
        DataType::Decimal128(_, scale) => !text.contains(['e', 'E']) && fraction(usize::try_from(*scale).unwrap_or(0)),
        DataType::Timestamp(_, _) => fraction(6),
        _ => true,
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use arrow::array::{Float64Array, Int32Array, Int64Array, TimestampMicrosecondArray};
    use arrow::datatypes::{Fields, Int32Type};

    use super::*;
    use crate::warehouse::databricks::types::SqlType;

    fn run(array: ArrayRef, sql_type: &str) -> (ArrayRef, Vec<(usize, String)>) {
        let field = Field::new("c", SqlType::parse(sql_type).unwrap().arrow_type(), true);
        let mut misfits = Misfits::default();
        let array = adapt(&array, &field, &mut misfits).unwrap();
        assert_eq!(array.data_type(), field.data_type());
        (array, misfits.rows)
    }

    #[test]
    fn texts_become_what_was_described_exactly_or_not_at_all() {
        let texts: ArrayRef =
            Arc::new(StringArray::from(vec![Some("1.50"), Some("1.505"), None, Some("x"), Some("1e2")]));
        let (array, wrong) = run(texts, "decimal(10,2)");
        let array = array.as_primitive::<arrow::datatypes::Decimal128Type>();
        assert_eq!(array.iter().collect::<Vec<_>>(), [Some(150), None, None, None, None]);
        assert_eq!(wrong.iter().map(|(row, _)| *row).collect::<Vec<_>>(), [1, 3, 4]);
        assert_eq!(wrong[0].1, "c: `1.505` is not a decimal(10,2)");

        let texts: ArrayRef = Arc::new(StringArray::from(vec![
            "2026-02-28 16:30:15.123456",
            "2026-02-28T17:30:15.5+01:00",
            "2026-02-28 16:30:15.1234567",
        ]));
        let (array, wrong) = run(texts, "timestamp");
        let array = array.as_primitive::<TimestampMicrosecondType>();
        assert_eq!(array.iter().collect::<Vec<_>>(), [Some(1772296215123456), Some(1772296215500000), None]);
        assert_eq!(wrong.len(), 1);
    }

    #[test]
    fn an_instant_keeps_its_number_in_every_zone() {
        let array = TimestampMicrosecondArray::from(vec![1_772_296_215_123_456]).with_timezone("America/New_York");
        let (array, wrong) = run(Arc::new(array), "timestamp");
        assert_eq!(array.as_primitive::<TimestampMicrosecondType>().value(0), 1_772_296_215_123_456);
        assert!(wrong.is_empty());
    }

    #[test]
    fn numbers_that_do_not_fit_are_reported() {
        let (array, wrong) = run(Arc::new(Int64Array::from(vec![1, 1 << 40])), "int");
        assert_eq!(array.as_primitive::<Int32Type>().iter().collect::<Vec<_>>(), [Some(1), None]);
        assert_eq!(wrong.len(), 1);
        let (array, wrong) = run(Arc::new(Float64Array::from(vec![0.5, 0.1])), "float");
        assert_eq!((array.null_count(), wrong.len()), (1, 1));
    }

    #[test]
    fn nested_values_are_rebuilt_under_the_described_names() {
        let inner = Fields::from(vec![Field::new("a", DataType::Int32, false)]);
        let structs = StructArray::new(inner.clone(), vec![Arc::new(Int32Array::from(vec![1, 2]))], None);
        let item = Arc::new(Field::new("item", DataType::Struct(inner), false));
        let offsets = arrow::buffer::OffsetBuffer::from_lengths([2]);
        let list: ArrayRef = Arc::new(ListArray::new(item, offsets, Arc::new(structs), None));
        let (array, wrong) = run(list, "array<struct<a:int>>");
        assert!(wrong.is_empty());
        assert_eq!(array.as_list::<i32>().value(0).len(), 2);
    }

    #[test]
    fn what_was_not_described_fails() {
        let field = Field::new("c", DataType::Boolean, true);
        let error =
            adapt(&(Arc::new(Int32Array::from(vec![1])) as ArrayRef), &field, &mut Misfits::default()).unwrap_err();
        assert!(error.message.contains("Int32"), "{error}");
    }
}
