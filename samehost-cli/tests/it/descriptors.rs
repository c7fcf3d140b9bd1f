//! `serve --descriptors`.

use std::fs::File;

use samehost::ping::{PingRequest, PingServiceClient};
use samehost::{Channel, Descriptors};
use tonic::{Code, Request, Status};

use crate::support::{Serving, block_on, directory, socket_in};

/// Calls a server that was started with `options`. The request has `count` descriptors.
fn call_with(options: &[&str], count: usize) -> Result<(), Status> {
    let directory = directory();
    let address = socket_in(directory.path());
    let _serving = Serving::start(&[&address.to_string()], options);
    block_on(async {
        let channel = Channel::builder(&address).descriptors(2).connect().await.unwrap();
        let mut request = Request::new(PingRequest::ping());
        let files: Vec<_> = (0..count).map(|_| File::open("/dev/null").unwrap().into()).collect();
        request.extensions_mut().insert(Descriptors::from(files));
        PingServiceClient::new(channel).ping(request).await.map(drop)
    })
}

#[test]
fn calls_bring_descriptors_only_to_a_server_with_the_option() {
    call_with(&["--descriptors", "1"], 1).unwrap();
    for (options, count) in [(&[] as &[_], 1), (&["--descriptors", "1"], 2)] {
        let status = call_with(options, count).unwrap_err();
        assert_eq!(status.code(), Code::FailedPrecondition, "{options:?}: {status:?}");
    }
}
