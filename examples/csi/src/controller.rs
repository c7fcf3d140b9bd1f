//! The Controller service: makes volumes and attaches them to nodes.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::ops::Bound;

use samehost::tonic::{self, Request, Response, Status};

use crate::csi::controller_server::Controller;
use crate::csi::controller_service_capability::{Rpc, Type, rpc};
use crate::csi::validate_volume_capabilities_response::Confirmed;
use crate::csi::*;
use crate::volumes::{self, CAPACITY, Volumes, given, size};

#[tonic::async_trait]
impl Controller for Volumes {
    async fn create_volume(
        &self,
        request: Request<CreateVolumeRequest>,
    ) -> Result<Response<CreateVolumeResponse>, Status> {
        let request = request.into_inner();
        given("name", &request.name)?;
        if request.volume_capabilities.is_empty() {
            return Err(Status::invalid_argument("volume_capabilities is missing"));
        }
        let mut volumes = self.lock();
        // Kubernetes repeats a call whose answer it has not seen: the name tells.
        if let Some((id, volume)) = volumes.iter().find(|(_, v)| v.name == request.name) {
            if !fits(volume.bytes, request.capacity_range) {
                return Err(Status::already_exists("it exists, with another size"));
            }
            return Ok(created(id, volume.bytes));
        }
        let bytes = size(request.capacity_range)?;
        if bytes > CAPACITY - used(&volumes) {
            return Err(Status::resource_exhausted("there is no room for such a volume"));
        }
        let id = format!("{:016x}", RandomState::new().hash_one(&request.name));
        let Entry::Vacant(entry) = volumes.entry(id.clone()) else {
            return Err(Status::aborted("its id is taken: try again"));
        };
        entry.insert(volumes::Volume {
            name: request.name,
            bytes,
            attached: BTreeMap::default(),
            paths: Default::default(),
        });
        Ok(created(&id, bytes))
    }

    async fn delete_volume(
        &self,
        request: Request<DeleteVolumeRequest>,
    ) -> Result<Response<DeleteVolumeResponse>, Status> {
        let id = request.into_inner().volume_id;
        given("volume_id", &id)?;
        // One that is not there has been deleted before.
        if let Entry::Occupied(entry) = self.lock().entry(id) {
            if !entry.get().attached.is_empty() || !entry.get().paths.is_empty() {
                return Err(Status::failed_precondition("the volume is in use"));
            }
            entry.remove();
        }
        Ok(Response::new(DeleteVolumeResponse {}))
    }

    async fn controller_publish_volume(
        &self,
        request: Request<ControllerPublishVolumeRequest>,
    ) -> Result<Response<ControllerPublishVolumeResponse>, Status> {
        let request = request.into_inner();
        given("node_id", &request.node_id)?;
        let capability = request.volume_capability.filter(|c| c.access_type.is_some());
        let capability = capability.ok_or(Status::invalid_argument("volume_capability"))?;
        self.with(&request.volume_id, |volume| {
            if request.node_id != self.node_id {
                return Err(Status::not_found(format!("there is no node {}", request.node_id)));
            }
            let wanted = (capability, request.readonly);
            match volume.attached.entry(request.node_id) {
                Entry::Occupied(is) if *is.get() != wanted => {
                    Err(Status::already_exists("it is attached to this node in another way"))
                }
                Entry::Occupied(_) => Ok(()),
                Entry::Vacant(entry) => {
                    entry.insert(wanted);
                    Ok(())
                }
            }
        })?;
        Ok(Response::new(ControllerPublishVolumeResponse { publish_context: Default::default() }))
    }

    async fn controller_unpublish_volume(
        &self,
        request: Request<ControllerUnpublishVolumeRequest>,
    ) -> Result<Response<ControllerUnpublishVolumeResponse>, Status> {
        let request = request.into_inner();
        given("volume_id", &request.volume_id)?;
        if let Some(volume) = self.lock().get_mut(&request.volume_id) {
            // Without a node it is meant from all of them.
            volume
                .attached
                .retain(|node, _| !request.node_id.is_empty() && *node != request.node_id);
        }
        Ok(Response::new(ControllerUnpublishVolumeResponse {}))
    }

