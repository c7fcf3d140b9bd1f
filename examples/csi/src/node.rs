//! The Node service: brings volumes to the paths where kubelet wants them. A real driver formats
//! and mounts in these calls; this one makes the directory and remembers it.

use std::io;
use std::path::Path;

use samehost::tonic::{self, Request, Response, Status};

use crate::csi::node_server::Node;
use crate::csi::node_service_capability::{Rpc, Type, rpc};
use crate::csi::volume_usage::Unit;
use crate::csi::*;
use crate::volumes::{Volumes, given};

#[tonic::async_trait]
impl Node for Volumes {
    async fn node_stage_volume(
        &self,
        request: Request<NodeStageVolumeRequest>,
    ) -> Result<Response<NodeStageVolumeResponse>, Status> {
        let request = request.into_inner();
        given("staging_target_path", &request.staging_target_path)?;
        has_capability(request.volume_capability.as_ref())?;
        self.with(&request.volume_id, |volume| {
            volume.paths.insert(request.staging_target_path);
            Ok(Response::new(NodeStageVolumeResponse {}))
        })
    }

    async fn node_unstage_volume(
        &self,
        request: Request<NodeUnstageVolumeRequest>,
    ) -> Result<Response<NodeUnstageVolumeResponse>, Status> {
        let request = request.into_inner();
        given("staging_target_path", &request.staging_target_path)?;
        self.with(&request.volume_id, |volume| {
            volume.paths.remove(&request.staging_target_path);
            Ok(Response::new(NodeUnstageVolumeResponse {}))
        })
    }

    async fn node_publish_volume(
        &self,
        request: Request<NodePublishVolumeRequest>,
    ) -> Result<Response<NodePublishVolumeResponse>, Status> {
        let request = request.into_inner();
        given("target_path", &request.target_path)?;
        has_capability(request.volume_capability.as_ref())?;
        self.with(&request.volume_id, |volume| {
            if !volume.paths.contains(&request.staging_target_path) {
                return Err(Status::failed_precondition("the volume is not staged there"));
            }
            // The driver makes the target; its parent is there.
            match std::fs::create_dir(&request.target_path) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(Status::internal(format!("{}: {error}", request.target_path)));
                }
                _ => {}
            }
            volume.paths.insert(request.target_path);
            Ok(Response::new(NodePublishVolumeResponse {}))
        })
    }

    async fn node_unpublish_volume(
        &self,
        request: Request<NodeUnpublishVolumeRequest>,
    ) -> Result<Response<NodeUnpublishVolumeResponse>, Status> {
        let request = request.into_inner();
        given("target_path", &request.target_path)?;
        self.with(&request.volume_id, |volume| {
            if volume.paths.remove(&request.target_path) {
                // The driver made the target and removes it.
                std::fs::remove_dir(&request.target_path).map_err(|error| {
                    Status::internal(format!("{}: {error}", request.target_path))
                })?;
            }
            Ok(Response::new(NodeUnpublishVolumeResponse {}))
        })
    }

    async fn node_get_volume_stats(
        &self,
        request: Request<NodeGetVolumeStatsRequest>,
    ) -> Result<Response<NodeGetVolumeStatsResponse>, Status> {
        let request = request.into_inner();
        given("volume_path", &request.volume_path)?;
        self.with(&request.volume_id, |volume| {
            if !volume.paths.contains(&request.volume_path)
                || !Path::new(&request.volume_path).exists()
            {
                return Err(Status::not_found("the volume is not at this path"));
            }
            let usage = VolumeUsage {
                available: volume.bytes,
                total: volume.bytes,
                used: 0,
                unit: Unit::Bytes.into(),
            };
            Ok(Response::new(NodeGetVolumeStatsResponse { usage: vec![usage] }))
        })
    }

    async fn node_expand_volume(
        &self,
        request: Request<NodeExpandVolumeRequest>,
    ) -> Result<Response<NodeExpandVolumeResponse>, Status> {
        let request = request.into_inner();
        given("volume_path", &request.volume_path)?;
        self.with(&request.volume_id, |volume| {
            if !volume.paths.contains(&request.volume_path) {
                return Err(Status::not_found("the volume is not at this path"));
            }
            Ok(Response::new(NodeExpandVolumeResponse { capacity_bytes: volume.bytes }))
        })
    }

    async fn node_get_capabilities(
        &self,
        _: Request<NodeGetCapabilitiesRequest>,
    ) -> Result<Response<NodeGetCapabilitiesResponse>, Status> {
        let capabilities =
            [rpc::Type::StageUnstageVolume, rpc::Type::GetVolumeStats, rpc::Type::ExpandVolume]
                .map(|capability| NodeServiceCapability {
                    r#type: Some(Type::Rpc(Rpc { r#type: capability.into() })),
                });
        Ok(Response::new(NodeGetCapabilitiesResponse { capabilities: capabilities.into() }))
    }

    async fn node_get_info(
        &self,
        _: Request<NodeGetInfoRequest>,
    ) -> Result<Response<NodeGetInfoResponse>, Status> {
        Ok(Response::new(NodeGetInfoResponse {
            node_id: self.node_id.clone(),
            max_volumes_per_node: 0,
        }))
    }
}

fn has_capability(capability: Option<&VolumeCapability>) -> Result<(), Status> {
    match capability {
        Some(capability) if capability.access_type.is_some() => Ok(()),
        _ => Err(Status::invalid_argument("volume_capability is missing")),
    }
}
