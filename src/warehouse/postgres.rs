//! stub
use super::*;
pub const PROVIDER: Provider =
    Provider { name: "postgres", title: "", parameters: &[], build: |_| Err(WarehouseError::bug("")) };
