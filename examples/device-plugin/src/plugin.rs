//! The DevicePlugin service.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use samehost::tonic::codegen::BoxStream;
use samehost::tonic::{self, Request, Response, Status};
use tokio::sync::watch;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::WatchStream;

use crate::v1beta1::device_plugin_server::DevicePlugin;
use crate::v1beta1::*;

/// How often to look whether the devices are there.
const CHECK: Duration = Duration::from_secs(1);

#[derive(Clone)]
pub struct Plugin {
    paths: Arc<[PathBuf]>,
    devices: watch::Receiver<Vec<Device>>,
}

impl Plugin {
    /// Starts to watch the health of the device files at `paths`.
    pub fn new(paths: Vec<PathBuf>) -> Self {
        let paths: Arc<[PathBuf]> = paths.into();
        let (sender, devices) = watch::channel(look(&paths));
        let watched = Arc::clone(&paths);
        tokio::spawn(async move {
            while !sender.is_closed() {
                tokio::time::sleep(CHECK).await;
                let now = look(&watched);
                sender.send_if_modified(|before| {
                    let changed = *before != now;
                    *before = now;
                    changed
                });
            }
        });
        Self { paths, devices }
    }
}

/// Returns the devices, each with its state. A device's id is its place in the list: ids may not
/// have slashes.
fn look(paths: &[PathBuf]) -> Vec<Device> {
    let health = |path: &PathBuf| if path.exists() { "Healthy" } else { "Unhealthy" };
    let device = |(id, path)| Device { id: usize::to_string(&id), health: health(path).into() };
    paths.iter().enumerate().map(device).collect()
}

#[tonic::async_trait]
impl DevicePlugin for Plugin {
    async fn get_device_plugin_options(
        &self,
        _: Request<Empty>,
    ) -> Result<Response<DevicePluginOptions>, Status> {
        Ok(Response::new(DevicePluginOptions {}))
    }

    type ListAndWatchStream = BoxStream<ListAndWatchResponse>;

    /// Sends the devices at once, and again whenever one has changed.
    async fn list_and_watch(
        &self,
        _: Request<Empty>,
    ) -> Result<Response<Self::ListAndWatchStream>, Status> {
        let changes = WatchStream::new(self.devices.clone());
        let lists = changes.map(|devices| Ok(ListAndWatchResponse { devices }));
        Ok(Response::new(Box::pin(lists)))
    }

    async fn allocate(
        &self,
        request: Request<AllocateRequest>,
    ) -> Result<Response<AllocateResponse>, Status> {
        let containers = request.into_inner().container_requests.into_iter();
        let container_responses = containers
            .map(|container| {
                let ids = container.devices_ids.iter();
                let devices = ids.map(|id| self.device(id)).collect::<Result<_, _>>()?;
                Ok(ContainerAllocateResponse { devices })
            })
            .collect::<Result<_, Status>>()?;
        Ok(Response::new(AllocateResponse { container_responses }))
    }
}

impl Plugin {
    /// Returns what a container is given for the device `id`: its file, under the same path.
    fn device(&self, id: &str) -> Result<DeviceSpec, Status> {
        let path = id.parse().ok().and_then(|place: usize| self.paths.get(place));
        let path = path.ok_or_else(|| Status::not_found(format!("there is no device {id}")))?;
        let path = path.to_string_lossy().into_owned();
        Ok(DeviceSpec { container_path: path.clone(), host_path: path, permissions: "rw".into() })
    }
}
