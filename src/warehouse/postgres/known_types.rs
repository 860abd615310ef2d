//! Shows the client only types that it knows.
//!
//! For a type that it does not know, the client queries the server's catalog: `pg_range` first, which Redshift lacks.
//! That query fails, and inside a transaction it takes the transaction along. So on its way from the socket to the
//! client, the description of a result (`RowDescription`) has such types replaced by `text`; what they were is kept for
//! whoever plans the reading. Rows are never in that form: columns of those types are rendered by the server.
//!
//! ```text
//! socket --[type | length | body]--> this --> client
//!                 'T': held back until it is whole, its types noted and replaced
//!                 all others: passed on as they come
//! ```

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, TlsStream};
use tokio_postgres::types::Type;

const ROW_DESCRIPTION: u8 = b'T';

/// The types (OIDs) of the last result that the server described, as the server told them.
#[derive(Debug, Clone, Default)]
pub(in crate::warehouse) struct ServerTypes(Arc<Mutex<Vec<u32>>>);

impl ServerTypes {
    pub(in crate::warehouse) fn last(&self) -> Vec<u32> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn keep(&self, types: Vec<u32>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = types;
    }
}

/// A connection whose descriptions name known types only.
#[derive(Debug)]
pub(super) struct KnownTypes<S> {
    inner: S,
    place: Place,
    /// A description that is not whole yet, and what came after it.
    held: Vec<u8>,
    /// To be handed on before more is read.
    ready: Vec<u8>,
    given: usize,
    types: ServerTypes,
}

/// Where in the sequence of messages the next byte lies.
#[derive(Debug, Clone, Copy)]
enum Place {
    Kind,
    Length { left: u8, value: u32 },
    Body { left: u32 },
}

impl<S> KnownTypes<S> {
    pub(super) fn new(inner: S, types: ServerTypes) -> Self {
        Self { inner, place: Place::Kind, held: Vec::new(), ready: Vec::new(), given: 0, types }
    }

    /// Goes over `bytes`; stops at the first byte of a description.
    fn scan(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut at = 0;
        while at < bytes.len() {
            self.place = match self.place {
                Place::Kind if bytes[at] == ROW_DESCRIPTION => return Some(at),
                Place::Kind => Place::Length { left: 4, value: 0 },
                Place::Length { left, value } => {
                    let value = (value << 8) | u32::from(bytes[at]);
                    match left {
                        // the length counts itself
                        1 => Place::of_body(value.saturating_sub(4)),
                        _ => Place::Length { left: left - 1, value },
                    }
                }
                Place::Body { left } => {
                    let here = u32::try_from(bytes.len() - at).unwrap_or(u32::MAX).min(left);
                    at += here as usize;
                    self.place = Place::of_body(left - here);
                    continue;
                }
            };
            at += 1;
        }
        None
    }

    /// Moves what is whole from `held` to `ready`.
    fn release(&mut self) {
        while let Some(kind) = self.held.first() {
            if *kind == ROW_DESCRIPTION {
                let Some(length) = self.held.get(1..5).and_then(|l| l.first_chunk().map(|l| u32::from_be_bytes(*l)))
                else {
                    return;
                };
                let whole = 1 + length as usize;
                if self.held.len() < whole {
                    return;
                }
                self.types.keep(replace_types(&mut self.held[5..whole]));
                self.ready.extend(self.held.drain(..whole));
            } else {
                let held = std::mem::take(&mut self.held);
                let end = self.scan(&held).unwrap_or(held.len());
                self.ready.extend_from_slice(&held[..end]);
                self.held = held[end..].to_vec();
            }
        }
    }
}

impl Place {
    fn of_body(left: u32) -> Self {
        if left == 0 { Self::Kind } else { Self::Body { left } }
    }
}

