//! A body on its way to local disk: bounded, decompressed, hashed.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures::{Stream, StreamExt};
use sha2::{Digest, Sha256};

use super::UploadError;

/// How a body is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    Identity,
    Gzip,
}

/// A body that has arrived.
#[derive(Debug)]
pub struct Body {
    /// Decompressed.
    pub path: PathBuf,
    pub bytes: u64,
    /// SHA-256, in hexadecimal.
    pub hash: String,
}

/// Writes the body into the folder. `limit` counts what comes in as well as what it is decompressed.
pub async fn receive<S, E>(folder: &Path, body: S, encoding: Encoding, limit: u64) -> Result<Body, UploadError>
where
    S: Stream<Item = Result<Bytes, E>> + Send,
    E: std::fmt::Display,
{
    let path = folder.join("body");
    let (sender, mut receiver) = tokio::sync::mpsc::channel::<Bytes>(8);
    let raw = path.clone();
    let writing = tokio::task::spawn_blocking(move || -> Result<(u64, String), UploadError> {
        let mut out = Hashed::new(File::create(&raw)?, limit);
        while let Some(bytes) = receiver.blocking_recv() {
            out.take(&bytes)?;
        }
        out.finish()
    });
    let mut body = std::pin::pin!(body);
    let mut broken = None;
    while let Some(next) = body.next().await {
        match next {
            Ok(bytes) => {
                // a writer that stopped says why itself
                if sender.send(bytes).await.is_err() {
                    break;
                }
            }
            Err(error) => {
                broken = Some(error.to_string());
                break;
            }
        }
    }
    drop(sender);
    let (bytes, hash) = writing.await.map_err(|e| crate::sync::SyncError::Bug(e.to_string()))??;
    if let Some(message) = broken {
        return Err(UploadError::BrokenOff(message));
    }
    if encoding == Encoding::Identity {
        return Ok(Body { path, bytes, hash });
    }
    let plain = folder.join("body-plain");
    let unpacking = tokio::task::spawn_blocking(move || unpack(&path, plain, limit));
    unpacking.await.map_err(|e| crate::sync::SyncError::Bug(e.to_string()))?
}

fn unpack(packed: &Path, plain: PathBuf, limit: u64) -> Result<Body, UploadError> {
    let mut unpacked = flate2::read::MultiGzDecoder::new(std::io::BufReader::new(File::open(packed)?));
    let mut out = Hashed::new(File::create(&plain)?, limit);
    let mut buffer = vec![0; 64 << 10];
    loop {
        let read = unpacked
            .read(&mut buffer)
            .map_err(|e| UploadError::NotThatFormat { format: "gzip", message: e.to_string() })?;
        if read == 0 {
            break;
        }
        out.take(&buffer[..read])?;
    }
    let (bytes, hash) = out.finish()?;
    std::fs::remove_file(packed)?;
    Ok(Body { path: plain, bytes, hash })
}

/// Writes, counts and hashes.
struct Hashed {
    out: std::io::BufWriter<File>,
    hash: Sha256,
    bytes: u64,
    limit: u64,
}

impl Hashed {
    fn new(file: File, limit: u64) -> Self {
        Self { out: std::io::BufWriter::with_capacity(256 << 10, file), hash: Sha256::new(), bytes: 0, limit }
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), UploadError> {
        self.bytes += bytes.len() as u64;
        if self.bytes > self.limit {
            return Err(UploadError::TooLarge { limit: self.limit });
        }
        self.hash.update(bytes);
        Ok(self.out.write_all(bytes)?)
    }

    fn finish(mut self) -> Result<(u64, String), UploadError> {
        self.out.flush()?;
        let hash = self.hash.finalize();
        Ok((self.bytes, hash.iter().map(|byte| format!("{byte:02x}")).collect()))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    async fn received(bytes: Vec<u8>, encoding: Encoding, limit: u64) -> Result<(Vec<u8>, String), UploadError> {
        let folder = tempfile::tempdir().unwrap();
        let chunks: Vec<Result<Bytes, String>> = bytes.chunks(7).map(|c| Ok(Bytes::copy_from_slice(c))).collect();
        let body = receive(folder.path(), futures::stream::iter(chunks), encoding, limit).await?;
        Ok((std::fs::read(&body.path).unwrap(), body.hash))
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[tokio::test]
    async fn compressed_or_not_it_is_the_same_body() {
        let text = b"{\"email\":\"ada@example.com\"}\n".repeat(100);
        let plain = received(text.clone(), Encoding::Identity, 1 << 20).await.unwrap();
        assert_eq!(received(gzip(&text), Encoding::Gzip, 1 << 20).await.unwrap(), plain);
        assert_eq!(plain.0, text);
    }

    #[tokio::test]
    async fn a_bomb_is_refused_before_it_is_unpacked() {
        let bomb = gzip(&vec![0; 4 << 20]);
        assert!(bomb.len() < 8 << 10);
        let error = received(bomb, Encoding::Gzip, 64 << 10).await.unwrap_err();
        assert!(matches!(error, UploadError::TooLarge { limit: 65_536 }), "{error}");
    }

    #[tokio::test]
    async fn what_breaks_off_is_refused() {
        let packed = gzip(&b"some text, then more of it ".repeat(50));
        let cut = packed[..packed.len() - 9].to_vec();
        let error = received(cut, Encoding::Gzip, 1 << 20).await.unwrap_err();
        assert!(matches!(error, UploadError::NotThatFormat { format: "gzip", .. }), "{error}");
        let broken = [Ok(Bytes::from_static(b"{}")), Err("connection reset")];
        let folder = tempfile::tempdir().unwrap();
        let error = receive(folder.path(), futures::stream::iter(broken), Encoding::Identity, 99).await.unwrap_err();
        assert!(matches!(error, UploadError::BrokenOff(_)), "{error}");
    }
}
