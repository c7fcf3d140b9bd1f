//! [`Client`]: the part that all generated blocking clients share.

use http::Extensions;
use prost::Message;
use tonic::metadata::MetadataMap;
use tonic::service::Interceptor;
use tonic::{Request, Response, Status};

use super::call::BlockingCall;
use super::channel::Channel;
use super::encoded::Encoded;
use super::interceptor::{BoxInterceptor, boxed};
use super::request::BlockingRequest;
use super::streaming::{Conversation, Streaming, single};
use crate::client::{DirectResponse, WaitForReady, of_call};
use crate::descriptors::OfCall;
use crate::stubs::{ClientOptions, Method, whole};

/// The part that all generated blocking clients share. It is for generated code only, and changes
/// without notice.
#[derive(Clone, Debug)]
pub struct Client {
    channel: Channel,
    options: ClientOptions,
    interceptor: Option<BoxInterceptor>,
}

impl Client {
    /// Returns a client whose calls go through `channel`.
    pub fn new(channel: Channel) -> Self {
        Self { channel, options: ClientOptions::default(), interceptor: None }
    }

    /// Returns a client whose requests `interceptor` sees first.
    pub fn with_interceptor<F>(channel: Channel, interceptor: F) -> Self
    where
        F: Interceptor + Clone + Send + Sync + 'static,
    {
        Self { interceptor: Some(boxed(interceptor)), ..Self::new(channel) }
    }

    /// Returns the options of the client.
    pub fn options(&mut self) -> &mut ClientOptions {
        &mut self.options
    }

    /// Returns the parts of a request as the interceptor leaves them. It finds the method in a `GrpcMethod` among the
    /// request's extensions.
    ///
    /// # Errors
    ///
    /// The status by which the interceptor refuses the request.
    fn parts<M>(
        &mut self,
        method: Method,
        request: Request<M>,
    ) -> Result<(MetadataMap, Extensions, M), Status> {
        let (metadata, mut extensions, message) = request.into_parts();
        let Some(interceptor) = &mut self.interceptor else {
            return Ok((metadata, extensions, message));
        };
        extensions.insert(method.of_grpc());
        let request = interceptor.call(Request::from_parts(metadata, extensions, ()))?;
        let (metadata, extensions, ()) = request.into_parts();
        Ok((metadata, extensions, message))
    }

    /// Makes a call with one request, until the head of its response.
    fn answer<Q: Message>(
        &mut self,
        method: Method,
        request: Request<Q>,
    ) -> Result<(BlockingCall, DirectResponse), Status> {
        let (metadata, extensions, message) = self.parts(method, request)?;
        let mut message = Encoded::of(message, &self.options)?;
        self.request(method, metadata, extensions)?.answer(&self.channel, &mut message)
    }

    /// Returns the request of a call that begins.
    ///
    /// # Errors
    ///
    /// FAILED_PRECONDITION if descriptors are to travel with it.
    fn request(
        &self,
        method: Method,
        metadata: MetadataMap,
        mut extensions: Extensions,
    ) -> Result<BlockingRequest, Status> {
        let wait = extensions.get::<WaitForReady>().copied();
        let fields = self.options.fields(metadata);
        let mut request = BlockingRequest::new(&self.channel, method.path(), fields, wait);
        match of_call(extensions.remove()) {
            OfCall(None) => Ok(request),
            OfCall(Some(_)) => Err(request.failed(Status::failed_precondition(
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
        let (mut call, response) = self.answer(method, request)?;
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
        let (call, response) = self.answer(method, request)?;
        Streaming::new(call, response, &self.options)
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
        let (metadata, extensions, messages) = self.parts(method, request)?;
        let mut call = self.request(method, metadata, extensions)?.begin(&self.channel)?;
        call.read_early(self.options.most_received());
        for message in messages {
            let mut data = Vec::new();
            call.conclude(self.options.encode(&message, &mut data))?;
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
        let (metadata, extensions, ()) = self.parts(method, request)?;
        let call = self.request(method, metadata, extensions)?.begin(&self.channel)?;
        Ok(Conversation::new(call, &self.options))
    }
}