/// Reads the types of a description's columns and replaces the unknown ones. What breaks the form is left to the
/// client, which refuses it.
fn replace_types(body: &mut [u8]) -> Vec<u32> {
    let mut types = Vec::new();
    let Some(count) = body.first_chunk::<2>().map(|c| u16::from_be_bytes(*c)) else { return types };
    let mut at = 2;
    for _ in 0..count {
        let Some(name) = body.get(at..).and_then(|rest| rest.iter().position(|b| *b == 0)) else { break };
        // name, table (4), column (2), then the type (4), its size (2), modifier (4) and format (2)
        let start = at + name + 1 + 6;
        let Some(field) = body.get_mut(start..).and_then(|rest| rest.first_chunk_mut::<4>()) else { break };
        let oid = u32::from_be_bytes(*field);
        if Type::from_oid(oid).is_none() {
            *field = Type::TEXT.oid().to_be_bytes();
        }
        types.push(oid);
        at = start + 12;
    }
    types
}

impl<S: AsyncRead + Unpin> AsyncRead for KnownTypes<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if this.given < this.ready.len() {
                let rest = &this.ready[this.given..];
                let some = rest.len().min(buf.remaining());
                buf.put_slice(&rest[..some]);
                this.given += some;
                if this.given == this.ready.len() {
                    this.ready.clear();
                    this.given = 0;
                }
                return Poll::Ready(Ok(()));
            }
            let before = buf.filled().len();
            ready!(Pin::new(&mut this.inner).poll_read(cx, buf))?;
            if buf.filled().len() == before {
                return Poll::Ready(Ok(()));
            }
            let keep = if this.held.is_empty() {
                match this.scan(&buf.filled()[before..]) {
                    None => return Poll::Ready(Ok(())),
                    Some(at) => before + at,
                }
            } else {
                before
            };
            this.held.extend_from_slice(&buf.filled()[keep..]);
            buf.set_filled(keep);
            this.release();
            if keep > before {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for KnownTypes<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }
}

impl<S: TlsStream + Unpin> TlsStream for KnownTypes<S> {
    fn channel_binding(&self) -> ChannelBinding {
        self.inner.channel_binding()
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;
    use tokio::io::AsyncReadExt;

    use super::*;

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        [&[kind][..], &(body.len() as u32 + 4).to_be_bytes(), body].concat()
    }

    fn description(types: &[u32]) -> Vec<u8> {
        let mut body = (types.len() as u16).to_be_bytes().to_vec();
        for oid in types {
            body.extend(b"name\0\0\0\0\x07\0\x01");
            body.extend(oid.to_be_bytes());
            body.extend([0xff, 0xff, 0, 0, 0, 9, 0, 1]);
        }
        message(ROW_DESCRIPTION, &body)
    }

    /// Gives its bytes in pieces of these sizes.
    struct Pieces {
        bytes: Vec<u8>,
        sizes: Vec<usize>,
        turn: usize,
    }

    impl AsyncRead for Pieces {
        fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            let size = self.sizes[self.turn % self.sizes.len()].min(self.bytes.len()).min(buf.remaining());
            self.turn += 1;
            let piece: Vec<u8> = self.bytes.drain(..size).collect();
            buf.put_slice(&piece);
            Poll::Ready(Ok(()))
        }
    }

    proptest! {
        #[test]
        fn only_unknown_types_change_however_the_bytes_are_cut(
            messages in prop::collection::vec((any::<bool>(), prop::collection::vec(prop::sample::select(vec![20u32, 25, 4000, 6551, 3802]), 0..5)), 0..12),
            sizes in prop::collection::vec(1usize..40, 1..8),
        ) {
            let build = |shown: bool| -> Vec<u8> {
                messages.iter().flat_map(|(described, oids)| {
                    let known = |oid: &u32| if shown && matches!(oid, 4000 | 6551) { 25 } else { *oid };
                    if *described {
                        description(&oids.iter().map(known).collect::<Vec<_>>())
                    } else {
                        message(b'D', &oids.iter().flat_map(|o| o.to_be_bytes()).collect::<Vec<_>>())
                    }
                }).collect()
            };
            let types = ServerTypes::default();
            let source = Pieces { bytes: build(false), sizes, turn: 0 };
            let mut read = Vec::new();
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(KnownTypes::new(source, types.clone()).read_to_end(&mut read)).unwrap();
            prop_assert_eq!(read, build(true));
            let last = messages.iter().rev().find(|m| m.0).map(|m| m.1.clone()).unwrap_or_default();
            prop_assert_eq!(types.last(), last);
        }
    }
}
