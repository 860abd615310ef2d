//! A file's bytes, decompressed, as a stream of chunks.

use std::io::{Read, Seek, SeekFrom};
use std::sync::Arc;

use bytes::Bytes;
use datafusion::common::DataFusionError;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::{GetResultPayload, ObjectMeta, ObjectStore, ObjectStoreExt};

use super::table::Compression;

/// Bytes of a local file read at once. The store's own stream reads 8 KiB at a time, each on another thread.
const CHUNK: usize = 1 << 20;

pub(super) type Chunks = BoxStream<'static, Result<Bytes, DataFusionError>>;

/// The decompressed content of a file.
pub(super) async fn read(
    store: &Arc<dyn ObjectStore>,
    file: &ObjectMeta,
    compression: Compression,
) -> Result<Chunks, DataFusionError> {
    let found = store.get(&file.location).await?;
    let range = found.range.clone();
    let raw = match found.payload {
        GetResultPayload::Stream(stream) => stream.map_err(DataFusionError::from).boxed(),
        GetResultPayload::File(mut file, _) => {
            file.seek(SeekFrom::Start(range.start))?;
            from_file(file.take(range.end.saturating_sub(range.start)))
        }
    };
    compression.codec().convert_stream(raw)
}

fn from_file<R: Read + Send + 'static>(file: R) -> Chunks {
    let chunks = futures::stream::try_unfold(file, |mut file| async move {
        let read = tokio::task::spawn_blocking(move || {
            let mut chunk = Vec::with_capacity(CHUNK);
            let count = file.by_ref().take(CHUNK as u64).read_to_end(&mut chunk)?;
            Ok::<_, std::io::Error>((count > 0).then(|| (Bytes::from(chunk), file)))
        });
        let read = read.await.map_err(|e| DataFusionError::ExecutionJoin(Box::new(e)))?;
        Ok(read?)
    });
    chunks.boxed()
}
