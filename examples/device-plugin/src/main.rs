//! A device plugin for Kubernetes: tells kubelet which devices this node has, and gives them to
//! containers. The devices are device files, healthy as long as they are there.
//!
//! ```sh
//! example-device-plugin /var/lib/kubelet/device-plugins example.com/tape /dev/st0 /dev/st1
//! ```
//!
//! kubelet removes all sockets from its directory when it starts. This plugin watches the directory,
//! and then binds and registers again.

mod plugin;

use std::error::Error;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::{RecursiveMode, Watcher};
use samehost::{Address, Channel, Listener, Server};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;

mod v1beta1 {
    samehost::include_proto!("v1beta1");
}

use plugin::Plugin;
use v1beta1::RegisterRequest;
use v1beta1::device_plugin_server::DevicePluginServer;
use v1beta1::registration_client::RegistrationClient;

/// The name of this plugin's socket in kubelet's directory.
const ENDPOINT: &str = "samehost-example.sock";

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(directory), Some(resource)) = (arguments.next(), arguments.next()) else {
        return Err("usage: example-device-plugin DIRECTORY RESOURCE DEVICE...".into());
    };
    let directory = PathBuf::from(directory);
    let plugin = Plugin::new(arguments.map(PathBuf::from).collect());

    // Tells of whatever changes in the directory. It watches before there is anything to lose.
    let changed = Arc::new(Notify::new());
    let mut watcher = notify::recommended_watcher({
        let changed = Arc::clone(&changed);
        move |_| changed.notify_one()
    })?;
    watcher.watch(&directory, RecursiveMode::NonRecursive)?;

    let mut terminate = signal(SignalKind::terminate())?;
    loop {
        tokio::select! {
            served = serve(&plugin, &directory, &resource, &changed) => served?,
            _ = terminate.recv() => return Ok(()),
        }
        println!("the socket is gone: registering again");
    }
}

/// Serves the plugin and registers it, until its socket is gone from the directory.
async fn serve(
    plugin: &Plugin,
    directory: &Path,
    resource: &str,
    changed: &Notify,
) -> Result<(), Box<dyn Error>> {
    let path = directory.join(ENDPOINT);
    let listener = Listener::bind(&Address::unix(&path)?).await?;
    let bound = inode(&path)?;
    let serving =
        Server::new().add_service(DevicePluginServer::new(plugin.clone())).serve(listener);
    let gone = async {
        while bound.is_some() && inode(&path)? == bound {
            changed.notified().await;
        }
        io::Result::Ok(())
    };
    // What is left over when one of them has ended is dropped: the server closes its connections.
    tokio::select! {
        served = serving => Ok(served?),
        gone = gone => Ok(gone?),
        never = register(directory, resource) => never,
    }
}

/// Tells kubelet of this plugin, as soon as kubelet is there. Ends only by an error.
async fn register(directory: &Path, resource: &str) -> Result<(), Box<dyn Error>> {
    let kubelet = Address::unix(directory.join("kubelet.sock"))?;
    let channel = Channel::builder(&kubelet).wait_for_ready(true).connect_lazy();
    let request = RegisterRequest {
        version: "v1beta1".into(),
        endpoint: ENDPOINT.into(),
        resource_name: resource.into(),
    };
    // One that is stopping may take the call and never answer it.
    while let Err(status) = RegistrationClient::new(channel.clone()).register(request.clone()).await
    {
        eprintln!("not registered: {status}");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    println!("registered {resource}");
    std::future::pending().await
}

/// Returns the inode's number of the socket at `path`, if there is one.
fn inode(path: &Path) -> io::Result<Option<u64>> {
    match fs::symlink_metadata(path) {
        Ok(metadata) => Ok(Some(metadata.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
