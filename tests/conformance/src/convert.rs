//! The suite's headers and errors in http's and tonic's words, and back.

use http::{HeaderMap, HeaderName, HeaderValue};
use prost::Message;
use prost_types::Any;
use tonic::Status;

use crate::pb::{Error, Header, rpc};

/// Names are appended as often as they have values.
pub fn to_map(headers: &[Header]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for header in headers {
        let Ok(name) = HeaderName::try_from(&*header.name) else { continue };
        for value in &header.value {
            if let Ok(value) = HeaderValue::try_from(value) {
                map.append(name.clone(), value);
            }
        }
    }
    map
}

pub fn from_map(map: &HeaderMap) -> Vec<Header> {
    let header = |name: &HeaderName| Header {
        name: name.as_str().to_owned(),
        value: map
            .get_all(name)
            .iter()
            .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
            .collect(),
    };
    map.keys().map(header).collect()
}

/// `message` as the type `name` of the suite.
pub fn any(name: &str, message: &impl Message) -> Any {
    Any {
        type_url: format!("type.googleapis.com/connectrpc.conformance.v1.{name}"),
        value: message.encode_to_vec(),
    }
}

pub fn to_status(error: &Error, more: Option<Any>) -> Status {
    let mut details = error.details.clone();
    details.extend(more);
    let message = error.message.clone().unwrap_or_default();
    let details = if details.is_empty() {
        Vec::new()
    } else {
        rpc::Status { code: error.code, message: message.clone(), details }.encode_to_vec()
    };
    Status::with_details(tonic::Code::from_i32(error.code), message, details.into())
}

pub fn from_status(status: &Status) -> Error {
    let details = rpc::Status::decode(status.details()).unwrap_or_default().details;
    Error { code: status.code() as i32, message: Some(status.message().to_owned()), details }
}
