//! What the driver knows of its volumes: in memory, by id. Replace this with your storage; the
//! rules of the specification (what is repeated succeeds, what contradicts is refused) stay.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use samehost::tonic::Status;

use crate::csi::{CapacityRange, VolumeCapability};

/// How much all volumes together may have, in bytes.
pub const CAPACITY: i64 = 1 << 40;

/// What a volume gets whose request does not say how much, in bytes.
const DEFAULT_SIZE: i64 = 1 << 30;

pub struct Volumes {
    pub node_id: String,
    volumes: Mutex<BTreeMap<String, Volume>>,
}

pub struct Volume {
    pub name: String,
    pub bytes: i64,
    /// The nodes that it is attached to, each with what the request asked for.
    pub attached: BTreeMap<String, (VolumeCapability, bool)>,
    /// The paths where it is staged or published on this node.
    pub paths: BTreeSet<String>,
}

impl Volumes {
    pub fn new(node_id: String) -> Self {
        Self { node_id, volumes: Mutex::default() }
    }

    pub fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Volume>> {
        self.volumes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `action` on the volume `id`, or says that there is none.
    pub fn with<T>(
        &self,
        id: &str,
        action: impl FnOnce(&mut Volume) -> Result<T, Status>,
    ) -> Result<T, Status> {
        given("volume_id", id)?;
        match self.lock().get_mut(id) {
            Some(volume) => action(volume),
            None => Err(Status::not_found(format!("there is no volume {id}"))),
        }
    }
}

/// Refuses an empty field.
pub fn given(field: &str, value: &str) -> Result<(), Status> {
    match value {
        "" => Err(Status::invalid_argument(format!("{field} is missing"))),
        _ => Ok(()),
    }
}

/// Returns the size, in bytes, to make a volume that fits `range`.
pub fn size(range: Option<CapacityRange>) -> Result<i64, Status> {
    let CapacityRange { required_bytes: required, limit_bytes: limit } = range.unwrap_or_default();
    if required < 0 || limit < 0 {
        return Err(Status::invalid_argument("a size is negative"));
    }
    let size = if required > 0 { required } else { DEFAULT_SIZE };
    let size = if required == 0 && limit > 0 { size.min(limit) } else { size };
    if size > CAPACITY || limit > 0 && size > limit {
        return Err(Status::out_of_range("no volume can have such a size"));
    }
    Ok(size)
}
