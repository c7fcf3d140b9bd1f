//! [`Client`]: the part that all generated blocking clients share.

use http::Extensions;
use prost::Message;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};

use super::asked::Asked;
use super::channel::Channel;
use super::encoded::Encoded;
use super::streaming::{Conversation, Streaming, single};
use crate::client::{WaitForReady, of_call};
use crate::descriptors::OfCall;
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

    /// Begins a call.
    ///
    /// # Errors
    ///
    /// FAILED_PRECONDITION if descriptors are to travel with it.
    fn asked(
        &self,
        method: Method,
        metadata: MetadataMap,
        mut extensions: Extensions,
    ) -> Result<Asked, Status> {
        let wait = extensions.get::<WaitForReady>().copied();
        let fields = self.options.fields(metadata);
        let mut asked = Asked::new(&self.channel, method.path(), fields, wait);
        match of_call(extensions.remove()) {
            OfCall(None) => Ok(asked),
            OfCall(Some(_)) => Err(asked.failed(Status::failed_precondition(
                "the request has file descriptors, and a blocking::Channel sends none: make the call on a \
                 samehost::Channel, with ChannelBuilder::descriptors",
            ))),
        }
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
        let (metadata, extensions, message) = request.into_parts();
        let mut message = Encoded::of(message, &self.options)?;
        let asked = self.asked(method, metadata, extensions)?;
        let (mut call, response) = asked.answer(&self.channel, &mut message)?;
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
        let (metadata, extensions, message) = request.into_parts();
        let mut message = Encoded::of(message, &self.options)?;
        let asked = self.asked(method, metadata, extensions)?;
        let (call, response) = asked.answer(&self.channel, &mut message)?;
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
        let (metadata, extensions, messages) = request.into_parts();
        let mut call = self.asked(method, metadata, extensions)?.begin(&self.channel)?;
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
        let (metadata, extensions, ()) = request.into_parts();
        let call = self.asked(method, metadata, extensions)?.begin(&self.channel)?;
        Ok(Conversation::new(call, &self.options))
    }
}
