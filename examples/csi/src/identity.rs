//! The Identity service: what this driver is called and what it can do.

use samehost::tonic::{self, Request, Response, Status};

use crate::csi::identity_server::Identity;
use crate::csi::plugin_capability::{self, Service, VolumeExpansion, service, volume_expansion};
use crate::csi::*;
use crate::volumes::Volumes;

#[tonic::async_trait]
impl Identity for Volumes {
    async fn get_plugin_info(
        &self,
        _: Request<GetPluginInfoRequest>,
    ) -> Result<Response<GetPluginInfoResponse>, Status> {
        Ok(Response::new(GetPluginInfoResponse {
            name: "memory.samehost.example".into(),
            vendor_version: env!("CARGO_PKG_VERSION").into(),
        }))
    }

    async fn get_plugin_capabilities(
        &self,
        _: Request<GetPluginCapabilitiesRequest>,
    ) -> Result<Response<GetPluginCapabilitiesResponse>, Status> {
        let controller = Service { r#type: service::Type::ControllerService.into() };
        let expansion = VolumeExpansion { r#type: volume_expansion::Type::Online.into() };
        let capabilities = [
            plugin_capability::Type::Service(controller),
            plugin_capability::Type::VolumeExpansion(expansion),
        ]
        .map(|capability| PluginCapability { r#type: Some(capability) });
        Ok(Response::new(GetPluginCapabilitiesResponse { capabilities: capabilities.into() }))
    }

    async fn probe(&self, _: Request<ProbeRequest>) -> Result<Response<ProbeResponse>, Status> {
        Ok(Response::new(ProbeResponse { ready: Some(true) }))
    }
}
