//! The bucket that results go through: folders, manifests, removal, and what its errors mean.

use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt;
use object_store::aws::AmazonS3Builder;
use object_store::path::Path;
use object_store::{BackoffConfig, ClientOptions, ObjectStore, ObjectStoreExt, RetryConfig};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use crate::warehouse::WarehouseError;
use crate::warehouse::redshift::config::UnloadConfig;
use crate::warehouse::text::chain;

/// How often a request that fails is tried again. The client goes on where a download stopped.
const RETRIES: usize = 6;

/// The configured bucket.
pub(in crate::warehouse::redshift) struct Bucket {
    pub(super) config: UnloadConfig,
    pub(super) store: Arc<dyn ObjectStore>,
}

impl std::fmt::Debug for Bucket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bucket").field("config", &self.config).finish_non_exhaustive()
    }
}

/// The folder of one unloading.
#[derive(Debug, Clone)]
pub(super) struct Folder(Path);

/// One file of a result.
#[derive(Debug, Clone)]
pub(super) struct File {
    pub path: Path,
    pub size: u64,
}

#[derive(Deserialize)]
struct Manifest {
    #[serde(default)]
    entries: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    url: String,
    #[serde(default)]
    meta: Option<Meta>,
}

#[derive(Deserialize)]
struct Meta {
    #[serde(default)]
    content_length: Option<u64>,
}

impl Bucket {
    pub(in crate::warehouse::redshift) fn new(config: &UnloadConfig) -> Result<Self, WarehouseError> {
        let mut client = ClientOptions::new()
            .with_connect_timeout(config.connect_timeout)
            // of a whole request: a row group at most
            .with_timeout(if config.idle_timeout.is_zero() { Duration::from_secs(3600) } else { config.idle_timeout });
        // what the AWS tools read from the environment: keys, region, endpoint, the role of the instance or container
        let mut builder = AmazonS3Builder::from_env().with_bucket_name(&config.bucket).with_retry(RetryConfig {
            max_retries: RETRIES,
            retry_timeout: Duration::from_secs(180),
            backoff: BackoffConfig::default(),
        });
        if let Some(region) = &config.region {
            builder = builder.with_region(region);
        }
        if let Some(endpoint) = &config.endpoint {
            builder = builder.with_endpoint(endpoint.as_str().trim_end_matches('/'));
            client = client.with_allow_http(endpoint.scheme() == "http");
        }
        if let (Some(id), Some(secret)) = (&config.access_key_id, &config.secret_access_key) {
            builder = builder.with_access_key_id(id.expose_secret()).with_secret_access_key(secret.expose_secret());
        }
        if let Some(token) = &config.session_token {
            builder = builder.with_token(token.expose_secret());
        }
        let store = builder.with_client_options(client).build().map_err(|e| {
            WarehouseError::configuration(format!("`unload_bucket` cannot be used: {e}")).with_hint(
                "give `s3_region`, and keys as `s3_access_key_id` and `s3_secret_access_key` or in the environment",
            )
        })?;
        Ok(Self { config: config.clone(), store: Arc::new(store) })
    }

    /// `s3://bucket/prefix`, for messages.
    pub(in crate::warehouse::redshift) fn url(&self) -> String {
        format!("s3://{}/{}", self.config.bucket, self.config.prefix)
    }

    /// A folder that no other unloading has.
    pub(super) fn new_folder(&self) -> Folder {
        let name = format!("cc-{}", uuid::Uuid::now_v7());
        Folder(Path::from(self.config.prefix.as_str()).join(name))
    }

    /// As `UNLOAD` takes it: file names are appended.
    pub(super) fn url_of(&self, folder: &Folder) -> String {
        format!("s3://{}/{}/", self.config.bucket, folder.0)
    }

    /// The files of a result, in the order of its manifest.
    pub(super) async fn files(&self, folder: &Folder, written: Option<u64>) -> Result<Vec<File>, WarehouseError> {
        let place = folder.0.clone().join("manifest");
        let body = match self.store.get(&place).await {
            Ok(found) => found.bytes().await.map_err(|e| self.failed(&e))?,
            // nothing was written for a result without rows
            Err(object_store::Error::NotFound { .. }) if written == Some(0) => return Ok(Vec::new()),
            Err(e) => return Err(self.failed(&e)),
        };
        let manifest: Manifest = serde_json::from_slice(&body)
            .map_err(|e| WarehouseError::bug(format!("the manifest of an UNLOAD cannot be read: {e}")))?;
        let here = self.url_of(folder);
        let mut files = Vec::with_capacity(manifest.entries.len());
        for Entry { url, meta } in manifest.entries {
            let name =
                url.strip_prefix(&here).filter(|name| !name.is_empty() && !name.contains("..")).ok_or_else(|| {
                    WarehouseError::bug("the manifest of an UNLOAD names a file that is not in its folder")
                })?;
            let path = name.split('/').fold(folder.0.clone(), |path, part| path.join(part));
            let size = match meta.and_then(|m| m.content_length) {
                Some(size) => size,
                None => self.store.head(&path).await.map_err(|e| self.failed(&e))?.size,
            };
            files.push(File { path, size });
        }
        Ok(files)
    }

    /// Removes a folder and what is in it. What cannot be removed is left to the bucket's lifecycle rule.
    pub(super) async fn remove(&self, folder: &Folder) {
        let found = self.store.list(Some(&folder.0)).map_ok(|object| object.location);
        let removed = self.store.delete_stream(Box::pin(found)).try_for_each(|_| async { Ok(()) }).await;
        if let Err(e) = removed {
            let e = self.failed(&e);
            tracing::warn!(error = %e, folder = %self.url_of(folder), "unloaded files could not be removed");
        }
    }

    /// What an error of the store means. Shows no key, whatever the service repeats of the request.
    pub(super) fn failed(&self, error: &object_store::Error) -> WarehouseError {
        use object_store::Error as Store;
        let text = self.redacted(chain(error));
        match error {
            Store::PermissionDenied { .. } | Store::Unauthenticated { .. } => WarehouseError::configuration(text)
                .with_hint("the keys of this connection need s3:ListBucket, s3:GetObject and s3:DeleteObject on `unload_bucket`"),
            Store::NotFound { .. } => WarehouseError::configuration(text).with_hint(
                "the bucket, or a file that Redshift wrote there, is missing: check `unload_bucket`, and that nothing removes young files",
            ),
            // keys that expired or do not exist are answered with 400 or 403
            Store::Generic { .. } if ["ExpiredToken", "InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken"].iter().any(|c| text.contains(c)) => {
                WarehouseError::configuration(text).with_hint("the S3 keys are wrong or have expired: renew them")
            }
            Store::Generic { .. } | Store::JoinError { .. } => {
                WarehouseError::retry(text).with_hint("S3 did not answer, or not to the end; try again")
            }
            _ => WarehouseError::configuration(text),
        }
    }

    fn redacted(&self, mut text: String) -> String {
        let UnloadConfig { access_key_id, secret_access_key, session_token, .. } = &self.config;
        for secret in [access_key_id, secret_access_key, session_token].into_iter().flatten() {
            let secret: &SecretString = secret;
            if !secret.expose_secret().is_empty() {
                text = text.replace(secret.expose_secret(), "…");
            }
        }
        text
    }
}
