//! [`Client`]: the part that all generated blocking clients share.

use prost::Message;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};

use super::asked::Asked;
use super::channel::Channel;
use super::encoded::Encoded;
use super::streaming::{Conversation, Streaming, single};
use crate::stubs::{ClientOptions, Method, whole};

/// The part that all generated blocking clients share. It is for generated code only, and changes
/// without notice.
#[derive(Clone, Debug)]
pub struct Client {
    channel: Channel,
    options: ClientOptions,
}

impl Client {
    /// Returns a client whose calls go through `channel`.
    pub fn new(channel: Channel) -> Self {
        Self { channel, options: ClientOptions::default() }
    }

    /// Returns the options of the client.
    pub fn options(&mut self) -> &mut ClientOptions {
        &mut self.options
    }

    fn asked(&self, method: Method, metadata: MetadataMap) -> Asked {
        Asked::new(&self.channel, method.path(), self.options.fields(metadata))
    }

    /// Makes a call with one request and one response.
    pub fn unary<Q, R>(
        &mut self,
        method: Method,
        request: Request<Q>,
    ) -> Result<Response<R>, Status>
    where
        Q: Message,
        R: Message + Default,
    {
        let (metadata, mut message) = Encoded::of(request, &self.options)?;
        let (mut call, response) =
            self.asked(method, metadata).answer(&self.channel, &mut message)?;
        match call.take_content() {
            Some(content) => call.conclude(whole(response, content, &self.options)),
            None => single(call, response, &self.options),
        }
    }

    /// Makes a call with one request and a stream of responses.
    pub fn server_streaming<Q, R>(
        &mut self,
        method: Method,
        request: Request<Q>,
    ) -> Result<Response<Streaming<R>>, Status>
    where
        Q: Message,
        R: Message + Default,
    {
        let (metadata, mut message) = Encoded::of(request, &self.options)?;
        let (call, response) = self.asked(method, metadata).answer(&self.channel, &mut message)?;
        Ok(Streaming::new(call, response, &self.options))
    }

    /// Makes a call with a stream of requests and one response.
    pub fn client_streaming<Q, R, I>(
        &mut self,
        method: Method,
        request: Request<I>,
    ) -> Result<Response<R>, Status>
    where
        Q: Message,
        R: Message + Default,
        I: IntoIterator<Item = Q>,
    {
        let (metadata, _, messages) = request.into_parts();
        let mut call = self.asked(method, metadata).begin(&self.channel)?;
        for message in messages {
            let mut data = Vec::new();
            self.options.encode(&message, &mut data)?;
            if !call.send(data)? {
                break;
            }
        }
        call.finish();
        let response = call.head()?;
        single(call, response, &self.options)
    }

    /// Makes a call with streams in both directions.
    pub fn streaming<Q, R>(
        &mut self,
        method: Method,
        request: Request<()>,
    ) -> Result<Conversation<Q, R>, Status>
    where
        Q: Message,
        R: Message + Default,
    {
        let (metadata, _, ()) = request.into_parts();
        let call = self.asked(method, metadata).begin(&self.channel)?;
        Ok(Conversation::new(call, &self.options))
    }
}
