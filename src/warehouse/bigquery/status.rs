//! gRPC's statuses: who can mend them, and how long the server asks to wait (`google.rpc.RetryInfo`).

use std::time::Duration;

use tonic::{Code, Status};

use super::error::{Asker, grant};
use crate::warehouse::{WarehouseError, WarehouseErrorKind};

/// The same call may succeed later. (Google's own clients repeat these for `ReadRows`; a broken HTTP/2 stream is
/// `Internal` or `Unknown`.)
pub(super) fn is_passing(status: &Status) -> bool {
    use Code::{Aborted, Cancelled, DeadlineExceeded, Internal, ResourceExhausted, Unavailable, Unknown};
    matches!(
        status.code(),
        Unavailable | ResourceExhausted | DeadlineExceeded | Aborted | Internal | Unknown | Cancelled
    )
}

/// Sessions end six hours after they began.
pub(super) fn is_expired(status: &Status) -> bool {
    let code = matches!(status.code(), Code::FailedPrecondition | Code::InvalidArgument | Code::NotFound);
    code && status.message().to_ascii_lowercase().contains("expired")
}

pub(super) fn into_error(status: &Status, asker: &Asker) -> WarehouseError {
    let message = format!("the Storage Read API failed: {:?}: {}", status.code(), status.message());
    let text = status.message();
    match status.code() {
        _ if is_passing(status) || is_expired(status) => {
            WarehouseError::new(WarehouseErrorKind::Retry { after: patience(status) }, message)
                .with_hint("BigQuery or the network has trouble; try again later")
        }
        Code::Unauthenticated => WarehouseError::configuration(message).with_hint("check the connection's credentials"),
        Code::PermissionDenied if text.contains("has not been used") || text.contains("disabled") => {
            WarehouseError::configuration(message)
                .with_hint("enable the API: gcloud services enable bigquerystorage.googleapis.com")
        }
        Code::PermissionDenied => WarehouseError::configuration(message).with_hint(grant(text, asker)),
        Code::NotFound | Code::Unimplemented => WarehouseError::configuration(message)
            .with_hint("check `storage_endpoint` and `location` of the connection; a result is kept for a day only"),
        _ => WarehouseError::bug(message),
    }
}

/// How long the server asks to wait, by the `RetryInfo` among the status's details.
pub(super) fn patience(status: &Status) -> Option<Duration> {
    // google.rpc.Status: 3 = details (google.protobuf.Any: 1 = type_url, 2 = value); RetryInfo: 1 = retry_delay
    // (google.protobuf.Duration: 1 = seconds, 2 = nanos)
    let any = fields(status.details()).filter_map(|(number, value)| match value {
        Value::Bytes(bytes) if number == 3 => Some(bytes),
        _ => None,
    });
    let bytes = |message: &'static str| {
        move |found: Option<Value<'_>>| -> bool {
            matches!(found, Some(Value::Bytes(name)) if name.ends_with(message.as_bytes()))
        }
    };
    let is_retry_info = bytes("google.rpc.RetryInfo");
    let info = any.into_iter().find(|any| is_retry_info(field(any, 1)))?;
    let Some(Value::Bytes(info)) = field(info, 2) else { return None };
    let Some(Value::Bytes(delay)) = field(info, 1) else { return None };
    let number = |of: u64| match field(delay, of) {
        Some(Value::Number(n)) => n,
        _ => 0,
    };
    // a negative number of seconds comes as one beyond what is signed
    let seconds = i64::try_from(number(1)).ok()?.unsigned_abs();
    let delay = Duration::new(seconds, u32::try_from(number(2)).ok()?.min(999_999_999));
    (!delay.is_zero()).then_some(delay)
}

#[derive(Clone, Copy)]
enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

fn field(message: &[u8], wanted: u64) -> Option<Value<'_>> {
    fields(message).find(|(number, _)| *number == wanted).map(|(_, value)| value)
}

/// The fields of a protobuf message, by its wire format; ends early at what it cannot read.
fn fields(message: &[u8]) -> impl Iterator<Item = (u64, Value<'_>)> {
    let mut rest = message;
    std::iter::from_fn(move || {
        loop {
            let key = varint(&mut rest)?;
            let skipped = match key & 7 {
                0 => return Some((key >> 3, Value::Number(varint(&mut rest)?))),
                2 => {
                    let length = usize::try_from(varint(&mut rest)?).ok()?;
                    let (bytes, after) = rest.split_at_checked(length)?;
                    rest = after;
                    return Some((key >> 3, Value::Bytes(bytes)));
                }
                1 => 8,
                5 => 4,
                _ => return None,
            };
            rest = rest.get(skipped..)?;
        }
    })
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (first, after) = rest.split_first()?;
        *rest = after;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn the_servers_patience_is_read_from_the_details() {
        let url = b"type.googleapis.com/google.rpc.RetryInfo";
        let delay = [0x0a, 0x06, 0x08, 90, 0x10, 0x80, 0xe1, 0x01];
        let mut any = vec![0x0a, url.len() as u8];
        any.extend_from_slice(url);
        any.extend_from_slice(&[0x12, delay.len() as u8]);
        any.extend_from_slice(&delay);
        let mut details = vec![0x08, 8, 0x12, 1, b'x', 0x1a, any.len() as u8];
        details.extend_from_slice(&any);
        let whole = Status::with_details(Code::ResourceExhausted, "slow down", details.clone().into());
        assert_eq!(patience(&whole).unwrap(), Duration::new(90, 28_800));
        for cut in 0..details.len() {
            // no crash, whatever is cut off
            let _ = patience(&Status::with_details(Code::ResourceExhausted, "", details[..cut].to_vec().into()));
        }
        assert_eq!(patience(&Status::unavailable("x")), None);
    }

    #[test]
    fn the_code_says_who_can_mend_it() {
        use WarehouseErrorKind::{Configuration, Retry};
        let asker = Asker::default();
        for (status, kind) in [
            (Status::unavailable("x"), Retry { after: None }),
            (Status::failed_precondition("session expired at 2026-01-01"), Retry { after: None }),
            (Status::unauthenticated("x"), Configuration),
            (Status::permission_denied("x"), Configuration),
            (Status::invalid_argument("x"), WarehouseErrorKind::Bug),
        ] {
            assert_eq!(into_error(&status, &asker).kind, kind, "{status:?}");
        }
        let denied = Status::permission_denied("Permission 'bigquery.readsessions.create' denied");
        assert!(into_error(&denied, &asker).hint.unwrap().contains("roles/bigquery.readSessionUser"));
    }
}
