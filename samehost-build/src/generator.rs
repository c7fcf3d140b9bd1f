//! [`Generator`]: generates the stubs of a service when prost's builder asks for them.

use prost_build::Service;

use crate::options::Options;
use crate::{client, server};

pub(crate) struct Generator(Options);

impl Generator {
    pub(crate) fn new(options: Options) -> Self {
        Self(options)
    }
}

impl prost_build::ServiceGenerator for Generator {
    fn generate(&mut self, service: Service, code: &mut String) {
        let Self(options) = self;
        if options.build_client {
            client::generate(&service, options, code);
        }
        if options.build_server {
            server::generate(&service, options, code);
        }
    }
}