    async fn validate_volume_capabilities(
        &self,
        request: Request<ValidateVolumeCapabilitiesRequest>,
    ) -> Result<Response<ValidateVolumeCapabilitiesResponse>, Status> {
        let request = request.into_inner();
        given("volume_id", &request.volume_id)?;
        if request.volume_capabilities.is_empty() {
            return Err(Status::invalid_argument("volume_capabilities is missing"));
        }
        self.with(&request.volume_id, |_| Ok(()))?;
        let confirmed = Confirmed {
            volume_context: request.volume_context,
            volume_capabilities: request.volume_capabilities,
            parameters: request.parameters,
        };
        Ok(Response::new(ValidateVolumeCapabilitiesResponse {
            confirmed: Some(confirmed),
            message: String::new(),
        }))
    }

    async fn list_volumes(
        &self,
        request: Request<ListVolumesRequest>,
    ) -> Result<Response<ListVolumesResponse>, Status> {
        let ListVolumesRequest { max_entries, starting_token } = request.into_inner();
        // A token is the id of the last volume of the page before.
        if !starting_token.is_empty() && u64::from_str_radix(&starting_token, 16).is_err() {
            return Err(Status::aborted("this starting_token was never given"));
        }
        let limit = match max_entries {
            ..0 => return Err(Status::invalid_argument("max_entries is negative")),
            0 => usize::MAX,
            limit => limit as usize,
        };
        let volumes = self.lock();
        let mut rest = volumes.range((Bound::Excluded(starting_token), Bound::Unbounded));
        let entries: Vec<_> = rest
            .by_ref()
            .take(limit)
            .map(|(id, volume)| list_volumes_response::Entry {
                volume: described(id, volume.bytes),
            })
            .collect();
        let next_token = match (rest.next(), entries.last()) {
            (Some(_), Some(last)) => last.volume.as_ref().map(|v| v.volume_id.clone()),
            _ => None,
        };
        Ok(Response::new(ListVolumesResponse {
            entries,
            next_token: next_token.unwrap_or_default(),
        }))
    }

    async fn get_capacity(
        &self,
        _: Request<GetCapacityRequest>,
    ) -> Result<Response<GetCapacityResponse>, Status> {
        let available_capacity = CAPACITY - used(&self.lock());
        Ok(Response::new(GetCapacityResponse { available_capacity }))
    }

    async fn controller_get_capabilities(
        &self,
        _: Request<ControllerGetCapabilitiesRequest>,
    ) -> Result<Response<ControllerGetCapabilitiesResponse>, Status> {
        let capabilities = [
            rpc::Type::CreateDeleteVolume,
            rpc::Type::PublishUnpublishVolume,
            rpc::Type::PublishReadonly,
            rpc::Type::ListVolumes,
            rpc::Type::GetCapacity,
            rpc::Type::ExpandVolume,
        ]
        .map(|capability| ControllerServiceCapability {
            r#type: Some(Type::Rpc(Rpc { r#type: capability.into() })),
        });
        Ok(Response::new(ControllerGetCapabilitiesResponse { capabilities: capabilities.into() }))
    }

    async fn controller_expand_volume(
        &self,
        request: Request<ControllerExpandVolumeRequest>,
    ) -> Result<Response<ControllerExpandVolumeResponse>, Status> {
        let request = request.into_inner();
        given("volume_id", &request.volume_id)?;
        if request.capacity_range.is_none() {
            return Err(Status::invalid_argument("capacity_range is missing"));
        }
        let bytes = size(request.capacity_range)?;
        let mut volumes = self.lock();
        let free = CAPACITY - used(&volumes);
        let Some(volume) = volumes.get_mut(&request.volume_id) else {
            return Err(Status::not_found("there is no such volume"));
        };
        if bytes - volume.bytes > free {
            return Err(Status::resource_exhausted("there is no room for such a volume"));
        }
        // A volume never shrinks.
        volume.bytes = volume.bytes.max(bytes);
        Ok(Response::new(ControllerExpandVolumeResponse {
            capacity_bytes: volume.bytes,
            node_expansion_required: true,
        }))
    }
}

fn created(id: &str, bytes: i64) -> Response<CreateVolumeResponse> {
    Response::new(CreateVolumeResponse { volume: described(id, bytes) })
}

fn described(id: &str, bytes: i64) -> Option<Volume> {
    Some(Volume { volume_id: id.into(), capacity_bytes: bytes, ..Volume::default() })
}

fn fits(bytes: i64, range: Option<CapacityRange>) -> bool {
    let range = range.unwrap_or_default();
    bytes >= range.required_bytes && (range.limit_bytes == 0 || bytes <= range.limit_bytes)
}

fn used(volumes: &BTreeMap<String, volumes::Volume>) -> i64 {
    volumes.values().map(|volume| volume.bytes).sum()
}
