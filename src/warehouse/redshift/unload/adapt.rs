//! Columns as Redshift writes them into Parquet -> columns as they were described.
//!
//! Both ways of reading give the same types. Values only change their form, never their meaning: what does not fit is an
//! error, since it would be a misreading of the file and not a matter of one value.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions, StringArray, new_null_array};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, SchemaRef};

use crate::warehouse::WarehouseError;
use crate::warehouse::postgres::decode::Carrier;
use crate::warehouse::postgres::types::Plan;

/// Brings batches of files into the form of the description.
#[derive(Debug)]
pub(super) struct Adapter {
    schema: SchemaRef,
    carriers: Vec<Carrier>,
}

impl Adapter {
    pub(super) fn new(plan: &Plan) -> Self {
        Self { schema: plan.schema.clone(), carriers: plan.carriers().collect() }
    }

    /// Columns are matched by their place.
    pub(super) fn adapt(&self, batch: &RecordBatch) -> Result<RecordBatch, WarehouseError> {
        if batch.num_columns() != self.carriers.len() {
            let (found, wanted) = (batch.num_columns(), self.carriers.len());
            return Err(WarehouseError::bug(format!("Redshift wrote {found} columns where it had described {wanted}")));
        }
        let mut columns = Vec::with_capacity(self.schema.fields().len());
        for (array, (field, carrier)) in batch.columns().iter().zip(self.schema.fields().iter().zip(&self.carriers)) {
            columns.push(column(array, field.data_type(), *carrier).map_err(|why| {
                WarehouseError::bug(format!("column `{}`, as Redshift wrote it to S3, {why}", field.name()))
            })?);
        }
        // whatever Redshift wrote could be carried: no reasons to give
        columns.extend(
            self.schema.fields().iter().skip(columns.len()).map(|f| new_null_array(f.data_type(), batch.num_rows())),
        );
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)
            .map_err(|e| WarehouseError::bug(format!("the rows do not fit their schema: {e}")))
    }
}

fn column(array: &ArrayRef, wanted: &DataType, carrier: Carrier) -> Result<ArrayRef, String> {
    let found = array.data_type();
    if !is_same_kind(found, wanted) {
        return Err(format!("is {found}, which is no {wanted}"));
    }
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    let array = match found == wanted {
        true => array.clone(),
        false => cast_with_options(array, wanted, &strict).map_err(|e| format!("does not fit: {e}"))?,
    };
    if matches!(carrier, Carrier::PaddedText { .. }) {
        let texts = array.as_string_opt::<i32>().ok_or("is no text")?;
        return Ok(Arc::new(texts.iter().map(|t| t.map(|t| t.trim_end_matches(' '))).collect::<StringArray>()));
    }
    Ok(array)
}

fn is_same_kind(found: &DataType, wanted: &DataType) -> bool {
    use DataType::{Boolean, Date32, Decimal128, Timestamp, Utf8};
    match wanted {
        Boolean | Date32 => found == wanted,
        Decimal128(_, scale) => match found {
            Decimal128(_, s) | DataType::Decimal32(_, s) | DataType::Decimal64(_, s) | DataType::Decimal256(_, s) => {
                s <= scale
            }
            other => other.is_integer(),
        },
        Timestamp(..) => matches!(found, Timestamp(..)),
        // a number without a declared precision is carried as its text
        Utf8 => matches!(
            found,
            Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Binary | DataType::LargeBinary | Decimal128(..)
        ),
        wanted if wanted.is_integer() => found.is_integer(),
        wanted if wanted.is_floating() => found.is_floating() && found.primitive_width() <= wanted.primitive_width(),
        _ => false,
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use arrow::array::{
        BinaryArray, Decimal128Array, Float64Array, Int32Array, TimestampMicrosecondArray, TimestampNanosecondArray,
    };
    use arrow::datatypes::TimeUnit;
    use arrow::util::display::{ArrayFormatter, FormatOptions};

    use super::*;

    fn shown(array: ArrayRef, wanted: &DataType, carrier: Carrier) -> String {
        let column = column(&array, wanted, carrier).unwrap();
        assert_eq!(column.data_type(), wanted);
        ArrayFormatter::try_new(&column, &FormatOptions::default()).unwrap().value(0).to_string()
    }

    #[test]
    fn values_keep_their_meaning_whatever_form_the_file_has() {
        let utc = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        let text = Carrier::Text { validated: true };
        let at = 1_772_296_215_123_456;
        assert_eq!(
            shown(Arc::new(TimestampMicrosecondArray::from(vec![at])), &utc, Carrier::Timestamp),
            "2026-02-28T16:30:15.123456Z"
        );
        assert_eq!(
            shown(Arc::new(TimestampNanosecondArray::from(vec![at * 1000])), &utc, Carrier::Timestamp),
            "2026-02-28T16:30:15.123456Z"
        );
        let decimal = Decimal128Array::from(vec![123]).with_precision_and_scale(5, 2).unwrap();
        let wanted = DataType::Decimal128(12, 2);
        let carrier = Carrier::Decimal { precision: 12, scale: 2 };
        assert_eq!(shown(Arc::new(decimal.clone()), &wanted, carrier), "1.23");
        assert_eq!(shown(Arc::new(decimal), &DataType::Utf8, Carrier::NumericText), "1.23");
        assert_eq!(shown(Arc::new(Int32Array::from(vec![7])), &DataType::Int16, Carrier::Int16), "7");
        assert_eq!(shown(Arc::new(BinaryArray::from(vec!["Zoë".as_bytes()])), &DataType::Utf8, text), "Zoë");
        let padded = Arc::new(StringArray::from(vec!["DE   "]));
        assert_eq!(shown(padded, &DataType::Utf8, Carrier::PaddedText { validated: true }), "DE");
    }

    #[test]
    fn what_does_not_fit_is_refused_and_never_rounded() {
        let wide: ArrayRef = Arc::new(Int32Array::from(vec![70_000]));
        assert!(column(&wide, &DataType::Int16, Carrier::Int16).is_err());
        let float: ArrayRef = Arc::new(Float64Array::from(vec![1.5]));
        assert!(column(&float, &DataType::Int64, Carrier::Int64).is_err());
        assert!(column(&float, &DataType::Float32, Carrier::Float32).is_err());
        let fine: ArrayRef = Arc::new(Decimal128Array::from(vec![12_345]).with_precision_and_scale(10, 3).unwrap());
        assert!(column(&fine, &DataType::Decimal128(10, 2), Carrier::Decimal { precision: 10, scale: 2 }).is_err());
        let broken: ArrayRef = Arc::new(BinaryArray::from(vec![&[0xff][..]]));
        assert!(column(&broken, &DataType::Utf8, Carrier::Text { validated: true }).is_err());
    }
}
