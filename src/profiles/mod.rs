//! Reading profiles back: the wide view and the other tables in SQL, one profile by identity, a model's members.
//!
//! ```text
//! identities (founders) ──┬── identities of each field        -> user_id, email, …
//!                         └── records/<slug> ⋈ identities     -> cc_<slug>_<column>, _membership, _since
//! ```
//!
//! Nothing here is stored: a profile is a join, made anew for each query, of the versions that a [`Cut`] names. So
//! whatever cut is opened, past or present, is read in the same way (*time travel*), and what is published meanwhile
//! is not seen.
//!
//! A row of a record store belongs to the profile that owns its key as a value of the model's external key. While no
//! profile does, the row waits, and nothing here shows it but `records_<slug>`. The membership began at the later of
//! the row's entry (`_cc_since`) and the identity's (`created_at`).
//!
//! | Table | Columns | One row is |
//! |---|---|---|
//! | `profiles` | see below | a profile |
//! | `memberships` | `profile_id`, `model`, `since` | a profile in a model |
//! | `identities` | `profile_id`, `field`, `value`, `founder`, `run_id`, `created_at` | an identity value |
//! | `changes` | `run_id`, `at`, `model`, `change`, `profile_id`, `identity`, `before`, `after` | a change |
//! | `records_<slug>` | the key, the attributes, further identities, `_cc_since` | a row of the model's record store |
//!
//! | Column of `profiles` | Type | |
//! |---|---|---|
//! | `profile_id` | string | never null |
//! | `created_at` | timestamp | when the profile's founding identity was added |
//! | each identity field, as configured | string | null when the profile has none |
//! | then for each model, by slug: `cc_<slug>_<column>` | the column's value type | null when not in the model |
//! | `cc_<slug>_membership` | bool | never null |
//! | `cc_<slug>_since` | timestamp | null when not in the model |
//!
//! - A profile that owns several values of a field shows the newest (then the smallest); `identities` has them all.
//! - A profile with several rows in a model shows the one whose membership began first (then that with the smallest
//!   key hash), and all that is said of the membership is of that row.
//! - The attributes are those that the record store has at the cut, whatever the model activates now. Of a model that
//!   was never published, the activated fields are null strings.
//!
//! Actors: a [`ProfileReader`] is opened on a cut, and asked. Invariants: it never writes; a query opens only the
//! data files of models whose columns it names; memory for queries is bounded by the limit given, sorts and
//! aggregations spill, and joins become sort-merge joins where a hash table would not fit.

mod changes;
mod error;
mod files;
mod lookup;
mod members;
pub mod serving;
mod session;
mod tables;
#[cfg(test)]
mod tests;
mod wide;

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::prelude::SessionContext;

pub use changes::{Change, Changes, NotAPosition, Position, WantedChanges};
pub use error::ProfilesError;
pub use lookup::{LookupOptions, Profile};
pub use members::Member;

use crate::model::Model;
use crate::store::{Cut, Store};
use lookup::Lookup;
use tables::Tables;

/// What reading needs to know of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelShape {
    pub slug: String,
    /// The identity field that the primary key is matched with.
    pub external_key: String,
    pub primary_key: String,
    pub activated_fields: Vec<String>,
    /// Further identity fields that the result carries: no attributes, unless activated too.
    pub identities: Vec<String>,
}

impl From<&Model> for ModelShape {
    fn from(model: &Model) -> Self {
        Self {
            slug: model.slug.clone(),
            external_key: model.external_key.clone(),
            primary_key: model.primary_key.clone(),
            activated_fields: model.activated_fields.clone(),
            identities: model.identities.clone(),
        }
    }
}

/// Reads the profiles of one cut through the store.
pub struct ProfileReader {
    tables: Arc<Tables>,
    lookup: Lookup,
    session: SessionContext,
}

impl std::fmt::Debug for ProfileReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProfileReader").field("tables", &self.tables).finish_non_exhaustive()
    }
}

impl ProfileReader {
    /// Opens the tables that the cut names. Reads their logs, no data. `memory_limit` is for queries, in bytes.
    ///
    /// # Errors
    /// When a table of the cut is gone, or two columns of the wide view would have one name.
    pub async fn open(
        store: &Store,
        cut: &Cut,
        models: &[ModelShape],
        identity_fields: &[String],
        memory_limit: u64,
    ) -> Result<Self, ProfilesError> {
        let tables = Arc::new(Tables::load(store, cut, models, identity_fields).await?);
        let session = session::open(store, &tables, memory_limit)?;
        let lookup = Lookup::new(tables.clone(), LookupOptions::default());
        Ok(Self { tables, lookup, session })
    }

    /// Changes how profiles are looked up.
    pub fn with_lookup(mut self, options: LookupOptions) -> Self {
        self.lookup = Lookup::new(self.tables.clone(), options);
        self
    }

    /// The session that [`Self::sql`] runs in. It does not itself refuse what is no query, but has nothing to change.
    pub fn session(&self) -> SessionContext {
        self.session.clone()
    }

    /// The columns of `profiles`.
    pub async fn schema(&self) -> Result<SchemaRef, ProfilesError> {
        session::schema_of(&self.session, "profiles").await
    }

    /// Runs a query over the tables listed above.
    ///
    /// # Errors
    /// [`ProfilesError::NotAQuery`] for anything that is not SELECT, EXPLAIN, DESCRIBE or SHOW; else what is wrong with
    /// the query, at once or (such as a division by zero) from the stream.
    pub async fn sql(&self, query: &str) -> Result<SendableRecordBatchStream, ProfilesError> {
        let plan = session::query_plan(&self.session, query).await?;
        Ok(Box::pin(self.session.execute_logical_plan(plan)).await?.execute_stream().await?)
    }

    /// The members of a model: `profile_id`, `identity` (the normalized external key), `since`; in no order.
    pub async fn members(&self, slug: &str) -> Result<SendableRecordBatchStream, ProfilesError> {
        let model = self.tables.model(slug)?;
        let plan = match self.tables.members(model, &[], None).await? {
            Some(members) => members.build()?,
            None => tables::no_members()?,
        };
        Ok(Box::pin(self.session.execute_logical_plan(plan)).await?.execute_stream().await?)
    }

    /// The profile that owns this value of an identity field; the value as its normalization leaves it.
    ///
    /// # Errors
    /// [`ProfilesError::UnknownField`] when the field identifies nobody.
    pub async fn lookup(&self, field: &str, value: &str) -> Result<Option<Profile>, ProfilesError> {
        self.lookup.by_identity(field, value).await
    }

    /// The profile with that id.
    pub async fn profile_by_id(&self, profile_id: &str) -> Result<Option<Profile>, ProfilesError> {
        self.lookup.by_id(profile_id).await
    }

    /// Builds the lookup indexes now rather than at the first lookup, if [`LookupOptions::index`] asks for any.
    /// Their memory, in bytes: 0 when there are none.
    pub async fn warm(&self) -> Result<u64, ProfilesError> {
        self.lookup.warm().await
    }
}
